"""Batches for several tasks: labels on the same inputs, some of them missing, or a data set of its
own for each task.

Both kinds give the same `Batch`, so a training loop need not know which it has.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs x [B, ...] and, for each task with labels here, the rows of x that have one (slice or
    int64 [b]) and the labels [b, ...].
    """

    x: Tensor
    targets: dict[str, tuple[slice | Tensor, Tensor]]


class Table:
    """Several labels for the same inputs.

    x: [N, ...]; targets: task -> labels [N, ...]; labelled: task -> bool [N], True where the label
        is known (default:
        everywhere). All tensors on one device. ValueError, with the task's name, for lengths that
        differ, a task without any label, or a mask without a task.
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
                f"`labelled` names {', '.join(unknown)}, which `targets` does not have; it has"
                f" {', '.join(targets)}."
            )
        for name, y in targets.items():
            _require_labels(name, y)
            mask = labelled.get(name)
            if (
                len(y) != len(x)
                or mask is not None
                and (len(mask) != len(x) or mask.dtype != torch.bool)
            ):
                raise ValueError(
                    f"Task {name!r}: there are {len(x)} inputs, so it needs {len(x)} labels, and a"
                    f" mask of {len(x)} bools if it has one."
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
        rows = {
            name: self.labelled[name].nonzero().squeeze(1) if name in self.labelled else slice(None)
            for name in self.targets
        }
        return Batch(
            self.x, {name: (rows[name], y[rows[name]]) for name, y in self.targets.items()}
        )

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """One epoch: every row once, in an order drawn from the CPU generator `order`.

        A GPU is waited for once an epoch and partly labelled task, not at every batch: how many
        labels has each batch?
        """
        rows = torch.randperm(len(self.x), generator=order).to(self.x.device, non_blocking=True)
        known = {name: _places(mask[rows], size) for name, mask in self.labelled.items()}
        for i, part in enumerate(rows.split(size)):
            targets = {}
            for name, y in self.targets.items():
                if name not in known:
                    targets[name] = (slice(None), y[part])
                elif len(here := known[name][i]):
                    targets[name] = (here, y[part[here]])
            yield Batch(self.x[part], targets)


def _places(mask: Tensor, size: int) -> tuple[Tensor, ...]:
    """For each batch of `size` entries of the mask, where in the batch it is True (ascending)."""
    places = mask.nonzero().squeeze(1)
    counts = torch.bincount(places // size, minlength=-(-len(mask) // size))
    return (places % size).split(counts.tolist())


class Separate:
    """A data set of its own for each task, of any sizes: task -> (x [N_t, ...], y [N_t, ...]), with
    inputs of one shape.

    A batch holds `size` rows of each task. An epoch ends when the longest set has been seen once;
    shorter sets start again, newly shuffled, so no task runs dry (`zip` would end with the shortest
    set). ValueError, with the task's name, for an empty set, lengths or shapes that differ.
    """

    def __init__(self, sets: Mapping[str, tuple[Tensor, Tensor]]):
        if not sets:
            raise ValueError("There is nothing to learn from: give at least one task.")
        shapes = {name: tuple(x.shape[1:]) for name, (x, _) in sets.items()}
        first = next(iter(shapes))
        for name, (x, y) in sets.items():
            _require_labels(name, y)
            if len(x) != len(y) or not len(x):
                raise ValueError(
                    f"Task {name!r} has {len(x)} inputs and {len(y)} labels; it needs as many of"
                    " each, and at least one."
                )
            if shapes[name] != shapes[first]:
                raise ValueError(
                    f"Inputs of task {name!r} have shape {shapes[name]} but those of {first!r} have"
                    f" {shapes[first]}: one trunk needs one shape."
                )
        self.sets = dict(sets)

    def __len__(self) -> int:
        """Rows of an epoch: those of the longest set."""
        return max(len(x) for x, _ in self.sets.values())

    def only(self, names: Iterable[str]) -> "Separate":
        """The sets of these tasks alone. An epoch is shorter if the longest set is not among them:
        see `repeated`.
        """
        return Separate({name: self.sets[name] for name in names})

    def repeated(self, rows: int) -> "Separate":
        """Every set again and again, up to so many rows, so that an epoch has as many steps as one
        beside a longer set.
        """
        place = {
            name: torch.arange(rows, device=x.device) % len(x) for name, (x, _) in self.sets.items()
        }
        return Separate(
            {name: (x[place[name]], y[place[name]]) for name, (x, y) in self.sets.items()}
        )

    def _join(self, rows: Mapping[str, Tensor | slice]) -> Batch:
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

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """One epoch over the longest set, `size` rows of each task at a time; fewer where a set, or
        the longest's end, is smaller.

        Orders are drawn from the CPU generator `order`, one for each pass over a set, when its
        first row is needed; an epoch begins every set anew. So the generator's state at the start
        of an epoch fixes all of it.
        """
        longest = len(self)
        passes = {
            name: torch.empty(0, dtype=torch.int64, device=x.device)
            for name, (x, _) in self.sets.items()
        }
        for start in range(0, longest, size):
            rows = {}
            for name, (x, _) in self.sets.items():
                wanted = min(size, longest - start, len(x))
                if len(passes[name]) < wanted:
                    again = torch.randperm(len(x), generator=order).to(x.device, non_blocking=True)
                    passes[name] = torch.cat([passes[name], again])
                rows[name], passes[name] = passes[name][:wanted], passes[name][wanted:]
            yield self._join(rows)


def _require_labels(name, y):
    if not isinstance(y, Tensor) or not y.ndim:
        found = f"a tensor without rows, {y}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"Task {name!r} needs a tensor of labels, one a row of its inputs; it has {found}. Use"
            " torch.as_tensor, or leave the task out."
        )
