"""Chapter 20: a network trained on made-up tables answers for real ones that it has never seen.

`train` makes one network out of a prior and nothing else. `one_seed` asks it and its rivals about
sixteen real tables of two classes, `outside` about tables that its prior does not contain, and
`lines` compares networks for straight lines with ridge regression. Needs no Jupyter.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from .. import data, meta
from ..networks.trunks import Classifier, mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from .common import seeded

# real tables, of which the two most frequent classes are asked for
TABLES = (
    "haberman",
    "magic",
    "mammographic",
    "monks_3",
    "wisconsin",
    "contraceptive",
    "vehicle",
    "segment",
    "tae",
    "yeast",
    "glass",
    "ecoli",
    "iris",
    "wine",
    "penbased",
    "letter",
)
WIDE = ("breast_cancer", "ionosphere", "satimage", "sonar", "optdigits")  # over 20 columns
LARGE = ("magic", "contraceptive", "yeast", "segment", "wisconsin", "penbased", "letter")
OURS = "in context"
RIVALS = ("logistic regression", "naive Bayes", "nearest neighbours", "boosted trees")
INNER = ("MAML", "from scratch")
ONE_ORDER = "in context, one order"


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        features: columns that the network takes.
        width: numbers per place.
        layers: of attention.
        steps: of training, each on `tasks` new tasks.
        tasks: per step.
        most: examples of a task, drawn between 8 and this.
        questions: of a task, in training.
        rate: the largest; it rises for a tenth of the steps and then falls.
        orders: of columns and classes in which the network is asked about a table.
        labels: labelled rows of a real table.
        draws: of labelled rows, for each table and seed.
        test: rows of a table that are judged, at most.
        trees: draws for which boosted trees are fitted.
        hidden: width of MAML's network.
        maml_steps: of meta-training.
        inner: steps of gradient descent among which validation chooses.
        inner_rates: and their rates.
        line_steps: of training of a network for lines.
        noises: of the priors of lines.
    """

    features: int = 20
    width: int = 48
    layers: int = 3
    steps: int = 2000
    tasks: int = 20
    most: int = 60
    questions: int = 24
    rate: float = 2e-3
    orders: int = 8
    labels: tuple[int, ...] = (20, 50)
    draws: int = 2
    test: int = 300
    trees: int = 1
    hidden: int = 32
    maml_steps: int = 2000
    inner: tuple[int, ...] = (3, 10, 30, 100)
    inner_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    line_steps: int = 1000
    noises: tuple[float, ...] = (0.5, 1.0)


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(width=128, layers=6, steps=20_000, tasks=64, maml_steps=10_000, line_steps=20_000),
}


# ------------------------------------------------------------------------------------ real tables
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A real table, x [N, D] and labels [N] from 0 on, all classes."""
    if name in ("iris", "wine", "breast_cancer"):
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)
    if name in ("penbased", "letter", "optdigits"):
        ds = data.load(name)
        return ds["x"].reshape(len(ds["y"]), -1).astype(np.float64), ds["y"]
    ds = data.load("uci_tables")
    return ds[f"{name}_x"], ds[f"{name}_y"]


def two_classes(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a table's two most frequent classes, with labels 0 and 1."""
    x, y = table(name)
    pair = np.sort(np.argsort(-np.bincount(y), kind="stable")[:2])
    rows = np.isin(y, pair)
    return x[rows], (y[rows] == pair[1]).astype(np.int64)


@dataclass(frozen=True)
class Draw:
    """Labelled rows of a table, and others to be judged on.

    Args:
        x: labelled rows [n, D].
        y: their labels.
        new: rows to answer for [q, D].
        truth: their labels.
    """

    x: np.ndarray
    y: np.ndarray
    new: np.ndarray
    truth: np.ndarray


def draw(x: np.ndarray, y: np.ndarray, labels: int, test: int, seed: Sequence[int]) -> Draw:
    """Rows at random; drawn again until every class has two labelled rows."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(y))
        few, rest = order[:labels], order[labels : labels + test]
        if np.bincount(y[few], minlength=int(y.max()) + 1).min() >= 2:
            return Draw(x[few], y[few], x[rest], y[rest])


def scores(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean log loss of probabilities [q, C], each at least 0.001."""
    p = np.clip(np.asarray(p, dtype=np.float64), 1e-3, None)
    p = p / p.sum(1, keepdims=True)
    right = p[np.arange(len(truth)), truth]
    return {
        "accuracy": float((p.argmax(1) == truth).mean()),
        "log loss": float(-np.log(right).mean()),
    }


