"""Exercises of chapter 14: distillation and compression."""

import torch
from torch import nn
from torch.nn import functional as F

from ..checks import values
from ..checks.exercise import exercise
from . import inputs
from .inputs import LEAVES_NO_TRACE, different, filled, leaves_no_trace, powers, uniform, whole
from .outcomes import required


def _pair(g, scale=3.0):
    """Logits of a student and a teacher, float64 [N, C], N and C different."""
    n, classes = different(g, 2, 2, 8)
    return tuple(scale * torch.randn(n, classes, generator=g, dtype=torch.float64) for _ in "zv")


# ---------------------------------------------------------------------- 1. the loss at temperature
# inputs
def _usual(g):
    z, v = _pair(g)
    return z, v, uniform(g, 1.5, 6.0)


def _cold(g):
    """One row, a temperature below 1."""
    z, v = _pair(g)
    return z[:1], v[:1], uniform(g, 0.4, 0.8)


def _far(g):
    """Logits so large that their exponentials are infinite."""
    z, v = _pair(g, scale=2000.0)
    return z, v, uniform(g, 2.0, 6.0)


# reference
@exercise(
    [_usual, _cold, _far],
    points=1,
    hints=(
        "Both are divided by T before the softmax. Which of the two is the truth in KL(p || q)?",
        (
            "Take log-probabilities of both, log_softmax(z / T, dim=1). KL is the sum over the"
            " classes of p (log p - log q); then the mean over the rows, times T * T."
        ),
        (
            "log_p = F.log_softmax(v.detach() / T, dim=1), log_q alike from z, and"
            " T * T * (log_p.exp() * (log_p - log_q)).sum(1).mean()."
        ),
    ),
)
def distillation_loss(z, v, T):
    """T^2 KL(p || q), the mean over the rows, with the teacher's
    p = softmax(v / T) and the student's q = softmax(z / T).

    z: the student's logits [N, C]; v: the teacher's [N, C];
    T: a number above 0. Logits may be in the thousands.
    Return a scalar tensor. The teacher is a constant: no
    gradient reaches v.
    """
    ### BEGIN SOLUTION
    log_p = F.log_softmax(v.detach() / T, dim=1)
    log_q = F.log_softmax(z / T, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return T**2 * divergence.mean()
    ### END SOLUTION


# laws
@distillation_loss.law("is 0 where both say the same, however their logits are shifted")
def _(answer, z, v, T):
    shift = torch.arange(len(v), dtype=v.dtype, device=v.device)[:, None]
    return abs(float(answer(v + shift, v, T))) < 1e-6 * float(v.abs().max())


distillation_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _kd(
    z,
    v,
    T,
    of_teacher=True,
    of_student=True,
    factor=lambda T: T**2,
    reverse=False,
    combine=lambda rows: rows.sum(1).mean(),
    entropy=True,
    constant=torch.Tensor.detach,
    soften=lambda u, T: u / T,
):
    """The loss with one thing changed."""
    v = constant(v)
    log_p = F.log_softmax(soften(v, T) if of_teacher else v, dim=1)
    log_q = F.log_softmax(soften(z, T) if of_student else z, dim=1)
    if reverse:
        log_p, log_q = log_q, log_p
    return factor(T) * combine(log_p.exp() * ((log_p if entropy else 0) - log_q))


distillation_loss.variants(
    _kd,
    {
        "The factor, T squared, is missing: without it the gradient of a hot teacher is tiny.": {
            "factor": lambda T: 1.0
        },
        "The factor is T; the gradient shrinks with the square of T.": {"factor": lambda T: T},
        "You divide by T squared where you should multiply by it.": {"factor": lambda T: T**-2},
        "The two are exchanged: this is KL(q || p). The teacher's probabilities come first.": {
            "reverse": True
        },
        "Only the teacher is softened; the student's logits are to be divided by T, too.": {
            "of_student": False
        },
        "Only the student is softened; the teacher's logits are to be divided by T, too.": {
            "of_teacher": False
        },
        "You add the rows up; take their mean.": {"combine": torch.sum},
        "You take the mean over the classes as well: add up over the classes, and take the mean"
        " over the rows only.": {"combine": torch.mean},
        "This is the cross-entropy with the soft targets. Its gradient is right, but it is not 0"
        " where both agree: the teacher's own p log p is missing.": {"entropy": False},
        "The values are right, but a gradient reaches v: the teacher is a constant, detach it.": {
            "constant": lambda v: v
        },
        "You multiply by T where you should divide: that makes the targets harder.": {
            "soften": lambda u, T: u * T
        },
    },
)


@distillation_loss.mistake(
    "Of large logits your exponentials overflow, or a probability becomes 0 and its logarithm"
    " infinite: use log_softmax, which never takes the one without the other."
)
def _(z, v, T):
    p, q = F.softmax(v.detach() / T, dim=1), F.softmax(z / T, dim=1)
    return T**2 * (p * (p.log() - q.log())).sum(1).mean()


@distillation_loss.mistake(
    "The softmax runs over the rows: each row, one image, has probabilities that sum to 1."
)
def _(z, v, T):
    log_p, log_q = F.log_softmax(v.detach() / T, dim=0), F.log_softmax(z / T, dim=0)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


@distillation_loss.mistake(
    "Probabilities are averaged over the rows before they are compared:"
    " compare image by image, then average."
)
def _(z, v, T):
    p = F.softmax(v.detach() / T, dim=1).mean(0)
    q = F.softmax(z / T, dim=1).mean(0)
    return T**2 * F.kl_div(q.log(), p, reduction="sum")


# -------------------------------------------------------------------------- 2. the hottest teacher
# inputs
def _any(g):
    return _pair(g)


def _one_image(g):
    z, v = _pair(g, scale=1e3)
    return z[:1], v[:1] + 50.0


# reference
@exercise(
    [_any, _one_image],
    points=2,
    grad=False,
    rtol=1e-3,
    hints=(
        "Equation 3 has the gradient at T, and exp(u) is nearly 1 + u for small u: what is small?",
        (
            "p_i becomes (1 + v_i / T) / (C + sum of v / T), which is nearly"
            " 1 / C + (v_i - mean of v) / (C T). What is left of T (q - p)?"
        ),
        (
            "Centre each row, z - z.mean(dim=1, keepdim=True), and v alike; subtract, and divide"
            " by the C classes and the N rows."
        ),
    ),
)
def hot_gradient(z, v):
    """The gradient of the loss of exercise 1 for the student's
    logits z, in the limit of an infinite T.

    z, v: logits [N, C] of student and teacher.
    Return a tensor [N, C], as z.grad would be.
    """
    ### BEGIN SOLUTION
    n, classes = z.shape
    student = z - z.mean(dim=1, keepdim=True)
    teacher = v - v.mean(dim=1, keepdim=True)
    return (student - teacher) / (n * classes)
    ### END SOLUTION


# laws
@hot_gradient.law("asks for nothing where the logits differ by a constant per image")
def _(answer, z, v):
    shift = torch.arange(len(v), dtype=v.dtype, device=v.device)[:, None] - 3.0
    return float(answer(v + shift, v).abs().max()) < 1e-3 * float(v.abs().max())


@hot_gradient.law("every row of it sums to 0: a softmax does not see a common shift")
def _(answer, z, v):
    rows = answer(z, v)
    return bool((rows.sum(1).abs() <= 1e-3 * rows.abs().sum(1)).all())


hot_gradient.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _hot(z, v, student=1, teacher=1, sign=1.0, share=lambda n, c: 1 / (n * c)):
    """The limit with one thing changed; student, teacher: the dimension of the mean, or None."""

    def centred(u, dim):
        return u if dim is None else u - u.mean(dim=dim, keepdim=True)

    return sign * share(*z.shape) * (centred(z, student) - centred(v, teacher))


hot_gradient.variants(
    _hot,
    {
        "Each row is to be centred: a constant added to all logits of an image changes no"
        " probability.": {"student": None, "teacher": None},
        "The teacher's logits are not centred.": {"teacher": None},
        "The student's logits are not centred.": {"student": None},
        "You take the means over the images; the mean of each row is over its classes.": {
            "student": 0,
            "teacher": 0,
        },
        "The sign is turned: this points from the student to the teacher,"
        " and the gradient points away from what lowers the loss.": {"sign": -1.0},
        "It is twice too large: the limit of the loss is *half* the squared distance over C.": {
            "sign": 2.0
        },
        "The number of classes is missing: a probability is nearly 1 / C.": {
            "share": lambda n, c: 1 / n
        },
        "The number of rows is missing: the loss is their mean.": {"share": lambda n, c: 1 / c},
    },
)


@hot_gradient.mistake(
    "This is the gradient at one temperature, and not hot enough: let T go to infinity on paper."
)
def _(z, v):
    T = 100.0
    return T * (F.softmax(z / T, dim=1) - F.softmax(v / T, dim=1)) / len(z)


@hot_gradient.mistake("These are differences of probabilities at T = 1; what is left is in logits.")
def _(z, v):
    return (F.softmax(z, dim=1) - F.softmax(v, dim=1)) / len(z)


# -------------------------------------------------------------------- 3. a student of two teachers
# inputs
def _tasks(labelled, scale=2.0):
    """Two or three tasks with classes of their own; `labelled`: all rows, none, or some."""

    def draw(g):
        count = whole(g, 2, 4)
        names = inputs.task_names(g, count)
        n, *classes = different(g, count + 1, 3, 10)
        outputs, answers, labels = {}, {}, {}
        for name, c in zip(names, classes):
            z, v = (scale * torch.randn(n, c, generator=g, dtype=torch.float64) for _ in "zv")
            y = inputs.labels(g, n, c)
            if labelled != "all":
                y[torch.rand(n, generator=g) < 0.5] = -1
                y[whole(g, 0, n)] = -1
            if labelled == "none":
                y[:] = -1
            outputs[name], answers[name], labels[name] = z, v, y
        if labelled == "some":  # a task that has no label at all
            labels[names[0]][:] = -1
        return outputs, inputs.shuffled(g, answers), inputs.shuffled(g, labels), uniform(g, 1.5, 5)

    return draw


# reference
@exercise(
    [_tasks("some"), _tasks("none", 1000.0), _tasks("all", 1000.0)],
    points=2,
    hints=(
        "Some rows of a task ask the teacher, the others do not: how do you tell them apart?",
        (
            "Compute both losses for every row of a task, [N] each, and choose with torch.where."
            " A label of -1 is no class: clamp it before cross_entropy."
        ),
        (
            "hard = F.cross_entropy(z, y.clamp_min(0), reduction='none'); soft = T * T times the"
            " sum over classes of p (log p - log q); torch.where(y >= 0, hard, soft).mean()."
        ),
    ),
)
def several_teachers_loss(outputs, answers, labels, T):
    """The loss of a student with a head per task, where each
    task has some labels and a teacher of its own.

    outputs: dict, task -> the student's logits [N, C_task].
    answers: dict, task -> its teacher's logits [N, C_task].
    labels: dict, task -> classes [N], int64; -1 is no label.
    The dicts have the same tasks, in any order.
    A row with a label counts its cross-entropy, a row without
    one T^2 KL(teacher || student) at T. Take the mean over the
    N rows, and add the tasks up. Return a scalar tensor. No
    gradient reaches the teachers. Logits may be in the
    thousands.
    """
    ### BEGIN SOLUTION
    total = 0
    for task, z in outputs.items():
        v, y = answers[task].detach(), labels[task]
        hard = F.cross_entropy(z, y.clamp_min(0), reduction="none")
        log_p, log_q = F.log_softmax(v / T, dim=1), F.log_softmax(z / T, dim=1)
        soft = T**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)
        total = total + torch.where(y >= 0, hard, soft).mean()
    return total
    ### END SOLUTION


