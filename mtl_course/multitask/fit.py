"""Training on several tasks: the evaluation of every task, one step, and the loop around them."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..data.augment import Augment
from ..data.batches import EVERY_ROW, Batch, Separate, Table
from ..training.distributed import (
    Division,
    division,
    mean_gradients,
    mean_losses,
    place,
    require_mean,
)
from ..training.evaluation import predict, predict_together
from ..training.faults import (
    require_finite_targets,
    require_one_side,
    require_plain_steps,
    require_trainable,
)
from ..training.history import History
from ..training.loop import (
    divergence,
    in_optimizer,
    in_words,
    learning_rates,
    new_state,
    require_in_optimizer,
    require_same_start,
    run_epochs,
)
from ..training.modes import buffers_kept, least_rows
from ..training.precision import Precision
from ..training.tasks import Task, delta_m
from .backward import Balanced, balanced_backward, balanced_backward_in_parts
from .weighting import EqualWeights, RefusedLossError, Weighting

Combine = Weighting | Callable[[Tensor], Tensor]
"""A weighting of the losses, or a balancing method: Gram matrix [T, T] -> weights [T]."""


# ------------------------------------------------------------------------------------------ history
@dataclass
class TaskHistory(History):
    """A run over several tasks: besides the losses of `History`, those of every task.

    `train` and `validation` are here means over tasks of the loss divided by `initial`, which have
    no unit. A task whose `initial` is not positive, such as a log-likelihood, counts with 1 + its
    difference from there, in its own unit.

    Args:
        initial: task -> validation loss of the untrained model, in the task's own unit.
        losses: task -> one validation loss per epoch, in the task's own unit.
        metrics: task -> one validation metric per epoch, in the task's own unit.

    Raises:
        ValueError: by `best`, where no epoch was better than the untrained model.

    Example:
        >>> history = TaskHistory(best_epoch=2, metrics={"size": [0.5, 0.8], "kind": [0.6, 0.9]})
        >>> history.best
        {'size': 0.8, 'kind': 0.9}
    """

    initial: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """Validation metric of each task at the best epoch; ValueError where there is none."""
        if not self.best_epoch:
            raise ValueError(
                "No epoch improved on the untrained model:"
                " lower the learning rate, or train for longer."
            )
        return {name: values[self.best_epoch - 1] for name, values in self.metrics.items()}

    def delta_m(self, single: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
        """Mean relative gain at the best epoch over single-task models, in per cent.

        `single` has their validation metrics; see `training.delta_m`.
        """
        directions = {name: task.higher_is_better for name, task in tasks.items()}
        return delta_m(self.best, single, directions)


# --------------------------------------------------------------------------------------- evaluation
def evaluate_tasks(
    model: nn.Module,
    tasks: Mapping[str, Task],
    data: Table | Separate,
    *,
    precision: torch.dtype | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and metric of every task over all of the data, unweighted.

    Args:
        model: inputs -> dict from task name to output.
        tasks: name -> task, for the very names of the outputs and of the labels.
        data: inputs and labels, on the model's device.
        precision: dtype of the forward passes; None for float32.

    Returns:
        Two dicts, task -> loss and task -> metric, in the task's own unit.

    Raises:
        ValueError: the names differ; it says which.

    Example:
        >>> from mtl_course.multitask import HardSharing
        >>> from mtl_course.training import regression
        >>> tasks = {"sum": regression("sum"), "first": regression("first")}
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        >>> data = Table(x, {"sum": x.sum(1), "first": x[:, 0]})
        >>> heads = {"sum": nn.Flatten(0), "first": nn.Flatten(0)}
        >>> model = HardSharing(nn.AvgPool1d(2), heads)  # predicts the mean of the two inputs
        >>> losses, metrics = evaluate_tasks(model, tasks, data)
        >>> losses
        {'sum': 9.125, 'first': 0.625}
    """
    whole = data.whole()
    return _judged(tasks, whole, predict(model, whole.x, precision=precision))


