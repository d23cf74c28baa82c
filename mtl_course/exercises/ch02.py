"""Exercises of chapter 2: the transfer objective."""

import torch
from torch import nn

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    TrunkAndHead,
    batch,
    expect,
    filled,
    layer,
    leaves_no_trace,
    network,
    shuffled,
    trunk,
    twin,
    uniform,
    whole,
)
from .outcomes import named


# ------------------------------------------------------------------- 1. the pull towards the source
# inputs
def _penalty_inputs(kind):
    """Parameters of a small network, the source's values for its trunk, and two factors.

    The source has its names in an order of its own. plain; deep: a trunk of several layers, all
    of one shape, so that pairs by position fit, and beta is 0; free: alpha is 0, and the layers
    have numbers for names, of which one ends with another.
    """

    def draw(generator):
        a, b, k = (int(n) for n in torch.randint(2, 5, (3,), generator=generator))
        shapes = {"trunk.0.weight": (b, a), "trunk.0.bias": (b,), "trunk.scale": ()}
        if kind == "deep":
            shapes = {f"trunk.{part}.weight": (b, a) for part in ("2", "0", "head", "10")}
        if kind == "free":
            shapes = {"0.weight": (b, a), "0.bias": (b,), "0.scale": ()}
        body, head = set(shapes), "10" if kind == "free" else "head"
        shapes |= {f"{head}.weight": (k, b), f"{head}.bias": (k,)}
        parameters = {
            name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
        }
        source = {
            name: torch.randn(p.shape, generator=generator)
            for name, p in parameters.items()
            if name in body
        }
        alpha, beta = (
            0.0 if kind == free else uniform(generator, 0.3, 1.3) for free in ("free", "deep")
        )
        return shuffled(generator, parameters), shuffled(generator, source), alpha, beta

    return draw


def _penalty(answer, parameters, source, alpha, beta):
    return answer(parameters, {name: value.detach() for name, value in source.items()}, alpha, beta)


# reference
@exercise(
    [_penalty_inputs(kind) for kind in ("plain", "deep", "free")],
    points=2,
    call=_penalty,
    hints=(
        "To what is a parameter pulled that the source has, and to what one that it has not?",
        (
            "Go through the parameters by name. A name that the source has is pulled towards the"
            " source's value, any other name towards zero."
        ),
        (
            "A name in the source adds alpha * (p - source[name]).square().sum(), any other name"
            " beta * p.square().sum(). No mean, no square root, no 1/2."
        ),
    ),
)
def source_penalty(parameters, source, alpha, beta):
    """What equation 3 adds to the loss: a scalar tensor.

    parameters: dict name -> tensor, the model's, trunk and head.
    source: dict name -> tensor of the same shape, where training
        started. It has the trunk's names only, whatever they are:
        the head is new.
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


source_penalty.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@source_penalty.mistake(
    "Parameters and source are paired by position. The two dicts have orders of their own:"
    " go by name."
)
def _(parameters, source, alpha, beta):
    trunk = [p for name, p in parameters.items() if name in source]
    head = [p for name, p in parameters.items() if name not in source]
    near = sum(
        (p - value).square().sum() for p, value in zip(trunk, source.values(), strict=True)
    )
    return alpha * near + beta * sum(p.square().sum() for p in head)


@source_penalty.mistake(
    "You tell trunk and head by how their names begin. Other networks have other names:"
    " what is in `source` has a place to go back to."
)
def _(parameters, source, alpha, beta):
    return sum(
        alpha * (p - source[name]).square().sum()
        if name.startswith("trunk")
        else beta * p.square().sum()
        for name, p in parameters.items()
    )


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
def _net(generator, dimensions=1, classes=None, **options):
    """A network for rows, pictures or volumes whose trunk's layers are nested."""
    classes = classes or whole(generator, 3, 7)
    return network(generator, classes, dimensions=dimensions, **options)