# ------------------------------------------------------------------------------------- the rivals
def rivals() -> dict[str, Callable]:
    """Name -> (most folds that the labels allow) -> a scikit-learn classifier that tunes itself."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier

    def tuned(model, **grid):
        def build(folds):
            split = StratifiedKFold(folds, shuffle=True, random_state=0)
            return GridSearchCV(model(), grid, scoring="neg_log_loss", cv=split)

        return build

    return {
        "logistic regression": tuned(
            partial(LogisticRegression, max_iter=500), C=[0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
        ),
        "naive Bayes": tuned(GaussianNB, var_smoothing=[1e-9, 0.01, 0.1, 0.3, 1.0, 3.0]),
        "nearest neighbours": tuned(KNeighborsClassifier, n_neighbors=[1, 3, 5, 8]),
        "boosted trees": tuned(
            partial(GradientBoostingClassifier, n_estimators=30, random_state=0),
            max_depth=[1, 3],
        ),
    }


def rival_answers(name: str, some: Draw) -> np.ndarray:
    """Probabilities [q, C] of a rival, its settings chosen by cross-validation on the labels.

    It sees the columns as the network does, scaled by the labelled rows and cut at four deviations.
    """
    from sklearn.exceptions import ConvergenceWarning

    x, new = (
        v.numpy()
        for v in meta.scaled_columns(
            torch.as_tensor(some.x), torch.as_tensor(some.new), some.x.shape[1]
        )
    )
    folds = int(min(4, np.bincount(some.y).min()))
    with warnings.catch_warnings():
        # The solver stops early on some folds of few rows at the largest C.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return rivals()[name](folds).fit(x, some.y).predict_proba(new)


# ---------------------------------------------------------------------------------- the network
def network(plan: Plan) -> meta.InContext:
    """A freshly drawn network for two classes."""
    return meta.InContext(plan.features, 2, plan.width, plan.layers)


def train(
    model: meta.InContext,
    prior: Callable[..., data.Episodes],
    plan: Plan,
    seed: int,
    *,
    steps: int | None = None,
    least: int = 8,
    device: str = "cpu",
) -> meta.InContext:
    """Train it on new tasks of the prior at every step; nothing else is seen. Returns the model.

    The last parameters are taken: every step sees new tasks, so there is nothing to overfit. It is
    trained on the device, and given back on the CPU, where its tasks are drawn and tables are read.
    """
    steps = steps or plan.steps
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        examples = int(torch.randint(least, plan.most + 1, (), generator=generator))
        episodes = on(prior(plan.tasks, examples, plan.questions, generator), device)
        loss = meta.episode_losses(model, episodes).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval().cpu()


def on(episodes: data.Episodes, device: str) -> data.Episodes:
    """The same episodes on a device."""
    parts = (tuple(t.to(device) for t in part) for part in (episodes.support, episodes.query))
    return data.Episodes(*parts)


def trained(plan: Plan, seed: int, device: str = "cpu") -> meta.InContext:
    """The network of a seed."""
    prior = partial(meta.table_tasks, features=plan.features)
    return train(seeded(lambda: network(plan), seed), prior, plan, seed, device=device)


# ------------------------------------------------------------------------------ with an inner loop
def inner_network(plan: Plan, seed: int) -> Classifier:
    """A network whose parameters move: two hidden layers and a head."""
    sizes = [plan.features, plan.hidden, plan.hidden]
    return seeded(lambda: Classifier(mlp(sizes), plan.hidden, 2), seed)


def meta_train(plan: Plan, seed: int, device: str = "cpu") -> Classifier:
    """MAML on the network's own prior: three inner steps of rate 0.1, with second derivatives."""
    model = inner_network(plan, seed).to(device)
    f, generator = meta.Functional(model), torch.Generator().manual_seed(seed)
    params = f.parameters()
    optimizer = torch.optim.Adam(params.values(), lr=plan.rate)
    for _ in range(plan.maml_steps):
        examples = int(torch.randint(8, plan.most + 1, (), generator=generator))
        episodes = meta.table_tasks(
            plan.tasks, examples, plan.questions, generator, features=plan.features
        )
        optimizer.zero_grad()
        meta.meta_backward(f, params, on(episodes, device), F.cross_entropy, steps=3, rate=0.1)
        optimizer.step()
    return model.cpu()


