"""One trunk for tasks whose inputs are of different kinds: each kind has an entrance of its own."""

from collections.abc import Mapping

from torch import Tensor, nn


class Entries(nn.Module):
    """Pattern for inputs of unequal kind: z_t = trunk(entry_t(x_t)).

    A pattern in the sense of `mtl_course.multitask.sharing`, for the inputs that
    `mtl_course.data.Unequal` gives: x[task] are those of one task.

    Args:
        entries: task -> module from its inputs to what the trunk reads. Two tasks may share one.
        trunk: module from there to features, shared by all tasks.

    Raises:
        ValueError: when called, for a task without inputs; it names the task.

    Example:
        >>> import torch
        >>> entries = {"picture": nn.Linear(4, 8), "name": nn.EmbeddingBag(50, 8)}
        >>> pattern = Entries(entries, nn.ReLU())
        >>> x = {"picture": torch.randn(3, 4), "name": torch.tensor([[7, 2], [9, 2]])}
        >>> {task: list(z.shape) for task, z in pattern(x).items()}
        {'picture': [3, 8], 'name': [2, 8]}
    """

    def __init__(self, entries: Mapping[str, nn.Module], trunk: nn.Module):
        super().__init__()
        self.entries, self.trunk = nn.ModuleDict(entries), trunk

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task -> features of its own rows."""
        features = {}
        for name, entry in self.entries.items():
            if name not in x:
                raise ValueError(
                    f"Task {name!r} has an entrance but no inputs; there are some for"
                    f" {', '.join(x)}."
                )
            features[name] = self.trunk(entry(x[name]))
        return features
