"""Lab 4: ten letters of an alphabet that was not trained on, from one or five pictures each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import chapters
from .letters import printed, written
from .rungs import Step, Task, at_least, class_numbers

WAYS, QUERIES, EPISODES = 10, 10, 40  # letters, questions for each; episodes of each kind
SHOTS = (1, 5)  # labelled pictures of each letter
TRAIN = ("Latin", "Greek", "Cyrillic")
# Where the letters of the episodes come from, an episode's from one of them. Every second letter is
# for practice, the others are held out.
SCRIPTS = ("Armenian", "Georgian")


@dataclass(frozen=True)
class Episode:
    """A few-shot task without its answers.

    Args:
        support_x: [10 * shots, 16, 16], the labelled pictures; ink is 1, paper 0.
        support_y: [10 * shots], their labels, 0 to 9.
        query_x: [100, 16, 16], the pictures to name, ten of each letter in no order.
    """

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor


def draw(part: str, seed: int) -> tuple[tuple, list[Episode], torch.Tensor]:
    """(arguments of `learn`, 80 episodes, labels of their questions [80, 100]).

    part: "practice" or "held-out", which have no letter in common.
    """
    pictures, names, _, scripts, _ = printed()
    number = {"practice": 0, "held-out": 1}[part]
    generator = torch.Generator().manual_seed(7919 * seed + number)
    faces = []  # per script: the rows of its letters, [letters, 12]
    for script in SCRIPTS:
        there = [name for name, its in enumerate(scripts) if its == script][number::2]
        faces.append(torch.stack([torch.where(names == letter)[0] for letter in there]))
    episodes, answers = [], []
    for shots in SHOTS:
        label = torch.arange(WAYS)[:, None].expand(WAYS, shots + QUERIES)
        for which in range(EPISODES):
            rows = faces[which % len(SCRIPTS)]
            chosen = torch.randperm(len(rows), generator=generator)[:WAYS]
            some = torch.randint(rows.shape[1], label.shape, generator=generator)
            x = written(pictures[rows[chosen].gather(1, some)], generator)
            order = torch.randperm(WAYS * QUERIES, generator=generator)
            support = x[:, :shots].flatten(0, 1), label[:, :shots].flatten().clone()
            episodes.append(Episode(*support, x[:, shots:].flatten(0, 1)[order]))
            answers.append(label[:, shots:].flatten()[order])
    return (_alphabets(generator),), episodes, torch.stack(answers)


def _alphabets(generator: torch.Generator) -> dict:
    """Name -> (pictures, labels): each letter in twelve faces, each written once."""
    pictures, names, _, scripts, _ = printed()
    alphabets = {}
    for script in TRAIN:
        rows = torch.tensor([scripts[name] == script for name in names.tolist()])
        _, labels = names[rows].unique(return_inverse=True)
        alphabets[script] = (written(pictures[rows], generator), labels)
    return alphabets


BUDGET, ANSWER = 30.0, 15.0  # seconds of processor time to learn, and for all episodes together


def play(run, seed: int) -> dict[str, float]:
    """Accuracy on the held-out episodes of a seed: of both kinds, and their mean."""
    arguments, episodes = draw("held-out", seed)[:2]  # no name for the labels: frames can be read

    def ask(predict):
        return [predict(e.support_x, e.support_y, e.query_x) for e in episodes]

    steps = [
        Step("learn", lambda learn: learn(*arguments), BUDGET, "a function"),
        Step("predict", ask, ANSWER),
    ]
    named = run(steps, lambda value: [class_numbers(v, WAYS * QUERIES, WAYS) for v in value])
    right = (torch.tensor(named) == draw("held-out", seed)[2]).double().mean(1)
    kinds = right.reshape(len(SHOTS), EPISODES).mean(1).tolist()
    each = {f"{shots}-shot": accuracy for shots, accuracy in zip(SHOTS, kinds, strict=True)}
    return {"accuracy": sum(kinds) / len(kinds), **each}


def practice(seed: int) -> tuple:
    """(what `learn` gets, episodes with other letters, the labels of their questions)."""
    (train,), episodes, y = draw("practice", seed)
    return train, episodes, y


STUB = '''\
def learn(train):
    """Learn to learn letters.

    train: name -> (pictures [N, 16, 16], labels [N]), of the
    alphabets "Latin", "Greek" and "Cyrillic"; ink is 1, paper 0.
    Return a function of an episode:
        support_x [10 or 50, 16, 16], support_y [10 or 50], 0 to 9,
        query_x [100, 16, 16] -> labels [100].
    It takes at most 30 seconds of processor time.
    """
    raise NotImplementedError("your answer goes here")'''
NAMES = chapters.LABS["lab_4"].rungs
TASK = Task(
    name="lab_4",
    function="learn",
    stub=STUB,
    play=play,
    practice=practice,
    seeds=(901, 902, 903, 904),
    rungs=(
        at_least(NAMES[0], "accuracy", 0.25, "a mean accuracy of 0.25; guessing gives 0.1"),
        at_least(NAMES[1], "accuracy", 0.38, "a mean accuracy of 0.38"),
        at_least(NAMES[2], "accuracy", 0.62, "a mean accuracy of 0.62"),
        at_least(NAMES[3], "accuracy", 0.82, "a mean accuracy of 0.82"),
    ),
    measures={"accuracy": ".3f", "1-shot": ".3f", "5-shot": ".3f"},
)