def after_steps(
    model: Classifier, episodes: data.Episodes, stops: Sequence[int], rate: float
) -> list[Tensor]:
    """Logits [T, q, 2] on the query after so many steps of gradient descent on each support."""
    f = meta.Functional(model)
    start = {name: p.detach() for name, p in f.parameters().items()}
    value = meta.objective(f, F.cross_entropy)
    params = {name: p.expand(len(episodes), *p.shape) for name, p in start.items()}
    done, said = 0, []
    for stop in stops:
        more = partial(meta.adapt, value, steps=stop - done, rate=rate)
        params = vmap(lambda p, x, y, more=more: more(p, (x, y)))(params, *episodes.support)
        done = stop
        said.append(vmap(f)(params, episodes.query[0]).detach())
    return said


def choose_inner(plan: Plan, model: Classifier, labels: int) -> tuple[int, float]:
    """Steps and rate with the least loss on sixty validation tasks of the prior."""
    generator = torch.Generator().manual_seed(10_000 + labels)
    episodes = [
        meta.table_tasks(20, labels, 50, generator, features=plan.features) for _ in range(3)
    ]
    losses = {}
    for rate in plan.inner_rates:
        said = [after_steps(model, some, plan.inner, rate) for some in episodes]
        for k, stop in enumerate(plan.inner):
            loss = torch.stack(
                [
                    F.cross_entropy(s[k].flatten(0, 1), some.query[1].flatten())
                    for s, some in zip(said, episodes, strict=True)
                ]
            ).mean()
            losses[stop, rate] = float(loss) if torch.isfinite(loss) else np.inf
    return min(losses, key=losses.get)


def inner_answers(
    plan: Plan, model: Classifier, some: Draw, choice: tuple[int, float]
) -> np.ndarray:
    """Probabilities [q, 2] after the chosen steps on the labelled rows."""
    x, new = meta.scaled_columns(
        torch.as_tensor(some.x).float(), torch.as_tensor(some.new).float(), plan.features
    )
    y, truth = torch.as_tensor(some.y), torch.as_tensor(some.truth)
    episode = data.Episodes((x[None], y[None]), (new[None], truth[None]))
    [logits] = after_steps(model, episode, choice[:1], choice[1])
    return logits[0].softmax(-1).numpy()


# ------------------------------------------------------------------------------------- one seed
def compare(
    plan: Plan,
    model: meta.InContext,
    starts: Mapping[str, Classifier],
    seed: int,
    names: Sequence[str] | None = None,
) -> dict:
    """Everything about real tables of two classes, for one seed.

    Returns:
        "tables": labels -> table -> method -> mean scores over the draws; "seconds": method ->
        CPU seconds per table, fit and answers; "inner": labels -> start -> steps and rate.
    """
    results, seconds, inner = {}, {}, {}
    for labels in plan.labels:
        choices = {name: choose_inner(plan, start, labels) for name, start in starts.items()}
        inner[str(labels)] = choices
        rows = results[str(labels)] = {}
        for number, name in enumerate(names or TABLES):
            x, y = two_classes(name)
            found: dict[str, list] = {}
            for k in range(plan.draws):
                some = draw(x, y, labels, plan.test, (seed, k, number, labels))
                methods = {
                    OURS: partial(meta.answer, model, some.x, some.y, some.new, orders=plan.orders),
                    ONE_ORDER: partial(meta.answer, model, some.x, some.y, some.new),
                }
                methods |= {
                    name: partial(rival_answers, name, some)
                    for name in RIVALS
                    if name != "boosted trees" or k < plan.trees
                }
                methods |= {
                    name: partial(inner_answers, plan, start, some, choices[name])
                    for name, start in starts.items()
                }
                for method, ask in methods.items():
                    began = time.process_time()
                    p = np.asarray(ask())
                    seconds.setdefault(method, []).append(time.process_time() - began)
                    found.setdefault(method, []).append(scores(p, some.truth))
            rows[name] = {
                method: {key: float(np.mean([s[key] for s in some])) for key in some[0]}
                for method, some in found.items()
            }
    means = {method: float(np.mean(some)) for method, some in seconds.items()}
    return {"tables": results, "seconds": means, "inner": inner}


