"""Tasks that arrive one after another: a stream of classes, what is stored between tasks, the accuracy matrix and its scores.

A memory is what a method keeps of the past: `Replay` examples, `Ewc` an anchor and a Fisher diagonal, `Distillation` the old network.
It has `loss(model, x, logits, now)`, a term for each step, `end_task(model, stream, now)`, and `numbers`, how many numbers it stores.
Several may be combined; none is plain fine-tuning.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from .data.augment import Augment
from .tasks import accuracy

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stream:
    """Tasks in their order of arrival: task t has the labels ``t * per ... (t + 1) * per - 1``.

    train, test: for each task its inputs [N, ...] and labels int64 [N].
    known: True where the task of a test input is told, so that only its own classes compete (task-incremental); False where all
        classes seen so far do (class-incremental). The third type, domain-incremental, has the same labels in every task.
    Source: van de Ven, Tuytelaars and Tolias, "Three types of incremental learning", Nature Machine Intelligence 4, 2022.
    """

    train: list[Examples]
    test: list[Examples]
    per: int
    known: bool

    def __len__(self) -> int:
        return len(self.train)

    def compete(self, logits: Tensor, y: Tensor, now: int) -> Tensor:
        """Logits [B, C] of examples with labels y [B]; minus infinity for a class that does not compete after task `now` (from 0)."""
        task = torch.arange(logits.shape[1], device=y.device) // self.per
        visible = task == (y // self.per)[:, None] if self.known else (task <= now).expand_as(logits)
        return logits.masked_fill(~visible, -torch.inf)

    def classes(self, now: int) -> slice:
        """The classes that compete for examples of task `now` while it is learned."""
        return slice(now * self.per if self.known else 0, (now + 1) * self.per)


def split_classes(train: Examples, test: Examples, order: Sequence[int], per: int, known: bool) -> Stream:
    """A stream of ``len(order) / per`` tasks; the k-th class of `order` gets the label k. Classes not in `order` are left out.

    ValueError if `order` names a class twice or one that has no example, or cannot be cut into tasks of `per` classes.
    """
    order = [int(c) for c in order]
    present = set(train[1].tolist()) & set(test[1].tolist())
    if len(set(order)) != len(order) or len(order) % per or not set(order) <= present:
        raise ValueError(f"The order {order} must name classes with examples, each once, and be a multiple of {per} long.")
    parts = []
    for x, y in (train, test):
        label = torch.full((int(y.max()) + 1,), -1, device=y.device)
        label[torch.tensor([c for c in order if c < len(label)], device=y.device)] = torch.arange(len(order), device=y.device)
        new = label[y]
        parts.append([(x[rows], new[rows]) for rows in ((new >= 0) & (new // per == t) for t in range(len(order) // per))])
    return Stream(*parts, per, known)


# ------------------------------------------------------------------------------------------------------------------ memories
class Reservoir:
    """At most `size` examples of a stream, each of those seen so far kept with the same probability, whatever its length will be.

    Source: Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11, 1985 (algorithm R).
    ValueError for size < 1.
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
        count = self.seen + torch.arange(1, len(x) + 1)  # how many have been seen with this one
        slot = (torch.rand(len(x), generator=self.generator, dtype=torch.float64) * count).long()
        slot = torch.where(count <= self.size, count - 1, slot)
        last = {s: row for row, s in enumerate(slot.tolist()) if s < self.size}  # of several in one slot the last stays
        slots, rows = (torch.tensor(list(part), dtype=torch.int64, device=x.device) for part in (last.keys(), last.values()))
        self.x[slots], self.y[slots] = x[rows], y[rows]
        self.seen += len(x)

    def draw(self, n: int) -> Examples:
        """`n` of the kept examples, drawn with replacement."""
        rows = torch.randint(len(self), (n,), generator=self.generator).to(self.x.device)
        return self.x[rows], self.y[rows]


class Replay:
    """Experience replay: with every batch, as many examples of earlier tasks, from a reservoir of `size`, and their loss.

    Sources: Rolnick et al., "Experience replay for continual learning", NeurIPS 2019; Chaudhry et al., "Continual learning with tiny
    episodic memories", 2019 (they add examples at each step; here a task's examples are added when it ends).
    """

    def __init__(self, stream: Stream, size: int, seed: int = 0):
        self.stream, self.buffer = stream, Reservoir(size, seed)

    @property
    def numbers(self) -> int:
        return 0 if self.buffer.x is None else self.buffer.x.numel() + self.buffer.y.numel()

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        old, y = self.buffer.draw(len(x))
        return F.cross_entropy(self.stream.compete(model(old), y, now), y)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        self.buffer.add(*stream.train[now])


