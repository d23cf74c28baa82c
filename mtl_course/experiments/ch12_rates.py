"""Chapter 12: a method is a table of learning rates, [steps, layers].

Many small networks are trained at once by such tables. Their parameters are stacked along a first
axis R (method x setting x seed), and `torch.func.vmap` turns one network's outputs into all of
theirs.
"""

from collections.abc import Mapping, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from ..transfer.schedules import layers
from .common import many_outputs, right_answers

CONVERGED = "converged probe"  # a linear probe without a table: trained to the end
METHODS = ("scratch", "linear probe", "full", "L2-SP", "layer-wise", "gradual", "LP-FT")
DECAY = 2.6  # of layer-wise rates, as Howard and Ruder have it
PROBE_RATE = 0.03  # of LP-FT's first half


def rate_table(method: str, rate: float, steps: int, count: int) -> Tensor:
    """Learning rates of a method, whose largest is `rate`; 0 is frozen.

    Returns:
        [steps, count], layers from the input to the head.

    Raises:
        ValueError: if there is no such method.
    """
    table = torch.full((steps, count), float(rate))
    up = torch.arange(count - 1, -1, -1)  # layers above this one
    if method == "linear probe":
        table[:, :-1] = 0
    elif method == "layer-wise":
        table /= DECAY**up
    elif method == "gradual":
        table[torch.arange(steps)[:, None] < up * steps // count] = 0
    elif method == "LP-FT":
        table[: steps // 2] = 0
        table[: steps // 2, -1] = PROBE_RATE
    elif method not in METHODS:
        raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
    return table


def layer_of(model: nn.Module) -> dict[str, int]:
    """Name of a parameter -> number of its layer, from the input on."""
    number = {id(p): k for k, layer in enumerate(layers(model)) for p in layer.parameters()}
    return {name: number[id(p)] for name, p in model.named_parameters()}


def train_runs(
    model: nn.Module,
    start: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    rates: Tensor,
    *,
    strength: Tensor | None = None,
    source: Mapping[str, Tensor] | None = None,
    batch: int,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train R networks at once by SGD with momentum 0.9 and a rate for every step and layer.

    A layer gathers no momentum while its rate is 0, like a parameter without a gradient in torch's
    optimizers.

    Args:
        model: gives the form of the networks, not their parameters.
        start: name -> [R, ...].
        x: [N, ...], one pool of examples for all runs.
        y: int64 [N].
        rows: int64 [R, n], the examples that each run may use. All runs draw the same positions.
        rates: [steps, layers, R].
        strength: [R], of L2-SP towards `source`, by the gradient of `transfer.l2_sp`; a run of
            strength 0 has none.
        source: name -> [R, ...].
        batch: examples per step.
        seed: of the batches.

    Returns:
        The stacked parameters, name -> [R, ...].
    """
    outputs, number = many_outputs(model), layer_of(model)
    pulled = [] if strength is None else strength.nonzero()[:, 0].tolist()
    # The runs between the first and the last with a pull.
    pulled = slice(min(pulled), max(pulled) + 1) if pulled else None
    order = torch.Generator().manual_seed(seed)
    params = {name: value.clone().requires_grad_() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in start.items()}
    for rates_now in rates:
        pick = rows[:, torch.randint(rows.shape[1], (batch,), generator=order)]
        # The gradient of the runs' losses, summed, holds each run's own: no run's loss depends on
        # another's parameters.
        logits = outputs(params, x[pick]).flatten(0, 1)
        loss = F.cross_entropy(logits, y[pick].flatten(), reduction="sum") / batch
        gradients = torch.autograd.grad(loss, list(params.values()))
        with torch.no_grad():
            for (name, p), g in zip(params.items(), gradients, strict=True):
                shape = -1, *[1] * (g.ndim - 1)
                if pulled and name in source:
                    away = p[pulled] - source[name][pulled]
                    g[pulled] += 2 * strength[pulled].view(shape) * away
                rate = rates_now[number[name]].view(shape)
                velocity[name].mul_(0.9).addcmul_(g, (rate > 0).to(g.dtype))
                p.addcmul_(velocity[name], rate, value=-1)
    return {name: value.detach() for name, value in params.items()}


def converged_heads(
    features: Tensor, y: Tensor, strengths: Sequence[float], outputs: int
) -> dict[str, Tensor]:
    """Heads of converged linear probes: logistic regressions, by scikit-learn.

    Args:
        features: [S, n, k], of a frozen trunk per seed.
        y: int64 [S, n], every label below `outputs`; a label that none has is never answered.
        strengths: scikit-learn's C: the larger, the weaker is the pull to zero.
        outputs: of the heads.

    Returns:
        "head.weight" [len(strengths) x S, outputs, k] and "head.bias", one strength after another.
    """
    S, _, k = features.shape
    weight = torch.zeros(len(strengths), S, outputs, k)
    bias = torch.full((len(strengths), S, outputs), -torch.inf)
    for i, strength in enumerate(strengths):
        for seed in range(S):
            fit = LogisticRegression(C=strength, max_iter=5000)
            fit.fit(features[seed].double().numpy(), y[seed].numpy())
            weight[i, seed, fit.classes_] = torch.from_numpy(fit.coef_).float()
            bias[i, seed, fit.classes_] = torch.from_numpy(fit.intercept_).float()
    return {"head.weight": weight.flatten(0, 1), "head.bias": bias.flatten(0, 1)}


def correct(model: nn.Module, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Share of the examples x [N, ...], y [N] that each of R stacked networks gets right: [R]."""
    return right_answers(model, params, x, y).float().mean(dim=1)
