"""Chapter 24: one encoder that answers three questions about a review, and an alarm for drift.

The tasks of chapter 11, stars, recommend and department, from all reviews with labels. One encoder
with three heads stands beside one network per task, and beside a linear model per task on a bag of
words. All reviews of a piece of clothing lie in the same part, so that the test asks about pieces
that nobody has seen. Then windows of requests, with foreign texts or with a part of the reviews
alone, are shown to a drift alarm. Needs no Jupyter and no server.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from .. import data
from ..records.pieces import kept
from ..serving.drift import DriftAlarm
from ..serving.ngrams import NGrams
from .ch11_tasks import TASKS, labels_of, score, task_loss
from .common import seeded

JOINT, ALONE, WORDS = "one encoder", "three encoders", "bag of words"
HELD_OUT = "held out"
FOREIGN = ("products", "films", "editorials", "tweets")  # domains of the set "vader"
DRESSES, UNHAPPY = "dresses only", "unhappy only"


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        labels: reviews to train on, at most; the other reviews of their pieces are left out.
        validation: reviews that choose rates and strengths.
        test: reviews that are scored once, and then play the requests.
        least: reviews that a word or pair of words must occur in.
        most: words and pairs of words.
        length: of them per text.
        width: numbers per word.
        hidden: features.
        drop: share of the words that training leaves out.
        rates: of Adam, the highest; every network may try all.
        strengths: of the linear models' pull to zero, chosen by validation where there are several.
        steps: of Adam.
        batch: reviews per step.
        window: requests that the alarm judges together.
        sizes: other windows.
        windows: of each kind.
        shares: of a window that have drifted.
    """

    labels: int = 15_000
    validation: int = 2000
    test: int = 3000
    least: int = 3
    most: int = 20_000
    length: int = 160
    width: int = 32
    hidden: int = 64
    drop: float = 0.3
    rates: tuple[float, ...] = (0.005,)
    strengths: tuple[float, ...] = (1.0,)
    steps: int = 800
    batch: int = 64
    window: int = 100
    sizes: tuple[int, ...] = (25, 50, 100, 200, 400)
    windows: int = 40
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 1.0)


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(
        width=128,
        hidden=256,
        steps=4000,
        batch=256,
        rates=(0.0025, 0.005, 0.01),
        strengths=(0.3, 1.0, 3.0),
    ),
}


# ------------------------------------------------------------------------------------------ reviews
@cache
def reviews() -> tuple[list[str], dict[str, Tensor], list[str], np.ndarray]:
    """Texts, task -> labels, names of the departments, and the piece of each review."""
    rows = data.load("reviews")
    names = [str(name) for name in rows.department_names]
    return [str(text) for text in rows.text], labels_of(rows), names, np.array(rows["item"])


def split(plan: Plan, seed: int) -> dict[str, Tensor]:
    """Rows "train", "validation" and "test"; the reviews of a piece lie in one of them."""
    *_, item = reviews()
    rng = np.random.default_rng(seed)
    pieces = rng.permutation(np.unique(item))
    place = np.empty(pieces.max() + 1, dtype=np.int64)
    place[pieces] = np.arange(len(pieces))
    order = np.argsort(place[item], kind="stable")
    # a part ends where a piece ends
    ends = np.flatnonzero(np.diff(item[order])) + 1
    test = ends[np.searchsorted(ends, plan.test)]
    validation = ends[np.searchsorted(ends, test + plan.validation)]
    parts = {
        "test": rng.permutation(order[:test])[: plan.test],
        "validation": rng.permutation(order[test:validation])[: plan.validation],
        "train": rng.permutation(order[validation:])[: plan.labels],
    }
    return {name: torch.from_numpy(rows) for name, rows in parts.items()}


