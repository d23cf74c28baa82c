"""How often each task is drawn, where every task has a data set of its own.

A mixture gives each task a share of the steps. `mixture` computes the shares from the sizes of the
sets; `Mixture` draws batches by them, or by shares of your own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..data.batches import Batch, Separate


def mixture(sizes: Mapping[str, int], temperature: float = 1.0) -> dict[str, float]:
    """Share of the steps of each task: its size to the power 1 / temperature, normalised.

    Temperature 1 is proportional to the sizes, as if all sets were one. Infinity is uniform. In
    between, small sets get more than their share of the rows and large ones less.

    Args:
        sizes: task -> rows of its set, at least 1.
        temperature: positive; `math.inf` for uniform shares.

    Returns:
        Task -> share, positive; they sum to 1.

    Raises:
        ValueError: no task, a size below 1, or a temperature that is not positive.

    Source:
        Arivazhagan et al., "Massively Multilingual Neural Machine Translation in the Wild", 2019.

    Example:
        >>> sizes = {"large": 900, "small": 100}
        >>> def shown(shares):
        ...     return {name: f"{share:.2f}" for name, share in shares.items()}
        >>> shown(mixture(sizes))
        {'large': '0.90', 'small': '0.10'}
        >>> shown(mixture(sizes, temperature=2))  # square roots, 3 to 1
        {'large': '0.75', 'small': '0.25'}
        >>> shown(mixture(sizes, math.inf))
        {'large': '0.50', 'small': '0.50'}
    """
    if not sizes:
        raise ValueError("There is nothing to mix: give at least one task.")
    if bad := [name for name, size in sizes.items() if not 1 <= size < math.inf]:
        raise ValueError(
            f"The set of task {bad[0]!r} has {sizes[bad[0]]} rows: it needs 1 or more."
        )
    if not temperature > 0:
        raise ValueError(f"A temperature is positive; yours is {temperature}.")
    # The power of a ratio: that of a size itself overflows for low temperatures.
    largest = max(sizes.values())
    powers = {name: (size / largest) ** (1 / temperature) for name, size in sizes.items()}
    return _normalised(powers)


def passes(sizes: Mapping[str, int], shares: Mapping[str, float], rows: int) -> dict[str, float]:
    """How often each set is gone through while so many rows are drawn in all.

    Far below 1, a task starves; far above, its rows are repeated.

    Args:
        sizes: task -> rows of its set.
        shares: task -> its share of the drawn rows.
        rows: that are drawn, of all tasks together: steps times rows of a step.

    Returns:
        Task -> passes over its set.

    Raises:
        ValueError: sizes and shares name different tasks.

    Example:
        >>> sizes = {"large": 800, "small": 200}
        >>> passes(sizes, {"large": 0.5, "small": 0.5}, 1600)
        {'large': 1.0, 'small': 4.0}
    """
    _require_same_tasks(sizes, shares)
    return {name: rows * shares[name] / size for name, size in sizes.items()}


class Mixture(Separate):
    """A data set for each task, and batches of one task at a time, drawn by shares.

    An epoch has ceil(rows / size) batches. Each task gets its share of them, rounded to whole
    batches by largest remainders and never to none, in a random order. The rows of a task come in
    passes over its set, each newly shuffled.

    In `fit_tasks`, most batches have no label of most tasks. A weighting refuses that; a method
    that takes a Gram matrix does not. For the plain loss of whichever task was drawn, that method
    is ``lambda G: torch.ones(len(G))``.

    Args:
        sets: task -> (inputs [N_t, ...], labels [N_t, ...]).
        shares: task -> its share of the batches, such as `mixture` gives; positive, of any sum.
        rows: of an epoch; None for the rows of all sets together.

    Raises:
        ValueError: for an empty set, lengths or shapes that differ, shares that name other tasks
            than the sets or are not positive, or no rows; by `batches`, for fewer batches than
            tasks.

    Example:
        >>> x = torch.arange(8.0)[:, None]
        >>> sets = {"price": (x, x * 2), "kind": (x[:2], torch.tensor([0, 1]))}
        >>> rows = Mixture(sets, {"price": 3, "kind": 1}, rows=16)
        >>> [list(b.targets) for b in rows.batches(4, torch.Generator().manual_seed(0))]
        [['price'], ['price'], ['kind'], ['price']]
    """

    def __init__(
        self,
        sets: Mapping[str, tuple[Tensor, Tensor]],
        shares: Mapping[str, float],
        rows: int | None = None,
    ):
        super().__init__(sets)
        _require_same_tasks(self.sets, shares)
        for name, share in shares.items():
            if not 0 < share < math.inf:
                raise ValueError(
                    f"The share of task {name!r} is {share}: it needs a positive one."
                    " A task that is not to be drawn is left out of the sets."
                )
        if rows is not None and rows < 1:
            raise ValueError(f"An epoch of {rows} rows has nothing to learn from.")
        normalised = _normalised({name: shares[name] for name in self.sets})
        # A tensor, no dict: what a checkpoint compares must not be able to grow.
        self._shares = torch.tensor(list(normalised.values()), dtype=torch.float64)
        self.rows = rows

    @property
    def shares(self) -> dict[str, float]:
        """Task -> its share of the batches; they sum to 1."""
        return dict(zip(self.sets, self._shares.tolist(), strict=True))

    def __len__(self) -> int:
        """Rows of an epoch."""
        return sum(len(x) for x, _ in self.sets.values()) if self.rows is None else self.rows

    def only(self, names: Iterable[str]) -> "Mixture":
        """The sets of these tasks alone, their shares in the same ratio."""
        names = list(names)
        return Mixture(
            {name: self.sets[name] for name in names},
            {name: self.shares[name] for name in names},
            self.rows,
        )

    def repeated(self, rows: int) -> "Mixture":
        """The same sets and shares with so many rows in an epoch."""
        return Mixture(self.sets, self.shares, rows)

    def rows_of_step(self, size: int) -> int:
        """Rows of the smallest full batch of `batches`."""
        return min(size, *(len(x) for x, _ in self.sets.values()))

    def counts(self, steps: int) -> dict[str, int]:
        """Task -> how many of so many batches it gets.

        Raises:
            ValueError: there are fewer batches than tasks.
        """
        if steps < len(self.sets):
            raise ValueError(
                f"An epoch of {steps} batches cannot hold one of each of {len(self.sets)} tasks:"
                " take smaller batches, or more `rows`."
            )
        # One batch each, and the others by what is still owed.
        owed = {name: max(share * steps - 1, 0.0) for name, share in self.shares.items()}
        left, whole = steps - len(owed), sum(owed.values())
        exact = {name: left * value / whole if whole else 0.0 for name, value in owed.items()}
        counts = {name: 1 + math.floor(value + 1e-9) for name, value in exact.items()}
        by_rest = sorted(exact, key=lambda name: counts[name] - 1 - exact[name])
        for name in by_rest[: steps - sum(counts.values())]:
            counts[name] += 1
        return counts

    def batches(self, size: int, order: torch.Generator, least: int = 1) -> Iterator[Batch]:
        """One epoch: batches of one task each, `size` rows of it, or its whole set if that is less.

        All is drawn from the CPU generator `order`, whose state at the start fixes the epoch.

        Raises:
            ValueError: a set has fewer than `least` rows, or there are fewer batches than tasks.
        """
        if small := [name for name, (x, _) in self.sets.items() if min(size, len(x)) < least]:
            raise ValueError(
                f"A batch of task {small[0]!r} has fewer than {least} rows: take larger batches,"
                " or leave the task out."
            )
        names = list(self.sets)
        counts = self.counts(-(-len(self) // size))
        drawn = torch.tensor([t for t, name in enumerate(names) for _ in range(counts[name])])
        waiting = {name: torch.empty(0, dtype=torch.int64) for name in names}
        for t in drawn[torch.randperm(len(drawn), generator=order)].tolist():
            name = names[t]
            x, y = self.sets[name]
            wanted = min(size, len(x))
            if len(waiting[name]) < wanted:
                again = torch.randperm(len(x), generator=order)
                waiting[name] = torch.cat([waiting[name], again])
            rows, waiting[name] = waiting[name].split([wanted, len(waiting[name]) - wanted])
            rows = rows.to(x.device, non_blocking=True)
            yield Batch(x[rows], {name: (slice(0, wanted), y[rows])})


def _normalised(values: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(values.values())
    return {name: value / total for name, value in values.items()}


def _require_same_tasks(sets: Mapping, shares: Mapping) -> None:
    if set(sets) != set(shares):
        raise ValueError(
            f"The sets are of {', '.join(sets)}, and the shares of {', '.join(shares)}:"
            " each task needs one of both."
        )