def fisher_diagonal(model: nn.Module, x: Tensor, classes: slice = slice(None)) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a classifier, name -> tensor shaped as the parameter; mean over inputs x [N, ...].

    ``F_i = mean over x, sum over c, of p(c|x) (d log p(c|x) / d theta_i)^2``: the labels are the model's own (not those of the data,
    which would give the empirical Fisher), and all of them, weighted, not drawn. Only `classes` compete. The model should be in
    evaluation mode. Source: Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019, section 2.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}

    def log_p(params, one):
        return F.log_softmax(functional_call(model, params, (one[None],))[0, classes], dim=0)

    with torch.no_grad():
        p = model(x)[:, classes].softmax(dim=1)
    group = max(1, 2**24 // (p.shape[1] * sum(q.numel() for q in params.values())))  # so that the Jacobians fit
    total = {name: torch.zeros_like(q) for name, q in params.items()}
    for some, weights in zip(x.split(group), p.split(group), strict=True):
        for name, jacobian in vmap(jacrev(log_p), (None, 0))(params, some).items():
            total[name] += torch.einsum("nc,nc...->...", weights, jacobian.square())
    return {name: value / len(x) for name, value in total.items()}


def ewc_penalty(params: dict[str, Tensor], anchor: dict[str, Tensor], fisher: dict[str, Tensor], strength: float) -> Tensor:
    """``strength / 2 * sum_i F_i (theta_i - anchor_i)^2``, over all names of `anchor`. Scalar.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114, 2017, equation 3.
    """
    return strength / 2 * torch.stack([(fisher[name] * (params[name] - anchor[name]).square()).sum() for name in anchor]).sum()


class Ewc:
    """Elastic weight consolidation: a quadratic penalty around the parameters after the last task, Fisher diagonals summed over tasks.

    samples: how many inputs of a task its Fisher diagonal is taken over. One anchor, the latest, is what the Laplace approximation
    asks for: Huszár, "Note on the quadratic penalties in elastic weight consolidation", PNAS 115, 2018; the 2017 paper keeps one a task.
    """

    def __init__(self, strength: float, samples: int = 100, seed: int = 0):
        self.strength, self.samples, self.generator = strength, samples, torch.Generator().manual_seed(seed)
        self.anchor: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}

    @property
    def numbers(self) -> int:
        return 2 * sum(p.numel() for p in self.anchor.values())

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        return ewc_penalty(dict(model.named_parameters()), self.anchor, self.fisher, self.strength)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        x = stream.train[now][0]
        rows = torch.randperm(len(x), generator=self.generator)[: self.samples].to(x.device)
        new = fisher_diagonal(model.eval(), x[rows], stream.classes(now))
        self.fisher = {name: f + self.fisher.get(name, 0) for name, f in new.items()}
        self.anchor = {name: p.detach().clone() for name, p in model.named_parameters()}