# -------------------------------------------------------------------------------------- the network
class Reviewer(nn.Module):
    """One encoder of words and pairs of words, and a head for each task.

    The encoder looks up a vector for each word, takes their sum, weighted by how rare each is, and
    their maximum, and makes features of both. Rows without a known word get the features of none.

    Args:
        rarity: [V + 1], how much each word counts; 0 for number 0, which is no word.
        tasks: name -> outputs of its head.
        width: numbers per word.
        hidden: features.
        drop: share of the words that training leaves out.
    """

    def __init__(
        self, rarity: Tensor, tasks: Mapping[str, int], width: int, hidden: int, drop: float = 0.0
    ):
        super().__init__()
        self.words = nn.Embedding(len(rarity), width, padding_idx=0)
        nn.init.normal_(self.words.weight, std=0.05)
        with torch.no_grad():
            self.words.weight[0] = 0
        self.register_buffer("rarity", rarity)
        self.drop, self.mix = drop, nn.Linear(2 * width, hidden)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, k) for name, k in tasks.items()})

    def features(self, ids: Tensor) -> Tensor:
        """[B, hidden] from numbers of words, int64 [B, L]."""
        weight = self.rarity[ids]
        if self.training:
            weight = weight * (torch.rand(ids.shape, device=ids.device) > self.drop)
        vectors = self.words(ids)
        size = weight.square().sum(1, keepdim=True).clamp_min(1).sqrt()
        total = (vectors * weight[..., None]).sum(1) / size
        largest = (vectors * (weight > 0)[..., None]).amax(1)
        return self.mix(torch.cat([total, 3 * largest], dim=1)).relu()

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """Task -> outputs [B, k]."""
        z = self.features(ids)
        return {name: head(z) for name, head in self.heads.items()}


class Answering(nn.Module):
    """A network with answers in place of outputs: stars, a chance, and a chance per department.

    Args:
        network: gives the tasks' outputs, the stars standardised.
        mean: of the stars it was trained on.
        spread: their standard deviation.
    """

    def __init__(self, network: nn.Module, mean: float, spread: float):
        super().__init__()
        self.network, self.mean, self.spread = network, mean, spread

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """stars [B] from 1 to 5, recommend [B], department [B, 6]."""
        outputs = self.network(ids)
        return {
            "stars": (outputs["stars"][:, 0] * self.spread + self.mean).clamp(1, 5),
            "recommend": outputs["recommend"][:, 0].sigmoid(),
            "department": outputs["department"].softmax(1),
        }


@dataclass
class Prepared:
    """Texts of one split as numbers, and their labels.

    Args:
        reader: words and pairs of words of the training texts.
        ids: of all texts [N, length].
        targets: task -> labels of all, the stars standardised by the training texts.
        parts: as in `split`.
        rarity: log of how many texts there are for each that has the word, [V + 1].
        stars: mean and standard deviation of the training stars.
    """

    reader: NGrams
    ids: Tensor
    targets: dict[str, Tensor]
    parts: dict[str, Tensor]
    rarity: Tensor
    stars: tuple[float, float]


def prepare(plan: Plan, seed: int) -> Prepared:
    """Read the training texts of a seed for words, and all texts with these."""
    texts, targets, *_ = reviews()
    parts = split(plan, seed)
    train = parts["train"]
    reader = NGrams.learned([texts[k] for k in train], plan.least, plan.most, plan.length)
    ids = reader(texts)
    count = torch.zeros(len(reader.names) + 1).index_add_(
        0, ids[train].flatten(), torch.ones(ids[train].numel())
    )
    rarity = (len(train) / count.clamp_min(1)).log()
    rarity[0] = 0
    stars = targets["stars"][train]
    mean, spread = float(stars.mean()), float(stars.std())
    targets = targets | {"stars": (targets["stars"] - mean) / spread}
    return Prepared(reader, ids, targets, parts, rarity, (mean, spread))


