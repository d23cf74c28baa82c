"""Exercises of chapter 13: a few weights per task, and finished models added up."""

import copy

import torch
from torch import nn

from ..checks import values
from ..checks.exercise import exercise
from . import inputs
from .inputs import different, filled, shuffled, task_names, twin, uniform, whole
from .outcomes import required


# ---------------------------------------------------------------------------- 1. a low-rank update
# inputs
def _layer_and_update(bias):
    def draw(g):
        d_in, d_out = different(g, 2, 4, 9)
        r = whole(g, 1, 4)
        layer = filled(nn.Linear(d_in, d_out, bias=bias), g).double()
        sides = [2] if bias else [3, 2]
        x = torch.randn(*sides, d_in, generator=g, dtype=torch.float64)
        A = torch.randn(r, d_in, generator=g, dtype=torch.float64)
        B = torch.randn(d_out, r, generator=g, dtype=torch.float64)
        return layer, x, A, B, uniform(g, 1.5, 20.0)

    return draw


def _low_rank(answer, layer, x, A, B, alpha):
    """What the learner's module does: at the start, with the given A and B, merged, trained."""
    layer = twin(layer)
    before = [p.detach().clone() for p in layer.parameters()]
    module, other = answer(layer, len(A), alpha), answer(twin(layer), len(A), alpha)
    inputs.expect(isinstance(module, nn.Module), "an nn.Module", module)
    torch.default_generator.manual_seed(0)
    wide = answer(nn.Linear(400, 20), 20, alpha).A.detach()
    far = float((wide.abs() > 2 * wide.std()).double().mean())
    free = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not hasattr(module, "A") or not hasattr(module, "B"):
        raise ValueError("The module needs parameters called A and B: self.A = nn.Parameter(...).")
    result = {
        "output at the start": module(x).detach(),
        "shapes of A and B": [list(module.A.shape), list(module.B.shape)],
        "dtypes of A and B": [str(module.A.dtype), str(module.B.dtype)],
        "B at the start": module.B.detach().clone(),
        "A is drawn: another one each time": bool(
            module.A.detach().any() and not torch.equal(module.A, other.A)
        ),
        "A's standard deviation times sqrt(d_in), about": round(float(wide.std()) * 20, 1),
        "A is drawn from a normal distribution, number by number": not wide.any()
        or (abs(far - 0.0455) < 0.015 and len(wide.unique()) > 0.9 * wide.numel()),
        "names of the trained parameters": sorted(name.rpartition(".")[2] for name in free),
    }
    if result["shapes of A and B"] != [list(A.shape), list(B.shape)]:
        return result
    with torch.no_grad():
        module.A.copy_(A)
        module.B.copy_(B)
    output = module(x)
    result["output with another A and B"] = output.detach().clone()
    probe = x.clone().requires_grad_()
    again = module(probe)
    result["gradient with respect to x"] = (
        torch.autograd.grad(again.square().sum(), probe)[0] if again.requires_grad else None
    )
    if output.requires_grad:
        output.square().sum().backward()
    result["gradients of A and B"] = [getattr(module, n).grad for n in "AB"]
    merged = required(module.merged())
    if not isinstance(merged, nn.Linear):
        raise ValueError(f"merged() is to return an nn.Linear; yours is {values.kind(merged)}.")
    result["merged: weight"] = merged.weight.detach().clone()
    result["merged: bias"] = None if merged.bias is None else merged.bias.detach().clone()
    with torch.no_grad():
        for p in merged.parameters():
            p.add_(1.0)
        result["output after the merged layer was changed"] = module(x)
    result["`layer` stays as it is"] = [
        torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True)
    ]
    return result


