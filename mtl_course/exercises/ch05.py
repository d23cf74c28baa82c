"""Exercises of chapter 5: losses and their weights."""

import copy

import torch
from torch import nn

from ..checks.exercise import exercise
from ..multitask.weighting import EqualWeights, Uncertainty
from .inputs import LEAVES_NO_TRACE, leaves_no_trace, network, powers, uniform, whole


# ----------------------------------------------------------------------- 1. labels that are missing
# inputs
def _table(empty):
    def draw(generator):
        n, tasks = whole(generator, 6, 10), whole(generator, 3, 5)
        prediction, target = torch.randn(2, n, tasks, generator=generator)
        # another number of labels in every column: a single one in the first, one less than all in
        # the second
        for t in range(tasks):
            rows = torch.randperm(n, generator=generator)[: t if t else n - 1]
            target[rows, t] = float("nan")
        if empty:
            target[:, whole(generator, 0, tasks)] = float("nan")
        return prediction, target

    return draw


def _counts(generator):
    """More tasks than rows, in 64 bits, and labels that are counts: 0 and -1 are labels, too."""
    n, tasks = whole(generator, 2, 4), whole(generator, 5, 7)
    prediction = torch.randn(n, tasks, generator=generator, dtype=torch.float64)
    target = torch.randint(-1, 3, (n, tasks), generator=generator).double()
    target[0, :3] = torch.tensor([0.0, -1.0, float("nan")])
    return prediction, target


def _alone(generator):
    """One task, one of whose labels is missing."""
    prediction, target = torch.randn(2, whole(generator, 4, 7), 1, generator=generator)
    target[1] = float("nan")
    return prediction, target


def _losses_of(answer, prediction, target):
    """Labels are given: a gradient with respect to them is not asked for."""
    return answer(prediction, target.detach())


# reference
@exercise(
    [_table(False), _table(True), _counts, _alone],
    points=2,
    call=_losses_of,
    hints=(
        (
            "Which entries are known, by how many is each column divided, and what is the loss"
            " where there are none?"
        ),
        (
            "NaN times zero is NaN, in the forward pass and in the backward pass. So put the"
            " unknown errors to 0 before you square, not after."
        ),
        (
            "error = torch.where(~target.isnan(), prediction - target, 0), and divide by"
            " known.sum(0).clamp(min=1)."
        ),
    ),
)
def partial_losses(prediction, target):
    """Mean squared error of every task over its known labels.

    prediction [N, T]; target [N, T], NaN where a label is missing.
    Return the losses [T]; 0 for a task without any label here.
    The gradient with respect to the prediction must be finite.
    """
    ### BEGIN SOLUTION
    known = ~target.isnan()
    error = torch.where(known, prediction - target, 0)
    return (error**2).sum(0) / known.sum(0).clamp(min=1)
    ### END SOLUTION


# laws
@partial_losses.law("what is predicted where no label is known does not matter")
def _(answer, prediction, target):
    other = torch.where(target.isnan(), prediction + 3, prediction)
    return bool(torch.allclose(answer(prediction, target), answer(other, target), rtol=1e-4))


@partial_losses.law("a prediction of NaN for a known label is not hidden: that task's loss is NaN")
def _(answer, prediction, target):
    row, task = (~target.isnan()).nonzero()[0]
    broken = prediction.clone()
    broken[row, task] = float("nan")
    return bool(answer(broken, target)[task].isnan())


@partial_losses.law("labels in another unit: the loss changes by its square, large or small")
def _(answer, prediction, target):
    units = 10.0 ** torch.linspace(-6, 6, target.shape[1], dtype=target.dtype, device=target.device)
    moved = answer(prediction * units, target * units) / units**2
    return bool(torch.allclose(moved, answer(prediction, target), rtol=1e-4, atol=1e-6))


partial_losses.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@partial_losses.mistake(
    "You divide by all N rows, so a task with few labels gets a small loss,"
    " and with it a small weight. Divide by the known ones."
)
def _(prediction, target):
    known = ~target.isnan()
    return (torch.where(known, prediction - target.nan_to_num(), 0) ** 2).mean(0)


