"""Chapter 23: does sharing leak, discriminate, explain? Four questions to a census.

Adults of the census-income (KDD) table who worked in the year before, and four yes-or-no tasks
about them. `attack` trains twelve networks of a kind on halves of a small pool and asks of each
who was in its half; `budget` trains under a privacy budget, all tasks in one network or one network
per task; `groups` compares the rates of women and men. Needs no Jupyter.

Many networks of one form train side by side: run r has the parameters [r] of every tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, trust
from ..records.pieces import kept
from ..training.ranking import auc

TASKS = ("income", "degree", "never married", "shares")
NUMBERS = ("age", "wage per hour", "people in the firm", "weeks worked")
CATEGORIES = (
    "class of worker",
    "major industry",
    "major occupation",
    "race",
    "hispanic origin",
    "sex",
    "member of a union",
    "full or part time",
    "citizenship",
    "self-employed",
    "veteran's benefits",
)
DEGREES = ("Bachelors", "Masters", "Prof school", "Doctorate")
GROUPS = ("men", "women")
ALONE = tuple(tuple(float(s == t) for s in range(4)) for t in range(4))
TOGETHER = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        width: hidden units.
        pool: rows that the networks of `attack` are trained on, each on half of them.
        networks: of each kind; even.
        narrow: hidden units of a network that has a quarter of the parameters.
        overfit: steps of the networks that nobody stops.
        stops: numbers of steps that validation chooses among for "joint, stopped".
        attack_q: chance of a row of being drawn, in `attack`.
        attack_rate: of the networks without privacy there.
        attack_epsilons: budgets there.
        attack_steps: steps under a budget there.
        attack_delta: delta there, a tenth of one over the rows of a network.
        private_rates: rates that validation chooses among under a budget.
        rows: training rows of `budget`.
        epsilons: budgets.
        steps: steps of all networks of `budget`.
        q: chance of a row of being drawn there.
        delta: a tenth of one over the rows.
        clip: C.
        group_rows: numbers of training rows of `groups`.
        group_draws: draws of training rows per seed there.
        group_stops: numbers of steps that validation chooses among there.
        group_batch: rows per step, on average.
        group_rates: rates that validation chooses among there.
        held: validation rows.
        test: test rows at most, of the official test part.
    """

    width: int = 32
    pool: int = 2_000
    networks: int = 12
    narrow: int = 8
    overfit: int = 400
    stops: tuple[int, ...] = (25, 50, 100, 200)
    attack_q: float = 0.128
    attack_rate: float = 0.02
    attack_epsilons: tuple[float, ...] = (8.0, 2.0)
    attack_steps: int = 100
    attack_delta: float = 1e-4
    private_rates: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16)
    rows: int = 10_000
    epsilons: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 8.0)
    steps: int = 150
    q: float = 0.05
    delta: float = 1e-5
    clip: float = 1.0
    group_rows: tuple[int, ...] = (2_000, 20_000)
    group_draws: int = 3
    group_stops: tuple[int, ...] = (50, 100, 200, 300)
    group_batch: int = 256
    group_rates: tuple[float, ...] = (0.005, 0.01, 0.02)
    held: int = 4_000
    test: int = 20_000


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(width=128, networks=64, narrow=32, rows=50_000, steps=1_000, test=60_000),
}