class _DroppingHead(nn.Linear):
    """A linear head with a dropout before it."""

    def forward(self, features):
        return super().forward(nn.functional.dropout(features, 0.5, self.training))


def _probe_inputs(dimensions, dropout=False):
    def draw(generator):
        model, inputs = _net(generator, dimensions, dropout=dropout)
        if dropout:
            sides = model.head.in_features, model.head.out_features
            model.head = filled(_DroppingHead(*sides), generator)
        return model, batch(generator, 6, inputs, dimensions) + 1

    return draw


def _probe(answer, model, x):
    """What two epochs of training do to the model that the answer returns.

    Epochs begin with `train()` and end with `eval()`. All that wants gradients is trained, and has
    a weight decay, so that it moves. Told is what the parts give before and after, never a flag.
    A dropout drops the same in every answer, whatever was drawn before.
    """
    model = answer(twin(model))
    expect(isinstance(model, nn.Module), "the model", model)
    statistics = [b.clone() for b in model.trunk.buffers()]
    model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    for epoch in range(2):
        model.train()
        torch.default_generator.manual_seed(epoch)
        loss = model(x).square().mean() + sum(p.square().sum() for p in trained)
        if trained:
            for p, g in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True)):
                p.data -= 1e-3 * (torch.zeros_like(p) if g is None else g)
        model.eval()
    model.train()
    training = model.trunk(x).detach()
    torch.default_generator.manual_seed(0)
    dropped = model.head(torch.ones_like(training)).detach()
    model.eval()
    return {
        "trunk's output in evaluation mode": model.trunk(x).detach(),
        "trunk's output in training mode": training,
        "running statistics stay": all(map(torch.equal, statistics, model.trunk.buffers())),
        "head's weights": model.head.weight.detach().clone(),
        "head's bias": model.head.bias.detach().clone(),
        "head's output in training mode": dropped,
    }


# reference
@exercise(
    [_probe_inputs(1, dropout=True), _probe_inputs(2), _probe_inputs(3)],
    points=3,
    call=_probe,
    grad=False,
    device=False,
    hints=(
        (
            "Two things change a trunk: gradients, and forward passes in training mode. Which of"
            " them needs no gradient at all?"
        ),
        (
            "A training loop calls model.train() every epoch, which undoes an earlier eval()."
            " What could stop that, or repeat the eval()?"
        ),
        (
            "trunk.requires_grad_(False) stops the first. For the second a forward pre-hook,"
            " trunk.register_forward_pre_hook(hook), runs before each forward pass: the hook"
            " calls module.eval()."
        ),
    ),
)
def feature_extractor(model):
    """Make `model.trunk` a fixed feature extractor; return the model.

    Only `model.head` may still be trained. The trunk has a BatchNorm,
    and trunk and head may have a dropout; the head's works on. Others
    then train the model as usual: they call `model.train()` in every
    epoch, and give the parameters that want gradients to an
    optimizer. The trunk's parameters, running statistics and output
    for an image must stay what they are now in evaluation mode.
    """

    ### BEGIN SOLUTION
    def back_to_eval(module, inputs):
        module.eval()

    model.trunk.requires_grad_(False)
    model.trunk.register_forward_pre_hook(back_to_eval)
    return model
    ### END SOLUTION


# mistakes
_ANY_BATCH_NORM = nn.modules.batchnorm._BatchNorm


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


_TRAINED = (
    "The trunk is trained like the head: its parameters still want gradients, and its BatchNorm"
    " follows each batch. (An eval() of now is undone by the next model.train().)"
)


@feature_extractor.mistake(_TRAINED)
def _(model):
    model.trunk.eval()
    return model


@feature_extractor.mistake(
    "No gradient comes through the trunk (no_grad or detach), but its parameters still want one:"
    " an optimizer's weight decay moves them. And in training mode its BatchNorm follows the batch."
)
def _(model):
    model.trunk.forward = torch.no_grad()(model.trunk.forward)
    return model