# laws
@several_teachers_loss.law("adds up over tasks")
def _(answer, outputs, answers, labels, T):
    def alone(task):
        return answer(*({task: each[task]} for each in (outputs, answers, labels)), T)

    whole_loss = answer(outputs, answers, labels, T)
    return torch.allclose(whole_loss, sum(alone(task) for task in outputs))


several_teachers_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _several(
    outputs,
    answers,
    labels,
    T,
    of_task=lambda each, task, k: each[task],
    choose=lambda y, hard, soft: torch.where(y >= 0, hard, soft).mean(),
    factor=lambda T: T**2,
    known=lambda y: y.clamp_min(0),
    at=lambda z, T: z,
    constant=torch.Tensor.detach,
    over=lambda total, tasks: total,
):
    """The loss with one thing changed."""
    total = 0
    for k, (task, z) in enumerate(outputs.items()):
        v, y = constant(of_task(answers, task, k)), of_task(labels, task, k)
        hard = F.cross_entropy(at(z, T), known(y), reduction="none")
        log_p, log_q = F.log_softmax(v / T, dim=1), F.log_softmax(z / T, dim=1)
        soft = factor(T) * (log_p.exp() * (log_p - log_q)).sum(1)
        total = total + choose(y, hard, soft)
    return over(total, len(outputs))


