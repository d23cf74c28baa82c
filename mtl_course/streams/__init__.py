"""Tasks that arrive one after another: what is forgotten, what keeps it, and forecasts that learn
on.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Stream": "stream",
        "split_classes": "stream",
        "learn": "stream",
        "learn_jointly": "stream",
        "only": "stream",
        "accuracies": "stream",
        "average_accuracy": "stream",
        "backward_transfer": "stream",
        "forward_transfer": "stream",
        "forgetting": "stream",
        "Reservoir": "memories",
        "Replay": "memories",
        "fisher_diagonal": "memories",
        "ewc_penalty": "memories",
        "Ewc": "memories",
        "distillation_loss": "memories",
        "Distillation": "memories",
        "prequential": "online",
        "Linear": "online",
        "OnlineSgd": "online",
        "Rls": "online",
        "Window": "online",
    },
)