# ---------------------------------------------------------------------------------------- the data
@cache
def people() -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Adults who worked, for training and for the test: "x" [N, d], "y" [N, 4], "women" [N].

    Numbers come first, the wage as log(1 + amount), then one column for each category's value. What
    a task asks for (education, marital status, dividends) and what says it nearly are left out.

    Returns:
        Training part, test part, and the name of each column's variable.
    """
    ds = data.load("census_income")
    numbers, codes = ([str(n) for n in ds[key]] for key in ("number_names", "code_names"))
    names, start = [str(n) for n in ds["level_names"]], np.cumsum([0, *ds["levels"]])

    def values(variable):
        place = codes.index(variable)
        return names[start[place] : start[place + 1]]

    columns = [*NUMBERS]
    for variable in CATEGORIES:
        columns += [variable] * len(values(variable))
    both = []
    for part in ("train", "test"):
        amounts, coded = ds[f"numbers_{part}"].astype(np.float32), ds[f"codes_{part}"]
        number = {name: amounts[:, k] for k, name in enumerate(numbers)}
        chosen = (number["age"] >= 18) & (number["weeks worked"] > 0)

        def code(variable, coded=coded):
            return coded[:, codes.index(variable)]

        def among(variable, wanted, code=code):
            places = [k for k, value in enumerate(values(variable)) if value.startswith(wanted)]
            return np.isin(code(variable), places)

        number["wage per hour"] = np.log1p(number["wage per hour"])
        x = [number[name][:, None] for name in NUMBERS]
        x += [np.eye(len(values(v)), dtype=np.float32)[code(v)] for v in CATEGORIES]
        y = [
            ds[f"income_{part}"] == 1,
            among("education", DEGREES),
            among("marital status", "Never married"),
            number["dividends"] > 0,
        ]
        both.append(
            {
                "x": torch.from_numpy(np.hstack(x)[chosen]),
                "y": torch.from_numpy(np.stack(y, axis=1)[chosen].astype(np.float32)),
                "women": torch.from_numpy(among("sex", "Female")[chosen].astype(np.int64)),
            }
        )
    return *both, columns


def draw(rows: int, plan: Plan, seed: int) -> dict[str, dict[str, Tensor]]:
    """ "train", "held" and "test", each as `people` has it; smaller draws are part of larger ones.

    Columns are in units of the training rows, at most five of them from their mean, and divided by
    the root of their number, so that a row's length is about one.
    """
    train, test, _ = people()
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train["x"]), generator=g)
    other = torch.randperm(len(test["x"]), generator=g)[: plan.test]
    parts = {
        "train": (train, order[plan.held :][:rows]),
        "held": (train, order[: plan.held]),
        "test": (test, other),
    }
    parts = {name: {k: v[some] for k, v in part.items()} for name, (part, some) in parts.items()}
    like = parts["train"]["x"]
    # a column that is nearly constant must not become a few huge values
    mean, spread = like.mean(0), like.std(0).clamp_min(0.05)
    for part in parts.values():
        part["x"] = ((part["x"] - mean) / spread).clamp(-5, 5) / like.shape[1] ** 0.5
    return parts


# ------------------------------------------------------------------------ many networks at once
def fresh(seeds: Sequence[int], d: int, width: int, tasks: int) -> list[Tensor]:
    """Weights and biases of the hidden layer and of the heads, one network per seed.

    Inputs of length one make hidden units of variance one; the heads start at zero.
    """
    first = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        first.append(torch.randn(d, width, generator=g))
    R = len(seeds)
    zeros = torch.zeros
    return [torch.stack(first), zeros(R, 1, width), zeros(R, width, tasks), zeros(R, 1, tasks)]


def answers(params: Sequence[Tensor], x: Tensor) -> Tensor:
    """Logits [R, N, tasks] of every network for the same rows x [N, d]."""
    W, b, V, c = params
    return torch.tanh(x @ W + b) @ V + c


def clipped_sums(
    params: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    tasks: Tensor,
    member: Tensor | None = None,
    clip: float | None = None,
) -> list[Tensor]:
    """Sums over rows of the gradients, each row's clipped, without making any row's gradient.

    A weight's gradient of one row is the product of two vectors, its inputs and the slope at its
    outputs, so that its length is the product of theirs.

    Args:
        params: of R networks.
        x: [B, d].
        y: [B, tasks].
        tasks: [R, tasks], 1 for the tasks that a network learns, else 0.
        member: [R, B], 1 for the rows that a network may see; None for all.
        clip: C; None for no clipping.

    Returns:
        As `params`.
    """
    W, b, V, c = params
    hidden = torch.tanh(x @ W + b)
    slope = ((hidden @ V + c).sigmoid() - y) * tasks[:, None]
    if member is not None:
        slope = slope * member[..., None]
    below = (slope @ V.mT) * (1 - hidden * hidden)
    if clip is not None:
        squares = slope.square().sum(2) * (hidden.square().sum(2) + 1)
        squares = squares + below.square().sum(2) * (x.square().sum(1) + 1)
        factor = (clip / squares.sqrt().clamp_min(1e-12)).clamp_max(1)[..., None]
        slope, below = slope * factor, below * factor
    return [x.T @ below, below.sum(1, True), hidden.mT @ slope, slope.sum(1, True)]


def train(
    params: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    tasks: Tensor,
    *,
    rate: Tensor,
    q: float,
    stops: Sequence[int],
    seed: int,
    member: Tensor | None = None,
    clip: float | None = None,
    noise: Tensor | None = None,
) -> list[list[Tensor]]:
    """Adam on the (private) gradients of R networks; all see the same draws of rows.

    Args:
        params: where they start.
        x: [N, d].
        y: [N, tasks].
        tasks: [R, tasks], 1 for the tasks that a network learns.
        rate: [R].
        q: chance of every row of being drawn in a step.
        stops: numbers of steps after which the networks are returned; the last ends the training.
        seed: of draws and noise.
        member: bool [R, N], rows that each network may see.
        clip: C; None for no clipping.
        noise: [R], in units of the clip; every network draws its own.

    Returns:
        The networks at every stop.
    """
    params = [p.clone() for p in params]
    first, second = ([torch.zeros_like(p) for p in params] for _ in range(2))
    rate = rate.view(-1, 1, 1)
    share = 1.0 if member is None else float(member.double().mean())
    expected = q * len(x) * share
    g, ends = torch.Generator().manual_seed(seed), []
    for step in range(1, max(stops) + 1):
        rows = (torch.rand(len(x), generator=g) < q).nonzero().flatten()
        ours = None if member is None else member[:, rows].float()
        sums = clipped_sums(params, x[rows], y[rows], tasks, ours, clip)
        for p, total, m, v in zip(params, sums, first, second, strict=True):
            if noise is not None:
                total = total + noise.view(-1, 1, 1) * clip * torch.randn(p.shape, generator=g)
            mean = total / expected
            m.mul_(0.9).add_(mean, alpha=0.1)
            v.mul_(0.999).addcmul_(mean, mean, value=0.001)
            p.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
        if step in stops:
            if not all(p.isfinite().all() for p in params):
                raise FloatingPointError(f"Step {step}: a network is not finite; lower the rate.")
            ends.append([p.clone() for p in params])
    return ends


def aucs(logits: Tensor, y: Tensor) -> np.ndarray:
    """AUC of every network and task, [R, tasks]."""
    return np.array([[float(auc(one[:, t], y[:, t])) for t in range(y.shape[1])] for one in logits])


# ----------------------------------------------------------------------------- who was in the set
def halves(networks: int, rows: int, seed: int) -> Tensor:
    """bool [networks, rows]: every row is in the sets of half of the networks."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(networks, rows, generator=g).argsort(0) < networks // 2