def _separately(y, hard, soft):
    """The mean over the rows with a label, plus the mean over the others."""
    parts = [rows.mean() for rows in (hard[y >= 0], soft[y < 0]) if len(rows)]
    return torch.stack(parts).sum()


several_teachers_loss.variants(
    _several,
    {
        "The teacher is asked in every row, also in those that have a label.": {
            "choose": lambda y, hard, soft: soft.mean()
        },
        "Rows without a label are left out: there the teacher is to be asked.": {
            "choose": lambda y, hard, soft: torch.where(y >= 0, hard, torch.zeros_like(soft)).mean()
        },
        "A row with a label counts both, its label and the teacher; it is to count its label"
        " only.": {"choose": lambda y, hard, soft: (soft + torch.where(y >= 0, hard, 0.0)).mean()},
        "The two kinds of rows are averaged apart, so that a few labels weigh as much as all"
        " other rows: take one mean over all N.": {"choose": _separately},
        "You add the rows up; take their mean.": {
            "choose": lambda y, hard, soft: torch.where(y >= 0, hard, soft).sum()
        },
        "Labels and teachers are exchanged: the teacher is asked where there is a label.": {
            "choose": lambda y, hard, soft: torch.where(y >= 0, soft, hard).mean()
        },
        "Class 0 counts as no label: -1 is the sign of a row without one.": {
            "choose": lambda y, hard, soft: torch.where(y > 0, hard, soft).mean()
        },
        "The factor, T squared, is missing in the teachers' part.": {"factor": lambda T: 1.0},
        "The labels are met at temperature T; they are to be met at 1.": {"at": lambda z, T: z / T},
        "You take the mean over the tasks; add them up.": {
            "over": lambda total, tasks: total / tasks
        },
        "The values are right, but a gradient reaches the teachers: detach their logits.": {
            "constant": lambda v: v
        },
    },
)


