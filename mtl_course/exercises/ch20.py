"""Exercises of chapter 20: learning in context."""

import torch
from torch import nn

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, uniform, whole
from .outcomes import named


# ------------------------------------------------------------------- 1. the best answer for a line
# inputs
def _lines(few=False, small=False):
    """Examples of one line, questions, the noise and the spread of the slopes.

    few: fewer examples than columns, so that least squares has no answer. small: one question, and
    inputs so small that a small number added to the strength outweighs them.
    """

    def draw(generator):
        d, n, q = different(generator, 3, 2, 9)
        q = 1 if small else q
        d, n = (max(d, n), min(d, n)) if few else (min(d, n), max(d, n))
        noise, spread = uniform(generator, 0.3, 2.0), uniform(generator, 0.3, 2.0)
        noise, spread = (3 * noise, spread) if whole(generator, 0, 2) else (noise, 3 * spread)
        x, new = (torch.randn(m, d, generator=generator, dtype=torch.float64) for m in (n, q))
        w = spread * torch.randn(d, generator=generator, dtype=torch.float64)
        y = x @ w + noise * torch.randn(n, generator=generator, dtype=torch.float64)
        if small:
            x, new, spread = 1e-4 * x, 1e-4 * new, 1e4 * spread
        return x, y, new, noise, spread

    return draw


# reference
@exercise(
    [_lines(), _lines(few=True), _lines(few=True, small=True)],
    points=3,
    parts=("mean", "deviation"),
    hints=(
        "With what strength must ridge regression shrink, if the noise is large? And if the slopes"
        " are?",
        (
            "The strength is noise^2 / spread^2. The mean is x' times the ridge weights, for each"
            " new x."
        ),
        (
            "With A = X'X + strength * I, the weights are as unsure as noise^2 * inverse of A. So a"
            " new y has the variance noise^2 * (1 + x' A^-1 x)."
        ),
    ),
)
def line_answer(x, y, new, noise, spread):
    """What to say of new rows, and how sure to be: equation 4.

    y = w'x + noise: the entries of w are independent and normal
    with mean 0 and deviation `spread`, those of the noise with
    mean 0 and deviation `noise`. There is no level.

    x: [n, d], y: [n], one task's examples, float64; n may be
        smaller than d. new: [q, d]. noise, spread: positive.
    Return (mean, deviation), each [q]: of the y at each new row,
    its own noise included.
    """
    ### BEGIN SOLUTION
    strength = (noise / spread) ** 2
    A = x.T @ x + strength * torch.eye(x.shape[1]).to(x)
    mean = new @ torch.linalg.solve(A, x.T @ y)
    doubt = (new.T * torch.linalg.solve(A, new.T)).sum(0)
    return mean, noise * (1 + doubt).sqrt()
    ### END SOLUTION


# laws
@line_answer.law("where noise and slopes are a millionth as large, so are mean and deviation")
def _(answer, x, y, new, noise, spread):
    one = named(answer(x, y, new, noise, spread), "mean", "deviation")
    unit = 1e-6
    small = named(answer(x, unit * y, new, unit * noise, unit * spread), "mean", "deviation")
    return all(torch.allclose(small[k], unit * one[k], atol=1e-5 * unit) for k in one)


@line_answer.law("at x = 0 the answer is 0, and as unsure as the noise")
def _(answer, x, y, new, noise, spread):
    got = named(answer(x, y, torch.zeros_like(new), noise, spread), "mean", "deviation")
    noisy = torch.full_like(new[:, 0], noise)
    return torch.allclose(got["mean"], 0 * noisy) and torch.allclose(got["deviation"], noisy)


line_answer.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _line(x, y, new, noise, spread, strength=None, own=1.0, power=0.5, scale=None):
    """The answer with one thing changed."""
    strength = (noise / spread) ** 2 if strength is None else strength(noise, spread)
    A = x.T @ x + strength * torch.eye(x.shape[1]).to(x)
    mean = new @ torch.linalg.solve(A, x.T @ y)
    doubt = (new.T * torch.linalg.solve(A, new.T)).sum(0)
    size = noise if scale is None else scale(noise, spread)
    return mean, (size**2 * (own + doubt)) ** power


line_answer.variants(
    _line,
    {
        "The strength is upside down: much noise must shrink more, large slopes less.": {
            "strength": lambda noise, spread: (spread / noise) ** 2
        },
        "The strength is a ratio of variances, not of deviations: square it.": {
            "strength": lambda noise, spread: noise / spread
        },
        "You shrink by noise^2 whatever the slopes. How large they may be counts as well.": {
            "strength": lambda noise, spread: noise**2
        },
        "The deviation is that of the line. A new y has noise of its own on top of it.": {
            "own": 0.0
        },
        "That is the variance; asked for is the deviation, its square root.": {"power": 1.0},
        "The doubt about the slopes is noise^2 times the inverse of A, not spread^2.": {
            "scale": lambda noise, spread: spread
        },
    },
)