@feature_extractor.mistake("Everything is fixed, the head too: nothing is left to train.")
def _(model):
    model.requires_grad_(False)
    model.trunk.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
    return model


@feature_extractor.mistake(
    "The trunk stays as it is, but so does the mode of the whole model: after model.train() the"
    " head's dropout has to work. Keep the trunk alone in evaluation mode."
)
def _(model):
    model.trunk.requires_grad_(False)
    model.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
    model.eval()
    model.train = lambda mode=True: model
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
    for module in model.trunk.modules():
        if isinstance(module, _ANY_BATCH_NORM):
            module.momentum = 0.0
            module.num_batches_tracked = None
    return model


@feature_extractor.mistake(
    "With a momentum of 0 the running mean and variance stay, but BatchNorm goes on counting"
    " batches, and in training mode it still normalises by the batch."
)
def _(model):
    model.trunk.requires_grad_(False)
    for module in model.trunk.modules():
        if isinstance(module, _ANY_BATCH_NORM):
            module.momentum = 0.0
    return model


def _repeated_eval(modules):
    """Fix the trunk's parameters, and keep some of its modules in evaluation mode."""

    def wrong(model):
        model.trunk.requires_grad_(False)
        for module in modules(model.trunk):
            module.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
        return model

    return wrong


def _of_kind(modules, *kinds):
    return [module for module in modules if isinstance(module, kinds)]


feature_extractor.mistake(
    "BatchNorm1d stays in evaluation mode, its relatives do not:"
    " a trunk for pictures has a BatchNorm2d, one for volumes a BatchNorm3d."
)(_repeated_eval(lambda trunk: _of_kind(trunk.modules(), nn.BatchNorm1d, nn.Dropout)))


feature_extractor.mistake(
    "BatchNorm stays in evaluation mode, but in training mode the trunk's dropout still drops."
)(_repeated_eval(lambda trunk: _of_kind(trunk.modules(), _ANY_BATCH_NORM)))


feature_extractor.mistake(
    "The dropout is still, the BatchNorm is not: in training mode it normalises by the batch."
    " It need not be a direct child of the trunk: modules() goes all the way down."
)(_repeated_eval(lambda trunk: _of_kind(trunk.children(), _ANY_BATCH_NORM, nn.Dropout)))


# ---------------------------------------------------------------- 3. a head for another label space
# inputs
def _head_inputs(dimensions, alike, shared=False):
    """alike: as many classes as before, which are others; else more or fewer."""

    def draw(generator):
        # the first optimizer of a process imports for seconds: not on the learner's time
        torch.optim.SGD([torch.zeros(1)], lr=1.0).step()
        model, inputs = _net(generator, dimensions, shared=shared)
        old = model.head.out_features
        others = [n for n in range(2, 9) if n != old]
        classes = old if alike else others[whole(generator, 0, len(others))]
        rate = uniform(generator, 0.5, 2.0)
        return model, classes, rate, batch(generator, 4, inputs, dimensions)

    return draw


