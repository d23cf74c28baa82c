"""Lab 5: one small model that answers three questions about a picture, and is shipped."""

import base64
import contextlib
import io
import statistics
import sys
import time
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import nn

from .. import chapters
from .letters import printed, written
from .rungs import Refused, Rung, Step, Task, class_numbers, mean

QUESTIONS = {"letter": 24, "family": 3, "bold": 2}  # question -> classes
SCRIPT = "Greek"
LABELLED, ASKED = 3000, 600
STRENGTH = 0.5  # of the changes by hand
MOST_BYTES, MOST_MS, CALLS = 1_000_000, 5.0, 30
BUDGET, ANSWER = 30.0, 10.0  # seconds of processor time


@dataclass(frozen=True)
class Pictures:
    """What `learn` gets.

    Args:
        x: [3000, 16, 16], pictures of letters; ink is 1, paper 0.
        y: question -> labels [3000]: "letter", 0 to 23, "family", 0 to 2, "bold", 0 or 1.
    """

    x: torch.Tensor
    y: dict


def draw(part: str, seed: int) -> tuple[Pictures, torch.Tensor, dict]:
    """(what `learn` gets, pictures [600, 16, 16], their labels by question) of one draw.

    part: "practice" or "held-out", with pictures of their own.
    """
    pictures, letters, faces, scripts, names = printed()
    generator = torch.Generator().manual_seed(2 * seed + {"practice": 0, "held-out": 1}[part])
    here = torch.tensor([scripts[letter] == SCRIPT for letter in letters.tolist()]).nonzero()[:, 0]
    rows = here[torch.randint(len(here), (LABELLED + ASKED,), generator=generator)]
    x = written(pictures[rows], generator, STRENGTH)
    bold = torch.tensor(["Bold" in name for name in names]).long()
    family = torch.tensor(["Mono" in name for name in names]).long()
    family += 2 * torch.tensor(["Serif" in name for name in names]).long()
    first = letters[here].min()
    y = {"letter": letters[rows] - first, "family": family[faces[rows]], "bold": bold[faces[rows]]}
    seen = {name: labels[:LABELLED].clone() for name, labels in y.items()}
    asked = {name: labels[LABELLED:].clone() for name, labels in y.items()}
    return Pictures(x[:LABELLED].clone(), seen), x[LABELLED:].clone(), asked


def packed(model) -> str:
    """The whole model as it is shipped: the bytes of `torch.save`, as text.

    Raises:
        Refused: it is no module, cannot be saved, or is larger than a megabyte.
    """
    if not isinstance(model, nn.Module):
        raise Refused(f"Its type is {type(model).__name__}; a torch.nn.Module is wanted.")
    try:
        file = io.BytesIO()
        torch.save(model, file)
    except Exception as error:
        raise Refused(
            f"torch.save cannot ship it ({type(error).__name__}: {error})."
            " Define its classes at the top of a cell, not inside a function."
        ) from None
    size = len(file.getvalue())
    if size > MOST_BYTES:
        raise Refused(f"Saved whole it has {size / 1000:,.0f} kB; {MOST_BYTES / 1000:,.0f} fit.")
    return base64.b64encode(file.getvalue()).decode()


def unpacked(text: str) -> nn.Module:
    """The model that arrives."""
    file = io.BytesIO(base64.b64decode(text))
    return torch.load(file, map_location="cpu", weights_only=False).eval()


@contextlib.contextmanager
def bare(learn):
    """What the learner's notebook holds is not shipped: no tensor, array or model is in its names.

    That goes for the globals of `learn` and of the notebook, and for attributes of their classes.
    They are there again afterwards.
    """
    hidden = []
    spaces = [vars(sys.modules["__main__"]), getattr(learn, "__globals__", {})]
    try:
        for space in {id(space): space for space in spaces}.values():
            for name, value in list(space.items()):
                if name.startswith("__"):
                    continue
                if isinstance(value, type) and value.__module__ == space.get("__name__"):
                    for attribute, held in list(vars(value).items()):
                        if _holds(held):
                            hidden.append((setattr, value, attribute, held))
                            delattr(value, attribute)
                elif _holds(value):
                    hidden.append((dict.__setitem__, space, name, value))
                    del space[name]
        yield
    finally:
        for put, where, name, value in hidden:
            put(where, name, value)


