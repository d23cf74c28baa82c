"""Two domains brought together inside a network: the target's statistics, or an adversary.

AdaBN gives BatchNorm the target's statistics. The gradient reversal of DANN trains a trunk against
a classifier of the domain. Losses that compare two sets of features are in `alignment`, checks of
the labels' shares in `shift`. None of them sees a label of the target.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..training.modes import evaluating
from .alignment import require_features


# ------------------------------------------------------------------------------------------ AdaBN
@torch.no_grad()
def adapt_batchnorm(model: nn.Module, x: Tensor, batch: int | None = None) -> Callable[[], None]:
    """Give every BatchNorm of a model the statistics of the target's inputs (AdaBN).

    No weight moves and no label is seen. The model runs over `x` in evaluation mode; each BatchNorm
    takes over mean and variance of what reaches it, and passes it on normalised by them. A frozen
    BatchNorm is adapted like any other.

    Args:
        model: with at least one BatchNorm that keeps running statistics; changed in place.
        x: unlabelled inputs of the target [n, ...], on the model's device; n is 2 or more.
        batch: examples per pass, 2 or more, shared out evenly. None: all in one pass, which is
            exact. With several, layers above the first see statistics that are still settling.

    Returns:
        A function without arguments that gives the model its former statistics back.

    Raises:
        ValueError: if the model has no such BatchNorm, `x` or a batch has fewer than two examples,
            all examples are equal, or a value is not finite. The model is then as it was.

    Source:
        Li, Wang, Shi, Liu and Hou, "Revisiting batch normalization for practical domain
        adaptation", 2016 (arXiv 1603.04779), algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1)).eval()
        >>> restore = adapt_batchnorm(model, torch.tensor([[3.0], [5.0]]))
        >>> model[0].running_mean.item(), model[0].running_var.item()
        (4.0, 2.0)
        >>> restore()
        >>> model[0].running_mean.item(), model[0].running_var.item()
        (0.0, 1.0)
    """
    named = {
        name or "the model itself": m
        for name, m in model.named_modules()
        if isinstance(m, _BatchNorm) and m.running_mean is not None
    }
    if not named:
        raise ValueError(
            "The model has no BatchNorm with running statistics: there is nothing to adapt."
        )
    if len(x) < 2:
        raise ValueError(f"The target's inputs are {len(x)}; statistics need at least 2.")
    if batch is not None and batch < 2:
        raise ValueError(f"batch is {batch}; statistics need at least 2 examples.")
    if not torch.isfinite(x).all():
        raise ValueError("The target's inputs have a value that is not finite.")
    if (x == x[:1]).all():
        raise ValueError("The target's inputs are all equal: they have no variance to adapt to.")
    former = [(b, b.clone()) for m in named.values() for b in m.buffers(recurse=False)]

    def restore() -> None:
        """Give the model the statistics that it had."""
        with torch.no_grad():
            for buffer, value in former:
                buffer.copy_(value)

    hooks = [m.register_forward_pre_hook(_running(name)) for name, m in named.items()]
    try:
        with evaluating(model):
            for some in x.tensor_split(-(-len(x) // (batch or len(x)))):
                model(some)
    except BaseException:
        restore()
        raise
    finally:
        for hook in hooks:
            hook.remove()
    return restore


def _running(name: str) -> Callable[[nn.Module, tuple], None]:
    """A hook that gives a BatchNorm the statistics of all that has reached it so far."""
    seen = []  # how many values per channel, their mean, their summed squared distance from it

    def take(norm: nn.Module, inputs: tuple) -> None:
        z = inputs[0].double().transpose(0, 1).flatten(1)
        if not torch.isfinite(z).all():
            raise ValueError(f"BatchNorm {name!r} is given features that are not finite.")
        n, mean = z.shape[1], z.mean(1)
        squares = (z - mean[:, None]).square().sum(1)
        if seen:
            # Two parts of a set: the squares within each, and those of the means around theirs.
            before, old, within = seen
            gap, total = mean - old, before + n
            squares = within + squares + gap.square() * before * n / total
            mean, n = old + gap * n / total, total
        seen[:] = n, mean, squares
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares / max(n - 1, 1))

    return take


# ------------------------------------------------------------------------------- gradient reversal
class _Reverse(torch.autograd.Function):
    """The identity forwards, -strength times the identity backwards."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def gradient_reversal(x: Tensor, strength: float = 1.0) -> Tensor:
    """The identity on the way forward; on the way back, minus `strength` times the gradient.

    Between a trunk and a classifier of the domain it makes one loss serve two ends: the classifier
    learns to tell the domains apart, and the trunk to make that hard.

    Args:
        x: features, of any shape.
        strength: lambda, finite and not negative. 0 lets nothing through.

    Returns:
        The values of `x`, in its shape.

    Raises:
        ValueError: for a negative strength, or one that is not finite.

    Source:
        Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016, section 4.2.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> y = gradient_reversal(x, 0.5)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([1.0, 2.0], [-0.5, -0.5])
    """
    if not (0 <= strength < math.inf):
        raise ValueError(f"strength is {strength}; a reversal needs a finite one of 0 or more.")
    return _Reverse.apply(x, float(strength))


