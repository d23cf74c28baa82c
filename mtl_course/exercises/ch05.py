"""Exercises of chapter 5: losses and their weights."""

import copy

import torch
from torch import nn

from ..checks.exercise import exercise
from ..multitask.weighting import EqualWeights, Uncertainty
from .inputs import whole


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


# reference
@exercise(
    [_table(False), _table(True)],
    points=2,
    hints=(
        (
            "Three things to settle: which entries are known,"
            " by how many to divide in each column, and what to do where there are none."
        ),
        (
            "NaN times zero is NaN, in the forward pass and in the backward pass."
            " So put the unknown errors to 0 with torch.where before you square, not after."
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
    "Zero times NaN is NaN: multiplying by the mask does not remove the unknown entries."
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
    "This is one number. Return one loss a task, [T]:"
    " they have different units, and weights come later."
)
def _(prediction, target):
    known = ~target.isnan()
    return (torch.where(known, prediction - target.nan_to_num(), 0) ** 2).sum() / known.sum()


# -------------------------------------------------------------------- 2. noise levels as parameters
# inputs
def _levels(generator):
    tasks = whole(generator, 3, 6)
    regression = torch.arange(tasks) % 2 == whole(generator, 0, 2)
    s = torch.randn(tasks, generator=generator)
    s[0], s[1] = -0.3 - s[0].abs(), 0.3 + s[1].abs()  # both signs, always
    return 0.1 + 3 * torch.rand(tasks, generator=generator), s, regression


# reference
@exercise(
    [_levels],
    points=2,
    hints=(
        (
            "Look at equations 5 and 6:"
            " how does sigma^2 follow from s, and what is log sigma in terms of s?"
        ),
        (
            "sigma^2 = exp(s), so 1 / sigma^2 = exp(-s) and log sigma = s / 2."
            " The factor 1/2 in front of the loss is there for regressions only."
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


# -------------------------------------------------------------------------- 3. as low as it can get
# inputs
def _final(generator):
    tasks = whole(generator, 3, 6)
    regression = torch.arange(tasks) % 2 == whole(generator, 0, 2)
    losses = 0.05 + 2.5 * torch.rand(tasks, generator=generator)
    losses[:2] = 0.01 + 0.1 * torch.rand(
        2, generator=generator
    )  # small enough for a negative optimum
    losses[2] += 1
    return losses, regression


# reference
@exercise(
    [_final],
    points=2,
    hints=(
        (
            "The tasks do not mix: minimise factor * exp(-s) * L + s / 2 for one task,"
            " with factor 1/2 or 1. Where is the derivative zero?"
        ),
        (
            "At exp(s) = 2 * factor * L. Put this back:"
            " the first term becomes a constant, whatever L is."
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
    return s, total.clamp(min=0) if total < 0 else (0.5 + s / 2).clamp(min=0).sum()


@lowest_total.mistake("The noise levels are right. The total is a sum over the tasks, not a mean.")
def _(losses, regression):
    s = torch.where(regression, losses, 2 * losses).log()
    return s, (0.5 + s / 2).mean()


# ---------------------------------------------------------------------------------- 4. spot the bug
# inputs
def _training(learned):
    def draw(generator):
        d, tasks = whole(generator, 2, 5), whole(generator, 2, 4)
        model, combine = (
            nn.Linear(d, tasks),
            (Uncertainty([True] * tasks) if learned else EqualWeights()),
        )
        with torch.no_grad():
            for p in [*model.parameters(), *combine.parameters()]:
                p.copy_(1 + torch.rand(p.shape, generator=generator))
        x, y = torch.randn(8, d, generator=generator), torch.randn(8, tasks, generator=generator)
        return (
            model,
            combine,
            0.02 + 0.05 * float(torch.rand(1, generator=generator)),
            0.5 + float(torch.rand(1, generator=generator)),
            x,
            y,
        )

    return draw


def _three_steps(answer, model, combine, rate, decay, x, y):
    """All parameters after three steps with the optimizer that the answer builds.

    What it holds, and how, shows there.
    """
    model, combine = copy.deepcopy(model), copy.deepcopy(combine)
    optimizer = answer(model, combine, rate, decay)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    for _ in range(3):
        model.zero_grad()
        combine.zero_grad()
        combine(((model(x) - y) ** 2).mean(0)).backward()
        optimizer.step()
    return [p.detach() for p in [*model.parameters(), *combine.parameters()]]


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
    [_training(True), _training(False)],
    points=2,
    call=_three_steps,
    grad=False,
    device=False,
    starter=_forgetful,
    hints=(
        "Which parameters change in a step? Print combine.log_variance before and after.",
        (
            "An optimizer takes groups:"
            " a list of dicts with `params` and options of their own, such as `weight_decay`."
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


# reference
@exercise(
    [_progress],
    points=3,
    grad=False,
    hints=(
        (
            "In this order: the sizes w_t |g_t| and their mean;"
            " each loss relative to its first value; these ratios relative to their mean."
        ),
        (
            "target = sizes.mean() * r ** alpha with r = ratio / ratio.mean()."
            " In the derivative of |w_t |g_t| - target| the target is a constant."
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
