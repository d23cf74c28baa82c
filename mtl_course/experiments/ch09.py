"""Chapter 9: few ratings of films and many films seen; whether a film is seen and then liked.

The ratings of MovieLens 100K are taken twice. Who has seen what is known of all pairs of a user and
a film; whether it was liked (4 or 5 stars) is known of a few. `few_ratings` trains a network on
these few ratings alone and one on both, and puts means and counts beside them. `whole_space` asks
of all pairs, seen or not, which will be seen and liked. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, multitask
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.ranking import auc, calibration_error
from .ch09_census import census_seed
from .common import seeded

USERS, FILMS = 943, 1682
GRID = np.linspace(0, 1, 26)  # false positive rates at which ROC curves are kept


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        sizes: numbers of known ratings.
        width: numbers per user and per film.
        steps: of AdamW; validation chooses when to stop, every `every` of them.
        every: steps between two looks at the validation ratings.
        batch: ratings per step, and as many pairs that were seen and that were drawn at random.
        alone: (rate, decay) that the network on ratings alone may try.
        joint: (weight of the ratings' loss, decay) that the joint network may try.
        joint_rate: its rate.
        shrink: what means of users and of films may be shrunk by, in ratings.
        popular: weights that the film's log count may have beside the means.
        mixed: weights that means and counts may have beside a network.
        pairs: pairs per step in `whole_space`.
        whole_steps: steps there.
        whole_rates: that each way may try there.
    """

    sizes: tuple[int, ...] = (1_000, 3_000, 10_000, 50_000)
    width: int = 16
    steps: int = 400
    every: int = 20
    batch: int = 2048
    alone: tuple[tuple[float, float], ...] = tuple(
        (rate, decay) for rate in (0.0005, 0.002, 0.008) for decay in (0.1, 1.0)
    )
    joint: tuple[tuple[float, float], ...] = tuple(
        (weight, decay) for weight in (0.003, 0.03, 0.3) for decay in (0.1, 0.5)
    )
    joint_rate: float = 0.02
    shrink: tuple[float, ...] = (1, 3, 10, 30)
    popular: tuple[float, ...] = (0, 0.01, 0.03, 0.1, 0.2)
    mixed: tuple[float, ...] = (0, 1, 2, 4, 8)
    pairs: int = 2048
    whole_steps: int = 300
    whole_rates: tuple[float, ...] = (0.005, 0.015)


PLANS = {"cpu": Plan(), "gpu": Plan(width=32, steps=2000, every=100)}


@cache
def ratings(device: str = "cpu") -> dict[str, Tensor]:
    """ "user", "film" int64 [100000], "liked" float [100000]: 1 for 4 or 5 stars."""
    if device != "cpu":
        return {name: column.to(device) for name, column in ratings().items()}
    ds = data.load("movielens")
    return {
        "user": torch.from_numpy(np.array(ds["user"])),
        "film": torch.from_numpy(np.array(ds["film"])),
        "liked": torch.from_numpy(np.array(ds["rating"]) >= 4).float(),
    }


