"""Exercises of chapter 12: fine-tuning a network."""

import copy

import torch
from torch import nn

from ..checks import values
from ..checks.exercise import exercise
from . import inputs
from .inputs import Averaged, Repeated, different, expect, filled, shuffled, uniform, whole
from .outcomes import named, required


# ------------------------------------------------------------------------ 1. a rate for every layer
# inputs
class _Scaled(nn.Module):
    """A layer and a factor for each of its outputs, a parameter with a name of its own."""

    def __init__(self, inner, width):
        super().__init__()
        self.inner = inner
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.inner(x) * self.gain


def _layers(generator, norms, dimensions=1):
    """Layers of a trunk, from the input on, and a head: (layers, channels of the input).

    norms: the kind of each layer's norm, see `inputs.norm`; None for none. The first lies right
        inside its layer, the others one level deeper.
    dimensions: of the linear maps and norms: 1 for rows of features, 2 for pictures, 3 for volumes.
    """
    widths = different(generator, len(norms) + 1, 2, 4 + len(norms))
    layers = []
    for kind, a, b in zip(norms, widths, widths[1:], strict=False):
        after = [nn.ReLU()] if kind is None else [inputs.norm(kind, dimensions, b), nn.ReLU()]
        if layers:
            after = [nn.Sequential(*after)]
        layers.append(nn.Sequential(inputs.layer(dimensions, a, b), *after))
    head = nn.Linear(widths[-1], 2)
    layers.append(head if dimensions == 1 else nn.Sequential(Averaged(), head))
    return [filled(module, generator) for module in layers], widths[0]


def _for_groups(norms, odd=False):
    """odd: whether a bias is frozen, a layer is frozen as a whole, and one occurs twice in another.

    And whether a layer has a parameter that is neither a weight nor a bias.
    """

    def draw(generator):
        layers, _ = _layers(generator, norms)
        if odd:
            layers[0][0].bias.requires_grad_(False)
            layers[1].requires_grad_(False)
            width = layers[2][0].out_features
            layers[2] = nn.Sequential(layers[2], Repeated(nn.Linear(width, width)))
            layers[-2] = _Scaled(layers[-2], layers[-2][0].out_features)
        rate = 10.0 ** -whole(generator, 0, 5) * (0.5 + float(torch.rand((), generator=generator)))
        return layers, rate, 1.5 + float(torch.rand((), generator=generator))

    return draw


def _in_groups(groups):
    """(parameter, rate) of every entry of what the answer returned."""
    if isinstance(required(groups), dict):
        raise ValueError(
            "This is a single dict:"
            ' return a list of them, one {"params": [...], "lr": ...} for each rate.'
        )
    if not isinstance(groups, list | tuple) or not all(
        isinstance(group, dict) and {"params", "lr"} <= set(group) for group in groups
    ):
        raise ValueError('Return a list of dicts, each of them {"params": [...], "lr": ...}.')
    entries = []
    for group in groups:
        params = group["params"]
        # it may be a generator, and torch.optim takes pairs of a name and a parameter as well
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        group["params"] = [p[1] if isinstance(p, tuple) else p for p in params]
        entries += [(p, float(group["lr"])) for p in group["params"]]
    return entries


def _moved_by(groups, params):
    """How far two steps of SGD on gradients of 1 move each parameter, per step."""
    for p in params:
        p.data = torch.ones_like(p, dtype=torch.float64)
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for _ in range(2):
        optimizer.step()
    return [float((1 - p.detach()).mean()) / 2 for p in params]


def _rates(answer, layers, rate, decay):
    """What torch.optim does with the groups of an answer, and what became of the layers."""
    layers = copy.deepcopy(layers)
    params = [p for module in layers for p in module.parameters()]
    free, modules = [p.requires_grad for p in params], list(layers)
    groups = answer(layers, rate, decay)
    entries = _in_groups(groups)
    kept = [a is b for a, b in zip(layers, modules)] == [True] * len(modules)
    kept = kept and free == [p.requires_grad for p in params]
    times = [sum(p is q for q, _ in entries) for p in params]
    strangers = sum(all(q is not p for p in params) for q, _ in entries)
    if times == [int(wanted) for wanted in free] and not strangers and kept:
        moved = _moved_by(groups, params)
    else:
        moved = [sum(lr for q, lr in entries if q is p) for p in params]
    return {
        "groups that each parameter is in": times,
        "parameters of other modules": strangers,
        "rate at which a step moves each parameter": moved,
        "`layers` stays as it is": kept,
    }