# reference
@exercise(
    [_layer_and_update(True), _layer_and_update(False)],
    points=3,
    call=_low_rank,
    grad=False,
    device=False,
    hints=(
        (
            "Of weight, bias, A and B, which two are trained? And what must the other two be told"
            " so that they are not?"
        ),
        (
            "`B` begins with zeros and `A` with random numbers, each an `nn.Parameter`. The update"
            " of the weight is `(alpha / r) * B @ A`, [d_out, d_in]."
        ),
        (
            "merged(): `new = copy.deepcopy(self.layer)`, and then add the update to"
            " `new.weight.data`. With rows of x, the update of the output is `x @ A.T @ B.T`."
        ),
    ),
)
class LowRank(nn.Module):
    """A frozen nn.Linear with a low-rank update of its weight.

    layer: an nn.Linear, d_in to d_out, with or without a bias.
        It stays as it is, and nothing of it is trained.
    r: the rank. alpha: the update is scaled by alpha / r.
    self.A [r, d_in] is drawn from a normal distribution with
        mean 0 and standard deviation 1 / sqrt(d_in), and
        self.B [d_out, r] is zero: the only parameters that are
        trained, of the layer's dtype.
    forward(x): what the layer gives for x [..., d_in], plus
        (alpha / r) B A x.
    merged(): a new nn.Linear that computes the same.
    """

    def __init__(self, layer, r, alpha):
        super().__init__()
        ### BEGIN SOLUTION
        self.layer = layer.requires_grad_(False)
        W = layer.weight
        drawn = torch.randn(r, W.shape[1], dtype=W.dtype)
        self.A = nn.Parameter(drawn / W.shape[1] ** 0.5)
        self.B = nn.Parameter(W.new_zeros(len(W), r))
        self.scale = alpha / r

    def forward(self, x):
        update = x @ self.A.T @ self.B.T
        return self.layer(x) + self.scale * update

    def merged(self):
        new = copy.deepcopy(self.layer)
        new.weight.data += self.scale * self.B @ self.A
        return new
        ### END SOLUTION


# mistakes
class _Base(nn.Module):
    """The answer, with one thing changed."""

    def __init__(self, layer, r, alpha, **changes):
        super().__init__()
        self.changes = changes
        self.layer = layer if changes.get("open") else layer.requires_grad_(False)
        weight = layer.weight.detach()
        draw_A, draw_B = changes.get("draw", (torch.randn, torch.zeros))
        drawn = draw_A(r, weight.shape[1], dtype=weight.dtype)
        self.A = nn.Parameter(drawn / changes.get("deviation", len(weight[0]) ** 0.5))
        self.B = nn.Parameter(draw_B(len(weight), r, dtype=weight.dtype))
        self.scale = changes.get("scale", lambda alpha, r: alpha / r)(alpha, r)

    def forward(self, x):
        return self.layer(x) + self.scale * x @ self.A.T @ self.B.T

    def update(self):
        return (self.scale * self.B @ self.A).detach()

    def merged(self):
        new = twin(self.layer)
        new.weight.data = new.weight.data + self.changes.get("sign", 1) * self.update()
        if self.changes.get("no bias"):
            new.bias = None
        return new


class _InPlace(_Base):
    def merged(self):
        self.layer.weight.data += self.update()
        return self.layer


class _Alone(_Base):
    def forward(self, x):
        return self.scale * x @ self.A.T @ self.B.T


class _Unscaled(_Base):
    def update(self):
        return (self.B @ self.A).detach()


def _with(**changes):
    return lambda layer, r, alpha: _Base(layer, r, alpha, **changes)


LowRank.mistake("The layer itself can still be trained: freeze its parameters.")(_with(open=True))
LowRank.mistake(
    "Both A and B begin with random numbers, so that the output is another one from the start:"
    " B begins with zeros."
)(_with(draw=(torch.randn, torch.randn)))
LowRank.mistake(
    "Both A and B begin with zeros. Then each one's gradient has the other as a factor,"
    " and neither ever moves: draw A."
)(_with(draw=(torch.zeros, torch.zeros)))
LowRank.mistake("A is zero and B is drawn: the docstring has it the other way round.")(
    _with(draw=(torch.zeros, torch.randn))
)
LowRank.mistake(
    "A is drawn with a standard deviation of 1, whatever the width, so that a wide layer's update"
    " starts from larger numbers: divide by the root of d_in."
)(_with(deviation=1.0))
LowRank.mistake("The scale is alpha; divide it by the rank.")(_with(scale=lambda alpha, r: alpha))
LowRank.mistake("The update is not scaled: alpha / r is missing.")(_with(scale=lambda a, r: 1.0))
LowRank.mistake("The scale is upside down: it is alpha / r, not r / alpha.")(
    _with(scale=lambda alpha, r: r / alpha)
)
LowRank.mistake("merged() takes the update away from the weight: add it.")(_with(sign=-1))
LowRank.mistake("merged() leaves the update out: it returns the frozen layer's own weight.")(
    _with(sign=0)
)
LowRank.mistake(
    "merged() changes the frozen layer, so that the update then counts twice and another adapter"
    " would start from it: build a new layer."
)(_InPlace)
LowRank.mistake("The layer's own output is missing: the update comes on top of it.")(_Alone)
LowRank.mistake("The output has the scale, but merged() adds B A without it.")(_Unscaled)


