"""Few-shot classification with no inner loop through the network: prototypes, and a fresh head.

Shapes: T tasks, n support and q query examples per task, features of d numbers, labels 0 to
ways - 1 in each task.
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
from ..training.modes import hold, is_held, release
from . import _fast
from .functional import Functional
from .maml import objective, require_finite


def prototypes(z: Tensor, y: Tensor, ways: int) -> Tensor:
    """The mean feature of each class.

    Args:
        z: features [..., n, d].
        y: labels [..., n], int64.
        ways: how many classes there are.

    Returns:
        Prototypes [..., ways, d].

    Raises:
        ValueError: a class has no example.

    Source:
        Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
        equation 1.

    Example:
        >>> from mtl_course.meta import prototypes
        >>> z = torch.tensor([[0.0, 0.0], [2.0, 4.0], [5.0, 5.0]])
        >>> prototypes(z, torch.tensor([0, 0, 1]), ways=2)
        tensor([[1., 2.],
                [5., 5.]])
    """
    member = F.one_hot(y, ways).to(z.dtype)
    counts = member.sum(-2)
    if not counts.all():
        empty = int((counts == 0).nonzero()[0, -1])
        raise ValueError(
            f"A prototype is a mean, and class {empty} of a task has no example in the support."
        )
    return member.transpose(-2, -1) @ z / counts[..., None]


def distance_logits(z: Tensor, centres: Tensor) -> Tensor:
    """Logits from distances: minus the squared distance to each centre.

    Args:
        z: features [..., q, d].
        centres: [..., ways, d], such as prototypes.

    Returns:
        Logits [..., q, ways]; float32 for features of 16 bits.

    Source:
        Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
        equation 2.

    Example:
        >>> from mtl_course.meta import distance_logits
        >>> centres = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> distance_logits(torch.tensor([[0.0, 1.0]]), centres).tolist()
        [[-1.0, -18.0]]
    """
    if z.dtype in (torch.float16, torch.bfloat16):
        z, centres = z.float(), centres.float()  # a square of 300 is beyond float16
    # By differences: |z|^2 - 2 z.c + |c|^2 loses every digit where features lie far from zero.
    return -(z.unsqueeze(-2) - centres.unsqueeze(-3)).square().sum(-1)


def embed(model: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Features of several sets of inputs, such as supports and queries, in one pass.

    So BatchNorm in training mode takes its statistics over all of them, and in evaluation mode uses
    those that were learned.

    Args:
        model: [N, ...] -> [N, d].
        inputs: tensors [T, n, ...], each with its own n.

    Returns:
        Features [T, n, d] of each of the inputs.

    Example:
        >>> from mtl_course.meta import embed
        >>> support, query = torch.zeros(4, 5, 28, 28), torch.zeros(4, 15, 28, 28)
        >>> [list(z.shape) for z in embed(nn.Flatten(), support, query)]
        [[4, 5, 784], [4, 15, 784]]
    """
    tasks, sizes = len(inputs[0]), [x.shape[1] for x in inputs]
    z = model(torch.cat(inputs, 1).flatten(0, 1))
    return z.unflatten(0, (tasks, sum(sizes))).split(sizes, 1)


def prototype_logits(model: nn.Module, episodes: Episodes, ways: int) -> Tensor:
    """A prototypical network: logits of the queries by distance to the support's prototypes.

    Args:
        model: the features, [N, ...] -> [N, d].
        episodes: T tasks.
        ways: how many classes each has.

    Returns:
        Logits [T, q, ways].

    Source:
        Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
        equation 2.

    Example:
        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import prototype_logits
        >>> support = torch.tensor([[[0.0], [4.0]]]), torch.tensor([[0, 1]])
        >>> query = torch.tensor([[[1.0]]]), torch.tensor([[0]])
        >>> prototype_logits(nn.Identity(), Episodes(support, query), ways=2).tolist()
        [[[-1.0, -9.0]]]
    """
    (x, y), (query, _) = episodes.support, episodes.query
    z, query_z = embed(model, x, query)
    return distance_logits(query_z, prototypes(z, y, ways))