# reference
@exercise(
    [
        _for_groups(["batch", "batch"]),
        _for_groups([None]),
        _for_groups([None, "batch", None, "group"], odd=True),
    ],
    points=2,
    call=_rates,
    grad=False,
    device=False,
    rtol=1e-6,
    atol=1e-12,
    hints=(
        (
            "By how much is the head's rate divided, and by how much that of the layer just"
            " below it?"
        ),
        (
            "Count from the end: the head is divided by decay 0 times, the layer below it once,"
            " the one below that twice."
        ),
        (
            "One dict a layer: {'params': [p for p in layer.parameters() if p.requires_grad],"
            " 'lr': ...}. parameters() of a container has those of all its parts."
        ),
    ),
)
def layer_rates(layers, rate, decay):
    """Parameter groups with a learning rate for each layer.

    layers: list of nn.Modules from the input to the head, which
        is the last one. A module may hold several others.
    Return a list of dicts {"params": [...], "lr": ...}, as
    torch.optim takes them: the head at `rate`, each layer below
    at the rate of the one above it divided by `decay`. Every
    parameter that wants a gradient is in exactly one group, and
    no other is in any.
    """
    ### BEGIN SOLUTION
    groups = []
    for layer in reversed(layers):
        free = [p for p in layer.parameters() if p.requires_grad]
        groups.append({"params": free, "lr": rate})
        rate = rate / decay
    return groups
    ### END SOLUTION


# mistakes
def _grouped(
    layers, rate_of, wanted=lambda p: p.requires_grad, parameters=lambda layer: layer.parameters()
):
    last = len(layers) - 1
    return [
        {"params": [p for p in parameters(layer) if wanted(p)], "lr": rate_of(last - k)}
        for k, layer in enumerate(layers)
    ]


@layer_rates.mistake(
    "The order is turned round:"
    " the layer at the input is the one to go slowest, and the head is to have the full rate."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay ** (len(layers) - 1 - up))


@layer_rates.mistake(
    "The head itself is divided by decay already:"
    " it is to have `rate`, the layer below it `rate / decay`."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay ** (up + 1))


@layer_rates.mistake("You multiply by decay, so that the layer at the input goes fastest: divide.")
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate * decay**up)


@layer_rates.mistake(
    "The rates fall in a straight line, 1, 1/decay, 1/(2 decay), ...:"
    " each layer is to be divided by decay once more than the one above."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / (decay * up) if up else rate)


@layer_rates.mistake(
    "The layer right below the head has the head's rate still:"
    " it is to be divided by decay once already."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay ** max(up - 1, 0))


@layer_rates.mistake(
    "All layers below the head have one rate."
    " Each is to be divided by decay once more than the one above it."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay if up else rate)


@layer_rates.mistake("The head is in no group, so it is never trained.")
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay**up)[:-1]


@layer_rates.mistake(
    "A frozen parameter is in a group."
    " With weight decay or momentum an optimizer may still move what it holds: leave it out."
)
def _(layers, rate, decay):
    return _grouped(layers, lambda up: rate / decay**up, wanted=lambda p: True)


@layer_rates.mistake(
    "Only matrices are in the groups:"
    " biases and the two vectors of a BatchNorm are parameters as well."
)
def _(layers, rate, decay):
    return _grouped(
        layers, lambda up: rate / decay**up, wanted=lambda p: p.requires_grad and p.ndim > 1
    )


@layer_rates.mistake(
    "A layer may hold several modules, such as a BatchNorm after its linear map,"
    " and the parameters of one are in no group: ask the layer for parameters()."
)
def _(layers, rate, decay):
    return _grouped(
        layers,
        lambda up: rate / decay**up,
        parameters=lambda layer: next(
            m for m in layer.modules() if not isinstance(m, nn.Sequential)
        ).parameters(),
    )


@layer_rates.mistake(
    "Every layer's group holds the layers below it as well, so a parameter is in several groups."
    " torch.optim refuses that."
)
def _(layers, rate, decay):
    return [
        {
            "params": [
                p for layer in layers[: k + 1] for p in layer.parameters() if p.requires_grad
            ],
            "lr": rate / decay ** (len(layers) - 1 - k),
        }
        for k in range(len(layers))
    ]


@layer_rates.mistake(
    "Modules are asked one level deep only: what lies deeper is in no group."
    " parameters() of a layer has those of all its parts, however deep."
)
def _(layers, rate, decay):
    def one_level(layer):
        inside = [layer, *layer.children()]
        return [p for module in inside for p in module.parameters(recurse=False)]

    return _grouped(layers, lambda up: rate / decay**up, parameters=one_level)


@layer_rates.mistake(
    "A layer without a free parameter is skipped when you count:"
    " the layers below it are to be divided by decay for it as well."
)
def _(layers, rate, decay):
    groups = []
    for layer in reversed(layers):
        free = [p for p in layer.parameters() if p.requires_grad]
        if free:
            groups.append({"params": free, "lr": rate / decay ** len(groups)})
    return groups


