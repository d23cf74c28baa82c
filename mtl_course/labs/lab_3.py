"""Lab 3: a new alphabet from fifty labels, with other alphabets and digits as sources."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .. import chapters, data
from .letters import SIDE, printed, written
from .rungs import Step, Task, at_least, class_numbers

WAYS, LABELS, QUERIES = 25, 2, 16  # letters of a task; labels and questions for each
# Where the letters of a task come from, and which sets are sources: no letter is in two of them.
SCRIPTS = {"practice": ("Cyrillic",), "held-out": ("Armenian", "Georgian")}
SOURCES = ("Latin", "Greek")


@dataclass(frozen=True)
class Letters:
    """What `learn` gets.

    Args:
        x: [50, 16, 16], two pictures of each of 25 letters; ink is 1, paper 0.
        y: [50], their labels, 0 to 24.
        sources: name -> (pictures [N, 16, 16], labels [N]), clean: "Latin", "Greek", "digits".
    """

    x: torch.Tensor
    y: torch.Tensor
    sources: dict


def draw(part: str, seed: int) -> tuple[tuple, torch.Tensor, torch.Tensor]:
    """(arguments of `learn`, pictures to name [400, 16, 16], their labels [400]) of one task.

    part: "practice" or "held-out", which have no letter in common.
    """
    pictures, names, _, scripts, _ = printed()
    number = {"practice": 0, "held-out": 1}[part]
    generator = torch.Generator().manual_seed(7919 * seed + number)
    there = [name for name, script in enumerate(scripts) if script in SCRIPTS[part]]
    letters = torch.tensor(there)[torch.randperm(len(there), generator=generator)[:WAYS]]
    rows, labels = [], []
    for label, letter in enumerate(letters.tolist()):
        faces = torch.where(names == letter)[0]
        some = torch.randint(len(faces), (LABELS + QUERIES,), generator=generator)
        rows.append(faces[some])
        labels.append(torch.full((LABELS + QUERIES,), label))
    x = written(pictures[torch.stack(rows)], generator)  # [ways, labels + queries, side, side]
    y = torch.stack(labels)
    order = torch.randperm(WAYS * QUERIES, generator=generator)
    train = Letters(x[:, :LABELS].flatten(0, 1), y[:, :LABELS].flatten(), _sources())
    return (train,), x[:, LABELS:].flatten(0, 1)[order], y[:, LABELS:].flatten()[order]


def _sources() -> dict:
    pictures, names, _, scripts, _ = printed()
    sources = {}
    for script in SOURCES:
        rows = torch.tensor([scripts[name] == script for name in names.tolist()])
        _, labels = names[rows].unique(return_inverse=True)
        sources[script] = (pictures[rows].clone(), labels)
    digits = data.load("digits")
    x = F.interpolate(
        torch.tensor(digits.x)[:, None].float() / float(digits.x.max()),
        size=(SIDE, SIDE),
        mode="bilinear",
    )
    sources["digits"] = (x[:, 0], torch.tensor(digits.y).long())
    return sources


BUDGET, ANSWER = 30.0, 10.0  # seconds of processor time to learn, and to name all pictures


def play(run, seed: int) -> dict[str, float]:
    """Accuracy on the held-out task of a seed."""
    arguments, x = draw("held-out", seed)[:2]  # no name for the labels: frames can be read
    steps = [
        Step("learn", lambda learn: learn(*arguments), BUDGET, "a function"),
        Step("predict", lambda predict: predict(x.clone()), ANSWER),
    ]
    named = run(steps, lambda value: class_numbers(value, WAYS * QUERIES, WAYS))
    y = draw("held-out", seed)[2]
    return {"accuracy": (torch.tensor(named) == y).double().mean().item()}


def practice(seed: int) -> tuple:
    """(what `learn` gets, pictures, their labels) of a task with other letters."""
    (train,), x, y = draw("practice", seed)
    return train, x, y


STUB = '''\
def learn(train):
    """Learn 25 letters from two pictures of each.

    train.x: [50, 16, 16], ink is 1, paper 0; train.y: [50], 0 to 24.
    train.sources: name -> (pictures [N, 16, 16], labels [N]), of
    "Latin", "Greek" and "digits".
    Return a function: pictures [400, 16, 16] -> labels [400].
    It takes at most 30 seconds of processor time.
    """
    raise NotImplementedError("your answer goes here")'''
NAMES = chapters.LABS["lab_3"].rungs
TASK = Task(
    name="lab_3",
    function="learn",
    stub=STUB,
    play=play,
    practice=practice,
    seeds=(901, 902, 903, 904),
    rungs=(
        at_least(NAMES[0], "accuracy", 0.15, "an accuracy of 0.15; guessing gives 0.04"),
        at_least(NAMES[1], "accuracy", 0.35, "an accuracy of 0.35"),
        at_least(NAMES[2], "accuracy", 0.58, "an accuracy of 0.58"),
        at_least(NAMES[3], "accuracy", 0.72, "an accuracy of 0.72"),
    ),
    measures={"accuracy": ".3f"},
)
