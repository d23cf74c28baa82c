"""Tasks that arrive one after another: a stream of classes, learning it, the accuracy matrix and
its scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.augment import Augment
from ..training.tasks import accuracy

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stream:
    """Tasks in their order of arrival: task t has the labels ``t * per ... (t + 1) * per - 1``.

    train, test: for each task its inputs [N, ...] and labels int64 [N].
    known: True where the task of a test input is told, so that only its own classes compete
        (task-incremental); False where
        all classes seen so far do (class-incremental). The third type, domain-incremental, has the
        same labels in every task. Source: van de Ven, Tuytelaars and Tolias, "Three types of
        incremental learning", Nature Machine Intelligence 4, 2022.
    """

    train: list[Examples]
    test: list[Examples]
    per: int
    known: bool

    def __len__(self) -> int:
        return len(self.train)

    def compete(self, logits: Tensor, y: Tensor, now: int) -> Tensor:
        """Logits [B, C] of examples with labels y [B]; minus infinity for a class that does not
        compete after task `now`.
        """
        task = torch.arange(logits.shape[1], device=y.device) // self.per
        visible = (
            task == (y // self.per)[:, None] if self.known else (task <= now).expand_as(logits)
        )
        return logits.masked_fill(~visible, -torch.inf)

    def classes(self, now: int) -> slice:
        """The classes that compete for examples of task `now` while it is learned."""
        return slice(now * self.per if self.known else 0, (now + 1) * self.per)


def split_classes(
    train: Examples, test: Examples, order: Sequence[int], per: int, known: bool
) -> Stream:
    """A stream of ``len(order) / per`` tasks; the k-th class of `order` gets the label k. Classes
    not in `order` are left out.

    ValueError if `order` names a class twice or one that has no example, or cannot be cut into
    tasks of `per` classes.
    """
    order = [int(c) for c in order]
    present = set(train[1].tolist()) & set(test[1].tolist())
    if len(set(order)) != len(order) or len(order) % per or not set(order) <= present:
        raise ValueError(
            f"The order {order} must name classes with examples, each once, and be a multiple of"
            f" {per} long."
        )
    parts = []
    for x, y in (train, test):
        label = torch.full((int(y.max()) + 1,), -1, device=y.device)
        label[torch.tensor([c for c in order if c < len(label)], device=y.device)] = torch.arange(
            len(order), device=y.device
        )
        new = label[y]
        parts.append(
            [
                (x[rows], new[rows])
                for rows in ((new >= 0) & (new // per == t) for t in range(len(order) // per))
            ]
        )
    return Stream(*parts, per, known)


# ----------------------------------------------------------------------------------------- learning
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

    A[i, j] is the accuracy on the test examples of task j after task i has been learned; 0 for j >
    i where the task is not told, since the classes do not compete yet. optimizer: called with the
    parameters at the start of every task, such as ``partial(torch.optim.SGD, lr=0.1)``. augment:
    see `data.augment`; for the task's own examples. FloatingPointError, with the task, if the loss
    is not finite.
    """
    draws, rows = _generators(stream, seed), []
    for now, examples in enumerate(stream.train):
        held = memories if now else ()
        _train(
            model,
            stream,
            examples,
            now,
            optimizer(model.parameters()),
            held,
            epochs,
            batch,
            augment,
            *draws,
        )
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
    """Train `model` in place on all tasks at once, as many updates as `learn`; returns its accuracy
    on each task [T].
    """
    everything = tuple(torch.cat(part) for part in zip(*stream.train, strict=True))
    now = len(stream) - 1
    _train(
        model,
        stream,
        everything,
        now,
        optimizer(model.parameters()),
        (),
        epochs,
        batch,
        augment,
        *_generators(stream, seed),
    )
    return accuracies(model, stream, now)


def only(stream: Stream, task: int) -> Stream:
    """The stream of this task alone, its labels renumbered from 0: what a network of its own is
    trained on.
    """
    train, test = (
        [(x, y - task * stream.per) for x, y in part[task : task + 1]]
        for part in (stream.train, stream.test)
    )
    return replace(stream, train=train, test=test)


def _generators(stream, seed):
    """For the order of the examples, and for augmentation."""
    return torch.Generator().manual_seed(seed), torch.Generator(
        stream.train[0][0].device
    ).manual_seed(seed)


def _train(
    model, stream, examples, now, optimizer, memories, epochs, batch, augment, order, draws
) -> None:
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
    """Accuracy on the test examples of every task, [T], with the classes that compete after task
    `now`; sets evaluation mode.
    """
    model.eval()
    return torch.stack(
        [accuracy(stream.compete(model(x), y, now), y) for x, y in stream.test]
    ).cpu()


# ------------------------------------------------------------------------------------------- scores
def average_accuracy(A: Tensor) -> float:
    """Mean accuracy over all tasks after the last one: the mean of the last row of A [T, T]."""
    return float(A[-1].mean())


def backward_transfer(A: Tensor) -> float:
    """What learning later tasks did to earlier ones: mean over i < T of A[T, i] - A[i, i]. Negative
    is forgetting.
    """
    return float((A[-1] - A.diagonal())[:-1].mean())


def forward_transfer(A: Tensor, untrained: Tensor) -> float:
    """What earlier tasks did for one not seen yet: mean over i > 1 of A[i - 1, i] - b[i].

    untrained: b [T], the accuracy of the network at its random start. All three: Lopez-Paz and
        Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017, section 2, where
        the matrix is called R.
    """
    return float((A.diagonal(1) - untrained[1:]).mean())


def forgetting(A: Tensor) -> float:
    """Mean over i < T of the best accuracy that task i ever had before the end, minus its last; at
    least -backward_transfer.

    Source: Chaudhry, Dokania, Ajanthan and Torr, "Riemannian walk for incremental learning", ECCV
    2018, section 3.
    """
    return float((A[:-1, :-1].max(dim=0).values - A[-1, :-1]).mean())
