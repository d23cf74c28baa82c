"""Exercises of chapter 8: convolutional multi-task networks."""

import itertools
import math

import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import shuffled, task_names, whole
from .outcomes import named


# ----------------------------------------------------------------------------- 1. sizes of the maps
# inputs
def _layers(generator):
    """A side and three to five layers (kernel, stride, padding), some with a remainder.

    Strides of one to four, wider than the kernel too.
    """
    kinds = [(3, 1, 1), (3, 2, 1), (5, 2, 2), (1, 2, 0), (2, 2, 0), (3, 2, 0)]
    kinds += [(5, 3, 1), (2, 3, 0), (4, 4, 1)]
    side, layers = whole(generator, 40, 61), [(3, 1, 0)]
    left = side - 2
    for _ in range(whole(generator, 2, 5)):
        fitting = [kind for kind in kinds if left + 2 * kind[2] >= kind[0]]
        kernel, stride, padding = fitting[whole(generator, 0, len(fitting))]
        layers.append((kernel, stride, padding))
        left = (left + 2 * padding - kernel) // stride + 1
    return side, layers


def _patches(generator):
    """One layer whose windows lie apart, with a border left over."""
    patch, gap = whole(generator, 3, 9), whole(generator, 1, 3)
    step = patch + gap
    return step * whole(generator, 4, 8) + whole(generator, 0, patch), [(patch, step, 0)]


def _exact(generator):
    """Every window fits to the last pixel, even kernels and strides of 3 and 4 too.

    Some layers are padded by more than half of their kernel.
    """
    kinds = [(2, 2, 0), (4, 2, 1), (2, 3, 0), (4, 4, 1), (3, 1, 2), (1, 1, 1)]
    side = whole(generator, 6, 9)
    order = torch.randperm(len(kinds), generator=generator)[:4].tolist()
    order += [4] * (not {4, 5} & set(order)) + [2] * (not {2, 3} & set(order))
    layers = [kinds[k] for k in order]
    for kernel, stride, padding in reversed(layers):
        side = (side - 1) * stride + kernel - 2 * padding
    return side, layers


def _imagenet(side):
    """Of torchvision's resnet18: the stem, its max-pool, each later stage's first layer."""
    return lambda generator: (side, [(7, 2, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 2, 1)])


# reference
@exercise(
    [_layers, _imagenet(32), _imagenet(224), _patches, _exact],
    points=1,
    grad=False,
    hints=(
        (
            "The first place counts, too: how many times does a window of k pixels fit into side"
            " + 2 p pixels if it moves by s?"
        ),
        (
            "The new side is side = (side + 2 * padding - kernel) // stride + 1, and the next"
            " layer starts from it."
        ),
    ),
)
def map_sides(side, layers):
    """Sides of the maps that an image of side x side pixels
    becomes, one per layer.

    layers: list of (kernel, stride, padding), three ints each.
    Return a list of ints as long as `layers`.
    """
    ### BEGIN SOLUTION
    found = []
    for kernel, stride, padding in layers:
        side = (side + 2 * padding - kernel) // stride + 1
        found.append(side)
    return found
    ### END SOLUTION


# laws
@map_sides.law("PyTorch agrees")
def _(answer, side, layers):
    x, found = torch.zeros(1, 1, side, side), []
    for kernel, stride, padding in layers:
        x = F.conv2d(x, torch.zeros(1, 1, kernel, kernel), stride=stride, padding=padding)
        found.append(x.shape[-1])
    return list(answer(side, layers)) == found


# mistakes
def _sides(rule, layers, side, carry=True):
    found = []
    for kernel, stride, padding in layers:
        new = rule(side, kernel, stride, padding)
        side = new if carry else side
        found.append(new)
    return found


@map_sides.mistake("You pad one side only: p pixels are added on the left and on the right.")
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + p - k) // s + 1, layers, side)


@map_sides.mistake(
    "The first place is missing: a window that fits exactly has one place, not none."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + 2 * p - k) // s, layers, side)