def train(plan: Plan, ready: Prepared, tasks: Sequence[str], rate: float, seed: int) -> Reviewer:
    """One network for these tasks, trained on the sum of their losses, in eval mode."""
    sizes = {name: TASKS[name] for name in tasks}
    model = seeded(lambda: Reviewer(ready.rarity, sizes, plan.width, plan.hidden, plan.drop), seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=plan.steps, pct_start=0.1
    )
    rows, g = ready.parts["train"], torch.Generator().manual_seed(seed)

    def learn():
        for _ in range(plan.steps):
            some = rows[torch.randint(len(rows), (plan.batch,), generator=g)]
            outputs = model(ready.ids[some])
            loss = sum(
                task_loss(name, output, ready.targets[name][some])
                for name, output in outputs.items()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return model.eval()

    return seeded(learn, seed)


@torch.no_grad()
def outputs_of(model: nn.Module, ids: Tensor) -> dict[str, np.ndarray]:
    """Task -> outputs for many texts, [N] or [N, classes]."""
    rows = [model(part) for part in ids.split(500)]
    outputs = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    return {name: y[:, 0] if y.shape[1:] == (1,) else y for name, y in outputs.items()}


def scores_of(model: nn.Module, ready: Prepared, part: str) -> dict[str, float]:
    """Task -> R2, AUC or accuracy on a part."""
    rows = ready.parts[part]
    outputs = outputs_of(model, ready.ids[rows])
    return {name: score(name, y, ready.targets[name][rows].numpy()) for name, y in outputs.items()}


def search(plan: Plan, ready: Prepared, tasks: Sequence[str], seed: int) -> tuple[dict, Reviewer]:
    """Every rate; "rate", and "test" of the one whose mean validation score is best; its model."""
    models = {rate: train(plan, ready, tasks, rate, seed) for rate in plan.rates}

    def validated(rate):
        return float(np.mean(list(scores_of(models[rate], ready, "validation").values())))

    best = max(models, key=validated)
    return {"rate": best, "test": scores_of(models[best], ready, "test")}, models[best]


def bag_of_words(
    plan: Plan, parts: Mapping[str, Tensor], chosen: str = "validation"
) -> dict[str, float]:
    """Task -> test score of a linear model on words and pairs, each at its best strength.

    The strengths are judged on the part `chosen`.

    Ridge regression of the stars, logistic regression of the rest.
    """
    texts, targets, *_ = reviews()
    rows = {name: part.numpy() for name, part in parts.items()}
    bags = TfidfVectorizer(ngram_range=(1, 2), min_df=plan.least, sublinear_tf=True)
    x = {"train": bags.fit_transform([texts[k] for k in rows["train"]])}
    x |= {name: bags.transform([texts[k] for k in rows[name]]) for name in {chosen, "test"}}
    results = {}
    for name in TASKS:
        y = {part: targets[name].numpy()[rows[part]] for part in x}
        best = None
        for strength in plan.strengths:
            if name == "stars":
                model = Ridge(strength, solver="sparse_cg").fit(x["train"], y["train"])
                guess = model.predict
            else:
                model = LogisticRegression(C=3 / strength, max_iter=200, tol=1e-3)
                guess = model.fit(x["train"], y["train"]).decision_function
            value = score(name, guess(x[chosen]), y[chosen])
            if best is None or value > best[0]:
                best = value, guess
        results[name] = score(name, best[1](x["test"]), y["test"])
    return results


# -------------------------------------------------------------------------------------------- drift
def signals(outputs: Mapping[str, object], known: object) -> dict[str, np.ndarray]:
    """What the alarm looks at: the answers, and the share of words that the reader knows.

    Args:
        outputs: of `Answering`.
        known: from `NGrams.known`, [N].
    """
    stars, recommend, department = (
        np.asarray(outputs[name]) for name in ("stars", "recommend", "department")
    )
    return {
        "stars": stars,
        "recommend": recommend,
        "department": department.argmax(1),
        "known words": np.asarray(known),
    }


def foreign_texts(kind: str, count: int, seed: int) -> list[str]:
    """Texts of another domain, drawn from the set "vader"."""
    rows = data.load("vader")
    domain = [str(name) for name in rows.domain_names].index(kind)
    places = np.flatnonzero(np.array(rows.domain) == domain)
    chosen = np.random.default_rng(seed).permutation(places)[:count]
    return [str(rows.text[k]) for k in chosen]


def _rows(signals: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in signals.items()}


def mixed(
    home: Mapping[str, np.ndarray],
    away: Mapping[str, np.ndarray],
    size: int,
    share: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """A window of `size` requests, a share of them from elsewhere; some twice if these are few."""
    foreign = round(share * size)
    few = len(away["stars"]) < foreign
    some = rng.choice(len(home["stars"]), size - foreign, replace=False)
    others = rng.choice(len(away["stars"]), foreign, replace=few)
    a, b = _rows(home, some), _rows(away, others)
    return {name: np.concatenate([a[name], b[name]]) for name in a}


def watched(plan: Plan, ready: Prepared, model: nn.Module, seed: int) -> dict:
    """Scores of windows with and without drift, and the alarm's lines, as plain JSON.

    A third of the test reviews is the reference, one draws the line, and one plays the requests.

    Returns:
        "lines": size of the window -> line. "held out": size -> scores of windows without drift.
        "drift": kind -> share -> scores, at the plan's window. "quality": what came in ->
        accuracy of recommend and department.
    """
    texts, targets, *_ = reviews()
    answering = Answering(model, *ready.stars).eval()

    def signals_of(said):
        return signals(outputs_of_answers(answering, ready.reader(said)), ready.reader.known(said))

    told = {
        name: signals_of([texts[k] for k in rows.numpy()])
        for name, rows in zip(
            ("reference", "calibration", "stream"),
            ready.parts["test"].tensor_split(3),
            strict=True,
        )
    }
    stream = ready.parts["test"].tensor_split(3)[2].numpy()
    home, rng = told["stream"], np.random.default_rng(seed)
    alarms = {
        n: DriftAlarm(told["reference"], told["calibration"], n, seed=seed) for n in plan.sizes
    }
    department = targets["department"].numpy()[stream]
    stars = targets["stars"].numpy()[stream]
    dresses = reviews()[2].index("Dresses")
    inside = {DRESSES: department == dresses, UNHAPPY: stars <= 3}
    away = {kind: signals_of(foreign_texts(kind, 1000, seed)) for kind in FOREIGN}
    away |= {name: _rows(home, np.flatnonzero(rows)) for name, rows in inside.items()}
    found = {"lines": {str(n): alarm.line for n, alarm in alarms.items()}, "drift": {}}
    found[HELD_OUT] = {
        str(n): [alarm.score(mixed(home, home, n, 0, rng)) for _ in range(plan.windows)]
        for n, alarm in alarms.items()
    }
    judge = alarms[plan.window]
    for kind, others in away.items():
        found["drift"][kind] = {
            str(share): [
                judge.score(mixed(home, others, plan.window, share, rng))
                for _ in range(plan.windows)
            ]
            for share in plan.shares
        }
    right = {
        "recommend": (home["recommend"] > 0.5) == (targets["recommend"].numpy()[stream] > 0.5),
        "department": home["department"] == department,
    }
    found["quality"] = {
        name: {task: float(ok[rows].mean()) for task, ok in right.items()}
        for name, rows in ({HELD_OUT: slice(None)} | inside).items()
    }
    # a new rule of the shop: what was "Dresses" is filed under "Tops" from now on
    renamed = np.where(department == dresses, reviews()[2].index("Tops"), department)
    found["quality"]["new rule"] = {
        "recommend": found["quality"][HELD_OUT]["recommend"],
        "department": float((home["department"] == renamed).mean()),
    }
    return found


@torch.no_grad()
def outputs_of_answers(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Name -> answers of many texts."""
    rows = [model(part) for part in ids.split(500)]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


# -------------------------------------------------------------------------------------- experiments
def size_of(model: nn.Module) -> int:
    """Numbers that a network learns."""
    return sum(p.numel() for p in model.parameters())


def one_seed(plan: Plan, seed: int) -> dict:
    """Three ways to answer three questions, and the alarm upon the first; plain JSON."""
    ready = prepare(plan, seed)
    found, model = search(plan, ready, list(TASKS), seed)
    result = {JOINT: found | {"numbers": size_of(model)}, ALONE: {"test": {}, "rate": {}}}
    result["watched"] = watched(plan, ready, model, seed)
    numbers = 0
    for task in TASKS:
        found, model = search(plan, ready, [task], seed)
        result[ALONE]["test"] |= found["test"]
        result[ALONE]["rate"][task] = found["rate"]
        numbers += size_of(model)
    result[ALONE]["numbers"] = numbers
    return result | {WORDS: {"test": bag_of_words(plan, ready.parts)}}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """One encoder, three encoders and a bag of words; and the alarm, for every seed.

    Args:
        profile: "cpu" or "gpu".
        seeds: of splits, networks, batches and windows.
        report: takes a line of progress.
        plan: sizes; None takes the profile's.

    Returns:
        "seeds": what `one_seed` gives, for each. Plain JSON.
    """
    plan, rows = plan or PLANS[profile], []
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", one_seed, plan, seed))
        for way in (JOINT, ALONE, WORDS):
            scores = rows[-1][way]["test"].values()
            report(f"seed {seed}, {way}: " + " ".join(f"{v:.3f}" for v in scores))
    return {"seeds": rows}
