"""Learning in context: a network reads labelled examples and answers, and no parameter moves.

    prior = partial(table_tasks, features=20)  # draws tasks that resemble the ones to come
    model = InContext(features=20, classes=2)
    for _ in range(steps):  # the only training that there is
        losses = episode_losses(model, prior(32, examples=20, questions=20, generator=generator))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    answer(model, x, y, new)  # a table that it has never seen: one forward pass

An episode is a sequence: examples (x, y) first, then questions x. Every place reads the examples
and no place reads a question, so the order of the examples means nothing and the questions are
answered one by one. What the network learns is the best guess of y under the prior, the posterior
predictive distribution; where the tasks are linear, that is ridge regression.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.episodes import Episodes
from ..networks.transformer import EncoderLayer

LIMIT = 4.0  # deviations at which `scaled_columns` cuts


# ---------------------------------------------------------------------------------- the network
def episode_mask(examples: int, questions: int) -> Tensor:
    """Who may look at whom in an episode: everyone at the examples, no one at a question.

    Args:
        examples: n, the first places of the sequence.
        questions: q, the places behind them.

    Returns:
        bool [n + q, n + q]: True where the place of the row may look at that of the column.

    Raises:
        ValueError: there is no example to look at.

    Source:
        Müller et al., "Transformers Can Do Bayesian Inference", ICLR 2022, section 3; there a
        question also looks at itself.

    Example:
        >>> from mtl_course.meta import episode_mask
        >>> episode_mask(examples=2, questions=1).int()
        tensor([[1, 1, 0],
                [1, 1, 0],
                [1, 1, 0]], dtype=torch.int32)
    """
    if examples < 1:
        raise ValueError("A context needs at least one labelled example; this one has none.")
    places = examples + questions
    return (torch.arange(places) < examples).expand(places, places)


class InContext(nn.Module):
    """A Transformer that reads examples and answers questions in one forward pass.

    Called with examples x [T, n, features], their targets y [T, n] and questions [T, q, features]
    of T tasks, it gives logits [T, q, classes] or, for numbers, means [T, q]. It has no table of
    positions: the order of the examples does not count.

    Args:
        features: columns of x; `scaled_columns` fills up with zeros where a table has fewer.
        classes: how many labels it knows, for targets int64 from 0 on; None for numbers.
        width: numbers per place.
        layers: of attention, norms first.
        heads: of each layer.

    Raises:
        ValueError: if the heads do not divide the width, or for fewer than two classes; when
            called, for an empty context, for other columns than `features`, for labels that it
            does not know.

    Source:
        Müller et al., "Transformers Can Do Bayesian Inference", ICLR 2022, section 3.

    Example:
        >>> from mtl_course.meta import InContext
        >>> model = InContext(features=3, classes=2, width=8, layers=1, heads=2)
        >>> x, y, new = torch.randn(5, 7, 3), torch.randint(2, (5, 7)), torch.randn(5, 4, 3)
        >>> list(model(x, y, new).shape)
        [5, 4, 2]
        >>> model(x, y + 1, new)
        Traceback (most recent call last):
        ValueError: The network knows the labels 0 to 1; this context has labels from 1 to 2...
    """

    def __init__(
        self,
        features: int,
        classes: int | None = None,
        width: int = 48,
        layers: int = 3,
        heads: int = 4,
    ):
        super().__init__()
        if classes is not None and classes < 2:
            raise ValueError(f"{classes} classes: take at least two, or None for numbers.")
        self.features, self.classes = features, classes
        self.inputs = nn.Linear(features, width)
        self.targets = nn.Linear(1, width) if classes is None else nn.Embedding(classes, width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, 2 * width, norm_first=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes or 1)

    def sequence(self, x: Tensor, y: Tensor, new: Tensor) -> Tensor:
        """The episode as places [T, n + q, width]: input plus target, then inputs alone."""
        self._require(x, y, new)
        target = self.targets(y if self.classes else y[..., None].to(x.dtype))
        return torch.cat([self.inputs(x) + target, self.inputs(new)], dim=1)

    def forward(self, x: Tensor, y: Tensor, new: Tensor) -> Tensor:
        """Logits [T, q, classes], or means [T, q]."""
        z = self.sequence(x, y, new)
        mask = episode_mask(x.shape[1], new.shape[1]).to(z.device)
        for layer in self.layers:
            z = layer(z, mask)
        said = self.head(self.norm(z[:, x.shape[1] :]))
        return said if self.classes else said[..., 0]

    def _require(self, x: Tensor, y: Tensor, new: Tensor) -> None:
        if x.dim() != 3 or new.dim() != 3 or len(x) != len(new):
            raise ValueError(
                "Examples are [T, n, features] and questions [T, q, features], of the same T tasks;"
                f" these are {list(x.shape)} and {list(new.shape)}."
            )
        if x.shape[1] < 1:
            raise ValueError("A context needs at least one labelled example; this one has none.")
        if y.shape != x.shape[:2]:
            raise ValueError(
                f"{x.shape[1]} examples of {len(x)} tasks need targets [{len(x)}, {x.shape[1]}];"
                f" these are {list(y.shape)}."
            )
        for name, values in (("examples", x), ("questions", new)):
            if values.shape[-1] != self.features:
                raise ValueError(
                    f"The {name} have {values.shape[-1]} columns and the network takes"
                    f" {self.features}: `scaled_columns` fills up with zeros where there are fewer."
                )
        if self.classes and y.dtype != torch.int64:
            raise ValueError(f"Labels of classes are int64; these are {y.dtype}.")
        if self.classes and y.device.type == "cpu" and not torch.compiler.is_compiling():
            low, high = int(y.min()), int(y.max())
            if low < 0 or high >= self.classes:
                raise ValueError(
                    f"The network knows the labels 0 to {self.classes - 1}; this context has labels"
                    f" from {low} to {high}. Number them from 0 on, or take a network that was"
                    " trained with more classes."
                )


def episode_losses(model: InContext, episodes: Episodes) -> Tensor:
    """How far the answers are off: the mean loss over the questions of each task.

    Cross-entropy for classes, the squared error for numbers. The support is the context.

    Args:
        model: the network.
        episodes: T tasks, with the columns that the network takes.

    Returns:
        Losses [T].

    Raises:
        ValueError: as the network.

    Example:
        >>> from mtl_course.meta import InContext, episode_losses, linear_tasks
        >>> model = InContext(features=2, width=8, layers=1, heads=2)
        >>> tasks = linear_tasks(6, 5, 3, torch.Generator().manual_seed(0), features=2)
        >>> list(episode_losses(model, tasks).shape)
        [6]
    """
    new, truth = episodes.query
    said = model(*episodes.support, new)
    if model.classes is None:
        return (said - truth).square().mean(dim=1)
    return F.cross_entropy(said.transpose(1, 2), truth, reduction="none").mean(dim=1)


# -------------------------------------------------------------------------------------- a table
def scaled_columns(x: Tensor, new: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Columns in units that the examples give, filled up with zeros to a network's width.

    Each column is shifted and scaled to mean 0 and deviation 1 over the examples, and cut at four
    deviations. A column that is constant there says nothing and becomes 0.

    Args:
        x: examples [..., n, d].
        new: questions [..., q, d].
        features: columns that the network takes, at least d.

    Returns:
        Examples [..., n, features] and questions [..., q, features].

    Raises:
        ValueError: more columns than the network takes, unlike columns on the two sides, no
            example, or a number that is not finite; it names the column.

    Example:
        >>> from mtl_course.meta import scaled_columns
        >>> x, new = torch.tensor([[8.0, 5.0], [24.0, 5.0]]), torch.tensor([[32.0, 9.0]])
        >>> x, new = scaled_columns(x, new, features=3)
        >>> x.round().int().tolist(), new.round().int().tolist()
        ([[-1, 0, 0], [1, 0, 0]], [[2, 0, 0]])
    """
    if x.shape[-2] < 1:
        raise ValueError("A context needs at least one labelled example; this one has none.")
    if x.shape[-1] != new.shape[-1]:
        raise ValueError(
            f"The examples have {x.shape[-1]} columns and the questions {new.shape[-1]}:"
            " they are rows of one table."
        )
    if x.shape[-1] > features:
        raise ValueError(
            f"The table has {x.shape[-1]} columns and the network takes {features}: leave columns"
            " out, or train a network that takes more."
        )
    for name, values in (("examples", x), ("questions", new)):
        if not (sound := torch.isfinite(values)).all():
            column = int((~sound).nonzero()[0, -1])
            raise ValueError(
                f"Column {column} of the {name} has a value that is NaN or infinite: fill gaps"
                " before, such as with the column's mean over the examples."
            )
    size = x.abs().amax(-2, keepdim=True)  # first, so that no square overflows
    size = torch.where(size > 0, size, 1.0)
    x, new = x / size, new / size
    mean, spread = x.mean(-2, keepdim=True), x.std(-2, keepdim=True, correction=0)
    constant = spread <= 16 * torch.finfo(spread.dtype).eps
    scaled = (((v - mean) / spread).clamp(-LIMIT, LIMIT) for v in (x, new))
    a, b = (F.pad(v.masked_fill(constant, 0.0), (0, features - v.shape[-1])) for v in scaled)
    return a, b


