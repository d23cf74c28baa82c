"""Chapter 15: a domain that nobody has seen. One of five kinds of pictures is left out in turn.

Four kinds are trained on, with labels; the fifth is named without a look at it, or after a look at
its bare images (AdaBN, TENT). Rates and strengths are chosen on held-out images of the four. Needs
no Jupyter.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.corruptions import corrupt
from ..networks.trunks import Classifier
from ..records.pieces import kept
from ..transfer.alignment import coral
from .ch15_digits import accuracy, adapted, network, pictures

KINDS = ("clean", "gaussian_noise", "gaussian_blur", "contrast", "rotate")
POOLED, ALIGNED, ADABN, TENT = "pooled", "CORAL", "pooled + AdaBN", "pooled + TENT"


@dataclass(frozen=True)
class Unseen:
    """Sizes and settings of the experiment.

    Args:
        severity: of the corruptions.
        channels: of the convolutions.
        features: numbers per image that the trunk gives.
        steps: of Adam.
        batch: images per step and kind.
        held_out: images of each kind for validation and for the test.
        rates: learning rates that the pooled network may try.
        strengths: lambdas that CORAL may try, at the pooled network's rate; as many.
        tent: learning rate of TENT, its authors' for Adam.
    """

    severity: int = 4
    channels: tuple[int, ...] = (8, 16)
    features: int = 32
    steps: int = 300
    batch: int = 32
    held_out: tuple[int, int] = (150, 350)
    rates: tuple[float, ...] = (0.005, 0.015, 0.05)
    strengths: tuple[float, ...] = (0.1, 1.0, 10.0)
    tent: float = 1e-3


def kinds(plan: Unseen) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
    """Kind -> part ("train", "validation", "test") -> images and labels.

    Each digit is in one kind only. All kinds have the same scale: a corruption must not be undone.
    """
    x, y = pictures("mnist_5k")
    g = torch.Generator().manual_seed(3)
    rows, found = torch.randperm(len(y), generator=g).chunk(len(KINDS)), {}
    for kind, some in zip(KINDS, rows, strict=True):
        images = x[some] if kind == "clean" else corrupt(x[some], kind, plan.severity, g)
        images, labels, (a, b) = (images - 0.3) / 0.3, y[some], plan.held_out
        found[kind] = {
            "train": (images[a + b :], labels[a + b :]),
            "validation": (images[:a], labels[:a]),
            "test": (images[a : a + b], labels[a : a + b]),
        }
    return found


def train(
    parts: Sequence[tuple[Tensor, Tensor]], rate: float, strength: float, seed: int, plan: Unseen
) -> Classifier:
    """A network for several labelled kinds of pictures, in evaluation mode.

    strength: of CORAL between every two kinds; 0 is the pooled network.
    """
    model, _ = network(plan.channels, plan.features, seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    g = torch.Generator().manual_seed(seed)
    for _ in range(plan.steps):
        rows = [torch.randint(len(y), (plan.batch,), generator=g) for _, y in parts]
        x = torch.cat([x[some] for (x, _), some in zip(parts, rows, strict=True)])
        y = torch.cat([y[some] for (_, y), some in zip(parts, rows, strict=True)])
        features = model.trunk(x)
        loss = F.cross_entropy(model.head(features), y)
        if strength:
            pairs = list(combinations(features.split(plan.batch), 2))
            loss = loss + strength * sum(coral(a, b) for a, b in pairs) / len(pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pace.step()
    return model.eval()


def tent(model: Classifier, x: Tensor, rate: float, batch: int = 50) -> Classifier:
    """A copy of a model, adapted to bare images by lowering the entropy of its answers.

    One pass. BatchNorm uses each batch's own statistics, and only its scales and shifts are
    trained (Wang et al., 2021). At the end it keeps the statistics of all of x.
    """
    model = copy.deepcopy(model).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    optimizer = torch.optim.Adam([p for m in norms for p in m.parameters()], rate)
    for some in x.split(batch):
        answers = F.log_softmax(model(some), dim=1)
        loss = -(answers.exp() * answers).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adapted(model.eval(), x)


def leave_out(plan: Unseen, kind: str, seed: int) -> dict:
    """Accuracy on a kind that training left out, by method; and what was chosen. Plain JSON."""
    found = kinds(plan)
    seen = [parts for name, parts in found.items() if name != kind]
    parts = [one["train"] for one in seen]
    x, y = found[kind]["test"]

    def validated(model: Classifier) -> float:
        return float(np.mean([accuracy(model, *one["validation"]) for one in seen]))

    def best(settings: Sequence[tuple[float, float]]) -> tuple[Classifier, tuple, list]:
        models = [train(parts, *setting, seed, plan) for setting in settings]
        scores = [validated(model) for model in models]
        place = int(np.argmax(scores))
        tests = [accuracy(model, x, y) for model in models]
        return models[place], settings[place], tests

    pooled, (rate, _), by_rate = best([(rate, 0.0) for rate in plan.rates])
    aligned, (_, strength), by_strength = best([(rate, s) for s in plan.strengths])
    bare = found[kind]["train"][0]  # of the kind left out: images, no labels
    return {
        POOLED: accuracy(pooled, x, y),
        ALIGNED: accuracy(aligned, x, y),
        ADABN: accuracy(adapted(pooled, bare), x, y),
        TENT: accuracy(tent(pooled, bare, plan.tent), x, y),
        "chosen": {"rate": rate, "strength": strength},
        "by rate": by_rate,
        "by strength": by_strength,
    }


def run_unseen(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Unseen | None = None
) -> dict:
    """Every kind left out in turn, on every seed. Plain JSON: kind -> name -> one per seed."""
    plan, results = plan or Unseen(), {}
    for kind in KINDS:
        for seed in seeds:
            row = kept(f"{plan}, without {kind}, seed {seed}", leave_out, plan, kind, seed)
            for name, value in row.items():
                results.setdefault(kind, {}).setdefault(name, []).append(value)
        line = ", ".join(
            f"{name} {np.mean(results[kind][name]):.3f}" for name in (POOLED, ALIGNED, ADABN, TENT)
        )
        report(f"without {kind}: {line}")
    return results
