"""Chapter 17, a first sketch: is a learned starting point better than multi-task pretraining? On sinusoids, and on schools with two kinds of tasks.

Every method is a way to train one network on the meta-training tasks. All are judged alike: on new tasks, the network takes a number of
gradient steps on the support, with a rate and a number of steps that were chosen for the method on validation tasks (the same grid for all,
no step among them), and its query loss is averaged over the test tasks. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, meta
from ..data.episodes import Episodes, Source, sinusoids, split_classes
from ..functional import Functional
from ..models import HardSharing, mlp
from ..tasks import classification, regression

METHODS: dict[str, dict] = {"MAML": {}, "FOMAML": {"first_order": True}, "ANIL": {"only": ("head", "heads")}, "Reptile": {}, "pretraining": {}}
# what is chosen on validation tasks: for adapting to a new task, and (outer rate) for training; as many trials for every method
INNER = ((0, 0.0), *((steps, rate) for steps in (1, 5, 10) for rate in (0.003, 0.01, 0.03, 0.1)))
OUTER = (1e-3, 3e-3)


@dataclass(frozen=True)
class Plan:
    """steps: meta-updates of `tasks` tasks; shots and queries: examples of a task; inner: steps and rate of the inner loop while training."""

    steps: int = 1000
    tasks: int = 16
    shots: int = 10
    queries: int = 10
    width: int = 40
    judged: int = 200  # sinusoids to validate on, and as many others to test on


PLANS = {"cpu": Plan(), "gpu": Plan(steps=20_000, tasks=64, judged=1000)}
TRAINING_INNER = {"sinusoids": (1, 0.01), "schools": (1, 0.03)}


# -------------------------------------------------------------------------------------------------------------- families of tasks
@dataclass(frozen=True)
class Family:
    """draw(generator): a meta-batch; validation and test: tasks that training never sees. Kind of task -> episodes, and the kinds' losses."""

    network: Callable[[], nn.Module]
    losses: Mapping[str, Callable]
    draw: Callable[[torch.Generator], dict[str, Episodes]]
    validation: dict[str, Episodes]
    test: dict[str, Episodes]
    inner: tuple[int, float]


def waves(plan: Plan, seed: int) -> Family:
    """Sinusoids of random amplitude and phase."""
    fixed = [{"wave": sinusoids(plan.judged, plan.shots, 50, torch.Generator().manual_seed(10_000 * (k + 1) + seed))} for k in range(2)]

    def network():
        return nn.ModuleDict({"trunk": mlp([1, plan.width, plan.width]), "head": nn.Linear(plan.width, 1)})

    return Family(
        lambda: _Chain(network()), {"wave": F.mse_loss}, lambda g: {"wave": sinusoids(plan.tasks, plan.shots, plan.queries, g)}, *fixed,
        TRAINING_INNER["sinusoids"],
    )  # fmt: skip