def parts(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the ratings to train on, to validate (4,000) and to test (20,000), by seed."""
    order = torch.randperm(100_000, generator=torch.Generator().manual_seed(seed))
    return order[24_000:], order[20_000:24_000], order[:20_000]


class Pairs(nn.Module):
    """One vector per user and per film, and a linear head per task on (u, v, u * v).

    The product lets a head be a dot product with weights, the two vectors give it biases.

    Args:
        width: of the vectors.
        tasks: names of the heads.
    """

    def __init__(self, width: int, tasks: Sequence[str] = ("seen", "liked")):
        super().__init__()
        self.users, self.films = nn.Embedding(USERS, width), nn.Embedding(FILMS, width)
        for table in (self.users, self.films):
            nn.init.normal_(table.weight, std=0.1)
        self.heads = nn.ModuleDict({task: nn.Linear(3 * width, 1) for task in tasks})

    def forward(self, user: Tensor, film: Tensor, task: str) -> Tensor:
        """Logits [N] of one task for N pairs."""
        u, v = self.users(user), self.films(film)
        return self.heads[task](torch.cat([u, v, u * v], dim=1)).squeeze(1)


def seen_loss(
    model: Pairs, known: Tensor, batch: int, g: torch.Generator, device: str = "cpu"
) -> Tensor:
    """Cross-entropy of pairs that were seen against as many drawn at random.

    Args:
        model: the network.
        known: rows of `ratings` of which it is known that they were seen.
        batch: how many of either kind.
        g: generator of the draws, on the CPU.
        device: where the network is.
    """
    rows = known[torch.randint(len(known), (batch,), generator=g)]
    table, pair = ratings(device), {}
    for name, count in (("user", USERS), ("film", FILMS)):
        drawn = torch.randint(count, (batch,), generator=g).to(device)
        pair[name] = torch.cat([table[name][rows], drawn])
    user, film = pair["user"], pair["film"]
    seen = torch.cat([torch.ones(batch), torch.zeros(batch)]).to(device)
    return F.binary_cross_entropy_with_logits(model(user, film, "seen"), seen)


def train(
    plan: Plan,
    rows: Tensor,
    setting: tuple[float, float],
    seed: int,
    judge: Callable[[Pairs], object],
    known: Tensor | None = None,
    device: str = "cpu",
) -> None:
    """A network on few ratings, alone or together with what was seen.

    Args:
        plan: sizes.
        rows: the ratings that are known.
        setting: (rate, decay) alone; (weight of the ratings' loss, decay) with `known`.
        seed: of the network and of the draws.
        judge: called with the network every `plan.every` steps.
        known: rows of which it is known that they were seen; None trains on ratings alone.
        device: where to train.
    """
    table = ratings(device)
    model = seeded(lambda: Pairs(plan.width), seed).to(device)
    rate, weight = (setting[0], 1.0) if known is None else (plan.joint_rate, setting[0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=setting[1])
    g = torch.Generator().manual_seed(seed)
    for step in range(1, plan.steps + 1):
        few = rows
        if len(rows) > plan.batch:
            few = rows[torch.randint(len(rows), (plan.batch,), generator=g)]
        logits = model(table["user"][few], table["film"][few], "liked")
        loss = weight * F.binary_cross_entropy_with_logits(logits, table["liked"][few])
        if known is not None:
            loss = loss + seen_loss(model, known, plan.batch, g, device)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % plan.every == 0:
            judge(model)


def searched(
    plan: Plan,
    rows: Tensor,
    seed: int,
    settings: Sequence,
    known: Tensor | None = None,
    device: str = "cpu",
) -> dict:
    """The best setting and stop by validation AUC.

    Returns:
        "validation", its AUC; "setting"; "stop", its step; "logits" of the validation and "scores"
        of the test ratings, both on the CPU.
    """
    table = ratings(device)
    _, validation, test = parts(seed)
    best = {"validation": -1.0}

    @torch.no_grad()
    def judge(model, setting, step):
        logits = model(table["user"][validation], table["film"][validation], "liked").cpu()
        value = float(auc(logits, ratings()["liked"][validation]))
        if value > best["validation"]:
            scores = model(table["user"][test], table["film"][test], "liked").cpu()
            best.update(
                validation=value, setting=setting, stop=step, logits=logits.clone(), scores=scores
            )

    for setting in settings:
        steps = iter(range(plan.every, plan.steps + 1, plan.every))
        train(
            plan,
            rows,
            setting,
            seed,
            lambda m, s=setting, steps=steps: judge(m, s, next(steps)),
            known,
            device,
        )
    return best


def shrunk(rows: Tensor, which: str, strength: float) -> Tensor:
    """Mean of "liked" per user or film, less the mean of all, shrunk towards 0: float [..].

    Args:
        rows: the known ratings.
        which: "user" or "film".
        strength: as many ratings of 0 are added to each.
    """
    table = ratings()
    size = USERS if which == "user" else FILMS
    liked = table["liked"][rows]
    who = table[which][rows]
    total = torch.zeros(size).index_add(0, who, liked - liked.mean())
    return total / (torch.bincount(who, minlength=size) + strength)


def means_and_counts(plan: Plan, rows: Tensor, seed: int) -> tuple[Tensor, Tensor, dict]:
    """User mean + film mean, without and with the film's log count; shrunk as validation says.

    Returns:
        Scores of all ratings [100000] twice, and the settings that were chosen.
    """
    table = ratings()
    _, validation, _ = parts(seed)
    truth = table["liked"][validation]
    sums = {}
    for user in plan.shrink:
        for film in plan.shrink:
            sums[user, film] = (
                shrunk(rows, "user", user)[table["user"]]
                + shrunk(rows, "film", film)[table["film"]]
            )
    strengths = max(sums, key=lambda key: float(auc(sums[key][validation], truth)))
    means = sums[strengths]
    count = torch.bincount(table["film"], minlength=FILMS).float().log1p()[table["film"]]
    share = max(
        plan.popular, key=lambda c: float(auc(means[validation] + c * count[validation], truth))
    )
    return means, means + share * count, {"shrink": list(strengths), "count": share}


def roc(scores: Tensor, labels: Tensor) -> list[float]:
    """Share of the yeses that are found where GRID of the noes are called yes, too."""
    order = scores.argsort(descending=True)
    yes = labels[order].double()
    found = torch.cat([torch.zeros(1), yes.cumsum(0) / yes.sum()]).numpy()
    false = torch.cat([torch.zeros(1), (1 - yes).cumsum(0) / (1 - yes).sum()]).numpy()
    return np.interp(GRID, false, found).tolist()


def few_ratings(plan: Plan, size: int, seed: int, device: str = "cpu") -> dict[str, dict]:
    """Every way to say who likes what from `size` ratings: AUC on 20,000 others, and more.

    Returns:
        Way -> "test" AUC, "validation" AUC, "roc", and for networks their "setting" and "stop".
        Ways: "alone", "joint", "means", "means + counts", and both networks with the latter.
    """
    table = ratings()
    pool, validation, test = parts(seed)
    rows = pool[:size]
    truth, held = table["liked"][test], table["liked"][validation]
    results = {}

    def keep(name, logits, scores, **more):
        results[name] = {
            "validation": float(auc(logits, held)),
            "test": float(auc(scores, truth)),
            "roc": roc(scores, truth),
        } | more

    means, counted, chosen = means_and_counts(plan, rows, seed)
    keep("means", means[validation], means[test], setting=chosen)
    keep("means + counts", counted[validation], counted[test], setting=chosen)
    everything = torch.arange(100_000)
    for name, settings, known in (
        ("alone", plan.alone, None),
        ("joint", plan.joint, everything),
    ):
        best = searched(plan, rows, seed, settings, known, device)
        more = {"setting": list(best["setting"]), "stop": best["stop"]}
        keep(name, best["logits"], best["scores"], **more)
        share = max(
            plan.mixed, key=lambda c: float(auc(best["logits"] + c * counted[validation], held))
        )
        keep(
            f"{name} + means",
            best["logits"] + share * counted[validation],
            best["scores"] + share * counted[test],
            setting=share,
        )
    return results


def unseen_pairs(plan: Plan, size: int, seed: int, device: str = "cpu") -> dict:
    """The joint network if nothing is known of the test pairs, not even that they were seen."""
    pool, validation, test = parts(seed)
    known = torch.cat([pool, validation])
    best = searched(plan, pool[:size], seed, plan.joint, known, device)
    return {"test": float(auc(best["scores"], ratings()["liked"][test]))}


# ------------------------------------------------------------------------------- seen and liked
@cache
def everything(device: str = "cpu") -> dict[str, Tensor]:
    """All pairs of a user and a film: "user", "film" [P], "seen", "liked" float [P].

    A pair that was not seen counts as not liked.
    """
    if device != "cpu":
        return {name: column.to(device) for name, column in everything().items()}
    table = ratings()
    place = table["user"] * FILMS + table["film"]
    seen, liked = torch.zeros(USERS * FILMS), torch.zeros(USERS * FILMS)
    seen[place], liked[place] = 1.0, table["liked"]
    pair = torch.arange(USERS * FILMS)
    return {"user": pair // FILMS, "film": pair % FILMS, "seen": seen, "liked": liked}


def whole_parts(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the pairs to train on (75 %), to validate (5 %) and to test (20 %)."""
    g = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(USERS * FILMS, generator=g)
    test, held = len(pairs) // 5, len(pairs) // 20
    return pairs[test + held :], pairs[test : test + held], pairs[:test]


def whole_step(way: str, model: Pairs, pairs: Tensor, rated: Tensor) -> Tensor:
    """The loss of one step on pairs drawn from all, and as many drawn from those that were seen.

    Args:
        way: "seen only" has a loss of liking on pairs that were seen; "two losses" that and one of
            seeing on all pairs; "ESMM" one of seeing and one of the product, both on all pairs;
            "one head" one of seen and liked, on all pairs.
        model: the network.
        pairs: numbers of pairs, drawn from all.
        rated: numbers of pairs that were seen.
    """
    all_pairs = everything(str(model.users.weight.device))
    user, film, seen, liked = (all_pairs[key][pairs] for key in ("user", "film", "seen", "liked"))
    cross_entropy = F.binary_cross_entropy_with_logits
    if way == "one head":
        return cross_entropy(model(user, film, "liked"), liked)
    if way == "ESMM":
        logits = (model(user, film, task) for task in ("seen", "liked"))
        return multitask.esmm_loss(*logits, seen, liked)
    logits = model(all_pairs["user"][rated], all_pairs["film"][rated], "liked")
    loss = cross_entropy(logits, all_pairs["liked"][rated])
    if way == "two losses":
        loss = loss + cross_entropy(model(user, film, "seen"), seen)
    return loss


WAYS = ("seen only", "two losses", "ESMM", "one head")


def chances(way: str, model: Pairs, pairs: Tensor) -> dict[str, Tensor]:
    """What a network says of pairs [N]: "both", P(seen and liked), and P(liked | seen) if it does.

    "seen only" has no other chance than that of liking, and so takes it for both.
    """
    all_pairs = everything(str(model.users.weight.device))
    user, film = all_pairs["user"][pairs], all_pairs["film"][pairs]
    liked = model(user, film, "liked").sigmoid()
    if way == "one head":
        return {"both": liked}
    if way == "seen only":
        return {"both": liked, "liked": liked}
    return {"both": model(user, film, "seen").sigmoid() * liked, "liked": liked}


def whole_one(plan: Plan, way: str, seed: int, rates: Sequence[float], device: str = "cpu") -> dict:
    """The best rate by validation AUC of seen and liked, judged on all test pairs.

    Returns:
        "both": AUC of seen and liked over all test pairs; "calibration" error of that chance and
        its "mean"; "liked": AUC of liking over the test pairs that were seen; "top": of the 1 % of
        the test pairs that it puts first, the share that was seen and liked; "rate"; and the mean
        chance of liking over the seen ("on seen") and over all ("on all"), where there is one.
    """
    all_pairs = everything()
    pool, validation, test = whole_parts(seed)
    seen_pool = pool[all_pairs["seen"][pool] == 1]
    best = {"validation": -1.0}
    for rate in rates:
        model = seeded(lambda: Pairs(plan.width), seed).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
        g = torch.Generator().manual_seed(seed)
        for _ in range(plan.whole_steps):
            pairs = pool[torch.randint(len(pool), (plan.pairs,), generator=g)]
            rated = seen_pool[torch.randint(len(seen_pool), (plan.pairs // 4,), generator=g)]
            loss = whole_step(way, model, pairs, rated)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            said = chances(way, model, validation)["both"].cpu()
            value = float(auc(said, all_pairs["liked"][validation]))
            if value > best["validation"]:
                said = {name: chance.cpu() for name, chance in chances(way, model, test).items()}
                best = {"validation": value, "rate": rate, "said": said}
    said, liked = best.pop("said"), all_pairs["liked"][test]
    seen = all_pairs["seen"][test] == 1
    first = said["both"].topk(len(test) // 100).indices
    results = best | {
        "both": float(auc(said["both"], liked)),
        "mean": float(said["both"].mean()),
        "calibration": float(calibration_error(said["both"], liked)),
        "top": float(liked[first].mean()),
    }
    if "liked" in said:
        results |= {
            "liked": float(auc(said["liked"][seen], liked[seen])),
            "on seen": float(said["liked"][seen].mean()),
            "on all": float(said["liked"].mean()),
        }
    return results


def whole_space(plan: Plan, seed: int, device: str = "cpu") -> dict[str, dict]:
    """Way -> what `whole_one` gives; and under "truth" the shares in the test pairs."""
    all_pairs = everything()
    _, _, test = whole_parts(seed)
    seen, liked = all_pairs["seen"][test], all_pairs["liked"][test]
    results = {way: whole_one(plan, way, seed, plan.whole_rates, device) for way in WAYS}
    shares = {"seen": float(seen.mean()), "both": float(liked.mean())}
    return results | {"truth": shares | {"liked": shares["both"] / shares["seen"]}}


# ------------------------------------------------------------------------------------------ records
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Both experiments on films, as plain JSON.

    Returns:
        "few": a list, seed by seed, of number of ratings -> what `few_ratings` gives; "unseen": the
        AUC of `unseen_pairs` at the smallest size, seed by seed; "whole": what `whole_space` gives.
    """
    plan, device = plan or PLANS[profile], str(fastest()) if profile == "gpu" else "cpu"
    results = {"few": [], "unseen": [], "whole": []}
    for seed in seeds:
        row = {}
        for size in plan.sizes:
            key = f"{profile}, {size} ratings, seed {seed}"
            row[str(size)] = kept(key, few_ratings, plan, size, seed, device)
            shown = {way: round(r["test"], 3) for way, r in row[str(size)].items()}
            report(f"seed {seed}, {size} ratings: {shown}")
        results["few"].append(row)
        key = f"{profile}, unseen, seed {seed}"
        unseen = kept(key, unseen_pairs, plan, min(plan.sizes), seed, device)
        results["unseen"].append(unseen["test"])
        key = f"{profile}, whole, seed {seed}"
        results["whole"].append(kept(key, whole_space, plan, seed, device))
        shown = {way: round(results["whole"][-1][way]["both"], 3) for way in WAYS}
        report(f"seed {seed}, all pairs: {shown}")
    return results


def few_matrix(rows: Sequence[Mapping], way: str, key: str = "test") -> np.ndarray:
    """AUC of a way, [seeds, sizes]; sizes in order, whatever order a record has."""
    sizes = sorted(rows[0], key=int)
    return np.array([[row[size][way][key] for size in sizes] for row in rows])


def run_census(seeds: Sequence[int], report: Callable[[str], None] = print, *, plan=None) -> dict:
    """Experts on the census, seed by seed: see `ch09_census.census_seed`."""
    results = []
    for seed in seeds:
        options = {} if plan is None else {"plan": plan}
        results.append(census_seed(seed, report, **options))
    return {"seeds": results}


def run_longer(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """ESMM and two losses again, with 1,000 steps. Plain JSON: way -> what `whole_one` gives."""
    plan = plan or replace(PLANS["cpu"], whole_steps=1000)
    results = {"steps": plan.whole_steps, "seeds": []}
    for seed in seeds:
        row = {}
        for way in ("two losses", "ESMM"):
            key = f"{plan}, {way}, seed {seed}"
            row[way] = kept(key, whole_one, plan, way, seed, plan.whole_rates)
        results["seeds"].append(row)
        shown = {way: (round(r["both"], 3), round(r["liked"], 3)) for way, r in row.items()}
        report(f"seed {seed}, {plan.whole_steps} steps, AUC of all and of the seen: {shown}")
    return results


RECORDS = {"census": run_census, "longer": run_longer}
