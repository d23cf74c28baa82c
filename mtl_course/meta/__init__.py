"""Learning to learn: starts from which a few steps suffice, and few-shot classifiers."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # a model as a function of its parameters
        "Functional": "functional",  # f(params, x)
        # a start from which a few steps suffice
        "adapt": "maml",  # a few steps on one task
        "objective": "maml",  # the loss as a function of the parameters
        "meta_losses": "maml",  # query losses after adapting: MAML, FOMAML, ANIL, Meta-SGD
        "meta_backward": "maml",  # the meta-gradient, to .grad
        "mixed_losses": "maml",  # meta-batches with tasks of several kinds
        "learned_rates": "maml",  # Meta-SGD's rate for each parameter
        "reptile_backward": "maml",  # the way to the mean of the adapted parameters
        "require_finite": "maml",  # says where an inner loop diverged
        # the loop around it
        "fit_episodes": "fit",  # new tasks at every step, validation on fixed ones
        # classes from a few examples
        "prototypes": "few_shot",  # the mean feature of each class
        "distance_logits": "few_shot",  # minus squared distances
        "embed": "few_shot",  # features of supports and queries in one pass
        "prototype_logits": "few_shot",  # a prototypical network
        "with_statistics": "few_shot",  # BatchNorm by one batch's statistics
        "query_losses": "few_shot",  # cross-entropy per task
        "query_accuracy": "few_shot",  # share of right queries per task
        "CosineHead": "few_shot",  # logits by direction alone
        "fine_tuned_logits": "few_shot",  # Baseline, Baseline++
        "adapted_logits": "few_shot",  # MAML at test time
        "episode_accuracy": "few_shot",  # accuracy on many episodes, the same for all
        "interval": "few_shot",  # mean over tasks and its 95 % interval
        # a network that reads the examples, and no inner loop
        "InContext": "in_context",  # a Transformer from examples and questions to answers
        "episode_mask": "in_context",  # everyone looks at the examples, no one at a question
        "episode_losses": "in_context",  # how far the answers are off, per task
        "scaled_columns": "in_context",  # a table in units that its examples give
        "answer": "in_context",  # a table that the network has never seen
        "linear_tasks": "in_context",  # a prior of lines
        "ridge": "in_context",  # and its best answer, in closed form
        "table_tasks": "in_context",  # a prior of small tables with two classes
    },
)
