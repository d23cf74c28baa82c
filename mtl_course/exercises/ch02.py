"""Exercises of chapter 2: the transfer objective."""

import copy

import torch
from torch import nn

from ..checks.exercise import exercise
from .inputs import filled, whole


# ------------------------------------------------------------------- 1. the pull towards the source
# inputs
def _penalty_inputs(extra):
    """Parameters of a small network, the source's values for its trunk, and two factors.

    extra: give the trunk two layers.
    """

    def draw(generator):
        a, b, c, k = (int(n) for n in torch.randint(2, 5, (4,), generator=generator))
        shapes = {"trunk.0.weight": (b, a), "trunk.0.bias": (b,)} | (
            {"trunk.2.weight": (c, b)} if extra else {}
        )
        shapes |= {
            "head.weight": (k, shapes["trunk.2.weight"][0] if extra else b),
            "head.bias": (k,),
        }
        parameters = {
            name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
        }
        source = {
            name: torch.randn(p.shape, generator=generator)
            for name, p in parameters.items()
            if name.startswith("trunk")
        }
        alpha, beta = (torch.rand(2, generator=generator) + 0.3).tolist()
        return parameters, dict(reversed(source.items())), alpha, beta

    return draw


def _penalty(answer, parameters, source, alpha, beta):
    return answer(parameters, {name: value.detach() for name, value in source.items()}, alpha, beta)


# reference
@exercise(
    [_penalty_inputs(False), _penalty_inputs(True)],
    points=2,
    call=_penalty,
    hints=(
        (
            "Go through the parameters by name. A name that the source has"
            " is pulled towards the source's value, any other name towards zero."
        ),
        (
            "Each tensor adds alpha times the sum of its squared differences,"
            " or beta times the sum of its squares. No mean, no square root, no 1/2."
        ),
    ),
)
def source_penalty(parameters, source, alpha, beta):
    """What equation 3 adds to the loss: a scalar tensor.

    parameters: dict name -> tensor, the model's, trunk and head.
    source: dict name -> tensor of the same shape, where training
        started. It has the trunk's names only: the head is new.
    alpha: factor of the squared distance to the source.
    beta: factor of the squared norm of what has no source.
    """
    ### BEGIN SOLUTION
    total = 0.0
    for name, p in parameters.items():
        if name in source:
            total = total + alpha * (p - source[name]).square().sum()
        else:
            total = total + beta * p.square().sum()
    return total
    ### END SOLUTION


# laws
@source_penalty.law("is zero at the source with a head of zeros")
def _(answer, parameters, source, alpha, beta):
    start = {name: source.get(name, torch.zeros_like(p)) for name, p in parameters.items()}
    return float(answer(start, source, alpha, beta)) == 0


# mistakes
@source_penalty.mistake(
    "The new head has no place to go back to, but beta still holds it near zero:"
    " its term is missing."
)
def _(parameters, source, alpha, beta):
    return alpha * sum((parameters[name] - value).square().sum() for name, value in source.items())


@source_penalty.mistake(
    "This is plain weight decay towards zero."
    " The trunk is to be pulled towards its values in `source`."
)
def _(parameters, source, alpha, beta):
    return sum(
        (alpha if name in source else beta) * p.square().sum() for name, p in parameters.items()
    )


@source_penalty.mistake("The head has a factor of its own, beta; you use alpha for everything.")
def _(parameters, source, alpha, beta):
    return alpha * sum(
        (p - source.get(name, torch.zeros_like(p))).square().sum() for name, p in parameters.items()
    )


@source_penalty.mistake(
    "The two factors are exchanged:"
    " alpha belongs to the distance to the source, beta to the new parameters."
)
def _(parameters, source, alpha, beta):
    return sum(
        (beta if name in source else alpha) * (p - source.get(name, 0)).square().sum()
        for name, p in parameters.items()
    )


@source_penalty.mistake(
    "You take the mean of each tensor;"
    " the objective has the sum, so that every parameter counts the same."
)
def _(parameters, source, alpha, beta):
    return sum(
        (alpha if name in source else beta) * (p - source.get(name, 0)).square().mean()
        for name, p in parameters.items()
    )


@source_penalty.mistake(
    "You take the norm; the objective has the squared norm, whose pull grows with the distance."
)
def _(parameters, source, alpha, beta):
    return sum(
        (alpha if name in source else beta) * (p - source.get(name, 0)).norm()
        for name, p in parameters.items()
    )


@source_penalty.mistake(
    "Your value is half of it:"
    " equation 3 has no factor 1/2 (the paper's alpha and beta are twice ours)."
)
def _(parameters, source, alpha, beta):
    return sum(
        (alpha if name in source else beta) / 2 * (p - source.get(name, 0)).square().sum()
        for name, p in parameters.items()
    )