@partial_losses.mistake(
    "A missing label is taken for the label 0. The task would learn to predict zero there."
)
def _(prediction, target):
    return ((prediction - target.nan_to_num()) ** 2).mean(0)


@partial_losses.mistake(
    "The squared errors are added up; the loss of a task is their mean over its known labels."
)
def _(prediction, target):
    return (torch.where(~target.isnan(), prediction - target.nan_to_num(), 0) ** 2).sum(0)


@partial_losses.mistake(
    "The losses are right, but their gradient is NaN:"
    " the unknown entries went through the square before they were put to 0."
)
def _(prediction, target):
    known = ~target.isnan()
    return torch.where(known, (prediction - target) ** 2, 0).sum(0) / known.sum(0).clamp(min=1)


@partial_losses.mistake(
    "A task without any label gives NaN here, as 0 / 0 or the nanmean of nothing,"
    " and one NaN makes the sum of all losses NaN. It should give 0."
)
def _(prediction, target):
    known = ~target.isnan()
    return (torch.where(known, prediction - target.nan_to_num(), 0) ** 2).sum(0) / known.sum(0)


@partial_losses.mistake(
    "Each unknown entry makes its task's loss NaN: it is still in the sum."
    " Multiplying by a mask does not remove it, since zero times NaN is NaN."
)
def _(prediction, target):
    known = ~target.isnan()
    return (known * (prediction - target) ** 2).sum(0) / known.sum(0).clamp(min=1)


@partial_losses.mistake(
    "You divide by the number of known labels of all tasks together. Each task has its own mean."
)
def _(prediction, target):
    known = ~target.isnan()
    return (torch.where(known, prediction - target.nan_to_num(), 0) ** 2).sum(0) / known.sum()


@partial_losses.mistake(
    "This is one number. Return one loss per task, [T]:"
    " they have different units, and weights come later."
)
def _(prediction, target):
    known = ~target.isnan()
    return (torch.where(known, prediction - target.nan_to_num(), 0) ** 2).sum() / known.sum()


@partial_losses.mistake(
    "You look for NaN in the errors. There a prediction of NaN counts as a missing label,"
    " and a network that has broken down is not seen. Look in the target."
)
def _(prediction, target):
    known = ~(prediction - target).isnan()
    error = torch.where(known, prediction - target, 0)
    return (error**2).sum(0) / known.sum(0).clamp(min=1)


@partial_losses.mistake(
    "A label that is 0 counts as missing here. Only NaN means that a label is missing."
)
def _(prediction, target):
    known = target.nan_to_num() != 0
    error = torch.where(known, prediction - target.nan_to_num(), 0)
    return (error**2).sum(0) / known.sum(0).clamp(min=1)


@partial_losses.mistake(
    "Only rows in which no label is missing are used."
    " A row counts for each task whose label it has."
)
def _(prediction, target):
    rows = ~target.isnan().any(1)
    return ((prediction[rows] - target[rows]) ** 2).sum(0) / rows.sum().clamp(min=1)


# -------------------------------------------------------------------- 2. noise levels as parameters
# inputs
def _levels(generator):
    regression = _kinds(generator)
    tasks = len(regression)
    s = torch.randn(tasks, generator=generator)
    s[0], s[1] = -0.3 - s[0].abs(), 0.3 + s[1].abs()  # both signs, always
    return 0.1 + 3 * torch.rand(tasks, generator=generator), s, regression


def _kinds(generator):
    """Three to five tasks: some regressions, some classifications, in any order."""
    tasks = whole(generator, 3, 6)
    return torch.randperm(tasks, generator=generator) < whole(generator, 1, tasks)


def _any_unit(generator):
    """Losses of about 1e-12 and 1e11 as well, each with a noise level in its unit."""
    losses, s, regression = _levels(generator)
    far = torch.zeros_like(s)
    far[:2] = torch.tensor([-28.0, 26.0])
    return losses * far.exp(), s + far, regression


