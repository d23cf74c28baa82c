"""Chapter 18: prototypes, MAML, ANIL and two baselines that fine-tune a head.

On characters, leaves and photographs of classes never seen. Every method gets the same images in
training, the same number of learning rates to try, and the same test episodes. Settings are chosen
on episodes of validation classes, test classes are used once. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, meta
from ..data.episodes import Episodes
from ..meta.few_shot import (
    CosineHead,
    adapted_logits,
    embed,
    episode_accuracy,
    fine_tuned_logits,
    interval,
    prototype_logits,
    query_losses,
)
from ..meta.fit import fit_episodes
from ..meta.functional import Functional
from ..networks.trunks import Classifier, cnn, conv4, mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.loop import fit
from . import ch18_deeper
from .ch18_sets import Domain, features, leaves, parted, pictures
from .common import seeded

__all__ = ["RECORDS", "Domain", "features", "leaves", "parted", "pictures"]


METHODS = ("ProtoNet", "MAML", "ANIL", "Baseline", "Baseline++")
LIVE = ("ProtoNet", "Baseline", "Baseline++")  # what a CPU trains in seconds
FLOORS = ("pixels", "untrained")  # prototypes without any learning
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of training: tried by every method
INNER = (1, 0.4)  # steps and rate of the inner loop while MAML and ANIL are trained
# steps and rate at test time, as many choices for every method that has some
TUNE = tuple((50, rate) for rate in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0))
ADAPT = ((1, 0.4), (5, 0.4), (10, 0.4), (3, 0.1), (5, 0.1), (10, 0.1), (20, 0.1), (10, 0.03))


ALL = ((5, 1), (5, 5), (20, 1), (20, 5))  # ways and shots of the test


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        sets: to train on.
        methods: set -> methods.
        elsewhere: set -> sets to be tested on besides.
        settings: set -> ways and shots of the test.
        small: 16 x 16 pixels and a narrow network.
        width: features of the trunk.
        queries: query examples per class.
        steps: meta-steps of training.
        every: steps between two looks at validation.
        images: per meta-step; the baselines see as many images altogether.
        ways: method -> ways while training.
        judged: test episodes.
        tried: validation episodes for a choice.
    """

    sets: tuple[str, ...] = ("omniglot_small", "glyphs")
    methods: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"omniglot_small": METHODS, "glyphs": LIVE}
    )
    elsewhere: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"glyphs": ("omniglot_small",)}
    )
    settings: Mapping[str, tuple[tuple[int, int], ...]] = field(
        default_factory=lambda: {"omniglot_small": ALL, "glyphs": ALL[:2]}
    )
    small: bool = True
    width: int = 64
    queries: int = 5
    steps: int = 300
    every: int = 50
    images: int = 120
    ways: Mapping[str, int] = field(default_factory=lambda: {"ProtoNet": 20, "MAML": 5, "ANIL": 5})
    judged: int = 600
    tried: int = 50


CPU = Plan()
GPU = Plan(
    sets=("omniglot", "cifar_fs"),
    methods={"omniglot": METHODS, "cifar_fs": METHODS},
    settings={"omniglot": ALL, "cifar_fs": ALL[:2]},
    elsewhere={"omniglot": ("glyphs",)},
    small=False,
    steps=1000,
    every=100,
    images=360,
    tried=200,
)
PLANS = {"cpu": CPU, "gpu": GPU}


# --------------------------------------------------------------------------------------------- data
def domain(name: str, plan: Plan, device: torch.device | str = "cpu") -> Domain:
    """A set by its name, with its classes parted, in the plan's size."""
    return parted(name, plan.small, device)


# ----------------------------------------------------------------------------------------- training
def trunk(where: Domain, plan: Plan, seed: int, norm: bool = False) -> nn.Sequential:
    """A freshly drawn network from inputs to `plan.width` features, on the inputs' device.

    For photographs it has four times as many features.
    """

    def build() -> nn.Sequential:
        if where.x.ndim == 2:
            return mlp([where.x.shape[1], 64, plan.width])
        if plan.small:
            return cnn(16, (32, 64), plan.width, norm=norm)
        return conv4(where.x.shape[-1], plan.width, where.x.shape[1])

    return seeded(build, seed).to(where.x.device)