def attacked(logits: Tensor, y: Tensor, member: Tensor, tasks: Sequence[int]) -> dict[str, float]:
    """What attackers get from the answers to these tasks, on average over the networks.

    Args:
        logits: [R, N, tasks].
        y: [N, tasks].
        member: bool [R, N].
        tasks: columns of both that the networks answer.

    Returns:
        "one" and "all": AUC of an attacker who calibrates, from one answer (the mean over tasks)
        and from the sum of all; "caught": what the latter catches at 1 % false alarms; "plain, one"
        and "plain, all": AUC of an attacker who looks at the loss alone.
    """
    sure = {t: trust.confidence(logits[..., t], y[:, t]) for t in tasks}

    def score(s):
        s = trust.calibrated(s, member)
        return s, float(np.mean([float(auc(a, m)) for a, m in zip(s, member, strict=True)]))

    losses = {t: F.softplus(-s) for t, s in sure.items()}

    def plain(loss):
        return float(np.mean([float(auc(-a, m)) for a, m in zip(loss, member, strict=True)]))

    together, of_all = score(sum(sure.values()))
    return {
        "one": float(np.mean([score(s)[1] for s in sure.values()])),
        "all": of_all,
        "caught": float(
            np.mean([trust.caught(a, m) for a, m in zip(together, member, strict=True)])
        ),
        "plain, one": float(np.mean([plain(loss) for loss in losses.values()])),
        "plain, all": plain(sum(losses.values())),
    }


