"""Tasks that arrive one after another: what is forgotten, what keeps it, online forecasts."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # a stream of classes, and learning it
        "Stream": "stream",  # tasks in their order of arrival
        "class_stream": "stream",  # cut a set of classes into one
        "single_task": "stream",  # one task of it alone
        "learn": "stream",  # one task after another: the accuracy matrix
        "learn_jointly": "stream",  # all at once
        "accuracies": "stream",  # on each task, now
        # scores of the accuracy matrix
        "average_accuracy": "stream",  # after the last task
        "backward_transfer": "stream",  # what later tasks did to earlier ones
        "forward_transfer": "stream",  # what earlier tasks did for later ones
        "forgetting": "stream",  # the best accuracy minus the last
        # what is kept of earlier tasks
        "Reservoir": "memories",  # a fair sample of a stream
        "Replay": "memories",  # examples
        "DarkReplay": "memories",  # examples, and the logits they had
        "fisher_diagonal": "memories",  # which parameters matter to a classifier
        "ewc_penalty": "memories",  # the pull towards the anchor
        "Ewc": "memories",  # an anchor and a Fisher diagonal
        "distillation_loss": "memories",  # distance to another network's outputs
        "Distillation": "memories",  # the old network
        # forecasts that learn on, one example at a time
        "prequential": "online",  # errors of forecasting, then learning
        "Linear": "online",  # never learns
        "OnlineSgd": "online",  # a normalised gradient step
        "Rls": "online",  # recursive least squares with forgetting
        "Window": "online",  # ridge regression on the last examples
    },
)
