"""Tasks that arrive one after another: a stream of classes, learning it, and its scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.augment import Augment
from ..training.faults import require_plain_steps, require_rows, require_trainable
from ..training.loop import in_words, learning_rates
from ..training.modes import chunks, evaluating, least_rows, modes_kept
from ..training.tasks import accuracy

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stream:
    """Tasks in their order of arrival, each with classes of its own.

    Task t has the labels ``t * classes_per_task ... (t + 1) * classes_per_task - 1``.

    Args:
        train: for each task its inputs [N, ...] and labels [N], int64.
        test: likewise.
        classes_per_task: how many classes a task has.
        task_known: True where the task of a test input is told, so that only its own classes
            compete (task-incremental); False where all classes seen so far do (class-incremental).
            The third type, domain-incremental, has the same labels in every task.

    Source:
        van de Ven, Tuytelaars and Tolias, "Three types of incremental learning", Nature Machine
        Intelligence 4, 2022.

    Example:
        Two tasks of two classes. A test image of class 2 is judged after both have been learned: it
        competes with its neighbour 3 where the task is told, and with all where it is not.

        >>> from mtl_course.streams import Stream
        >>> tasks = [(torch.zeros(2, 1), torch.tensor([c, c + 1])) for c in (0, 2)]
        >>> for task_known in (True, False):
        ...     stream = Stream(tasks, tasks, classes_per_task=2, task_known=task_known)
        ...     logits = stream.compete(torch.zeros(1, 4), torch.tensor([2]), task=1)
        ...     print(len(stream), logits.tolist())
        2 [[-inf, -inf, 0.0, 0.0]]
        2 [[0.0, 0.0, 0.0, 0.0]]
    """

    train: list[Examples]
    test: list[Examples]
    classes_per_task: int
    task_known: bool

    def __len__(self) -> int:
        return len(self.train)

    def compete(self, logits: Tensor, y: Tensor, task: int) -> Tensor:
        """Logits [B, C] of examples with labels y [B], where not every class competes.

        A class that does not compete once `task` is the latest has minus infinity.
        """
        task_of_class = torch.arange(logits.shape[1], device=y.device) // self.classes_per_task
        if self.task_known:
            competes = task_of_class == (y // self.classes_per_task)[:, None]
        else:
            competes = (task_of_class <= task).expand_as(logits)
        return logits.masked_fill(~competes, -torch.inf)

    def classes(self, task: int) -> slice:
        """The classes that compete for examples of `task` while it is learned."""
        first = task if self.task_known else 0
        return slice(first * self.classes_per_task, (task + 1) * self.classes_per_task)


class Memory(Protocol):
    """What a method keeps of earlier tasks; those of `memories` are such.

    Attributes:
        numbers: how many it holds, besides the network, while the next task is learned.
    """

    numbers: int

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """Its term in each step of `task` (from 1 on), a scalar."""
        ...

    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Store what is needed of the task that ends."""
        ...


