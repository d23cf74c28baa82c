"""Inputs that exercises of several chapters draw, chosen so that they tell mistakes apart.

Names that have no order, numbers of any size, sides that differ, modules of every kind. Everything
is drawn from the generator `g`, so that a seed repeats a check.
"""

import torch
from torch import nn

from ..checks import values

# ------------------------------------------------------------------------------- numbers and counts


def whole(g, low, high):
    """A whole number from `low` to `high` - 1."""
    return int(torch.randint(low, high, (), generator=g))


def uniform(g, low, high):
    """A float between `low` and `high`, drawn in 64 bits."""
    return float(low + (high - low) * torch.rand((), generator=g, dtype=torch.float64))


def different(g, count, low, high):
    """`count` whole numbers from `low` to `high` - 1, no two of them equal, in any order.

    For the sides, widths or set sizes of one draw: where they are equal, exchanging them is right.
    """
    return (low + torch.randperm(high - low, generator=g)[:count]).tolist()


def power(g, low=-6, high=6):
    """A power of ten, 1e-6 to 1e6 unless asked otherwise, as a float."""
    return 10.0 ** whole(g, low, high + 1)


def powers(g, count, low=-6, high=6):
    """`count` powers of ten, no two of them equal: units far apart; float64 [count]."""
    exponents = different(g, count, low, high + 1)
    return torch.tensor([10.0**exponent for exponent in exponents], dtype=torch.float64)


def labels(g, n, classes):
    """`n` class labels, whole numbers below `classes`; one class, any of them, does not occur.

    Every other class may occur; with a single class they are all 0.
    """
    if classes == 1:
        return torch.zeros(n, dtype=torch.long)
    present = torch.randperm(classes, generator=g)[1:]
    return present[torch.randint(0, classes - 1, (n,), generator=g)]


VECTORS = ("plain", "tiny", "huge", "uneven", "zero", "equal", "opposite")


def vectors(g, count, width, kind="plain", dtype=torch.float64):
    """`count` vectors, such as the gradients of as many tasks; [count, width].

    kind: plain; tiny or huge, about 1e-6 or 1e6 long; uneven, in units far apart; zero, one of them
        all zeros; equal, all the same; opposite, the second is minus the first.
    """
    drawn = torch.randn(count, width, generator=g, dtype=torch.float64)
    if kind in ("tiny", "huge"):
        drawn = drawn * {"tiny": 1e-6, "huge": 1e6}[kind]
    elif kind == "uneven":
        drawn = drawn * powers(g, count, -3, 3)[:, None]
    elif kind == "zero":
        drawn[whole(g, 0, count)] = 0.0
    elif kind == "equal":
        drawn[:] = drawn[0].clone()
    elif kind == "opposite" and count > 1:
        drawn[1] = -drawn[0]
    return drawn.to(dtype)


# --------------------------------------------------------------------------------- names and orders

_NAMES = ("tilt", "age", "mood", "sea", "Bark", "rain", "0", "zinc", "depth", "10", "pulse", "2")


def task_names(g, count):
    """`count` names of tasks, at most 12, that say nothing about their place.

    From three on they are neither in alphabetical order nor in its reverse.
    """
    names = [_NAMES[i] for i in different(g, count, 0, len(_NAMES))]
    return _disordered(names, sorted(names), g)


def shuffled(g, mapping):
    """The same dict with its entries in another order: whoever pairs by position is wrong.

    From three entries on the order is not the reverse either.
    """
    keys = list(mapping)
    return {key: mapping[key] for key in _disordered(keys[::-1], keys, g)}


def _disordered(items, order, g):
    """`items` as they are drawn, until they follow neither `order` nor its reverse.

    Two items have no third order: they come as they are.
    """
    if len(items) < 3:
        return items
    drawn = items
    while drawn in (order, order[::-1]):
        drawn = [items[i] for i in torch.randperm(len(items), generator=g).tolist()]
    return drawn


# ------------------------------------------------------------------------------------------ modules

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def filled(module, g):
    """Draw every parameter and every running statistic of a module from `g`."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=g))
        for name, b in module.named_buffers():
            if b.is_floating_point():
                b.copy_(
                    torch.rand(b.shape, generator=g) + 0.5
                    if name.endswith("var")
                    else torch.randn(b.shape, generator=g)
                )
    return module


def twin(module, seen=None):
    """A copy of a module, as copy.deepcopy makes it, in a third of the time.

    What occurs twice in it occurs twice in the copy. seen: what has been copied already, by id.
    """
    seen = {} if seen is None else seen
    if id(module) in seen:
        return seen[id(module)]
    seen[id(module)] = copy = object.__new__(type(module))
    for name, value in vars(module).items():
        vars(copy)[name] = value.copy() if isinstance(value, dict | set) else value
    for name, part in module._modules.items():
        copy._modules[name] = None if part is None else twin(part, seen)
    for tensors in (copy._parameters, copy._buffers):
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if id(tensor) not in seen:
                fresh = tensor.detach().clone()
                if isinstance(tensor, nn.Parameter):
                    fresh = nn.Parameter(fresh, tensor.requires_grad)
                seen[id(tensor)] = fresh
            tensors[name] = seen[id(tensor)]
    return copy


class Shifted(nn.Module):
    """A layer with a shift added, which is a buffer: it is saved and moved, and never trained."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer = layer
        self.register_buffer("shift", torch.zeros(width))

    def forward(self, x):
        y = self.layer(x)
        return y + self.shift.reshape(-1, *[1] * (y.ndim - 2))