def _below_zero(generator):
    """Late in training: small losses, noise levels that are near to them, a negative total."""
    regression = _kinds(generator)
    tasks = len(regression)
    losses = 0.001 + 0.02 * torch.rand(tasks, generator=generator)
    return losses, losses.log() + torch.rand(tasks, generator=generator) - 0.5, regression


# reference
@exercise(
    [_levels, _any_unit, _below_zero],
    points=2,
    hints=(
        (
            "Look at equations 5 and 6: how does sigma^2 follow from s, and what is log sigma in"
            " terms of s?"
        ),
        (
            "sigma^2 = exp(s), so 1 / sigma^2 = exp(-s) and log sigma = s / 2. The factor 1/2 in"
            " front of the loss is there for regressions only."
        ),
    ),
)
def noisy_total(losses, s, regression):
    """Negative log-likelihood of all tasks, constants left out.

    losses [T]: mean squared errors and cross-entropies;
    s [T]: log sigma^2 of each task, any real number;
    regression [T], bool: True for a squared error (equation 5),
    False for a cross-entropy (equation 6).
    Return the sum over the tasks, a scalar tensor.
    """
    ### BEGIN SOLUTION
    factor = torch.where(regression, 0.5, 1.0)
    return (factor * torch.exp(-s) * losses + s / 2).sum()
    ### END SOLUTION


# laws
@noisy_total.law(
    "a loss in another unit, with its noise level in that unit, changes the total by a constant"
)
def _(answer, losses, s, regression):
    moved = answer(100 * losses, s + torch.tensor(100.0).log(), regression)
    constant = len(s) * torch.tensor(10.0).log()
    return bool(
        torch.isclose(moved - constant, answer(losses, s, regression), rtol=1e-3, atol=1e-3)
    )


noisy_total.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _total(
    losses, s, regression, precision=lambda s: torch.exp(-s), log=lambda s: s / 2, half=(0.5, 1.0)
):
    return (torch.where(regression, *half) * precision(s) * losses + log(s)).sum()


@noisy_total.mistake("s is the logarithm of the variance, so log sigma is s / 2. You add s.")
def _(losses, s, regression):
    return _total(losses, s, regression, log=lambda s: s)


@noisy_total.mistake(
    "You divide by sigma, exp(s / 2). The likelihood has the variance sigma^2 = exp(s) there."
)
def _(losses, s, regression):
    return _total(losses, s, regression, precision=lambda s: torch.exp(-s / 2))


@noisy_total.mistake("You multiply by the variance. A noisy task is to count less: divide by it.")
def _(losses, s, regression):
    return _total(losses, s, regression, precision=torch.exp)


@noisy_total.mistake(
    "The term log sigma is missing."
    " Without it s grows for ever, all weights go to zero, and nothing is learned."
)
def _(losses, s, regression):
    return _total(losses, s, regression, log=torch.zeros_like)


@noisy_total.mistake(
    "The factor 1/2 belongs to the Gaussian of a regression;"
    " you use it for the cross-entropies too."
)
def _(losses, s, regression):
    return _total(losses, s, regression, half=(0.5, 0.5))


@noisy_total.mistake("The Gaussian's factor 1/2 is missing for the regressions.")
def _(losses, s, regression):
    return _total(losses, s, regression, half=(1.0, 1.0))


@noisy_total.mistake(
    "The factors are exchanged: 1/2 for the squared errors, 1 for the cross-entropies."
)
def _(losses, s, regression):
    return _total(losses, s, regression, half=(1.0, 0.5))


@noisy_total.mistake(
    "You take s for the variance itself. It is its logarithm, and may be negative."
)
def _(losses, s, regression):
    return _total(losses, s, regression, precision=lambda s: 1 / s, log=lambda s: torch.log(s) / 2)


@noisy_total.mistake(
    "You take a mean over the tasks."
    " Independent tasks multiply their likelihoods, so the logarithms add."
)
def _(losses, s, regression):
    return _total(losses, s, regression) / len(s)


