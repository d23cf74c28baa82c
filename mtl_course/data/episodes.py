"""Episodes for meta-learning: many small tasks drawn from one data set that lies on the device, and
class splits that do not leak.

    classes = split_classes(y, {"train": 64, "validation": 16, "test": 20}, seed=0)
    source = EpisodeSource(x, y, classes["train"])
    episodes = source.classification(tasks=16, ways=5, shots=1, queries=15, generator=g)

A draw is vectorised over tasks, classes and examples and needs nothing from the host. What it costs
is mostly the copy of its examples, so images are best kept in uint8, a quarter of the bytes, and
made floats on the way into the network. `benchmarks/meta_step.py` measures both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """T tasks of one shape: support = (x [T, n, ...], y [T, n, ...]) to adapt to, query = (x [T, q,
    ...], y [T, q, ...]) to be judged on.
    """

    support: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]

    def __post_init__(self):
        lengths = {len(part) for part in (*self.support, *self.query)}
        if len(lengths) != 1 or not lengths.pop():
            raise ValueError(
                f"The parts hold {[len(p) for p in (*self.support, *self.query)]} tasks; they need"
                " as many each, and at least one."
            )
        for name, (x, y) in (("support", self.support), ("query", self.query)):
            if x.shape[1:2] != y.shape[1:2] or not x.shape[1]:
                raise ValueError(
                    f"The {name} has {x.shape[1]} inputs and {tuple(y.shape[1:])} targets a task;"
                    " it needs as many, and at least one."
                )

    def __len__(self) -> int:
        return len(self.support[0])

    def split(self, size: int = 1) -> Iterator["Episodes"]:
        """Groups of `size` tasks (the last may be smaller); a single task keeps its leading
        dimension of 1.
        """
        for t in range(0, len(self), size):
            at = slice(t, t + size)
            yield Episodes(tuple(p[at] for p in self.support), tuple(p[at] for p in self.query))


def of_rows(x: Tensor, y: Tensor, support: Tensor, query: Tensor) -> Episodes:
    """Episodes from row numbers of x [N, ...] and y [N, ...]: support [T, n] and query [T, q].
    ValueError that names a row in both of one task.
    """
    for t, (mine, judged) in enumerate(zip(support.tolist(), query.tolist(), strict=True)):
        if both := sorted(set(mine) & set(judged)):
            raise ValueError(
                f"Task {t}: support and query share the rows {both[:5]}. A query that was adapted"
                " to measures memory; draw them apart."
            )
    return Episodes((_take(x, support), _take(y, support)), (_take(x, query), _take(y, query)))


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows], for rows [T, n]; six times as fast for images of bytes, since whole rows are
    copied.
    """
    return values.index_select(0, rows.flatten().to(values.device)).unflatten(0, rows.shape)


def split_classes(y: Tensor, sizes: Mapping[str, int], seed: int) -> dict[str, list[int]]:
    """Part -> so many of the classes of y, no class in two parts. ValueError if there are too few
    classes.
    """
    classes = torch.unique(y).tolist()
    if sum(sizes.values()) > len(classes) or min(sizes.values()) < 1:
        raise ValueError(
            f"There are {len(classes)} classes, and the parts ask for {dict(sizes)}; each needs at"
            " least one."
        )
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed)).tolist()
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = sorted(classes[i] for i in order[start : start + size])
        start += size
    return parts


def require_disjoint(parts: Mapping[str, Sequence[int]]) -> None:
    """ValueError that names a class in two parts (a published split that was typed in, for
    instance).
    """
    home = {}
    for name, classes in parts.items():
        if shared := sorted({c for c in classes if home.setdefault(c, name) != name}):
            raise ValueError(
                f"The classes {shared[:5]} are in {name!r} and in {home[shared[0]]!r}: what was"
                " trained on would be tested as new."
            )