def one_against_one(model: meta.InContext, some: Draw, orders: int = 1) -> np.ndarray:
    """Probabilities [q, C] from a network for two classes: each pair is asked, votes are added."""
    classes = int(some.y.max()) + 1
    votes = np.zeros((len(some.new), classes))
    for a in range(classes):
        for b in range(a + 1, classes):
            rows = np.isin(some.y, (a, b))
            p = meta.answer(model, some.x[rows], some.y[rows] == b, some.new, orders).numpy()
            votes[:, a] += p[:, 0]
            votes[:, b] += p[:, 1]
    return votes / votes.sum(1, keepdims=True)


def main_directions(some: Draw, count: int) -> Draw:
    """The same rows seen along the first principal directions of the labelled ones."""
    x, new = (
        v.numpy()
        for v in meta.scaled_columns(
            torch.as_tensor(some.x), torch.as_tensor(some.new), some.x.shape[1]
        )
    )
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    directions = directions[:count].T
    return Draw(x @ directions, some.y, new @ directions, some.truth)


def outside(plan: Plan, model: meta.InContext, seed: int) -> dict:
    """Tables that the prior does not contain: wide ones, many classes, and units left as they are.

    Returns:
        "wide": table -> method -> scores, with the most labels; "classes": number of classes ->
        method -> scores, on penbased with five labels per class; "units": factor -> accuracy,
        columns multiplied by the factor and not scaled; "long": labels -> method -> scores, mean
        over the large tables, up to five times as many labels as in training.
    """
    labels = max(plan.labels)
    wide, classes, units, long = {}, {}, {}, {}

    def mean(rows):
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    for number, name in enumerate(WIDE):
        x, y = two_classes(name)
        found: dict[str, list] = {}
        for k in range(plan.draws):
            some = draw(x, y, labels, plan.test, (seed, k, 100 + number))
            first = Draw(some.x[:, : plan.features], some.y, some.new[:, : plan.features], None)
            main = main_directions(some, plan.features)
            said = {
                "in context, first columns": meta.answer(
                    model, first.x, first.y, first.new, plan.orders
                ),
                "in context, main directions": meta.answer(
                    model, main.x, main.y, main.new, plan.orders
                ),
                "logistic regression": rival_answers("logistic regression", some),
            }
            for method, p in said.items():
                found.setdefault(method, []).append(scores(p, some.truth))
        wide[name] = {method: mean(rows) for method, rows in found.items()}

    x, y = table("penbased")
    for count in (2, 3, 5, 10):
        rows = y < count
        found = {}
        for k in range(plan.draws):
            some = draw(x[rows], y[rows], 5 * count, plan.test, (seed, k, 200 + count))
            said = {
                "in context, pairs": one_against_one(model, some),
                "logistic regression": rival_answers("logistic regression", some),
            }
            for method, p in said.items():
                found.setdefault(method, []).append(scores(p, some.truth))
        classes[str(count)] = {method: mean(rows) for method, rows in found.items()}

    generator = torch.Generator().manual_seed(seed)
    episodes = meta.table_tasks(200, labels, 50, generator, features=plan.features)
    for factor in (0.1, 0.3, 1.0, 3.0, 10.0):
        (x, y), (new, truth) = episodes.support, episodes.query
        with torch.no_grad():
            said = model(factor * x, y, factor * new).argmax(-1)
        units[str(factor)] = float((said == truth).double().mean())

    for labels in (50, 100, 300):
        found = {}
        for number, name in enumerate(LARGE):
            some = draw(*two_classes(name), labels, plan.test, (seed, 300 + number, labels))
            said = {
                OURS: meta.answer(model, some.x, some.y, some.new, plan.orders),
                "logistic regression": rival_answers("logistic regression", some),
            }
            for method, p in said.items():
                found.setdefault(method, []).append(scores(p, some.truth))
        long[str(labels)] = {method: mean(rows) for method, rows in found.items()}
    return {"wide": wide, "classes": classes, "units": units, "long": long}


def one_seed(plan: Plan, seed: int, device: str = "cpu") -> dict:
    """A network out of the prior, MAML out of the same, and what they and the rivals answer."""
    began = time.process_time()
    model = trained(plan, seed, device)
    middle = time.process_time()
    starts = {"MAML": meta_train(plan, seed, device), "from scratch": inner_network(plan, seed)}
    end = time.process_time()
    results = compare(plan, model, starts, seed)
    training = {OURS: middle - began, "MAML": end - middle}
    return results | {"outside": outside(plan, model, seed), "training": training}