def attack(plan: Plan, seed: int) -> dict[str, dict]:
    """Kind of network -> what `attacked` says, and "test", the AUC of each task.

    "single" is four networks, one per task, whose answers the attacker may put together; "single,
    narrow" are as many with a quarter of the units; "joint" is one network. These three train until
    the steps are over. "joint, stopped" stops where validation is best, and "epsilon E" is one
    network under a budget.
    """
    parts = draw(plan.pool, plan, seed)
    x, y = parts["train"]["x"], parts["train"]["y"]
    R, d, T = plan.networks, x.shape[1], len(TASKS)
    member = halves(R, len(x), seed)
    own = [10_000 * (seed + 1) + r for r in range(R)]  # a start for every network

    def trained(tasks, stops, width=plan.width, rate=plan.attack_rate, **privacy):
        return train(
            fresh(own, d, width, T),
            x,
            y,
            torch.tensor([tasks] * R),
            rate=torch.full((R,), rate),
            q=plan.attack_q,
            stops=stops,
            seed=seed,
            member=member,
            **privacy,
        )

    def mean_auc(params, part):
        return aucs(answers(params, parts[part]["x"]), parts[part]["y"]).mean(0)

    def judged(logits, test):
        return attacked(logits, y, member, range(T)) | {"test": list(map(float, test))}

    results = {}
    for name, width in (("single", plan.width), ("single, narrow", plan.narrow)):
        logits, test = torch.zeros(R, len(x), T), []
        for t, tasks in enumerate(ALONE):
            (params,) = trained(tasks, [plan.overfit], width)
            logits[..., t] = answers(params, x)[..., t]
            test.append(mean_auc(params, "test")[t])
        results[name] = judged(logits, test)
    ends = trained(TOGETHER, [*plan.stops, plan.overfit])
    results["joint"] = judged(answers(ends[-1], x), mean_auc(ends[-1], "test"))
    values = [mean_auc(end, "held").mean() for end in ends]
    best = int(np.argmax(values))
    results["joint, stopped"] = judged(answers(ends[best], x), mean_auc(ends[best], "test")) | {
        "steps": [*plan.stops, plan.overfit][best]
    }
    for epsilon in plan.attack_epsilons:
        noise = trust.noise_for(epsilon, plan.attack_steps, plan.attack_delta, plan.attack_q)
        tried = {
            rate: trained(
                TOGETHER,
                [plan.attack_steps],
                rate=rate,
                clip=plan.clip,
                noise=torch.full((R,), noise),
            )[0]
            for rate in plan.private_rates
        }
        rate = max(tried, key=lambda rate: mean_auc(tried[rate], "held").mean())
        params = tried[rate]
        results[f"epsilon {epsilon:g}"] = judged(answers(params, x), mean_auc(params, "test")) | {
            "rate": rate,
            "noise": noise,
        }
    return results


