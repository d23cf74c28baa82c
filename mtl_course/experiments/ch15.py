"""Chapter 15: digits of one collection named by a network that has labels of another only.

`train` sees labelled images of the source and bare images of the target; target labels reach
`accuracy` and nothing before it. What has to be chosen (rate, strength) is chosen by `rehearse`, on
a pair of domains made from the source alone. Domains that nobody has seen are in `ch15_unseen`,
columns of a table in `ch15_census`. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import records
from ..networks.trunks import Classifier
from ..records.pieces import kept
from ..runtime import device as fastest
from ..transfer.adaptation import domain_loss, reversal_schedule
from ..transfer.alignment import coral, mmd
from ..transfer.shift import proxy_a_distance, target_shares
from .ch15_digits import (
    RARE,
    Domain,
    accuracy,
    adapted,
    bent,
    domains,
    network,
    rehearsal,
    resampled,
    says,
    shifted,
)
from .ch15_unseen import run_unseen

SOURCE, AUGMENTED, ADABN, CORAL, MMD, DANN = (
    "source only",
    "augmentation",
    "AdaBN",
    "CORAL",
    "MMD",
    "DANN",
)
BOTH, ORACLE = "augmentation + MMD", "oracle"
METHODS = (SOURCE, AUGMENTED, ADABN, CORAL, MMD, DANN)
ALIGNING = (CORAL, MMD, DANN)


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and what each method may try.

    Args:
        source: the set whose labels are used.
        channels: of the convolutions.
        features: numbers per image that the trunk gives.
        steps: of Adam.
        batch: images per step and domain.
        unlabelled: target images to train on; the rest is the test.
        held_out: source images that no network is trained on.
        rates: learning rates that every method may try, with its middle strength.
        strengths: method -> what it may try besides, at the best rate: weight decay, how far
            images are bent, or lambda. The one that the rates are tried with comes first.
        rehearsals: how many seeds the search runs over.
        rare: share of the `RARE` digits that is left where labels shift.
    """

    source: str = "mnist_5k"
    channels: tuple[int, ...] = (16, 32)
    features: int = 64
    steps: int = 500
    batch: int = 64
    unlabelled: int = 1200
    held_out: int = 1000
    rates: tuple[float, ...] = (0.00015, 0.0005, 0.0015, 0.005, 0.015, 0.05)
    strengths: tuple[tuple[str, tuple[float, ...]], ...] = (
        (SOURCE, (1.0, 0.1, 10.0, 30.0)),
        (AUGMENTED, (1.0, 0.5, 2.0, 3.0)),
        (CORAL, (1000.0, 100.0, 10000.0, 100000.0)),
        (MMD, (10.0, 3.0, 30.0, 100.0)),
        (DANN, (0.3, 0.1, 1.0, 3.0)),
    )
    rehearsals: int = 3
    rare: float = 0.1


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(source="mnist", channels=(32, 64), features=128, steps=3000, batch=128),
}


@dataclass(frozen=True)
class Setting:
    """What a training run is given: a method, its learning rate, and its strength (see `Plan`)."""

    method: str
    rate: float
    strength: float


