"""Distillation: a student learns from a teacher's outputs, softened by a temperature.

The teacher is a constant. `teacher_outputs` asks it once for a whole transfer set, and what it says
are targets like any others for `training.fit` and `multitask.fit_tasks`:

    z = teacher_outputs(teacher, x)  # logits [N, C], no labels needed
    fit(student, (x, z), (x_validation, z_validation), partial(kd_loss, temperature=4.0), ...)

Several teachers, one per task, teach the heads of one student in the same way (`distilled_tasks`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..training.evaluation import predict
from ..training.tasks import Task


# ---------------------------------------------------------------------------------- one teacher
def soft_targets(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities softmax(logits / T): the higher T, the more even.

    Args:
        logits: [..., C].
        temperature: T, above 0; 1 is the plain softmax.

    Returns:
        [..., C], rows that sum to 1; in float32 where the logits are in half precision.

    Raises:
        ValueError: a temperature that is not above 0 and finite.

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, equation 1.

    Example:
        >>> z = torch.tensor([4.0, 2.0, 0.0]) * math.log(2)  # 16 : 4 : 1
        >>> [round(21 * p) for p in soft_targets(z).tolist()]
        [16, 4, 1]
        >>> [round(7 * p) for p in soft_targets(z, temperature=2.0).tolist()]
        [4, 2, 1]
    """
    return F.softmax(_exact(logits) / _positive(temperature), dim=-1)


def kd_loss(logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, mean over the rows.

    The factor T^2 keeps the gradient's size: dividing the logits by T shrinks it by about T^2. For
    large T the loss becomes half the squared distance of the centred logits, divided by C. The
    teacher is a constant: no gradient reaches its logits.

    Args:
        logits: of the student, [N, C].
        teacher_logits: [N, C], of the same classes in the same order. A class that it rules out may
            have -inf.
        temperature: T of both, above 0.

    Returns:
        Scalar in nats x T^2, 0 where both have the same probabilities.

    Raises:
        ValueError: a temperature that is not above 0 and finite; no rows; another number of rows
            or classes.
        TypeError: integers as teacher's logits, such as labels.
        FloatingPointError: a NaN or inf among the teacher's logits, where they lie on the CPU. (On
            a GPU the look would wait for the device in every step; `teacher_outputs` has looked.)

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, sections 2
        and 2.1.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, -2.0]])
        >>> f"{kd_loss(student, teacher, temperature=1.0):.3f}"
        '0.603'
        >>> f"{kd_loss(student, teacher, temperature=100.0):.3f}"  # (2^2 + 2^2) / (2 x 2)
        '2.000'
    """
    T = _positive(temperature)
    _require_fitting(logits, teacher_logits)
    if teacher_logits.device.type == "cpu":
        _require_finite(teacher_logits, "The teacher's logits")
    p = soft_targets(teacher_logits.detach(), T)
    log_q = F.log_softmax(_exact(logits) / T, dim=-1)
    return T**2 * F.kl_div(log_q, p.to(log_q), reduction="batchmean")


def mixed_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> Tensor:
    """Both at once: alpha x `kd_loss` + (1 - alpha) x cross-entropy with the labels.

    Args:
        logits: of the student, [N, C].
        teacher_logits: [N, C].
        labels: int64 [N]; -100 for a row that has none, which then counts for the teacher only.
        temperature: T of the soft part; the labels are met at T = 1.
        alpha: 0 (labels only) to 1 (teacher only).

    Returns:
        Scalar. The cross-entropy is a mean over the rows with a label, 0 where there is none.

    Raises:
        ValueError: alpha outside [0, 1], another number of labels than of rows, or what `kd_loss`
            refuses.
        TypeError: as in `kd_loss`.
        FloatingPointError: as in `kd_loss`.

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, -2.0]])
        >>> hard = mixed_loss(student, teacher, torch.tensor([0]), alpha=0.0)
        >>> f"{hard:.3f}"  # log 2
        '0.693'
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is the teacher's share, from 0 to 1.")
    soft = kd_loss(logits, teacher_logits, temperature)
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"The student answers {len(logits)} rows and the labels have shape"
            f" {tuple(labels.shape)}: one class per row."
        )
    count = (labels != -100).sum().clamp_min(1)
    hard = F.cross_entropy(_exact(logits), labels, reduction="sum") / count
    return alpha * soft + (1 - alpha) * hard


