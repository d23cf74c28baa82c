"""Chapter 21: an outcome that is known for few patients, and an early one that is known for all.

`surrogate` predicts death within a year from few labels: alone, in one network with the early
outcome, by the early outcome's model as it is, and near its weights. `horizons` trains on several
outcomes, some of them missing, and compares with the model of the study and with physicians.
`chances` asks what the answers are worth to someone who has to decide, and `leak` what a column
pretends that was not known yet. Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from .. import data
from ..records.pieces import kept
from ..training import (
    auc,
    calibration_error,
    died_by,
    known_losses,
    move_base_rate,
    net_benefit,
)
from ..transfer import logistic_near
from .common import seeded, standardised

# What the source advises to fill in where a laboratory value was not measured: a normal one.
NORMAL = {
    "alb": 3.5, "pafi": 333.3, "bili": 1.01, "crea": 1.01, "bun": 6.51, "wblc": 9.0,
    "urine": 2502.0,
}  # fmt: skip
LOGS = ("hday", "wblc", "bili", "crea", "glucose", "bun", "urine")
# Both ends are bad: their squared distance from the mean is a column too.
BOTH_ENDS = ("age", "meanbp", "wblc", "hrt", "resp", "temp", "sod")
ALONE, AS_IS, NEAR = "alone", "30-day model as it is", "near the 30-day model"
JOINT, NET_ALONE = "one network, two heads", "network alone"
TUNED = "30-day network, fine-tuned"
STUDY, MOVED = "study's model, 6 months", "the same, base rate moved"
OUTCOMES = ("2 months", "6 months", "1 year", "disabled")
DAYS = (60, 180, 365)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        patients: for training; the others are for the test.
        labels: known one-year outcomes.
        early: day of the early outcome, known for all.
        late: day of the outcome that counts.
        strengths: of the pull, among which cross-validation chooses.
        folds: of cross-validation.
        plain: strength for all patients of training, where little depends on it.
        hidden: width of the networks.
        epochs: of training, at most; cross-validation chooses.
        few_epochs: the same for the late outcome alone.
        net_folds: of cross-validation for the networks.
        weights: of the late outcome's loss beside the early one's.
        rate: of Adam.
        fine_rate: the same where a trained network is trained on.
        decay: of its weights.
        batch: rows per step.
        cuts: chances above which someone acts.
        few: labels for the chances.
    """

    patients: int = 4000
    labels: tuple[int, ...] = (40, 100, 300, 1000)
    early: int = 30
    late: int = 365
    strengths: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-1, 11))
    folds: int = 5
    plain: float = 30.0
    hidden: int = 32
    epochs: int = 15
    few_epochs: int = 150
    net_folds: int = 3
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    rate: float = 3e-3
    fine_rate: float = 1e-3
    decay: float = 1e-3
    batch: int = 256
    cuts: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    few: int = 300


PLANS = {"cpu": Plan(), "gpu": Plan(hidden=256, epochs=40)}


# ------------------------------------------------------------------------------------ the patients
@dataclass(frozen=True)
class Split:
    """Patients of training and test, as tables.

    Args:
        train: their rows in the data set, int64 [n].
        test: those of the others.
        x: inputs of all patients, [N, D], scaled by those of training.
        names: of the columns.
        early: [N], 1 if the patient died by the early day.
        late: [N], the same for the late day, NaN where censored.
    """

    train: Tensor
    test: Tensor
    x: Tensor
    names: list[str]
    early: Tensor
    late: Tensor


@cache
def patients():
    """The data set, read once."""
    return data.load("support2")


