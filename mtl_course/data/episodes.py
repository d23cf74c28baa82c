"""Episodes for meta-learning: many small tasks drawn from one data set, and splits of its classes.

    classes = split_classes(y, {"train": 64, "validation": 16, "test": 20}, seed=0)
    source = EpisodeSource(x, y, classes["train"])
    episodes = source.classification(tasks=16, ways=5, shots=1, queries=15, generator=generator)

The data set lies on the device. A draw is vectorised over tasks, classes and examples and needs
nothing from the host. What it costs is mostly the copy of its examples, so images are best kept in
uint8, a quarter of the bytes, and made floats on the way into the network.
`benchmarks/meta_step.py` measures both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """T tasks of one shape, each with a support set to adapt to and a query to be judged on.

    ``len(episodes)`` is T, and `split` gives them in groups.

    Args:
        support: inputs [T, n, ...] and targets [T, n, ...].
        query: inputs [T, q, ...] and targets [T, q, ...].

    Raises:
        ValueError: if the four tensors do not have as many tasks, inputs and targets as each other,
            or none.

    Example:
        >>> x, y = torch.randn(3, 10, 2), torch.randn(3, 10, 1)
        >>> episodes = Episodes((x[:, :4], y[:, :4]), (x[:, 4:], y[:, 4:]))
        >>> len(episodes), [len(group) for group in episodes.split(2)]
        (3, [2, 1])
    """

    support: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]

    def __post_init__(self):
        counts = [len(tensor) for tensor in (*self.support, *self.query)]
        if len(set(counts)) != 1 or not counts[0]:
            raise ValueError(
                f"The parts hold {counts} tasks; they need as many each, and at least one."
            )
        for name, (x, y) in (("support", self.support), ("query", self.query)):
            if x.shape[1:2] != y.shape[1:2] or not x.shape[1]:
                raise ValueError(
                    f"The {name} has {x.shape[1]} inputs and {tuple(y.shape[1:])} targets per task;"
                    " it needs as many, and at least one."
                )

    def __len__(self) -> int:
        return len(self.support[0])

    def split(self, size: int = 1) -> Iterator["Episodes"]:
        """Groups of `size` tasks; the last may be smaller.

        A single task keeps its leading dimension of 1.
        """
        for start in range(0, len(self), size):
            group = slice(start, start + size)
            support, query = (
                tuple(tensor[group] for tensor in tensors) for tensors in (self.support, self.query)
            )
            yield Episodes(support, query)


def of_rows(x: Tensor, y: Tensor, support: Tensor, query: Tensor) -> Episodes:
    """Episodes from row numbers, support [T, n] and query [T, q], of x and y [N, ...].

    ValueError that names a row in both of one task.
    """
    for t, (adapted_to, judged_on) in enumerate(zip(support.tolist(), query.tolist(), strict=True)):
        if both := sorted(set(adapted_to) & set(judged_on)):
            raise ValueError(
                f"Task {t}: support and query share the rows {both[:5]}."
                " A query that was adapted to measures memory; draw them apart."
            )
    return Episodes((_take(x, support), _take(y, support)), (_take(x, query), _take(y, query)))


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, for rows [T, n].

    Whole rows are copied, six times as fast as by indexing for images of bytes.
    """
    return values.index_select(0, rows.flatten().to(values.device)).unflatten(0, rows.shape)


def split_classes(y: Tensor, sizes: Mapping[str, int], seed: int) -> dict[str, list[int]]:
    """Split the classes of a data set at random, no class in two parts.

    Args:
        y: int64 [N], the class of each row.
        sizes: part -> number of its classes.
        seed: of the draw.

    Returns:
        Part -> its classes, ascending.

    Raises:
        ValueError: if there are too few classes, or a part asks for none.

    Example:
        >>> y = torch.tensor([0, 0, 1, 3, 5, 5])
        >>> classes = split_classes(y, {"train": 2, "test": 2}, seed=0)
        >>> len(classes["train"]), sorted(classes["train"] + classes["test"])
        (2, [0, 1, 3, 5])
    """
    classes = torch.unique(y).tolist()
    if sum(sizes.values()) > len(classes) or min(sizes.values()) < 1:
        raise ValueError(
            f"There are {len(classes)} classes, and the parts ask for {dict(sizes)};"
            " each needs at least one."
        )
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed)).tolist()
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = sorted(classes[i] for i in order[start : start + size])
        start += size
    return parts


def require_disjoint(parts: Mapping[str, Sequence[int]]) -> None:
    """Refuse a split with a class in two parts, such as a published one that was typed in.

    Args:
        parts: part -> its classes.

    Raises:
        ValueError: naming the classes and the two parts.

    Example:
        >>> require_disjoint({"train": [0, 1], "test": [2]})
        >>> require_disjoint({"train": [0, 1], "test": [1, 2]})
        Traceback (most recent call last):
        ValueError: The classes [1] are in 'test' and in 'train': what was trained on would be ...
    """
    home = {}
    for name, classes in parts.items():
        if shared := sorted({c for c in classes if home.setdefault(c, name) != name}):
            raise ValueError(
                f"The classes {shared[:5]} are in {name!r} and in {home[shared[0]]!r}:"
                " what was trained on would be tested as new."
            )