# ----------------------------------------------------------------------------------------- lines
COUNTS = (1, 2, 4, 8, 16, 32)  # examples in context; the last two times as many as in training


def line_network() -> meta.InContext:
    """A freshly drawn network for lines y = b + w x."""
    return meta.InContext(1, None, width=32, layers=2)


def train_lines(
    plan: Plan, noise: float, seed: int, steps: int | None = None, device: str = "cpu"
) -> meta.InContext:
    """A network for lines with this noise, trained on 1 to 16 examples."""
    small = Plan(tasks=64, most=16, questions=8, rate=3e-3)
    prior = partial(meta.linear_tasks, noise=noise)
    model = seeded(line_network, seed)
    steps = steps or plan.line_steps
    return train(model, prior, small, seed, steps=steps, least=1, device=device)


def mean_square(values: Tensor) -> float:
    """The mean of the squares."""
    return float(values.square().mean())


def against_ridge(model: meta.InContext, noise: float, seed: int, tasks: int = 2000) -> dict:
    """A network's error and that of ridge regression on new lines, by the number of examples.

    Returns:
        "network", "ridge" (the right strength), "least squares": mean squared error by the number
        of examples, without the noise of the questions; "apart": mean squared difference of the
        network's answers from ridge's; "mean": the error of answering 0; "strength": of all
        strengths of a grid, the one whose answers are nearest to the network's, at 4 examples.
    """
    generator = torch.Generator().manual_seed(20_000 + seed)
    results = {key: [] for key in ("network", "ridge", "least squares", "apart", "mean")}
    strength = None
    for count in COUNTS:
        episodes = meta.linear_tasks(tasks, count, 8, generator, noise=noise)
        (x, y), (new, truth) = episodes.support, episodes.query
        with torch.no_grad():
            said = model(x, y, new)
        x, y, new = x.double(), y.double(), new.double()
        best = meta.ridge(x, y, new, noise**2)
        least = meta.ridge(x, y, new, 1e-6)
        results["network"].append(mean_square(said - truth) - noise**2)
        results["ridge"].append(mean_square(best - truth) - noise**2)
        results["least squares"].append(mean_square(least - truth) - noise**2)
        results["apart"].append(mean_square(said - best))
        results["mean"].append(mean_square(truth) - noise**2)
        if count == 4:
            grid = np.geomspace(0.01, 10, 61)
            far = [mean_square(meta.ridge(x, y, new, float(s)) - said) for s in grid]
            strength = float(grid[int(np.argmin(far))])
    return results | {"strength": strength}


def lines(plan: Plan, seed: int, device: str = "cpu") -> dict:
    """Noise -> what `against_ridge` says of a network for lines of that noise."""
    return {
        str(noise): against_ridge(train_lines(plan, noise, seed, device=device), noise, seed)
        for noise in plan.noises
    }


# ------------------------------------------------------------------------------------------ record
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, as plain JSON.

    Returns:
        "tables": names; "seeds": a list of what `one_seed` gives; "lines": a list of what `lines`
        gives.
    """
    plan, device = plan or PLANS[profile], str(fastest()) if profile == "gpu" else "cpu"
    results = {"tables": list(TABLES), "wide": list(WIDE), "seeds": [], "lines": []}
    for seed in seeds:
        results["lines"].append(kept(f"{profile}, lines, seed {seed}", lines, plan, seed, device))
        strengths = [row["strength"] for row in results["lines"][-1].values()]
        report(f"seed {seed}: lines like ridge of strength {strengths}")
        results["seeds"].append(kept(f"{profile}, seed {seed}", one_seed, plan, seed, device))
        for labels in plan.labels:
            shown = {
                m: round(float(method_scores(results["seeds"][-1:], labels, m).mean()), 3)
                for m in (OURS, *RIVALS, *INNER)
            }
            report(f"seed {seed}, {labels} labels: {shown}")
    return results


def method_scores(
    seeds: Sequence[Mapping], labels: int, method: str, key: str = "accuracy"
) -> np.ndarray:
    """Scores of a method, [seeds, tables], in the order of TABLES."""
    rows = [seed["tables"][str(labels)] for seed in seeds]
    return np.array([[row[t][method][key] for t in TABLES if t in row] for row in rows])