@source_penalty.mistake(
    "The value is right, but the parameters are detached:"
    " the penalty has no gradient and pulls on nothing."
)
def _(parameters, source, alpha, beta):
    return sum(
        (alpha if name in source else beta) * (p.detach() - source.get(name, 0)).square().sum()
        for name, p in parameters.items()
    )


# ---------------------------------------------------------------------------- 2. features that stay
# inputs
class _Net(nn.Module):
    """Trunk and head, as the chapter's networks have them.

    The trunk holds a BatchNorm and, if asked, dropout.
    """

    def __init__(self, inputs: int, width: int, classes: int, dropout: bool):
        super().__init__()
        layers = [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Dropout(0.5)) if dropout else nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.trunk(x))


def _net(generator, dropout=False, classes=None):
    inputs, width, k = (int(n) for n in torch.randint(3, 7, (3,), generator=generator))
    return filled(_Net(inputs, width, classes or k, dropout), generator), inputs


def _probe_inputs(dropout):
    def draw(generator):
        model, inputs = _net(generator, dropout)
        return model, 3 * torch.randn(12, inputs, generator=generator) + 1

    return draw


def _probe(answer, model, x):
    """What three epochs of training do to the model that the answer returns.

    Epochs begin with `train()` and end with `eval()`.
    """
    before = [b.clone() for b in model.trunk.buffers()]
    model = answer(copy.deepcopy(model))
    if not isinstance(model, nn.Module):
        return model
    model(x)
    at_once = [torch.equal(a, b) for a, b in zip(before, model.trunk.buffers())]
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(3):
        model.train()
        loss = model(x).square().mean()
        if trained:
            for p, g in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True)):
                p.data -= 0.1 * (torch.zeros_like(p) if g is None else g)
    model.train()
    features = model.trunk(x)[0].detach()
    model.eval()
    return {
        "trunk wants gradients": [p.requires_grad for p in model.trunk.parameters()],
        "head wants gradients": [p.requires_grad for p in model.head.parameters()],
        "statistics stay at once": at_once,
        "statistics stay after train()": [
            torch.equal(a, b) for a, b in zip(before, model.trunk.buffers())
        ],
        "features of the first row": features,
        "head": model.head.weight.detach().clone(),
    }


# reference
@exercise(
    [_probe_inputs(False), _probe_inputs(True)],
    points=3,
    call=_probe,
    grad=False,
    device=False,
    hints=(
        (
            "Two things change a trunk: gradients, and forward passes in training mode."
            " The second needs no gradient at all."
        ),
        (
            "A training loop calls model.train() every epoch, which undoes an earlier eval()."
            " What could stop that, or repeat the eval()?"
        ),
        (
            "A forward pre-hook runs before each forward pass of a module;"
            " a `train` attribute of the instance stands before the class's."
        ),
    ),
)
def feature_extractor(model):
    """Make `model.trunk` a fixed feature extractor; return the model.

    Only `model.head` may still be trained. The trunk has a BatchNorm
    and maybe a dropout. Others then train the model as usual: they
    call `model.train()` in every epoch, and give the parameters that
    want gradients to an optimizer. The trunk's parameters, running
    statistics and output for an image must stay what they are now
    in evaluation mode.
    """

    ### BEGIN SOLUTION
    def back_to_eval(module, inputs):
        module.eval()

    model.trunk.requires_grad_(False)
    model.trunk.register_forward_pre_hook(back_to_eval)
    return model
    ### END SOLUTION


# mistakes
@feature_extractor.mistake(
    "The parameters are fixed, but in training mode BatchNorm still normalises by the batch"
    " and moves its running statistics."
)
def _(model):
    for p in model.trunk.parameters():
        p.requires_grad = False
    return model


@feature_extractor.mistake(
    "eval() is right, but the next model.train() undoes it:"
    " the trunk needs to stay, or be put back, in evaluation mode."
)
def _(model):
    model.trunk.requires_grad_(False)
    model.trunk.eval()
    return model


@feature_extractor.mistake(
    "The statistics stay, but the trunk's parameters still want gradients:"
    " an optimizer will move them."
)
def _(model):
    model.trunk.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
    return model


@feature_extractor.mistake("Everything is fixed, the head too: nothing is left to train.")
def _(model):
    model.requires_grad_(False)
    model.trunk.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
    return model


@feature_extractor.mistake(
    "The head is fixed and the trunk is trained: it should be the other way round."
)
def _(model):
    model.head.requires_grad_(False)
    model.head.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
    return model