def with_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy whose BatchNorm layers normalise by mean and variance of one batch.

    With the images of a task's support it is inductive: a query is judged alone. With queries among
    them it is transductive: what is said about one query then depends on the others. A frozen part
    takes the statistics too, and is as frozen in the copy.

    Args:
        model: a model with BatchNorm; it stays as it is.
        x: the batch [n, ...].

    Returns:
        A copy in evaluation mode.

    Raises:
        ValueError: the model has no BatchNorm, or the batch is one row, which has no variance.

    Source:
        Bronskill et al., "TaskNorm", ICML 2020, compare the two.

    Example:
        >>> from mtl_course.meta import with_statistics
        >>> ready = with_statistics(nn.BatchNorm1d(1), torch.tensor([[1.0], [3.0]]))
        >>> [norm.item() for norm in (ready.running_mean, ready.running_var)]
        [2.0, 2.0]
    """
    model = deepcopy(model).eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        raise ValueError("The model has no BatchNorm, so it has no statistics to set.")
    held = [norm for norm in norms if is_held(norm)]
    for norm in norms:
        release(norm)
        _start_statistics(norm, x)
        norm.train()
    try:
        with torch.no_grad():
            model(x)
    except ValueError as error:
        if len(x) > 1:
            raise
        raise ValueError("The batch is a single row, which has a mean but no variance.") from error
    for norm in held:
        hold(norm)
    return model.eval()


def _start_statistics(norm: _BatchNorm, x: Tensor) -> None:
    """Running statistics that become those of the next batch, also where the norm kept none."""
    if norm.running_mean is None:
        device = x.device if norm.weight is None else norm.weight.device
        dtype = torch.get_default_dtype() if norm.weight is None else norm.weight.dtype
        norm.track_running_stats = True
        norm.running_mean = torch.zeros(norm.num_features, device=device, dtype=dtype)
        norm.running_var = torch.ones(norm.num_features, device=device, dtype=dtype)
        norm.num_batches_tracked = torch.tensor(0, device=device)
    norm.reset_running_stats()
    norm.momentum = None  # the average over all batches since the reset, which is this one


def query_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each task.

    Args:
        logits: [T, q, ways].
        y: labels [T, q], int64.

    Returns:
        Losses [T], in nats.

    Example:
        >>> from mtl_course.meta import query_losses
        >>> loss = query_losses(torch.zeros(3, 10, 5), torch.zeros(3, 10, dtype=torch.int64))
        >>> torch.allclose(loss, torch.full((3,), math.log(5)))  # nothing is known of five classes
        True
    """
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1)


def query_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of right queries of each task.

    Args:
        logits: [T, q, ways].
        y: labels [T, q], int64.

    Returns:
        Accuracies [T], from 0 to 1; NaN for a task that has a logit which is NaN.

    Example:
        >>> from mtl_course.meta import query_accuracy
        >>> logits = torch.eye(2).expand(3, 2, 2)  # says class 0, then class 1
        >>> query_accuracy(logits, torch.tensor([[0, 1], [0, 0], [1, 0]])).tolist()
        [1.0, 0.5, 0.0]
    """
    right = (logits.argmax(-1) == y).float()
    return right.masked_fill(logits.isnan().any(-1), torch.nan).mean(1)


class CosineHead(nn.Module):
    """A head whose logits are a scaled cosine: of the features to each class's weight.

    Takes features [..., features], gives logits [..., classes].

    Args:
        features: how many features there are.
        classes: how many classes.
        scale: the logit of a cosine of 1.

    Source:
        Chen et al., "A closer look at few-shot classification", ICLR 2019 (Baseline++), section
        3.2; Gidaris and Komodakis, CVPR 2018.

    Example:
        >>> from mtl_course.meta import CosineHead
        >>> head, z = CosineHead(features=4, classes=3), torch.randn(2, 4)
        >>> torch.allclose(head(z), head(100 * z), atol=1e-4)  # only the direction counts
        True
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
    """Baseline and Baseline++: train a copy of the head on each task, on frozen features.

    A linear head is Baseline, a `CosineHead` Baseline++. All tasks are trained together, by plain
    gradient descent on the cross-entropy; nothing is differentiated through.

    Args:
        head: [n, d] -> [n, ways]. It stays as it is.
        support: features [T, n, d] and labels [T, n].
        z: the queries' features [T, q, d].
        steps: how many steps of gradient descent.
        rate: of these steps.

    Returns:
        Logits [T, q, ways].

    Raises:
        FloatingPointError: the training diverged; it names the task, the rate and the steps.

    Source:
        Chen et al., "A closer look at few-shot classification", ICLR 2019, section 3.

    Example:
        >>> from mtl_course.meta import fine_tuned_logits, query_accuracy
        >>> z, y = torch.tensor([[[-1.0], [1.0]], [[1.0], [-1.0]]]), torch.tensor([[0, 1], [0, 1]])
        >>> query_accuracy(fine_tuned_logits(nn.Linear(1, 2), (z, y), z), y).tolist()
        [1.0, 1.0]
    """
    f = Functional(head)
    start = {name: p.detach() for name, p in f.parameters().items()}
    logits = _adapted_logits(f, start, (*support, z), steps, rate, at_once=len(z))
    require_finite(logits, steps, rate)
    return logits