@several_teachers_loss.mistake(
    "A task meets another task's teacher or labels: the dicts have their own orders, so look each"
    " up by its name."
)
def _(outputs, answers, labels, T):
    total = 0
    for z, v, y in zip(outputs.values(), answers.values(), labels.values()):
        total = total + _several({"it": z}, {"it": v}, {"it": y}, T)
    return total


@several_teachers_loss.mistake(
    "Of large logits a probability becomes 0 and its logarithm infinite: use log_softmax, which"
    " never takes the one without the other."
)
def _(outputs, answers, labels, T):
    total = 0
    for task, z in outputs.items():
        v, y = answers[task].detach(), labels[task]
        p, q = F.softmax(v / T, dim=1), F.softmax(z / T, dim=1)
        hard = F.cross_entropy(z, y.clamp_min(0), reduction="none")
        soft = T**2 * (p * (p.log() - q.log())).sum(dim=1)
        total = total + torch.where(y >= 0, hard, soft).mean()
    return total


# ----------------------------------------------------------------- 4. which student? find the flaw
# inputs
class _Shift(nn.Module):
    """Logits of another network, all of a row moved by one amount, which classes do not see."""

    def __init__(self, network, shift):
        super().__init__()
        self.network, self.shift = network, shift

    def forward(self, x):
        return self.network(x) + self.shift * (1 + x.sum(1, keepdim=True))


def _agrees(student, teacher, x):
    """Which rows of x both name alike."""
    return student(x).argmax(1) == teacher(x).argmax(1)


