"""Lab 2: a pair of tasks on which a rule that changes the weights beats the tuned sum."""

import math

import torch
from torch.nn import functional as F

from .. import chapters
from .rungs import Refused, Rung, Step, Task, mean

SIZE, STARTS, STEPS = 4, 16, 200  # parameters, starting points of a seed, steps of a run
# What both may choose from: the rates, and for the sum also the weight of the first loss.
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (
    0.001,
    0.01,
    0.03,
    0.1,
    0.2,
    0.3,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.7,
    0.8,
    0.9,
    0.97,
    0.99,
    0.999,
)
ALONE = 0.1  # of its loss at the start is left where a task is trained alone
HARM = 1.1  # times the loss of the sum, which the rule may leave on the control pair
BUDGET, RUNNING = 5.0, 30.0  # seconds of processor time


def starts(part: str, seed: int) -> torch.Tensor:
    """Starting points [16, 4] of a seed; part: "practice" or "held-out"."""
    generator = torch.Generator().manual_seed(2 * seed + {"practice": 0, "held-out": 1}[part])
    return torch.randn(STARTS, SIZE, generator=generator, dtype=torch.float64)


def control(theta: torch.Tensor) -> torch.Tensor:
    """Two bowls of different width around different points: losses [B, 2] at [B, 4]."""
    centre = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=theta.dtype)
    first = (theta - centre).square().sum(1)
    return torch.stack([first, 3 * (theta + centre).square().sum(1)], 1)


def losses_of(pair, theta: torch.Tensor) -> torch.Tensor:
    """The two losses [B, 2] at [B, 4].

    Raises:
        Refused: they have another shape, are negative or not finite.
    """
    losses = pair(theta)
    if not isinstance(losses, torch.Tensor) or losses.shape != (len(theta), 2):
        shape = list(getattr(losses, "shape", []))
        raise Refused(f"`pair` gave shape {shape} for [{len(theta)}, {SIZE}]; [B, 2] is wanted.")
    if not torch.isfinite(losses).all() or (losses < 0).any():
        raise Refused("`pair` gave a loss that is negative or not finite.")
    return losses


