"""Memories: what a method of continual learning keeps of earlier tasks, and its term in the loss.

`Replay` keeps examples, `DarkReplay` also their logits, `Ewc` an anchor and a Fisher diagonal,
`Distillation` the old network. Each is a `stream.Memory`: it has `loss(model, x, logits, task)`,
its term in each step of a task (from the second on); `end_task(model, stream, task)`, which stores;
and `numbers`, how many it holds, besides the network, while the next task is learned. Several may
be combined; none is fine-tuning.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn import functional as F

from ..training.modes import batch_norms, call_with, evaluating
from .stream import Examples, Stream


class Reservoir:
    """A sample of a stream in which every example seen so far is equally likely.

    That holds at every moment, however long the stream will be.

    Args:
        size: how many examples it holds at most.
        seed: fixes which.

    Raises:
        ValueError: the size is below 1.

    Source:
        Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11,
        1985 (algorithm R).

    Example:
        >>> from mtl_course.streams import Reservoir
        >>> box = Reservoir(size=3)
        >>> box.add(torch.zeros(2, 1), torch.tensor([7, 8]))
        >>> box.y[: len(box)].tolist()  # everything, until it is full
        [7, 8]
        >>> box.add(torch.zeros(100, 1), torch.arange(100))
        >>> len(box), box.seen
        (3, 102)
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise ValueError(f"A reservoir must hold at least one example; its size is {size}.")
        self.size, self.seen, self.generator = size, 0, torch.Generator().manual_seed(seed)
        self.x: Tensor | None = None
        self.y: Tensor | None = None

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Show it examples x [n, ...], y [n], in this order."""
        if self.x is None:
            self.x, self.y = x.new_empty(self.size, *x.shape[1:]), y.new_empty(self.size)
        # How many have been seen with this one: it goes into a slot that is drawn from so many.
        count = self.seen + torch.arange(1, len(x) + 1)
        slot = (torch.rand(len(x), generator=self.generator, dtype=torch.float64) * count).long()
        slot = torch.where(count <= self.size, count - 1, slot)
        # Of several in one slot the last stays; a slot beyond the size is none.
        last = {s: row for row, s in enumerate(slot.tolist()) if s < self.size}
        slots = torch.tensor(list(last.keys()), dtype=torch.int64, device=x.device)
        rows = torch.tensor(list(last.values()), dtype=torch.int64, device=x.device)
        self.x[slots], self.y[slots] = x[rows], y[rows]
        self.seen += len(x)

    def draw(self, n: int) -> Examples:
        """`n` of the kept examples, drawn with replacement."""
        rows = torch.randint(len(self), (n,), generator=self.generator).to(self.x.device)
        return self.x[rows], self.y[rows]


class Replay:
    """Experience replay: with every batch, as many examples of earlier tasks, and their loss.

    The examples come from a reservoir; those of a task are added when it ends.

    Args:
        stream: the tasks.
        size: how many examples are kept.
        seed: fixes which.

    Source:
        Rolnick et al., "Experience replay for continual learning", NeurIPS 2019; Chaudhry et al.,
        "On tiny episodic memories in continual learning", 2019 (they add examples at each step).

    Example:
        >>> from mtl_course.streams import Replay, class_stream
        >>> digits = torch.arange(8.0).reshape(4, 2), torch.arange(4)
        >>> stream = class_stream(digits, digits, range(4), 2, True)
        >>> memory = Replay(stream, size=10)
        >>> memory.end_task(None, stream, task=0)
        >>> len(memory.buffer), memory.numbers  # room for ten examples of two inputs and a label
        (2, 30)
    """

    def __init__(self, stream: Stream, size: int, seed: int = 0):
        self.stream, self.buffer = stream, Reservoir(size, seed)

    @property
    def numbers(self) -> int:
        """Those of the reservoir's inputs and labels."""
        return 0 if self.buffer.x is None else self.buffer.x.numel() + self.buffer.y.numel()

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """The cross-entropy of as many kept examples as x has, a scalar."""
        old_x, old_y = self.buffer.draw(len(x))
        return F.cross_entropy(self.stream.compete(model(old_x), old_y, task), old_y)

    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Show the task's examples to the reservoir."""
        self.buffer.add(*stream.train[task])


