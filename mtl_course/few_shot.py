"""Few-shot classification without an inner loop through the network: prototypes, and a fresh head on frozen features.

Shapes: T tasks, n support and q query examples a task, features of d numbers, labels 0 to ways - 1 in each task.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from .data.episodes import Episodes
from .functional import Functional, Params
from .meta import adapt, objective


def prototypes(z: Tensor, y: Tensor, ways: int) -> Tensor:
    """The mean feature of each class: z [..., n, d], y [..., n] int64 -> [..., ways, d]. ValueError if a class has no example.

    Source: Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017, equation 1.
    """
    member = F.one_hot(y, ways).to(z.dtype)
    counts = member.sum(-2)
    if not counts.all():
        raise ValueError(f"A prototype is a mean, and class {int((counts == 0).nonzero()[0, -1])} of a task has no example in the support.")
    return member.transpose(-2, -1) @ z / counts[..., None]


def distance_logits(z: Tensor, centres: Tensor) -> Tensor:
    """Minus the squared distance of z [..., q, d] to each of the centres [..., ways, d]: logits [..., q, ways] (equation 2 there)."""
    return 2 * z @ centres.transpose(-2, -1) - z.square().sum(-1, keepdim=True) - centres.square().sum(-1)[..., None, :]


def embed(f: Functional, params: Params, x: Tensor) -> Tensor:
    """Features [T, n, d] of x [T, n, ...], all tasks in one pass; task by task where BatchNorm takes the statistics of what is passed."""
    if f.transductive:
        return torch.stack([f(params, task) for task in x])
    return f(params, x.flatten(0, 1)).unflatten(0, x.shape[:2])


def prototype_logits(f: Functional, params: Params, episodes: Episodes, ways: int) -> Tensor:
    """Logits [T, q, ways] of the queries by their distance to the support's prototypes."""
    (x, y), (query, _) = episodes.support, episodes.query
    return distance_logits(embed(f, params, query), prototypes(embed(f, params, x), y, ways))


def query_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each task: logits [T, q, ways], y [T, q] -> [T]."""
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1)


def query_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of right queries of each task: logits [T, q, ways], y [T, q] -> [T]."""
    return (logits.argmax(-1) == y).float().mean(1)


class CosineHead(nn.Module):
    """Logits are `scale` times the cosine of the features to each class's weight: z [..., features] -> [..., classes].

    Source: Chen et al., "A closer look at few-shot classification", ICLR 2019 (Baseline++), section 3.2; Gidaris and Komodakis, CVPR 2018.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(classes, features) / math.sqrt(features))

    def forward(self, z: Tensor) -> Tensor:
        return self.scale * F.normalize(z, dim=-1) @ F.normalize(self.weight, dim=-1).T


def fine_tuned_logits(head: nn.Module, support: tuple[Tensor, Tensor], z: Tensor, steps: int = 100, rate: float = 0.1) -> Tensor:
    """Baseline (a linear head) and Baseline++ (`CosineHead`): train a copy of `head` on each task's support, on frozen features.

    support: features [T, n, d] and labels [T, n]; z: the queries' features [T, q, d]. All tasks are trained at once, by plain gradient
    descent on the cross-entropy. Returns logits [T, q, ways]; nothing is differentiated through.
    """
    f = Functional(head)
    of, start = objective(f, F.cross_entropy), {name: p.detach() for name, p in f.parameters().items()}
    with torch.no_grad():
        return vmap(lambda x, y, query: f(adapt(of, start, (x, y), steps, rate, first_order=True), query))(*support, z)


def interval(values: Tensor) -> tuple[float, float]:
    """Mean over tasks and half the width of its 95 % interval, 1.96 standard errors. ValueError for fewer than two tasks."""
    if len(values) < 2:
        raise ValueError(f"An interval needs at least 2 tasks; here are {len(values)}.")
    return float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