class GradientReversal(nn.Module):
    """`gradient_reversal` as a layer, whose `strength` may be changed from step to step.

    Args:
        strength: lambda, finite and not negative.

    Example:
        >>> discriminator = nn.Sequential(GradientReversal(0.0), nn.Linear(8, 1))
        >>> discriminator[0].strength = reversal_schedule(0.5)
        >>> list(discriminator(torch.randn(4, 8)).shape)
        [4, 1]
    """

    def __init__(self, strength: float = 1.0):
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        """The values of `x`; its gradient is reversed."""
        return gradient_reversal(x, self.strength)

    def extra_repr(self) -> str:
        """The strength, for print."""
        return f"strength={self.strength}"


def reversal_schedule(progress: float, gamma: float = 10.0) -> float:
    """The strength of a reversal at a point of training: from 0, quickly, towards 1.

    2 / (1 + exp(-gamma p)) - 1. At the start the domain classifier knows nothing yet, and its
    gradient would only be noise to the trunk.

    Args:
        progress: p, the share of training that is done, 0 to 1.
        gamma: how fast it rises; positive.

    Returns:
        The strength, 0 to 1; multiply it with the largest that you want.

    Raises:
        ValueError: for a progress outside 0 to 1, or a gamma that is not positive.

    Source:
        Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016, section 5.2.2.

    Example:
        >>> [round(reversal_schedule(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
        [0.0, 0.462, 0.987, 1.0]
    """
    if not (0 <= progress <= 1):
        raise ValueError(f"progress is {progress}; it is a share of training, from 0 to 1.")
    if not (0 < gamma < math.inf):
        raise ValueError(f"gamma is {gamma}; the schedule needs a positive, finite one.")
    return math.tanh(gamma * progress / 2)  # the same function, without a large exponential


def domain_loss(
    source: Tensor, target: Tensor, discriminator: nn.Module, strength: float = 1.0
) -> Tensor:
    """What a discriminator pays for telling two domains apart, with the trunk set against it.

    Cross-entropy of "source" (0) against "target" (1), each domain counting half. Minimise it with
    the trunk's and the discriminator's parameters in one optimizer: the reversal between them makes
    the trunk go uphill.

    Args:
        source: features of the source's examples [n, d].
        target: features of the target's examples [m, d].
        discriminator: from features [B, d] to one logit per example, [B] or [B, 1].
        strength: lambda of the reversal.

    Returns:
        Scalar; ln 2 where the domains cannot be told apart.

    Raises:
        ValueError: for features of different widths, empty or not finite, or a bad strength.

    Source:
        Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016, section 4.2.

    Example:
        >>> undecided = nn.Linear(3, 1)
        >>> _ = nn.init.zeros_(undecided.weight), nn.init.zeros_(undecided.bias)
        >>> round(domain_loss(torch.randn(4, 3), torch.randn(6, 3), undecided).item(), 4)
        0.6931
    """
    require_features(source, target, least=1)
    both = gradient_reversal(torch.cat([source, target]), strength)
    logits = discriminator(both).reshape(-1)
    of_source, of_target = logits[: len(source)], logits[len(source) :]
    return (F.softplus(of_source).mean() + F.softplus(-of_target).mean()) / 2