@map_sides.mistake("You round up. A window that would hang over the edge is left out.")
def _(side, layers):
    return _sides(lambda n, k, s, p: -((k - n - 2 * p) // s) + 1, layers, side)


@map_sides.mistake(
    "Every layer starts from the image. It starts from the map of the layer before it."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + 2 * p - k) // s + 1, layers, side, carry=False)


@map_sides.mistake("The padding is not used.")
def _(side, layers):
    return _sides(lambda n, k, s, p: max((n - k) // s + 1, 1), layers, side)


@map_sides.mistake("Only the stride is used: kernel and padding shift the border, too.")
def _(side, layers):
    return _sides(lambda n, k, s, p: n // s, layers, side)


@map_sides.mistake(
    "You round n / s up, whatever kernel and padding are."
    " That is right only where the padding makes up for the kernel, 2 p = k - 1."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: -(-n // s), layers, side)


@map_sides.mistake(
    "The stride comes too early:"
    " first take the kernel off, side + 2 p - k, then divide by the stride."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: max((n + 2 * p) // s - k + 1, 1), layers, side)


@map_sides.mistake(
    "Every stride above 1 is taken for 2."
    " Divide by the stride that the layer has; it may be 3 or 4."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + 2 * p - k) // min(s, 2) + 1, layers, side)


@map_sides.mistake(
    "Every kernel is taken for odd, with as many pixels on the left of its middle as on the right."
    " A window of 2 or 4 pixels has no middle: take off the kernel as it is."
)
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + 2 * p - 2 * (k // 2) - 1) // s + 1, layers, side)


@map_sides.mistake("You return the last side only. A list with one side a layer is asked for.")
def _(side, layers):
    return _sides(lambda n, k, s, p: (n + 2 * p - k) // s + 1, layers, side)[-1]


# ----------------------------------------------------------------------------------- 2. two loaders
# inputs
def _loaders(long, short, size, spare=1):
    """Orders of two sets. spare: rounds of the shorter one that are not needed."""

    def draw(generator):
        passes = -(-long // short) + spare
        return (
            torch.randperm(long, generator=generator),
            torch.stack([torch.randperm(short, generator=generator) for _ in range(passes)]),
            size,
        )

    return draw


def _any_loaders(generator):
    """Sizes of any kind, the longer set now and then one batch."""
    short, size = whole(generator, 2, 7), whole(generator, 1, 9)
    return _loaders(short + whole(generator, 1, 8), short, size)(generator)


# reference
def _zipped(long, shuffles, size):
    """One epoch over two data sets, the longer one seen once.

    long: int64 [N], the rows of the longer set in a random
    order. shuffles: int64 [K, M] with K M >= N: row k is the
    order of the M rows of the shorter set in its k-th round.
    Return a list of pairs (rows of the longer, as many rows of
    the shorter), `size` at a time; the last pair may be smaller.
    The shorter set goes on where it stopped, round after round.
    """
    return list(zip(long.split(size), shuffles[0].split(size)))


@exercise(
    [
        _loaders(13, 5, 4),
        _loaders(12, 7, 3),
        _loaders(11, 2, 4),
        _loaders(6, 6, 4, spare=0),
        _any_loaders,
    ],
    points=2,
    grad=False,
    starter=_zipped,
    hints=(
        "zip ends with the shorter list. How many rows of the longer set are never seen?",
        (
            "Lay the rounds of the shorter set end to end, cut as many rows as the longer set"
            " has, and split both alike."
        ),
        "short = shuffles.flatten()[: len(long)], then zip(long.split(size), short.split(size)).",
    ),
)
def paired_batches(long, shuffles, size):
    short = shuffles.flatten()[: len(long)]
    return list(zip(long.split(size), short.split(size)))


# laws
@paired_batches.law("every row of the longer set is there once")
def _(answer, long, shuffles, size):
    return torch.equal(
        torch.cat([a for a, _ in answer(long, shuffles, size)]).sort().values,
        torch.arange(len(long), device=long.device),
    )


# mistakes
@paired_batches.mistake(
    "zip still ends with the shorter set: most of the longer one is never seen."
)
def _(long, shuffles, size):
    return _zipped(long, shuffles, size)


@paired_batches.mistake(
    "The first order comes round again and again, as with itertools.cycle, which stores it:"
    " every round needs its own shuffle."
)
def _(long, shuffles, size):
    short = shuffles[0].repeat(len(shuffles))[: len(long)]
    return list(zip(long.split(size), short.split(size), strict=True))


@paired_batches.mistake(
    "The last, smaller pair is dropped: some rows of the longer set are never seen."
)
def _(long, shuffles, size):
    short = shuffles.flatten()
    return [(long[k : k + size], short[k : k + size]) for k in range(0, len(long) - size + 1, size)]


@paired_batches.mistake(
    "The longer set is cut to the length of the shorter one."
    " It is the shorter one that comes again."
)
def _(long, shuffles, size):
    n = shuffles.shape[1]
    return list(zip(long[:n].split(size), shuffles[0].split(size), strict=True))


@paired_batches.mistake(
    "All rounds of the shorter set are used up, and the longer one is repeated for it:"
    " an epoch is one pass over the longer set."
)
def _(long, shuffles, size):
    short = shuffles.flatten()
    return list(zip(long.repeat(2)[: len(short)].split(size), short.split(size), strict=True))


@paired_batches.mistake(
    "The last pair has fewer rows of the longer set than of the shorter: take as many of each."
)
def _(long, shuffles, size):
    short = shuffles.flatten()
    return [(long[k : k + size], short[k : k + size]) for k in range(0, len(long), size)]


@paired_batches.mistake(
    "Batches of the first round come again and again, as with itertools.cycle over a loader:"
    " the same rows in the same order, and too few at a round's end."
)
def _(long, shuffles, size):
    return list(zip(long.split(size), itertools.cycle(shuffles[0].split(size))))


@paired_batches.mistake(
    "Each round is cut into batches by itself, so a round ends with a batch that is too small:"
    " lay the rounds end to end first."
)
def _(long, shuffles, size):
    return list(zip(long.split(size), [part for order in shuffles for part in order.split(size)]))


@paired_batches.mistake(
    "The rows of the shorter set are drawn from the transposed table:"
    " rounds are mixed, and some rows come twice before others come once."
)
def _(long, shuffles, size):
    short = shuffles.T.flatten()[: len(long)]
    return list(zip(long.split(size), short.split(size), strict=True))


@paired_batches.mistake(
    "Every batch starts at the first row of the shorter set again."
    " It should go on where it stopped."
)
def _(long, shuffles, size):
    return [(rows, shuffles.flatten()[: len(rows)]) for rows in long.split(size)]


# ---------------------------------------------------------------------------------- 3. label spaces
# inputs
# some names lie inside others, and several begin alike
_WORDS = ["cat", "bus", "catfish", "deer", "elm", "helm", "goat", "hat", "ivy", "jar"]


def _spaces(a, b, shared, missing=False):
    """Names of two sets, of which some are shared, and labels of the second.

    missing: whether one of the classes that only b has does not occur among the labels.
    """

    def draw(generator):
        order = torch.randperm(len(_WORDS), generator=generator).tolist()
        first, rest = order[:a], order[a:]
        second = [
            first[k] for k in torch.randperm(a, generator=generator)[:shared].tolist()
        ] + rest[: b - shared]
        second = [second[k] for k in torch.randperm(b, generator=generator).tolist()]
        names = [[_WORDS[k] for k in chosen] for chosen in (first, second)]
        labels = torch.cat([torch.arange(b), torch.randint(b, (3,), generator=generator)])
        if missing:
            labels = labels[labels != second.index(rest[0])]
        return names[0], names[1], labels[torch.randperm(len(labels), generator=generator)]

    return draw


def _one_label(generator):
    """A batch of one image."""
    names_a, names_b, labels = _spaces(3, 4, 2)(generator)
    return names_a, names_b, labels[:1]


# reference
@exercise(
    [
        _spaces(3, 5, 2),
        _spaces(4, 3, 1),
        _spaces(5, 4, 3),
        _spaces(2, 4, 0, missing=True),
        _spaces(4, 2, 2),
        _one_label,
    ],
    points=2,
    call=lambda answer, *args: named(answer(*args), "names", "new"),
    grad=False,
    hints=(
        "Which new number does each class of the second set get?",
        "Write the new numbers as a table, one entry a class, then look the labels up in it.",
        (
            "Go through names_b: a name that is known keeps its number, a new one gets the next."
            " torch.tensor(table)[labels] looks all labels up at once."
        ),
    ),
)
def one_space(names_a, names_b, labels):
    """Put two label sets into one.

    names_a, names_b: lists of class names; class c of a set is
    called names[c]. labels: int64 [n], of the second set.
    Return (names, new): the classes of a with their numbers
    unchanged and then those that only b has, in b's order; and
    the labels int64 [n] in this numbering, on labels' device.
    """
    ### BEGIN SOLUTION
    names = names_a + [name for name in names_b if name not in names_a]
    table = torch.tensor([names.index(name) for name in names_b])
    return names, table.to(labels.device)[labels]
    ### END SOLUTION


# laws
@one_space.law("every image keeps the name of its class")
def _(answer, names_a, names_b, labels):
    names, new = answer(names_a, names_b, labels)
    return [names[int(k)] for k in new] == [names_b[int(k)] for k in labels]


@one_space.law("no name is there twice, and the lists that came in are unchanged")
def _(answer, names_a, names_b, labels):
    a, b = list(names_a), list(names_b)
    names, _ = answer(names_a, names_b, labels)
    return len(set(names)) == len(names) and (names_a, names_b) == (a, b)


# mistakes
@one_space.mistake(
    "Only an offset: a class that both sets have gets two numbers,"
    " and the network is punished for seeing that they are one."
)
def _(names_a, names_b, labels):
    return names_a + names_b, labels + len(names_a)


@one_space.mistake(
    "The names are right,"
    " but the labels are only moved by the number of classes of a. Look each one up."
)
def _(names_a, names_b, labels):
    return names_a + [name for name in names_b if name not in names_a], labels + len(names_a)


@one_space.mistake("The labels of b are not changed, so class 0 of b is taken for class 0 of a.")
def _(names_a, names_b, labels):
    return names_a + [name for name in names_b if name not in names_a], labels


@one_space.mistake(
    "The names are sorted:"
    " the classes of a lose their numbers, and a head that was trained for them is lost."
)
def _(names_a, names_b, labels):
    names = sorted({*names_a, *names_b})
    return (
        names,
        torch.tensor([names.index(name) for name in names_b], device=labels.device)[labels],
    )


@one_space.mistake("b comes first: the classes of a must keep their numbers.")
def _(names_a, names_b, labels):
    return names_b + [name for name in names_a if name not in names_b], labels


@one_space.mistake(
    "Only classes that b has are listed after you are done with it. Keep those that only a has."
)
def _(names_a, names_b, labels):
    names = [name for name in names_a if name in names_b] + [
        name for name in names_b if name not in names_a
    ]
    return (
        names,
        torch.tensor([names.index(name) for name in names_b], device=labels.device)[labels],
    )


@one_space.mistake(
    "The labels are changed one class after the other in one tensor:"
    " a label that is new already is changed again. Compare with the old labels."
)
def _(names_a, names_b, labels):
    names, new = names_a + [name for name in names_b if name not in names_a], labels.clone()
    for old, name in enumerate(names_b):
        new[new == old] = names.index(name)
    return names, new


@one_space.mistake("The new classes are sorted. They come in the order in which b lists them.")
def _(names_a, names_b, labels):
    names = names_a + sorted(name for name in names_b if name not in names_a)
    return (
        names,
        torch.tensor([names.index(name) for name in names_b], device=labels.device)[labels],
    )


@one_space.mistake(
    "You return the table, one entry a class. Look the labels up in it: one entry an image."
)
def _(names_a, names_b, labels):
    names = names_a + [name for name in names_b if name not in names_a]
    return names, torch.tensor([names.index(name) for name in names_b], device=labels.device)


@one_space.mistake(
    "A class of b that no label has is left out. It is a class all the same,"
    " and a later batch may have images of it: go through names_b, not through the labels."
)
def _(names_a, names_b, labels):
    present = set(labels.tolist())
    names = names_a + [
        name for c, name in enumerate(names_b) if c in present and name not in names_a
    ]
    return names, labels.new_tensor([names.index(names_b[c]) for c in labels.tolist()])


@one_space.mistake(
    "The labels are numbered anew, those that occur from 0 on, before they are looked up:"
    " a class without an image moves all those after it. Look up the labels as they are."
)
def _(names_a, names_b, labels):
    names = names_a + [name for name in names_b if name not in names_a]
    table = torch.tensor([names.index(name) for name in names_b], device=labels.device)
    return names, table[labels.unique(return_inverse=True)[1]]


# -------------------------------------------------------------------------------- 4. balanced heads
# inputs
def _heads(rows, classes, size=3.0):
    """Logits and labels of several heads, the two dicts in different orders.

    size: of the logits; at 200 the probability of a class that is wrong is rounded to 0.
    """

    def draw(generator):
        names = task_names(generator, len(rows))
        logits = {
            name: size * torch.randn(n, c, generator=generator)
            for name, n, c in zip(names, rows, classes, strict=True)
        }
        targets = {
            name: torch.randint(z.shape[1], (len(z),), generator=generator)
            for name, z in logits.items()
        }
        return logits, shuffled(generator, targets)

    return draw


# reference
@exercise(
    [
        _heads((4, 9), (10, 100)),
        _heads((6, 2, 3), (3, 5, 30)),
        _heads((1, 5, 6, 2), (7, 2, 4, 9), size=200.0),
        _heads((5,), (6,)),
    ],
    points=2,
    hints=(
        (
            "What is the cross-entropy of a head that knows nothing, and gives each of its C"
            " classes the probability 1 / C?"
        ),
        (
            "For each head F.cross_entropy(logits, y), which is the mean over its own rows,"
            " divided by math.log(C); then the mean over the heads."
        ),
    ),
)
def balanced_loss(logits, targets):
    """One loss for heads of different sizes, such that every
    head that knows nothing (all its logits equal) adds the same,
    however many classes and however many rows it has here.

    logits: dict, task -> float [n_t, C_t]. targets: dict,
    task -> int64 [n_t]. Return a scalar tensor: the mean over
    the tasks, which is 1 if no head knows anything.
    """
    ### BEGIN SOLUTION
    losses = []
    for name, z in logits.items():
        loss = F.cross_entropy(z, targets[name])
        losses.append(loss / math.log(z.shape[1]))
    return torch.stack(losses).mean()
    ### END SOLUTION


# laws
@balanced_loss.law("it is 1 where no head knows anything")
def _(answer, logits, targets):
    return (
        abs(float(answer({name: torch.zeros_like(z) for name, z in logits.items()}, targets)) - 1)
        < 1e-5
    )


@balanced_loss.law("the same number added to all logits of a head changes nothing")
def _(answer, logits, targets):
    # in double precision: a cast to float32 would round the logits after the shift
    exact = {name: z.double() for name, z in logits.items()}
    moved = {name: z + 1e6 for name, z in exact.items()}
    return bool(torch.isclose(answer(moved, targets), answer(exact, targets), rtol=1e-6))


@balanced_loss.law("to show a head its rows twice changes nothing")
def _(answer, logits, targets):
    first = next(iter(logits))
    twice = {name: torch.cat([z, z]) if name == first else z for name, z in logits.items()}
    again = {name: torch.cat([y, y]) if name == first else y for name, y in targets.items()}
    return bool(torch.isclose(answer(twice, again), answer(logits, targets), rtol=1e-4))


# mistakes
def _each(logits, targets, loss):
    return [loss(z, targets[name]) for name, z in logits.items()]


@balanced_loss.mistake(
    "The plain mean of the losses: the head with 100 classes starts at ln 100,"
    " twice the loss of the head with 10, and makes up two thirds of the sum."
)
def _(logits, targets):
    return torch.stack(_each(logits, targets, F.cross_entropy)).mean()


@balanced_loss.mistake(
    "You pool the rows of all heads: the head with more rows in this batch decides."
)
def _(logits, targets):
    def total(z, y):
        return F.cross_entropy(z, y, reduction="sum") / math.log(z.shape[1])

    return torch.stack(_each(logits, targets, total)).sum() / sum(len(y) for y in targets.values())


@balanced_loss.mistake(
    "You divide by the number of classes. A head that knows nothing has the loss ln C, not C."
)
def _(logits, targets):
    return torch.stack(
        _each(logits, targets, lambda z, y: F.cross_entropy(z, y) / z.shape[1])
    ).mean()


@balanced_loss.mistake(
    "The sum of the losses over the sum of the ln C: it starts at 1,"
    " but the head with 100 classes still adds twice as much as the head with 10. Divide each."
)
def _(logits, targets):
    return torch.stack(_each(logits, targets, F.cross_entropy)).sum() / sum(
        math.log(z.shape[1]) for z in logits.values()
    )


@balanced_loss.mistake(
    "ln C is subtracted. Then the start is the same,"
    " but the gradient of the larger head is as large as before: divide by it."
)
def _(logits, targets):
    return (
        1
        + torch.stack(
            _each(logits, targets, lambda z, y: F.cross_entropy(z, y) - math.log(z.shape[1]))
        ).mean()
    )


@balanced_loss.mistake(
    "This is the sum over the tasks: a batch with three tasks would count three times."
)
def _(logits, targets):
    return torch.stack(
        _each(logits, targets, lambda z, y: F.cross_entropy(z, y) / math.log(z.shape[1]))
    ).sum()


@balanced_loss.mistake(
    "You take the logarithm of the number of rows."
    " What a head can be wrong about is its number of classes."
)
def _(logits, targets):
    return torch.stack(
        _each(logits, targets, lambda z, y: F.cross_entropy(z, y) / math.log(len(z)))
    ).mean()


@balanced_loss.mistake(
    "The base of the logarithm: cross-entropy is in nats, so divide by the natural logarithm."
)
def _(logits, targets):
    return torch.stack(
        _each(logits, targets, lambda z, y: F.cross_entropy(z, y) / math.log2(z.shape[1]))
    ).mean()


@balanced_loss.mistake(
    "Each loss is divided by its own value, so every gradient has the same scale and the loss"
    " is always 1: use the loss of a head that knows nothing."
)
def _(logits, targets):
    def relative(z, y):
        loss = F.cross_entropy(z, y)
        return loss / loss.detach()

    return torch.stack(_each(logits, targets, relative)).mean()


@balanced_loss.mistake("The losses are summed over the rows: a head with more rows has more say.")
def _(logits, targets):
    return torch.stack(
        _each(
            logits,
            targets,
            lambda z, y: F.cross_entropy(z, y, reduction="sum") / math.log(z.shape[1]),
        )
    ).mean()


@balanced_loss.mistake(
    "The two dicts are paired by position. They may list the tasks in different orders:"
    " look the targets up by the task's name."
)
def _(logits, targets):
    losses = [
        F.cross_entropy(z, y) / math.log(z.shape[1])
        for z, y in zip(logits.values(), targets.values())
    ]
    return torch.stack(losses).mean()


@balanced_loss.mistake(
    "You take a softmax and then its logarithm: a small probability is rounded to 0,"
    " and the logarithm of 0 is minus infinity. F.cross_entropy takes the logits as they are."
)
def _(logits, targets):
    def plain(z, y):
        return -z.softmax(dim=1).gather(1, y[:, None]).log().mean() / math.log(z.shape[1])

    return torch.stack(_each(logits, targets, plain)).mean()


@balanced_loss.mistake(
    "The number of classes is read from the labels of this batch, where the last classes may be"
    " missing: it is the number of the head's logits."
)
def _(logits, targets):
    def of_the_batch(z, y):
        return F.cross_entropy(z, y) / math.log(int(y.max()) + 1)

    return torch.stack(_each(logits, targets, of_the_batch)).mean()


# ----------------------------------------------------------------------------- 5. a fair comparison
# inputs
def _runs(count, seeds, kind="plain"):
    """A joint network and its rivals, in a random order.

    The cheaper rivals have lower accuracy, and one is as dear as the joint network. kind: "dear"
    has a rival beyond the budget that is better than all; "close" has a rival that is better by a
    tenth of a point; "unsteady" has one that is ahead in most seeds and fails in two, so that it is
    the best by the median and not on average; "lucky" has a fair rival that is the best
    on the test data and not on those for validation; "uneven" has a fair rival that is the best
    but for one seed; "mixed" has rivals that are the best in one seed each; "humbling" has three
    fair rivals that are far better than the joint network.
    """

    def draw(generator):
        level = 20 + 40 * float(torch.rand(1, generator=generator))
        budget = 10.0 ** whole(generator, 3, 12)

        def runs(validation, test, compute):
            noise = torch.randn(2, seeds, generator=generator, dtype=torch.float64)
            return {
                "test": level + test + noise[0],
                "validation": level + validation + noise[1],
                "compute": budget * compute,
            }

        rivals = [runs(-6.0 * k, -6.0 * k, 1.0 if not k else 0.5 / k) for k in range(count)]
        if kind == "dear":
            rivals += [runs(30.0, 30.0, 1.5), runs(20.0, 25.0, 40.0)]
        if kind == "close":
            rivals.append(runs(0.0, 3.0, 0.8))
            rivals[-1]["validation"] = rivals[0]["validation"] + 0.1
        if kind == "unsteady":
            rivals.append(runs(6.0, 6.0, 0.25))
            rivals[-1]["validation"][:2] -= 15.0 * seeds / 4
        if kind == "lucky":
            rivals.append(runs(-12.0, 12.0, 0.75))
        if kind == "uneven":
            rivals.append(runs(6.0, 6.0, 0.25))
            rivals[-1]["validation"][0] -= 15.0
        if kind == "mixed":
            for k in range(seeds):
                lucky = runs(-9.0, -9.0, 0.9)
                lucky["validation"][k] += 15.0
                lucky["test"][k] += 15.0
                rivals.append(lucky)
        if kind == "humbling":
            rivals += [runs(gain, gain, 0.5) for gain in (18.0, 24.0, 30.0)]
        names = task_names(generator, len(rivals))
        named_rivals = dict(zip(names, rivals, strict=True))
        return runs(4.0, 4.0, 1.0), shuffled(generator, named_rivals)

    return draw


# reference
@exercise(
    [
        _runs(3, 5, "close"),
        _runs(2, 7, "unsteady"),
        _runs(2, 6, "dear"),
        _runs(2, 4, "lucky"),
        _runs(1, 7, "mixed"),
        _runs(2, 8, "uneven"),
        _runs(1, 5, "humbling"),
    ],
    points=2,
    call=lambda answer, *args: named(answer(*args), "name", "gains"),
    grad=False,
    rtol=1e-9,
    atol=1e-9,
    hints=(
        "Two questions: who may take part, and who among them would you have deployed?",
        (
            "A rival takes part if its compute is at most that of the joint run. You deploy the one"
            " with the best mean on validation data: the test is for the last number only."
        ),
        "The gains are joint[\"test\"] - rivals[name][\"test\"]: seed by seed, no means.",
    ),
)
def fair_gain(joint, rivals):
    """What joint training gives over the best that you could
    have had without the partner, on average over the seeds and
    for as much compute.

    joint: dict with "test" and "validation", float64 [S],
    accuracies in per cent, one per seed, and "compute", a float,
    the multiply-adds of one training. rivals: dict, name -> dict
    of the same kind, with the same seeds in the same order. All
    rates are chosen; which network to deploy is not.
    Return (name, gains): the rival to hold the joint network
    against, and the gain in points in each seed, float64 [S].
    """
    ### BEGIN SOLUTION
    fair = {}
    for name, runs in rivals.items():
        if runs["compute"] <= joint["compute"]:
            fair[name] = runs["validation"].mean()
    best = max(fair, key=fair.get)
    return best, joint["test"] - rivals[best]["test"]
    ### END SOLUTION


# laws
@fair_gain.law("what the test shows does not decide who the rival is")
def _(answer, joint, rivals):
    shifted = {
        name: {**runs, "test": runs["test"] + 100.0 * place}
        for place, (name, runs) in enumerate(sorted(rivals.items()))
    }
    return answer(joint, shifted)[0] == answer(joint, rivals)[0]


@fair_gain.law("a rival that costs more than the joint network changes nothing")
def _(answer, joint, rivals):
    dear = {key: joint[key] + 1000.0 for key in ("test", "validation")}
    more = {"some other network": {**dear, "compute": 1.001 * joint["compute"]}, **rivals}
    first, second = answer(joint, rivals), answer(joint, more)
    return first[0] == second[0] and bool(torch.as_tensor(first[1] == second[1]).all())


# mistakes
def _against(joint, rivals, score, fair=lambda mine, budget: mine <= budget):
    some = {n: r for n, r in rivals.items() if fair(r["compute"], joint["compute"])} or rivals
    best = max(some, key=lambda name: float(score(some[name])))
    return best, joint["test"] - rivals[best]["test"]


@fair_gain.mistake(
    "You take the rival with the best test accuracy. A choice made on the test data is part of"
    " the training: the number that is left is no test. Choose by validation."
)
def _(joint, rivals):
    return _against(joint, rivals, lambda runs: runs["test"].mean())


@fair_gain.mistake(
    "A rival with more compute than the joint run takes part. Then the gain says what compute does,"
    " not what the partner does."
)
def _(joint, rivals):
    return _against(joint, rivals, lambda runs: runs["validation"].mean(), lambda mine, all_: True)


@fair_gain.mistake(
    "Rivals with exactly the same compute are left out, or only those with less take part:"
    " a rival may spend all that the joint run spends."
)
def _(joint, rivals):
    return _against(
        joint, rivals, lambda runs: runs["validation"].mean(), lambda mine, budget: mine < budget
    )


@fair_gain.mistake(
    "You take the cheapest network. The partner costs compute, too: the rival may use as much."
)
def _(joint, rivals):
    return _against(joint, rivals, lambda runs: -runs["compute"])


@fair_gain.mistake(
    "You take the rival that is nearest to the joint network. A rival that does better is one that"
    " you could have had: take the best, even if the gain is then a loss."
)
def _(joint, rivals):
    level = joint["validation"].mean()
    return _against(joint, rivals, lambda runs: -abs(runs["validation"].mean() - level))


@fair_gain.mistake(
    "You look for the smallest gain but take losses for 0, so all rivals that are ahead of the"
    " joint network count alike. Let the differences keep their sign."
)
def _(joint, rivals):
    mine = joint["validation"]
    return _against(joint, rivals, lambda runs: -(mine - runs["validation"]).clamp_min(0).mean())


@fair_gain.mistake(
    "You choose by the best single seed. One lucky draw of the labels decides then: take the mean."
)
def _(joint, rivals):
    return _against(joint, rivals, lambda runs: runs["validation"].max())


@fair_gain.mistake(
    "You choose by the median. A rival that fails in a few seeds looks as good as one that never"
    " does: what you could have had on average is the mean."
)
def _(joint, rivals):
    return _against(joint, rivals, lambda runs: runs["validation"].median())


@fair_gain.mistake(
    "The gains are those on validation data. The rival was chosen on them, so they flatter it."
)
def _(joint, rivals):
    best, _ = _against(joint, rivals, lambda runs: runs["validation"].mean())
    return best, joint["validation"] - rivals[best]["validation"]


@fair_gain.mistake("The sign: a gain is the joint network minus the rival.")
def _(joint, rivals):
    best, gains = _against(joint, rivals, lambda runs: runs["validation"].mean())
    return best, -gains


@fair_gain.mistake(
    "You subtract the rival's mean. Each seed has labels of its own, easy or hard for both"
    " networks: compare within the seed."
)
def _(joint, rivals):
    best, _ = _against(joint, rivals, lambda runs: runs["validation"].mean())
    return best, joint["test"] - rivals[best]["test"].mean()


@fair_gain.mistake("These are per cent of the rival's accuracy. Points are asked for.")
def _(joint, rivals):
    best, gains = _against(joint, rivals, lambda runs: runs["validation"].mean())
    return best, 100 * gains / rivals[best]["test"]