@noisy_total.mistake(
    "You keep s from being negative, so no task can have a noise below 1."
    " In which unit would that be?"
)
def _(losses, s, regression):
    return _total(losses, s.clamp(min=0), regression)


@noisy_total.mistake(
    "Each task has a log sigma, s / 2, of its own, and the sum is over all of them:"
    " you take the mean of s."
)
def _(losses, s, regression):
    return _total(losses, s, regression, log=lambda s: s / 2 / len(s))


@noisy_total.mistake(
    "Every loss counts half as much as it should, a squared error a quarter:"
    " is a factor 1/2 there twice?"
)
def _(losses, s, regression):
    return _total(losses, s, regression, half=(0.25, 0.5))


@noisy_total.mistake(
    "A small number is added to the variance. s may be any number, so exp(s) is never 0,"
    " and beside a loss in a small unit no such number is small."
)
def _(losses, s, regression):
    return _total(losses, s, regression, precision=lambda s: 1 / (s.exp() + 1e-8))


@noisy_total.mistake(
    "s is kept within bounds. It may be any number: what is large or small depends on the unit."
)
def _(losses, s, regression):
    return _total(losses, s.clamp(-10, 10), regression)


@noisy_total.mistake(
    "A total below zero is cut off at zero, and its gradient with it. It may be negative:"
    " a density may be larger than 1."
)
def _(losses, s, regression):
    return _total(losses, s, regression).clamp(min=0)


@noisy_total.mistake(
    "The sign of a negative total is taken away. It may be negative: a density may be larger than"
    " 1, and training is to go further down from there."
)
def _(losses, s, regression):
    return _total(losses, s, regression).abs()


# -------------------------------------------------------------------------- 3. as low as it can get
# inputs
def _final(generator):
    regression = _kinds(generator)
    losses = 0.05 + 2.5 * torch.rand(len(regression), generator=generator)
    # small enough for a negative optimum
    losses[:2] = 0.01 + 0.1 * torch.rand(2, generator=generator)
    losses[2] += 1
    return losses, regression


def _any_size(generator):
    """A loss of about 1e-7 and one of 1e6, in any order."""
    regression = _kinds(generator)
    tasks = len(regression)
    losses = 0.5 + torch.rand(tasks, generator=generator)
    order = torch.randperm(tasks, generator=generator)
    losses[order[:2]] *= torch.tensor([1e-7, 1e6])
    return losses, regression


def _all_small(generator):
    """Losses so small that the total is negative, whatever the tasks are."""
    regression = _kinds(generator)
    return 0.01 + 0.1 * torch.rand(len(regression), generator=generator), regression


# reference
@exercise(
    [_final, _any_size, _all_small],
    points=2,
    parts=("s", "total"),
    grad=False,
    hints=(
        (
            "The tasks do not mix: minimise factor * exp(-s) * L + s / 2 for one task, with"
            " factor 1/2 or 1. Where is the derivative zero?"
        ),
        (
            "At exp(s) = 2 * factor * L, so s = log(2 * factor * L). Put this back: the first"
            " term becomes 1/2, whatever L is."
        ),
    ),
)
def lowest_total(losses, regression):
    """The best noise levels for given losses, and what they give.

    losses [T] > 0; regression [T], bool, as in exercise 2.
    Return (s, total): the s [T] with the lowest total of
    exercise 2, in closed form, and that total, a scalar tensor.
    """
    ### BEGIN SOLUTION
    s = torch.where(regression, losses, 2 * losses).log()
    return s, (0.5 + s / 2).sum()
    ### END SOLUTION


# laws
@lowest_total.law("no other s gives less")
def _(answer, losses, regression):
    s, total = answer(losses, regression)
    near = [_total(losses, s + step, regression) for step in (-0.3, 0.3)]
    return bool(
        torch.isclose(_total(losses, s, regression), total, rtol=1e-3, atol=1e-4)
        and total < min(near)
    )


lowest_total.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _at(s, losses, regression):
    return s, _total(losses, s, regression)