def adapted_logits(
    f: Functional, episodes: Episodes, steps: int, rate: float, at_once: int = 25
) -> Tensor:
    """MAML at test time: adapt to each task's support, then classify its queries.

    Many tasks together pay even for convolutions on a CPU, because no second derivatives are taken;
    nothing is differentiated through. The model has no recurrent layers.

    Args:
        f: the model, at its learned start.
        episodes: T tasks.
        steps: how many steps on a task's support.
        rate: of these steps.
        at_once: how many tasks are taken together.

    Returns:
        Logits [T, q, ways].

    Raises:
        FloatingPointError: an inner loop diverged; it names the task, the rate and the steps.

    Source:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017, equation 1.

    Example:
        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import Functional, adapted_logits
        >>> z, y = torch.tensor([[[-1.0], [1.0]], [[1.0], [-1.0]]]), torch.tensor([[0, 1], [0, 1]])
        >>> f = Functional(nn.Linear(1, 2))
        >>> logits = adapted_logits(f, Episodes((z, y), (z, y)), steps=100, rate=0.1)
        >>> logits.argmax(-1).tolist()
        [[0, 1], [0, 1]]
    """
    tasks = *episodes.support, episodes.query[0]
    logits = _adapted_logits(f, f.parameters(), tasks, steps, rate, at_once)
    require_finite(logits, steps, rate)
    return logits


@torch.no_grad()
def _adapted_logits(f, start, tasks, steps, rate, at_once) -> Tensor:
    """Logits [T, q, ways] for tasks = (x [T, n, ...], y [T, n], query [T, q, ...])."""
    value = objective(f, F.cross_entropy)

    def one(x, y, query):
        ends = _fast.adapted(value, start, list(start), (x, y), steps, rate, first_order=True)
        return f(ends, query)

    return vmap(one, randomness="different", chunk_size=at_once)(*tasks)


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
    """Accuracy on each of many episodes; the same episodes for all that are judged.

    Args:
        logits_of: episodes -> logits [T, q, ways].
        source: what the episodes are drawn from.
        ways: classes per task.
        shots: support examples per class.
        queries: query examples per class.
        tasks: how many episodes.
        seed: fixes the episodes, for sources on one kind of device.
        at_once: how many go through in a pass.

    Returns:
        Accuracies [tasks], from 0 to 1.

    Example:
        >>> from mtl_course.data.episodes import EpisodeSource
        >>> from mtl_course.meta import episode_accuracy, prototype_logits
        >>> y = torch.arange(3).repeat(4)  # three classes, and inputs that tell them apart
        >>> source = EpisodeSource(10.0 * y[:, None], y)
        >>> perfect = lambda episodes: prototype_logits(nn.Identity(), episodes, ways=2)
        >>> episode_accuracy(perfect, source, ways=2, shots=1, queries=2, tasks=3).tolist()
        [1.0, 1.0, 1.0]
    """
    generator = torch.Generator(source.x.device).manual_seed(seed)
    accuracies = []
    for first in range(0, tasks, at_once):
        count = min(at_once, tasks - first)
        episodes = source.classification(count, ways, shots, queries, generator)
        accuracies.append(query_accuracy(logits_of(episodes), episodes.query[1]))
    return torch.cat(accuracies)


def interval(values: Tensor) -> tuple[float, float]:
    """Mean over tasks, and half the width of its 95 % interval.

    Args:
        values: one number per task, [T], such as accuracies.

    Returns:
        The mean and 1.96 standard errors of it.

    Raises:
        ValueError: there are fewer than two tasks.

    Example:
        >>> from mtl_course.meta import interval
        >>> mean, half = interval(torch.tensor([0.4, 0.6, 0.4, 0.6]))
        >>> f"{mean:.2f} ± {half:.2f}"
        '0.50 ± 0.11'
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least 2 tasks; here are {len(values)}.")
    return float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
