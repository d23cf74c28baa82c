"""What a training run leaves behind besides the weights: one value an epoch, and which epoch was best."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .tasks import Task, delta_m


@dataclass
class History:
    """Losses of a run, one value an epoch, and the epoch (from 1) whose weights the model has now; 0 is the model as it came."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass
class TaskHistory(History):
    """A run over several tasks. `losses` and `metrics`: task -> one validation value an epoch, in the task's own unit.

    `initial`: task -> validation loss of the untrained model. `train` and `validation` are means over tasks of the loss divided by it,
    which have no unit.
    """

    initial: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """Validation metric of each task at the best epoch. ValueError where no epoch was better than the untrained model."""
        if not self.best_epoch:
            raise ValueError("No epoch improved on the untrained model: lower the learning rate, or train for longer.")
        return {name: values[self.best_epoch - 1] for name, values in self.metrics.items()}

    def delta_m(self, single: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
        """Mean relative gain at the best epoch over single-task models with the validation metrics `single`, in per cent (`tasks.delta_m`)."""
        return delta_m(self.best, single, {name: task.higher_is_better for name, task in tasks.items()})