def distillation_loss(logits: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """``T^2 KL(old || new)`` of softmax(logits / T) over the last axis, mean over the first, summed over others. Scalar.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015; Li and Hoiem use T = 2.
    """
    old, new = (F.log_softmax(values / temperature, dim=-1) for values in (old, logits))
    return temperature**2 * (old.exp() * (old - new)).sum() / len(logits)


class Distillation:
    """Learning without forgetting: on the new task's inputs, old classes' outputs are held to those of the network before the task.

    Source: Li and Hoiem, "Learning without forgetting", IEEE TPAMI 40, 2018: one term for each old task. Where the task is not
    told, all old classes are one distribution.
    """

    def __init__(self, stream: Stream, strength: float, temperature: float = 2.0):
        self.stream, self.strength, self.temperature = stream, strength, temperature
        self.old: nn.Module | None = None

    @property
    def numbers(self) -> int:
        return 0 if self.old is None else sum(p.numel() for p in self.old.state_dict().values())

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        with torch.no_grad():
            old = self.old(x)
        shape = (len(x), now, -1) if self.stream.known else (len(x), -1)
        new, old = (values[:, : now * self.stream.per].reshape(shape) for values in (logits, old))
        return self.strength * distillation_loss(new, old, self.temperature)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        self.old = deepcopy(model).eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------------------------ learning
def learn(
    model: nn.Module,
    stream: Stream,
    optimizer: Callable[..., torch.optim.Optimizer],
    memories: Sequence = (),
    *,
    epochs: int = 5,
    batch: int = 32,
    augment: Augment | None = None,
    seed: int = 0,
) -> Tensor:
    """Train `model` in place on one task after another; returns the accuracy matrix A [T, T].

    A[i, j] is the accuracy on the test examples of task j after task i has been learned; 0 for j > i where the task is not told,
    since the classes do not compete yet. optimizer: called with the parameters at the start of every task, such as
    ``partial(torch.optim.SGD, lr=0.1)``. augment: see `data.augment`; for the task's own examples. FloatingPointError, with the
    task, if the loss is not finite.
    """
    draws, rows = _generators(stream, seed), []
    for now, examples in enumerate(stream.train):
        held = memories if now else ()
        _train(model, stream, examples, now, optimizer(model.parameters()), held, epochs, batch, augment, *draws)
        for memory in memories:
            memory.end_task(model, stream, now)
        rows.append(accuracies(model, stream, now))
    return torch.stack(rows)


def learn_jointly(
    model: nn.Module,
    stream: Stream,
    optimizer: Callable[..., torch.optim.Optimizer],
    *,
    epochs: int = 5,
    batch: int = 32,
    augment: Augment | None = None,
    seed: int = 0,
) -> Tensor:
    """Train `model` in place on all tasks at once, as many updates as `learn`; returns its accuracy on each task [T], the bound."""
    everything = tuple(torch.cat(part) for part in zip(*stream.train, strict=True))
    now = len(stream) - 1
    _train(model, stream, everything, now, optimizer(model.parameters()), (), epochs, batch, augment, *_generators(stream, seed))
    return accuracies(model, stream, now)


def only(stream: Stream, task: int) -> Stream:
    """The stream of this task alone, its labels renumbered from 0: what a network of its own is trained on."""
    train, test = ([(x, y - task * stream.per) for x, y in part[task : task + 1]] for part in (stream.train, stream.test))
    return replace(stream, train=train, test=test)


def _generators(stream, seed):
    """For the order of the examples, and for augmentation."""
    return torch.Generator().manual_seed(seed), torch.Generator(stream.train[0][0].device).manual_seed(seed)


def _train(model, stream, examples, now, optimizer, memories, epochs, batch, augment, order, draws) -> None:
    x, y = examples
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch):
            inputs = x[rows] if augment is None else augment(x[rows], draws)
            logits = model(inputs)
            loss = F.cross_entropy(stream.compete(logits, y[rows], now), y[rows])
            for memory in memories:
                loss = loss + memory.loss(model, inputs, logits, now)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            advice = "lower the learning rate or the strength of the penalty"
            raise FloatingPointError(f"The loss of task {now} is not finite: {advice}.")


@torch.no_grad()
def accuracies(model: nn.Module, stream: Stream, now: int) -> Tensor:
    """Accuracy on the test examples of every task, [T], with the classes that compete after task `now`; sets evaluation mode."""
    model.eval()
    return torch.stack([accuracy(stream.compete(model(x), y, now), y) for x, y in stream.test]).cpu()


# -------------------------------------------------------------------------------------------------------------------- scores
def average_accuracy(A: Tensor) -> float:
    """Mean accuracy over all tasks after the last one: the mean of the last row of A [T, T] (their R)."""
    return float(A[-1].mean())


def backward_transfer(A: Tensor) -> float:
    """What learning later tasks did to earlier ones: mean over i < T of A[T, i] - A[i, i]. Negative is forgetting."""
    return float((A[-1] - A.diagonal())[:-1].mean())


def forward_transfer(A: Tensor, untrained: Tensor) -> float:
    """What earlier tasks did for one not seen yet: mean over i > 1 of A[i - 1, i] - b[i].

    untrained: b [T], the accuracy of the network at its random start. All three: Lopez-Paz and Ranzato, "Gradient episodic memory
    for continual learning", NeurIPS 2017, section 2.
    """
    return float((A.diagonal(1) - untrained[1:]).mean())


def forgetting(A: Tensor) -> float:
    """Mean over i < T of the best accuracy that task i ever had before the end, minus its last; at least -backward_transfer.

    Source: Chaudhry, Dokania, Ajanthan and Torr, "Riemannian walk for incremental learning", ECCV 2018, section 3.
    """
    return float((A[:-1, :-1].max(dim=0).values - A[-1, :-1]).mean())