# ---------------------------------------------------------------------------------- 2. biases only
# inputs
class _Named(nn.Module):
    """Parameters whose names mislead."""

    def __init__(self, width):
        super().__init__()
        self.unbiased = nn.Parameter(torch.zeros(width))
        self.bias = nn.Linear(width, width, bias=False)  # a module of this name
        self.debias_gain = nn.Parameter(torch.zeros(width + 1))
        self.debias = nn.Parameter(torch.zeros(width + 2))
        self.position_bias = nn.Parameter(torch.zeros(width, 3))  # of two sides


def _networks(kind):
    def draw(g):
        a, b, c = different(g, 3, 2, 8)
        if kind == "norms":
            parts = [nn.Linear(a, b), nn.BatchNorm1d(b), nn.Sequential(nn.Conv1d(1, c, 2))]
            parts += [nn.Sequential(nn.LayerNorm(c), nn.Linear(c, a, bias=False))]
        elif kind == "names":
            parts = [_Named(a), nn.ModuleDict({"bias": nn.Linear(b, c), "norm": nn.LayerNorm(c)})]
        elif kind == "shared":
            parts = [inputs.Repeated(nn.Linear(b, b)), nn.Linear(b, a)]
        else:
            parts = [nn.MultiheadAttention(2 * a, 2), nn.LSTM(b, c), nn.GRU(c, a, bias=False)]
        model = nn.Sequential(*parts)
        for p in model.parameters():  # some are frozen at first, biases too
            p.requires_grad_(bool(torch.rand((), generator=g) < 0.6))
        parts[-1].eval()
        return (filled(model, g),)

    return draw


