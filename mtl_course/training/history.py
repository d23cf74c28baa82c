"""What a training run leaves behind besides the weights: one value an epoch, and which epoch was
best.
"""

from dataclasses import dataclass, field


@dataclass
class History:
    """Losses of a run, one value an epoch, and the epoch (from 1) whose weights the model has now;
    0 is the model as it came.
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