def _elsewhere(students, teacher, pools, real):
    """Who is chosen by other measures than the agreement on `real`, one after the other."""
    everywhere = torch.cat(list(pools.values()))
    said = teacher(real).argmax(1)

    def per_class(student):
        same = _agrees(student, teacher, real).float()
        return sum(same[said == c].mean() for c in said.unique())

    def share(student, x):
        return _agrees(student, teacher, x).float().mean()

    measures = (
        lambda name, s: share(s, pools[name]),
        lambda name, s: share(s, everywhere),
        lambda name, s: share(s, torch.cat([real, everywhere])),
        lambda name, s: share(s, pools[name]) + 2 * share(s, real),
        lambda name, s: share(s, real) - share(s, pools[name]),
        lambda name, s: (s(real).argmax(0) == teacher(real).argmax(0)).float().mean(),
        lambda name, s: len(pools[name]),
        lambda name, s: -len(pools[name]),
        lambda name, s: per_class(s),
        lambda name, s: (s(real).argmin(1) == said).float().mean(),
    )
    return (_picked(students, measure) for measure in measures)


def _sure(students, teacher, real):
    """Whose largest probabilities are the largest: of all images, or where the teacher agrees."""
    said = teacher(real).argmax(1)

    def agreed(student):
        chances, named = F.softmax(student(real), dim=1).max(1)
        return (chances * (named == said)).mean()

    yield _picked(students, lambda _, s: F.softmax(s(real), dim=1).amax(1).mean())
    yield _picked(students, lambda _, s: agreed(s))
    yield _picked(students, lambda _, s: F.softmax(s(real), 1)[range(len(said)), said].mean())


def _candidates(kind):
    """A teacher, students that are more and less like it, and a pool for each.

    One feature is 0 in all pools, another one in the real images: the best student has a fault that
    shows in the pools, the others one that shows where they are to work. It also misses a rare
    class. "plain": the others are surer than it. "close": its logits are far away, and name the
    same classes.
    """

    done = set()
    found = {}  # seed -> where the search ended: modules are drawn again for every call

    def draw(g):
        seed = g.initial_seed()
        g.set_state(found.get(seed, g.get_state()))
        for _ in range(1000):
            found[seed] = g.get_state()
            students, teacher, pools, real = drawn(g)
            if seed in done:
                return students, teacher, inputs.shuffled(g, pools), real
            agreement = {n: int(_agrees(s, teacher, real).sum()) for n, s in students.items()}
            first, second = sorted(agreement, key=agreement.get, reverse=True)[:2]
            if agreement[first] < agreement[second] + 2:
                continue
            others = set(_elsewhere(students, teacher, pools, real))
            if kind == "plain":
                others |= set(_sure(students, teacher, real))
            if first not in others:
                done.add(seed)
                return students, teacher, inputs.shuffled(g, pools), real
        raise RuntimeError(f"no students for seed {seed} tell right answers from wrong ones")

    def drawn(g):
        width, classes = different(g, 2, 4, 7)
        count = whole(g, 4, 6)
        teacher = filled(nn.Linear(width, classes), g)
        names = inputs.task_names(g, count)
        real = torch.randn(80, width, generator=g)
        real[:, 0] = 0.0
        best, odd = different(g, 2, 0, count)
        named_so = teacher(real).argmax(1).bincount(minlength=classes)
        rare = int(named_so.where(named_so > 0, 99).argmin())
        students, pools, sizes = {}, {}, different(g, count, 15, 30)
        for k, name in enumerate(names):
            student = inputs.twin(teacher)
            W, b = student.weight.data, student.bias.data
            if k == best:
                W[:, 0] += 1.5 * torch.randn(classes, generator=g)
                W[rare], b[rare] = W[rare - 1], b[rare - 1] - 0.01
            elif k == odd:
                W[:, 0] += 30.0 * torch.randn(classes, generator=g)
                W[:, 1] += 0.6 * torch.randn(classes, generator=g)
            else:
                W[:, 1] += 0.4 * torch.randn(classes, generator=g)
            factor = 20.0 if k == best and kind == "close" else 3.0 if k != best else 0.7
            W *= factor
            b *= factor
            students[name] = _Shift(student, 3.0 * (k == best))
            x = torch.randn(sizes[k], width, generator=g)
            x[:, 1] = 0.0
            pools[name] = x
        for module in (teacher, *students.values()):
            module.eval()
        return students, teacher, pools, real

    return torch.no_grad()(draw)