def columns(train: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Inputs by name, [N] each, filled in where nobody measured, and the names of the numbers.

    Laboratory values are filled with a normal one, others with the median of the training rows. A
    column says where more than a hundred were filled.
    """
    ds, inputs, numbers = patients(), {}, []
    for k, name in enumerate(ds["number_names"].tolist()):
        value = ds["numbers"][:, k]
        lacking = np.isnan(value)
        fill = NORMAL[name] if name in NORMAL else np.nanmedian(value[train])
        value = np.where(lacking, fill, value)
        inputs[name] = np.log1p(value) if name in LOGS else value
        numbers.append(name)
        if lacking.sum() > 100:
            inputs[f"{name}: not measured"] = lacking.astype(np.float64)
    for name in BOTH_ENDS:
        value = inputs[name]
        scaled = (value - value[train].mean()) / value[train].std()
        inputs[f"{name}: squared"] = np.clip(scaled, -3, 3) ** 2
    kinds = iter(ds["level_names"].tolist())
    for name, count, code in zip(
        ds["code_names"].tolist(), ds["levels"].tolist(), ds["codes"].T, strict=True
    ):
        for level, kind in enumerate([next(kinds) for _ in range(count)]):
            if level:
                inputs[f"{name}: {kind}"] = (code == level).astype(np.float64)
    return inputs, numbers


def split(plan: Plan, seed: int, more: Mapping[str, np.ndarray] | None = None) -> Split:
    """Training and test patients of a seed; `more` are further columns, [N] each, by name."""
    ds = patients()
    order = np.random.default_rng(seed).permutation(len(ds["time"]))
    train, test = order[: plan.patients], order[plan.patients :]
    inputs, _ = columns(train)
    inputs |= more or {}
    x = torch.as_tensor(np.column_stack(list(inputs.values())))
    time, died = torch.tensor(ds["time"]), torch.tensor(ds["died"])
    early, late = died_by(time, died, (plan.early, plan.late)).T
    train, test = torch.as_tensor(train), torch.as_tensor(test)
    x = standardised(x, x[train], limit=4.0)
    return Split(train, test, x, list(inputs), early, late)


def known(rows: Tensor, labels: Tensor) -> Tensor:
    """Those of the rows whose label is known."""
    return rows[~labels[rows].isnan()]


# ----------------------------------------------------------------------------- near given weights
def choose_strength(plan: Plan, x: Tensor, labels: Tensor, centre: Tensor | None = None) -> float:
    """The strength with the least loss on patients left out, over folds of the labelled ones."""
    fold = folds(labels, plan.folds)
    losses = []
    for strength in plan.strengths:
        total = 0.0
        for f in range(plan.folds):
            w, b = logistic_near(x[fold != f], labels[fold != f], strength, centre)
            out = (x[fold == f] @ w + b)[:, None]
            total += float(known_losses(out, labels[fold == f, None]) * (fold == f).sum())
        losses.append(total)
    return plan.strengths[int(np.argmin(losses))]


def folds(labels: Tensor, count: int) -> Tensor:
    """The fold of each row, with as many yeses in each as can be; rows come in random order."""
    fold = torch.empty(len(labels), dtype=torch.int64)
    for kind in (0, 1):
        rows = (labels == kind).nonzero().flatten()
        fold[rows] = torch.arange(len(rows)) % count
    return fold


# ------------------------------------------------------------------------------------- networks
def network(inputs: int, tasks: int, hidden: int) -> nn.Module:
    """A trunk for all tasks, and a head per task: a column of the last layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, tasks))


def train(
    plan: Plan,
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    weights: Sequence[float],
    seed: int,
    probe: Tensor,
    epochs: int,
    rate: float | None = None,
) -> Tensor:
    """Train on labels [N, T], NaN where not known; the logits on `probe` after each epoch.

    Returns:
        [epochs, probe rows, T].
    """
    optimizer = torch.optim.AdamW(model.parameters(), rate or plan.rate, weight_decay=plan.decay)
    generator = torch.Generator().manual_seed(seed)
    x, labels, probe = x.float(), labels.float(), probe.float()
    weights, said = torch.tensor(weights), []
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(plan.batch):
            losses = known_losses(model(x[rows]), labels[rows])
            optimizer.zero_grad()
            (weights * losses).sum().backward()
            optimizer.step()
        with torch.no_grad():
            said.append(model(probe))
    return torch.stack(said).double()


def fresh(plan: Plan, x: Tensor, tasks: int, seed: int) -> nn.Module:
    """A network of the seed."""
    return seeded(lambda: network(x.shape[1], tasks, plan.hidden), seed)


def held_out(said: Tensor, labels: Tensor) -> np.ndarray:
    """[epochs], the sum over tasks of the mean losses of logits [epochs, N, T]."""
    return np.array([float(known_losses(logits, labels).sum()) for logits in said])