def class_stream(
    train: Examples,
    test: Examples,
    order: Sequence[int],
    classes_per_task: int,
    task_known: bool,
) -> Stream:
    """Cut a set of classes into a stream of tasks.

    The k-th class of the order gets the label k. Classes that it does not name are left out.

    Args:
        train: inputs [N, ...] and labels [N], int64.
        test: likewise.
        order: the classes, in their order of arrival.
        classes_per_task: how many classes a task has.
        task_known: whether the task of a test input is told; see `Stream`.

    Returns:
        A stream of ``len(order) / classes_per_task`` tasks.

    Raises:
        ValueError: the order names a class twice or one that has no example, or cannot be cut into
            tasks of so many classes.

    Example:
        >>> from mtl_course.streams import class_stream
        >>> digits = torch.arange(6.0)[:, None], torch.arange(6)
        >>> stream = class_stream(digits, digits, (3, 1, 5, 0), classes_per_task=2, task_known=True)
        >>> [(x.flatten().tolist(), y.tolist()) for x, y in stream.train]
        [([1.0, 3.0], [1, 0]), ([0.0, 5.0], [3, 2])]
    """
    order = [int(c) for c in order]
    present = set(train[1].tolist()) & set(test[1].tolist())
    whole = len(order) % classes_per_task == 0
    if len(set(order)) != len(order) or not whole or not set(order) <= present:
        raise ValueError(
            f"The order {order} must name classes with examples, each once,"
            f" and be a multiple of {classes_per_task} long."
        )
    tasks = range(len(order) // classes_per_task)
    halves = []
    for x, y in (train, test):
        new_label = torch.full((int(y.max()) + 1,), -1, device=y.device)
        new_label[torch.tensor(order, device=y.device)] = torch.arange(len(order), device=y.device)
        label = new_label[y]
        # A class that is left out has the label -1, which is in no task.
        task = torch.where(label >= 0, label // classes_per_task, -1)
        halves.append([(x[task == t], label[task == t]) for t in tasks])
    return Stream(*halves, classes_per_task, task_known)


# ----------------------------------------------------------------------------------------- learning
def learn(
    model: nn.Module,
    stream: Stream,
    optimizer: Callable[..., torch.optim.Optimizer],
    memories: Sequence[Memory] = (),
    *,
    epochs: int = 5,
    batch: int = 32,
    augment: Augment | None = None,
    seed: int = 0,
) -> Tensor:
    """Train a network on one task after another, and test it on all after each.

    Args:
        model: [B, ...] -> logits [B, C], trained in place.
        stream: the tasks.
        optimizer: called with the parameters at the start of every task, such as
            ``partial(torch.optim.SGD, lr=0.1)``.
        memories: what is kept of earlier tasks; none is fine-tuning.
        epochs: passes over the examples of each task.
        batch: examples per step.
        augment: for the task's own examples; see `data.augment`.
        seed: fixes the order of the examples and the draws of `augment`.

    Returns:
        The accuracy matrix A [T, T]: A[i, j] is the accuracy on the test examples of task j after
        task i has been learned. It is 0 for j > i where the task is not told, since those classes
        do not compete yet.

    Raises:
        ValueError: a task has no examples or not as many labels as inputs, all of the model is
            frozen, or its BatchNorm would be given single rows.
        TypeError: an optimizer that wants a closure.
        FloatingPointError: the loss is not finite; it names the task, the step and the rate.

    Source:
        Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017,
        section 2, where the matrix is called R.

    Example:
        Two tasks whose classes differ in the sign of one input. The task is told, so both can be
        right.

        >>> from functools import partial
        >>> from mtl_course.streams import class_stream, learn
        >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> stream = class_stream((x, torch.arange(4)), (x, torch.arange(4)), range(4), 2, True)
        >>> sgd = partial(torch.optim.SGD, lr=1.0)
        >>> learn(nn.Linear(2, 4), stream, sgd, epochs=20)[-1].tolist()
        [1.0, 1.0]
    """
    _require_examples(stream)
    for x, _ in stream.train:
        least_rows(model, min(batch, len(x)))
    generators = _generators(stream, seed)
    rows = []
    for task, examples in enumerate(stream.train):
        terms = memories if task else ()  # nothing is kept before the first
        new_optimizer = optimizer(model.parameters())
        _train(
            model, stream, examples, task, new_optimizer, terms, epochs, batch, augment, generators
        )
        for memory in memories:
            memory.end_task(model, stream, task)
        rows.append(accuracies(model, stream, task))
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
    """Train a network on all tasks at once, with as many updates as `learn` takes.

    Args:
        model: [B, ...] -> logits [B, C], trained in place.
        stream: the tasks.
        optimizer: called with the parameters.
        epochs: passes over all examples.
        batch: examples per step.
        augment: see `data.augment`.
        seed: fixes the order of the examples and the draws of `augment`.

    Returns:
        The accuracy on each task's test examples, [T].

    Raises:
        ValueError: a task has no examples or not as many labels as inputs, all of the model is
            frozen, or its BatchNorm would be given single rows.
        TypeError: an optimizer that wants a closure.
        FloatingPointError: the loss is not finite; it names the task, the step and the rate.

    Example:
        >>> from functools import partial
        >>> from mtl_course.streams import class_stream, learn_jointly
        >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> stream = class_stream((x, torch.arange(4)), (x, torch.arange(4)), range(4), 2, False)
        >>> sgd = partial(torch.optim.SGD, lr=1.0)
        >>> learn_jointly(nn.Linear(2, 4), stream, sgd, epochs=20).tolist()
        [1.0, 1.0]
    """
    _require_examples(stream)
    everything = tuple(torch.cat(same) for same in zip(*stream.train, strict=True))
    last = len(stream) - 1
    new_optimizer, generators = optimizer(model.parameters()), _generators(stream, seed)
    _train(model, stream, everything, last, new_optimizer, (), epochs, batch, augment, generators)
    return accuracies(model, stream, last)


def single_task(stream: Stream, task: int) -> Stream:
    """The stream of one task alone, for a network of its own.

    Args:
        stream: the tasks.
        task: which one, from 0.

    Returns:
        A stream of length 1, with labels from 0.

    Example:
        >>> from mtl_course.streams import class_stream, single_task
        >>> digits = torch.arange(4.0)[:, None], torch.arange(4)
        >>> alone = single_task(class_stream(digits, digits, range(4), 2, True), 1)
        >>> len(alone), alone.train[0][1].tolist()
        (1, [0, 1])
    """

    def renumbered(tasks: list[Examples]) -> list[Examples]:
        x, y = tasks[task]
        return [(x, y - task * stream.classes_per_task)]

    return replace(stream, train=renumbered(stream.train), test=renumbered(stream.test))


def _generators(stream: Stream, seed: int) -> tuple[torch.Generator, torch.Generator]:
    """For the order of the examples, and for augmentation on their device."""
    device = stream.train[0][0].device
    return torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)


def _require_examples(stream: Stream) -> None:
    """ValueError that names a task without examples, or with another number of labels."""
    for kind, sets in (("train", stream.train), ("test", stream.test)):
        if not sets:
            raise ValueError(f"The stream has no task ({kind}).")
        for task, (x, y) in enumerate(sets):
            require_rows(f"Task {task} ({kind})", x, y)


def _train(model, stream, examples, task, optimizer, *rest) -> None:
    """Train on a task's examples; every module's mode is put back at the end."""
    require_trainable(model.parameters())
    require_plain_steps(optimizer)
    with modes_kept(model):
        model.train()
        _epochs(model, stream, examples, task, optimizer, *rest)


def _epochs(
    model, stream, examples, task, optimizer, memories, epochs, batch, augment, generators
) -> None:
    (x, y), (order, draws) = examples, generators
    steps, least = 0, least_rows(model, min(batch, len(x)))
    for _ in range(epochs):
        for rows in chunks(torch.randperm(len(x), generator=order).to(x.device), batch, least):
            inputs = x[rows] if augment is None else augment(x[rows], draws)
            logits = model(inputs)
            loss = F.cross_entropy(stream.compete(logits, y[rows], task), y[rows])
            for memory in memories:
                loss = loss + memory.loss(model, inputs, logits, task)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        # Once per epoch: to look is to wait for the device. What is not finite stays so.
        if not torch.isfinite(loss):
            rates = in_words(learning_rates(optimizer))
            raise FloatingPointError(
                f"The loss of task {task} is not finite at step {steps} with a learning rate of"
                f" {rates}: lower the learning rate or the strength of the penalty."
            )


@torch.no_grad()
def accuracies(model: nn.Module, stream: Stream, task: int) -> Tensor:
    """Accuracy on the test examples of every task, with the classes that compete by now.

    Args:
        model: [B, ...] -> logits [B, C]; judged in evaluation mode, and left as it came.
        stream: the tasks.
        task: the latest that has been learned, from 0.

    Returns:
        Accuracies [T] on the CPU, from 0 to 1.

    Raises:
        ValueError: a task has no test examples, or not as many labels as inputs.

    Example:
        Logits that are the inputs themselves, after the second of two tasks of two classes.

        >>> from mtl_course.streams import accuracies, class_stream
        >>> x = torch.eye(4)
        >>> stream = class_stream((x, torch.arange(4)), (x, torch.arange(4)), range(4), 2, False)
        >>> accuracies(nn.Identity(), stream, task=0), accuracies(nn.Identity(), stream, task=1)
        (tensor([1., 0.]), tensor([1., 1.]))
    """
    if not stream.test:
        raise ValueError("The stream has no task to test on.")
    for number, (x, y) in enumerate(stream.test):
        require_rows(f"Task {number} (test)", x, y)
    with evaluating(model):
        judged = [accuracy(stream.compete(model(x), y, task), y) for x, y in stream.test]
    return torch.stack(judged).cpu()


# ------------------------------------------------------------------------------------------- scores
def average_accuracy(A: Tensor) -> float:
    """Mean accuracy over all tasks after the last one.

    Args:
        A: the accuracy matrix [T, T] of `learn`; its last row [1, T] is enough.

    Returns:
        The mean of the last row.

    Raises:
        ValueError: an accuracy in it is not finite, or there is none; names the task.

    Source:
        Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017,
        section 2.

    Example:
        >>> from mtl_course.streams import average_accuracy
        >>> average_accuracy(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
        0.5
    """
    _require_scores(A[-1:])
    return float(A[-1].mean())


def backward_transfer(A: Tensor) -> float:
    """What learning later tasks did to earlier ones; negative is forgetting.

    Args:
        A: the accuracy matrix [T, T] of `learn`.

    Returns:
        The mean over i < T of A[T, i] - A[i, i].

    Raises:
        ValueError: there are fewer than two tasks, or an accuracy is not finite; names the task.

    Source:
        Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017,
        section 2.

    Example:
        >>> from mtl_course.streams import backward_transfer
        >>> backward_transfer(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
        -0.75
    """
    _require_matrix(A)
    return float((A[-1] - A.diagonal())[:-1].mean())


def forward_transfer(A: Tensor, untrained: Tensor) -> float:
    """What earlier tasks did for one that has not been seen yet.

    Args:
        A: the accuracy matrix [T, T] of `learn`.
        untrained: b [T], the accuracy of the network at its random start.

    Returns:
        The mean over i > 1 of A[i - 1, i] - b[i].

    Raises:
        ValueError: there are fewer than two tasks, other than in `untrained`, or an accuracy is not
            finite; names the task.

    Source:
        Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017,
        section 2.

    Example:
        >>> from mtl_course.streams import forward_transfer
        >>> forward_transfer(torch.tensor([[1.0, 0.75], [0.5, 1.0]]), torch.tensor([0.5, 0.5]))
        0.25
    """
    _require_matrix(A)
    _require_scores(untrained[None])
    if len(untrained) != len(A):
        raise ValueError(f"There are {len(A)} tasks and {len(untrained)} untrained accuracies.")
    return float((A.diagonal(1) - untrained[1:]).mean())


def forgetting(A: Tensor) -> float:
    """The best accuracy that a task ever had before the end, minus its last.

    Args:
        A: the accuracy matrix [T, T] of `learn`.

    Returns:
        The mean over tasks i < T; at least minus the backward transfer.

    Raises:
        ValueError: there are fewer than two tasks, or an accuracy is not finite; names the task.

    Source:
        Chaudhry, Dokania, Ajanthan and Torr, "Riemannian walk for incremental learning", ECCV 2018,
        section 3.

    Example:
        The first task improves with the second, and is lost with the third.

        >>> from mtl_course.streams import forgetting
        >>> forgetting(torch.tensor([[0.5, 0.0, 0.0], [0.75, 1.0, 0.0], [0.25, 1.0, 1.0]]))
        0.25
    """
    _require_matrix(A)
    return float((A[:-1, :-1].max(dim=0).values - A[-1, :-1]).mean())


def _require_matrix(A: Tensor) -> None:
    """ValueError unless this is a finite matrix [T, T] of two tasks or more."""
    if A.ndim != 2 or len(A) != A.shape[1] or len(A) < 2:
        raise ValueError(
            f"The accuracy matrix has shape {list(A.shape)}; what tasks do to each other needs"
            " [T, T] with at least two tasks."
        )
    _require_scores(A)


def _require_scores(A: Tensor) -> None:
    """ValueError unless these are finite accuracies [..., T] of at least one task."""
    if not A.numel():
        raise ValueError("There is no accuracy to take the mean of.")
    if bad := (~torch.isfinite(A)).any(0).nonzero().flatten().tolist():
        raise ValueError(f"An accuracy of task {bad[0]} is not finite: was it ever tested?")