def _holds(value, depth: int = 0) -> bool:
    """Whether a tensor, an array or a model can be reached from a value."""
    if isinstance(value, torch.Tensor | np.ndarray | nn.Module):
        return True
    if depth == 4 or isinstance(value, type | ModuleType):
        return False
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, list | tuple | set):
        inside = list(value)
    else:
        inside = list((getattr(value, "__dict__", None) or {}).values())
        inside += getattr(value, "__defaults__", None) or ()
        for cell in getattr(value, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # it is empty
                inside.append(cell.cell_contents)
    return any(_holds(one, depth + 1) for one in inside[:1000])


def timed(model: nn.Module, x: torch.Tensor) -> float:
    """Milliseconds of processor time that one picture takes: the median of several calls."""
    took = []
    with torch.no_grad():
        for picture in x[:CALLS]:
            start = time.thread_time()
            model(picture[None].clone())
            took.append(1000 * (time.thread_time() - start))
    return statistics.median(took)


def answers(model: nn.Module, x: torch.Tensor) -> dict:
    """Question -> scores [N, classes], of one picture at a time, as they are timed.

    Raises:
        Refused: there are no scores of the right shape for each question.
    """
    with torch.no_grad():
        each = [model(picture[None].clone()) for picture in x]
    for scores in each:
        if not isinstance(scores, dict) or set(scores) != set(QUESTIONS):
            raise Refused(f"The model gives no dict with the keys {', '.join(QUESTIONS)}.")
        for name, classes in QUESTIONS.items():
            shape = list(getattr(scores[name], "shape", []))
            if shape != [1, classes]:
                raise Refused(f'"{name}" has shape {shape} for one picture, not [1, {classes}].')
    return {name: torch.cat([scores[name] for scores in each]) for name in QUESTIONS}


def chosen(scores: dict) -> dict:
    """Question -> predicted classes, as plain numbers.

    Raises:
        Refused: a score is not finite.
    """
    named = {}
    for name, classes in QUESTIONS.items():
        one = scores[name].float()
        if not torch.isfinite(one).all():
            raise Refused(f'The scores for "{name}" are not all finite.')
        named[name] = class_numbers(one.argmax(1), ASKED, classes)
    return named


def play(run, seed: int) -> dict[str, float]:
    """Accuracy, size and time of the model that comes back, on the held-out pictures of a seed."""
    train, x = draw("held-out", seed)[:2]  # no name for the labels: frames can be read
    text = run([Step("learn", lambda learn: learn(train), BUDGET, "a torch.nn.Module")], packed)

    # It is unpacked where nothing of its making is left: what it needs, it brings along.
    def shipped(ask):
        def call(learn):
            with bare(learn):
                return ask(unpacked(text), x)

        return call

    ms = run([Step("one picture", shipped(timed), ANSWER)], float)
    if ms > MOST_MS:
        return {"right": 0.0, "kB": len(base64.b64decode(text)) / 1000, "ms": ms}
    named = run([Step("all pictures", shipped(answers), ANSWER)], chosen)
    truth = draw("held-out", seed)[2]
    right = [(torch.tensor(named[name]) == truth[name]).double().mean().item() for name in truth]
    return {"right": mean(right), "kB": len(base64.b64decode(text)) / 1000, "ms": ms}


def practice(seed: int) -> tuple:
    """(what `learn` gets, pictures, their labels by question) of another draw."""
    return draw("practice", seed)


STUB = '''\
def learn(train):
    """Learn three questions about a picture, as one small model.

    train.x: [3000, 16, 16], ink is 1, paper 0; train.y: question ->
    labels [3000]: "letter" (24 classes), "family" (3), "bold" (2).
    Return a torch.nn.Module: pictures [N, 16, 16] -> dict of scores,
    question -> [N, classes]. Its classes are defined at the top of a
    cell. It takes at most 30 seconds of processor time.
    """
    raise NotImplementedError("your answer goes here")'''


def _shipped(name: str, right: float, size: float) -> Rung:
    """The rung of those that answer so well with so few kilobytes."""
    told = f"{100 * right:.0f} % of the answers right, with at most {size:,.0f} kB"
    return Rung(name, told, lambda m: mean(m["right"]) >= right and max(m["kB"]) <= size)


NAMES = chapters.LABS["lab_5"].rungs
TASK = Task(
    name="lab_5",
    function="learn",
    stub=STUB,
    play=play,
    practice=practice,
    seeds=(901, 902, 903),
    rungs=(
        _shipped(NAMES[0], 0.65, 1000),
        _shipped(NAMES[1], 0.87, 1000),
        _shipped(NAMES[2], 0.87, 40),
    ),
    measures={"right": ".3f", "kB": ".0f", "ms": ".2f"},
)