@feature_extractor.mistake(
    "The running statistics stay, but they are not used:"
    " in training mode BatchNorm still normalises by the batch."
)
def _(model):
    model.trunk.requires_grad_(False)
    for layer in model.trunk:
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 0.0
            layer.num_batches_tracked = None
    return model


# ---------------------------------------------------------------- 3. a head for another label space
# inputs
def _head_inputs(generator):
    # the first optimizer of a process imports for seconds: not on the learner's time
    torch.optim.SGD([torch.zeros(1)], lr=1.0).step()
    model, inputs = _net(generator)
    classes = model.head.out_features + whole(generator, 1, 5)
    return (
        model,
        classes,
        float(torch.rand((), generator=generator) * 0.05 + 0.01),
        torch.randn(8, inputs, generator=generator),
    )


def _set_up(answer, model, classes, rate, x):
    """What the answer's model and optimizer look like, and what one step moves.

    Nothing here depends on how the head is drawn.
    """
    model = copy.deepcopy(model)
    model.trunk.eval()
    trunk = [p.detach().clone() for p in model.trunk.parameters()]
    answered = answer(model, classes, rate)
    if not (
        isinstance(answered, tuple | list)
        and [isinstance(a, b) for a, b in zip(answered, (nn.Module, torch.optim.Optimizer))]
        == [True, True]
    ):
        return answered
    model, optimizer = answered
    parameters = list(model.parameters())
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    kept = [torch.equal(a, b) for a, b in zip(trunk, model.trunk.parameters())]
    before = [p.detach().clone() for p in parameters]
    logits = model(x)
    nn.functional.cross_entropy(logits, torch.arange(len(x)) % classes).backward()
    optimizer.step()
    return {
        "optimizer": type(optimizer).__name__,
        "shape of the logits": list(logits.shape),
        "trunk kept": kept,
        "rates": [float(found[id(p)]["lr"]) if id(p) in found else 0.0 for p in parameters],
        "momentum": [
            float(found[id(p)].get("momentum", 0.0)) if id(p) in found else 0.0 for p in parameters
        ],
        "parameters of no layer": len(found.keys() - {id(p) for p in parameters}),
        "head moves": [not torch.equal(a, b) for a, b in zip(before[-2:], parameters[-2:])],
    }


