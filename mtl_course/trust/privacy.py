"""Training that hides each row: clipped gradients, noise, and an accountant for what it costs.

A step of DP-SGD draws every row with probability q, clips the whole gradient of each row drawn to
the length C, adds up, adds normal noise of deviation `noise` x C, and divides by the batch that was
expected. Two data sets are neighbours if one has a row more. All tasks of a row stand in the same
row, so that one step is one release however many tasks there are.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from ..training.modes import places

ORDERS = (*range(2, 64), 72, 96, 128, 192, 256, 384, 512, 1024)


def per_example_gradients(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """The gradient of each row's own loss, for every parameter that learns.

    Args:
        model: without layers that mix the rows of a batch, such as BatchNorm. It stays as it is.
        loss: (outputs [1, ...], labels [1, ...]) -> scalar, the loss of one row. For several tasks
            their sum.
        x: inputs [B, ...]; B may be 0.
        y: labels [B, ...].

    Returns:
        Parameter name -> [B, *shape], detached.

    Raises:
        ValueError: x and y differ in their number of rows, a layer mixes rows or keeps statistics.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(1.0)
        >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])
        >>> half = lambda out, y: (out - y).square().sum() / 2
        >>> per_example_gradients(model, half, x, y)["weight"].flatten().tolist()
        [1.0, 4.0]
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows of inputs and {len(y)} of labels.")
    for name, module in model.named_modules():
        mixes = isinstance(module, _BatchNorm)
        keeps = isinstance(module, _NormBase) and module.training and module.track_running_stats
        if keeps or (mixes and (module.training or not module.track_running_stats)):
            raise ValueError(
                f"{name or 'The model'} is a {type(module).__name__}, which"
                f" {'mixes the rows of a batch' if mixes else 'keeps statistics of all rows'}, so"
                " that no row has a gradient of its own. Use GroupNorm or LayerNorm."
            )
    learned = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not len(x):
        return {name: p.new_zeros(0, *p.shape) for name, p in learned.items()}
    # what a forward pass writes, such as the vectors of a spectral norm, goes into copies
    written = {name: b.clone() for name, b in model.named_buffers()}
    tied = {place: name for place, name in places(model).items() if name in learned}

    def one(parameters, x, y):
        values = {place: parameters[name] for place, name in tied.items()} | written
        return loss(functional_call(model, values, (x[None],), tie_weights=False), y[None])

    # each row draws a dropout mask of its own
    rows = vmap(grad(one), in_dims=(None, 0, 0), randomness="different")(learned, x, y)
    return {name: g.detach() for name, g in rows.items()}