@lowest_total.mistake(
    "This holds for the squared errors."
    " For a cross-entropy, without the factor 1/2, the optimum is elsewhere."
)
def _(losses, regression):
    return _at(losses.log(), losses, regression)


@lowest_total.mistake(
    "This holds for the cross-entropies. A squared error comes with the factor 1/2."
)
def _(losses, regression):
    return _at((2 * losses).log(), losses, regression)


@lowest_total.mistake("This is log sigma. The parameter is s = log sigma^2, twice as much.")
def _(losses, regression):
    return _at(torch.where(regression, losses, 2 * losses).log() / 2, losses, regression)


@lowest_total.mistake("This is the variance; s is its logarithm.")
def _(losses, regression):
    return _at(torch.where(regression, losses, 2 * losses), losses, regression)


@lowest_total.mistake("The sign of s is turned: a large loss means a large noise.")
def _(losses, regression):
    return _at(-torch.where(regression, losses, 2 * losses).log(), losses, regression)


@lowest_total.mistake(
    "The noise levels are right."
    " In the total each task's first term is 1/2 at the optimum, and it is missing."
)
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, s.sum() / 2


@lowest_total.mistake(
    "The noise levels are right."
    " Each task's first term is 1/2 at the optimum, not 1, whether regression or not."
)
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, (1 + s / 2).sum()


@lowest_total.mistake(
    "Small losses get s = 0 here. Nothing forbids a negative s, nor a negative total:"
    " a density may be larger than 1."
)
def _(losses, regression):
    return _at(torch.where(regression, losses, 2 * losses).log().clamp(min=0), losses, regression)


@lowest_total.mistake(
    "The noise levels are right, the total is cut off at 0."
    " It may be negative: a density may be larger than 1."
)
def _(losses, regression):
    s, total = _at(torch.where(regression, losses, 2 * losses).log(), losses, regression)
    return s, total.clamp(min=0)


@lowest_total.mistake(
    "The noise levels are right, and each task is cut off at 0 in the total."
    " What a task adds may be negative: a density may be larger than 1."
)
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, (0.5 + s / 2).clamp(min=0).sum()


@lowest_total.mistake(
    "The noise levels are right, the sign of the total is taken away."
    " It may be negative: a density may be larger than 1."
)
def _(losses, regression):
    s, total = _at(torch.where(regression, losses, 2 * losses).log(), losses, regression)
    return s, total.abs()


@lowest_total.mistake("The noise levels are right. The total is a sum over the tasks, not a mean.")
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, (0.5 + s / 2).mean()


@lowest_total.mistake(
    "The noise levels are right."
    " The 1/2 that is left of the first term stands there once; each task brings its own."
)
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, 0.5 + s.sum() / 2


@lowest_total.mistake(
    "A small number is added inside the logarithm."
    " The losses are positive, and beside a loss in a small unit no such number is small."
)
def _(losses, regression):
    return _at((torch.where(regression, losses, 2 * losses) + 1e-8).log(), losses, regression)


# ---------------------------------------------------------------------------------- 4. spot the bug
# inputs
class _InParts(nn.Module):
    """A weighting made of two: one for the first task, one for the others."""

    def __init__(self, tasks):
        super().__init__()
        others = nn.ModuleDict({"others": Uncertainty([True] * (tasks - 1))})
        self.parts = nn.ModuleList([Uncertainty([True]), others])

    def forward(self, losses):
        return self.parts[0](losses[:1]) + self.parts[1]["others"](losses[1:])


def _training(weighting):
    """A network with a frozen and a shared layer, and a weighting; both in 64 bits."""

    def draw(generator):
        tasks = whole(generator, 2, 4)
        model, _ = network(generator, tasks, norms=("group",), frozen=True, shared=True)
        combine = weighting(tasks)
        with torch.no_grad():
            for p in combine.parameters():
                p.copy_(1 + torch.rand(p.shape, generator=generator))
        rate, decay = uniform(generator, 0.02, 0.07), uniform(generator, 0.5, 1.5)
        return model.double(), combine.double(), rate, decay

    return draw