class Repeated(nn.Module):
    """One layer under two names, applied twice: its parameters are shared."""

    def __init__(self, layer):
        super().__init__()
        self.first = layer
        self.again = layer

    def forward(self, x):
        return self.again(torch.tanh(self.first(x)))


class Averaged(nn.Module):
    """The mean over all sides: [B, width, ...] becomes [B, width]."""

    def forward(self, x):
        return x.flatten(2).mean(2) if x.ndim > 2 else x


def layer(dimensions, inputs, outputs):
    """A linear layer for one dimension, a convolution that keeps the sides for two or three."""
    if dimensions == 1:
        return nn.Linear(inputs, outputs)
    return CONVOLUTIONS[dimensions](inputs, outputs, 3, padding=1)


def norm(kind, dimensions, width):
    """A norm of one, two or three dimensions: batch, still, instance or group.

    still: a BatchNorm that keeps no running statistics. instance keeps some; with one dimension it
    would need a sequence, so a LayerNorm stands there.
    """
    if kind == "batch":
        return BATCH_NORMS[dimensions](width)
    if kind == "still":
        return BATCH_NORMS[dimensions](width, track_running_stats=False)
    if kind == "group":
        return nn.GroupNorm(1, width)
    if dimensions == 1:
        return nn.LayerNorm(width)
    instance = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dimensions]
    return instance(width, affine=True, track_running_stats=True)


def trunk(g, dimensions=1, norms=("batch",), dropout=False, frozen=False, shared=False):
    """A trunk whose layers lie two and three deep: (module, input channels, output features).

    dimensions: 1 for rows of features, 2 for pictures, 3 for volumes; the output is [B, features].
    norms: the kinds of its norms, see `norm`, one per block. dropout: whether it ends with one.
    frozen: whether its first layer does not want gradients. shared: whether a layer occurs twice,
    under two names. A module that holds a buffer of its own is always among them.
    """
    widths = different(g, 1 + len(norms), 2, 4 + len(norms))
    blocks = [
        nn.Sequential(layer(dimensions, a, b), nn.Sequential(norm(kind, dimensions, b), nn.ReLU()))
        for kind, a, b in zip(norms, widths, widths[1:], strict=False)
    ]
    width = widths[-1]
    blocks[-1] = Shifted(blocks[-1], width)
    parts = [nn.Sequential(*blocks)]
    parts += [Repeated(layer(dimensions, width, width))] if shared else []
    parts += [Averaged()]
    parts += [nn.Dropout(0.5)] if dropout else []
    module = filled(nn.Sequential(*parts), g)
    if frozen:
        next(module.parameters()).requires_grad_(False)
    return module, widths[0], width


class TrunkAndHead(nn.Module):
    """A network with the two parts that the chapters name."""

    def __init__(self, trunk, head):
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, x):
        return self.head(self.trunk(x))


def network(g, outputs, **options):
    """A nested `trunk` of any kind with a linear head: (module, input channels)."""
    module, inputs, width = trunk(g, **options)
    return TrunkAndHead(module, filled(nn.Linear(width, outputs), g)), inputs


def batch(g, rows, inputs, dimensions=1):
    """Inputs of a `trunk`: [rows, inputs], or pictures or volumes whose sides all differ."""
    sides = different(g, dimensions, 3, 4 + dimensions) if dimensions > 1 else []
    return torch.randn(rows, inputs, *sides, generator=g)


# ---------------------------------------------------------------- what comes back and stays behind


def expect(condition, what, got):
    """For a `call` that must look into an answer's result: say what the docstring asks for.

    what: such as "a model and an optimizer". Not a TypeError: the card explains those by the
    number of arguments.
    """
    if not condition:
        raise ValueError(f"Expected {what} but got {values.brief(got)}.")


LEAVES_NO_TRACE = "leaves what it is given as it was: a second call with the same objects agrees"


def leaves_no_trace(answer, *args):
    """The law of that name: ``some_exercise.law(LEAVES_NO_TRACE)(leaves_no_trace)``.

    The answer is called twice with the very same objects. Both calls must agree, and no input may
    have a `.grad` afterwards that it did not have before. For answers that are called with the
    inputs themselves and return plain values.
    """
    without = [t for t in values.tensors(args) if t.is_leaf and t.grad is None]
    results = []
    for _ in range(2):
        torch.default_generator.manual_seed(0)
        results.append(values.snapshot(answer(*args)))
    agree = values.alike(results[1], results[0], 1e-6, 1e-9 * _largest(results[0]))
    return agree and all(t.grad is None for t in without)


def _largest(value):
    """The largest absolute number in the tensors of a nested value; 0 where there is none."""
    drawn = [t.detach().double().abs() for t in values.tensors(value)]
    return max((float(t.nan_to_num(0, 0, 0).max()) for t in drawn if t.numel()), default=0.0)