@layer_rates.mistake(
    "A parameter that a layer holds under two names is in its group twice:"
    " parameters() gives each parameter once."
)
def _(layers, rate, decay):
    return _grouped(
        layers,
        lambda up: rate / decay**up,
        parameters=lambda layer: [
            p for _, p in layer.named_parameters(remove_duplicate=False)
        ],
    )


@layer_rates.mistake(
    "The caller's list is changed, turned round or emptied: go through reversed(layers) or"
    " layers[::-1], which leave `layers` as it is."
)
def _(layers, rate, decay):
    layers.reverse()
    return [
        {"params": [p for p in layer.parameters() if p.requires_grad], "lr": rate / decay**up}
        for up, layer in enumerate(layers)
    ]


# --------------------------------------------------------------------- 2. half frozen: spot the bug
# inputs
def _for_stages(counts, norms, dimensions=1):
    def draw(generator):
        layers, channels = _layers(generator, norms, dimensions)
        return layers, counts, 2 * inputs.batch(generator, 4, channels, dimensions) + 1

    return draw


def _as_in_evaluation(module, x, y):
    """Whether y is what the module makes of x in evaluation. Leaves it as it is."""
    modes = [(part, part.training) for part in module.modules()]
    with torch.no_grad():
        same = torch.allclose(y, module.eval()(x), rtol=1e-4, atol=1e-5)
    for part, mode in modes:
        part.training = mode
    return same


def _after_stages(answer, layers, counts, x):
    """What epochs with these counts, one after another, do to each layer.

    Which parameters and running statistics move, and whether it normalises as in evaluation.
    """
    layers = copy.deepcopy(layers)
    model, given = nn.Sequential(*layers), list(layers)
    epochs = []

    def is_ours(returned):
        """Nothing, or a list of these very modules."""
        return returned is None or (
            isinstance(returned, list | tuple)
            and all(any(part is module for module in layers) for part in returned)
        )

    for count in counts:
        model.train()
        params = [[p.detach().clone() for p in m.parameters()] for m in layers]
        buffers = [[b.clone() for b in m.buffers()] for m in layers]
        returned = answer(given, count)
        y, passed = x, []
        for module in layers:
            passed.append((module, y.detach(), module(y)))
            y = passed[-1][2]
        evaluated = [_as_in_evaluation(*each) for each in passed]
        model.zero_grad()
        if y.requires_grad:
            y.square().mean().backward()
        for p in model.parameters():
            if p.grad is not None:  # with weight decay, or a gradient of 0 would not show
                p.data -= 0.1 * (p.grad + 0.1 * p.data)
        epochs.append(
            {
                "parameters that move": [
                    [not torch.equal(p, old) for p, old in zip(m.parameters(), before)]
                    for m, before in zip(layers, params, strict=True)
                ],
                "running statistics that move": [
                    [not torch.equal(b, old) for b, old in zip(m.buffers(), before)]
                    for m, before in zip(layers, buffers, strict=True)
                ],
                "normalises as in evaluation": evaluated,
                "`layers` holds the same modules": [a is b for a, b in zip(given, layers)],
                "changed in place": is_ours(returned),
            }
        )
    return epochs


# reference
def _only_gradients(layers, count):
    """Prepare one epoch of gradual unfreezing: only the `count`
    highest layers are to be trained. Changes them in place.

    layers: list of nn.Modules from the input to the head, with
        BatchNorm in some. count: 1 to len(layers).
    Called in every epoch after model.train(), with a count that
    grows from time to time. A layer below must not change at
    all, and normalises as in evaluation.
    """
    for layer in layers[:-count]:
        for p in layer.parameters():
            p.requires_grad = False


@exercise(
    [
        _for_stages([1, 2], ["batch", "batch"]),
        _for_stages([1], ["batch", "instance"], dimensions=2),
    ],
    points=3,
    call=_after_stages,
    grad=False,
    device=False,
    starter=_only_gradients,
    hints=(
        (
            "What does a BatchNorm do in a forward pass in training mode, whatever its"
            " parameters want? And what opens a layer again?"
        ),
        (
            "The starter has two bugs: it leaves the mode as it is, and a layer that was closed"
            " once stays closed."
        ),
        (
            "For layer k, open = k >= len(layers) - count: layer.requires_grad_(open) and"
            " layer.train(open)."
        ),
    ),
)
def set_stage(layers, count):
    closed = len(layers) - count
    for k, layer in enumerate(layers):
        layer.requires_grad_(k >= closed)
        layer.train(k >= closed)


# mistakes
@set_stage.mistake(
    "The weights below stand still, but their BatchNorm is in training mode:"
    " statistics drift; and a layer once closed is never opened again."
)
def _(layers, count):
    _only_gradients(layers, count)


@set_stage.mistake(
    "Statistics stand still now, but a layer once closed is never opened again:"
    " set requires_grad to True above the line."
)
def _(layers, count):
    for layer in layers[: len(layers) - count]:
        layer.requires_grad_(False).eval()