# ----------------------------------------------------------------------------- one budget, T tasks
def budget(plan: Plan, seed: int) -> dict[str, dict]:
    """Budget -> way to spend it -> "test", the AUC of each task, and the "rate" of each network.

    "joint" is one network for all tasks. "separate" is one per task on all rows: four trainings,
    which together keep within the budget. "split rows" is one per task, each on a quarter of the
    rows, so that each may spend the whole budget. The rate is the best on validation, for each
    network by itself. The budget "none" is training without clipping and noise.
    """
    parts = draw(plan.rows, plan, seed)
    x, y = parts["train"]["x"], parts["train"]["y"]
    T, rates, results = len(TASKS), plan.private_rates, {}
    every = [(TOGETHER, 1), *((tasks, T) for tasks in ALONE)]

    def chosen(params, tasks):
        """The best rate's test AUC, for runs [rates] that learned these tasks."""
        held = aucs(answers(params, parts["held"]["x"]), parts["held"]["y"])
        best = int(held[:, tasks].mean(1).argmax())
        one = answers([p[best : best + 1] for p in params], parts["test"]["x"])
        return aucs(one, parts["test"]["y"])[0, tasks].tolist(), rates[best]

    for epsilon in (*plan.epsilons, None):
        kinds, noise = [], []
        for tasks, trainings in every:
            kinds += [tasks] * len(rates)
            if epsilon is not None:
                s = trust.noise_for(epsilon, plan.steps * trainings, plan.delta, plan.q)
                noise += [s] * len(rates)
        rate = torch.tensor(rates)
        private = {"clip": plan.clip} if epsilon else {}
        runs = len(kinds)
        (params,) = train(
            fresh([seed] * runs, x.shape[1], plan.width, T),
            x,
            y,
            torch.tensor(kinds),
            rate=rate.repeat(len(every)),
            q=plan.q,
            stops=[plan.steps],
            seed=seed,
            noise=torch.tensor(noise) if epsilon else None,
            **private,
        )
        split = {}
        for k in range(len(every)):
            ours = slice(k * len(rates), (k + 1) * len(rates))
            on = list(range(T)) if k == 0 else [k - 1]
            split[k] = chosen([p[ours] for p in params], on)
        row = {
            "joint": {"test": split[0][0], "rate": [split[0][1]]},
            "separate": {
                "test": [split[k][0][0] for k in range(1, T + 1)],
                "rate": [split[k][1] for k in range(1, T + 1)],
            },
        }
        if epsilon:
            one = noise[0]
            quarter = {"test": [], "rate": []}
            for t, tasks in enumerate(ALONE):
                some = slice(t * len(x) // T, (t + 1) * len(x) // T)
                (params,) = train(
                    fresh([seed] * len(rates), x.shape[1], plan.width, T),
                    x[some],
                    y[some],
                    torch.tensor([tasks] * len(rates)),
                    rate=rate,
                    q=plan.q,
                    stops=[plan.steps],
                    seed=seed,
                    noise=torch.full((len(rates),), one),
                    **private,
                )
                test, best = chosen(params, [t])
                quarter["test"] += test
                quarter["rate"].append(best)
            row["split rows"] = quarter
        results["none" if epsilon is None else f"{epsilon:g}"] = row
    return results


# ------------------------------------------------------------------------------- groups of people
def groups(plan: Plan, seed: int) -> dict[str, dict]:
    """Training rows -> "single" or "joint" -> rates of men and women for the income task.

    A yes is a score above a cut for which, on validation rows, as many are called yes as are. "cuts
    per group" has a cut for each group, with which 60 % of its true yeses are found there.
    """
    results = {}
    for rows in plan.group_rows:
        parts = draw(rows, plan, seed)
        x, y = parts["train"]["x"], parts["train"]["y"]
        rates = plan.group_rates
        kinds = {"single": ALONE[0], "joint": TOGETHER}
        R = len(kinds) * len(rates)
        ends = train(
            fresh([seed] * R, x.shape[1], plan.width, len(TASKS)),
            x,
            y,
            torch.tensor([tasks for tasks in kinds.values() for _ in rates]),
            rate=torch.tensor(rates * len(kinds)),
            q=min(1.0, plan.group_batch / rows),
            stops=plan.group_stops,
            seed=seed,
        )
        results[str(rows)] = {}
        for k, kind in enumerate(kinds):
            ours = slice(k * len(rates), (k + 1) * len(rates))
            tried = [
                (aucs(answers([p[ours] for p in end], parts["held"]["x"]), parts["held"]["y"]), end)
                for end in ends
            ]
            values = np.array([held[:, 0] for held, _ in tried])  # [stops, rates], income
            stop, which = divmod(int(values.argmax()), len(rates))
            params = [p[ours][which : which + 1] for p in tried[stop][1]]
            results[str(rows)][kind] = judged_groups(params, parts) | {
                "rate": rates[which],
                "steps": plan.group_stops[stop],
            }
    return results


def group_draws(plan: Plan, seed: int) -> list[dict[str, dict]]:
    """What `groups` gives for several draws: few women earn much, so one draw says little."""
    return [groups(plan, plan.group_draws * seed + k) for k in range(plan.group_draws)]


def judged_groups(params: Sequence[Tensor], parts: Mapping) -> dict:
    """Test AUC of the income task, and rates of both groups with one cut and with two."""
    held, test = parts["held"], parts["test"]
    score = {name: answers(params, part["x"])[0, :, 0] for name, part in parts.items()}
    truth = {name: part["y"][:, 0] for name, part in parts.items()}
    yes = int(truth["held"].sum())
    cut = score["held"].sort(descending=True).values[yes - 1]
    cuts = trust.group_cuts(score["held"], truth["held"], held["women"], GROUPS, 0.6)
    own = torch.tensor([cuts[name] for name in GROUPS])[test["women"]]
    said = {"one cut": score["test"] >= cut, "cuts per group": score["test"] >= own}
    return {"auc": float(auc(score["test"], truth["test"]))} | {
        way: {
            name: rates._asdict()
            for name, rates in trust.group_rates(yes, truth["test"], test["women"], GROUPS).items()
        }
        for way, yes in said.items()
    }


def rate_gap(row: Mapping, way: str = "one cut", kind: str = "true_positive") -> float:
    """Rate of men minus rate of women."""
    return row[way]["men"][kind] - row[way]["women"][kind]


# ------------------------------------------------------------------------------- the record
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """ "attack", "budget" and "groups": per seed what `attack`, `budget`, `group_draws` give."""
    plan = plan or PLANS[profile]
    results = {"attack": [], "budget": [], "groups": []}
    for seed in seeds:
        for name, part in (("attack", attack), ("budget", budget), ("groups", group_draws)):
            results[name].append(kept(f"{profile}, {name}, seed {seed}", part, plan, seed))
            report(f"seed {seed}, {name}")
    return results


# --------------------------------------------------------------------------- a network that is read
def network(params: Sequence[Tensor], r: int = 0) -> nn.Module:
    """Network r as an nn.Module of two layers, x [B, d] -> logits [B, tasks]."""
    W, b, V, c = (p[r] for p in params)
    model = nn.Sequential(nn.Linear(*W.shape), nn.Tanh(), nn.Linear(*V.shape))
    with torch.no_grad():
        for layer, weight, bias in ((model[0], W, b), (model[2], V, c)):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias[0])
    return model