class _Chain(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.trunk, self.head = parts["trunk"], parts["head"]

    def forward(self, x):
        return {"wave": self.head(self.trunk(x))}


@lru_cache(maxsize=1)
def _students() -> tuple[Tensor, Tensor, Tensor]:
    """Features of a student [N, 9] standardised, the exam score [N, 1], the school [N]; schools with 30 students or more."""
    table = data.load("exam")
    large = np.isin(table.task, np.flatnonzero(np.bincount(table.task) >= 30))
    x = table["x"][large]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(table.y[large], dtype=torch.float32)[:, None], torch.tensor(table.task[large])


def schools(plan: Plan, seed: int) -> Family:
    """Two kinds of tasks a school: the exam score (a regression), and whether it lies above the median of all (a classification)."""
    x, score, school = _students()
    parts = split_classes(school, {"train": 28, "validation": 8, "test": 12}, seed)
    targets = {"score": score, "above": (score[:, 0] > score.median()).long()}
    sources = {part: {kind: Source(x, school, groups, targets=y) for kind, y in targets.items()} for part, groups in parts.items()}

    def draw(part, tasks, queries, g):
        return {kind: source.regression(tasks, plan.shots, queries, g) for kind, source in sources[part].items()}

    def repeated(part, g, times=10):
        found = [draw(part, len(parts[part]), 20, g) for _ in range(times)]
        return {
            kind: Episodes(*(tuple(torch.cat([getattr(f[kind], side)[i] for f in found]) for i in (0, 1)) for side in ("support", "query")))
            for kind in targets
        }

    def network():
        return HardSharing(mlp([x.shape[1], plan.width, plan.width]), {"score": nn.Linear(plan.width, 1), "above": nn.Linear(plan.width, 2)})

    losses = {"score": regression("score").loss, "above": classification("above").loss}
    held = [repeated(part, torch.Generator().manual_seed(10_000 * (k + 1) + seed)) for k, part in enumerate(("validation", "test"))]
    return Family(network, losses, lambda g: draw("train", plan.tasks, plan.queries, g), *held, TRAINING_INNER["schools"])


FAMILIES = {"sinusoids": waves, "schools": schools}


# ------------------------------------------------------------------------------------------------------------- training, judging
def train(method: str, family: Family, plan: Plan, seed: int, rate: float) -> Functional:
    """A network meta-trained with Adam, or pretrained on the pooled examples of the very same meta-batches."""
    torch.manual_seed(seed)
    f = Functional(family.network())
    params, g = f.parameters(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(params.values(), lr=rate)
    steps, inner = family.inner
    for _ in range(plan.steps):
        optimizer.zero_grad()
        for kind, episodes in family.draw(g).items():
            loss = _loss_of(family, kind)
            if method == "pretraining":
                pooled = [torch.cat([a, b], 1).flatten(0, 1) for a, b in zip(episodes.support, episodes.query, strict=True)]
                loss(f(params, pooled[0]), pooled[1]).backward()
            elif method == "Reptile":
                meta.reptile_backward(f, params, episodes, loss, 5, inner)
            else:
                meta.meta_backward(f, params, episodes, loss, steps, inner, **_choice(method, f))
        optimizer.step()
    return f


def _choice(method, f):
    """ANIL's parts are those that the model has."""
    options = METHODS[method]
    return {**options, "only": tuple(part for part in options["only"] if hasattr(f.model, part))} if "only" in options else options


def _loss_of(family, kind):
    return lambda outputs, y: family.losses[kind](outputs[kind], y)


def judge(f: Functional, family: Family, episodes: dict[str, Episodes], steps: int, rate: float, method: str) -> dict[str, float]:
    """Kind -> mean query loss after adapting to each task; infinite where an inner loop diverges."""
    found, only = {}, _choice(method, f).get("only", "")
    with torch.no_grad():
        for kind, held in episodes.items():
            try:
                losses = meta.meta_losses(f, f.parameters(), held, _loss_of(family, kind), steps, rate, first_order=True, only=only)
                found[kind] = float(losses.mean())
            except FloatingPointError:
                found[kind] = float("inf")
    return found


def compare(name: str, plan: Plan, seed: int, methods: Sequence[str] = tuple(METHODS)) -> dict[str, dict]:
    """Method -> what was chosen on validation tasks, kind by kind, and the test loss of it; "scratch" adapts an untrained network."""
    family, rows = FAMILIES[name](plan, seed), {}
    for method in ("scratch", *methods):
        if method == "scratch":
            how, trained = "pretraining", [(0.0, train("pretraining", family, replace(plan, steps=0), seed, 0.0))]
        else:
            how, trained = method, [(outer, train(method, family, plan, seed, outer)) for outer in OUTER]
        rows[method] = {}
        tried = [(judge(f, family, family.validation, *inner, how), outer, inner, f) for outer, f in trained for inner in INNER]
        for kind in family.losses:
            loss, outer, inner, f = min(tried, key=lambda trial: trial[0][kind])
            unadapted = judge(f, family, {kind: family.test[kind]}, 0, 0.0, how)[kind]
            rows[method][kind] = {
                "test": judge(f, family, {kind: family.test[kind]}, *inner, how)[kind], "unadapted": unadapted,
                "validation": loss[kind], "outer": outer, "steps": inner[0], "rate": inner[1],
            }  # fmt: skip
    return rows


def run(profile: str, seeds: Sequence[int]) -> dict:
    """Family -> method -> kind -> one row a seed, as plain JSON."""
    found: dict = {}
    for name in FAMILIES:
        for seed in seeds:
            for method, kinds in compare(name, PLANS[profile], seed).items():
                for kind, row in kinds.items():
                    found.setdefault(name, {}).setdefault(method, {}).setdefault(kind, []).append(row)
    return found