def _chosen(answer, students, teacher, pools, real):
    """Which student an answer takes, and whether it left everything as it was."""
    students, teacher = dict(students), teacher
    modules = [teacher, *students.values()]
    before = [[p.detach().clone() for p in module.parameters()] for module in modules]
    name = required(answer(students, teacher, dict(pools), real))
    if not isinstance(name, str):
        raise ValueError(f"Return the name of a student; yours is {values.kind(name)}.")
    return {
        "the student": name,
        "networks are left as they were": all(
            torch.equal(p, old) and p.grad is None
            for module, olds in zip(modules, before)
            for p, old in zip(module.parameters(), olds)
        ),
    }


# reference
def _by_own_pool(students, teacher, pools, inputs):
    """Choose the student that will serve best where it is to
    work: the one that names the same class as the teacher on
    most of `inputs`. There are no labels.

    students: dict, name -> network, from x to logits [N, C].
    teacher: network, from x to logits [N, C].
    pools: dict, name -> what the student was taught on [M, ...].
    inputs: [N, ...], images from where it is to work.
    All networks are in evaluation mode. Return the name.
    """
    agreement = {}
    for name, student in students.items():
        x = pools[name]
        same = student(x).argmax(1) == teacher(x).argmax(1)
        agreement[name] = float(same.float().mean())
    return max(agreement, key=agreement.get)


@exercise(
    [_candidates("plain"), _candidates("close")],
    points=2,
    call=_chosen,
    grad=False,
    device=False,
    starter=_by_own_pool,
    hints=(
        "On which images does this code compare? Which did the student see in training?",
        (
            "A student may have learned its own pool by heart, and a pool may be far from where"
            " it works. Agreement needs no label: where else can you measure it?"
        ),
        "Compare student(inputs).argmax(1) with teacher(inputs).argmax(1); `pools` has no say.",
    ),
)
def best_student(students, teacher, pools, inputs):
    agreement = {}
    said = teacher(inputs).argmax(1)
    for name, student in students.items():
        same = student(inputs).argmax(1) == said
        agreement[name] = float(same.float().mean())
    return max(agreement, key=agreement.get)


# mistakes
def _picked(students, score, choose=max):
    """The name with the best score."""
    with torch.no_grad():
        scores = {name: float(score(name, student)) for name, student in students.items()}
    return choose(scores, key=scores.get)


@best_student.mistake(
    "The students are still judged on what they were taught on."
    " Judge them all where they are to work."
)
def _(students, teacher, pools, inputs):
    return _by_own_pool(students, teacher, pools, inputs)


@best_student.mistake("This is the student that agrees least: take the largest agreement.")
def _(students, teacher, pools, inputs):
    said = teacher(inputs).argmax(1)
    return _picked(students, lambda _, s: (s(inputs).argmax(1) == said).float().mean(), min)


@best_student.mistake(
    "You compare how far logits or probabilities are apart. A student may be far away and name"
    " the same classes: compare the classes."
)
def _(students, teacher, pools, inputs):
    v = teacher(inputs)
    return _picked(students, lambda _, s: (s(inputs) - v).square().mean(), min)


@best_student.mistake(
    "Largest probability is not agreement: a student may be sure and wrong. Ask the teacher."
)
def _(students, teacher, pools, inputs):
    return next(_sure(students, teacher, inputs))


@best_student.mistake(
    "An agreement counts for more where the student is surer: count the images that both name"
    " alike."
)
def _(students, teacher, pools, inputs):
    said = teacher(inputs).argmax(1)

    def agreed(student):
        chances, named = F.softmax(student(inputs), dim=1).max(1)
        return (chances * (named == said)).mean()

    return _picked(students, lambda _, s: agreed(s))


# ---------------------------------------------------------------------------- 5. a byte per weight
# inputs
def _weights(g):
    out, into = different(g, 2, 2, 9)
    return (torch.randn(out, into, generator=g, dtype=torch.float64),)


def _units(g):
    """Rows in units far apart, one of them zero; the largest entry may be a negative one."""
    (W,) = _weights(g)
    W = W * powers(g, len(W), -8, 8)[:, None]
    W[whole(g, 0, len(W))] = 0.0
    return (W,)