@set_stage.mistake(
    "Layers open again now, but below the line BatchNorm is still in training mode:"
    " its running statistics drift."
)
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(k >= len(layers) - count)


@set_stage.mistake("You count from the input: the lowest layers are open and the head is closed.")
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(k < count).train(k < count)


@set_stage.mistake(
    "One layer too many is closed: with count = 1 the head, at least, is to be trained."
)
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(k > len(layers) - count).train(k > len(layers) - count)


@set_stage.mistake("One layer too few is closed: with count = 1 the head alone is to be trained.")
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(k >= len(layers) - count - 1).train(k >= len(layers) - count - 1)


@set_stage.mistake(
    "All layers are in evaluation mode, the open ones too:"
    " their BatchNorm should follow the new data."
)
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(k >= len(layers) - count).eval()


@set_stage.mistake(
    "The modes are right, but the parameters below the line still want gradients:"
    " the optimizer moves them."
)
def _(layers, count):
    for k, layer in enumerate(layers):
        layer.requires_grad_(True).train(k >= len(layers) - count)


def _opened(layers, count, norms):
    """Gradients as asked, and the mode of these modules of a layer only."""
    for k, layer in enumerate(layers):
        free = k >= len(layers) - count
        layer.requires_grad_(free)
        for module in norms(layer):
            module.training = free


@set_stage.mistake(
    "Only what lies right inside a layer is switched. A BatchNorm may lie deeper:"
    " layer.eval() reaches all of them."
)
def _(layers, count):
    _opened(layers, count, lambda layer: layer.children())


@set_stage.mistake(
    "Only BatchNorm1d is switched: a layer may hold a norm of two or three dimensions."
    " layer.eval() switches every kind."
)
def _(layers, count):
    _opened(
        layers,
        count,
        lambda layer: [m for m in layer.modules() if isinstance(m, nn.BatchNorm1d)],
    )


@set_stage.mistake(
    "Every BatchNorm is switched, but an InstanceNorm may keep running statistics as well:"
    " layer.eval() switches every kind."
)
def _(layers, count):
    kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
    _opened(layers, count, lambda layer: [m for m in layer.modules() if isinstance(m, kinds)])


@set_stage.mistake(
    "With a momentum of 0 the statistics stand still,"
    " but in training mode a norm uses those of the batch, not its own: eval()."
)
def _(layers, count):
    for k, layer in enumerate(layers):
        free = k >= len(layers) - count
        layer.requires_grad_(free)
        for module in layer.modules():
            if hasattr(module, "momentum"):
                module.momentum = 0.1 if free else 0.0


# ------------------------------------------------------------------------- 3. the probe comes first
# inputs
def _linear_network(n, d, k, size=1.0):
    """Features with orthonormal rows, so that steps are stable, and targets that no head fits.

    size: of the inputs.
    """

    def draw(generator):
        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        B, X = torch.linalg.qr(normal(d, k))[0].T.contiguous(), normal(n, d)
        rate, steps = (
            0.05 + 0.02 * float(torch.rand((), generator=generator)),
            whole(generator, 4, 8),
        )
        return B, size * X, X @ normal(d) + normal(n), rate, steps

    return draw


# reference
@exercise(
    [_linear_network(12, 4, 2), _linear_network(10, 5, 3), _linear_network(8, 3, 1, size=1e-4)],
    points=3,
    call=lambda answer, *args: named(answer(*args), "B", "v"),
    grad=False,
    rtol=1e-6,
    atol=1e-9,
    hints=(
        "The probe trains v alone. Of which problem is that the least-squares solution?",
        (
            "Of the one with the features X @ B.T: torch.linalg.lstsq(X @ B.T, y).solution. Then"
            " full steps begin, from it."
        ),
        (
            "With r = X @ B.T @ v - y the gradient for v is B @ X.T @ r / n and that for B is"
            " the outer product of v with X.T @ r / n. Find both, then step: B, v = B - rate *"
            " ..., v - rate * ..."
        ),
    ),
)
def lp_then_ft(B, X, y, rate, steps):
    """Linear probing, then fine-tuning, of the linear network
    f(x) = v . (B x), with squared loss |f(X) - y|^2 / (2 n).

    B: the source's features [k, d]; X: inputs [n, d]; y: [n];
    all float64. First the head v [k] that is best for the
    features as they are. Then `steps` steps of gradient descent
    at `rate`, each of which moves v and B at once.
    Return (B, v) after the last step. Do not change the inputs.
    """
    ### BEGIN SOLUTION
    n = len(y)
    v = torch.linalg.lstsq(X @ B.T, y).solution
    for _ in range(steps):
        pull = X.T @ (X @ B.T @ v - y) / n
        B, v = B - rate * torch.outer(v, pull), v - rate * B @ pull
    return B, v
    ### END SOLUTION


