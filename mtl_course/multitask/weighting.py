"""Loss weighting: T task losses -> the one scalar that is differentiated.

Each method is a small module, ``total = weighting(losses)`` with losses [T] and a scalar total.
What a method learns are its parameters: give them to the optimizer with `parameter_groups`, which
keeps weight decay away from them. What it observes, it observes through three calls that the
training loop makes on every method and that do nothing unless a method needs them:
`before_backward` (GradNorm), `after_step` (FAMO) and `end_epoch` (DWA). All that a method remembers
is in its `state_dict`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..training.distributed import place, process_mean


class Weighting(nn.Module, ABC):
    """The base of all methods: losses [T] -> scalar, and what a training loop tells it.

    A method overrides `forward`, and those of the other calls that it needs. In a step they come in
    the order in which they stand here.

    Example:
        >>> class Worst(Weighting):
        ...     def forward(self, losses):
        ...         return losses.max()
        >>> Worst()(torch.tensor([1.0, 3.0]))
        tensor(3.)
    """

    # Whether `after_step` wants to be called: it costs one more forward pass.
    wants_losses_after_step = False

    def before_backward(self, losses: Tensor, shared: Iterable[nn.Parameter]) -> None:
        """Look at the losses [T], their graph alive, before the total is differentiated.

        shared: the parameters that the tasks share.
        """

    @abstractmethod
    def forward(self, losses: Tensor) -> Tensor:
        """The total of the losses [T], a scalar to be differentiated."""

    def after_step(self, losses: Tensor) -> None:
        """Look at the losses [T] of the same batch after the optimizer's step, without a graph.

        Called only if `wants_losses_after_step`.
        """

    def end_epoch(self, losses: Tensor) -> None:
        """Look at the mean training losses [T] of the epoch."""


class EqualWeights(Weighting):
    """The plain sum of the losses.

    Example:
        >>> EqualWeights()(torch.tensor([1.0, 3.0]))
        tensor(4.)
    """

    def forward(self, losses: Tensor) -> Tensor:
        return losses.sum()


class Fixed(Weighting):
    """The sum of the losses with fixed weights, as a search on validation data gives them.

    Args:
        weights: one per task, finite and not negative.

    Raises:
        ValueError: a weight is negative or not finite.

    Example:
        >>> Fixed([1, 0.5])(torch.tensor([1.0, 3.0]))
        tensor(2.5000)
    """

    def __init__(self, weights: Sequence[float]):
        super().__init__()
        weights = torch.as_tensor(weights, dtype=torch.float32)
        if not (torch.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"Weights must be finite and not negative, got {weights.tolist()}.")
        self.register_buffer("weights", weights)

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights * losses).sum()


class Penalised(Weighting):
    """The sum of the losses and a penalty on the parameters: soft sharing with `fit_tasks`.

    Args:
        penalty: function without arguments that gives a scalar of the present parameters, with its
            graph.

    Example:
        >>> trunks = nn.Parameter(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))  # one row per task
        >>> weighting = Penalised(lambda: 0.1 * (trunks[0] - trunks[1]).square().sum())
        >>> print(f"{weighting(torch.tensor([1.0, 3.0])):.2f}")
        4.40
    """

    def __init__(self, penalty: Callable[[], Tensor]):
        super().__init__()
        self.penalty = penalty

    def forward(self, losses: Tensor) -> Tensor:
        return losses.sum() + self.penalty()


class Uncertainty(Weighting):
    """Homoscedastic uncertainty: log-likelihoods with one learned noise level per task.

    A mean squared error L is that of a Gaussian with variance sigma^2, whose negative
    log-likelihood is L / (2 sigma^2) + log sigma. For a cross-entropy the logits are divided by
    sigma^2, which gives about L / sigma^2 + log sigma. The parameters are s = log sigma^2
    (`log_variance`, [T], 0 at the start), so any value is allowed. The total may be negative, as a
    log-density may.

    Args:
        regression: one per task, True for a mean squared error and False for a cross-entropy.

    Source:
        Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR
        2018, section 3.2.

    Example:
        >>> weighting = Uncertainty([True, False])
        >>> weighting(torch.tensor([2.0, 3.0])).item()  # sigma = 1: 2 / 2 + 3
        4.0
    """

    def __init__(self, regression: Sequence[bool]):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(len(regression)))
        self.register_buffer("factor", torch.where(torch.tensor(regression), 0.5, 1.0))

    def forward(self, losses: Tensor) -> Tensor:
        return (self.factor * torch.exp(-self.log_variance) * losses + self.log_variance / 2).sum()


class GeometricMean(Weighting):
    """The geometric mean of the losses, whose direction no loss's unit can change.

    Raises:
        FloatingPointError: a loss is not finite; names the task by its place.
        ValueError: a loss is not positive.

    Source:
        Chennupati et al., "MultiNet++", CVPR workshops 2019.

    Example:
        >>> losses = torch.tensor([1.0, 4.0])
        >>> print(f"{GeometricMean()(losses):.2f}")
        2.00
        >>> print(f"{GeometricMean()(losses * torch.tensor([1, 100])):.2f}")  # another unit
        20.00
    """

    def forward(self, losses: Tensor) -> Tensor:
        _require_positive(losses, "A geometric mean needs positive losses, got")
        return losses.log().mean().exp()


class RandomWeights(Weighting):
    """Weights drawn anew at each step, T x softmax of a standard normal vector.

    They come from a generator of the method's own, on the CPU.

    Args:
        seed: of the generator.

    Source:
        Lin et al., "Reasonable effectiveness of random weighting", TMLR 2022.

    Example:
        >>> weighting = RandomWeights(seed=0)
        >>> print(f"{weighting(torch.ones(3)):.4f}")  # the weights sum to T
        3.0000
    """

    def __init__(self, seed: int = 0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, losses: Tensor) -> Tensor:
        draw = torch.randn(len(losses), generator=self.generator).softmax(0).to(losses)
        return len(losses) * (draw * losses).sum()

    def get_extra_state(self):
        return self.generator.get_state()

    def set_extra_state(self, state):
        self.generator.set_state(state)


class DWA(Weighting):
    """Dynamic weight average: more weight for a task whose loss falls more slowly.

    The weights are T softmax(r / temperature), with r_t the ratio of the last two mean epoch losses
    of task t. In the first two epochs they are equal.

    Args:
        temperature: > 0; a high one brings the weights near to equal ones.

    Raises:
        ValueError: the temperature is not positive, or a mean loss is negative: a ratio of such
            losses says nothing; names the task by its place.

    Source:
        Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019.

    Example:
        >>> weighting = DWA(temperature=1.0)
        >>> weighting.end_epoch(torch.tensor([1.0, 1.0]))
        >>> weighting.end_epoch(torch.tensor([0.5, 1.0]))  # the second task stands still
        >>> weighting.weights(torch.ones(2))
        tensor([0.7551, 1.2449])
    """

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be positive.")
        self.temperature = temperature
        self.history: list[Tensor] = []

    def weights(self, losses: Tensor) -> Tensor:
        """The weights [T] of this epoch, in the type and on the device of the losses."""
        if len(self.history) < 2:
            return torch.ones_like(losses)
        earlier, last = self.history
        # A loss that has reached 0 cannot fall any more: it stands still.
        ratio = torch.where(earlier > 0, last / earlier, 1.0)
        return len(losses) * (ratio / self.temperature).softmax(0).to(losses)

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights(losses.detach()) * losses).sum()

    def end_epoch(self, losses: Tensor) -> None:
        _require_ratios(losses, losses < 0, "DWA weighs by ratios of losses that are not negative")
        self.history = [*self.history, losses.detach().clone()][-2:]

    def get_extra_state(self):
        return self.history

    def set_extra_state(self, state):
        self.history = state


class SmoothChebyshev(Weighting):
    """A smooth maximum of the weighted losses above their ideal values.

    It is mu log sum_t exp(w_t (L_t - z_t) / mu), with weights w and ideal values z; mu -> 0 gives
    the worst task alone.

    Args:
        weights: one per task.
        ideal: the lowest losses that one could wish for, one per task; default 0.
        mu: smoothness in the unit of the weighted losses, > 0.

    Raises:
        ValueError: mu is not positive.

    Source:
        Lin et al., "Smooth Tchebycheff scalarization for multi-objective optimization", ICML 2024.

    Example:
        >>> losses = torch.tensor([1.0, 3.0])
        >>> print(", ".join(f"{SmoothChebyshev([1, 1], mu=mu)(losses):.3f}" for mu in (1.0, 0.1)))
        3.127, 3.000
    """

    def __init__(
        self, weights: Sequence[float], ideal: Sequence[float] | None = None, mu: float = 0.1
    ):
        super().__init__()
        if mu <= 0:
            raise ValueError(f"mu is {mu}; it must be positive.")
        self.mu = mu
        ideal = [0.0] * len(weights) if ideal is None else ideal
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))
        self.register_buffer("ideal", torch.as_tensor(ideal, dtype=torch.float32))

    def forward(self, losses: Tensor) -> Tensor:
        return self.mu * torch.logsumexp(self.weights * (losses - self.ideal) / self.mu, dim=0)


class GradNorm(Weighting):
    """Learned weights that bring the gradients of the weighted losses to a common length.

    A task that lags behind gets a longer one. The weights follow the gradient of
    sum_t | w_t |g_t| - mean_s(w_s |g_s|) r_t^alpha |, with the target taken as constant, where r_t
    is the loss relative to its first value, divided by the mean of these ratios. After each step
    they are scaled to sum to T. g_t is taken at the shared parameters that the loop passes and that
    learn; the paper uses the last shared layer.

    Args:
        tasks: their number T.
        alpha: how strongly tasks that lag behind are favoured; 0: not at all.
        rate: of the gradient step on the weights.

    Raises:
        ValueError: by the calls of the loop, if no shared parameter learns, or if a loss is not
            positive in the first step or in the mean of an epoch; names the task by its place.

    Source:
        Chen et al., "GradNorm", ICML 2018, algorithm 1.

    Example:
        >>> theta = nn.Parameter(torch.tensor(1.0))
        >>> weighting = GradNorm(tasks=2)
        >>> losses = torch.stack([theta, 10 * theta])  # gradients 1 and 10
        >>> weighting.before_backward(losses, [theta])
        >>> weighting.weights
        tensor([1.1549, 0.8451])
    """

    def __init__(self, tasks: int, alpha: float = 1.5, rate: float = 0.025):
        super().__init__()
        self.alpha, self.rate = alpha, rate
        self.register_buffer("weights", torch.ones(tasks))
        self.register_buffer("first", torch.full((tasks,), float("nan")))
        self._looked_at_first = False

    def before_backward(self, losses: Tensor, shared: Iterable[nn.Parameter]) -> None:
        if not self._looked_at_first:
            # Once per run: to look is to wait for the device.
            _require_ratios(losses.detach(), losses <= 0, NEEDS_OF_GRADNORM)
            self._looked_at_first = True
        norms = _gradient_norms(losses, shared)
        self.first = torch.where(self.first.isnan(), losses.detach(), self.first)
        # Between two looks a loss may be below 0: it has fallen as far as a ratio can tell.
        ratio = (losses.detach() / self.first).clamp_min(torch.finfo(losses.dtype).tiny)
        sizes = self.weights * norms
        target = sizes.mean() * (ratio / ratio.mean()) ** self.alpha
        moved = (self.weights - self.rate * norms * torch.sign(sizes - target)).clamp_min(1e-6)
        self.weights = moved * len(moved) / moved.sum()

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights * losses).sum()

    def end_epoch(self, losses: Tensor) -> None:
        _require_ratios(losses, losses <= 0, NEEDS_OF_GRADNORM)


class FAMO(Weighting):
    """Fast adaptive multitask optimization: all losses are to fall at the same rate.

    The logits of the weights learn from the change of log(L - minimum) that the last step brought.
    That takes one more forward pass per step, and no gradient of a single task.

    Args:
        tasks: their number T.
        rate: of Adam on the logits.
        decay: weight decay of the logits.
        minimum: lower bounds of the losses, one per task; default 0.

    Raises:
        FloatingPointError: a loss is not finite; names the task by its place.
        ValueError: a loss is not above its minimum.

    Source:
        Liu, Feng, Stone and Liu, "FAMO", NeurIPS 2023, algorithm 1.

    Example:
        >>> weighting = FAMO(tasks=2)
        >>> total = weighting(torch.tensor([1.0, 1.0]))
        >>> weighting.after_step(torch.tensor([0.5, 1.0]))  # the step helped the first task alone
        >>> weighting.logits.detach().softmax(0)
        tensor([0.4875, 0.5125])
    """

    wants_losses_after_step = True

    def __init__(
        self,
        tasks: int,
        rate: float = 0.025,
        decay: float = 1e-3,
        minimum: Sequence[float] | None = None,
    ):
        super().__init__()
        minimum = [0.0] * tasks if minimum is None else minimum
        self.register_buffer("minimum", torch.as_tensor(minimum, dtype=torch.float32))
        # Not a parameter: the logits have an optimizer of their own, with decay.
        self.logits = torch.zeros(tasks, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], lr=rate, weight_decay=decay)
        self.last_log_gap: Tensor | None = None

    def _log_gap(self, losses: Tensor) -> Tensor:
        """log(L - minimum) [T]."""
        gap = losses - self.minimum.to(losses)
        _require_positive(gap, "FAMO needs losses above their minimum; the gaps are")
        return gap.log()

    def forward(self, losses: Tensor) -> Tensor:
        log_gap = self._log_gap(losses)
        self.last_log_gap = log_gap.detach()
        weights = self.logits.detach().softmax(0).to(losses)
        scale = 1 / (weights / self.last_log_gap.exp()).sum()
        return scale * (weights * log_gap).sum()

    def after_step(self, losses: Tensor) -> None:
        decrease = self.last_log_gap - self._log_gap(losses.detach())
        (self.logits.grad,) = torch.autograd.grad(
            self.logits.softmax(0), self.logits, grad_outputs=decrease.to(self.logits)
        )
        self.optimizer.step()

    def get_extra_state(self):
        return {"logits": self.logits.detach().clone(), "optimizer": self.optimizer.state_dict()}

    def set_extra_state(self, state):
        with torch.no_grad():
            self.logits.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])


class RefusedLossError(ValueError):
    """A weighting that cannot take the losses of some tasks, which it knows by their places."""

    def __init__(self, reason: str, places: Sequence[int]):
        super().__init__(reason)
        self.places = tuple(places)


NEEDS_OF_GRADNORM = "GradNorm divides losses by their first values and needs positive ones"


def _require_ratios(losses: Tensor, refused: Tensor, need: str) -> None:
    """RefusedLossError where the losses [T] are `refused` [T]."""
    if places := refused.nonzero().flatten().tolist():
        listed = ", ".join(map(str, places))
        raise RefusedLossError(
            f"{need}; that of task {listed} (the first is task 0) is not: {losses.tolist()}."
            " A log-likelihood needs a weighting without ratios, such as a fixed one.",
            places,
        )


def _require_positive(values: Tensor, need: str) -> None:
    """An error unless all values [T] are positive and finite; a GPU is waited for only once."""
    if ((values > 0) & (values < math.inf)).all():
        return
    numbers = values.tolist()
    if bad := [str(task) for task, value in enumerate(numbers) if not math.isfinite(value)]:
        raise FloatingPointError(
            f"The loss of task {', '.join(bad)} (the first is task 0) is not finite: {numbers}."
        )
    refused = [task for task, value in enumerate(numbers) if value <= 0]
    raise RefusedLossError(f"{need} {numbers}.", refused)


def _gradient_norms(losses: Tensor, shared: Iterable[nn.Parameter]) -> Tensor:
    """Norms [T] of the gradients of the losses with respect to all shared parameters together.

    What is frozen is left out. The norm is 0 for a task that does not depend on the rest.
    """
    shared = list({id(p): p for p in shared if p.requires_grad}.values())
    if not shared:
        raise ValueError(
            "GradNorm compares gradients of shared parameters, and all of them are frozen."
        )
    norms = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        if place()[1] > 1:  # each process has rows of its own: the gradient is the mean of theirs
            pairs = zip(gradients, shared, strict=True)
            gradients = process_mean(torch.zeros_like(p) if g is None else g for g, p in pairs)
        reached = [g.norm() for g in gradients if g is not None]
        norms.append(torch.stack(reached).norm() if reached else loss.new_zeros(()))
    return torch.stack(norms)


def parameter_groups(model: nn.Module, weighting: Weighting, weight_decay: float) -> list[dict]:
    """Parameter groups for an optimizer: those of the weighting come without weight decay.

    Decay would pull what it learns, such as a log-variance, to 0, which is a value like any other.

    Args:
        model: its parameters get the weight decay.
        weighting: its parameters, where it has some, get none.
        weight_decay: for the model.

    Returns:
        One or two groups, as optimizers of torch take them.

    Example:
        >>> groups = parameter_groups(nn.Linear(2, 2), Uncertainty([True, False]), 0.1)
        >>> [group["weight_decay"] for group in groups]
        [0.1, 0.0]
    """
    groups = [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    if learned := list(weighting.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0})
    return groups