# --------------------------------------------------------------------- 2. the episode as a sequence
# inputs
def _places(tasks=0, alone=False, dtype=torch.float32):
    """Embedded inputs and targets of the examples, and embedded questions; all sizes differ.

    tasks: how many leading dimensions there are. alone: the first of them has one entry.
    """

    def draw(generator):
        n, q, width, *lead = different(generator, 3 + tasks, 1, 7)
        lead = [1, *lead[1:]] if alone else lead
        x, y = torch.randn(2, *lead, n, width, generator=generator, dtype=dtype)
        return x, y, torch.randn(*lead, q, width, generator=generator, dtype=dtype)

    return draw


# reference
@exercise(
    [_places(1), _places(0, dtype=torch.float64), _places(2), _places(1, alone=True)],
    points=2,
    parts=("sequence", "mask"),
    hints=(
        "What does a question have that an example lacks, and the other way round? Who must not"
        " be seen by anyone?",
        (
            "A place is the sum of input and target for an example, the input alone for a"
            " question. Stack them with torch.cat, along the dimension before the last."
        ),
        (
            "`torch.arange(n + q) < n` says which places are examples. Each row of the mask is"
            " just that; `expand` repeats it."
        ),
    ),
)
def episode(x, y, new):
    """The places of an episode, and who may look at whom.

    x, y: [..., n, width], the embedded inputs and targets of the
        n examples. new: [..., q, width], the embedded questions.
        The dots are any number of dimensions: none, or tasks.
    Return (sequence, mask): the examples first, each the sum of
    its input and its target, then the questions,
    [..., n + q, width]; and bool [n + q, n + q], True where the
    place of the row may look at the place of the column. All look
    at the examples. No one looks at a question, not even the
    question itself.
    """
    ### BEGIN SOLUTION
    sequence = torch.cat([x + y, new], dim=-2)
    n, length = x.shape[-2], sequence.shape[-2]
    mask = (torch.arange(length, device=x.device) < n).expand(length, length)
    return sequence, mask
    ### END SOLUTION


# laws
@episode.law("another question changes nothing but its own place")
def _(answer, x, y, new):
    other = new.clone()
    other[..., -1, :] += 1
    one, two = (named(answer(x, y, v), "sequence", "mask") for v in (new, other))
    return torch.equal(one["sequence"][..., :-1, :], two["sequence"][..., :-1, :]) and torch.equal(
        one["mask"], two["mask"]
    )


episode.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _episode(x, y, new, own=False, causal=False, turned=False, apart=False, first=True):
    """The answer with one thing changed."""
    sequence = torch.cat([x + y, new] if first else [new, x + y], dim=-2)
    n, places = x.shape[-2], torch.arange(sequence.shape[-2], device=x.device)
    there = places < n
    mask = there.expand(len(places), len(places))
    if own:
        mask = mask | torch.eye(len(places), dtype=torch.bool, device=x.device)
    if causal:
        mask = mask & (places[None] <= places[:, None])
    if apart:
        mask = mask & there[:, None]
    return sequence, mask.T if turned else mask


episode.variants(
    _episode,
    {
        "A question looks at itself in your mask. It need not: what it is comes with it through"
        " the shortcut of each layer.": {"own": True},
        "Your mask is causal: an example sees only those before it. Then their order counts, and"
        " examples have none.": {"causal": True},
        "The mask is the wrong way round: its row says who looks, its column who is seen.": {
            "turned": True
        },
        "Questions may look nowhere in your mask. They have to read the examples.": {
            "apart": True
        },
        "The questions stand first. Examples come first, then the questions.": {"first": False},
    },
)


@episode.mistake(
    "Everyone looks at everyone. Then the answer to one question depends on the other questions."
)
def _(x, y, new):
    sequence, mask = _episode(x, y, new)
    return sequence, torch.ones_like(mask)


@episode.mistake(
    "The targets are places of their own. Here an example is one place: input and target added."
)
def _(x, y, new):
    sequence = torch.cat([x, y, new], dim=-2)
    places = torch.arange(sequence.shape[-2], device=x.device)
    return sequence, (places < 2 * x.shape[-2]).expand(len(places), len(places))