def _opened(answer, model):
    """Which parameters a step moves afterwards, and what came back."""
    model = twin(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():  # as after a backward pass whose step is still to come
        p.grad = torch.ones_like(p)
    modes = [m.training for m in model.modules()]
    count = required(answer(model))
    if isinstance(count, torch.Tensor):
        count = count.item()
    unchanged = [torch.equal(p, before[name]) for name, p in model.named_parameters()]
    return {
        "trained parameters": [name for name, p in model.named_parameters() if p.requires_grad],
        "how many numbers": count,
        "values stay as they are": all(unchanged),
        "gradients stay as they are": all(
            p.grad is not None and bool((p.grad == 1).all()) for p in model.parameters()
        ),
        "each layer stays in its mode": modes == [m.training for m in model.modules()],
    }


# reference
@exercise(
    [_networks(kind) for kind in ("norms", "names", "shared", "attention")],
    points=2,
    call=_opened,
    grad=False,
    device=False,
    hints=(
        (
            "`model.named_parameters()` gives dotted names, the layers' among them. Which piece of"
            " 'encoder.bias.weight' is the parameter's own name?"
        ),
        (
            "`name.split('.')[-1]` is the own name; cut it at its underscores and ask whether"
            " 'bias' is one of the pieces."
        ),
        (
            "Set `p.requires_grad_(...)` for every parameter, to True or to False, and add up"
            " `p.numel()` of those that are trained."
        ),
    ),
)
def biases_only(model):
    """Prepare BitFit: of all parameters only biases are trained.

    model: any nn.Module; changed in place. A bias is a
        parameter whose own name, behind the last dot, has
        "bias" as a piece between underscores: "bias",
        "in_proj_bias", "bias_ih_l0". Norms have one, too. It
        does not matter what was frozen before.
    Return how many numbers are trained; a parameter that two
    layers share counts once.
    """
    ### BEGIN SOLUTION
    count = 0
    for name, p in model.named_parameters():
        is_bias = "bias" in name.split(".")[-1].split("_")
        p.requires_grad_(is_bias)
        count += is_bias * p.numel()
    return count
    ### END SOLUTION


# mistakes
def _by_rule(model, is_bias=None, closed=True, size=torch.numel, everything=False, reopen=True):
    is_bias = is_bias or (lambda name: "bias" in name.split(".")[-1].split("_"))
    count = 0
    for name, p in model.named_parameters():
        if is_bias(name):
            p.requires_grad_(True) if reopen else None
            count += size(p)
        elif closed:
            p.requires_grad_(False)
            count += size(p) if everything else 0
    return count


biases_only.variants(
    _by_rule,
    {
        "A name that merely contains the letters counts as a bias, such as `unbiased` or the weight"
        " of a layer that is called bias: ask for a piece of the parameter's own name.": {
            "is_bias": lambda name: "bias" in name
        },
        "Only parameters that are called exactly `bias` count:"
        " attention and recurrent layers call theirs `in_proj_bias` or `bias_ih_l0`.": {
            "is_bias": lambda name: name.split(".")[-1] == "bias"
        },
        "Whatever ends in the letters counts, so the biases of recurrent layers are missing,"
        " which end in a number.": {"is_bias": lambda name: name.endswith("bias")},
        "The biases are left as they are, so those that were frozen stay frozen: open them.": {
            "reopen": False
        },
        "The other parameters are not frozen: they train along.": {"closed": False},
        "You count the biases, not the numbers in them.": {"size": lambda p: 1},
        "You count the numbers of all parameters: only those that are trained.": {
            "everything": True
        },
        "The weights are trained and the biases frozen: it is the other way round.": {
            "is_bias": lambda name: "bias" not in name.split(".")[-1].split("_")
        },
    },
)


# -------------------------------------------------------------------------- 3. two adapters in one
# inputs
def _adapters(count, kind="plain"):
    def draw(g):
        d_in, d_out = different(g, 2, 7, 12)
        ranks = different(g, count, 1, 4)
        parts = []
        for r in ranks:
            A = torch.randn(r, d_in, generator=g, dtype=torch.float64)
            B = torch.randn(d_out, r, generator=g, dtype=torch.float64)
            parts.append((A, B))
        weights = [uniform(g, 0.3, 2.0) for _ in parts]
        if kind == "signs":
            weights = [w * (-1) ** (i + 1) for i, w in enumerate(weights)]
        elif kind == "zero":
            weights[whole(g, 0, count)] = 0.0
        return parts, weights

    return draw


def _fused(answer, parts, weights):
    """What the fused adapter adds to a weight, and how many rows it has."""
    result = required(answer(parts, weights))
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError("Return (A, B): the two matrices of one adapter.")
    A, B = (torch.as_tensor(m) for m in result)
    (d_in, d_out), rows = (parts[0][0].shape[1], len(parts[0][1])), sum(len(a) for a, _ in parts)
    fits = A.ndim == B.ndim == 2 and len(A) == B.shape[1]
    if not fits or A.shape[1] != d_in or len(B) != d_out:
        raise ValueError(
            f"A is to be [r, {d_in}] and B [{d_out}, r] with one r;"
            f" yours are {list(A.shape)} and {list(B.shape)}."
        )
    return {
        "what it adds, B A": B @ A,
        "rows that A has more than the adapters together": max(0, len(A) - rows),
    }


# reference
@exercise(
    [_adapters(2), _adapters(3, "signs"), _adapters(2, "zero"), _adapters(1)],
    points=3,
    call=_fused,
    grad=False,
    hints=(
        (
            "Add A's and B's, and multiply (B1 + B2)(A1 + A2) out. Which terms are there that"
            " nobody asked for? And can the sum of two matrices of rank 1 have rank 2?"
        ),
        (
            "Write the sum of two products as one product: [B1 B2] times A1 above A2, a matrix of"
            " r1 + r2 columns times one of as many rows."
        ),
        "`torch.cat([...], 0)` of the A's, and `torch.cat([...], 1)` of the weighted B's.",
    ),
)
def fuse(adapters, weights):
    """Several adapters of one layer as one.

    adapters: list of (A, B), with A [r, d_in] and B [d_out, r];
        each has a rank r of its own.
    weights: as many numbers, of any sign.
    Return (A, B) of one adapter that adds to the weight what
    the weighted sum of all B A adds, with no more rows in A
    than the adapters have together.
    """
    ### BEGIN SOLUTION
    A = torch.cat([A for A, _ in adapters])
    B = torch.cat([w * B for w, (_, B) in zip(weights, adapters)], 1)
    return A, B
    ### END SOLUTION


# laws
fuse.law(inputs.LEAVES_NO_TRACE)(inputs.leaves_no_trace)


# mistakes
def _smallest(parts):
    return min(len(A) for A, _ in parts)


@fuse.mistake(
    "A's and B's are added up apart. The product of the sums has terms that mix one adapter's B"
    " with another's A."
)
def _(adapters, weights):
    r = max(len(A) for A, _ in adapters)
    pad_A = [torch.cat([A, A.new_zeros(r - len(A), A.shape[1])]) for A, _ in adapters]
    pad_B = [torch.cat([B, B.new_zeros(len(B), r - B.shape[1])], 1) for _, B in adapters]
    return sum(pad_A), sum(w * B for w, B in zip(weights, pad_B, strict=True))


def _joined(adapters, weights, on_A=False, on_B=True, change=lambda w, count: w, order=1):
    count = len(adapters)
    scaled = [change(w, count) for w in weights]
    A = torch.cat([(w if on_A else 1) * A for w, (A, _) in zip(scaled, adapters, strict=True)])
    Bs = [(w if on_B else 1) * B for w, (_, B) in zip(scaled, adapters, strict=True)]
    return A, torch.cat(Bs[::order], 1)


fuse.variants(
    _joined,
    {
        "The weights are missing.": {"on_B": False},
        "Each weight counts twice, on A and on B: the product has its square.": {"on_A": True},
        "The signs of the weights are lost.": {"change": lambda w, count: abs(w)},
        "You take the mean: the weights are to be used as they are.": {
            "change": lambda w, count: w / count
        },
    },
)


@fuse.mistake(
    "The sum is cut down to the rank of one of them: with that few rows some of it is lost."
)
def _(adapters, weights):
    total = sum(w * B @ A for w, (A, B) in zip(weights, adapters, strict=True))
    U, S, V = torch.linalg.svd(total)
    r = _smallest(adapters)
    return V[:r], U[:, :r] * S[:r]


@fuse.mistake("The whole matrix is stored, and the identity beside it: that is no small adapter.")
def _(adapters, weights):
    total = sum(w * B @ A for w, (A, B) in zip(weights, adapters, strict=True))
    return torch.eye(total.shape[1], dtype=total.dtype, device=total.device), total


# --------------------------------------------------------------------- 4. task vectors with a sign
# inputs
def _models(count, integers=True, zero=False):
    def draw(g):
        a, b = different(g, 2, 2, 6)
        like = {"1.weight": (b, a), "1.bias": (b,), "scale": (), "2.running_var": (a,)}
        base = {n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in like.items()}
        base["2.running_var"] *= 1e4
        tuned = {}
        for task in task_names(g, count):
            state = {n: p + torch.randn(p.shape, generator=g).double() for n, p in base.items()}
            if integers:
                state["steps"] = torch.tensor(whole(g, 10, 99))
                state["seen"] = torch.randint(10, 99, (a,), generator=g, dtype=torch.int32)
            tuned[task] = shuffled(g, state)
        if integers:
            base["steps"] = torch.tensor(whole(g, 1, 9))
            base["seen"] = torch.randint(1, 9, (a,), generator=g, dtype=torch.int32)
        wanted = [-0.5 - uniform(g, 0, 1), uniform(g, 0.1, 1.5), uniform(g, 1.1, 2.0)]
        coefficients = {t: wanted[i % 3] for i, t in enumerate(tuned)}
        if zero:
            coefficients = dict.fromkeys(coefficients, 0.0)
        return shuffled(g, base), tuned, shuffled(g, coefficients)

    return draw


def _edited(answer, base, tuned, coefficients):
    """The new state by name, and whether it shares memory with what it came from."""
    states = [base, *tuned.values()]
    before = [{n: p.clone() for n, p in s.items()} for s in states]
    state = required(answer(base, tuned, coefficients))
    if not isinstance(state, dict):
        raise ValueError(f"Return a dict, name -> tensor; yours is {values.kind(state)}.")
    result = {n: torch.as_tensor(state[n]).clone() for n in sorted(state)}
    with torch.no_grad():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.add_(1)
    same = all(torch.equal(s[n], b[n]) for s, b in zip(states, before, strict=True) for n in b)
    return {"state": result, "the models stay as they are when the new one is trained": same}


# reference
@exercise(
    [_models(2), _models(3), _models(1, integers=False), _models(2, zero=True)],
    points=2,
    call=_edited,
    grad=False,
    hints=(
        "A task vector is tuned minus base: what comes off the base when the coefficient is -1?",
        (
            "Go through the names of the base. Begin with a copy, `value.clone()`, and add"
            " `coefficients[task] * (state[name] - value)` for each task."
        ),
        "Whole numbers are told by `value.is_floating_point()`; they stay the base's, as a copy.",
    ),
)
def edit(base, tuned, coefficients):
    """Task arithmetic: add tasks to a model, or take them away.

    base: state dict of the source, name -> tensor.
    tuned: task -> state dict of a model tuned from it.
    coefficients: task -> number; negative ones take away.
    Return a new state dict: base plus, for every task, its
    coefficient times its task vector (tuned minus base).
    Tensors of whole numbers are the base's. The new tensors
    share no memory with the old ones.
    """
    ### BEGIN SOLUTION
    edited = {}
    for name, value in base.items():
        total = value.clone()
        if value.is_floating_point():
            for task, state in tuned.items():
                change = state[name] - value
                total = total + coefficients[task] * change
        edited[name] = total
    return edited
    ### END SOLUTION


# laws
edit.law(inputs.LEAVES_NO_TRACE)(inputs.leaves_no_trace)


# mistakes
def _arithmetic(
    base, tuned, coefficients, vector=None, of=None, divide=1, integers=False, copy=torch.clone
):
    vector = vector or (lambda state, value: state - value)
    numbers = list(coefficients.values())
    edited = {}
    for name, value in base.items():
        total = copy(value)
        if value.is_floating_point():
            for i, (task, state) in enumerate(tuned.items()):
                c = numbers[i] if of == "place" else coefficients[task]
                change = c / divide if divide == 1 else c / len(tuned)
                total = total + change * vector(state[name], value)
        elif integers:
            total = next(iter(tuned.values()))[name].clone()
        edited[name] = total
    return edited


edit.variants(
    _arithmetic,
    {
        "The vectors point the wrong way: a task vector is tuned minus base.": {
            "vector": lambda state, value: value - state
        },
        "The tuned weights themselves are added, not what tuning has changed: subtract the base.": {
            "vector": lambda state, value: state
        },
        "Coefficients are paired with tasks by their place in the dict, not by name.": {
            "of": "place"
        },
        "The vectors are averaged: each coefficient is to be used as it is.": {"divide": 0},
        "Whole numbers are taken from a tuned model: they stay the base's.": {"integers": True},
    },
)


@edit.mistake("The base's own tensors are changed in place: build new ones.")
def _(base, tuned, coefficients):
    start = {name: value.clone() for name, value in base.items()}
    for name, value in base.items():
        if value.is_floating_point():
            for task, state in tuned.items():
                value += coefficients[task] * (state[name] - start[name])
    return base


@edit.mistake(
    "Task after task is added to what came before, and each vector is measured from there:"
    " measure all of them from the base."
)
def _(base, tuned, coefficients):
    now = {name: value.clone() for name, value in base.items()}
    for task, state in tuned.items():
        for name in now:
            if now[name].is_floating_point():
                now[name] = now[name] + coefficients[task] * (state[name] - now[name])
    return now


@edit.mistake("The base is missing: the sum of the vectors alone is no model.")
def _(base, tuned, coefficients):
    full = _arithmetic(base, tuned, coefficients)
    return {n: full[n] - v if v.is_floating_point() else v.clone() for n, v in base.items()}


# --------------------------------------------------------------------------------- 5. TIES by hand
# inputs
def _vectors(kind):
    def draw(g):
        T, P = whole(g, 3, 6), whole(g, 7, 13)
        v = torch.randn(T, P, generator=g, dtype=torch.float64) + 0.1
        if kind == "uneven":
            v = v * inputs.powers(g, T, -2, 2)[:, None]
        elif kind == "opposite":
            v[1] = -v[0] * 1.5
            v[2:, : P // 2] *= 1e-3
        elif kind == "cancel":  # the others keep what the first two, which cancel, do not
            v[1] = -v[0]
            v[2:] = v[2:].sign() * (1 + torch.rand(T - 2, 1, generator=g).double()) / v[0].abs()
            return v, whole(g, 2, P // 2 + 1)
        elif kind == "all":
            v = v * 1e-6
        return v, (P if kind == "all" else whole(g, 1, P - 2))

    return draw


# reference
@exercise(
    [_vectors(kind) for kind in ("plain", "uneven", "opposite", "cancel", "all")],
    points=3,
    grad=False,
    rtol=1e-6,
    atol=1e-12,
    hints=(
        (
            "Three steps, one after the other; the first is to trim. Which entry of each row is the"
            " k-th largest by absolute value?"
        ),
        (
            "Elect: the sign of the sum over the tasks, of the trimmed entries. Then mark the"
            " trimmed entries that are not zero and have this sign."
        ),
        (
            "Merge: the sum of the marked entries divided by how many are marked in the column,"
            " `agree.sum(0).clamp_min(1)`."
        ),
    ),
)
def ties_merge(vectors, k):
    """TIES on task vectors: trim, elect a sign, merge.

    vectors: [T, P], one task vector per row; no two entries of
        a row have the same size. k: how many entries of each
        row stay, those of largest size; the others become 0.
    Then, for each of the P columns: its sign is that of the
    sum of its trimmed entries, and the result is the mean of
    the trimmed entries that have this sign; 0 if there is none.
    Return [P].
    """
    ### BEGIN SOLUTION
    size = vectors.abs()
    least = size.topk(k, dim=1).values[:, -1:]
    trimmed = vectors * (size >= least)
    sign = trimmed.sum(0).sign()
    agree = trimmed * sign > 0
    return (trimmed * agree).sum(0) / agree.sum(0).clamp_min(1)
    ### END SOLUTION


# laws
ties_merge.law(inputs.LEAVES_NO_TRACE)(inputs.leaves_no_trace)


@ties_merge.law("the order of the tasks does not matter")
def _(answer, vectors, k):
    return torch.allclose(answer(vectors.flip(0), k), answer(vectors, k), rtol=1e-6)


@ties_merge.law("the merged vector turns round when all vectors do")
def _(answer, vectors, k):
    return torch.allclose(answer(-vectors, k), -answer(vectors, k), rtol=1e-6)


# mistakes
def _ties(vectors, k, trim=None, elect=None, over=None, agree=None):
    trim = trim or (lambda v, k: v * (v.abs() >= v.abs().topk(k, dim=1).values[:, -1:]))
    elect = elect or (lambda v, t: t.sum(0).sign())
    trimmed = trim(vectors, k)
    same = trimmed * elect(vectors, trimmed) > 0
    if agree:
        same = agree(trimmed)
    total = (trimmed * same).sum(0)
    return total / (over(trimmed, same) if over else same.sum(0).clamp_min(1))


def _whole_trim(v, k):
    return v * (v.abs() >= v.abs().flatten().topk(k * len(v)).values[-1])


@ties_merge.mistake(
    "A column whose trimmed entries cancel has no sign: its sum is 0, and so is the result."
)
def _(vectors, k):
    return _ties(vectors, k, elect=lambda v, t: torch.where(t.sum(0) >= 0, 1.0, -1.0))


ties_merge.variants(
    _ties,
    {
        "The mean runs over all tasks: divide by how many entries agree with the sign.": {
            "over": lambda trimmed, same: len(trimmed)
        },
        "You add the entries up that agree: TIES takes their mean.": {
            "over": lambda trimmed, same: 1
        },
        "The mean runs over all entries that were kept, those of the other sign included.": {
            "over": lambda trimmed, same: (trimmed != 0).sum(0).clamp_min(1)
        },
        "No sign is elected: entries of either sign are averaged.": {
            "agree": lambda trimmed: trimmed != 0
        },
        "The sign is elected by counting: it is that of the sum, where large entries weigh more.": {
            "elect": lambda v, t: t.sign().sum(0).sign()
        },
        "The sign is elected before trimming: small entries still have a vote.": {
            "elect": lambda v, t: v.sum(0).sign()
        },
        "The largest entries of all vectors together are kept:"
        " trim each vector by itself, or a large one silences the others.": {"trim": _whole_trim},
        "The largest values are kept, not the largest sizes: negative entries count as well.": {
            "trim": lambda v, k: v * (v >= v.topk(k, dim=1).values[:, -1:])
        },
        "The smallest entries are kept and the large ones trimmed.": {
            "trim": lambda v, k: v * (v.abs() <= v.abs().topk(k, 1, largest=False).values[:, -1:])
        },
        "Nothing is trimmed.": {"trim": lambda v, k: v},
    },
)