def _steps(answer, model, combine, rate, decay):
    """All parameters after some steps with the optimizer that the answer builds.

    What it holds, and how, shows there. The gradients are drawn, and in the last step they are
    smaller by far: only then do all options of an optimizer show.
    """
    model, combine = copy.deepcopy(model), copy.deepcopy(combine)
    optimizer = answer(model, combine, rate, decay)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    modes = [m.training for part in (model, combine) for m in part.modules()]
    generator = torch.Generator().manual_seed(0)
    for size in (1.0, 1.0, 1e-3):
        for p in [*model.parameters(), *combine.parameters()]:
            gradient = size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.grad = gradient if p.requires_grad else None
        optimizer.step()
    return {
        "the model's parameters": [p.detach() for p in model.parameters()],
        "the weighting's parameters": [p.detach() for p in combine.parameters()],
        "which modules are in training mode": torch.tensor(modes),
    }


# reference
def _forgetful(model, combine, rate, decay):
    """AdamW for a model and a loss weighting, at one learning rate.

    model: nn.Module; combine: nn.Module, a weighting as in this
        chapter, with or without parameters of its own.
    rate: learning rate. decay: weight decay of the model. It must
        not touch the weighting's parameters.
    Return the optimizer.
    """
    return torch.optim.AdamW(model.parameters(), lr=rate,
                             weight_decay=decay)