# --------------------------------------------------------------------------- 3. a prior of your own
# inputs
def _draws(generator, flat=False):
    """Inputs in units far apart, weights, noise; and how many rows are examples.

    One unit is as small as what people add lest they divide by zero. flat: the last task's scores
    are all zero, so that none is above the mean.
    """
    T, n, q, d = different(generator, 4, 3, 9)
    unit = 10.0 ** torch.randint(-2, 3, (T, 1, d), generator=generator).double()
    unit[0, 0, 0] = 1e-8
    x = 3 * unit + unit * torch.randn(T, n + q, d, generator=generator, dtype=torch.float64)
    x[:, n:] += 0.7 * unit
    w = torch.randn(T, d, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(T, n + q, generator=generator, dtype=torch.float64)
    if flat:
        w[-1], noise[-1] = 0.0, 0.0
    return x, w, noise, n


def _with_a_flat_one(generator):
    return _draws(generator, flat=True)


# reference
def _spoiled(x, w, noise, examples):
    """Tables of two classes, cut by a plane: a prior for a network.

    x: [T, rows, d], drawn for T tasks, each column in a unit of
        its own. w: [T, d], drawn weights. noise: [T, rows]. The
        first `examples` rows of a task are its examples, the rest
        its questions.
    Every column is first scaled to mean 0 and deviation 1
    (correction=0). A row's score is w'x + noise; its label is 1
    where the score is above the middle, the mean score, else 0.
    Return scaled x [T, rows, d] and labels [T, rows], int64.

    A network trained on such tasks shall have to read the
    examples, and shall work for a table of which only these are
    known.
    """
    mean = x.mean(1, keepdim=True)
    spread = x.std(1, keepdim=True, correction=0)
    x = (x - mean) / spread
    score = (x @ w.abs()[:, :, None])[..., 0] + noise
    middle = score.mean(1, keepdim=True)
    return x, (score > middle).long()


@exercise(
    [_draws, _with_a_flat_one],
    points=3,
    grad=False,
    starter=_spoiled,
    parts=("x", "labels"),
    hints=(
        "Which of these numbers could you not compute for a real table, whose questions come later?"
        " And what could a network learn by heart, without reading a single example?",
        (
            "Mean, spread and middle are taken over all rows of a task, questions too. And in every"
            " task, more of any column makes class 1 likelier."
        ),
        (
            "Take the three from the first `examples` rows alone, such as"
            " `x[:, :examples].mean(1, keepdim=True)`, and leave the weights their signs."
        ),
    ),
)
def plane_tasks(x, w, noise, examples):
    mean = x[:, :examples].mean(1, keepdim=True)
    spread = x[:, :examples].std(1, keepdim=True, correction=0)
    x = (x - mean) / spread
    score = (x @ w[:, :, None])[..., 0] + noise
    middle = score[:, :examples].mean(1, keepdim=True)
    return x, (score > middle).long()


# laws
@plane_tasks.law("other questions change no example")
def _(answer, x, w, noise, examples):
    other = x.clone()
    other[:, examples:] += other[:, examples:].abs().mean()
    one, two = (named(answer(v, w, noise, examples), "x", "labels") for v in (x, other))
    return all(torch.equal(one[k][:, :examples], two[k][:, :examples]) for k in one)


@plane_tasks.law("weights that push the other way exchange the classes")
def _(answer, x, w, noise, examples):
    one, other = (
        named(answer(x, sign * w, sign * noise, examples), "x", "labels")["labels"]
        for sign in (1, -1)
    )
    return not (one * other).any()


plane_tasks.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _planes(x, w, noise, n, scale=True, cut=True, signs=True, questions=False):
    """The prior with one thing as it was."""
    part = x[:, n:] if questions else x[:, :n] if scale else x
    x = (x - part.mean(1, keepdim=True)) / part.std(1, keepdim=True, correction=0)
    score = (x @ (w if signs else w.abs())[:, :, None])[..., 0] + noise
    middle = (score[:, :n] if cut else score).mean(1, keepdim=True)
    return x, (score > middle).long()


plane_tasks.variants(
    _planes,
    {
        "The columns are still scaled with the questions' help.": {"scale": False},
        "The middle is still taken over the questions, too.": {"cut": False},
        "Every column still pushes towards class 1. A network would learn that by heart, and real"
        " columns push either way.": {"signs": False},
        "You scale by the questions. For a real table, the examples are what is known.": {
            "questions": True
        },
    },
)


@plane_tasks.mistake(
    "Two things are still wrong: middle and scale use the questions, which a real table does not"
    " show beforehand."
)
def _(x, w, noise, n):
    return _planes(x, w, noise, n, scale=False, cut=False)


@plane_tasks.mistake(
    "Nothing is mended yet. Ask of each line: does it use a row that is a question? Is it the same"
    " in every task?"
)
def _(x, w, noise, n):
    return _spoiled(x, w, noise, n)


# -------------------------------------------------------------------------- 4. the order of columns
# inputs
class Opinion(nn.Module):
    """Something that is asked like a network: probabilities that depend on the order of columns."""

    def __init__(self, weights, classes):
        super().__init__()
        self.register_buffer("weights", weights)
        self.classes = classes

    def forward(self, x, y, new):
        """Probabilities [q, classes] from distances to class means, columns weighted by place."""
        logits = []
        for c in range(self.classes):
            member = (y == c).to(x)[:, None]
            mean = (member * x).sum(0) / member.sum().clamp_min(1)
            logits.append(-((new - mean).square() * self.weights).sum(1) + 0.3 * c)
        return torch.stack(logits, 1).softmax(1)


def _table(generator, one=False):
    """A table, something to ask, and several orders of its columns and names of its classes.

    one: there is one new row.
    """
    n, q, d = different(generator, 3, 3, 9)
    q = 1 if one else q
    classes, times = whole(generator, 3, 5), whole(generator, 2, 5)
    x, new = (torch.randn(m, d, generator=generator, dtype=torch.float64) for m in (n, q))
    y = torch.randint(classes, (n,), generator=generator)
    weights = torch.rand(d, generator=generator, dtype=torch.float64)
    columns = [torch.randperm(d, generator=generator) for _ in range(times)]
    names = [torch.randperm(classes, generator=generator).roll(1) for _ in range(times)]
    return Opinion(weights, classes), x, y, new, columns, names


def _one_row(generator):
    return _table(generator, one=True)


# reference
@exercise(
    [_table, _one_row],
    points=2,
    grad=False,
    device=False,
    hints=(
        "What has to be reordered before you ask, and what has to be put back afterwards?",
        (
            "For each k ask `predict(x[:, columns[k]], names[k][y], new[:, columns[k]])`. Its"
            " columns are in the order of the new names."
        ),
        "Class c is called names[k][c] there, so its probability is in that column of the answer.",
    ),
)
def ask_in_orders(predict, x, y, new, columns, names):
    """The mean answer over several orders of columns and classes.

    predict: (x [n, d], y [n], new [q, d]) -> probabilities [q, C].
    x, y, new: a table: labelled rows, labels 0 to C - 1, new rows.
    columns: list of permutations [d]: when it is asked the k-th
        time, place j holds column columns[k][j].
    names: as many permutations [C]: the k-th time, class c is
        called names[k][c].
    Return [q, C]: the mean over k, column c for class c.
    """
    ### BEGIN SOLUTION
    said = []
    for k, order in enumerate(columns):
        p = predict(x[:, order], names[k][y], new[:, order])
        said.append(p[:, names[k]])
    return torch.stack(said).mean(0)
    ### END SOLUTION


# laws
@ask_in_orders.law("each row of the answer sums to one")
def _(answer, predict, x, y, new, columns, names):
    p = answer(predict, x, y, new, columns, names)
    return torch.allclose(p.sum(1), torch.ones_like(p[:, 0]))


@ask_in_orders.law("the identity, asked once, is the plain answer")
def _(answer, predict, x, y, new, columns, names):
    plain = [torch.arange(x.shape[1])], [torch.arange(len(names[0]))]
    return torch.allclose(answer(predict, x, y, new, *plain), predict(x, y, new))


ask_in_orders.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _orders(
    predict, x, y, new, columns, names, both=True, rename=True, back=True, inverse=False,
    mean=lambda said: said.mean(0),
):  # fmt: skip
    """The answer with one thing changed."""
    said = []
    for order, name in zip(columns, names, strict=True):
        p = predict(
            x[:, order], name[y] if rename else y, new[:, order] if both else new
        )
        said.append(p[:, name.argsort() if inverse else name] if back else p)
    return mean(torch.stack(said))


ask_in_orders.variants(
    _orders,
    {
        "The new rows keep their columns while the labelled ones are reordered: both are rows of"
        " one table.": {"both": False},
        "The answers are not put back: column c is that of the class which was *called* c.": {
            "back": False
        },
        "The answers are put back with the inverse permutation. Class c was called names[k][c], so"
        " look there.": {"inverse": True},
        "The classes are not renamed before asking, but the answers are put back.": {
            "rename": False
        },
        "The answers are added up: take their mean.": {"mean": lambda said: said.sum(0)},
        "Only the first order counts in your answer. Take the mean over all.": {
            "mean": lambda said: said[0]
        },
    },
)


@ask_in_orders.mistake(
    "The classes keep their names. They mean nothing to the table either: rename them, and put the"
    " answers back."
)
def _(predict, x, y, new, columns, names):
    return _orders(predict, x, y, new, columns, names, rename=False, back=False)
