"""Chapter 11, four text domains on a frozen pretrained encoder: together or each alone.

A task is a domain of the set "vader": how positive is a tweet, a sentence about a film, about a
product, of an editorial? Only what stands on the frozen features is trained: a small network or a
ridge regression, one per domain or one for all. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..multitask.linear import mean_regularised, normal_equations
from ..networks.sentence_encoder import WordPiece, encode, minilm
from ..records.pieces import kept
from .common import seeded

DOMAINS = ("tweets", "films", "products", "editorials")
ALONE, TOGETHER = "network, each alone", "network, together"
RIDGE, MEAN, POOLED = "ridge, each alone", "ridge, mean-regularised", "ridge, one for all"
WAYS = (ALONE, TOGETHER, RIDGE, MEAN, POOLED)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        pool: sentences of a domain that all splits are drawn from, themselves drawn once.
        length: tokens of the longest sentence; of longer ones the first so many are read.
        labels: sentences of each domain to train on; each set contains the smaller ones.
        validation: sentences of each domain that choose settings.
        test: sentences of each domain that are scored once.
        features: of the network's hidden layer.
        rates: of Adam, that every network may try.
        steps: of Adam.
        looks: how often validation looks, evenly spread.
        batch: sentences of each domain per step.
        strengths: of the ridge penalties.
        ratios: strength of the common part, in units of that of each domain's own part.
    """

    pool: int = 1600
    length: int = 48
    labels: tuple[int, ...] = (50, 800)
    validation: int = 200
    test: int = 500
    features: int = 64
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    steps: int = 300
    looks: int = 15
    batch: int = 16
    strengths: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)
    ratios: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)