# reference
@exercise(
    _head_inputs,
    points=3,
    call=_set_up,
    grad=False,
    device=False,
    hints=(
        (
            "An optimizer holds the very tensors it was given."
            " Which comes first, then: the new head, or the optimizer?"
        ),
        (
            "torch.optim.SGD takes a list of groups, dicts with `params` and their own `lr`,"
            " and options for all of them, such as momentum."
        ),
    ),
)
def fine_tuning(model, classes, rate):
    """Prepare a source model for other labels: (model, optimizer).

    model: keeps its `trunk`; its `head`, an nn.Linear, gives way to a
        freshly drawn nn.Linear with `classes` outputs.
    optimizer: torch.optim.SGD with momentum 0.9, which trains the head
        at the learning rate `rate` and the trunk at `rate / 10`.
    """
    ### BEGIN SOLUTION
    model.head = nn.Linear(model.head.in_features, classes)
    groups = [
        {"params": model.head.parameters(), "lr": rate},
        {"params": model.trunk.parameters(), "lr": rate / 10},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return model, optimizer
    ### END SOLUTION


# mistakes
def _groups(model, rate, trunk=0.1):
    return [
        {"params": model.head.parameters(), "lr": rate},
        {"params": model.trunk.parameters(), "lr": trunk * rate},
    ]


@fine_tuning.mistake(
    "The optimizer was built before the head was replaced:"
    " it holds the old head, and the new one is never trained."
)
def _(model, classes, rate):
    optimizer = torch.optim.SGD(_groups(model, rate), momentum=0.9)
    model.head = nn.Linear(model.head.in_features, classes)
    return model, optimizer


@fine_tuning.mistake(
    "The optimizer holds the head only: that is a linear probe."
    " The trunk is to be trained too, ten times more slowly."
)
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(model.head.parameters(), lr=rate, momentum=0.9)


@fine_tuning.mistake("Trunk and head have the same learning rate; the trunk's should be a tenth.")
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


@fine_tuning.mistake(
    "The rates are exchanged: the new head knows nothing yet and needs the larger one."
)
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(_groups(model, rate / 10, 10), momentum=0.9)


@fine_tuning.mistake(
    "The head still has its old outputs:"
    " setting `out_features` changes a label on the layer, not its weights."
)
def _(model, classes, rate):
    model.head.out_features = classes
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


@fine_tuning.mistake(
    "The new layer is put behind the old head, which stays:"
    " it is to take the old head's place, on the trunk's features."
)
def _(model, classes, rate):
    model.head = nn.Sequential(model.head, nn.Linear(model.head.out_features, classes))
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


@fine_tuning.mistake("The trunk has been drawn anew: what the source gave is lost.")
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    for layer in model.trunk:
        if hasattr(layer, "weight"):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


@fine_tuning.mistake("The optimizer has no momentum; the task asks for 0.9.")
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(_groups(model, rate))


# ---------------------------------------------------------------------------------- 4. spot the bug
# inputs
def _checkpoint_inputs(prefix="", lose=False):
    """A fresh model and a source checkpoint of the same architecture.

    As nn.DataParallel would save it, or with a tensor lost.
    """

    def draw(generator):
        model, _ = _net(generator)
        source = filled(copy.deepcopy(model), generator)
        state = {prefix + name: value.clone() for name, value in source.state_dict().items()}
        if lose:
            trunk = [name for name in state if "trunk" in name and "num_batches" not in name]
            del state[trunk[whole(generator, 0, len(trunk))]]
        return model, state

    return draw


def _load(answer, model, state):
    """Which tensors of the answer's model are the checkpoint's, and which the model's own."""
    own = copy.deepcopy(model.state_dict())
    try:
        model = answer(copy.deepcopy(model), state)
    except ValueError:
        return {"raises a ValueError": True, "trunk loaded": [], "head kept": []}
    if not isinstance(model, nn.Module):
        return model
    source = {name.removeprefix("module."): value for name, value in state.items()}
    found = model.state_dict()
    return {
        "raises a ValueError": False,
        "trunk loaded": [
            name in source and torch.equal(found[name], source[name])
            for name in own
            if name.startswith("trunk")
        ],
        "head kept": [
            torch.equal(found[name], own[name]) for name in own if name.startswith("head")
        ],
    }


# reference
def _starter(model, state):
    """Load the trunk of a source checkpoint; return the model.

    state: a state_dict of a source network with a trunk like the
        model's. Its names may all begin with "module.", as
        nn.DataParallel saves them.
    Every tensor of the model's trunk is to be loaded, running
    statistics too. The model keeps its own head, even where the
    source's would fit: its classes are others. ValueError if a
    tensor of the trunk is not in the checkpoint.
    """
    model.load_state_dict(state, strict=False)
    return model


@exercise(
    [_checkpoint_inputs("module."), _checkpoint_inputs(), _checkpoint_inputs(lose=True)],
    points=3,
    call=_load,
    grad=False,
    device=False,
    starter=_starter,
    hints=(
        (
            "load_state_dict returns the names that were missing and unexpected."
            " Print that for a checkpoint whose names begin with module."
        ),
        (
            "Strip the prefix, keep the names of the trunk,"
            " and compare them with those of model.state_dict() before you load."
        ),
    ),
)
def load_trunk(model, state):
    """Load the trunk of a source checkpoint; return the model."""
    state = {k.removeprefix("module."): v for k, v in state.items()}
    wanted = [k for k in model.state_dict() if k.startswith("trunk.")]
    missing = [k for k in wanted if k not in state]
    if missing:
        raise ValueError(f"not in the checkpoint: {missing}")
    model.load_state_dict({k: state[k] for k in wanted}, strict=False)
    return model


# mistakes
@load_trunk.mistake(
    "strict=False skips every name that does not match, without a word:"
    " with the prefix nothing is loaded, without it the head is overwritten."
)
def _(model, state):
    skipped = model.load_state_dict(state, strict=False)
    return model if skipped else None


@load_trunk.mistake(
    "The names match now, but the source's head is loaded too: its classes are not the target's."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name not in state for name in model.state_dict() if name.startswith("trunk.")):
        raise ValueError("incomplete")
    model.load_state_dict(state, strict=False)
    return model


@load_trunk.mistake(
    "A checkpoint that lacks a tensor of the trunk is loaded in part, in silence:"
    " check the names, and raise a ValueError."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    model.load_state_dict(
        {name: value for name, value in state.items() if name.startswith("trunk.")}, strict=False
    )
    return model


@load_trunk.mistake(
    "Only parameters are copied. BatchNorm's running statistics are buffers:"
    " go through state_dict(), not named_parameters()."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name not in state for name in model.state_dict() if name.startswith("trunk.")):
        raise ValueError("incomplete")
    for name, p in model.named_parameters():
        if name.startswith("trunk."):
            p.data.copy_(state[name])
    return model


@load_trunk.mistake(
    "Checkpoints saved by nn.DataParallel have the prefix `module.` before every name:"
    " strip it before you compare the names."
)
def _(model, state):
    wanted = [name for name in model.state_dict() if name.startswith("trunk.")]
    if any(name not in state for name in wanted):
        raise ValueError("incomplete")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
    return model