@torch.no_grad()
def answer(
    model: InContext,
    x: np.ndarray | Tensor,
    y: np.ndarray | Tensor,
    new: np.ndarray | Tensor,
    orders: int = 1,
) -> Tensor:
    """What a network says of a table's new rows, once it has read the labelled ones.

    Nothing is trained. For a table, the order of columns and the numbers of the classes mean
    nothing, but to the network each column is another input: with `orders` above 1 it is asked in
    several orders of columns and of classes, and the mean of what it says is taken.

    Args:
        model: the network.
        x: labelled rows [n, d], d at most `model.features`.
        y: [n], labels from 0 on, or numbers.
        new: rows [q, d].
        orders: how often it is asked, each time with columns (and classes) in another order; the
            first time as they are.

    Returns:
        Probabilities [q, classes], or means [q], float32.

    Raises:
        ValueError: as `scaled_columns` and the network, targets that are not whole (for classes)
            or not finite, or `orders` below 1.

    Source:
        Hollmann et al., "TabPFN: A Transformer That Solves Small Tabular Classification Problems
        in a Second", ICLR 2023, for the mean over orders.

    Example:
        >>> from mtl_course.meta import InContext, answer
        >>> model = InContext(features=4, classes=2, width=8, layers=1, heads=2)
        >>> x, y, new = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]), torch.randn(2, 3)
        >>> p = answer(model, x, y, new)
        >>> list(p.shape), p.sum(1).allclose(torch.ones(2))
        ([2, 2], True)
    """
    if orders < 1:
        raise ValueError(f"{orders} orders: ask at least once.")
    x, y, new = (v if isinstance(v, Tensor) else torch.tensor(np.asarray(v)) for v in (x, y, new))
    if not torch.isfinite(y).all() or (model.classes and (y != y.long()).any()):
        kind = "whole numbers from 0 on" if model.classes else "finite numbers"
        raise ValueError(f"The targets must be {kind}; these are not.")
    weight = model.head.weight
    x, new = (v.to(weight) for v in scaled_columns(x.double(), new.double(), model.features))
    y = y.to(torch.int64 if model.classes else weight.dtype)
    model._require(x[None], y[None], new[None])
    y, said, generator = y.to(weight.device), [], torch.Generator().manual_seed(0)
    for k in range(orders):
        columns = torch.randperm(model.features, generator=generator)
        names = torch.randperm(model.classes or 1, generator=generator)
        if k == 0:
            columns, names = columns.sort().values, names.sort().values
        columns, names = columns.to(x.device), names.to(x.device)
        target = names[y] if model.classes else y
        out = model(x[None, :, columns], target[None], new[None, :, columns])[0]
        said.append(out.softmax(-1)[:, names] if model.classes else out)
    return torch.stack(said).mean(0)