@cache
def features_of(pool: int, length: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each domain features [pool, 384], ratings [pool] and documents [pool].

    Whole documents are drawn, so that all sentences of one are there.
    """
    rated, files = data.load("vader"), data.load("minilm")
    tokens, encoder = WordPiece(files.vocabulary), minilm(files)
    names, domains = list(rated.domain_names), []
    for name in DOMAINS:
        rows = np.flatnonzero(np.array(rated.domain) == names.index(name))
        document = np.array(rated.document)[rows]
        order = np.random.default_rng(0).permutation(np.unique(document))
        place = np.argsort(
            np.argsort(order)[np.searchsorted(np.sort(order), document)], kind="stable"
        )
        rows = rows[place[:pool]]
        z = encode(encoder, tokens([str(rated.text[row]) for row in rows], length))
        y = torch.from_numpy(np.array(rated.rating)[rows])
        domains.append((z, y, torch.from_numpy(np.array(rated.document)[rows])))
    scale = torch.cat([z for z, _, _ in domains]).std()
    return [(z / scale, y, document) for z, y, document in domains]


def split(plan: Plan, document: Tensor, seed: int) -> dict[str, Tensor]:
    """Rows "test", "validation" and "train" of a domain; no document is on two sides."""
    numbers, which = document.unique(return_inverse=True)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
    shuffled = order[which].argsort(stable=True)  # document by document
    of = order[which][shuffled]
    parts, start = {}, 0
    for name, size in (("test", plan.test), ("validation", plan.validation)):
        end = start + size
        parts[name] = shuffled[start:end]
        # the rest of a document that began in this part stays out of the next
        start = int((of <= of[end - 1]).sum())
    rest = shuffled[start:]
    g = torch.Generator().manual_seed(seed)
    parts["train"] = rest[torch.randperm(len(rest), generator=g)][: max(plan.labels)]
    return parts


def explained(guess: Tensor, y: Tensor) -> float:
    """R2: share of the variance that a guess explains."""
    return float(1 - (guess - y).square().mean() / y.var(unbiased=False))


class Shared(nn.Module):
    """A hidden layer for all domains and a head for each; a head begins at 0."""

    def __init__(self, inputs: int, features: int, domains: Sequence[str]):
        super().__init__()
        self.trunk = nn.Linear(inputs, features)
        self.heads = nn.ModuleDict({name: nn.Linear(features, 1) for name in domains})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, name: str, z: Tensor) -> Tensor:
        """Ratings [B] of a domain, from features [B, D]."""
        return self.heads[name](F.relu(self.trunk(z)))[:, 0]


Part = dict[str, tuple[Tensor, Tensor]]  # domain -> features, ratings


def network(plan: Plan, train: Part, validation: Part, test: Part, seed: int) -> dict:
    """One network for the domains in `train`: its R2 on test rows, rate and step by validation.

    Rate and step are those with the highest mean over its domains.

    Returns:
        "test": domain -> R2; "rate" and "step".
    """
    best = None
    for rate in plan.rates:
        inputs = next(iter(train.values()))[0].shape[1]
        model = seeded(lambda inputs=inputs: Shared(inputs, plan.features, list(train)), seed)
        optimizer = torch.optim.Adam(model.parameters(), rate)
        g = torch.Generator().manual_seed(seed)
        for step in range(1, plan.steps + 1):
            loss = 0.0
            for name, (z, y) in train.items():
                rows = torch.randint(len(y), (plan.batch,), generator=g)
                loss = loss + F.mse_loss(model(name, z[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % (plan.steps // plan.looks) == 0:
                with torch.no_grad():
                    scores = [explained(model(name, z), y) for name, (z, y) in validation.items()]
                    value = float(np.mean(scores))
                    if best is None or value > best[0]:
                        found = {
                            name: explained(model(name, z), y) for name, (z, y) in test.items()
                        }
                        best = value, {"test": found, "rate": rate, "step": step}
    return best[1]


def linear(plan: Plan, train: Part, validation: Part, test: Part) -> dict[str, dict]:
    """Ridge regressions in closed form, strengths by validation: way -> domain -> R2.

    Alone, each domain chooses a strength of its own. The common part of the mean-regularised ones
    is that of chapter 1, as is the one that ties all domains to it.
    """
    sums = [normal_equations(z, y) for z, y in train.values()]
    a, b = (torch.stack(each) for each in zip(*sums, strict=True))
    names = list(train)

    def scores(weights, part):
        return {
            n: explained(part[n][0] @ w, part[n][1]) for n, w in zip(names, weights, strict=True)
        }

    alone = {}  # strength -> weights [T, D]
    together, pooled = {}, {}
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    for strength in plan.strengths:
        alone[strength] = torch.linalg.solve(a + strength * eye, b)
        one = torch.linalg.solve(a.sum(0) + strength * eye, b.sum(0))
        pooled[strength] = one.expand(len(names), -1)
        for ratio in plan.ratios:
            together[strength, ratio] = mean_regularised(a, b, strength, ratio * strength)[1]
    results = {RIDGE: {}, "strengths": {}}
    judged = {s: scores(w, validation) for s, w in alone.items()}
    for name in names:
        best = max(judged, key=lambda s, name=name: judged[s][name])
        results[RIDGE][name] = scores(alone[best], test)[name]
        results["strengths"][name] = best
    for way, tried in ((MEAN, together), (POOLED, pooled)):
        best = max(tried, key=lambda s, tried=tried: sum(scores(tried[s], validation).values()))
        results[way] = scores(tried[best], test)
        results["strengths"][way] = best
    return results


def one_size(plan: Plan, labels: int, seed: int) -> dict:
    """All ways with so many labels per domain, as plain JSON."""
    parts = {"train": {}, "validation": {}, "test": {}}
    for name, (z, y, document) in zip(DOMAINS, features_of(plan.pool, plan.length), strict=True):
        rows = split(plan, document, seed)
        known = y[rows["train"][:labels]]
        y = (y - known.mean()) / known.std()
        for part in parts:
            chosen = rows[part][:labels] if part == "train" else rows[part]
            parts[part][name] = z[chosen], y[chosen].float()
    results = {"chosen": {}}
    joint = network(plan, *parts.values(), seed)
    results[TOGETHER] = joint.pop("test")
    results["chosen"][TOGETHER] = joint
    results[ALONE] = {}
    for name in DOMAINS:
        single = network(plan, *({name: part[name]} for part in parts.values()), seed)
        results[ALONE] |= single.pop("test")
        results["chosen"][name] = single
    exact = [
        {n: (F.pad(z.double(), (0, 1), value=1.0), y.double()) for n, (z, y) in part.items()}
        for part in parts.values()
    ]
    ridges = linear(plan, *exact)
    results["strengths"] = ridges.pop("strengths")
    return results | ridges


def run_domains(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Four domains together and each alone, for every seed. Plain JSON.

    Args:
        seeds: of splits, starts and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "seeds": for each seed labels per domain -> what `one_size` gives.
    """
    plan, rows = plan or Plan(), []
    for seed in seeds:
        found = {}
        for n in plan.labels:
            found[str(n)] = kept(f"{plan}, {n} labels, seed {seed}", one_size, plan, n, seed)
            line = [f"{way} {np.mean(list(found[str(n)][way].values())):.3f}" for way in WAYS]
            report(f"seed {seed}, {n} labels: {', '.join(line)}")
        rows.append(found)
    return {"seeds": rows}