def _set_up(answer, model, classes, rate, x):
    """What the answer's model looks like, and how far its optimizer moves it in three steps.

    The steps are taken along gradients that are given, so that nothing depends on how the head is
    drawn; who wants no gradient gets none.
    """
    torch.default_generator.manual_seed(1)
    again = named(answer(twin(model), classes, rate), "model", "optimizer")["model"]
    torch.default_generator.manual_seed(2)
    model = twin(model)
    model.trunk.eval()
    old = model.head.weight.detach().clone()
    answered = answer(model, classes, rate)
    fits = isinstance(answered, tuple | list) and len(answered) == 2
    fits = fits and isinstance(answered[0], nn.Module)
    fits = fits and isinstance(answered[1], torch.optim.Optimizer)
    expect(fits, "(model, optimizer)", answered)
    model, optimizer = answered
    logits = model(x)
    parameters, trained = list(model.parameters()), list(model.trunk.parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    told = {
        "outputs": logits.shape[-1],
        "head": type(model.head).__name__,
        "head's weights are all alike": _all_alike(model.head),
        "head has rows of the old one": _has_rows(model.head, old),
        "head is the same in every run": all(map(torch.equal, _weights(model), _weights(again))),
        "optimizer": type(optimizer).__name__,
        "parameters of no layer in it": len(held - {id(p) for p in parameters}),
        "parameters of the trunk in it": len(held & {id(p) for p in trained}),
        "trunk's output at the start": model.trunk(x).detach(),
    }
    start = [p.detach().clone() for p in parameters]
    if logits.requires_grad:
        logits.sum().backward()
    for step in range(3):
        for p in parameters:
            if p.grad is not None:
                given = torch.linspace(1e-3, 2e-3 * (1 + step), p.numel())
                p.grad.copy_(given.reshape(p.shape))
        optimizer.step()
    moves = [p.detach() - first for p, first in zip(parameters, start, strict=True)]
    of_trunk = {id(p) for p in trained}
    return told | {
        "moves of the trunk": [m for p, m in zip(parameters, moves) if id(p) in of_trunk],
        "moves of the head": [m for p, m in zip(parameters, moves) if id(p) not in of_trunk],
    }


def _weights(model):
    """The weights of its head, as they are now."""
    return [p.detach().clone() for p in model.head.parameters() if p.ndim > 1]


def _all_alike(head):
    """Whether the weights of a layer are one number only, so that nobody drew them."""
    weights = torch.cat([p.flatten() for p in head.parameters() if p.ndim > 1])
    return bool((weights == weights[0]).all())


def _has_rows(head, old):
    """Whether a row of the old weights is one of the head's."""
    rows = {tuple(row) for row in old.tolist()}
    return any(tuple(row) in rows for p in head.parameters() for row in p.tolist() if p.ndim > 1)


# reference
@exercise(
    [_head_inputs(1, alike=False), _head_inputs(2, alike=True, shared=True)],
    points=3,
    call=_set_up,
    grad=False,
    device=False,
    hints=(
        (
            "An optimizer holds the very tensors it was given. Which comes first, then: the new"
            " head, or the optimizer?"
        ),
        (
            "An optimizer that was made before the new head knows nothing of it. So first"
            " model.head = ..., then the optimizer."
        ),
        (
            "torch.optim.SGD takes a list of groups: SGD([{'params': ..., 'lr': ...}, {'params':"
            " ..., 'lr': ...}], momentum=...)."
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
    for p in model.trunk.parameters():
        nn.init.normal_(p)
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


@fine_tuning.mistake("The optimizer has no momentum; the task asks for 0.9.")
def _(model, classes, rate):
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(_groups(model, rate))


@fine_tuning.mistake(
    "You set the seed: every run draws the same head, and what is random afterwards is the same,"
    " too. Leave the seed to the one who starts the run."
)
def _(model, classes, rate):
    torch.manual_seed(0)
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


def _with_options(**options):
    def wrong(model, classes, rate):
        model.head = nn.Linear(model.head.in_features, classes)
        return model, torch.optim.SGD(_groups(model, rate), momentum=0.9, **options)

    return wrong


fine_tuning.mistake(
    "The optimizer climbs: with maximize=True it steps along the gradient, not against it."
)(_with_options(maximize=True))
fine_tuning.mistake(
    "The steps differ from those of plain momentum: Nesterov's look ahead is not asked for."
)(_with_options(nesterov=True))
fine_tuning.mistake(
    "The first step is right, the later ones are too short:"
    " dampening shrinks every new gradient in the momentum."
)(_with_options(dampening=0.9))


@fine_tuning.mistake(
    "The trunk is frozen: its parameters are in the optimizer, but they want no gradients,"
    " so they never move."
)
def _(model, classes, rate):
    model.trunk.requires_grad_(False)
    model.head = nn.Linear(model.head.in_features, classes)
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


@fine_tuning.mistake(
    "The new head takes over weights of the old one."
    " Its classes are others: leave it as it is drawn."
)
def _(model, classes, rate):
    old = model.head
    model.head = nn.Linear(old.in_features, classes)
    with torch.no_grad():
        n = min(classes, old.out_features)
        model.head.weight[:n] = old.weight[:n]
        model.head.bias[:n] = old.bias[:n]
    return model, torch.optim.SGD(_groups(model, rate), momentum=0.9)


# ---------------------------------------------------------------------------------- 4. spot the bug
# inputs
class _Wrapped(nn.Module):
    """A layer in a wrapper, as libraries make them: its names have `module.` in the middle."""

    def __init__(self, inner):
        super().__init__()
        self.module = inner

    def forward(self, x):
        return self.module(x)


def _checkpoint_inputs(dimensions, prefix="", lose=False, head="head"):
    """A fresh model and a source checkpoint of the same architecture.

    As nn.DataParallel would save it, or with a tensor lost, or with another name for its head. It
    holds a part that the model lacks, and its names come in no order. A part of the trunk has
    `head` in its name, a part of the head `trunk`.
    """

    def draw(generator):
        body, _, width = trunk(generator, dimensions)
        deep = nn.Sequential()
        deep.add_module("0", body)
        deep.add_module("attention_head", _Wrapped(layer(1, width, width)))
        top = nn.Sequential()
        top.add_module("trunk_norm", nn.LayerNorm(width))
        top.add_module("out", nn.Linear(width, whole(generator, 3, 7)))
        model = filled(TrunkAndHead(deep, top), generator)
        state = {
            name if name.startswith("trunk.") else head + name.removeprefix("head"): value.clone()
            for name, value in model.state_dict().items()
        }
        filled(model, generator)
        state["auxiliary.weight"] = torch.randn(2, width, generator=generator)
        if lose:
            names = [name for name in state if name.startswith("trunk.")]
            names = [name for name in names if "num_batches" not in name]
            del state[names[whole(generator, 0, len(names))]]
        state = shuffled(generator, state)
        return model, {prefix + name: value for name, value in state.items()}

    return draw


def _load(answer, model, state):
    """Which tensors of the answer's model are the checkpoint's, and which the model's own.

    And whether the checkpoint is still what it was when the model has been trained.
    """
    own = {name: value.clone() for name, value in model.state_dict().items()}
    saved = {name: value.clone() for name, value in state.items()}
    source = {name.removeprefix("module."): value for name, value in saved.items()}
    told = dict.fromkeys(("not loaded", "head's own, but changed"), "none")
    told |= {"raises a ValueError": False, "raises another error": False}
    told |= {"training changes the checkpoint": False, "wants no gradients any more": "none"}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    incomplete = any(name.startswith("trunk.") and name not in source for name in own)
    try:
        model = answer(twin(model), state)
    except ValueError:
        return told | {"raises a ValueError": True}
    except (KeyError, RuntimeError, AssertionError) as error:
        # where something is to be raised, what else is raised is no accident
        if isinstance(error, NotImplementedError) or not incomplete:
            raise
        return told | {"raises another error": True}
    expect(isinstance(model, nn.Module), "the model", model)
    left = [name for name, p in model.named_parameters() if p.requires_grad]
    loaded = {name: value.clone() for name, value in model.state_dict().items()}
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.add_(1)
    kept = [name in state and torch.equal(state[name], saved[name]) for name in saved]
    for name in saved.keys() & state.keys():
        state[name].data.copy_(saved[name])

    def other(part, wanted):
        """The names of a part's tensors that are not as wanted, in one text."""
        names = [name for name in own if name.startswith(part)]
        wrong = [k for k in names if k not in wanted or not torch.equal(loaded[k], wanted[k])]
        return ", ".join(wrong) or "none"

    return told | {
        "not loaded": other("trunk.", source),
        "head's own, but changed": other("head.", own),
        "training changes the checkpoint": not all(kept),
        "wants no gradients any more": ", ".join(k for k in trained if k not in left) or "none",
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
    [
        _checkpoint_inputs(2, "module."),
        _checkpoint_inputs(1, head="classifier"),
        _checkpoint_inputs(3, lose=True),
    ],
    points=3,
    call=_load,
    grad=False,
    device=False,
    starter=_starter,
    hints=(
        (
            "What does load_state_dict return for a checkpoint whose names all begin with"
            " module., and what has it loaded then?"
        ),
        (
            "Strip the prefix, keep the names of the trunk, and compare them with those of"
            " model.state_dict() before you load."
        ),
        (
            "`state = {k.removeprefix('module.'): v for k, v in state.items()}`; then every k of"
            " `model.state_dict()` that starts with `trunk.` must be in it, or ValueError."
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
    "The names match now, but strict=False is still there: the source's head is loaded too, and"
    " where a tensor of the trunk is missing nothing is raised."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    model.load_state_dict(state, strict=False)
    return model


@load_trunk.mistake(
    "strict=True wants exactly the model's names: the prefix, the head and what the checkpoint has"
    " besides are all refused. Pick the trunk's tensors first."
)
def _(model, state):
    model.load_state_dict(state)
    return model


@load_trunk.mistake(
    "Checkpoints saved by nn.DataParallel have the prefix `module.` before every name: so the"
    " trunk's names are not found. Strip it first."
)
def _(model, state):
    wanted = [name for name in model.state_dict() if name.startswith("trunk.")]
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
    return model


@load_trunk.mistake(
    "You ask whether a name has `head` in it. What counts is how it begins: a layer of the trunk"
    " may have `head` in its name as well."
)
def _(model, state):
    state = {name.removeprefix("module."): v for name, v in state.items() if "head" not in name}
    skipped = model.load_state_dict(state, strict=False)
    if any("head" not in name for name in skipped.missing_keys):
        raise ValueError("incomplete")
    return model


_OTHER_ERROR = (
    "Where a tensor of the trunk is missing there is an error, but of another kind: a ValueError"
    " is asked for. Compare the names before you load."
)


@load_trunk.mistake(_OTHER_ERROR)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wanted = [name for name in model.state_dict() if name.startswith("trunk.")]
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
    return model


@load_trunk.mistake(
    "Only parameters are copied, and only they are looked for. BatchNorm's running statistics are"
    " buffers: go through state_dict(), not named_parameters()."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    for name, p in model.named_parameters():
        if name.startswith("trunk."):
            if name not in state:
                raise ValueError(name)
            p.data.copy_(state[name])
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


@load_trunk.mistake(
    "The model takes over the checkpoint's own tensors (assign=True, or .data = ...):"
    " training the model then changes the checkpoint. Copy the values."
)
def _(model, state):
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wanted = [name for name in model.state_dict() if name.startswith("trunk.")]
    if any(name not in state for name in wanted):
        raise ValueError("incomplete")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False, assign=True)
    return model


@load_trunk.mistake(
    "You strip `module.` wherever it stands. Only at the beginning of a name is it"
    " nn.DataParallel's: a layer inside may have that name as well."
)
def _(model, state):
    state = {name.replace("module.", ""): value for name, value in state.items()}
    wanted = [name for name in model.state_dict() if name.startswith("trunk.")]
    if any(name not in state for name in wanted):
        raise ValueError("incomplete")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
    return model


@load_trunk.mistake(
    "You strip `module.` wherever it stands, so that a layer whose name has it inside is not found."
    " And nothing is raised where a tensor of the trunk is missing."
)
def _(model, state):
    state = {name.replace("module.", ""): value for name, value in state.items()}
    model.load_state_dict({k: v for k, v in state.items() if k.startswith("trunk.")}, strict=False)
    return model


# ----------------------------------------------------------------------- 5. a comparison to believe
# inputs
def _tables(verdict, share):
    """What two searches found, with a verdict: 1 helps, -1 hurts, 0 unclear.

    The mean gain lies at a share of its limit from zero: near 1, so that a wrong error gives
    another verdict, or far from it. The level varies a lot from seed to seed.
    """

    def draw(generator):
        seeds, limit = whole(generator, 4, 6), uniform(generator, 2.0, 4.0)

        def validation(settings):
            """Far from a tie in the mean; the best of a seed and the steadiest are often others."""
            table = 0.5 + 0.1 * torch.rand(settings, seeds, generator=generator).double()
            table -= table.mean(dim=1, keepdim=True)
            table *= 0.4 + 1.6 * torch.rand(settings, 1, generator=generator).double()
            means = 0.55 + 0.02 * torch.randperm(settings, generator=generator)
            return table + means[:, None]

        def test(settings):
            return 0.3 + 0.1 * torch.rand(settings, seeds, generator=generator).double()

        rows = [whole(generator, 3, 5), whole(generator, 5, 7)]
        rows = [rows[k] for k in torch.randperm(2, generator=generator)]
        parts = [{"validation": validation(n), "test": test(n)} for n in rows]
        best = [int(part["validation"].mean(dim=1).argmax()) for part in parts]
        noise = torch.randn(seeds, generator=generator).double()
        noise = (noise - noise.mean()) / noise.std() * uniform(generator, 0.005, 0.01)
        error = noise.std() / seeds**0.5
        sign = verdict or (1 if whole(generator, 0, 2) else -1)
        level = 0.3 + 0.4 * torch.rand(seeds, generator=generator).double()
        parts[1]["test"][best[1]] = level
        parts[0]["test"][best[0]] = level + noise + sign * share * limit * error
        return *(shuffled(generator, part) for part in parts), limit

    return draw


def _gain_and_verdict(answer, transfer, scratch, limit):
    parts = named(answer(transfer, scratch, limit), "gain", "verdict")
    expect(isinstance(parts["verdict"], str), "the verdict", parts["verdict"])
    gain = torch.as_tensor(parts["gain"], dtype=torch.float64)
    return {"gain": gain, "verdict": str(parts["verdict"])}


# reference
def _hasty(transfer, scratch, limit):
    """Gain of transfer over scratch, and what may be said of it.

    transfer, scratch: what a search found for each: a dict with
        "validation" and "test", accuracies [settings, seeds]. A
        column is a seed: the same draw of data for both. The two
        searches may have tried different numbers of settings.
    limit: quantile of Student's t; a mean gain counts if it is
        more than limit x the standard error of the mean of the
        paired differences away from zero.
    Return (gain, verdict). gain: [seeds], on test data, for one
    setting of each method: the one that is best on validation, on
    average over the seeds (no two are equal). verdict: "helps",
    "hurts" or "unclear".
    """
    best = transfer["test"].max(dim=0).values
    gain = best - scratch["test"][0]
    verdict = "helps" if gain.mean() > 0 else "hurts"
    return gain, verdict


@exercise(
    [
        *(_tables(1, share) for share in (1.05, 2.7)),
        *(_tables(0, share) for share in (0.96, 0.8, 0.3)),
        _tables(-1, 1.25),
    ],
    points=3,
    grad=False,
    device=False,
    starter=_hasty,
    call=_gain_and_verdict,
    hints=(
        "Which data chose the settings? Did both methods get to choose? What would chance give?",
        (
            "Choose a row for each method by its mean on validation. The standard error of a mean"
            " of k differences is their standard deviation (with k - 1) divided by the root of k."
        ),
        (
            "`best = table[\"validation\"].mean(dim=1).argmax()` for both; then compare"
            " `gain.mean()` with plus and minus `limit * gain.std() / len(gain) ** 0.5`."
        ),
    ),
)
def transfer_gain(transfer, scratch, limit):
    chosen = []
    for table in (transfer, scratch):
        best = table["validation"].mean(dim=1).argmax()
        chosen.append(table["test"][best])
    gain = chosen[0] - chosen[1]
    far = limit * gain.std() / len(gain) ** 0.5
    if gain.mean() > far:
        return gain, "helps"
    return gain, "hurts" if gain.mean() < -far else "unclear"


# laws
@transfer_gain.law("other test accuracies change no choice of a setting")
def _(answer, transfer, scratch, limit):
    marked = [
        {"validation": part["validation"], "test": torch.arange(len(part["test"])).double()[:, None]
         + torch.zeros_like(part["test"])}
        for part in (transfer, scratch)
    ]
    best = [int(part["validation"].mean(dim=1).argmax()) for part in (transfer, scratch)]
    gain, _ = answer(*marked, limit)
    return bool((torch.as_tensor(gain) == best[0] - best[1]).all())


@transfer_gain.law("with transfer and scratch exchanged, what helps hurts")
def _(answer, transfer, scratch, limit):
    turned = {"helps": "hurts", "hurts": "helps", "unclear": "unclear"}
    one, other = answer(transfer, scratch, limit)[1], answer(scratch, transfer, limit)[1]
    return turned.get(one) == other


transfer_gain.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _best(table):
    return table["test"][table["validation"].mean(dim=1).argmax()]


def _judge(
    transfer,
    scratch,
    limit,
    rows=(_best, _best),
    error=lambda a, b: (a - b).std() / len(a) ** 0.5,
    sides=(1, 1),
):
    """The answer with one thing changed."""
    a, b = (row(table) for row, table in zip(rows, (transfer, scratch), strict=True))
    far = limit * error(a, b)
    if sides[0] * (a - b).mean() > far:
        return a - b, "helps"
    return a - b, "hurts" if -sides[1] * (a - b).mean() > far else "unclear"


def _own_choice(table):
    best = table["validation"].argmax(dim=0)
    return table["test"].gather(0, best[None])[0]


transfer_gain.variants(
    _judge,
    {
        "Transfer's setting is chosen on the test data, seed by seed: what is left of the gain may"
        " be luck. Choose on validation.": {
            "rows": (lambda t: t["test"].max(dim=0).values, _best)
        },
        "The settings are chosen by their mean on the test data. Choose on validation, and look at"
        " the test once.": {"rows": (lambda t: t["test"][t["test"].mean(dim=1).argmax()],) * 2},
        "Scratch is not tuned: it gets its first setting, transfer the best of several."
        " Choose for both in the same way.": {"rows": (_best, lambda t: t["test"][0])},
        "Every seed has a setting of its own. One setting is wanted for each method: the best on"
        " validation on average over the seeds.": {"rows": (_own_choice, _own_choice)},
        "The gain is right, but any difference above zero counts as a verdict."
        " How far from zero would chance take it?": {"error": lambda a, b: 0.0},
        "The standard deviation of the differences is not the standard error of their mean:"
        " divide by the root of the number of seeds.": {"error": lambda a, b: (a - b).std()},
        "The two methods share their draws of data, so compare them seed by seed: the deviation of"
        " the differences counts, not that of each method.": {
            "error": lambda a, b: ((a.var() + b.var()) / len(a)) ** 0.5
        },
        "The deviation is taken with k in place of k - 1, which makes a few seeds look surer than"
        " they are.": {"error": lambda a, b: (a - b).std(correction=0) / len(a) ** 0.5},
        "You divide by the root of k - 1. The k - 1 belongs in the standard deviation; the standard"
        " error divides that by the root of k.": {
            "error": lambda a, b: (a - b).std() / (len(a) - 1) ** 0.5
        },
        "A gain far below zero is a verdict as well: then the source hurts.": {"sides": (1, 0)},
    },
)


@transfer_gain.mistake(
    "Transfer's setting is chosen on the test data, scratch has its first one, and any gain above"
    " zero is called help. All three are to be mended."
)
def _(transfer, scratch, limit):
    gain = transfer["test"].max(dim=0).values - scratch["test"][0]
    return gain, "helps" if gain.mean() > 0 else "hurts"