def _judged(
    tasks: Mapping[str, Task], whole: Batch, outputs: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and metric of every task, of the outputs for a whole data set."""
    _require_same_names(tasks, outputs, "the model's outputs")
    _require_same_names(tasks, whole.targets, "the data's labels")
    losses, metrics = {}, {}
    for name, task in tasks.items():
        rows, y = whole.targets[name]
        losses[name] = float(task.loss(outputs[name][rows], y))
        metrics[name] = float(task.metric(outputs[name][rows], y))
    return losses, metrics


def _require_same_names(tasks: Mapping, names: Mapping, place: str) -> None:
    if missing := [name for name in tasks if name not in names]:
        raise ValueError(
            f"Task {_listed(missing)} is not among {place}, which are {', '.join(names)}."
        )
    if extra := [name for name in names if name not in tasks]:
        raise ValueError(
            f"{_listed(extra)} is among {place} but no task:"
            " add its loss to `tasks`, or leave it out."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _names_of(tasks: Iterable[str], chosen: Tensor) -> str:
    """The names of the tasks where `chosen` [T] is True, as a message lists them."""
    return _listed(name for name, yes in zip(tasks, chosen.tolist(), strict=True) if yes)


# ----------------------------------------------------------------------------------------- one step
def step(
    model: nn.Module,
    tasks: Mapping[str, Task],
    data: Batch,
    optimizer: torch.optim.Optimizer,
    combine: Combine,
    *,
    schedule: LRScheduler | None = None,
    precision: Precision | None = None,
) -> Tensor:
    """One step of the optimizer on one batch.

    With a weighting, nothing waits for the GPU: whether the losses are finite is for the caller to
    ask, once in a while.

    Args:
        model: inputs -> dict from task name to output.
        tasks: name -> task.
        data: the batch; of several processes, which divide it, each has the whole.
        optimizer: of the parameters of the model and of the weighting.
        combine: a `Weighting` of the losses, which needs a label of every task in every batch; or a
            method of `balancing`, which does not.
        schedule: stepped after the optimizer.
        precision: that of the run; None for float32.

    Returns:
        The task losses [T] before the step; NaN for a task without a label in this batch.

    Raises:
        ValueError: a weighting, and a task without a label in this batch or a loss that it cannot
            take; or everything that the step would train is frozen; several processes, and a
            BatchNorm that learns.
        TypeError: a balancing method, and a model without `trunk` and `heads`; or a schedule that
            needs a loss.
        FloatingPointError: a balancing method, and a loss or gradient that is not finite.

    Example:
        >>> from mtl_course.multitask import HardSharing, upgrad
        >>> from mtl_course.training import regression
        >>> tasks = {"low": regression("low"), "high": regression("high")}
        >>> x = torch.ones(4, 1)
        >>> batch = Table(x, {"low": 0 * x, "high": 2 * x}).whole()
        >>> model = HardSharing(nn.Linear(1, 1), {"low": nn.Identity(), "high": nn.Identity()})
        >>> _ = nn.init.ones_(model.trunk.weight), nn.init.zeros_(model.trunk.bias)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step(model, tasks, batch, optimizer, upgrad)  # the trunk gives 1: both are wrong by 1
        tensor([1., 1.])
        >>> model.trunk.weight.item()  # their gradients cancel
        1.0
    """
    precision = precision or Precision(None, data.x.device)
    divided = division(model, accumulate=1)
    method = _method(combine, model, tasks, precision, divided, in_optimizer(optimizer))
    return torch.stack(_step(method, data, optimizer, schedule)).detach()


def _step(
    method: "_Weighted | _Balanced",
    data: Batch,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler | None,
) -> list[Tensor]:
    """`step` with a method that is made once per run; the T losses before it.

    They are left apart: stacking them takes a tenth of the step of a small network, and the loop
    needs it once per epoch only. They may still hang on their graph, which holds no values by then.
    """
    optimizer.zero_grad()
    losses = method.backward(data)
    method.precision.step(optimizer, schedule)
    method.after_step(data)
    return losses


def _method(
    combine: Combine, model, tasks, precision, divided: Division | None = None, trained=()
) -> "_Weighted | _Balanced":
    """The one place that decides which of the two kinds of methods `combine` is.

    `trained` are the parameters of the optimizer, for batches that are divided.
    """
    if divided is not None:
        if not isinstance(combine, Weighting):
            return _BalancedInParts(combine, model, tasks, precision, divided, trained)
        looks = type(combine).before_backward is not Weighting.before_backward
        if looks and divided.accumulate > 1:
            raise ValueError(
                f"{type(combine).__name__} looks at the gradient of every task before the step,"
                " which the parts of a batch do not have: take accumulate=1, or a balancing method."
            )
        combine.to(next(model.parameters()).device)
        return _WeightedInParts(combine, model, tasks, precision, divided, trained)
    if type(combine) is EqualWeights:
        return _Summed(combine, model, tasks, precision)
    if isinstance(combine, Weighting):
        if (first := next(model.parameters(), None)) is not None:
            combine.to(first.device)  # its weights are to be multiplied with the losses
        return _Weighted(combine, model, tasks, precision)
    return _Balanced(combine, model, tasks, precision)


@dataclass(slots=True)
class _Weighted:
    """A weighting of the losses: one backward pass of the total that it makes of them."""

    weighting: Weighting
    model: nn.Module
    tasks: Mapping[str, Task]
    precision: Precision

    def backward(self, data: Batch) -> list[Tensor]:
        """Write the gradients; the T losses, detached."""
        losses = torch.stack(self._losses(data))
        shared = getattr(self.model, "trunk", self.model)
        try:
            self.weighting.before_backward(losses, shared.parameters())
            total = self.weighting(losses)
        except (FloatingPointError, RefusedLossError) as error:
            raise self._named(error, losses) from error
        _require_graph(total)
        self.precision.backward(total)
        return list(losses.detach())

    def after_step(self, data: Batch) -> None:
        """Show the weighting what the step has done to the losses, if it wants to know."""
        if self.weighting.wants_losses_after_step:
            # In training mode, as the first look was; but the batch counts once in the statistics.
            with torch.no_grad(), buffers_kept(self.model):
                losses = torch.stack(self._losses(data))
            try:
                self.weighting.after_step(losses)
            except (FloatingPointError, RefusedLossError) as error:
                raise self._named(error, losses) from error

    def end_epoch(self, losses: Tensor) -> None:
        """Show the weighting the mean losses [T] of the epoch."""
        try:
            self.weighting.end_epoch(losses)
        except RefusedLossError as error:
            raise self._named(error, losses) from error

    def _named(self, error: FloatingPointError | RefusedLossError, losses: Tensor) -> Exception:
        """The error of a weighting, which knows no names, about these losses [T]."""
        if isinstance(error, RefusedLossError):
            names = list(self.tasks)
            return ValueError(f"Task {_listed(names[place] for place in error.places)}: {error}")
        bad = _names_of(self.tasks, ~torch.isfinite(losses))
        return FloatingPointError(f"The loss of task {bad} is not finite." if bad else str(error))

    def _losses(self, data: Batch) -> list[Tensor]:
        outputs = self.precision.outputs(self.model, data.x)
        losses = []
        for name, task in self.tasks.items():
            if name not in data.targets:
                raise _no_label(name)
            rows, y = data.targets[name]
            losses.append(task.loss(_take(outputs[name], rows), y))
        return losses


class _Summed(_Weighted):
    """Equal weights: the losses are added as they come.

    `EqualWeights` itself sums a stack [T]. The way back through it takes a twentieth of the step of
    a small network.
    """

    def backward(self, data: Batch) -> list[Tensor]:
        """Write the gradients; the T losses."""
        losses = self._losses(data)
        total = sum(losses[1:], start=losses[0])
        _require_graph(total)
        self.precision.backward(total)
        return losses

    def after_step(self, data: Batch) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class _WeightedInParts(_Weighted):
    """The same for batches that are divided, among processes and into parts in turn.

    A weighting sees the losses of the whole batch.
    """

    divided: Division
    trained: Iterable[nn.Parameter]

    def backward(self, data: Batch) -> list[Tensor]:
        """Write the gradients, averaged; the T losses of the whole batch, detached."""
        if self.divided.accumulate == 1:
            losses = super(_WeightedInParts, self).backward(data)
        else:
            losses = self._in_turn(data)
        mean_gradients(self.trained)
        return losses

    def _in_turn(self, data: Batch) -> list[Tensor]:
        """The gradients of one part after the other, each task's with the weight of its loss.

        The weights are the slopes of the total. They are known when all losses are, so that a
        first pass without gradients goes through all parts; a plain sum needs none.
        """
        weights = None
        if type(self.weighting) is not EqualWeights:
            gpus = [data.x.device] if data.x.device.type == "cuda" else []
            # The second pass draws what the first one drew, and counts in the buffers alone.
            with torch.no_grad(), buffers_kept(self.model), torch.random.fork_rng(gpus):
                losses = torch.stack(self._losses(data))
            losses.requires_grad_()
            try:
                total = self.weighting(losses)
            except (FloatingPointError, RefusedLossError) as error:
                raise self._named(error, losses) from error
            self.precision.backward(total)
            weights, scale = losses.grad, self._scale()
            weights = weights / scale
        values = []
        for part in self._parts(data):
            terms = torch.stack(self._terms(part, data))
            total = terms.sum() if weights is None else (weights * terms).sum()
            _require_graph(total)
            self.precision.backward(total)
            values.append(terms.detach())
        return list(mean_losses(torch.stack(values).sum(0)))

    def _scale(self) -> float:
        scaler = self.precision.scaler
        return 1.0 if scaler is None else scaler.get_scale()

    def _losses(self, data: Batch) -> list[Tensor]:
        """The losses of the whole batch, with this process's part of their graph."""
        terms = [torch.stack(self._terms(part, data)) for part in self._parts(data)]
        return list(mean_losses(torch.stack(terms).sum(0)))

    def _parts(self, data: Batch) -> Iterator[Batch]:
        return (data.part(number, self.divided.count) for number in self.divided.parts)

    def _terms(self, part: Batch, whole: Batch) -> list[Tensor]:
        """What a part adds to each task's loss of the whole batch."""
        outputs = self.precision.outputs(self.model, part.x)
        terms = []
        for name, task in self.tasks.items():
            if name not in whole.targets:
                raise _no_label(name)
            if name in part.targets:
                rows, y = part.targets[name]
                factor = self.divided.factor(len(y), of=len(whole.targets[name][1]))
                terms.append(task.loss(_take(outputs[name], rows), y) * factor)
            else:
                terms.append(outputs[name][:0].sum())  # no label, and no gradient, but a graph
        return terms


@dataclass(slots=True)
class _Balanced:
    """A balancing of the gradients: one for each task, and weights from their Gram matrix."""

    weigh: Callable[[Tensor], Tensor]
    model: nn.Module
    tasks: Mapping[str, Task]
    precision: Precision

    def backward(self, data: Batch) -> list[Tensor]:
        """Write the gradients; the T losses, detached; NaN for a task without a label here."""
        model = self.model
        self._require_two_sides()
        with self.precision.forward():
            features = model.trunk(data.x)
        done = balanced_backward(
            features,
            {name: self._loss_of(name, data) for name in self.tasks},
            model.trunk.parameters(),
            self.weigh,
            scaler=self.precision.scaler,
        )
        return self._by_task(done)

    def after_step(self, data: Batch) -> None:
        """Nothing to do."""

    def end_epoch(self, losses: Tensor) -> None:
        """Nothing to do."""

    def _require_two_sides(self) -> None:
        model = self.model
        if not (hasattr(model, "trunk") and hasattr(model, "heads")):
            raise TypeError(
                f"{type(model).__name__} has no `trunk` and `heads`;"
                " gradient balancing needs to know what the tasks share."
            )

    def _by_task(self, done: Balanced) -> list[Tensor]:
        """The T losses; NaN for a task without a label in this batch."""
        losses = dict(zip(done.tasks, done.losses, strict=True))
        no_label = done.losses.new_tensor(float("nan"))
        return [losses.get(name, no_label) for name in self.tasks]

    def _loss_of(self, name: str, data: Batch) -> Callable[[Tensor], Tensor | None]:
        """Features -> loss of a task, or None if it has no label in this batch."""

        def loss_of(features: Tensor) -> Tensor | None:
            if name not in data.targets:
                return None
            rows, y = data.targets[name]
            head = self.model.heads[name]
            if len(y) > 1:
                output = self.precision.outputs(head, _take(features, rows))
            else:
                # A norm in the head must not get a row alone.
                output = _take(self.precision.outputs(head, features), rows)
            return self.tasks[name].loss(output, y)

        return loss_of


@dataclass(slots=True)
class _BalancedInParts(_Balanced):
    """The same for batches that are divided; the Gram matrix is that of the whole batch."""

    divided: Division
    trained: Iterable[nn.Parameter]

    def backward(self, data: Batch) -> list[Tensor]:
        """Write the gradients, averaged; the T losses of the whole batch, NaN without a label."""
        model = self.model
        self._require_two_sides()
        done = balanced_backward_in_parts(
            (
                self._part(data.part(number, self.divided.count), data)
                for number in self.divided.parts
            ),
            model.trunk.parameters(),
            self.weigh,
            scaler=self.precision.scaler,
        )
        averaged = set(map(id, model.trunk.parameters()))
        mean_gradients(p for p in self.trained if id(p) not in averaged)
        return self._by_task(done)

    def _part(self, part: Batch, whole: Batch) -> tuple[Tensor, dict[str, Callable]]:
        """Features of a part, and what it adds to each task's loss of the whole batch."""
        with self.precision.forward():
            features = self.model.trunk(part.x)

        def term_of(name: str) -> Callable[[Tensor], Tensor | None]:
            if name not in whole.targets:
                return lambda features: None
            if name not in part.targets:
                return lambda features: features[:0].sum()
            labels, loss_of = len(part.targets[name][1]), self._loss_of(name, part)
            factor = self.divided.factor(labels, of=len(whole.targets[name][1]))
            return lambda features: loss_of(features) * factor

        return features, {name: term_of(name) for name in self.tasks}


def _no_label(name: str) -> ValueError:
    """The error of a weighting, for a batch without a label of a task."""
    return ValueError(
        f"No example of this batch has a label for task {name!r}:"
        " take larger batches, or a balancing method."
    )


def _require_graph(total: Tensor) -> None:
    """ValueError unless the total of the losses depends on something that learns."""
    if not total.requires_grad:
        raise ValueError(
            "The losses depend on nothing that learns: the model is frozen as a whole."
        )


def _take(values: Tensor, rows: slice | Tensor) -> Tensor:
    """``values[rows]``, without a node in the graph where these are all rows."""
    return values if rows is EVERY_ROW else values[rows]


# ----------------------------------------------------------------------------------------- the loop
def fit_tasks(
    model: nn.Module,
    tasks: Mapping[str, Task],
    train: Table | Separate,
    validation: Table | Separate,
    optimizer: torch.optim.Optimizer,
    combine: Combine | None = None,
    *,
    epochs: int = 100,
    batch: int = 32,
    patience: int = 10,
    augment: Augment | None = None,
    schedule: LRScheduler | None = None,
    precision: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
    accumulate: int = 1,
) -> TaskHistory:
    """Train a model on several tasks, in place, until validation stops improving.

    The best epoch is the one with the least mean over tasks of validation loss / validation loss of
    the untrained model, so that no task decides by its unit. Where the untrained loss is not
    positive, as a log-likelihood may be, the ratio would turn: 1 + the difference takes its place.
    Everything else is as in `training.fit`, several processes too: weightings see the losses of the
    whole batch, and balancing methods the Gram matrix of its gradients.

    Args:
        model: inputs -> dict from task name to output.
        tasks: name -> task, for the very names of the outputs and of the labels.
        train: inputs and labels, on the model's device.
        validation: the same, other rows.
        optimizer: of the model's parameters and, where a weighting has some, of those:
            `weighting.parameter_groups` puts both there.
        combine: a `Weighting` of the losses (default: their sum), or a method of `balancing`, Gram
            matrix [T, T] -> weights [T]. The latter needs a model with a `trunk` and `heads`, such
            as `HardSharing`.
        epochs: at most so many.
        batch: rows in a step, those of all processes together; of `Separate` data, rows of each
            task. A last row alone joins the step before, where the model has a BatchNorm in
            training mode.
        patience: so many epochs without a better validation loss end the run.
        augment: (inputs of a training batch, generator on their device) -> inputs.
        schedule: stepped after every optimizer step.
        precision: None for float32; torch.bfloat16; torch.float16.
        seed: fixes the order of the examples and the draws of `augment`.
        progress: whether to show a bar.
        checkpoint: a file in which every epoch is saved, and from which the same call goes on.
        accumulate: parts of a batch (of a process's share of it) that are taken one after the
            other: the same step in less memory. A weighting other than the plain sum looks at all
            losses first, which costs one more forward pass.

    Returns:
        Losses and metrics of every task on the validation data, one value per epoch.

    Raises:
        ValueError: names of tasks, outputs and labels differ; labels are not finite (names the
            task); a weighting, and a batch without a label of a task or losses that it cannot take;
            the model is frozen as a whole, or the optimizer misses a parameter; the schedule is
            another optimizer's; a BatchNorm would be given single rows; a balancing method, and a
            parameter of both trunk and heads; the checkpoint does not fit. With several processes
            or parts: a BatchNorm that learns, a loss that is no mean over rows, processes that do
            not start alike; with parts: GradNorm.
        TypeError: a balancing method, and a model without `trunk` and `heads`; a schedule that
            needs a loss, or an optimizer that needs a closure.
        FloatingPointError: a loss or gradient is not finite; with task, epoch, step and learning
            rate.
        torch.OutOfMemoryError: with the batch size to try.
        ConnectionError: another process has ended. A checkpoint is whole.

    Example:
        >>> from mtl_course.multitask import HardSharing
        >>> from mtl_course.training import regression
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> data = Table(x, {"twice": 2 * x, "minus": -x})
        >>> tasks = {"twice": regression("twice"), "minus": regression("minus")}
        >>> heads = {"twice": nn.Linear(1, 1), "minus": nn.Linear(1, 1)}
        >>> model = HardSharing(nn.Identity(), heads)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        >>> history = fit_tasks(model, tasks, data, data, optimizer, epochs=30, progress=False)
        >>> {name: f"{metric:.2f}" for name, metric in history.best.items()}
        {'twice': '1.00', 'minus': '1.00'}
    """
    combine = EqualWeights() if combine is None else combine
    for kind, rows in (("training", train), ("validation", validation)):
        labels = rows.labels()
        require_finite_targets({f"Task {name!r}, {kind} data": y for name, y in labels.items()})
    require_trainable(model.parameters())
    require_in_optimizer(model.named_parameters(), optimizer)
    require_plain_steps(optimizer, schedule)
    if not isinstance(combine, Weighting) and hasattr(model, "trunk") and hasattr(model, "heads"):
        require_one_side(model.trunk, model.heads)
    rows_at_least = least_rows(model, train.rows_of_step(batch))
    if isinstance(combine, nn.Module):
        require_in_optimizer(combine.named_parameters("weighting"), optimizer)
    precision = Precision(precision, next(model.parameters()).device)
    divided = division(model, accumulate)
    history = TaskHistory(losses={name: [] for name in tasks}, metrics={name: [] for name in tasks})
    data = {"training data": train, "validation data": validation}
    state = new_state(
        model=model,
        history=history,
        optimizer=optimizer,
        schedule=schedule,
        precision=precision,
        augment=augment,
        combine=combine,
        batch=batch,
        seed=seed,
        functions={f"task {name!r}": task.loss for name, task in tasks.items()},
        data=None if checkpoint is None and place()[1] == 1 else data,
    )
    require_same_start(state, epochs=epochs, patience=patience)
    initial, _ = _judged_together(model, tasks, validation, precision, divided is not None)
    if bad := [name for name, loss in initial.items() if not math.isfinite(loss)]:
        raise FloatingPointError(
            f"The validation loss of task {_listed(bad)} is not finite before the first step."
            " Look for log(0), 0/0 or inputs that are not finite."
        )
    history.initial.update(initial)
    order, draws = state.generators["order"], state.generators.get("augment")
    method = _method(combine, model, tasks, precision, divided, in_optimizer(optimizer))

    def one_epoch() -> float:
        losses, counts, rates = [], [], []
        fixed = learning_rates(optimizer) if schedule is None else None
        try:
            for data in train.batches(batch, order, rows_at_least):
                rates.append(fixed or learning_rates(optimizer))
                if augment is not None:
                    data = replace(data, x=augment(data.x, draws))
                # Their graph lives until the next one is there, and so do its ends, one node per
                # parameter, which torch would otherwise make anew at each step.
                step_losses = _step(method, data, optimizer, schedule)
                losses += [loss.detach() for loss in step_losses]
                labelled = data.targets
                counts.append([labelled[t][1].size(0) if t in labelled else 0 for t in tasks])
        except FloatingPointError as error:
            where = f"Epoch {len(history.train) + 1}, step {len(rates)}"
            rate = in_words(rates[-1])
            raise FloatingPointError(f"{where}, learning rate {rate}: {error}") from error
        # [steps, T]: the only wait for the device in an epoch.
        losses = torch.stack(losses).cpu().view(-1, len(tasks))
        counts = torch.tensor(counts)
        mean = _mean(losses, counts)
        if not torch.isfinite(mean).all():
            raise _diverged(tasks, losses, counts, rates, len(history.train) + 1)
        method.end_epoch(mean)
        return relative(dict(zip(tasks, mean.tolist(), strict=True)))

    def validate() -> float:
        losses, metrics = _judged_together(model, tasks, validation, precision)
        for name in tasks:
            history.losses[name].append(losses[name])
            history.metrics[name].append(metrics[name])
        return relative(losses)

    def relative(losses: Mapping[str, float]) -> float:
        """Mean over tasks of the loss, relative to that of the untrained model."""
        return sum(_relative(losses[name], history.initial[name]) for name in tasks) / len(tasks)

    return run_epochs(
        state,
        one_epoch,
        validate,
        epochs=epochs,
        patience=patience,
        progress=progress,
        checkpoint=checkpoint,
    )


def _judged_together(
    model: nn.Module,
    tasks: Mapping[str, Task],
    data: Table | Separate,
    precision: Precision,
    divided: bool = False,
) -> tuple[dict[str, float], dict[str, float]]:
    """`evaluate_tasks` by all processes together; ValueError for a loss that cannot be divided."""
    whole = data.whole()
    outputs = predict_together(model, whole.x, precision=precision.dtype)
    judged = _judged(tasks, whole, outputs)
    if divided:
        for name, task in tasks.items():
            rows, y = whole.targets[name]
            require_mean(f"The loss of task {name!r}", task.loss, outputs[name][rows], y)
    return judged


def _relative(loss: float, initial: float) -> float:
    """A loss relative to that of the untrained model: less is better, and 1 is as good as that."""
    return loss / initial if initial > 0 else 1 + loss - initial


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    """Mean [T] over the labels of an epoch.

    Of the losses [steps, T], each a mean over so many labels, `counts` [steps, T]; NaN where there
    is none.
    """
    if (counts == counts[0]).all():
        return losses.mean(0)
    sums = torch.where(counts > 0, losses.double() * counts, 0).sum(0)
    return (sums / counts.sum(0)).to(losses.dtype)


def _diverged(
    tasks: Mapping[str, Task], losses: Tensor, counts: Tensor, rates: list[list[float]], epoch: int
) -> FloatingPointError:
    """The error for an epoch's losses [steps, T] that are not finite where there are labels.

    It names the tasks of the first such step: later on, what they share is spoilt for all.
    """
    bad = ~torch.isfinite(losses) & (counts > 0)
    if not bad.any():
        bad = counts > 0  # each is finite, and their sum is not
    first = int(bad.any(1).nonzero()[0])
    what = f"training loss of {_names_of(tasks, bad[first])} is not finite"
    return divergence(what, rates[first], f"epoch {epoch}, step {first + 1}")