# --------------------------------------------------------------------------------------- one run
def train(
    x: Tensor, y: Tensor, x_target: Tensor, setting: Setting, seed: int, plan: Plan
) -> Classifier:
    """A network trained on labelled images of the source and bare images of the target.

    The target's labels are no argument. Both domains go through the trunk in one batch.

    Args:
        x: images of the source [N, 1, 16, 16].
        y: their labels [N].
        x_target: images of the target; only methods that align domains look at them.
        setting: method, rate and strength.
        seed: of the network and of all draws.
        plan: sizes.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        FloatingPointError: if the loss is not finite, or all features have become equal.
    """
    method, strength = setting.method, setting.strength
    model, discriminator = (m.to(x.device) for m in network(plan.channels, plan.features, seed))
    parameters = [*model.parameters(), *discriminator.parameters()]
    decay = strength if method in (SOURCE, ORACLE) else 0.0
    optimizer = torch.optim.AdamW(parameters, setting.rate, weight_decay=decay)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    g, n = torch.Generator().manual_seed(seed), plan.batch
    for step in range(plan.steps):
        rows = torch.randint(len(x), (n,), generator=g).to(x.device)
        others = torch.randint(len(x_target), (n,), generator=g).to(x.device)
        images = x[rows]
        if method in (AUGMENTED, BOTH):
            images = bent(images, 1.0 if method == BOTH else strength, g)
        if method in (SOURCE, AUGMENTED, ORACLE):
            loss = F.cross_entropy(model(images), y[rows])
        else:
            features = model.trunk(torch.cat([images, x_target[others]]))
            here, there = features[:n], features[n:]
            loss = F.cross_entropy(model.head(here), y[rows])
            now = strength * reversal_schedule(step / plan.steps)
            try:
                if method == DANN:
                    loss = loss + domain_loss(here, there, discriminator, now)
                else:
                    loss = loss + now * (coral if method == CORAL else mmd)(here, there)
            except ValueError as error:  # features that are all equal, or not finite
                raise FloatingPointError(f"{setting}, step {step}: {error}") from error
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{setting}: the loss is not finite in step {step}.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pace.step()
    return model.eval()


# ------------------------------------------------------------------------------------- the search
def trial(plan: Plan, setting: Setting, seeds: Sequence[int]) -> dict[str, float]:
    """Mean accuracy of a setting on the rehearsal's target: as trained, and after AdaBN.

    0 where training breaks down: a trial that is spent.
    """
    here, there = rehearsal(plan.source, plan.unlabelled, plan.held_out)
    plain, norm = [], []
    for seed in seeds:
        try:
            model = train(here.x, here.y, there.x, setting, seed, plan)
        except FloatingPointError:
            return {"plain": 0.0, "AdaBN": 0.0}
        plain.append(accuracy(model, there.x_test, there.y_test))
        norm.append(accuracy(adapted(model, there.x), there.x_test, there.y_test))
    return {"plain": float(np.mean(plain)), "AdaBN": float(np.mean(norm))}


def rehearse(plan: Plan, seeds: Sequence[int], report: Callable[[str], None]) -> dict:
    """The rate and strength of every method, chosen where all labels are the source's.

    First the rates with the method's first strength, then the other strengths at the best rate: as
    many trials for each method.

    Returns:
        Method -> "rate", "strength", and "trials": (rate, strength, accuracy) of each.
    """
    seeds, cache, chosen = list(seeds[: plan.rehearsals]), {}, {}
    strengths = dict(plan.strengths)
    for method in METHODS:
        trained = SOURCE if method == ADABN else method
        kind = "AdaBN" if method == ADABN else "plain"

        def score(rate: float, strength: float, trained: str = trained, kind: str = kind) -> float:
            setting = Setting(trained, rate, strength)
            if setting not in cache:
                key = f"{plan}, rehearsal {setting}, seeds {seeds}"
                cache[setting] = kept(key, trial, plan, setting, seeds)
            return cache[setting][kind]

        first, *others = strengths[trained]
        trials = [(rate, first, score(rate, first)) for rate in plan.rates]
        rate = max(trials, key=lambda row: row[2])[0]
        trials += [(rate, strength, score(rate, strength)) for strength in others]
        best = max(trials, key=lambda row: row[2])
        chosen[method] = {"rate": best[0], "strength": best[1], "trials": trials}
        report(f"rehearsal, {method}: rate {best[0]:g}, strength {best[1]:g}: {best[2]:.3f}")
    return chosen


# ---------------------------------------------------------------------------------- the comparison
def told(model: Classifier, source: Domain, target: Domain, few: Domain) -> dict[str, float]:
    """Accuracies on test images, and the distance of the domains; `few` is the shifted target."""
    with torch.no_grad():
        here, there = (model.trunk(d.x_test) for d in (source, target))
    return {
        "target": accuracy(model, target.x_test, target.y_test),
        "source": accuracy(model, source.x_test, source.y_test),
        "distance": proxy_a_distance(here, there),
        "shifted": accuracy(model, few.x_test, few.y_test),
    }


