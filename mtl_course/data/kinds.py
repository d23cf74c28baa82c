"""Data sets of unequal kind for one network: pictures for one task, texts for another.

train = Unequal({"picture": (pictures, names), "review": (ids, stars)})
pattern = networks.Entries({"picture": cnn, "review": reader}, trunk)
fit_tasks(Network(pattern, heads), tasks, train, ...)
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .batches import EVERY_ROW, Batch, Separate


class Inputs:
    """Inputs of several kinds that go through a loop together: name -> tensor.

    ``inputs["picture"]`` are those of one kind. The kinds may stand for tasks with sets of their
    own, as in `Unequal`, or for several views of the same rows, which a `Table` takes for its x:
    ``Inputs({"picture": pictures, "name": ids})``. Its length is that of the longest.

    Args:
        inputs: name -> tensor [N_k, ...], all on one device.

    Raises:
        ValueError: if there is none, or when rows are taken by number and a kind has fewer rows
            than another; it names the row.

    Example:
        >>> x = Inputs({"picture": torch.zeros(3, 1, 8, 8), "review": torch.tensor([[5, 7]])})
        >>> list(x), len(x), list(x["review"].shape)
        (['picture', 'review'], 3, [1, 2])
        >>> [len(piece["review"]) for piece in x.split(2)]
        [1, 0]
        >>> x[torch.tensor([0, 2])]
        Traceback (most recent call last):
        ValueError: Row 1 has a 'picture' and no 'review': rows of several kinds need each of them.
    """

    def __init__(self, inputs: Mapping[str, Tensor]):
        if not inputs:
            raise ValueError("There are no inputs: give at least one kind.")
        self.inputs = dict(inputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.inputs)

    def __contains__(self, name: str) -> bool:
        return name in self.inputs

    def __len__(self) -> int:
        return max(map(len, self.inputs.values()))

    def __getitem__(self, which: "str | Tensor") -> "Tensor | Inputs":
        if isinstance(which, str):
            return self.inputs[which]
        lengths = {name: len(x) for name, x in self.inputs.items()}
        most, least = max(lengths, key=lengths.get), min(lengths, key=lengths.get)
        if lengths[most] != lengths[least]:
            raise ValueError(
                f"Row {lengths[least]} has a {most!r} and no {least!r}: rows of several kinds need"
                " each of them."
            )
        return Inputs({name: x[which] for name, x in self.inputs.items()})

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(iter(self.inputs.values())).device

    def split(self, size: int) -> "list[Inputs]":
        """Pieces of at most so many rows of each kind; a shorter one has none in the last."""
        return [
            Inputs({name: x[start : start + size] for name, x in self.inputs.items()})
            for start in range(0, len(self), size)
        ]


class Unequal(Separate):
    """A data set of its own for each task, of any sizes, with inputs of any kind.

    As `Separate`, but the x of a batch is `Inputs`, task -> its rows, for a pattern that has an
    entrance for each task, such as `networks.Entries`. The outputs of a task are those of its own
    rows. It is given as `Separate` is: task -> (inputs [N_t, ...], labels [N_t, ...]).

    Raises:
        ValueError: for an empty set, or lengths that differ; it names the task.

    Example:
        >>> pictures, ids = torch.zeros(5, 1, 8, 8), torch.tensor([[5, 7], [6, 0]])
        >>> rows = Unequal({"digit": (pictures, torch.arange(5)), "stars": (ids, torch.ones(2))})
        >>> batch = next(rows.batches(3, torch.Generator().manual_seed(0)))
        >>> {task: list(batch.x[task].shape) for task in batch.x}
        {'digit': [3, 1, 8, 8], 'stars': [2, 2]}
    """

    def _require_one_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Any shapes will do."""

    def _join(self, rows: Mapping[str, Tensor | slice]) -> Batch:
        """A batch of these rows of each set."""
        inputs = {name: x[rows[name]] for name, (x, _) in self.sets.items()}
        targets = {name: (EVERY_ROW, y[rows[name]]) for name, (_, y) in self.sets.items()}
        return Batch(Inputs(inputs), targets)
