"""Few-shot classification without an inner loop through the network: prototypes, and a fresh head
on frozen features.

Shapes: T tasks, n support and q query examples a task, features of d numbers, labels 0 to ways - 1
in each task.
"""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.episodes import Episodes, EpisodeSource
from .functional import Functional
from .maml import adapt, objective, require_finite


def prototypes(z: Tensor, y: Tensor, ways: int) -> Tensor:
    """The mean feature of each class: z [..., n, d], y [..., n] int64 -> [..., ways, d]. ValueError
    if a class has no example.

    Source: Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
    equation 1.
    """
    member = F.one_hot(y, ways).to(z.dtype)
    counts = member.sum(-2)
    if not counts.all():
        raise ValueError(
            f"A prototype is a mean, and class {int((counts == 0).nonzero()[0, -1])} of a task has"
            " no example in the support."
        )
    return member.transpose(-2, -1) @ z / counts[..., None]


def distance_logits(z: Tensor, centres: Tensor) -> Tensor:
    """Minus the squared distance of z [..., q, d] to each of the centres [..., ways, d]: logits
    [..., q, ways] (equation 2 there).
    """
    return (
        2 * z @ centres.transpose(-2, -1)
        - z.square().sum(-1, keepdim=True)
        - centres.square().sum(-1)[..., None, :]
    )


def embed(model: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Features [T, n, d] of each of the inputs [T, n, ...], such as supports and queries, all in
    one pass.

    So BatchNorm in training mode takes its statistics over all of them, and in evaluation mode uses
    those that were learned.
    """
    tasks, sizes = len(inputs[0]), [x.shape[1] for x in inputs]
    z = model(torch.cat(inputs, 1).flatten(0, 1))
    return z.unflatten(0, (tasks, sum(sizes))).split(sizes, 1)


def prototype_logits(model: nn.Module, episodes: Episodes, ways: int) -> Tensor:
    """Logits [T, q, ways] of the queries by their distance to the support's prototypes, in the
    features of `model`.
    """
    (x, y), (query, _) = episodes.support, episodes.query
    z, judged = embed(model, x, query)
    return distance_logits(judged, prototypes(z, y, ways))


def with_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy in evaluation mode whose BatchNorm layers normalise by mean and variance of the batch
    x [n, ...].

    With the images of a task's support it is inductive: a query is judged alone. With queries among
    them it is transductive: what is said about one query then depends on the others. ValueError for
    a model without BatchNorm. See Bronskill et al., "TaskNorm", ICML 2020.
    """
    model = deepcopy(model).eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        raise ValueError("The model has no BatchNorm, so it has no statistics to set.")
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches since the reset, which is this one
        norm.train()
    with torch.no_grad():
        model(x)
    return model.eval()


def query_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each task: logits [T, q, ways], y [T, q] -> [T]."""
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1)


def query_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of right queries of each task: logits [T, q, ways], y [T, q] -> [T]."""
    return (logits.argmax(-1) == y).float().mean(1)


class CosineHead(nn.Module):
    """Logits are `scale` times the cosine of the features to each class's weight: z [..., features]
    -> [..., classes].

    Source: Chen et al., "A closer look at few-shot classification", ICLR 2019 (Baseline++), section
    3.2; Gidaris and Komodakis, CVPR 2018.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(classes, features) / math.sqrt(features))

    def forward(self, z: Tensor) -> Tensor:
        return self.scale * F.normalize(z, dim=-1) @ F.normalize(self.weight, dim=-1).T


def fine_tuned_logits(
    head: nn.Module, support: tuple[Tensor, Tensor], z: Tensor, steps: int = 100, rate: float = 0.1
) -> Tensor:
    """Baseline (a linear head) and Baseline++ (`CosineHead`): train a copy of `head` on each task's
    support, on frozen features.

    support: features [T, n, d] and labels [T, n]; z: the queries' features [T, q, d]. All tasks are
        trained at once, by plain gradient descent on the cross-entropy. Returns logits [T, q,
        ways]; nothing is differentiated through. FloatingPointError if the training diverged.
    """
    f = Functional(head)
    of, start = (
        objective(f, F.cross_entropy),
        {name: p.detach() for name, p in f.parameters().items()},
    )
    with torch.no_grad():
        logits = vmap(
            lambda x, y, query: f(adapt(of, start, (x, y), steps, rate, first_order=True), query)
        )(*support, z)
    require_finite(logits, steps, rate)
    return logits


@torch.no_grad()
def adapted_logits(
    f: Functional, episodes: Episodes, steps: int, rate: float, at_once: int = 25
) -> Tensor:
    """MAML at test time: logits [T, q, ways] after `steps` steps on each task's support, `at_once`
    tasks together; nothing is differentiated through.

    Many tasks together pay even for convolutions on a CPU, because no second derivatives are taken.
    The model has no recurrent layers.
    """
    of, start = objective(f, F.cross_entropy), f.parameters()

    def one(x, y, query):
        return f(adapt(of, start, (x, y), steps, rate, first_order=True), query)

    logits = vmap(one, chunk_size=at_once)(*episodes.support, episodes.query[0])
    require_finite(logits, steps, rate)
    return logits


@torch.no_grad()
def episode_accuracy(
    logits_of: Callable[[Episodes], Tensor],
    source: EpisodeSource,
    ways: int,
    shots: int,
    queries: int,
    tasks: int = 600,
    seed: int = 0,
    at_once: int = 50,
) -> Tensor:
    """Accuracy [tasks] of each of `tasks` episodes drawn from `source`, `at_once` in a pass; the
    same episodes for all that are judged.

    logits_of: episodes -> logits [T, q, ways]. seed: fixes the episodes, for sources on one kind of
        device.
    """
    g, found = torch.Generator(source.x.device).manual_seed(seed), []
    for first in range(0, tasks, at_once):
        episodes = source.classification(min(at_once, tasks - first), ways, shots, queries, g)
        found.append(query_accuracy(logits_of(episodes), episodes.query[1]))
    return torch.cat(found)


def interval(values: Tensor) -> tuple[float, float]:
    """Mean over tasks and half the width of its 95 % interval, 1.96 standard errors. ValueError for
    fewer than two tasks.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least 2 tasks; here are {len(values)}.")
    return float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