# laws
@lp_then_ft.law(
    "no steps leave the features, and where the probe fits exactly, steps change nothing"
)
def _(answer, B, X, y, rate, steps):
    kept, v = answer(B, X, y, rate, 0)
    fitted = X @ B.T @ v
    again, w = answer(B, X, fitted, rate, steps)
    return (
        torch.equal(kept, B)
        and torch.allclose(again, B, atol=1e-8)
        and torch.allclose(w, v, atol=1e-8)
    )


# mistakes
def _two_layer(B, X, y, rate, steps, v=None, trunk=1.0, scale=1.0, ordered=None):
    """The reference with one thing changed: what the mistakes are made of."""
    v = torch.linalg.lstsq(X @ B.T, y).solution if v is None else v
    for _ in range(steps):
        pull = scale * X.T @ (X @ B.T @ v - y) / len(y)
        if ordered == "v first":
            v = v - rate * B @ pull
            B = B - trunk * rate * torch.outer(v, pull)
        elif ordered == "B first":
            B = B - trunk * rate * torch.outer(v, pull)
            v = v - rate * B @ pull
        else:
            B, v = B - trunk * rate * torch.outer(v, pull), v - rate * B @ pull
    return B, v


@lp_then_ft.mistake(
    "You take one step too few: `steps` of them come after the probe, which is none."
)
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, rate, max(steps - 1, 0))


@lp_then_ft.mistake(
    "There is no probe: fine-tuning starts from a head of zeros,"
    " and the features move while the head learns."
)
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, rate, steps, v=torch.zeros_like(B[:, 0]))


@lp_then_ft.mistake("This is the probe alone: the fine-tuning is missing.")
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, rate, 0)


lp_then_ft.variants(
    _two_layer,
    {
        "The head moves first and B's gradient is then taken with the new head:"
        " both gradients belong to the same point.": {"ordered": "v first"},
        "B moves first and the head's gradient is then taken with the new B:"
        " both gradients belong to the same point.": {"ordered": "B first"},
        "Your gradients are twice too large: the loss has a factor 1/2.": {"scale": 2.0},
    },
)


@lp_then_ft.mistake("Your gradients lack the 1 / n: the loss is a mean over the examples.")
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, rate, steps, scale=len(y))


@lp_then_ft.mistake("The steps go uphill: subtract the gradients.")
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, -rate, steps)


@lp_then_ft.mistake(
    "You probe the inputs, not the features, and map the answer into the features' space:"
    " solve for v with X @ B.T in the place of X."
)
def _(B, X, y, rate, steps):
    return _two_layer(B, X, y, rate, steps, v=B @ torch.linalg.lstsq(X, y).solution)


@lp_then_ft.mistake(
    "In the second phase the head stands still and B alone takes steps: both are to move."
)
def _(B, X, y, rate, steps):
    v = torch.linalg.lstsq(X @ B.T, y).solution
    for _ in range(steps):
        B = B - rate * torch.outer(v, X.T @ (X @ B.T @ v - y) / len(y))
    return B, v


@lp_then_ft.mistake(
    "The head is fitted again after every step on the features;"
    " in the second phase it takes gradient steps like the features."
)
def _(B, X, y, rate, steps):
    v = torch.linalg.lstsq(X @ B.T, y).solution
    for _ in range(steps):
        B = B - rate * torch.outer(v, X.T @ (X @ B.T @ v - y) / len(y))
        v = torch.linalg.lstsq(X @ B.T, y).solution
    return B, v


@lp_then_ft.mistake(
    "A small constant is added before you solve for the head. Where the inputs are small it is no"
    " longer small beside them, and the head is not the best one: solve without it."
)
def _(B, X, y, rate, steps):
    Z = X @ B.T
    ridge = Z.T @ Z + 1e-8 * torch.eye(len(B), dtype=Z.dtype, device=Z.device)
    return _two_layer(B, X, y, rate, steps, v=torch.linalg.solve(ridge, Z.T @ y))


# -------------------------------------------------------------------------------- 4. the wrong head
# inputs
NAMES = [
    "plane",
    "car",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "cart",
    "bus",
    "lion",
    "tiger",
    "catfish",
]