class EpisodeSource:
    """Examples grouped by label, from which episodes are drawn.

    Everything stays on x's device. For `classification`, a group is a class and a task is several
    of them. For `regression`, a group is a task with its own targets.

    Args:
        x: inputs [N, ...].
        y: int64 [N], the group of each input.
        classes: the groups that may be drawn; by default all.
        targets: [N, ...], what `regression` predicts.

    Raises:
        ValueError: for a group that does not exist, none at all, or lengths that differ; and from a
            draw, for more classes or examples than there are.

    Example:
        >>> source = EpisodeSource(torch.randn(60, 2), torch.arange(60) % 6, classes=[0, 1, 2, 3])
        >>> generator = torch.Generator().manual_seed(0)
        >>> episodes = source.classification(8, ways=3, shots=2, queries=5, generator=generator)
        >>> [list(tensor.shape) for tensor in (*episodes.support, *episodes.query)]
        [[8, 6, 2], [8, 6], [8, 15, 2], [8, 15]]
        >>> episodes.support[1][0].tolist()  # classes are numbered anew in each task
        [0, 0, 1, 1, 2, 2]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        classes: Sequence[int] | None = None,
        targets: Tensor | None = None,
    ):
        if len(x) != len(y) or (targets is not None and len(targets) != len(x)):
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
                f"No example has the label {absent[0]};"
                f" the labels go from {int(present[0])} to {int(present[-1])}."
            )
        if not len(self.classes):
            raise ValueError("There is no class to draw from.")
        self.x, self.targets = x, targets
        place = torch.searchsorted(present, self.classes)
        # class after class: class c has `_sizes[c]` entries of `_rows` from `_first[c]` on
        self._rows = torch.argsort(y, stable=True).to(x.device)
        self._first = (sizes.cumsum(0) - sizes)[place].to(x.device)
        self._sizes = sizes[place].to(x.device)
        # on the host, so that a draw never waits for the device
        smallest = int(self._sizes.argmin())
        self._most = int(self._sizes.max())
        self._fewest = int(self._sizes[smallest])
        self._smallest = int(self.classes[smallest])

    def classification(
        self, tasks: int, ways: int, shots: int, queries: int, generator: torch.Generator
    ) -> Episodes:
        """Tasks of `ways` classes each, numbered 0 to ways - 1 anew in each.

        Of each class `shots` examples are to adapt to and `queries` others to judge. The generator
        lives on x's device. ValueError for more ways than classes, or more examples than the
        smallest class has.
        """
        if not 2 <= ways <= len(self.classes):
            raise ValueError(
                f"{ways} ways: a task has at least 2 classes,"
                f" and this source has {len(self.classes)} to draw from."
            )
        device = self.x.device
        # the first of a random order: that of random keys
        keys = torch.rand(tasks, len(self.classes), generator=generator, device=device)
        drawn = keys.topk(ways).indices
        rows = self._examples(drawn, shots, queries, generator)  # [T, ways, shots + queries]
        labels = torch.arange(ways, device=device)[None, :, None].expand_as(rows)
        support, query = (
            (_take(self.x, rows[..., side].flatten(1)), labels[..., side].flatten(1))
            for side in (slice(shots), slice(shots, None))
        )
        return Episodes(support, query)

    def regression(
        self, tasks: int, shots: int, queries: int, generator: torch.Generator
    ) -> Episodes:
        """Tasks of one group each, no group twice, with the targets of its rows.

        ValueError as for `classification`, and without targets.
        """
        if self.targets is None:
            raise ValueError(
                "This source has no targets; give EpisodeSource(..., targets=...) for regression."
            )
        if not 1 <= tasks <= len(self.classes):
            raise ValueError(f"{tasks} tasks need as many groups; here are {len(self.classes)}.")
        keys = torch.rand(len(self.classes), generator=generator, device=self.x.device)
        drawn = keys.topk(tasks).indices
        rows = self._examples(drawn, shots, queries, generator)  # [T, shots + queries]
        support, query = (
            (_take(self.x, side), _take(self.targets, side))
            for side in (rows[:, :shots], rows[:, shots:])
        )
        return Episodes(support, query)

    def _examples(
        self, drawn: Tensor, shots: int, queries: int, generator: torch.Generator
    ) -> Tensor:
        """Rows [*drawn.shape, shots + queries] of the drawn groups, no row twice in a group."""
        wanted = shots + queries
        if min(shots, queries) < 1:
            raise ValueError(
                f"{shots} shots and {queries} queries: a task needs at least one of each."
            )
        if wanted > self._fewest:
            raise ValueError(
                f"{shots} shots and {queries} queries need {wanted} examples of every class;"
                f" class {self._smallest} has {self._fewest}."
            )
        device = self.x.device
        keys = torch.rand(*drawn.shape, self._most, generator=generator, device=device)
        beyond = torch.arange(self._most, device=device) >= self._sizes[drawn][..., None]
        keys.masked_fill_(beyond, -1.0)  # places that a smaller group does not have come last
        return self._rows[self._first[drawn][..., None] + keys.topk(wanted).indices]


def sinusoids(tasks: int, shots: int, queries: int, generator: torch.Generator) -> Episodes:
    """Regressions y = a sin(x - b), each task with its amplitude and phase.

    a is uniform in [0.1, 5], b in [0, pi] and x in [-5, 5].

    Args:
        tasks: number of tasks T.
        shots: examples per task to adapt to.
        queries: examples per task to be judged on.
        generator: the tensors lie on its device.

    Returns:
        Support x, y [T, shots, 1] and query x, y [T, queries, 1], float32.

    Source:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep
        networks", ICML 2017, section 5.1.

    Example:
        >>> episodes = sinusoids(100, shots=10, queries=5, generator=torch.Generator())
        >>> x, y = episodes.support
        >>> list(y.shape), bool((x.abs() <= 5).all() and (y.abs() <= 5).all())
        ([100, 10, 1], True)
    """
    device = generator.device
    a = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=generator, device=device)
    b = torch.pi * torch.rand(tasks, 1, 1, generator=generator, device=device)
    x = 10 * torch.rand(tasks, shots + queries, 1, generator=generator, device=device) - 5
    y = a * torch.sin(x - b)
    return Episodes((x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:]))