# ------------------------------------------------------------------------------------ the priors
def linear_tasks(
    tasks: int,
    examples: int,
    questions: int,
    generator: torch.Generator,
    features: int = 1,
    noise: float = 0.5,
) -> Episodes:
    """A prior of lines: y = b + w'x + noise, with b and w drawn anew for every task.

    b, the entries of w and those of x are standard normal numbers. For squared error the best
    answer is then ridge regression on (1, x) with the strength noise^2; see `ridge`.

    Args:
        tasks: T.
        examples: n, of each task.
        questions: q, of each task.
        generator: of the draws, on the CPU.
        features: d, columns of x.
        noise: deviation of the noise.

    Returns:
        Support x [T, n, d], y [T, n]; query x [T, q, d], y [T, q].

    Source:
        Garg et al., "What Can Transformers Learn In-Context?", NeurIPS 2022, section 3, with a
        level and with noise.

    Example:
        >>> from mtl_course.meta import linear_tasks
        >>> tasks = linear_tasks(6, 5, 3, torch.Generator().manual_seed(0), features=2)
        >>> [list(t.shape) for t in (*tasks.support, *tasks.query)]
        [[6, 5, 2], [6, 5], [6, 3, 2], [6, 3]]
    """
    x = torch.randn(tasks, examples + questions, features, generator=generator)
    w = torch.randn(tasks, features, 1, generator=generator)
    b = torch.randn(tasks, 1, generator=generator)
    y = (x @ w)[..., 0] + b + noise * torch.randn(x.shape[:2], generator=generator)
    return _split(x, y, examples)


def ridge(x: Tensor, y: Tensor, new: Tensor, strength: float) -> Tensor:
    """Ridge regression on (1, x) in closed form, its level shrunk like its slopes.

    Args:
        x: examples [..., n, d].
        y: [..., n].
        new: questions [..., q, d].
        strength: of the squares of level and slopes, positive.

    Returns:
        Answers [..., q].

    Raises:
        ValueError: the strength is not positive.

    Example:
        One example at x = 0 shows a level of 3; with strength 1 half of it is believed.

        >>> from mtl_course.meta import ridge
        >>> ridge(torch.zeros(1, 1), torch.tensor([3.0]), torch.tensor([[5.0]]), strength=1.0)
        tensor([1.5000])
    """
    if not strength > 0:
        raise ValueError(f"The strength is {strength}; it must be positive.")
    a, b = (torch.cat([torch.ones_like(v[..., :1]), v], dim=-1) for v in (x, new))
    gram = a.mT @ a + strength * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    weights = torch.linalg.solve(gram, a.mT @ y[..., None])
    return (b @ weights)[..., 0]