@exercise(
    [_training(_InParts), _training(lambda tasks: EqualWeights())],
    points=2,
    call=_steps,
    grad=False,
    device=False,
    rtol=1e-6,
    atol=1e-9,
    starter=_forgetful,
    hints=(
        "Which parameters change in a step, if you print combine.log_variance before and after?",
        (
            "The weighting has parameters of its own, which no optimizer holds that got only the"
            " model's. And decay would pull them towards equal weights."
        ),
        (
            "An optimizer takes groups: [{'params': model.parameters(), 'weight_decay': decay},"
            " {'params': combine.parameters(), 'weight_decay': 0.0}]."
        ),
    ),
)
def joint_optimizer(model, combine, rate, decay):
    """AdamW for a model and a loss weighting, at one learning rate."""
    groups = [
        {"params": model.parameters(), "weight_decay": decay},
        {"params": combine.parameters(), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


# mistakes
@joint_optimizer.mistake(
    "The optimizer holds the model only."
    " The noise levels keep their first value for ever, and nothing complains."
)
def _(model, combine, rate, decay):
    return torch.optim.AdamW([p for p in model.parameters()], lr=rate, weight_decay=decay)


@joint_optimizer.mistake(
    "The weighting's parameters are decayed too:"
    " pulled to s = 0, which is a variance of 1 in whatever unit the loss happens to have."
)
def _(model, combine, rate, decay):
    return torch.optim.AdamW(
        [*model.parameters(), *combine.parameters()], lr=rate, weight_decay=decay
    )


@joint_optimizer.mistake(
    "Nothing is decayed now. The model is to keep its weight decay; the weighting is to have none."
)
def _(model, combine, rate, decay):
    return torch.optim.AdamW(
        [*model.parameters(), *combine.parameters()], lr=rate, weight_decay=0.0
    )


@joint_optimizer.mistake(
    "A group without a weight decay of its own gets the optimizer's:"
    " AdamW's default is 0.01, not 0."
)
def _(model, combine, rate, decay):
    groups = [
        {"params": list(model.parameters()), "weight_decay": decay},
        {"params": list(combine.parameters())},
    ]
    return torch.optim.AdamW(groups, lr=rate)


@joint_optimizer.mistake("The decays are exchanged: the weighting is decayed and the model is not.")
def _(model, combine, rate, decay):
    groups = [
        {"params": list(model.parameters()), "weight_decay": 0.0},
        {"params": list(combine.parameters()), "weight_decay": decay},
    ]
    return torch.optim.AdamW(groups, lr=rate)


@joint_optimizer.mistake(
    "This is Adam, which adds the decay to the gradient, where Adam's scaling distorts it."
    " The task asks for AdamW."
)
def _(model, combine, rate, decay):
    groups = [
        {"params": list(model.parameters()), "weight_decay": decay},
        {"params": list(combine.parameters()), "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=rate)


@joint_optimizer.mistake(
    "The model's biases and norms are not decayed."
    " Many do that, but here the decay is that of the whole model."
)
def _(model, combine, rate, decay):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": [*vectors, *combine.parameters()], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


@joint_optimizer.mistake(
    "Only one of the weighting's parameters moves. A weighting may be made of others:"
    " combine.parameters() has them all."
)
def _(model, combine, rate, decay):
    groups = [
        {"params": list(model.parameters()), "weight_decay": decay},
        {"params": list(combine.parameters())[:1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


@joint_optimizer.mistake("The learning rate is not used: AdamW takes its default of 0.001.")
def _(model, combine, rate, decay):
    groups = [
        {"params": list(model.parameters()), "weight_decay": decay},
        {"params": list(combine.parameters()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)


# ----------------------------------------------------------------------------- 5. GradNorm's target
# inputs
def _progress(generator):
    tasks = whole(generator, 3, 6)
    first = 0.5 + 2 * torch.rand(tasks, generator=generator)
    losses = first * (0.2 + 0.7 * torch.rand(tasks, generator=generator))
    weights, norms = (
        0.3 + torch.rand(tasks, generator=generator),
        0.2 + 4 * torch.rand(tasks, generator=generator),
    )
    return weights, norms, losses, first, 0.4 + float(torch.rand(1, generator=generator))


def _far_apart(generator):
    """Late in training, and every task in a unit of its own: 1e-6 to 1e6, weights to match."""
    weights, norms, losses, first, alpha = _progress(generator)
    units = powers(generator, len(first)).float()
    units[0] = 1e-6
    late = 1e-6 * losses
    late[-1] *= 1e-4  # has all but arrived
    return weights / units, norms * units, late * units, first * units, alpha


# reference
@exercise(
    [_progress, _far_apart],
    points=3,
    parts=("target", "slope"),
    grad=False,
    hints=(
        (
            "Which task has learned more slowly than the others, and should its gradient be"
            " longer or shorter than the mean?"
        ),
        (
            "In this order: the sizes w_t |g_t| and their mean; each loss relative to its first"
            " value; these ratios relative to their mean."
        ),
        (
            "`target = sizes.mean() * r ** alpha` with `r = ratio / ratio.mean()`. In the"
            " derivative of |w_t |g_t| - target| the target is a constant."
        ),
    ),
)
def gradnorm_target(weights, norms, losses, first, alpha):
    """What GradNorm wants of each task, and where it pulls.

    weights [T]; norms [T]: |g_t|, norm of the gradient of L_t
    (without its weight) at the shared parameters; losses [T] now
    and first [T], in the first step; alpha: a number.
    Return (target, slope), both [T]: the wanted sizes of the
    weighted gradients (equation 9), and the derivative of
    sum_t | w_t |g_t| - target_t | with respect to w_t, where the
    targets count as constants.
    """
    ### BEGIN SOLUTION
    sizes = weights * norms
    ratio = losses / first
    target = sizes.mean() * (ratio / ratio.mean()) ** alpha
    return target, torch.where(sizes > target, norms, -norms)
    ### END SOLUTION


# laws
@gradnorm_target.law("the unit of a loss does not matter, if its weight makes up for it")
def _(answer, weights, norms, losses, first, alpha):
    unit = torch.ones_like(losses)
    unit[0] = 100
    here, there = (
        answer(weights, norms, losses, first, alpha),
        answer(weights / unit, norms * unit, losses * unit, first * unit, alpha),
    )
    return bool(
        torch.allclose(here[0], there[0], rtol=1e-3)
        and torch.allclose(here[1] * unit, there[1], rtol=1e-3)
    )


gradnorm_target.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _goal(
    weights,
    norms,
    losses,
    first,
    alpha,
    sizes=None,
    ratio=None,
    relative=lambda r: r / r.mean(),
    slope=None,
):
    sizes = weights * norms if sizes is None else sizes
    ratio = losses / first if ratio is None else ratio
    target = sizes.mean() * relative(ratio) ** alpha
    return target, norms * torch.sign(weights * norms - target) if slope is None else slope(target)


@gradnorm_target.mistake(
    "The rates are upside down."
    " A task whose loss has fallen less has the larger ratio, and is to get the larger gradient."
)
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, alpha, ratio=first / losses)


@gradnorm_target.mistake("The mean size is taken without the weights. It is the mean of w_t |g_t|.")
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, alpha, sizes=norms)


@gradnorm_target.mistake(
    "The ratios are not divided by their mean, so all targets shrink as training goes on."
)
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, alpha, relative=lambda r: r)


@gradnorm_target.mistake(
    "You compare the losses themselves."
    " Divide each by its first value, or the one with the largest unit is always last."
)
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, alpha, ratio=losses)


@gradnorm_target.mistake("alpha is an exponent, not a factor.")
def _(weights, norms, losses, first, alpha):
    ratio = losses / first
    return _goal(weights, norms, losses, first, 1, relative=lambda r: alpha * ratio / ratio.mean())


@gradnorm_target.mistake("alpha is not used: this asks for equal sizes, alpha = 0.")
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, 0)


@gradnorm_target.mistake(
    "The targets are right."
    " The derivative with respect to w_t has the factor |g_t|, which is missing."
)
def _(weights, norms, losses, first, alpha):
    return _goal(
        weights,
        norms,
        losses,
        first,
        alpha,
        slope=lambda target: torch.sign(weights * norms - target),
    )


@gradnorm_target.mistake(
    "The targets are right. The slope has the wrong sign:"
    " where the size is above its target, |size - target| grows with w_t."
)
def _(weights, norms, losses, first, alpha):
    return _goal(
        weights,
        norms,
        losses,
        first,
        alpha,
        slope=lambda target: norms * torch.sign(target - weights * norms),
    )


@gradnorm_target.mistake(
    "The targets are right. The second value is to be the derivative, not the distance itself."
)
def _(weights, norms, losses, first, alpha):
    return _goal(
        weights, norms, losses, first, alpha, slope=lambda target: (weights * norms - target).abs()
    )


@gradnorm_target.mistake("The size is summed over the tasks; GradNorm takes their mean.")
def _(weights, norms, losses, first, alpha):
    return _goal(weights, norms, losses, first, alpha, sizes=len(norms) * weights * norms)


@gradnorm_target.mistake(
    "The targets are right. In the slope they are not constants: the mean size depends on w_t,"
    " and a part of the derivative goes through it. Detach the targets."
)
def _(weights, norms, losses, first, alpha):
    ratio = losses / first
    relative = (ratio / ratio.mean()) ** alpha
    target = (weights * norms).mean() * relative
    sign = torch.sign(weights * norms - target)
    return target, norms * (sign - (sign * relative).mean())


@gradnorm_target.mistake(
    "The mean is taken of the ratios after the power alpha. Each ratio is divided by"
    " the mean ratio first; then comes the power."
)
def _(weights, norms, losses, first, alpha):
    powered = (losses / first) ** alpha
    target = (weights * norms).mean() * powered / powered.mean()
    return target, norms * torch.sign(weights * norms - target)


@gradnorm_target.mistake(
    "Each ratio is divided by the ratio of the mean losses, in which the largest unit decides."
    " It is to be the mean of the ratios."
)
def _(weights, norms, losses, first, alpha):
    return _goal(
        weights, norms, losses, first, alpha, relative=lambda r: r * first.mean() / losses.mean()
    )


@gradnorm_target.mistake(
    "The targets are right. The derivative of w_t |g_t| with respect to w_t is |g_t|, not w_t."
)
def _(weights, norms, losses, first, alpha):
    return _goal(
        weights,
        norms,
        losses,
        first,
        alpha,
        slope=lambda target: weights * torch.sign(weights * norms - target),
    )