class DarkReplay(Replay):
    """DER++: replay that also holds the kept examples' logits to those they had.

    To replay's cross-entropy it adds ``strength`` times the mean squared distance of the logits,
    over a draw of its own. As in `Replay`, an example enters when its task ends; its logits are
    those of the network at that moment, for the classes that competed then.

    Args:
        stream: the tasks.
        size: how many examples are kept.
        strength: the factor of the squared distance.
        seed: fixes which.

    Source:
        Buzzega et al., "Dark experience for general continual learning", NeurIPS 2020: DER++ (they
        add examples at each step, and hold all logits).

    Example:
        >>> from mtl_course.streams import DarkReplay, class_stream
        >>> digits = torch.arange(8.0).reshape(4, 2), torch.arange(4)
        >>> stream = class_stream(digits, digits, range(4), 2, False)
        >>> model, memory = nn.Linear(2, 4), DarkReplay(stream, size=10, strength=0.5)
        >>> memory.end_task(model, stream, task=0)
        >>> memory.numbers, memory.distance(model, 5).item()  # still the same network
        (70, 0.0)
    """

    def __init__(self, stream: Stream, size: int, strength: float, seed: int = 0):
        super().__init__(stream, size, seed)
        self.strength = strength
        self.logits: Tensor | None = None  # [size, C]; minus infinity where a class did not compete

    @property
    def numbers(self) -> int:
        """Those of the reservoir's inputs and labels, and the logits."""
        return super().numbers + (0 if self.logits is None else self.logits.numel())

    def distance(self, model: nn.Module, n: int) -> Tensor:
        """Mean squared distance of the logits of `n` kept examples, a scalar."""
        rows = torch.randint(len(self.buffer), (n,), generator=self.buffer.generator)
        rows = rows.to(self.buffer.x.device)
        new, old = model(self.buffer.x[rows]), self.logits[rows]
        competed = torch.isfinite(old)
        gap = torch.where(competed, new - old.masked_fill(~competed, 0.0), 0.0)
        return gap.square().sum() / competed.sum()

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """Replay's cross-entropy, plus the strength times the distance, a scalar."""
        return super().loss(model, x, logits, task) + self.strength * self.distance(model, len(x))

    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Show the task's examples to the reservoir, and store the logits of those it took."""
        super().end_task(model, stream, task)
        y = self.buffer.y[: len(self.buffer)]
        # Tasks have classes of their own, so these are the new ones.
        rows = (y // stream.classes_per_task == task).nonzero().flatten()
        if not len(rows):
            return
        with torch.no_grad(), evaluating(model):
            new = stream.compete(model(self.buffer.x[rows]), y[rows], task)
        if self.logits is None:
            self.logits = new.new_full((self.buffer.size, new.shape[1]), -torch.inf)
        self.logits[rows] = new


def fisher_diagonal(model: nn.Module, x: Tensor, classes: slice = slice(None)) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a classifier, mean over inputs.

    ``F_i = mean over x, sum over c, of p(c|x) (d log p(c|x) / d theta_i)^2``: the labels are the
    model's own (not those of the data, which would give the empirical Fisher), and all of them,
    weighted, not drawn. The model is looked at in evaluation mode, and left as it came. What is
    frozen is left out.

    Args:
        model: [n, ...] -> logits [n, C].
        x: inputs [N, ...].
        classes: those that compete; all by default.

    Returns:
        Name -> tensor of the parameter's shape, for each parameter that learns.

    Raises:
        ValueError: there is no input, the model is frozen as a whole, or it has a BatchNorm without
            running statistics, for which there is no output of one input.

    Source:
        Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation for natural
        gradient descent", NeurIPS 2019.

    Example:
        Two classes that are equally likely: p (1 - p) = 1/4 for each bias, times the squared input
        for each weight.

        >>> from mtl_course.streams import fisher_diagonal
        >>> model = nn.Linear(1, 2)
        >>> for p in model.parameters():
        ...     _ = nn.init.zeros_(p)
        >>> fisher = fisher_diagonal(model, torch.tensor([[2.0], [2.0]]))
        >>> fisher["bias"].tolist(), fisher["weight"].flatten().tolist()
        ([0.25, 0.25], [1.0, 1.0])
    """
    params = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not params or not len(x):
        raise ValueError(
            "The model is frozen as a whole: no parameter learns, so none has a Fisher information."
            if len(x)
            else "There is no input to take the Fisher information over."
        )
    if norms := batch_norms(model, training=False):
        raise ValueError(
            f"The norm {norms[0]!r} has no running statistics, so no input has an output of its"
            " own: give it some (track_running_stats=True), or use GroupNorm or LayerNorm."
        )
    with evaluating(model):
        return _fisher_diagonal(model, params, x, classes)


def _fisher_diagonal(
    model: nn.Module, params: dict[str, Tensor], x: Tensor, classes: slice
) -> dict[str, Tensor]:
    """That of `fisher_diagonal`, of a model in evaluation mode."""

    def log_probabilities(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        logits = call_with(model, params, inputs[None])[0, classes]
        return F.log_softmax(logits, dim=0)

    with torch.no_grad():
        probabilities = model(x)[:, classes].softmax(dim=1)
    # So many inputs at once that their Jacobians fit into memory.
    jacobian_size = probabilities.shape[1] * sum(p.numel() for p in params.values())
    group = max(1, 2**24 // jacobian_size)
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for inputs, weights in zip(x.split(group), probabilities.split(group), strict=True):
        jacobians = vmap(jacrev(log_probabilities), (None, 0))(params, inputs)
        for name, jacobian in jacobians.items():
            total[name] += torch.einsum("nc,nc...->...", weights, jacobian.square())
    return {name: value / len(x) for name, value in total.items()}


def ewc_penalty(
    params: dict[str, Tensor], anchor: dict[str, Tensor], fisher: dict[str, Tensor], strength: float
) -> Tensor:
    """``strength / 2 * sum_i F_i (theta_i - anchor_i)^2``, over all names of the anchor.

    Args:
        params: name -> tensor, the parameters now; names that the anchor lacks are free.
        anchor: name -> tensor, the parameters after the last task.
        fisher: name -> tensor, the Fisher diagonal.
        strength: the factor lambda.

    Returns:
        A scalar.

    Raises:
        ValueError: the anchor has no parameter.

    Source:
        Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114, 2017,
        equation 3.

    Example:
        >>> from mtl_course.streams import ewc_penalty
        >>> anchor, fisher = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 10.0])}
        >>> along, across = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
        >>> [ewc_penalty(params, anchor, fisher, 2.0).item() for params in (along, across)]
        [1.0, 10.0]
    """
    if not anchor:
        raise ValueError("The anchor has no parameter that could be held to it.")
    terms = [(fisher[name] * (params[name] - anchor[name]).square()).sum() for name in anchor]
    return strength / 2 * torch.stack(terms).sum()


class Ewc:
    """Elastic weight consolidation: a quadratic penalty around the last task's parameters.

    The Fisher diagonals of the tasks add up. One anchor, the latest, is what the Laplace
    approximation asks for; the 2017 paper keeps one per task.

    Args:
        strength: the factor lambda of the penalty.
        samples: how many inputs of a task its Fisher diagonal is taken over.
        seed: fixes which.

    Source:
        Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114, 2017,
        equation 3; Huszár, "Note on the quadratic penalties in elastic weight consolidation", PNAS
        115, 2018, for the single anchor.

    Example:
        >>> from mtl_course.streams import Ewc, class_stream
        >>> digits = torch.arange(8.0).reshape(4, 2), torch.arange(4)
        >>> stream = class_stream(digits, digits, range(4), 2, True)
        >>> model, memory = nn.Linear(2, 4), Ewc(strength=100.0)
        >>> memory.end_task(model, stream, task=0)
        >>> memory.numbers, memory.loss(model, None, None, task=1).item()  # still at the anchor
        (24, 0.0)
    """

    def __init__(self, strength: float, samples: int = 100, seed: int = 0):
        self.strength, self.samples = strength, samples
        self.generator = torch.Generator().manual_seed(seed)
        self.anchor: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}

    @property
    def numbers(self) -> int:
        """Those of the anchor and of the Fisher diagonal."""
        return 2 * sum(p.numel() for p in self.anchor.values())

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """The penalty, a scalar."""
        return ewc_penalty(dict(model.named_parameters()), self.anchor, self.fisher, self.strength)

    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Move the anchor here, and add the task's Fisher diagonal."""
        x = stream.train[task][0]
        rows = torch.randperm(len(x), generator=self.generator)[: self.samples].to(x.device)
        new = fisher_diagonal(model, x[rows], stream.classes(task))
        # What is frozen now keeps what it had: it may be opened again.
        summed = {name: value + self.fisher.get(name, 0) for name, value in new.items()}
        self.fisher = self.fisher | summed
        params = dict(model.named_parameters())
        self.anchor = {name: params[name].detach().clone() for name in self.fisher}