class EpisodeSource:
    """Examples x [N, ...] grouped by y [N] (int64), of which only the groups `classes` are drawn;
    all tensors stay on x's device.

    For `classification`, a group is a class and a task is several of them; for `regression`, a
    group is a task with its own `targets` [N, ...]. ValueError for a group that does not exist, and
    for lengths that differ.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        classes: Sequence[int] | None = None,
        targets: Tensor | None = None,
    ):
        if len(x) != len(y) or targets is not None and len(targets) != len(x):
            more = "" if targets is None else f" and {len(targets)} targets"
            raise ValueError(
                f"There are {len(x)} inputs, {len(y)} labels{more}; each input needs one."
            )
        present, sizes = torch.unique(y, return_counts=True)
        self.classes = (
            present if classes is None else torch.as_tensor(sorted(set(classes)), device=y.device)
        )
        if absent := self.classes[~torch.isin(self.classes, present)].tolist():
            raise ValueError(
                f"No example has the label {absent[0]}; the labels go from {int(present[0])} to"
                f" {int(present[-1])}."
            )
        self.x, self.targets = x, targets
        if not len(self.classes):
            raise ValueError("There is no class to draw from.")
        at = torch.searchsorted(present, self.classes)
        self._rows = torch.argsort(y, stable=True).to(x.device)  # class after class
        self._first, self._sizes = (
            (sizes.cumsum(0) - sizes)[at].to(x.device),
            sizes[at].to(x.device),
        )
        few, self._most = (
            int(self._sizes.argmin()),
            int(self._sizes.max()),
        )  # on the host: a draw never waits for the device
        self._fewest, self._smallest = int(self._sizes[few]), int(self.classes[few])

    def classification(
        self, tasks: int, ways: int, shots: int, queries: int, generator: torch.Generator
    ) -> Episodes:
        """Tasks of `ways` classes, numbered 0 to ways - 1 anew in each, with `shots` examples each
        to adapt to and `queries` others to judge.

        The generator lives on x's device. ValueError for more ways than classes, or more examples
        than the smallest class has.
        """
        if not 2 <= ways <= len(self.classes):
            raise ValueError(
                f"{ways} ways: a task has at least 2 classes, and this source has"
                f" {len(self.classes)} to draw from."
            )
        drawn = (
            torch.rand(tasks, len(self.classes), generator=generator, device=self.x.device)
            .topk(ways)
            .indices
        )
        rows = self._examples(drawn, shots, queries, generator)  # [T, ways, shots + queries]
        labels = torch.arange(ways, device=self.x.device)[None, :, None].expand(
            tasks, ways, shots + queries
        )
        parts = (
            (rows[..., at].flatten(1), labels[..., at].flatten(1))
            for at in (slice(shots), slice(shots, None))
        )
        return Episodes(*((_take(self.x, mine), numbers) for mine, numbers in parts))

    def regression(
        self, tasks: int, shots: int, queries: int, generator: torch.Generator
    ) -> Episodes:
        """Tasks of one group each (no group twice), with the targets of its rows. ValueError as for
        `classification`, and without targets.
        """
        if self.targets is None:
            raise ValueError(
                "This source has no targets; give EpisodeSource(..., targets=...) for regression."
            )
        if not 1 <= tasks <= len(self.classes):
            raise ValueError(f"{tasks} tasks need as many groups; here are {len(self.classes)}.")
        drawn = (
            torch.rand(len(self.classes), generator=generator, device=self.x.device)
            .topk(tasks)
            .indices
        )
        rows = self._examples(drawn, shots, queries, generator)
        return Episodes(
            *(
                (_take(self.x, mine), _take(self.targets, mine))
                for mine in (rows[:, :shots], rows[:, shots:])
            )
        )

    def _examples(self, drawn, shots, queries, generator):
        """Rows [*drawn.shape, shots + queries] of the drawn groups, no row twice in a group."""
        wanted = shots + queries
        if min(shots, queries) < 1:
            raise ValueError(
                f"{shots} shots and {queries} queries: a task needs at least one of each."
            )
        if wanted > self._fewest:
            what = f"{shots} shots and {queries} queries need {wanted} examples of every class"
            raise ValueError(f"{what}; class {self._smallest} has {self._fewest}.")
        keys = torch.rand(
            *drawn.shape, self._most, generator=generator, device=self.x.device
        )  # a random order: that of random keys
        keys.masked_fill_(
            torch.arange(self._most, device=self.x.device) >= self._sizes[drawn][..., None], -1.0
        )
        return self._rows[self._first[drawn][..., None] + keys.topk(wanted).indices]


def sinusoids(tasks: int, shots: int, queries: int, generator: torch.Generator) -> Episodes:
    """Regressions y = a sin(x - b) with a in [0.1, 5], b in [0, pi] and x in [-5, 5]: x, y [T, n,
    1]. Source: Finn et al., ICML 2017, section 5.1.
    """
    device = generator.device
    a = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=generator, device=device)
    b = torch.pi * torch.rand(tasks, 1, 1, generator=generator, device=device)
    x = 10 * torch.rand(tasks, shots + queries, 1, generator=generator, device=device) - 5
    y = a * torch.sin(x - b)
    return Episodes((x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:]))
