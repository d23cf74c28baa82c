"""Chapter 17, families of tasks: sinusoids, printed characters, schools with two kinds of tasks.

Also what schools differ in, without a network. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.episodes import Episodes, EpisodeSource, sinusoids, split_classes
from ..multitask.sharing import HardSharing
from ..networks.trunks import mlp
from ..training.tasks import classification, regression


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and the outer rates that every method may try.

    Args:
        updates: family -> meta-steps, of `tasks` tasks each.
        tasks: of a meta-batch.
        shots: support examples of a task.
        queries: query examples of a task.
        width: of the two hidden layers.
        judged: tasks to validate on, and as many to test on (a school comes several times).
        pool: tasks of the baseline with one head per task.
        outer: Adam's rates; None for those of the family (`ch17.OUTER`).
    """

    updates: Mapping[str, int]
    tasks: int = 16
    shots: int = 10
    queries: int = 10
    width: int = 40
    judged: int = 100
    pool: int = 160
    outer: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Family:
    """Tasks of one origin, and the network for them.

    Args:
        network: builds a fresh one.
        losses: kind of task -> loss.
        draw: generator -> a meta-batch: kind -> episodes.
        validation: kind -> episodes that training never sees.
        test: kind -> episodes that training never sees.
        pool: the training tasks themselves, x [N, most, d], kind -> y [N, most, ...], and how many
            examples each has [N].
        whole: where tasks are made of classes, all examples of the training classes: x [N, d] and
            the class y [N], from 0 on.
        classifier: builds a network for these classes.
        scores: kind of task -> what a query is judged by, where it is not the loss.
    """

    network: Callable[[], nn.Module]
    losses: Mapping[str, Callable]
    draw: Callable[[torch.Generator], dict[str, Episodes]]
    validation: dict[str, Episodes]
    test: dict[str, Episodes]
    pool: tuple[Tensor, dict[str, Tensor], Tensor]
    whole: tuple[Tensor, Tensor] | None = None
    classifier: Callable[[], nn.Module] | None = None
    scores: Mapping[str, Callable] = field(default_factory=dict)


