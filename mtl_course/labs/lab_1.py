"""Lab 1: forty small regressions that are related, with a handful of labels each."""

from dataclasses import dataclass

import numpy as np

from .. import chapters
from .rungs import Step, Task, at_least, real_numbers

TASKS, INPUTS, DIRECTIONS, STRANGERS = 40, 16, 2, 4
FEWEST, MOST, QUESTIONS = 4, 12, 40  # labels of a task; questions about it
NOISE = 0.5  # standard deviation of what is added to each label
BUDGET, ANSWER = 10.0, 2.0  # seconds of processor time


@dataclass(frozen=True)
class Few:
    """What `learn` gets.

    Args:
        x: [N, 16], inputs of all tasks.
        y: [N], their labels.
        task: [N], which of the forty tasks each row belongs to.
    """

    x: np.ndarray
    y: np.ndarray
    task: np.ndarray


def draw(part: str, seed: int) -> tuple[Few, np.ndarray, np.ndarray, np.ndarray]:
    """(what `learn` gets, questions [1600, 16], their tasks, their labels) of one family.

    The weights of a task are those that all share, plus a mixture of a few directions, the same
    ones for all; four tasks are strangers with weights of their own. part: "practice" or
    "held-out", whose families have nothing in common.
    """
    rng = np.random.default_rng([seed, {"practice": 0, "held-out": 1}[part]])
    common = rng.normal(size=INPUTS) * 0.7
    directions = rng.normal(size=(DIRECTIONS, INPUTS))
    weights = common + rng.normal(size=(TASKS, DIRECTIONS)) @ directions * 0.6
    strange = rng.permutation(TASKS)[:STRANGERS]
    weights[strange] = rng.normal(size=(STRANGERS, INPUTS))
    counts = rng.integers(FEWEST, MOST + 1, TASKS)
    task = np.repeat(np.arange(TASKS), counts)
    asked_of = np.repeat(np.arange(TASKS), QUESTIONS)
    x, asked = rng.normal(size=(len(task), INPUTS)), rng.normal(size=(len(asked_of), INPUTS))
    y = (x * weights[task]).sum(1) + NOISE * rng.normal(size=len(task))
    truth = (asked * weights[asked_of]).sum(1) + NOISE * rng.normal(size=len(asked_of))
    order = rng.permutation(len(task))
    return Few(x[order], y[order], task[order]), asked, asked_of, truth


def explained(predicted, truth: np.ndarray, task: np.ndarray) -> float:
    """The share of the variance that is explained, 1 - squared error / variance, over all tasks."""
    left = (np.asarray(predicted) - truth) ** 2
    shares = [1 - left[task == t].mean() / truth[task == t].var() for t in range(TASKS)]
    return float(np.mean(shares))


def play(run, seed: int) -> dict[str, float]:
    """The share of the variance explained on the held-out family of a seed."""
    few, x, task = draw("held-out", seed)[:3]  # no name for the labels: frames can be read
    steps = [
        Step("learn", lambda learn: learn(few), BUDGET, "a function"),
        Step("predict", lambda predict: predict(x.copy(), task.copy()), ANSWER),
    ]
    predicted = run(steps, lambda value: real_numbers(value, TASKS * QUESTIONS))
    _, _, task, truth = draw("held-out", seed)
    return {"explained": explained(predicted, truth, task)}


def practice(seed: int) -> tuple:
    """(what `learn` gets, questions, their tasks, their labels) of another family."""
    return draw("practice", seed)


STUB = '''\
def learn(few):
    """Learn forty regressions from a handful of labels each.

    few.x: [N, 16] inputs, few.y: [N] labels, few.task: [N], the
    task of each row, 0 to 39. All are NumPy arrays.
    Return a function: inputs [M, 16], tasks [M] -> values [M].
    It takes at most 10 seconds of processor time.
    """
    raise NotImplementedError("your answer goes here")'''
NAMES = chapters.LABS["lab_1"].rungs
TASK = Task(
    name="lab_1",
    function="learn",
    stub=STUB,
    play=play,
    practice=practice,
    seeds=tuple(range(901, 911)),
    rungs=(
        at_least(NAMES[0], "explained", 0.30, "30 % of the variance explained"),
        at_least(NAMES[1], "explained", 0.50, "50 % of the variance explained"),
        at_least(NAMES[2], "explained", 0.70, "70 % of the variance explained"),
    ),
    measures={"explained": ".2f"},
)
