"""Loss weighting: T task losses -> the one scalar that is differentiated.

Each method is a small module, ``total = weighting(losses)`` with losses [T] and a scalar total.
What a method learns are its
parameters: give them to the optimizer with `parameter_groups`, which keeps weight decay away from
    them. What it observes, it observes through three calls that the training loop makes on every
    method and that do nothing unless a method needs them: `before_backward` (GradNorm),
    `after_step` (FAMO) and `end_epoch` (DWA). All that a method remembers is in its `state_dict`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


class Weighting(nn.Module):
    """Equal weights: the sum of the losses. The base of all methods."""

    def forward(self, losses: Tensor) -> Tensor:
        return losses.sum()

    def before_backward(self, losses: Tensor, shared: Iterable[nn.Parameter]) -> None:
        """Called with the losses [T], their graph alive, and the shared parameters, before the
        total is differentiated.
        """

    def after_step(self, losses: Tensor) -> None:
        """Called with the losses [T] of the same batch, computed anew after the optimizer's step,
        if `wants_losses_after_step`.
        """

    def end_epoch(self, losses: Tensor) -> None:
        """Called with the mean training losses [T] of the epoch."""

    wants_losses_after_step = False


class Fixed(Weighting):
    """Fixed weights [T], as found by a search on validation data. ValueError if one is negative or
    not finite.
    """

    def __init__(self, weights: Sequence[float]):
        super().__init__()
        weights = torch.as_tensor(weights, dtype=torch.float32)
        if not (torch.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"Weights must be finite and not negative, got {weights.tolist()}.")
        self.register_buffer("weights", weights)

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights * losses).sum()


class Uncertainty(Weighting):
    """Homoscedastic uncertainty: the losses as negative log-likelihoods with a learned noise level
    a task.

    regression [T] of bool: True for a mean squared error, a Gaussian with variance sigma^2 whose
    negative log-likelihood is L / (2 sigma^2) + log sigma; False for a cross-entropy, whose logits
    are divided by sigma^2, approximately L / sigma^2 + log sigma. The parameters are s = log
    sigma^2, so any value is allowed; the total may be negative, as a log-density may. Source:
    Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018,
    section 3.2.
    """

    def __init__(self, regression: Sequence[bool]):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(len(regression)))
        self.register_buffer("factor", torch.where(torch.tensor(regression), 0.5, 1.0))

    def forward(self, losses: Tensor) -> Tensor:
        return (self.factor * torch.exp(-self.log_variance) * losses + self.log_variance / 2).sum()


class GeometricMean(Weighting):
    """Geometric mean of the losses: rescaling one of them rescales the total and changes no
    direction.

    Source: Chennupati et al., "MultiNet++", CVPR workshops 2019. ValueError if a loss is not
    positive.
    """

    def forward(self, losses: Tensor) -> Tensor:
        if not (losses > 0).all():
            raise ValueError(f"A geometric mean needs positive losses, got {losses.tolist()}.")
        return losses.log().mean().exp()


class RandomWeights(Weighting):
    """Weights drawn anew at each step: T x softmax of a standard normal vector, from a generator of
    its own.

    Source: Lin et al., "Reasonable effectiveness of random weighting", TMLR 2022.
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
    """Dynamic weight average: more weight for a task whose loss falls more slowly, from epoch to
    epoch.

    w_t = T softmax(r / temperature)_t with r_t the ratio of its last two mean epoch losses; equal
    weights in the first two epochs. Source: Liu, Johns and Davison, "End-to-end multi-task learning
    with attention", CVPR 2019.
    """

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        self.temperature = temperature
        self.history: list[Tensor] = []

    def weights(self, losses: Tensor) -> Tensor:
        if len(self.history) < 2:
            return torch.ones_like(losses)
        before, last = self.history
        return len(losses) * (last / before / self.temperature).softmax(0).to(losses)

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights(losses.detach()) * losses).sum()

    def end_epoch(self, losses: Tensor) -> None:
        self.history = [*self.history, losses.detach().clone()][-2:]

    def get_extra_state(self):
        return self.history

    def set_extra_state(self, state):
        self.history = state