def slopes(pair, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [B, 2] and their gradients [B, 2, 4] at [B, 4], which the pair gets as a copy."""
    theta = theta.detach().clone().requires_grad_(True)
    losses = losses_of(pair, theta.clone())
    return losses.detach(), torch.stack([_slope(losses[:, i], theta) for i in range(2)], 1)


def trained(pair, weigh, theta: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """What is left of each loss [B, 2], in means of it at the start; infinite where it diverged.

    Args:
        pair: parameters [B, 4] -> losses [B, 2], each row by itself.
        weigh: gradients [B, 2, 4], losses [B, 2], step -> weights [B, 2], not negative.
        theta: starting points [B, 4].
        rates: [B].
    """
    theta = theta.clone()
    first, gone = losses_of(pair, theta.clone()).detach(), torch.zeros(len(theta), dtype=torch.bool)
    for step in range(STEPS):
        losses, gradients = slopes(pair, theta)
        weights = weigh(gradients.detach().clone(), losses.detach().clone(), step)
        with torch.no_grad():
            moved = theta - rates[:, None] * (weights[:, :, None] * gradients).sum(1)
            gone |= ~torch.isfinite(moved).all(1) | (moved.abs().amax(1) > 1e3)
            theta = torch.where(gone[:, None], theta, moved).detach()
    left = losses_of(pair, theta).detach() / first.mean(0).clamp(min=1e-12)
    return torch.where(gone[:, None], math.inf, left)


def fair(rule):
    """The rule with its weights checked and brought to a sum of one.

    Raises:
        Refused: when it is used, for weights that are negative, not finite or all zero.
    """

    def weigh(gradients, losses, step):
        weights = rule(gradients, losses, step)
        if not isinstance(weights, torch.Tensor) or weights.shape != losses.shape:
            shape = list(getattr(weights, "shape", []))
            raise Refused(f"`rule` gave shape {shape}; weights {list(losses.shape)} are wanted.")
        weights = weights.detach().to(losses.dtype)
        total = weights.sum(1, keepdim=True)
        if not torch.isfinite(weights).all() or (weights < 0).any() or (total <= 0).any():
            raise Refused("`rule` gave weights that are negative, not finite, or all zero.")
        return weights / total

    return weigh


def worst(left: torch.Tensor, choices: int) -> torch.Tensor:
    """The larger of the two shares, in the mean over the starts, for each choice."""
    return left.amax(1).reshape(choices, STARTS).mean(1)


def sums(pair, theta: torch.Tensor) -> torch.Tensor:
    """The worst share for each rate and weight of the sum, [rates, shares]."""
    grid = torch.cartesian_prod(
        torch.tensor(RATES, dtype=theta.dtype), torch.tensor(SHARES, dtype=theta.dtype)
    ).repeat_interleave(STARTS, 0)
    weights = torch.stack([grid[:, 1], 1 - grid[:, 1]], 1)
    many = len(RATES) * len(SHARES)
    left = trained(pair, lambda *_: weights, theta.repeat(many, 1), grid[:, 0])
    return worst(left, many).reshape(len(RATES), len(SHARES))


def ruled(pair, rule, theta: torch.Tensor) -> torch.Tensor:
    """The worst share for each rate of the rule, [rates]."""
    rates = torch.tensor(RATES, dtype=theta.dtype).repeat_interleave(STARTS)
    left = trained(pair, fair(rule), theta.repeat(len(RATES), 1), rates)
    return worst(left, len(RATES))


def alone(pair, theta: torch.Tensor) -> list[float]:
    """What is left of each loss where only it is trained, with its best rate."""
    rates = torch.tensor(RATES, dtype=theta.dtype).repeat_interleave(STARTS)
    shares = []
    for task in range(2):
        weights = torch.zeros(len(rates), 2, dtype=theta.dtype)
        weights[:, task] = 1
        left = trained(pair, lambda *_, w=weights: w, theta.repeat(len(RATES), 1), rates)
        shares.append(left[:, task].reshape(len(RATES), STARTS).mean(1).min().item())
    return shares


def compared(pair, rule, tune: torch.Tensor, judge: torch.Tensor) -> dict[str, float]:
    """The rule beside the sum: rate and weight are chosen on some starts and judged on others.

    Returns:
        sum, rule: the worst share that each leaves; alone: the larger share that a task leaves
        which is trained alone.
    """
    chosen = sums(pair, tune).flatten().argmin()
    rate = ruled(pair, rule, tune).argmin()
    return {
        "sum": sums(pair, judge).flatten()[chosen].item(),
        "rule": ruled(pair, rule, judge)[rate].item(),
        "alone": max(alone(pair, judge)),
    }


def require_pure(pair, theta: torch.Tensor) -> None:
    """Each row's losses depend on that row alone, however many there are and whenever it is asked.

    Raises:
        Refused: they do not, or the parameters are changed.
    """
    before = theta.clone()
    whole = losses_of(pair, theta).detach()
    if not torch.equal(theta, before):
        raise Refused("`pair` changes the parameters that it is given.")
    many = len(RATES) * len(SHARES)
    for times in (1, len(RATES), many):
        again = losses_of(pair, before.repeat(times, 1)).detach()[: len(theta)]
        if not torch.allclose(whole, again, rtol=1e-9, atol=1e-12):
            raise Refused("`pair` gives the same parameters other losses in another batch.")
    one = torch.cat([losses_of(pair, row[None].clone()).detach() for row in before])
    if not torch.allclose(whole, one, rtol=1e-9, atol=1e-12):
        raise Refused("`pair` gives a row other losses alone than beside other rows.")


class Watched:
    """A pair whose answers are kept now and then, to be asked for again when all runs are over.

    Of every 20th call, and of all where no gradient is wanted, 16 rows are kept.
    """

    def __init__(self, pair):
        self.pair, self.calls, self.kept = pair, 0, []

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        sloped = theta.requires_grad
        if sloped and self.calls % 20:
            return losses_of(self.pair, theta)
        rows = torch.linspace(0, len(theta) - 1, STARTS).long()
        before = theta.detach().clone()[rows]
        losses = losses_of(self.pair, theta)
        slope = None
        if sloped:
            slope = torch.stack([_slope(losses[:, i], theta)[rows] for i in range(2)], 1)
        self.kept.append((before, losses.detach().clone()[rows], slope))
        return losses

    def require_honest(self) -> None:
        """What was kept is what the pair gives now, and its gradients are those of its losses.

        Raises:
            Refused: it is not.
        """
        theta = torch.cat([before for before, _, _ in self.kept])
        losses = torch.cat([losses for _, losses, _ in self.kept])
        again = losses_of(self.pair, theta.clone()).detach()
        if not torch.allclose(losses, again, rtol=1e-6, atol=1e-9):
            raise Refused("`pair` gives the same parameters other losses at another time.")
        theta = torch.cat([before for before, _, slope in self.kept if slope is not None])
        slope = torch.cat([slope for _, _, slope in self.kept if slope is not None])
        # Some rows may lie on an edge, where the last bit decides.
        if _off(slope, slopes(self.pair, theta)[1], 1e-6) > 0.05:
            raise Refused("`pair` gives the same parameters other gradients at another time.")
        way = F.normalize(torch.randn_like(theta), dim=1)
        up, down = (losses_of(self.pair, theta + h * way).detach() for h in (1e-4, -1e-4))
        if _off((slope @ way[:, :, None])[:, :, 0], (up - down) / 2e-4, 0.05) > 0.25:
            raise Refused("The gradients of `pair` are not those of its losses.")


def _slope(losses: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The gradient of each row's loss, [B, 4]; zero where it does not depend on the parameters."""
    [slope] = torch.autograd.grad(losses.sum(), theta, retain_graph=True, allow_unused=True)
    return torch.zeros_like(theta) if slope is None else slope.detach()


def _off(one: torch.Tensor, other: torch.Tensor, part: float) -> float:
    """The share of rows that differ by more than a part of what they are."""
    near = torch.isclose(one, other, rtol=part, atol=0.1 * part)
    return 1 - near.flatten(1).all(1).double().mean().item()


def judged(both, tune: torch.Tensor, judge: torch.Tensor) -> dict[str, float]:
    """What the learner's pair and rule come to, beside the tuned sum.

    Raises:
        Refused: it is no such pair.
    """
    if not isinstance(both, tuple | list) or len(both) != 2 or not all(map(callable, both)):
        raise Refused("`invent` must return two functions, (pair, rule).")
    pair, rule = both
    require_pure(pair, judge.clone())
    watched = Watched(pair)
    mine, other = compared(watched, rule, tune, judge), compared(control, rule, tune, judge)
    watched.require_honest()
    if not mine["alone"] <= ALONE:
        raise Refused(
            f"Trained alone, a task keeps {mine['alone']:.2f} of its loss;"
            f" {ALONE:.2f} is the most: each must be learnable."
        )
    if not math.isfinite(mine["sum"]) or mine["sum"] <= 1e-9:
        raise Refused("The tuned sum diverges, or leaves nothing: there is nothing to compare.")
    # A rule that diverges leaves all.
    less = 1 - min(mine["rule"] / mine["sum"], 10.0)
    return {"less": less, "control": min(other["rule"] / other["sum"], 10.0), **mine}


def play(run, seed: int) -> dict[str, float]:
    """How much less than the tuned sum the rule leaves, from the starting points of a seed."""
    tune, judge = starts("practice", seed), starts("held-out", seed)
    steps = [
        Step("invent", lambda invent: invent(), BUDGET),
        Step("the runs", lambda both: judged(both, tune, judge), RUNNING),
    ]
    measures = run(steps, lambda value: {name: float(value[name]) for name in value})
    return {name: measures[name] for name in ("less", "control", "sum")}


def practice(seed: int) -> tuple:
    """(starting points to tune on, others to judge on), each [16, 4]."""
    return starts("practice", 500 + seed), starts("held-out", 500 + seed)


STUB = '''\
def invent():
    """Construct a pair of tasks, and a rule to weigh them.

    Return (pair, rule).
    pair(theta): parameters [B, 4] -> two losses [B, 2], none
        negative, each row by itself, differentiable.
    rule(gradients, losses, step): [B, 2, 4], [B, 2] and 0 to 199 ->
        weights [B, 2], none negative; they are divided by their sum.
    """
    raise NotImplementedError("your answer goes here")'''


def _ahead(name: str, limit: float, what: str, harm: float = HARM) -> Rung:
    """The rung of those whose rule leaves so much less than the sum, in the mean over the seeds."""
    return Rung(name, what, lambda m: mean(m["less"]) >= limit and mean(m["control"]) <= harm)


NAMES = chapters.LABS["lab_2"].rungs
TASK = Task(
    name="lab_2",
    function="invent",
    stub=STUB,
    play=play,
    practice=practice,
    seeds=(901, 902, 903),
    rungs=(
        _ahead(NAMES[0], -0.1, "the rule leaves at most 10 % more than the tuned sum", math.inf),
        _ahead(NAMES[1], 0.15, "15 % less than the tuned sum, and no harm on the control pair"),
        _ahead(NAMES[2], 0.3, "30 % less than the tuned sum, and no harm on the control pair"),
    ),
    measures={"less": ".2f", "control": ".2f", "sum": ".3f"},
)
