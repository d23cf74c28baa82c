"""What a training run leaves behind besides the weights: its losses, and which epoch was best."""

from dataclasses import dataclass, field


@dataclass
class History:
    """Losses of a run, one value per epoch, and the epoch whose weights the model has now.

    Args:
        train: training losses.
        validation: validation losses.
        best_epoch: counted from 1; 0 is the model as it came.

    Example:
        >>> history = History(train=[0.9, 0.5, 0.4], validation=[0.8, 0.6, 0.7], best_epoch=2)
        >>> history.validation[history.best_epoch - 1]
        0.6
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