def two_heads(plan: Plan, s: Split, labelled: Tensor, seed: int) -> dict:
    """AUC of one network for both outcomes, the late one known for `labelled` patients.

    The weight of the late loss and the number of epochs have the least sum of both losses on
    patients left out.
    """
    test = known(s.test, s.late)
    late = torch.full_like(s.late, torch.nan)
    late[labelled] = s.late[labelled]
    labels = torch.stack([s.early, late], dim=1)
    fold = torch.full((len(late),), -1)
    fold[s.train] = torch.arange(len(s.train)) % plan.net_folds
    fold[labelled] = folds(late[labelled], plan.net_folds)

    def fit(rows, probe, weight, epochs):
        model = fresh(plan, s.x, 2, seed)
        return train(plan, model, s.x[rows], labels[rows], [1, weight], seed, s.x[probe], epochs)

    totals = {}
    for weight in plan.weights:
        total = np.zeros(plan.epochs)
        for f in range(plan.net_folds):
            shown, out = s.train[fold[s.train] != f], s.train[fold[s.train] == f]
            total += held_out(fit(shown, out, weight, plan.epochs), labels[out])
        totals |= {(weight, e + 1): value for e, value in enumerate(total)}
    weight, epochs = min(totals, key=totals.get)
    said = fit(s.train, test, weight, epochs)[-1, :, 1]
    return {"auc": float(auc(said, s.late[test])), "weight": weight, "epochs": epochs}


def on_late(
    plan: Plan, s: Split, labelled: Tensor, seed: int, start: nn.Module, rate: float
) -> dict:
    """AUC of a network trained on the late outcome only, from a start.

    The number of epochs is chosen by cross-validation.
    """
    test, y = known(s.test, s.late), s.late[labelled, None]
    fold, epochs = folds(s.late[labelled], plan.net_folds), plan.few_epochs

    def fit(rows, probe, count):
        model, x = copy.deepcopy(start), s.x[labelled[rows]]
        return train(plan, model, x, y[rows], [1.0], seed, probe, count, rate)

    total = np.zeros(epochs)
    for f in range(plan.net_folds):
        rows, out = (fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]
        total += held_out(fit(rows, s.x[labelled[out]], epochs), y[out])
    best = int(total.argmin()) + 1
    said = fit(torch.arange(len(labelled)), s.x[test], best)[-1, :, 0]
    return {"auc": float(auc(said, s.late[test])), "epochs": best}


def early_network(plan: Plan, s: Split, seed: int) -> nn.Module:
    """A network for the early outcome; epochs chosen on a quarter of the patients."""
    quarter = len(s.train) // 4
    out, rows = s.train[:quarter], s.train[quarter:]
    y = s.early[:, None]

    def fit(model, rows, epochs):
        return train(plan, model, s.x[rows], y[rows], [1.0], seed, s.x[out], epochs)

    said = fit(fresh(plan, s.x, 1, seed), rows, plan.epochs)
    model = fresh(plan, s.x, 1, seed)
    fit(model, s.train, int(held_out(said, y[out]).argmin()) + 1)
    return model


# --------------------------------------------------------------------------------- few labels
def source(plan: Plan, s: Split) -> tuple[Tensor, Tensor]:
    """Weights and level of the early outcome's model, from all patients of training."""
    return logistic_near(s.x[s.train], s.early[s.train], plan.plain)


def surrogate(plan: Plan, seed: int, networks: bool = True) -> dict:
    """Death within a year from few labels, five ways; and among those who lived past the early day.

    Returns:
        "labels": number -> way -> {"auc", and what was chosen}; "all": AUC with all labels of
        training; "fixed": AUC of what needs no late label; "later": number -> way -> AUC among the
        patients who lived past the early day.
    """
    s = split(plan, seed)
    w, b = source(plan, s)
    test, labelled = known(s.test, s.late), known(s.train, s.late)
    later = torch.where(s.early == 1, torch.nan, s.late)
    later_test, later_labelled = known(s.test, later), known(s.train, later)
    lives = torch.tensor(patients()["lives"][:, 1])
    judged = test[~lives[test].isnan()]
    result = {
        "fixed": {
            AS_IS: float(auc(s.x[test] @ w + b, s.late[test])),
            STUDY: float(auc(1 - lives[judged], s.late[judged])),
            "later": float(auc(s.x[later_test] @ w + b, later[later_test])),
        },
        "labels": {},
        "later": {},
    }
    trained = early_network(plan, s, seed) if networks else None
    full = logistic_near(s.x[labelled], s.late[labelled], plan.plain)
    result["all"] = float(auc(s.x[test] @ full[0] + full[1], s.late[test]))
    for n in plan.labels:
        few, ways = labelled[:n], {}
        later_few, later_ways = later_labelled[:n], {}
        for way, centre in ((ALONE, None), (NEAR, w)):
            strength = choose_strength(plan, s.x[few], s.late[few], centre)
            v, c = logistic_near(s.x[few], s.late[few], strength, centre)
            ways[way] = {"auc": float(auc(s.x[test] @ v + c, s.late[test])), "strength": strength}
            strength = choose_strength(plan, s.x[later_few], later[later_few], centre)
            v, c = logistic_near(s.x[later_few], later[later_few], strength, centre)
            later_ways[way] = float(auc(s.x[later_test] @ v + c, later[later_test]))
        if networks:
            ways[JOINT] = two_heads(plan, s, few, seed)
            start = fresh(plan, s.x, 1, seed)
            ways[NET_ALONE] = on_late(plan, s, few, seed, start, plan.rate)
            ways[TUNED] = on_late(plan, s, few, seed, trained, plan.fine_rate)
        result["labels"][str(n)], result["later"][str(n)] = ways, later_ways
    return result