def _one_sided(g):
    """All entries negative, and the largest of each row is the same; float32, far from halves."""
    out, into = different(g, 2, 2, 9)
    W = torch.randint(0, 127, (out, into), generator=g) + 0.7 * torch.rand(out, into, generator=g)
    W = (W - 0.35).clamp_min(0.0)
    W[:, whole(g, 0, into)] = 127.0
    return (-W / 127,)


def _one_row(g):
    """A single output."""
    (W,) = _weights(g)
    return (W[:1],)


# reference
@exercise(
    [_weights, _units, _one_sided, _one_row],
    points=2,
    grad=False,
    parts=("q", "scale"),
    hints=(
        "It becomes 127 or -127: which entry of a row decides how large its steps are?",
        (
            "scale = the largest absolute value of each row / 127, q = W / scale, rounded. A row"
            " of zeros needs a case of its own."
        ),
        (
            "scale = W.abs().amax(dim=1) / 127; torch.where(scale > 0, scale, 1.0); then"
            " (W / scale[:, None]).round().to(torch.int8)."
        ),
    ),
)
def one_byte(W):
    """Store a weight matrix in a byte per number.

    W: [out, in], floating point; rows may have any unit.
    Return (q, scale): q int8 [out, in], from -127 to 127, and
    scale [out] in the dtype of W, so that scale[i] * q[i] is as
    near to W[i] as it can be with the largest absolute value of
    the row at 127 or -127. A row of zeros has scale 1.
    """
    ### BEGIN SOLUTION
    scale = W.abs().amax(dim=1) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    q = (W / scale[:, None]).round().to(torch.int8)
    return q, scale
    ### END SOLUTION


# laws
@one_byte.law("no number moves by more than half a step of its row")
def _(answer, W):
    q, scale = answer(W)
    error = (W - scale[:, None] * q).abs()
    return bool((error <= 0.5001 * scale[:, None]).all())


@one_byte.law("a row in another unit has the same whole numbers")
def _(answer, W):
    q, _ = answer(W)
    units = (2.0**-20, 2.0**-60)
    return all(torch.equal(answer(unit * W)[0], q) for unit in units)


one_byte.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _stored(
    W,
    largest=lambda W: W.abs().amax(1),
    top=127,
    to_whole=torch.round,
    nothing=lambda scale: torch.where(scale > 0, scale, 1.0),
    keep=lambda q: q.clamp(-128, 127).to(torch.int8),
):
    """The answer with one thing changed."""
    scale = nothing(largest(W) / top)
    return keep(to_whole(W / scale[:, None])), scale


one_byte.variants(
    _stored,
    {
        "One scale for all rows: a row in a small unit is rounded to nothing. Each row has a scale"
        " of its own.": {"largest": lambda W: W.abs().max().expand(len(W))},
        "You divide by 128: int8 ends at 127, and the largest number is cut off.": {"top": 128},
        "You divide by 255, so that half of the whole numbers are never used: they go from -127 to"
        " 127.": {"top": 255},
        "The numbers are cut, not rounded: they move by up to a whole step.": {
            "to_whole": torch.trunc
        },
        "The numbers are always rounded down: the error is up to a whole step.": {
            "to_whole": torch.floor
        },
        "The largest *signed* value decides: a row with a large negative number overflows.": {
            "largest": lambda W: W.amax(1)
        },
        "A row of zeros has the scale 0, and 0 / 0 is no number: give it the scale 1.": {
            "nothing": lambda scale: scale
        },
        "An absolute floor under the scale: rows in a small unit are below it and lose their"
        " digits. Only a row of zeros is special.": {
            "nothing": lambda scale: torch.where(scale > 0, scale.clamp_min(1e-6), 1.0)
        },
        "The whole numbers are stored as floats, four bytes each: make them int8.": {
            "keep": lambda q: q
        },
    },
)


@one_byte.mistake("The scales belong to the columns; each row, one output, has its own.")
def _(W):
    scale = W.abs().amax(0) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    return (W / scale).round().to(torch.int8), scale


@one_byte.mistake(
    "Zero no longer stays zero: you spread each row from its smallest to its largest value."
    " Symmetric means that 0 stays 0."
)
def _(W):
    low, high = W.amin(1, keepdim=True), W.amax(1, keepdim=True)
    scale = (high - low).clamp_min(1e-300) / 254
    return ((W - low) / scale - 127).round().to(torch.int8), scale[:, 0]