def agreement(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Share of the rows for which student and teacher name the same class. Needs no label.

    Args:
        logits: of the student, [N, C].
        teacher_logits: [N, C].

    Returns:
        Scalar in [0, 1]; NaN if a logit is.

    Raises:
        ValueError: no rows; another number of rows or classes.
        TypeError: integers as teacher's logits, such as labels.

    Example:
        >>> student = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
        >>> agreement(student, torch.tensor([[5.0, 1.0], [1.0, 0.0]]))
        tensor(0.5000)
    """
    _require_fitting(logits, teacher_logits)
    same = (logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).float()
    unknown = logits.isnan().any(dim=1) | teacher_logits.isnan().any(dim=1)
    return same.masked_fill(unknown, torch.nan).mean()


# ------------------------------------------------------------------------------------- features
class FeatureMatch(nn.Module):
    """Distance of the student's features, through a regressor, from the teacher's (FitNets).

    Student and teacher differ in width, so a linear map learns to translate: its parameters belong
    into the optimizer, and it is thrown away after training. Maps of features [B, k, H, W] get a
    1x1 convolution.

    Args:
        student: width of the student's features (channels of a map).
        teacher: width of the teacher's.
        maps: whether the features are maps.

    Raises:
        ValueError: when called, features of another width, side or number of rows.

    Source:
        Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3 (there with half
        the sum instead of the mean, and a convolutional regressor).

    Example:
        >>> match = FeatureMatch(student=16, teacher=128)
        >>> match(torch.randn(5, 16), torch.randn(5, 128)).shape
        torch.Size([])
        >>> [list(p.shape) for p in match.parameters()]
        [[128, 16], [128]]
    """

    def __init__(self, student: int, teacher: int, maps: bool = False):
        super().__init__()
        self.student, self.teacher, self.maps = student, teacher, maps
        self.regressor = nn.Conv2d(student, teacher, 1) if maps else nn.Linear(student, teacher)

    def forward(self, features: Tensor, teacher_features: Tensor) -> Tensor:
        """Mean squared error between the translated features and the teacher's, a constant."""
        named = {"student": (features, self.student), "teacher": (teacher_features, self.teacher)}
        for name, (values, width) in named.items():
            if values.ndim != (4 if self.maps else 2) or values.shape[1] != width:
                form = f"[B, {width}, H, W]" if self.maps else f"[B, {width}]"
                raise ValueError(
                    f"The {name}'s features have shape {tuple(values.shape)} where {form} was"
                    " promised: give the width when you build FeatureMatch"
                    f"{'' if self.maps else ', and maps=True for maps'}."
                )
        translated = self.regressor(features)
        if translated.shape != teacher_features.shape:
            raise ValueError(
                f"The student's features become {tuple(translated.shape)}, the teacher's have"
                f" {tuple(teacher_features.shape)}: ask both for the same rows, and match maps of"
                " the same sides (pool the larger one)."
            )
        return F.mse_loss(translated, teacher_features.detach())


# ------------------------------------------------------------------------------ several teachers
def teacher_outputs(
    teacher: nn.Module | Mapping[str, nn.Module], x: Tensor, batch: int = 2048
) -> Tensor | dict[str, Tensor]:
    """What a teacher says of the inputs: in evaluation mode, without gradients, once.

    Every module's mode is put back afterwards, and no parameter or statistic moves.

    Args:
        teacher: inputs -> logits [N, C], or a dict task -> logits; or a dict task -> teacher, one
            for each head of a multi-task student.
        x: [N, ...], the transfer set, on the teacher's device.
        batch: rows at a time.

    Returns:
        Logits [N, C]; or task -> logits, for a dict of teachers and for a teacher that gives one.

    Raises:
        ValueError: a dict of no teachers; a teacher among several that has several heads itself.
        FloatingPointError: outputs that are not finite; names the teacher and the first row.

    Example:
        >>> x = torch.eye(2)
        >>> teachers = {"left": nn.Identity(), "right": nn.Flatten()}
        >>> {task: logits.tolist() for task, logits in teacher_outputs(teachers, x).items()}
        {'left': [[1.0, 0.0], [0.0, 1.0]], 'right': [[1.0, 0.0], [0.0, 1.0]]}
    """
    if isinstance(teacher, nn.Module):
        outputs = predict(teacher, x, batch=batch)
        if isinstance(outputs, Mapping):
            for task, logits in outputs.items():
                _require_finite(logits, f"The teacher's logits of {task!r}")
        else:
            _require_finite(outputs, "The teacher's logits")
        return outputs
    if not teacher:
        raise ValueError("There is no teacher in the dict: give one per task.")
    answers = {}
    for task, one in teacher.items():
        answers[task] = predict(one, x, batch=batch)
        if not isinstance(answers[task], Tensor):
            raise ValueError(
                f"The teacher of {task!r} gives several outputs, {', '.join(answers[task])}:"
                " give it alone, or pick the head that teaches this task."
            )
        _require_finite(answers[task], f"The logits of the teacher of {task!r}")
    return answers


def kd_losses(
    outputs: Mapping[str, Tensor], teacher_logits: Mapping[str, Tensor], temperature: float = 4.0
) -> dict[str, Tensor]:
    """`kd_loss` for each head of a multi-task student, paired with its teacher by name.

    Args:
        outputs: task -> logits of the student's head.
        teacher_logits: task -> logits of its teacher, for the same tasks in any order.
        temperature: T of all.

    Returns:
        Task -> scalar, in the order of `outputs`.

    Raises:
        ValueError: tasks without a teacher or teachers without a head, or what `kd_loss` refuses;
            names the task.
        TypeError: as in `kd_loss`.
        FloatingPointError: as in `kd_loss`.

    Example:
        >>> z = {"left": torch.zeros(3, 10), "right": torch.zeros(3, 4)}
        >>> losses = kd_losses(z, {"right": torch.ones(3, 4), "left": torch.eye(3, 10)})
        >>> {task: f"{loss:.3f}" for task, loss in losses.items()}
        {'left': '0.051', 'right': '0.000'}
    """
    if outputs.keys() != teacher_logits.keys():
        raise ValueError(
            f"The student has heads for {', '.join(outputs)}"
            f" and the teachers teach {', '.join(teacher_logits)}: one teacher per head."
        )
    losses = {}
    for task, logits in outputs.items():
        try:
            losses[task] = kd_loss(logits, teacher_logits[task], temperature)
        except (ValueError, TypeError, FloatingPointError) as error:
            raise type(error)(f"Task {task!r}: {error}") from None
    return losses


def distilled_tasks(names: Iterable[str], temperature: float = 4.0) -> dict[str, Task]:
    """Tasks for `multitask.fit_tasks` whose targets are the logits of teachers, not labels.

    The loss is `kd_loss`, the metric is `agreement`, so that neither training nor the choice of an
    epoch sees a label.

    Args:
        names: of the student's heads.
        temperature: T of all.

    Returns:
        Name -> task.

    Raises:
        ValueError: a temperature that is not above 0 and finite.

    Example:
        >>> tasks = distilled_tasks(["left", "right"], temperature=2.0)
        >>> z = torch.tensor([[1.0, 0.0]])
        >>> [(name, float(task.metric(z, 3 * z))) for name, task in tasks.items()]
        [('left', 1.0), ('right', 1.0)]
    """
    loss = partial(kd_loss, temperature=_positive(temperature))
    return {name: Task(name, loss, agreement, higher_is_better=True) for name in names}


def pooled_logits(
    teacher_logits: Sequence[Tensor],
    temperature: float = 4.0,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Logits of an imagined teacher whose soft targets are the mean of those of several.

    `kd_loss` with them has the gradient of the mean of the teachers' `kd_loss`, at the same
    temperature.

    Args:
        teacher_logits: one [N, C] per teacher, of the same classes.
        temperature: T at which the probabilities are averaged.
        weights: one per teacher, not negative, of any sum above 0; None counts all the same.

    Returns:
        [N, C], T x the logarithm of the mean probabilities.

    Raises:
        ValueError: no teacher, teachers of different shapes, or weights that do not fit; a
            temperature that is not above 0 and finite.

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 1:
        the mean of an ensemble's predictions.

    Example:
        >>> z = torch.tensor([[0.0, 2.0]])
        >>> soft_targets(pooled_logits([z, -z], temperature=2.0), temperature=2.0)
        tensor([[0.5000, 0.5000]])
    """
    T = _positive(temperature)
    shapes = [tuple(logits.shape) for logits in teacher_logits]
    if not shapes or len(set(shapes)) > 1:
        raise ValueError(
            f"pooled_logits takes teachers of the same rows and classes; these have {shapes}."
        )
    shares = torch.tensor([1.0] * len(shapes) if weights is None else list(weights))
    if len(shares) != len(shapes) or not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
        raise ValueError(
            f"{len(shapes)} teachers need as many weights, not negative, of a sum above 0;"
            f" they are {shares.tolist()}."
        )
    logs = torch.stack([F.log_softmax(_exact(z.detach()) / T, dim=-1) for z in teacher_logits])
    shares = (shares / shares.sum()).to(logs)
    return T * torch.logsumexp(logs + shares.log().view(-1, *[1] * (logs.ndim - 1)), dim=0)


# ---------------------------------------------------------------------------------------- faults
def _exact(logits: Tensor) -> Tensor:
    """Logits in a precision in which a softmax is safe."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _positive(temperature: float) -> float:
    """The temperature itself. ValueError unless it is above 0 and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature is {temperature}; it divides, so it must be above 0.")
    return temperature


def _require_fitting(logits: Tensor, teacher_logits: Tensor) -> None:
    """Errors where the teacher's logits do not belong to the student's."""
    if not teacher_logits.is_floating_point():
        raise TypeError(
            f"The teacher's logits are {teacher_logits.dtype}: give what it says before the"
            " softmax, not labels."
        )
    if logits.ndim != 2 or teacher_logits.ndim != 2:
        raise ValueError(
            f"Logits are [N, C]; the student's have shape {tuple(logits.shape)}, the teacher's"
            f" {tuple(teacher_logits.shape)}."
        )
    if logits.shape[1] != teacher_logits.shape[1]:
        raise ValueError(
            f"The student has {logits.shape[1]} classes and the teacher"
            f" {teacher_logits.shape[1]}: pick the teacher's columns of the student's classes, in"
            " the student's order."
        )
    if len(logits) != len(teacher_logits):
        raise ValueError(
            f"The student answers {len(logits)} rows and the teacher {len(teacher_logits)}:"
            " ask both the same inputs."
        )
    if len(logits) == 0:
        raise ValueError("There is no row to learn from: leave the empty batch out.")


def _require_finite(logits: Tensor, what: str) -> None:
    """FloatingPointError for a NaN or inf; -inf rules a class out and may stay."""
    wrong = (logits.isnan() | logits.isposinf()).flatten(1).any(dim=1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        raise FloatingPointError(
            f"{what} are not finite, first in row {row}: look at that input, and at the teacher's"
            " training."
        )
