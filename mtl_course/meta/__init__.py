"""Learning to learn: starts from which a few steps suffice, and few-shot classifiers."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "adapt": "maml",
        "objective": "maml",
        "meta_losses": "maml",
        "meta_backward": "maml",
        "mixed_losses": "maml",
        "learned_rates": "maml",
        "reptile_backward": "maml",
        "require_finite": "maml",
        "Functional": "functional",
        "fit_episodes": "fit",
        "prototypes": "few_shot",
        "distance_logits": "few_shot",
        "embed": "few_shot",
        "prototype_logits": "few_shot",
        "with_statistics": "few_shot",
        "query_losses": "few_shot",
        "query_accuracy": "few_shot",
        "CosineHead": "few_shot",
        "fine_tuned_logits": "few_shot",
        "adapted_logits": "few_shot",
        "episode_accuracy": "few_shot",
        "interval": "few_shot",
    },
)