def distillation_loss(logits: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """``T^2 KL(old || new)`` of the softmax at temperature T.

    Over the last axis; mean over the first, summed over others.

    Args:
        logits: of the network that learns, [B, ..., C].
        old: of the network that is held to, the same shape.
        temperature: T > 0; Li and Hoiem use 2.

    Returns:
        A scalar, in nats times T squared.

    Raises:
        ValueError: the temperature is not positive, or there are no rows.

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.

    Example:
        Only differences between logits count.

        >>> from mtl_course.streams import distillation_loss
        >>> old = torch.tensor([[0.0, 0.0]])
        >>> [f"{distillation_loss(old + torch.tensor(d), old):.2f}" for d in ([3., 3.], [3., 0.])]
        ['0.00', '1.03']
    """
    if not temperature > 0 or not len(logits):
        raise ValueError(
            f"The temperature must be positive and there must be rows;"
            f" they are {temperature} and {len(logits)}."
        )
    old, new = (F.log_softmax(values / temperature, dim=-1) for values in (old, logits))
    return temperature**2 * (old.exp() * (old - new)).sum() / len(logits)


class Distillation:
    """Learning without forgetting: old classes' outputs are held to those of the old network.

    On the inputs of the new task. Where the task is not told, all old classes are one distribution;
    where it is, each old task has its own.

    Args:
        stream: the tasks.
        strength: the factor of the distillation loss.
        temperature: of the softmax.

    Source:
        Li and Hoiem, "Learning without forgetting", IEEE TPAMI 40, 2018: one term per old task.

    Example:
        >>> from mtl_course.streams import Distillation, class_stream
        >>> digits = torch.arange(8.0).reshape(4, 2), torch.arange(4)
        >>> stream = class_stream(digits, digits, range(4), 2, True)
        >>> model, memory = nn.Linear(2, 4), Distillation(stream, strength=1.0)
        >>> memory.end_task(model, stream, task=0)
        >>> x = digits[0][2:]
        >>> memory.numbers, memory.loss(model, x, model(x), task=1).item()  # still the same network
        (12, 0.0)
    """

    def __init__(self, stream: Stream, strength: float, temperature: float = 2.0):
        self.stream, self.strength, self.temperature = stream, strength, temperature
        self.old: nn.Module | None = None

    @property
    def numbers(self) -> int:
        """Those of the old network; what is shared in it counts once."""
        if self.old is None:
            return 0
        return sum(values.numel() for values in (*self.old.parameters(), *self.old.buffers()))

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """The distillation loss of the classes before `task`, times the strength, a scalar."""
        with torch.no_grad():
            old_logits = self.old(x)
        shape = (len(x), task, -1) if self.stream.task_known else (len(x), -1)
        end = task * self.stream.classes_per_task
        new, old = (values[:, :end].reshape(shape) for values in (logits, old_logits))
        return self.strength * distillation_loss(new, old, self.temperature)

    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Keep the network as it is now."""
        self.old = deepcopy(model).eval().requires_grad_(False)