def train(
    method: str,
    where: Domain,
    plan: Plan,
    rate: float,
    seed: int,
    ways: int = 5,
    shots: int = 1,
    norm: bool = False,
) -> nn.Module:
    """A trained trunk; for MAML and ANIL a Classifier with the learned start of its head.

    The head has `ways` classes. Validation: for the episodic methods the loss on episodes of
    validation classes; for the baselines held-out images of the training classes.
    """
    net = trunk(where, plan, seed, norm)
    width = features(net, where)
    if method in FLOORS:
        return net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        if method.startswith("Baseline"):
            return _classified(method, where, plan, net, width, rate, seed)
        model = Classifier(net, width, ways).to(where.x.device) if method != "ProtoNet" else net
    ways = min(
        ways if method != "ProtoNet" else plan.ways["ProtoNet"],
        *(len(where.parts[part]) for part in ("train", "validation")),
    )
    tasks = max(1, plan.images // (ways * (shots + plan.queries)))
    known, held_out = where.source("train"), where.source("validation")
    g = torch.Generator(where.x.device).manual_seed(7)
    held = [held_out.classification(4, ways, shots, plan.queries, g) for _ in range(10)]
    losses = _episodic(method, model, ways)

    def backward(generator):
        model.train()
        return losses(known.classification(tasks, ways, shots, plan.queries, generator), True)

    def validate():
        model.eval()
        with torch.no_grad():
            return torch.cat([losses(episodes, False) for episodes in held]).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    fit_episodes(
        model,
        backward,
        optimizer,
        plan.steps,
        validate=validate,
        every=plan.every,
        seed=seed,
        progress=False,
    )
    return model.eval()


def _episodic(method: str, model: nn.Module, ways: int) -> Callable[[Episodes, bool], Tensor]:
    """(episodes, write gradients?) -> losses [T].

    MAML's BatchNorm, if it has one, is transductive: see `Functional`.
    """
    if method == "MAML":
        f = Functional(model, transductive=True)
        of = {True: meta.meta_backward, False: meta.meta_losses}
        return lambda episodes, learn: of[learn](
            f, f.parameters(), episodes, F.cross_entropy, *INNER
        )

    def losses(episodes, learn):
        if method == "ProtoNet":
            losses = query_losses(prototype_logits(model, episodes, ways), episodes.query[1])
        else:  # ANIL: the inner loop moves the head only, so the features are computed once
            z, judged = embed(model.trunk, episodes.support[0], episodes.query[0])
            head = Functional(model.head)
            inner = Episodes((z, episodes.support[1]), (judged, episodes.query[1]))
            losses = meta.meta_losses(head, head.parameters(), inner, F.cross_entropy, *INNER)
        if learn:
            losses.mean().backward()
        return losses.detach()

    return losses


def _classified(method, where, plan, net, width, rate, seed):
    """The trunk of a network that has learned to tell all the training classes apart.

    A tenth of the images of each is held out.
    """
    classes = torch.tensor(where.parts["train"], device=where.y.device)
    rows = torch.isin(where.y, classes).nonzero().flatten()
    y = torch.searchsorted(classes, where.y[rows])
    held = torch.from_numpy(
        data.per_class(y.cpu().numpy(), max(1, int(torch.bincount(y).min()) // 10), seed)
    ).to(y.device)
    mine = torch.ones_like(y, dtype=torch.bool).index_fill(0, held, False)
    model = nn.Sequential(
        net,
        (
            CosineHead(width, len(classes))
            if method == "Baseline++"
            else nn.Linear(width, len(classes))
        ),
    ).to(y.device)
    epochs = max(1, round(plan.steps * plan.images / int(mine.sum())))
    parts = [(where.x[rows[at]], y[at]) for at in (mine, ~mine)]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    fit(
        model,
        *parts,
        F.cross_entropy,
        optimizer,
        epochs=epochs,
        batch=plan.images,
        patience=epochs,
        seed=seed,
        progress=False,
    )
    return net.eval()


# ------------------------------------------------------------------------------------------ judging
def choices(method: str) -> tuple:
    """What may be chosen at test time: steps and rate of adaptation."""
    if method in ("MAML", "ANIL"):
        return ADAPT
    return TUNE if method.startswith("Baseline") else ((0, 0.0),)


def judge(
    method: str, model: nn.Module, ways: int, choice: tuple[int, float]
) -> Callable[[Episodes], Tensor]:
    """episodes -> logits [T, q, ways] of a trained model.

    Nothing is learned from the queries, save by MAML's BatchNorm where it has one.
    """
    steps, rate = choice

    @torch.no_grad()
    def logits(episodes: Episodes) -> Tensor:
        if method == "pixels":
            return prototype_logits(nn.Flatten(), episodes, ways)
        if method in ("ProtoNet", "untrained"):
            return prototype_logits(model, episodes, ways)
        if method == "MAML":
            return adapted_logits(Functional(model, transductive=True), episodes, steps, rate)
        z, query = embed(
            model.trunk if method == "ANIL" else model, episodes.support[0], episodes.query[0]
        )
        if method == "ANIL":
            head = model.head
        else:  # a new head, which starts alike for all
            kind = CosineHead if method == "Baseline++" else nn.Linear
            head = seeded(lambda: kind(z.shape[-1], ways), 0).to(z.device)
        return fine_tuned_logits(head, (z, episodes.support[1]), query, steps, rate)

    return logits


def best_choice(
    method: str, model: nn.Module, where: Domain, plan: Plan, ways: int, shots: int
) -> tuple[float, tuple[int, float]]:
    """The best accuracy on validation episodes, and the choice that reached it.

    Of several equal ones the first.
    """
    source, options = where.source("validation"), choices(method)

    def reached(option: tuple[int, float]) -> float:
        logits = judge(method, model, ways, option)
        accuracies = episode_accuracy(logits, source, ways, shots, plan.queries, plan.tried, seed=1)
        return float(accuracies.mean())

    accuracies = [reached(option) for option in options]
    best = max(accuracies)
    return best, options[accuracies.index(best)]


def trained_for(method: str, plan: Plan, ways: int, shots: int) -> tuple[int, int] | None:
    """Ways and shots to train a network for this test with; None where the plan has none.

    One shot for all. A head of MAML or ANIL has its number of ways, so that a second training is
    needed for 20 ways; on a CPU there is none.
    """
    if method in ("MAML", "ANIL"):
        return (ways, 1) if not plan.small or ways == plan.ways[method] else None
    return plan.ways.get(method, 0), 1


def search(method: str, where: Domain, plan: Plan) -> dict[str, float]:
    """Training rate (as text) -> accuracy on 5-way 1-shot validation episodes.

    Of networks with a seed that is used for nothing else; 0 if training diverges.
    """
    accuracies = {}
    for rate in RATES:
        try:
            model = train(method, where, plan, rate, 12345)
            accuracies[f"{rate:g}"], _ = best_choice(method, model, where, plan, 5, 1)
        except FloatingPointError:
            accuracies[f"{rate:g}"] = 0.0
    return accuracies


def compare(
    method: str,
    where: Domain,
    plan: Plan,
    rate: float,
    seed: int,
    tests: Mapping[str, Domain],
    settings: Sequence[tuple[int, int]] = ALL,
) -> dict[str, dict]:
    """Test set -> "5-way 1-shot" and the like -> "accuracy", "half" and "choice".

    "half" is half the 95 % interval of the mean accuracy over episodes, "choice" what was chosen on
    validation.
    """
    models, rows = {}, {}
    for ways, shots in settings:
        for_this = trained_for(method, plan, ways, shots)
        if for_this is None:
            continue
        if for_this not in models:
            models[for_this] = train(method, where, plan, rate, seed, *for_this)
        model = models[for_this]
        _, choice = (
            best_choice(method, model, where, plan, ways, shots)
            if len(choices(method)) > 1
            else (None, choices(method)[0])
        )
        for name, test in tests.items():
            accuracy = episode_accuracy(
                judge(method, model, ways, choice),
                test.source("test"),
                ways,
                shots,
                plan.queries,
                plan.judged,
                seed=2,
            )
            mean, half = interval(accuracy)
            rows.setdefault(name, {})[f"{ways}-way {shots}-shot"] = {
                "accuracy": mean,
                "half": half,
                "choice": list(choice),
            }
    return rows


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Training set -> "rates", "tests" and "classes". Plain JSON.

    "rates": method -> rate -> validation accuracy. "tests": test set -> method -> setting -> what
    `compare` gives, in lists with a value per seed.
    """
    plan, device, results = plan or PLANS[profile], fastest(), {}
    for name in plan.sets:
        where = domain(name, plan, device)
        others = [domain(other, plan, device) for other in plan.elsewhere.get(name, ())]
        tests = {where.name: where} | {other.name: other for other in others}
        rates, rows = {}, {}
        for method in (*FLOORS, *plan.methods[name]):
            case = f"{where.name}, {method}"
            rates[method] = {}
            if method not in FLOORS:
                rates[method] = kept(case, search, method, where, plan)
            rate = float(max(rates[method], key=rates[method].get, default="0"))
            report(f"{where.name}: {method}, rate {rate:g}")
            for seed in seeds:
                judged = kept(
                    f"{case}, seed {seed}",
                    compare,
                    method,
                    where,
                    plan,
                    rate,
                    seed,
                    tests,
                    plan.settings[name],
                )
                for test, settings in judged.items():
                    lists = rows.setdefault(test, {}).setdefault(method, {})
                    for setting, row in settings.items():
                        for key, value in row.items():
                            lists.setdefault(setting, {}).setdefault(key, []).append(value)
        results[where.name] = {
            "rates": rates,
            "tests": rows,
            "classes": {part: len(classes) for part, classes in where.parts.items()},
        }
    return results


RECORDS = {
    "characters": ch18_deeper.run_characters,
    "photos": ch18_deeper.run_photos,
    "longer": ch18_deeper.run_longer,
    "rates": ch18_deeper.run_rates,
}