def _heads(shared, gone, added, turn=True):
    """Heads before and after, with `shared` classes in both, in another order if `turn`.

    `gone` classes are only before and `added` ones only after.
    """

    def draw(generator):
        names = [NAMES[i] for i in torch.randperm(len(NAMES), generator=generator).tolist()]
        both, before, after = (
            names[:shared],
            names[shared : shared + gone],
            names[shared + gone : shared + gone + added],
        )
        turned = [*both[shared // 2 :], *both[: shared // 2]] if turn else both
        known, wanted = [*both, *before], [*after[: added // 2], *turned, *after[added // 2 :]]
        width = whole(generator, 2, 5)
        old, new = (
            filled(nn.Linear(width, len(classes)), generator) for classes in (known, wanted)
        )
        return new, old, known, wanted

    return draw


def _filled(answer, new, old, known, wanted):
    """The head that the answer returns, and whether all else is as it was.

    Now, and when the new one is trained.
    """
    new, old = copy.deepcopy(new), copy.deepcopy(old)
    before = [p.detach().clone() for p in old.parameters()]
    names = list(known), list(wanted)
    head = required(answer(new, old, *names))
    if not isinstance(head, nn.Linear):
        raise ValueError(f"Return the new head, an nn.Linear; yours is {values.kind(head)}.")
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    score = head(torch.ones(1, head.in_features)).sum()
    if score.requires_grad:
        score.backward()
    trained = [p.grad is not None for p in (head.weight, head.bias)]
    for p in head.parameters():
        p.data.add_(1.0)
    return {
        "weight": weight,
        "bias": bias,
        "weight and bias can be trained": trained,
        "`old` does not change, now or when the new head is trained": [
            torch.equal(a, b) for a, b in zip(before, old.parameters())
        ],
        "`old` can still be trained": [p.requires_grad for p in old.parameters()],
        "`known` and `wanted` stay as they are": names == (known, wanted),
    }


# reference
def _by_position(new, old, known, wanted):
    """Carry what the source knows of the target's classes over
    to the new head; return that head.

    old: the source's nn.Linear, one row of weights and one bias
        per class, in the order of `known`, its classes' names.
    new: an nn.Linear just drawn for the classes `wanted`, in
        the order of the target's labels.
    A class that is in both gets the source's row and bias; any
    other keeps what was drawn. `old` must not change, now or
    when the new head is trained.
    """
    n = min(len(known), len(wanted))
    new.weight.data[:n] = old.weight.data[:n]
    new.bias.data[:n] = old.bias.data[:n]
    return new


@exercise(
    [
        _heads(4, 2, 3),
        _heads(3, 0, 2),
        _heads(4, 0, 0),
        _heads(3, 0, 0, turn=False),
        _heads(0, 3, 2),
    ],
    points=2,
    call=_filled,
    grad=False,
    device=False,
    starter=_by_position,
    hints=(
        (
            "The shapes fit, so nothing complains. Which class does row 0 stand for before, and"
            " which after?"
        ),
        (
            "Rows belong to names, and the places of the names have changed. Go through"
            " `wanted`, and look each name up in `known`."
        ),
        (
            "new.weight.data[k] = old.weight.data[known.index(name)] for each name at place k of"
            " `wanted` that is in `known`, and the bias alike; other rows stay."
        ),
    ),
)
def fill_head(new, old, known, wanted):
    """Carry what the source knows of the target's classes over
    to the new head; return that head."""
    for k, name in enumerate(wanted):
        if name in known:
            row = known.index(name)
            new.weight.data[k] = old.weight.data[row]
            new.bias.data[k] = old.bias.data[row]
    return new


# mistakes
def _by_name(new, old, known, wanted, weight=True, bias=True, order=None, other=None):
    for k, name in enumerate(wanted):
        if name in known:
            row = (order or known).index(name)
            if weight:
                new.weight.data[k] = old.weight.data[row]
            if bias:
                new.bias.data[k] = old.bias.data[row]
        elif other is not None:
            new.weight.data[k] = other(old)
    return new


@fill_head.mistake(
    "Rows are copied by their place. The classes stand in another order now,"
    " so a row speaks for the wrong class, and nothing complains."
)
def _(new, old, known, wanted):
    return _by_position(new, old, known, wanted)


fill_head.variants(
    _by_name,
    {
        "The biases stay as they were drawn: a row without its bias is another classifier.": {
            "bias": False
        },
        "Only the biases are copied; the weights are those that were drawn.": {"weight": False},
        "The rows of new classes are set to zero: keep what was drawn.": {"other": lambda old: 0.0},
        "A new class gets a copy of one of the source's rows,"
        " so it starts as a twin of a class that it is not: keep what was drawn.": {
            "other": lambda old: old.weight.data[-1]
        },
    },
)


@fill_head.mistake(
    "A class that the source does not know gets the source's first row: keep what was drawn."
)
def _(new, old, known, wanted):
    for k, name in enumerate(wanted):
        row = known.index(name) if name in known else 0
        new.weight.data[k], new.bias.data[k] = old.weight.data[row], old.bias.data[row]
    return new


@fill_head.mistake("Nothing is carried over: what the source knows of the common classes is lost.")
def _(new, old, known, wanted):
    return new


@fill_head.mistake(
    "This is the source's own head:"
    " it has the source's classes, and the target's training would change it."
)
def _(new, old, known, wanted):
    return old


@fill_head.mistake(
    "The rows are looked up in the sorted names, an order that belongs to neither set."
)
def _(new, old, known, wanted):
    return _by_name(new, old, known, wanted, order=sorted(known))


@fill_head.mistake("Old and new are exchanged: you write the new head's rows into the source's.")
def _(new, old, known, wanted):
    for k, name in enumerate(wanted):
        if name in known:
            row = known.index(name)
            old.weight.data[row] = new.weight.data[k]
            old.bias.data[row] = new.bias.data[k]
    return new


@fill_head.mistake(
    "Where both sets list the same classes in one order,"
    " the new head is the source's, or has its tensors: its training would change `old`. Copy them."
)
def _(new, old, known, wanted):
    if known == wanted:
        new.weight, new.bias = old.weight, old.bias
        return new
    return _by_name(new, old, known, wanted)


# ------------------------------------------------------------------------- 5. the network to ship
# inputs
def _judged(unmet, own=True, share=None):
    """Validation accuracies of several networks, by kind of image, and what a product will meet.

    The level varies a lot from seed to seed, and no network is behind by an amount near the limit.

    unmet: so many kinds were judged that the product will not meet.
    own: whether it will meet images of the target's own kind.
    share: of the first kind that it meets; the network with the best mean over kinds is then not
        the one with the best mean over images. None for random shares; the best on the most
        frequent kind is then not the best on all.
    """

    def draw(generator):
        limit, seeds = uniform(generator, 2.0, 4.0), whole(generator, 4, 7)
        others = [OTHER_KINDS[k] for k in torch.randperm(len(OTHER_KINDS), generator=generator)]
        met = ["own", *others[: whole(generator, 1, 3)]] if own else others[:2]
        kinds = [*met, *others[3 : 3 + unmet], *([] if own else ["own"])]
        weights = 0.2 + torch.rand(len(met), generator=generator).double()
        if share is not None:
            weights[0] = share / (1 - share) * weights[1:].sum()
        shares = dict(zip(met, (weights / weights.sum()).tolist(), strict=True))
        names = [WAYS[k] for k in torch.randperm(len(WAYS), generator=generator)]
        names = names[:6]
        share_of = torch.tensor([shares.get(kind, 0.0) for kind in kinds]).double()
        base = 0.4 + 0.3 * torch.rand(1, len(kinds), seeds, generator=generator).double()
        while True:
            gaps = _gaps(generator, len(kinds), seeds, limit, len(met))
            tables = base + torch.cat([torch.zeros_like(base), gaps])
            means = tables.mean(dim=2)
            mixed, most = means @ share_of, means[:, share_of.argmax()]
            wrong = most if share is None else means @ (share_of > 0).double()
            differ = int(mixed[:3].argmax()) != int(wrong[:3].argmax())
            if differ and mixed.sort().values.diff().min() > 1e-3:  # no ties
                break
        tables = {
            name: shuffled(generator, dict(zip(kinds, rows.clone(), strict=True)))
            for name, rows in zip(names, tables, strict=True)
        }
        return shuffled(generator, tables), shuffled(generator, shares), names[0], limit

    return draw


OTHER_KINDS = ["noise", "blur", "contrast", "turned", "shifted", "night"]
WAYS = ["as it is", "probe", "full", "LP-FT", "layer-wise", "averaged", "L2-SP", "scratch"]


def _gaps(generator, kinds, seeds, limit, met):
    """Differences of five networks from the one in use, [5, kinds, seeds].

    Their means are known in units of what chance does. The first two are behind on none of the
    first `met` kinds, each of the others on one of them, by more and by less.
    """
    noise = torch.randn(5, kinds, seeds, generator=generator).double()
    noise = (noise - noise.mean(dim=2, keepdim=True)) / noise.std(dim=2, keepdim=True)
    size = 0.02 + 0.03 * torch.rand(5, kinds, generator=generator).double()
    near, far = torch.tensor([-0.96, -0.5, 0.3, 1.3]), torch.tensor([-1.05, -1.7, -3.3])
    ratio = near[torch.randint(len(near), (5, kinds), generator=generator)]
    ratio[torch.arange(2, 5), torch.randint(met, (3,), generator=generator)] = far
    ratio[:, met:] *= 5
    return size[..., None] * (noise + (ratio.double() * limit / seeds**0.5)[..., None])


def _shipped(answer, validation, shares, current, limit):
    parts = named(answer(validation, shares, current, limit), "name", "allowed")
    name, allowed = parts["name"], parts["allowed"]
    expect(isinstance(name, str), "the name of a network", name)
    listed = isinstance(allowed, list | tuple | set | frozenset)
    expect(listed and all(isinstance(each, str) for each in allowed), "a list of names", allowed)
    return {"name": str(name), "allowed": ", ".join(sorted(allowed))}


# reference
def _best_on_own(validation, shares, current, limit):
    """The network to ship, and all that might be shipped.

    validation: dict name of a network -> dict kind of image ->
        accuracies [seeds] on validation images. A column is a
        seed: the same draw of data for all networks.
    shares: dict kind -> its share of the product's images. Kinds
        that the product will not meet are missing here.
    current: the name of the network in use today.
    limit: quantile of Student's t.
    A network may replace the current one unless it is behind it
    on a kind that the product meets. It is behind if the mean of
    the paired differences is below zero by more than limit x the
    standard error of that mean.
    Return (name, allowed). allowed: list of the names of all that
    may be shipped, the current one among them. name: of these,
    the one with the best mean accuracy on the product's images.
    """
    own = {name: row["own"].mean() for name, row in validation.items()}
    return max(own, key=own.get), list(validation)


@exercise(
    [_judged(0, share=0.85), _judged(1), _judged(1, own=False)],
    points=3,
    grad=False,
    device=False,
    starter=_best_on_own,
    call=_shipped,
    hints=(
        "Which images does the code look at, and which ones will the product see?",
        (
            "Go through `shares`, not through all kinds. For each kind take the differences from"
            " the current network seed by seed: are they below zero by more than chance does?"
        ),
        (
            "`gap = row[kind] - validation[current][kind]`; behind where `gap.mean() < -limit *"
            " gap.std() / len(gap) ** 0.5`. Of those never behind, the largest sum of `share *"
            " row[kind].mean()`."
        ),
    ),
)
def network_to_ship(validation, shares, current, limit):
    mix = {}
    for name, row in validation.items():
        gaps = [row[kind] - validation[current][kind] for kind in shares]
        if all(gap.mean() >= -limit * gap.std() / len(gap) ** 0.5 for gap in gaps):
            mix[name] = sum(share * row[kind].mean() for kind, share in shares.items())
    return max(mix, key=mix.get), list(mix)


# laws
@network_to_ship.law("kinds that the product will not meet change nothing")
def _(answer, validation, shares, current, limit):
    if all(set(row) == set(shares) for row in validation.values()):
        return True
    turned = {
        name: {kind: values if kind in shares else -values for kind, values in row.items()}
        for name, row in validation.items()
    }
    (one, some), (other, more) = (
        answer(rows, shares, current, limit) for rows in (validation, turned)
    )
    return one == other and sorted(some) == sorted(more)


network_to_ship.law(inputs.LEAVES_NO_TRACE)(inputs.leaves_no_trace)


# mistakes
def _weighed(
    validation,
    shares,
    current,
    limit,
    kinds=lambda row, shares: shares,
    error=lambda a, b: (a - b).std() / len(a) ** 0.5,
    behind=lambda mean, far: mean < -far,
    score=lambda row, shares: sum(s * row[k].mean() for k, s in shares.items()),
    keeps=True,
):
    """The answer with one thing changed."""
    now, mix = validation[current], {}
    for name, row in validation.items():
        if name == current and not keeps:
            continue
        pairs = [(row[kind], now[kind]) for kind in kinds(row, shares)]
        is_current = name == current
        if is_current or not any(behind((a - b).mean(), limit * error(a, b)) for a, b in pairs):
            mix[name] = score(row, shares)
    return max(mix, key=mix.get), list(mix)


@network_to_ship.mistake(
    "The best on own images is shipped, whatever the product meets, and nobody is held against the"
    " network in use."
)
def _(validation, shares, current, limit):
    return _best_on_own(validation, shares, current, limit)


network_to_ship.variants(
    _weighed,
    {
        "Nothing is ruled out: a network may gain on most images and be worse than today's on a"
        " kind that somebody meets.": {"behind": lambda mean, far: False},
        "Kinds are ruled on that the product will not meet. Go through `shares`.": {
            "kinds": lambda row, shares: row
        },
        "Every kind counts the same in your mean: weigh each by its share.": {
            "score": lambda row, shares: sum(row[kind].mean() for kind in shares)
        },
        "Of those allowed you take the best on own images: the product's images are a mix.": {
            "score": lambda row, shares: row["own"].mean()
        },
        "Any mean below zero counts as behind. How far below would chance take it?": {
            "error": lambda a, b: 0.0
        },
        "The networks share their draws of data, so compare them seed by seed: the deviation of the"
        " differences counts, not that of each network.": {
            "error": lambda a, b: ((a.var() + b.var()) / len(a)) ** 0.5
        },
        "The standard deviation of the differences is not the standard error of their mean.": {
            "error": lambda a, b: (a - b).std()
        },
        "You divide by the root of k - 1 for k seeds. The k - 1 belongs in the standard deviation;"
        " the standard error divides that by the root of k.": {
            "error": lambda a, b: (a - b).std() / (len(a) - 1) ** 0.5
        },
        "You ask for a lead on every kind. A network may be shipped that is not behind.": {
            "behind": lambda mean, far: mean <= far
        },
        "The network in use is missing: it may be shipped as well, and may be the best.": {
            "keeps": False
        },
    },
)
