"""Exercises of chapter 12: fine-tuning a network."""

import copy

import torch
from torch import nn

from ..checks.exercise import exercise
from .inputs import filled, whole


# ------------------------------------------------------------------------ 1. a rate for every layer
# inputs
def _blocks(generator, count, norm):
    """`count` layers of a trunk, from the input on, and a head.

    Each layer is an nn.Sequential of a linear map, perhaps a BatchNorm, and a ReLU.
    """
    width = whole(generator, 3, 6)
    layers = [
        nn.Sequential(
            nn.Linear(width, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()
        )
        for _ in range(count)
    ]
    return [filled(layer, generator) for layer in [*layers, nn.Linear(width, 2)]]


def _for_groups(count, norm, frozen=None):
    def draw(generator):
        layers = _blocks(generator, count, norm)
        if frozen is not None:
            layers[frozen][0].bias.requires_grad_(False)
        rate, decay = (
            float(x) for x in torch.rand(2, generator=generator) + torch.tensor([0.01, 1.5])
        )
        return layers, rate, decay

    return draw


def _rates(answer, layers, rate, decay):
    """Rate and number of groups of every parameter."""
    layers = copy.deepcopy(layers)
    groups = answer(layers, rate, decay)
    if isinstance(groups, dict):
        raise TypeError(
            "This is a single dict:"
            ' return a list of them, one {"params": [...], "lr": ...} for each rate.'
        )
    if not isinstance(groups, list | tuple) or not all(
        isinstance(group, dict) and {"params", "lr"} <= set(group) for group in groups
    ):
        return groups
    found = {}
    for group in groups:
        params = group["params"]
        for p in [params] if isinstance(params, torch.Tensor) else list(params):
            found.setdefault(id(p), []).append(float(group["lr"]))
    everything = [p for layer in layers for p in layer.parameters()]
    return {
        "groups a parameter is in": [len(found.get(id(p), [])) for p in everything],
        "its rate": [sum(found.get(id(p), []), 0.0) for p in everything],
        "strangers": len(found.keys() - {id(p) for p in everything}),
    }


# reference
@exercise(
    [_for_groups(3, True), _for_groups(1, False), _for_groups(4, False, frozen=1)],
    points=2,
    call=_rates,
    grad=False,
    device=False,
    hints=(
        (
            "Count from the end: the head is divided by decay 0 times,"
            " the layer below it once, the one below that twice."
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


# --------------------------------------------------------------------- 2. half frozen: spot the bug
# inputs
def _for_stages(counts):
    def draw(generator):
        layers = _blocks(generator, 3, True)
        return (
            layers,
            counts,
            2 * torch.randn(10, layers[0][0].in_features, generator=generator) + 1,
        )

    return draw


def _statistics(layer):
    return [value.clone() for name, value in layer.named_buffers() if "running" in name]


def _after_stages(answer, layers, counts, x):
    """What epochs with these counts, one after another, do to each layer.

    Which weights want gradients, whether the running statistics move, and the layer's mode.
    """
    layers = copy.deepcopy(layers)
    model = nn.Sequential(*layers)
    epochs = []
    for count in counts:
        model.train()
        earlier = [_statistics(layer) for layer in layers]
        returned = answer(layers, count)
        loss = model(x).square().mean()
        free = [p for p in model.parameters() if p.requires_grad]
        if free:
            gradients = torch.autograd.grad(loss, free, allow_unused=True)
            for p, gradient in zip(free, gradients, strict=True):
                if gradient is not None:
                    p.data -= 0.1 * gradient
        epochs.append(
            {
                "wants gradients": [[p.requires_grad for p in m.parameters()] for m in layers],
                "statistics move": [
                    [not torch.equal(a, b) for a, b in zip(_statistics(m), old, strict=True)]
                    for m, old in zip(layers, earlier, strict=True)
                ],
                "in training mode": [m.training for m in layers],
                "in place": returned is None or returned is layers,
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
    [_for_stages([1, 2, 4]), _for_stages([3])],
    points=3,
    call=_after_stages,
    grad=False,
    device=False,
    starter=_only_gradients,
    hints=(
        (
            "Two bugs. What does a BatchNorm do in a forward pass in training mode,"
            " whatever its parameters want? And what opens a layer again?"
        ),
        (
            "Go through all layers. Those below: requires_grad_(False) and eval()."
            " Those above: requires_grad_(True); model.train() has been called already."
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


# ------------------------------------------------------------------------- 3. the probe comes first
# inputs
def _linear_network(n, d, k):
    """Features with orthonormal rows, so that steps are stable, and targets that no head fits."""

    def draw(generator):
        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        B, X = torch.linalg.qr(normal(d, k))[0].T.contiguous(), normal(n, d)
        rate, steps = (
            0.05 + 0.02 * float(torch.rand((), generator=generator)),
            whole(generator, 4, 8),
        )
        return B, X, X @ normal(d) + normal(n), rate, steps

    return draw


# reference
@exercise(
    [_linear_network(12, 4, 2), _linear_network(10, 5, 3)],
    points=3,
    grad=False,
    rtol=1e-6,
    atol=1e-9,
    hints=(
        (
            "The probe is a least-squares problem with the features X @ B.T:"
            " torch.linalg.lstsq(X @ B.T, y).solution."
        ),
        (
            "With r = X @ B.T @ v - y the gradient for v is B @ X.T @ r / n and that for B"
            " is the outer product of v with X.T @ r / n. Find both, then step."
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
    "truck",
    "bus",
    "lion",
    "tiger",
    "whale",
]


def _heads(shared, gone, added):
    """Heads before and after, with `shared` classes in both, in another order.

    `gone` classes are only before and `added` ones only after.
    """

    def draw(generator):
        names = [NAMES[i] for i in torch.randperm(len(NAMES), generator=generator).tolist()]
        both, before, after = (
            names[:shared],
            names[shared : shared + gone],
            names[shared + gone : shared + gone + added],
        )
        turned = [*both[shared // 2 :], *both[: shared // 2]]
        known, wanted = [*both, *before], [*after[: added // 2], *turned, *after[added // 2 :]]
        width = whole(generator, 2, 5)
        old, new = (
            filled(nn.Linear(width, len(classes)), generator) for classes in (known, wanted)
        )
        return new, old, known, wanted

    return draw


def _filled(answer, new, old, known, wanted):
    """The head that the answer returns, and whether the source's is as it was.

    Now, and when the new one is trained.
    """
    new, old = copy.deepcopy(new), copy.deepcopy(old)
    before = [p.detach().clone() for p in old.parameters()]
    head = answer(new, old, list(known), list(wanted))
    if not isinstance(head, nn.Linear):
        return head
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    for p in head.parameters():
        p.data.add_(1.0)
    return {
        "weight": weight,
        "bias": bias,
        "can be trained": [p.requires_grad and p.is_leaf for p in head.parameters()],
        "the source's head stays": [torch.equal(a, b) for a, b in zip(before, old.parameters())],
    }


# reference
def _by_position(new, old, known, wanted):
    """Carry what the source knows of the target's classes over
    to the new head; return that head.

    old: the source's nn.Linear, one row of weights and one bias
        a class, in the order of `known`, its classes' names.
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
    [_heads(4, 2, 3), _heads(3, 0, 2), _heads(4, 0, 0)],
    points=2,
    call=_filled,
    grad=False,
    device=False,
    starter=_by_position,
    hints=(
        (
            "The shapes fit, so nothing complains."
            " Which class does row 0 stand for before, and which after?"
        ),
        (
            "For each name at place k of `wanted` that is in `known`,"
            " copy row known.index(name) to row k; leave the other rows."
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