def private_mean(
    gradients: Mapping[str, Tensor],
    clip: float,
    noise: float,
    expected: float,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Clip each row's whole gradient, add up, add noise, divide by the expected batch.

    Args:
        gradients: parameter name -> [B, ...], row by row.
        clip: C > 0; a row whose gradient, over all parameters together, is longer is scaled down
            to this length.
        noise: >= 0; the noise of each number has the deviation `noise` x `clip`.
        expected: the number of rows that a batch has on average. Not B, which tells how many rows
            were drawn.
        generator: of the noise, on the device of the gradients.

    Returns:
        Parameter name -> [...].

    Raises:
        ValueError: no gradients, a clip or an expected batch that is not positive, or negative
            noise.
        FloatingPointError: a gradient is not finite, so that no clipping can bound it.

    Source:
        Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1.

    Example:
        >>> rows = {"w": torch.tensor([[3.0, 4.0], [0.0, 0.5]])}  # lengths 5 and 0.5
        >>> values = private_mean(rows, clip=1.0, noise=0.0, expected=2)["w"]
        >>> [round(value, 4) for value in values.tolist()]
        [0.3, 0.65]
    """
    if not gradients:
        raise ValueError("There are no gradients.")
    if not clip > 0 or not expected > 0:
        raise ValueError(f"clip and expected must be positive; they are {clip} and {expected}.")
    if not noise >= 0:
        raise ValueError(f"noise must not be negative; it is {noise}.")
    lengths = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    if not lengths.isfinite().all():
        row = int((~lengths.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"The gradient of row {row} is not finite, and cannot be clipped: lower the rate."
        )
    factors = torch.where(lengths > clip, clip / lengths, 1.0)
    means = {}
    for name, g in gradients.items():
        total = torch.tensordot(factors.to(g.dtype), g, dims=1)
        z = torch.randn(total.shape, generator=generator, device=g.device, dtype=g.dtype)
        means[name] = (total + noise * clip * z) / expected
    return means


def renyi(noise: float, q: float = 1.0, orders: Sequence[int] = ORDERS) -> Tensor:
    """Renyi divergence of one noisy sum over rows that are drawn with probability q.

    Args:
        noise: > 0; deviation of the noise, in units of the clip.
        q: in (0, 1], each row's chance to be drawn; 1 takes all rows.
        orders: whole numbers from 2 on.

    Returns:
        [orders], float64: the divergence at each order, in nats. Those of several steps add up.

    Raises:
        ValueError: no noise, a q outside (0, 1], or an order below 2 or between whole numbers.

    Source:
        Mironov, Talwar and Zhang, "Renyi differential privacy of the sampled Gaussian mechanism",
        2019, section 3.3.

    Example:
        >>> renyi(2.0, orders=[2, 3]).tolist()  # order / (2 noise^2)
        [0.25, 0.375]
        >>> bool((renyi(2.0, q=0.1) < renyi(2.0)).all())  # who may not be drawn hides better
        True
    """
    if not noise > 0:
        raise ValueError(f"Without noise nothing is private: noise must be > 0; it is {noise}.")
    if not 0 < q <= 1:
        raise ValueError(f"q is a chance in (0, 1]; it is {q}.")
    if any(order < 2 or order != int(order) for order in orders):
        raise ValueError(f"Orders are whole numbers from 2 on; they are {list(orders)}.")
    a = torch.tensor([float(order) for order in orders], dtype=torch.float64)
    if q == 1:
        return a / (2 * noise**2)
    values = []
    for order in orders:
        n = int(order)
        k = torch.arange(n + 1, dtype=torch.float64)
        choose = math.lgamma(n + 1) - (k + 1).lgamma() - (n - k + 1).lgamma()
        log = choose + (n - k) * math.log1p(-q) + k * math.log(q) + k * (k - 1) / (2 * noise**2)
        values.append(log.logsumexp(0) / (n - 1))
    return torch.stack(values).clamp_min(0)


def spent(noise: float, steps: int, delta: float, q: float = 1.0) -> float:
    """The epsilon that so many noisy steps spend, at this delta.

    An upper bound: whoever sees every step learns no more than this of any row.

    Args:
        noise: > 0; in units of the clip.
        steps: >= 1; for T separate networks on the same rows, T times those of one.
        delta: in (0, 1), well below one over the number of rows.
        q: each row's chance to be drawn in a step.

    Returns:
        epsilon, at least 0.

    Raises:
        ValueError: no noise, no step, or a delta outside (0, 1).

    Source:
        Conversion: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy",
        NeurIPS 2020, proposition 12.

    Example:
        >>> one, four = (spent(2.0, steps, 1e-5, q=0.05) for steps in (150, 600))
        >>> round(one, 2), round(four, 2)  # four times the steps, about twice the epsilon
        (1.49, 3.05)
    """
    if steps != int(steps) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1 on; it is {steps}.")
    if not 0 < delta < 1:
        raise ValueError(f"delta is a chance between 0 and 1; it is {delta}.")
    a = torch.tensor([float(order) for order in ORDERS], dtype=torch.float64)
    bound = steps * renyi(noise, q) + torch.log1p(-1 / a) - (math.log(delta) + a.log()) / (a - 1)
    return max(0.0, float(bound.min()))


def noise_for(epsilon: float, steps: int, delta: float, q: float = 1.0) -> float:
    """The least noise with which so many steps keep within this epsilon.

    Args:
        epsilon: > 0, the budget.
        steps: as in `spent`.
        delta: the same.
        q: the same.

    Returns:
        The noise, in units of the clip; `spent` gives at most `epsilon` for it.

    Raises:
        ValueError: a budget of zero or less, or one so small that no noise up to 10,000 keeps it.

    Example:
        >>> noise = noise_for(1.0, steps=1, delta=1e-5)
        >>> round(spent(noise, 1, 1e-5), 3)
        1.0
    """
    if not epsilon > 0:
        raise ValueError(
            f"The privacy budget epsilon is {epsilon}; it must be positive. With a budget of zero"
            " the result may not depend on the data at all, so there is nothing to train."
        )
    low, high = 1e-2, 1e4
    if spent(high, steps, delta, q) > epsilon:
        raise ValueError(
            f"No noise up to {high:g} keeps {steps} steps within epsilon {epsilon}: take fewer"
            " steps, a smaller q, or a larger delta."
        )
    while high > low * (1 + 1e-6):
        middle = math.sqrt(low * high)
        if spent(middle, steps, delta, q) > epsilon:
            low = middle
        else:
            high = middle
    return high


def gaussian_delta(epsilon: float, noise: float) -> float:
    """The exact delta of one sum with normal noise, over all rows, for this epsilon.

    What the accountant bounds from above, in the one case that has a closed form.

    Args:
        epsilon: >= 0.
        noise: > 0; in units of the clip. Of S steps over all rows it is noise / sqrt(S).

    Returns:
        delta, in [0, 1].

    Raises:
        ValueError: no noise, or a negative epsilon.

    Source:
        Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018,
        theorem 8.

    Example:
        >>> round(gaussian_delta(1.0, 4.0), 8)
        2.92e-06
    """
    if not noise > 0:
        raise ValueError(f"Without noise nothing is private: noise must be > 0; it is {noise}.")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative; it is {epsilon}.")
    a, b = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
    # in logarithms: exp(epsilon) alone overflows
    log = torch.special.log_ndtr(torch.tensor([a, b], dtype=torch.float64))
    return float((log[0].exp() - (epsilon + log[1]).exp()).clamp(0, 1))