def waves(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Family:
    """Sinusoids of random amplitude and phase.

    The baseline with one head per task sees `plan.pool` of them, with 100 examples each.
    """
    held = [
        {"wave": sinusoids(plan.judged, plan.shots, 50, generator(10_000 * (k + 1) + seed, device))}
        for k in range(2)
    ]
    known = sinusoids(plan.pool, 50, 50, generator(30_000 + seed, device))
    x, y = (torch.cat(pair, 1) for pair in zip(known.support, known.query, strict=True))
    pool = x, {"wave": y}, torch.full((plan.pool,), 100, device=device)
    network = _network(1, plan.width, {"wave": 1})
    return Family(
        network,
        {"wave": F.mse_loss},
        lambda g: {"wave": sinusoids(plan.tasks, plan.shots, plan.queries, g)},
        *held,
        pool,
    )


def _network(inputs, width, outputs):
    return lambda: HardSharing(
        mlp([inputs, width, width]), {kind: nn.Linear(width, n) for kind, n in outputs.items()}
    )


WAYS, SHOTS, QUERIES = 5, 1, 5  # a task of characters: how many, examples and queries of each
PARTS = {"train": ("Latin", "Cyrillic"), "validation": ("Greek",), "test": ("Armenian", "Georgian")}


@lru_cache(maxsize=1)
def prints() -> tuple[Tensor, Tensor, dict[str, list[int]]]:
    """Printed characters of five scripts in twelve faces, at 14 x 14 pixels.

    Standardised pixels [N, 196], the character [N], and part -> its characters: no script is in
    two parts.
    """
    glyphs = data.load("glyphs")
    x = F.avg_pool2d(torch.tensor(glyphs["x"])[:, None].float(), 2).flatten(1)
    scripts = np.array(glyphs["script_names"])[glyphs["scripts"]]
    parts = {
        part: np.flatnonzero(np.isin(scripts, names)).tolist() for part, names in PARTS.items()
    }
    known = torch.isin(torch.tensor(glyphs["y"]), torch.tensor(parts["train"]))
    return (x - x[known].mean()) / x[known].std(), torch.tensor(glyphs["y"]), parts


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Share of wrong answers; logits [n, classes], y [n]."""
    return (logits.argmax(-1) != y).float().mean()


def characters(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Family:
    """Which of five printed characters is it? From one example of each.

    A task draws five characters of the same part and numbers them anew. Queries are judged by the
    share of wrong answers. `plan.shots` and `plan.queries` do not count here.
    """
    x, y, parts = prints()
    x, y = x.to(device), y.to(device)
    sources = {part: EpisodeSource(x, y, groups) for part, groups in parts.items()}

    def draw(part, tasks, g):
        return {"character": sources[part].classification(tasks, WAYS, SHOTS, QUERIES, g)}

    held = [
        draw(part, plan.judged, generator(10_000 * (k + 1) + seed, device))
        for k, part in enumerate(("validation", "test"))
    ]
    known = sources["train"].classification(plan.pool, WAYS, 6, 6, generator(30_000 + seed, device))
    images, names = (torch.cat(pair, 1) for pair in zip(known.support, known.query, strict=True))
    mine = torch.isin(y, torch.tensor(parts["train"], device=device))
    number = torch.searchsorted(torch.tensor(parts["train"], device=device), y[mine])
    return Family(
        _network(x.shape[1], plan.width, {"character": WAYS}),
        {"character": F.cross_entropy},
        lambda g: draw("train", plan.tasks, g),
        *held,
        (images, {"character": names}, torch.full((plan.pool,), 12 * WAYS, device=device)),
        (x[mine], number),
        _network(x.shape[1], plan.width, {"character": len(parts["train"])}),
        {"character": wrong},
    )


@lru_cache(maxsize=2)
def students(name: str = "exam") -> tuple[Tensor, Tensor, Tensor]:
    """Features of a student [N, d], the exam score [N, 1], and the school [N].

    The first two are standardised. Schools with 30 students or more.
    """
    table = data.load(name)
    large = np.isin(table.task, np.flatnonzero(np.bincount(table.task) >= 30))
    x, y = table["x"][large], table.y[large]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    y = (y - y.mean()) / y.std()
    return (
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(y, dtype=torch.float32)[:, None],
        torch.tensor(table.task[large]),
    )


def schools(
    plan: Plan, seed: int, device: torch.device | str = "cpu", name: str = "exam"
) -> Family:
    """Two kinds of tasks per school: the exam score, and whether it is above the median.

    A regression and a classification. A sixth of the schools is held for validation and a quarter
    for the test. Held schools come again and again with other support.
    """
    x, score, school = (part.to(device) for part in students(name))
    count = len(school.unique())
    held = {"validation": count // 6, "test": count // 4}
    parts = split_classes(school, {"train": count - sum(held.values()), **held}, seed)
    targets = {"score": score, "above": (score[:, 0] > score.median()).long()}
    sources = {
        part: {kind: EpisodeSource(x, school, groups, targets=y) for kind, y in targets.items()}
        for part, groups in parts.items()
    }

    def draw(part, tasks, queries, g):
        return {
            kind: source.regression(tasks, plan.shots, queries, g)
            for kind, source in sources[part].items()
        }

    def repeated(part, g):
        count = len(parts[part])
        draws = [draw(part, count, 20, g) for _ in range(max(1, plan.judged // count))]
        return {kind: _joined([drawn[kind] for drawn in draws]) for kind in targets}

    tasks = {"score": regression("score"), "above": classification("above")}
    own = [school == group for group in parts["train"]]
    pad = torch.nn.utils.rnn.pad_sequence
    pool = (
        pad([x[mine] for mine in own], batch_first=True),
        {kind: pad([y[mine] for mine in own], batch_first=True) for kind, y in targets.items()},
        torch.stack([mine.sum() for mine in own]),
    )
    network = _network(x.shape[1], plan.width, {"score": 1, "above": 2})
    judged = [
        repeated(part, generator(10_000 * (k + 1) + seed, device)) for k, part in enumerate(held)
    ]
    batch = min(plan.tasks, len(parts["train"]))
    return Family(
        network,
        {kind: task.loss for kind, task in tasks.items()},
        lambda g: draw("train", batch, plan.queries, g),
        *judged,
        pool,
    )


def _joined(episodes: list[Episodes]) -> Episodes:
    """Tasks of several draws, one after another."""
    support = tuple(torch.cat(same) for same in zip(*(e.support for e in episodes), strict=True))
    query = tuple(torch.cat(same) for same in zip(*(e.query for e in episodes), strict=True))
    return Episodes(support, query)


def ilea(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Family:
    """The same two kinds of tasks from the schools of the Inner London Education Authority.

    They need a data root.
    """
    return schools(plan, seed, device, "school_ilea")


FAMILIES = {"sinusoids": waves, "characters": characters, "schools": schools, "ILEA": ilea}


def loss_of(family: Family, kind: str) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The loss of a kind of task, from all outputs of the network."""
    return lambda outputs, y: family.losses[kind](outputs[kind], y)


def score_of(family: Family, kind: str) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """What a query of this kind is judged by, from all outputs of the network."""
    score = family.scores.get(kind, family.losses[kind])
    return lambda outputs, y: score(outputs[kind], y)


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on this device, at this seed."""
    return torch.Generator(device).manual_seed(seed)


# ----------------------------------------------------------------------- schools, without a network
def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1).double()


def line_and_level(family: Family) -> tuple[float, float, float]:
    """No network: one straight line for all training schools, and a level for a new one.

    The level is the mean miss of the new school's support, shrunk towards 0.

    Returns:
        The share of the schools' levels in the variance that the line leaves, and the test MSE of
        the line without and with the level.
    """
    x, targets, counts = family.pool
    there = torch.arange(x.shape[1], device=x.device) < counts[:, None]
    y = targets["score"].double()
    line = torch.linalg.pinv(_with_ones(x[there])) @ y[there]
    left = [missed[:n] for missed, n in zip(y - _with_ones(x) @ line, counts, strict=True)]
    noise = torch.stack([r.var() for r in left]).mean()
    own = torch.stack([r.mean() for r in left]).var() - (noise / counts).mean()
    held = family.test["score"]
    before, missed = (y - _with_ones(x) @ line for x, y in (held.support, held.query))
    level = own / (own + noise / before.shape[1]) * before.mean(1, keepdim=True)
    return (
        float(own / (own + noise)),
        float(missed.square().mean()),
        float((missed - level).square().mean()),
    )


def between_schools() -> dict[str, float]:
    """Variance between schools of their level and of their slope on the intake test.

    Both without estimation error; beside them the variance of what one line for all misses.
    """
    x, y, school = students()
    x, y = _with_ones(x), y.double()
    missed = y - x @ torch.linalg.pinv(x) @ y
    coefficients, error = [], []
    for group in school.unique():
        own, left = x[school == group][:, [-1, 0]], missed[school == group]
        inverse = torch.linalg.inv(own.T @ own)
        fit = inverse @ own.T @ left
        coefficients.append(fit[:, 0])
        error.append((left - own @ fit).square().sum() / (len(own) - 2) * inverse.diagonal())
    level, slope = (torch.stack(coefficients).var(0) - torch.stack(error).mean(0)).tolist()
    return {
        "level": level,
        "slope on the intake test": slope,
        "misses of one line for all": float(missed.var()),
    }
