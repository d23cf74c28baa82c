"""Batches for several tasks: labels on the same inputs, or a data set of its own for each task.

Some labels of the same inputs may be missing. Both kinds, `Table` and `Separate`, give the same
`Batch`, so a training loop need not know which it has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The rows of a task that has a label on each of them: who asks `rows is EVERY_ROW` needs no index.
EVERY_ROW = slice(None)


@dataclass(slots=True)  # not frozen: one is made per step, and freezing it takes thrice as long
class Batch:
    """Inputs, and for each task that has labels among them, where they are and what they say.

    Args:
        x: inputs [B, ...].
        targets: task -> (rows, labels): the rows of x that have a label, a slice or int64 [b], and
            their labels [b, ...]. A task without a label in this batch is not there.

    Example:
        >>> batch = Batch(torch.randn(3, 2), {"kind": (torch.tensor([0, 2]), torch.tensor([1, 0]))})
        >>> rows, labels = batch.targets["kind"]
        >>> list(batch.x[rows].shape), labels.tolist()
        ([2, 2], [1, 0])
    """

    x: Tensor
    targets: dict[str, tuple[slice | Tensor, Tensor]]

    def part(self, number: int, count: int) -> "Batch":
        """Every `count`-th row, from row `number` on; a task without a label there is not there.

        The parts 0 to count - 1 have every row once. One that has none by right gets the first row
        without its labels, so that a network need not take an empty batch.
        """
        targets = {}
        for name, (rows, y) in self.targets.items():
            if rows is EVERY_ROW:
                labels, places = y[number::count], EVERY_ROW
            elif isinstance(rows, slice):
                # Label k is that of row start + k of the batch.
                start = rows.start or 0
                labels = y[(number - start) % count :: count]
                first = -((number - start) // count)
                places = slice(first, first + len(labels))
            else:
                chosen = rows % count == number
                labels, places = y[chosen], rows[chosen] // count
            if len(labels):
                targets[name] = (places, labels)
        return Batch(_every(self.x, number, count), targets)


def _every(x, number: int, count: int):
    """Rows number, number + count, ... of inputs, or of each kind of them; the first if none."""
    if isinstance(x, Tensor):
        return x[number::count] if number < len(x) else x[:1]
    return type(x)({name: _every(x[name], number, count) for name in x})


class Table:
    """Several labels for the same inputs, some of them perhaps missing.

    Args:
        x: inputs [N, ...].
        targets: task -> labels [N, ...], on the device of x.
        labelled: task -> bool [N], True where the label may be used; a task that is left out has
            all of its labels.

    Raises:
        ValueError: for lengths that differ, a task without any label, a mask without a task, or
            nothing at all; it names the task.

    Example:
        >>> x = torch.arange(4.0)[:, None]
        >>> targets = {"price": x * 2, "kind": torch.tensor([0, 1, 1, 0])}
        >>> rows = Table(x, targets, labelled={"kind": torch.tensor([True, False, True, False])})
        >>> len(rows), rows.whole().targets["kind"]
        (4, (tensor([0, 2]), tensor([0, 1])))
        >>> [len(batch.x) for batch in rows.batches(3, torch.Generator().manual_seed(0))]
        [3, 1]
    """

    def __init__(
        self, x: Tensor, targets: Mapping[str, Tensor], labelled: Mapping[str, Tensor] | None = None
    ):
        labelled = dict(labelled or {})
        if not targets or not len(x):
            raise ValueError(
                "There is nothing to learn from: a table needs at least one row and one task."
            )
        if unknown := sorted(labelled.keys() - targets.keys()):
            raise ValueError(
                f"`labelled` names {', '.join(unknown)}, which `targets` does not have;"
                f" it has {', '.join(targets)}."
            )
        for name, y in targets.items():
            _require_labels(name, y)
            mask = labelled.get(name)
            is_mask = mask is None or (len(mask) == len(x) and mask.dtype == torch.bool)
            if len(y) != len(x) or not is_mask:
                raise ValueError(
                    f"Task {name!r}: there are {len(x)} inputs, so it needs {len(x)} labels,"
                    f" and a mask of {len(x)} bools if it has one."
                )
            if mask is not None and not mask.any():
                raise ValueError(
                    f"Task {name!r} has no label at all: leave it out, or give it some."
                )
        self.x, self.targets, self.labelled = x, dict(targets), labelled

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.x)

    def only(self, names: Iterable[str]) -> "Table":
        """The same inputs with the labels of these tasks alone."""
        names = list(names)
        return Table(
            self.x,
            {name: self.targets[name] for name in names},
            {name: self.labelled[name] for name in names if name in self.labelled},
        )

    def whole(self) -> Batch:
        """All rows at once, in order; x is the table's own."""
        targets = {}
        for name, y in self.targets.items():
            mask = self.labelled.get(name)
            rows = EVERY_ROW if mask is None else mask.nonzero().squeeze(1)
            targets[name] = (rows, y[rows])
        return Batch(self.x, targets)

    def labels(self) -> dict[str, Tensor]:
        """Task -> its labels that may be used."""
        return {
            name: y if name not in self.labelled else y[self.labelled[name]]
            for name, y in self.targets.items()
        }

    def rows_of_step(self, size: int) -> int:
        """Rows of a full batch of `batches`."""
        return min(size, len(self))

    def batches(self, size: int, order: torch.Generator, least: int = 1) -> Iterator[Batch]:
        """One epoch: every row once, `size` at a time, in an order drawn from a CPU generator.

        A last batch of fewer than `least` rows joins the one before it.

        A GPU is waited for once per epoch and partly labelled task, not at every batch: how many
        labels has each batch?
        """
        groups = _joined(_sizes(len(self), size), least)
        here = self._order(groups, order)
        shuffled = here.to(self.x.device, non_blocking=True)
        places = {
            name: _places(mask[shuffled], size, len(groups)) for name, mask in self.labelled.items()
        }
        batches = zip(shuffled.split(groups), self._widths(here, groups), strict=True)
        for number, (rows, width) in enumerate(batches):
            targets = {}
            for name, y in self.targets.items():
                if name not in places:
                    targets[name] = (EVERY_ROW, y[rows])
                elif len(labelled := places[name][number]):
                    targets[name] = (labelled, y[rows[labelled]])
            yield Batch(self.x[rows] if width is None else self.x[rows, :width], targets)

    def _order(self, groups: Sequence[int], generator: torch.Generator) -> Tensor:
        """The rows of an epoch in the order of its batches, whose sizes are `groups`."""
        return torch.randperm(len(self), generator=generator)

    def _widths(self, order: Tensor, groups: Sequence[int]) -> Sequence[int | None]:
        """How much of its inputs' second dimension each batch takes; None for all of it."""
        return [None] * len(groups)