# ------------------------------------------------------------------------------- several outcomes
def outcome_labels() -> Tensor:
    """Labels [N, 4] of OUTCOMES: dead by three days, and disabled; NaN where not known."""
    ds = patients()
    dead = died_by(torch.tensor(ds["time"]), torch.tensor(ds["died"]), DAYS)
    return torch.cat([dead, torch.tensor(ds["disabled"])[:, None]], dim=1)


def horizons(plan: Plan, seed: int) -> dict:
    """AUC of four outcomes, with all labels of training: together, one by one, and by others.

    Returns:
        way -> outcome -> AUC on all test patients whose outcome is known; "asked": the same on
        those for whom the model of the study and a physician gave a chance, for two outcomes.
    """
    s, labels = split(plan, seed), outcome_labels()
    quarter = len(s.train) // 4
    hold, fit = s.train[:quarter], s.train[quarter:]
    ways: dict[str, dict] = {"one network": {}, "a network each": {}, "logistic regression": {}}
    asked: dict[str, dict] = {}
    T = len(OUTCOMES)
    said = {"one network": 0, "a network each": []}
    probe = torch.cat([hold, s.test])
    runs = {"one network": [list(range(T))], "a network each": [[t] for t in range(T)]}
    for way, groups in runs.items():
        outs = []
        for tasks in groups:
            y = labels[:, tasks]
            model, weights = fresh(plan, s.x, len(tasks), seed), [1.0] * len(tasks)
            logits = train(plan, model, s.x[fit], y[fit], weights, seed, s.x[probe], plan.epochs)
            best = held_out(logits[:, :quarter], y[hold]).argmin()
            outs.append(logits[best, quarter:])
        said[way] = torch.cat(outs, dim=1)
    plain = []
    for t in range(T):
        rows = known(s.train, labels[:, t])
        w, b = logistic_near(s.x[rows], labels[rows, t], plan.plain)
        plain.append(s.x[s.test] @ w + b)
    said["logistic regression"] = torch.stack(plain, dim=1)
    for way, logits in said.items():
        for t, name in enumerate(OUTCOMES):
            there = ~labels[s.test, t].isnan()
            ways[way][name] = float(auc(logits[there, t], labels[s.test[there], t]))
    others = {
        "study's model": torch.tensor(patients()["lives"]),
        "physician": torch.tensor(patients()["doctor"]),
    }
    for t in (0, 1):
        rows = s.test[~sum(v[s.test, t] for v in others.values()).isnan()]
        at = torch.isin(s.test, rows)
        y = labels[s.test[at], t]
        chances = {name: (1 - v[s.test[at], t]).clamp(0.005, 0.995) for name, v in others.items()}
        told = {name: p.logit() for name, p in chances.items()}
        told["the two, mean"] = sum(told.values()) / 2
        told |= {way: logits[at, t] for way, logits in said.items()}
        for name, score in told.items():
            asked.setdefault(name, {})[OUTCOMES[t]] = float(auc(score, y))
    return ways | {"asked": asked, "asked rows": len(rows)}