def table_tasks(
    tasks: int,
    examples: int,
    questions: int,
    generator: torch.Generator,
    features: int = 20,
    columns: int | None = None,
) -> Episodes:
    """A prior of small tables with two classes.

    Half of the tasks draw a function of some columns, part linear and part a small random network,
    and cut it at a level; the others draw a class first and then columns around its mean. Columns
    are correlated, some mean nothing, and some are skewed, rounded or yes and no.

    Args:
        tasks: T.
        examples: n, of each task.
        questions: q, of each task.
        generator: of the draws, on the CPU.
        features: columns of x; those that a table does not have are 0.
        columns: how many a table has; drawn between 2 and `features` where None.

    Returns:
        Support x [T, n, features], scaled as `scaled_columns` does, labels [T, n]; the same for
        the query, with q.

    Raises:
        ValueError: more columns than features, or none.

    Source:
        In the manner of Hollmann et al., "TabPFN", ICLR 2023, section 4; much simpler.

    Example:
        >>> from mtl_course.meta import table_tasks
        >>> tasks = table_tasks(6, 5, 3, torch.Generator().manual_seed(0), features=8, columns=4)
        >>> [list(t.shape) for t in (*tasks.support, *tasks.query)]
        [[6, 5, 8], [6, 5], [6, 3, 8], [6, 3]]
    """

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator)

    def uniform(low, high, *sizes):
        return low + (high - low) * torch.rand(*sizes, generator=generator)

    if columns is None:
        columns = int(torch.randint(min(2, features), features + 1, (), generator=generator))
    if not 1 <= columns <= features:
        raise ValueError(f"A table of {columns} columns: take 1 to {features}.")
    T, rows, d = tasks, examples + questions, columns
    share = uniform(0.25, 0.75, T)  # of the second class
    used = (torch.rand(T, d, generator=generator) < uniform(0.2, 1.0, T, 1)).float()
    causes = normal(T, rows, d)
    mixing = torch.eye(d) + uniform(0, 1.5, T, 1, 1) * normal(T, d, d) / d**0.5

    # a function of the columns
    x = _unit(causes @ mixing)
    first = normal(T, d, 12) * used[..., None]
    hidden = (_unit(x @ first) * uniform(0.5, 2.5, T, 1, 1) + normal(T, 1, 12)).tanh()
    bent, straight = hidden @ normal(T, 12, 1), x @ (normal(T, d, 1) * used[..., None])
    score = uniform(0, 1, T, 1, 1) * _unit(bent) + uniform(0, 1, T, 1, 1) * _unit(straight)
    noise = 1.6 * torch.rand(T, 1, 1, generator=generator).square()
    score = (_unit(score) + noise * normal(T, rows, 1))[..., 0]
    rank = score.argsort(dim=1).argsort(dim=1)
    above = rank >= ((1 - share) * rows)[:, None]

    # a class first, then the columns
    member = torch.rand(T, rows, generator=generator) < share[:, None]
    apart = normal(T, 1, d) * used[:, None] * uniform(0.3, 1.5, T, 1, 1)
    other = mixing + uniform(0, 0.7, T, 1, 1) * normal(T, d, d) / d**0.5
    around = torch.where(member[..., None], causes @ other + apart, causes @ mixing)

    which = torch.rand(T, generator=generator) < 0.5
    x = _unit(torch.where(which[:, None, None], x, around))
    y = torch.where(which[:, None], above, member)

    # how a column is measured
    kind = torch.randint(6, (T, 1, d), generator=generator)
    x = torch.where(kind == 0, (0.8 * x).exp(), x)
    x = torch.where(kind == 1, (x * uniform(0.5, 2.0, T, 1, 1)).round(), x)
    x = torch.where(kind == 2, (x > 0.7 * normal(T, 1, d)).float(), x)
    support, query = scaled_columns(x[:, :examples], x[:, examples:], features)
    y = y.long()
    return Episodes((support, y[:, :examples]), (query, y[:, examples:]))


def _unit(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the rows of each task; what is constant becomes 0."""
    x = x - x.mean(1, keepdim=True)
    return x / x.std(1, keepdim=True, correction=0).clamp_min(1e-6)


def _split(x: Tensor, y: Tensor, examples: int) -> Episodes:
    return Episodes((x[:, :examples], y[:, :examples]), (x[:, examples:], y[:, examples:]))