def _sizes(rows: int, size: int) -> list[int]:
    """Sizes of batches of so many rows: the last one has what is left."""
    return [min(size, rows - start) for start in range(0, rows, size)]


def _joined(sizes: list[int], least: int) -> list[int]:
    """Sizes of batches, where a last one below `least` is joined to the one before it."""
    if len(sizes) > 1 and sizes[-1] < least:
        return [*sizes[:-2], sizes[-2] + sizes[-1]]
    return sizes


def _places(mask: Tensor, size: int, batches: int) -> tuple[Tensor, ...]:
    """Where in each of so many `batches` of `size` entries the mask is True, ascending.

    The last batch has what is left.
    """
    places = mask.nonzero().squeeze(1)
    batch = (places // size).clamp_max(batches - 1)
    return (places - batch * size).split(torch.bincount(batch, minlength=batches).tolist())


class Separate:
    """A data set of its own for each task, of any sizes, with inputs of one shape.

    A batch has `size` rows of each task. An epoch ends when the longest set has been seen once;
    shorter sets start again, newly shuffled, so no task runs dry (`zip` would end with the shortest
    set).

    Args:
        sets: task -> (inputs [N_t, ...], labels [N_t, ...]).

    Raises:
        ValueError: for an empty set, or lengths or shapes that differ; it names the task.

    Example:
        >>> x = torch.arange(6.0)[:, None]
        >>> rows = Separate({"price": (x, x * 2), "kind": (x[:2], torch.tensor([0, 1]))})
        >>> len(rows)  # rows of an epoch: those of the longest set
        6
        >>> [list(batch.x.shape) for batch in rows.batches(3, torch.Generator().manual_seed(0))]
        [[5, 1], [5, 1]]
    """

    def __init__(self, sets: Mapping[str, tuple[Tensor, Tensor]]):
        if not sets:
            raise ValueError("There is nothing to learn from: give at least one task.")
        for name, (x, y) in sets.items():
            _require_labels(name, y)
            if len(x) != len(y) or not len(x):
                raise ValueError(
                    f"Task {name!r} has {len(x)} inputs and {len(y)} labels;"
                    " it needs as many of each, and at least one."
                )
        self._require_one_shape({name: tuple(x.shape[1:]) for name, (x, _) in sets.items()})
        self.sets = dict(sets)

    def _require_one_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        first = next(iter(shapes))
        for name, shape in shapes.items():
            if shape != shapes[first]:
                raise ValueError(
                    f"Inputs of task {name!r} have shape {shape} but those of {first!r} have"
                    f" {shapes[first]}: one trunk needs one shape."
                )

    def __len__(self) -> int:
        """Rows of an epoch: those of the longest set."""
        return max(len(x) for x, _ in self.sets.values())

    def only(self, names: Iterable[str]) -> "Separate":
        """The sets of these tasks alone.

        An epoch is shorter if the longest set is not among them: see `repeated`.
        """
        return type(self)({name: self.sets[name] for name in names})

    def repeated(self, rows: int) -> "Separate":
        """Every set again and again, up to so many rows.

        So an epoch has as many steps as one beside a longer set.
        """
        sets = {}
        for name, (x, y) in self.sets.items():
            place = torch.arange(rows, device=x.device) % len(x)
            sets[name] = (x[place], y[place])
        return type(self)(sets)

    def labels(self) -> dict[str, Tensor]:
        """Task -> its labels."""
        return {name: y for name, (_, y) in self.sets.items()}

    def rows_of_step(self, size: int) -> int:
        """Rows of a full batch of `batches`, those of all tasks."""
        return sum(min(size, len(x)) for x, _ in self.sets.values())

    def _join(self, rows: Mapping[str, Tensor | slice]) -> Batch:
        """A batch of these rows of each set, one task after the other."""
        inputs, targets, start = [], {}, 0
        for name, (x, y) in self.sets.items():
            labels = y[rows[name]]
            inputs.append(x[rows[name]])
            targets[name] = (slice(start, start + len(labels)), labels)
            start += len(labels)
        return Batch(torch.cat(inputs), targets)

    def whole(self) -> Batch:
        """All rows of all tasks at once, one task after the other."""
        return self._join({name: slice(None) for name in self.sets})

    def batches(self, size: int, order: torch.Generator, least: int = 1) -> Iterator[Batch]:
        """One epoch over the longest set, `size` rows of each task at a time.

        Where the last batch has fewer than `least` rows in all, it joins the one before it.

        There are fewer where a set, or the end of the longest one, is smaller. Orders are drawn
        from the CPU generator `order`, one for each pass over a set, when its first row is needed;
        an epoch begins every set anew. So the generator's state at the start of an epoch fixes all
        of it.
        """
        waiting = {
            name: torch.empty(0, dtype=torch.int64, device=x.device)
            for name, (x, _) in self.sets.items()
        }
        sizes = _sizes(len(self), size)
        if self.rows_of_step(sizes[-1]) < least:
            sizes = _joined(sizes, least)
        for most in sizes:
            rows = {}
            for name, (x, _) in self.sets.items():
                wanted = min(most, len(x))
                if len(waiting[name]) < wanted:
                    again = torch.randperm(len(x), generator=order).to(x.device, non_blocking=True)
                    waiting[name] = torch.cat([waiting[name], again])
                rows[name], waiting[name] = waiting[name][:wanted], waiting[name][wanted:]
            yield self._join(rows)


def _require_labels(name: str, y) -> None:
    """ValueError unless y is a tensor with rows."""
    if not isinstance(y, Tensor) or not y.ndim:
        got = f"a tensor without rows, {y}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"Task {name!r} needs a tensor of labels, one per row of its inputs; it has {got}."
            " Use torch.as_tensor, or leave the task out."
        )