# --------------------------------------------------------------------------------- what it is worth
def chances(plan: Plan, seed: int) -> dict[str, Tensor]:
    """Chances of death within a year on the test patients, by ways that see `few` late labels.

    Returns:
        way -> [test patients whose outcome is known]; "labels": those outcomes.
    """
    s = split(plan, seed)
    w, b = source(plan, s)
    test, few = known(s.test, s.late), known(s.train, s.late)[: plan.few]
    plain = (s.x[test] @ w + b).sigmoid()
    said = {AS_IS: plain}
    before, now = float(s.early[s.train].mean()), float(s.late[few].mean())
    said[MOVED] = move_base_rate(plain, before, now)
    for way, centre in ((ALONE, None), (NEAR, w)):
        strength = choose_strength(plan, s.x[few], s.late[few], centre)
        v, c = logistic_near(s.x[few], s.late[few], strength, centre)
        said[way] = (s.x[test] @ v + c).sigmoid()
    return said | {"labels": s.late[test]}


def worth(plan: Plan, seed: int) -> dict:
    """Mean chance, AUC, calibration error and net benefit of each way; and of treating all."""
    said = chances(plan, seed)
    labels = said.pop("labels")
    rows = {
        way: {
            "mean": float(p.mean()),
            "auc": float(auc(p, labels)),
            "error": float(calibration_error(p, labels)),
            "benefit": net_benefit(p, labels, plan.cuts).tolist(),
        }
        for way, p in said.items()
    }
    everyone = net_benefit(torch.ones_like(labels), labels, plan.cuts).tolist()
    return {"ways": rows, "all": everyone, "share": float(labels.mean())}


# ------------------------------------------------------------------------------------- the leak
def orders(by: float) -> np.ndarray:
    """[N], 1 where an order not to resuscitate was known to exist by this day of the study."""
    return (patients()["dnr_day"] <= by).astype(np.float64)


def leak(plan: Plan, seed: int) -> dict[str, float]:
    """AUC of death within two months: without the orders, with them, and as they were on day 3.

    "in use" trains on the whole column and is asked on day 3, when later orders do not exist yet.
    "care" adds the mean intensity of care on the days 3 to 25.
    """
    care = patients()["care"]
    care = np.where(np.isnan(care), np.nanmean(care), care)
    whole, then = orders(np.finfo(float).max), orders(3)
    tables = {
        "without": split(plan, seed),
        "with": split(plan, seed, {"order": whole}),
        "orders by day 3": split(plan, seed, {"order": then}),
        "care": split(plan, seed, {"care": care}),
    }
    result = {}
    two_months = outcome_labels()[:, 0]
    for name, s in tables.items():
        w, b = logistic_near(s.x[s.train], two_months[s.train], plan.plain)
        result[name] = float(auc(s.x[s.test] @ w + b, two_months[s.test]))
        if name == "with":
            x = s.x.clone()
            seen = torch.as_tensor(whole)[s.train]
            asked = torch.as_tensor(then)[:, None]
            x[:, -1:] = standardised(asked, seen[:, None], limit=4.0)
            result["in use"] = float(auc(x[s.test] @ w + b, two_months[s.test]))
    return result


# ------------------------------------------------------------------------------------------ record
def one_seed(plan: Plan, seed: int) -> dict:
    """All parts for one split of the patients."""
    return {
        "surrogate": surrogate(plan, seed),
        "horizons": horizons(plan, seed),
        "worth": worth(plan, seed),
        "leak": leak(plan, seed),
    }


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, as plain JSON.

    Returns:
        "labels": the numbers of late labels; "cuts": chances; "seeds": a list of what `one_seed`
        gives.
    """
    plan = plan or PLANS[profile]
    results = {"labels": list(plan.labels), "cuts": list(plan.cuts), "seeds": []}
    for seed in seeds:
        results["seeds"].append(kept(f"{profile}, seed {seed}", one_seed, plan, seed))
        ways = results["seeds"][-1]["surrogate"]["labels"]
        shown = {
            n: {way: round(row["auc"], 3) for way, row in rows.items()} for n, rows in ways.items()
        }
        report(f"seed {seed}: {shown}")
    return results


def few_labels(seeds: Sequence[Mapping], way: str, part: str = "labels") -> np.ndarray:
    """AUC of a way by the number of late labels, [seeds, numbers]; part: "labels" or "later"."""
    rows = [seed["surrogate"][part] for seed in seeds]
    # in a record the numbers stand in the order of their digits
    values = [[row[n][way] for n in sorted(row, key=int)] for row in rows]
    return np.array([[v["auc"] if isinstance(v, Mapping) else v for v in row] for row in values])