def one_seed(plan: Plan, chosen: dict, seed: int, device: torch.device | None = None) -> dict:
    """All methods on one seed: target accuracy, and what tells of the domains. Plain JSON."""
    source, target = domains(plan.source, plan.unlabelled, plan.held_out, device)
    few = shifted(target, plan.rare)
    rows: dict[str, dict] = {}

    def run(method: str, rate: float, strength: float, there: Domain = target) -> Classifier:
        return train(source.x, source.y, there.x, Setting(method, rate, strength), seed, plan)

    def tell(model: Classifier) -> dict[str, float]:
        return told(model, source, target, few)

    def shares(model: Classifier, there: Domain) -> list[float] | None:
        here = says(model, source.x_test)
        try:
            return target_shares(source.y_test, here, says(model, there.x), classes=10).tolist()
        except ValueError:  # a network that has hardly learned never gives some answer
            return None

    for method in (SOURCE, AUGMENTED):
        best = chosen[method]
        model = run(method, best["rate"], best["strength"])
        rows[method] = tell(model) | {
            "shares": shares(model, target),
            "shares, shifted": shares(model, few),
        }
    best = chosen[ADABN]
    plain = run(SOURCE, best["rate"], best["strength"])
    rows[ADABN] = tell(adapted(plain, target.x))
    rows[ADABN]["shifted"] = accuracy(adapted(plain, few.x), few.x_test, few.y_test)
    for method in ALIGNING:
        best, by_strength = chosen[method], {}
        for strength in sorted(dict(plan.strengths)[method]):
            try:
                model = run(method, best["rate"], strength)
            except FloatingPointError:
                if strength == best["strength"]:
                    raise
                by_strength[f"{strength:g}"] = {"target": 0.0, "source": 0.0}
                continue
            by_strength[f"{strength:g}"] = {
                "target": accuracy(model, target.x_test, target.y_test),
                "source": accuracy(model, source.x_test, source.y_test),
            }
            if strength == best["strength"]:
                rows[method] = tell(model)
        rows[method]["by strength"] = by_strength
        model = run(method, best["rate"], best["strength"], few)
        rows[method]["shifted"] = accuracy(model, few.x_test, few.y_test)
    best = chosen[MMD]
    if q := rows[SOURCE]["shares, shifted"]:  # estimated, without a label of the target
        setting = Setting(MMD, best["rate"], best["strength"])
        x, y = resampled(source.x, source.y, q, seed)
        model = train(x, y, few.x, setting, seed, plan)
        rows[MMD]["shifted, shares corrected"] = accuracy(model, few.x_test, few.y_test)
    rows[BOTH] = tell(run(BOTH, best["rate"], best["strength"]))
    best = chosen[SOURCE]
    setting = Setting(ORACLE, best["rate"], best["strength"])
    model = train(target.x, target.y, target.x, setting, seed, plan)
    rows[ORACLE] = tell(model)
    x, y = torch.cat([source.x, target.x]), torch.cat([source.y, target.y])
    rows["labels of both"] = tell(train(x, y, target.x, setting, seed, plan))
    rows[ORACLE].pop("shifted"), rows["labels of both"].pop("shifted")
    return rows


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Search on the rehearsal pair, then every method on every seed. Plain JSON.

    "chosen": what `rehearse` returns. "methods": method -> "target", "source" (accuracies on test
    images), "distance" (proxy A-distance of the features), "shifted" (accuracy where the target has
    few of some digits, trained there), lists with one value per seed, and more of some.
    """
    plan = plan or PLANS[profile]
    device = fastest() if profile == "gpu" else None
    chosen, methods = rehearse(plan, seeds, report), {}
    settings = {m: (row["rate"], row["strength"]) for m, row in chosen.items()}
    for seed in seeds:
        rows = kept(f"{plan}, {settings}, seed {seed}", one_seed, plan, chosen, seed, device)
        for method, row in rows.items():
            whole = methods.setdefault(method, {name: [] for name in row})
            for name, value in row.items():
                whole[name].append(value)
        line = ", ".join(f"{method} {row['target']:.3f}" for method, row in rows.items())
        report(f"seed {seed}: {line}")
    return {"chosen": chosen, "methods": methods}


# ------------------------------------------------------------------ baselines set on source data
# Rates that a network of the source alone may try, and its weight decay.
RATES_ON_SOURCE, DECAY_ON_SOURCE = (0.0015, 0.005, 0.015, 0.05), 0.01


def rate_on_source(plan: Plan, seed: int) -> float:
    """The rate with the best accuracy on held-out images of the source."""
    source, target = domains(plan.source, plan.unlabelled, plan.held_out)

    def right(rate: float) -> float:
        setting = Setting(SOURCE, rate, DECAY_ON_SOURCE)
        model = train(source.x, source.y, target.x, setting, seed, plan)
        return accuracy(model, source.x_test, source.y_test)

    return max(RATES_ON_SOURCE, key=right)


def on_source(plan: Plan, rate: float, mmd_setting: Setting, seed: int) -> dict[str, dict]:
    """The methods that need no target while they train, one seed; and what they say of shares.

    Args:
        plan: sizes.
        rate: that of all networks but MMD's.
        mmd_setting: for MMD on a source that is drawn anew by the estimated shares.
        seed: of networks and draws.

    Returns:
        Method -> what `told` gives. For `SOURCE` also "rare" and "rare, shifted", the share of rare
        digits that it estimates in the target, where shares are alike and where they differ. For
        `MMD` only "shifted". "labels of both": a network that has them.
    """
    source, target = domains(plan.source, plan.unlabelled, plan.held_out)
    few = shifted(target, plan.rare)

    def fit(method: str, strength: float, x: Tensor = source.x, y: Tensor = source.y) -> Classifier:
        return train(x, y, target.x, Setting(method, rate, strength), seed, plan)

    def shares(there: Domain) -> Tensor:
        here = says(alone, source.x_test)
        return target_shares(source.y_test, here, says(alone, there.x), classes=10)

    alone, bent_by_one = fit(SOURCE, DECAY_ON_SOURCE), fit(AUGMENTED, 1.0)
    rows = {
        SOURCE: told(alone, source, target, few),
        AUGMENTED: told(bent_by_one, source, target, few),
        ADABN: told(adapted(alone, target.x), source, target, few),
    }
    rows[SOURCE]["rare"] = float(shares(target)[list(RARE)].sum())
    rows[SOURCE]["rare, shifted"] = float(shares(few)[list(RARE)].sum())
    drawn = resampled(source.x, source.y, shares(few).tolist(), seed)
    model = train(*drawn, few.x, mmd_setting, seed, plan)
    rows[MMD] = {"shifted": accuracy(model, few.x_test, few.y_test)}
    x, y = torch.cat([source.x, target.x]), torch.cat([source.y, target.y])
    rows["labels of both"] = told(fit(ORACLE, DECAY_ON_SOURCE, x, y), source, target, few)
    return rows


def run_on_source(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan = PLANS["cpu"],
) -> dict:
    """`on_source` for every seed, after one search for the rate. Plain JSON.

    "rate", and "methods": method -> what `on_source` tells of it, with one value per seed. MMD's
    setting is that of the chapter's record.
    """
    chosen = records.load("15", "cpu").results["chosen"][MMD]
    setting = Setting(MMD, chosen["rate"], chosen["strength"])
    rate, methods = rate_on_source(plan, seeds[0]), {}
    report(f"rate {rate:g}, by accuracy on the source")
    for seed in seeds:
        rows = kept(f"{plan}, {rate}, {setting}, seed {seed}", on_source, plan, rate, setting, seed)
        for method, row in rows.items():
            for name, value in row.items():
                methods.setdefault(method, {}).setdefault(name, []).append(value)
        line = ", ".join(f"{method} {row['shifted']:.3f}" for method, row in rows.items())
        report(f"seed {seed}, where shares differ: {line}")
    return {"rate": rate, "methods": methods}


# Written by ``python -m mtl_course.record 15 --part unseen``, and so on.
RECORDS = {"unseen": run_unseen, "source": run_on_source}


def tiny(plan: Plan) -> Plan:
    """The plan at a size that a test runs through in seconds: few steps and few trials."""
    return replace(
        plan,
        channels=(4, 8),
        features=8,
        steps=40,
        rates=(0.005, 0.015),
        strengths=tuple((method, some[:2]) for method, some in plan.strengths),
        rehearsals=1,
    )