class SmoothChebyshev(Weighting):
    """A smooth maximum of the weighted losses above their ideal values: mu log sum_t exp(w_t (L_t -
    z_t) / mu).

    weights [T], ideal z [T] (default 0), mu > 0; mu -> 0 gives the worst task alone. Source: Lin et
    al., "Smooth Tchebycheff scalarization for multi-objective optimization", ICML 2024.
    """

    def __init__(
        self, weights: Sequence[float], ideal: Sequence[float] | None = None, mu: float = 0.1
    ):
        super().__init__()
        if mu <= 0:
            raise ValueError(f"mu is {mu}; it must be positive.")
        self.mu = mu
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))
        self.register_buffer(
            "ideal",
            (
                torch.zeros(len(weights))
                if ideal is None
                else torch.as_tensor(ideal, dtype=torch.float32)
            ),
        )

    def forward(self, losses: Tensor) -> Tensor:
        return self.mu * torch.logsumexp(self.weights * (losses - self.ideal) / self.mu, dim=0)


class GradNorm(Weighting):
    """Learned weights that bring the gradient norms of the weighted losses to a common size, larger
    for tasks that lag behind.

    The weights follow the gradient of sum_t | w_t |g_t| - mean_s(w_s |g_s|) r_t^alpha |, the target
    taken as constant, where r_t is the loss relative to its first value, divided by the mean of
    these ratios. After each step they are scaled to sum to T. g_t is taken at the shared parameters
    that the loop passes; the paper uses the last shared layer. Source: Chen et al., "GradNorm",
    ICML 2018, algorithm 1.
    """

    def __init__(self, tasks: int, alpha: float = 1.5, rate: float = 0.025):
        super().__init__()
        self.alpha, self.rate = alpha, rate
        self.register_buffer("weights", torch.ones(tasks))
        self.register_buffer("first", torch.full((tasks,), float("nan")))

    def forward(self, losses: Tensor) -> Tensor:
        return (self.weights * losses).sum()

    def before_backward(self, losses: Tensor, shared: Iterable[nn.Parameter]) -> None:
        shared = list(shared)
        gradients = [
            torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
            for loss in losses
        ]
        norms = torch.stack(
            [torch.stack([g.norm() for g in task if g is not None]).norm() for task in gradients]
        )
        self.first = torch.where(self.first.isnan(), losses.detach(), self.first)
        ratio = losses.detach() / self.first
        sizes = self.weights * norms
        target = sizes.mean() * (ratio / ratio.mean()) ** self.alpha
        moved = (self.weights - self.rate * norms * torch.sign(sizes - target)).clamp_min(1e-6)
        self.weights = moved * len(moved) / moved.sum()


class FAMO(Weighting):
    """Fast adaptive multitask optimization: equal rates of decrease for all losses, at the cost of
    one more forward pass a step.

    The logits learn from the change of log(L - minimum) that the last step brought; `minimum` [T]
    are lower bounds of the losses. Source: Liu, Feng, Stone and Liu, "FAMO", NeurIPS 2023,
    algorithm 1.
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
        self.register_buffer(
            "minimum",
            (
                torch.zeros(tasks)
                if minimum is None
                else torch.as_tensor(minimum, dtype=torch.float32)
            ),
        )
        self.logits = torch.zeros(
            tasks, requires_grad=True
        )  # not a parameter: it has an optimizer of its own, with decay
        self.optimizer = torch.optim.Adam([self.logits], lr=rate, weight_decay=decay)
        self.before: Tensor | None = None

    def _log_gap(self, losses: Tensor) -> Tensor:
        gap = losses - self.minimum.to(losses)
        if not (gap > 0).all():
            raise ValueError(f"FAMO needs losses above their minimum; the gaps are {gap.tolist()}.")
        return gap.log()

    def forward(self, losses: Tensor) -> Tensor:
        log_gap = self._log_gap(losses)
        self.before = log_gap.detach()
        weights = self.logits.detach().softmax(0).to(losses)
        scale = 1 / (weights / self.before.exp()).sum()
        return scale * (weights * log_gap).sum()

    def after_step(self, losses: Tensor) -> None:
        decrease = self.before - self._log_gap(losses.detach())
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


class Penalised(Weighting):
    """The sum of the losses and a penalty on the parameters: the `combine` of `multitask.fit_tasks`
    for soft sharing.

    penalty: function without arguments that gives a scalar, such as ``lambda: 0.1 *
        model.pattern.spread()``.
    """

    def __init__(self, penalty: Callable[[], Tensor]):
        super().__init__()
        self.penalty = penalty

    def forward(self, losses: Tensor) -> Tensor:
        return losses.sum() + self.penalty()


def parameter_groups(model: nn.Module, weighting: Weighting, weight_decay: float) -> list[dict]:
    """Parameter groups for an optimizer: the model's with weight decay, the weighting's without,
    since decay would pull weights to a value.
    """
    groups = [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    own = list(weighting.parameters())
    return groups + ([{"params": own, "weight_decay": 0.0}] if own else [])
