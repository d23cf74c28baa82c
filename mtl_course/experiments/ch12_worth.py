"""Chapter 12, the headline: how many labels pretraining is worth, on small photographs.

CIFAR-10 to twenty classes of CIFAR-100, with a slim residual network. Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.augment import compose, crop, flip
from ..data.corruptions import STRENGTHS, corrupt
from ..networks.residual import resnet
from ..networks.trunks import Classifier
from ..records.pieces import kept
from ..training.evaluation import evaluate
from ..training.tasks import accuracy
from ..transfer.penalties import l2_sp
from ..transfer.schedules import layer_groups, layers, open_top
from .ch12_gpu import centred
from .ch12_rates import CONVERGED, rate_table
from .common import seeded

SCRATCH, RANDOM = "scratch", "probe of a random trunk"
TUNED = ("full", "LP-FT", "layer-wise", "gradual", "L2-SP")  # all start from the source
FEW = ("layer-wise", "gradual", "L2-SP")  # at one number of labels only
KINDS = ("own", "corrupted")


@dataclass(frozen=True)
class Worth:
    """Sizes of the experiment, and the settings that each method may try.

    Args:
        side: pixels a side.
        depths: residual blocks of each stage.
        widths: channels of each stage.
        source_images: of CIFAR-10.
        source_epochs: over them.
        source_rate: at the peak.
        source_batch: images per step.
        classes: of CIFAR-100, drawn anew in every seed.
        shots: labels per class.
        searched: numbers of labels at which rates are searched: at the first for every method, at
            the second from scratch once more, for that number and above.
        held_out: training images per class that validate.
        batch: images per step.
        steps: on the target, from a source.
        scratch_steps: without one.
        severity: of the corruptions in the test.
        rates: that every method may try; they fall to zero in a line.
        pull: strength of L2-SP.
        penalties: scikit-learn's C of a converged probe: as many.
        mixes: shares of the tuned weights in WiSE-FT.
        judges: so many seeds, the first ones, have their validation images judge the rates.
    """

    side: int = 16
    depths: tuple[int, ...] = (1, 1, 1)
    widths: tuple[int, ...] = (16, 32, 64)
    source_images: int = 25000
    source_epochs: int = 8
    source_rate: float = 0.1
    source_batch: int = 128
    classes: int = 20
    shots: tuple[int, ...] = (5, 20, 50)
    searched: tuple[int, int] = (20, 50)
    held_out: int = 20
    batch: int = 64
    steps: int = 150
    scratch_steps: int = 400
    severity: int = 2
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    pull: float = 1e-2
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    mixes: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    judges: int = 2


PLAN = Worth()
# More labels, steps enough for every method, a rate more at each end: was scratch only starved?
LONGER = Worth(
    shots=(50, 100),
    searched=(50, 100),
    steps=900,
    scratch_steps=900,
    rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
)


# -------------------------------------------------------------------------------------- photographs
def smaller(x: np.ndarray, side: int) -> Tensor:
    """Images [N, 32, 32, 3] of bytes as floats in [0, 1], [N, 3, side, side], by averaging."""
    some = np.array_split(x, max(1, len(x) // 5000))
    parts = [
        F.interpolate(
            torch.from_numpy(np.array(each)).permute(0, 3, 1, 2).float() / 255,
            size=(side, side),
            mode="area",
        )
        for each in some
    ]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


@cache
def photos(name: str, side: int) -> dict[str, Tensor]:
    """x_train, y_train, x_test, y_test of a set, or of its part where the whole cannot be had."""
    ds = data.load_or_partial(name)
    images = {part: smaller(np.asarray(ds[part]), side) for part in ("x_train", "x_test")}
    labels = {part: torch.from_numpy(np.array(ds[part])).long() for part in ("y_train", "y_test")}
    return images | labels


class Target:
    """Twenty classes of CIFAR-100, drawn by the seed, and their images for each purpose.

    Args:
        plan: sizes.
        seed: of the draw.
    """

    def __init__(self, plan: Worth, seed: int):
        self.plan, sets = plan, photos("cifar100", plan.side)
        chance = np.random.default_rng(seed)
        self.classes = chance.permutation(int(sets["y_train"].max()) + 1)[: plan.classes]
        place = torch.full((int(sets["y_train"].max()) + 1,), -1)
        place[torch.from_numpy(self.classes)] = torch.arange(len(self.classes))
        x, y = sets["x_train"], place[sets["y_train"]]
        order = torch.from_numpy(chance.permutation(len(y)))
        rows = [order[y[order] == label] for label in range(len(self.classes))]
        self.validation = self._images(x, y, [r[: plan.held_out] for r in rows])
        self.pool = [r[plan.held_out :] for r in rows]
        self.x, self.y = x, y
        test = place[sets["y_test"]]
        keep = test >= 0
        self.test = sets["x_test"][keep], test[keep]

    @staticmethod
    def _images(x: Tensor, y: Tensor, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """`centred` images and labels of these rows."""
        rows = torch.cat(rows)
        return centred(x[rows]), y[rows]

    def train(self, shots: int) -> tuple[Tensor, Tensor]:
        """Images of `shots` labels per class; those of fewer labels are among those of more."""
        return self._images(self.x, self.y, [rows[:shots] for rows in self.pool])

    def tested(self, model: nn.Module) -> dict[str, float]:
        """Test accuracy: "own", under each corruption, and "corrupted", their mean."""
        x, y = self.test
        chance = torch.Generator().manual_seed(1)
        row = {"own": evaluate(model, (centred(x), y), accuracy)}
        for name in STRENGTHS:
            images = centred(corrupt(x, name, self.plan.severity, chance))
            row[name] = evaluate(model, (images, y), accuracy)
        return row | {"corrupted": float(np.mean([row[name] for name in STRENGTHS]))}


# ---------------------------------------------------------------------------- networks and training
def network(plan: Worth, classes: int, seed: int) -> Classifier:
    """A freshly drawn residual network with a head of `classes` outputs."""

    def build() -> Classifier:
        return Classifier(resnet(plan.depths, plan.widths), plan.widths[-1], classes)

    return seeded(build, seed).to(memory_format=torch.channels_last)


def tune(
    model: Classifier,
    table: Tensor,
    x: Tensor,
    y: Tensor,
    batch: int,
    seed: int,
    penalty: Callable[[nn.Module], Tensor] | None = None,
) -> Classifier:
    """Train in place by a table of rates [steps, layers], SGD with momentum and weight decay.

    A layer whose rate is 0 is frozen, weights and statistics. Images are flipped and shifted.
    """
    augment = compose(flip, crop(2))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        layer_groups(model, 1.0, 1.0), momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    opened = 0
    queue = torch.empty(0, dtype=torch.long)
    for rates in table:
        model.train()
        count = int((rates > 0).sum())
        if count != opened:
            open_top(model, count)
            opened = count
        for group, rate in zip(optimizer.param_groups, rates.tolist(), strict=True):
            group["lr"] = rate
        if len(queue) < batch:  # every image once before one comes again
            queue = torch.cat([queue, torch.randperm(len(y), generator=order)])
        pick, queue = queue[:batch], queue[batch:]
        loss = F.cross_entropy(model(augment(x[pick], order)), y[pick])
        if penalty is not None:
            loss = loss + penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def falling(table: Tensor) -> Tensor:
    """A table whose rates fall to zero in a line, step by step."""
    steps = len(table)
    return table * (1 - torch.arange(steps) / steps)[:, None]


def source_weights(plan: Worth, seed: int) -> dict:
    """A network for CIFAR-10, trained once per seed: "weights" and its test "accuracy"."""
    sets = photos("cifar10", plan.side)
    y = sets["y_train"]
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    rows = rows[: plan.source_images]
    model = network(plan, int(y.max()) + 1, seed)
    steps = plan.source_epochs * (len(rows) // plan.source_batch)
    rise = max(1, steps // 5)  # the rate rises for a fifth of the steps
    climb = torch.arange(1, rise + 1) / rise
    rates = plan.source_rate * torch.cat([climb, torch.linspace(1, 0.001, steps - rise)])
    table = rates[:, None].expand(-1, len(layers(model)))
    tune(model, table, centred(sets["x_train"][rows]), y[rows], plan.source_batch, seed)
    reached = evaluate(model, (centred(sets["x_test"]), sets["y_test"]), accuracy)
    return {"weights": dict(model.state_dict()), "accuracy": reached}


def loaded(plan: Worth, weights: Mapping) -> Classifier:
    """The source with these weights, as JSON or as tensors."""
    state = {name: torch.as_tensor(value) for name, value in weights.items()}
    model = network(plan, len(state["head.bias"]), 0)
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def features(model: Classifier, x: Tensor) -> np.ndarray:
    """What the frozen trunk makes of images: [N, width]."""
    return torch.cat([model.eval().trunk(some) for some in x.split(500)]).double().numpy()


def probed(model: Classifier, target: Target, shots: int) -> tuple[Classifier, float]:
    """The trunk as it is under a head that is trained to the end, and the C of that head.

    The head is a logistic regression, its C the best on validation images, of equal ones the first.
    """
    (x, y), (x_held, y_held) = target.train(shots), target.validation
    z, held = features(model, x), features(model, x_held)
    best = None
    for strength in target.plan.penalties:
        fit = LogisticRegression(C=strength, max_iter=2000).fit(z, y.numpy())
        reached = fit.score(held, y_held.numpy())
        if best is None or reached > best[0]:
            best = reached, strength, fit
    _, strength, fit = best
    probe = copy.deepcopy(model)
    probe.head = nn.Linear(z.shape[1], len(fit.classes_))
    with torch.no_grad():
        probe.head.weight.copy_(torch.from_numpy(fit.coef_))
        probe.head.bias.copy_(torch.from_numpy(fit.intercept_))
    return probe.eval(), strength


def tuned(
    method: str, rate: float, source: Classifier, target: Target, shots: int, seed: int
) -> Classifier:
    """A network for the target by a method of `TUNED`, or from scratch, at a rate."""
    plan = target.plan
    fresh = network(plan, plan.classes, 1000 + seed)
    penalty = None
    if method == SCRATCH:
        model = fresh
    elif method == "LP-FT":
        model, _ = probed(source, target, shots)
    else:
        model = copy.deepcopy(source)
        model.head = fresh.head
    if method == "L2-SP":
        trunk = {name: p for name, p in model.named_parameters() if name.startswith("trunk")}
        start = {name: p.detach().clone() for name, p in trunk.items()}

        def penalty(now: nn.Module) -> Tensor:
            return l2_sp(dict(now.named_parameters()), start, plan.pull)

    steps = plan.scratch_steps if method == SCRATCH else plan.steps
    kind = method if method in ("layer-wise", "gradual") else "full"  # LP-FT probed before
    table = falling(rate_table(kind, rate, steps, len(layers(model))))
    return tune(model, table, *target.train(shots), plan.batch, seed, penalty)


def mixed(first: Classifier, second: Classifier, share: float) -> Classifier:
    """WiSE-FT: weights and statistics, (1 - share) of the first and `share` of the second."""
    other, model = second.state_dict(), copy.deepcopy(first)
    model.load_state_dict(
        {
            name: torch.lerp(value.float(), other[name].float(), share).to(value.dtype)
            for name, value in first.state_dict().items()
        }
    )
    return model.eval()


# ----------------------------------------------------------------------------------- the comparison
def methods_at(shots: int, plan: Worth) -> list[str]:
    """The methods with a rate that are run at this number of labels per class."""
    few = FEW if shots == plan.searched[0] else ()
    return [SCRATCH, *(m for m in TUNED if m not in FEW), *few]


def validated(method: str, shots: int, weights: Mapping, seed: int, plan: Worth) -> list[float]:
    """Validation accuracy of a method at each of its rates."""
    source, target = loaded(plan, weights), Target(plan, seed)
    return [
        evaluate(tuned(method, rate, source, target, shots, seed), target.validation, accuracy)
        for rate in plan.rates
    ]


def tested(chosen: Mapping[str, Mapping], weights: Mapping, seed: int, plan: Worth) -> dict:
    """Labels per class -> method -> what `Target.tested` gives, with the chosen rates.

    And "mixes", labels per class -> kind -> accuracy at each share of WiSE-FT, from the converged
    probe to LP-FT.
    """
    source, target = loaded(plan, weights), Target(plan, seed)
    rows, mixes = {}, {}
    for shots in plan.shots:
        row = {}
        for method in methods_at(shots, plan):
            model = tuned(method, chosen[str(shots)][method], source, target, shots, seed)
            row[method] = target.tested(model)
            if method == "LP-FT":
                last = model
        probe, strength = probed(source, target, shots)
        row[CONVERGED] = target.tested(probe) | {"C": strength}
        fresh = network(plan, plan.classes, 1000 + seed)
        row[RANDOM] = target.tested(probed(fresh, target, shots)[0])
        if shots in plan.searched:
            found = [target.tested(mixed(probe, last, share)) for share in plan.mixes]
            mixes[str(shots)] = {kind: [each[kind] for each in found] for kind in KINDS}
            held = [
                evaluate(mixed(probe, last, share), target.validation, accuracy)
                for share in plan.mixes
            ]
            mixes[str(shots)]["validation"] = held
        rows[str(shots)] = row
    return {"rows": rows, "mixes": mixes}


def run_worth(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Worth = PLAN
) -> dict:
    """The whole comparison; accuracies in [0, 1], one value per seed. Plain JSON.

    Every seed has a source, twenty classes, labelled images and a new head of its own.

    Returns:
        "source": test accuracies; "search": labels per class -> method -> rate -> validation
        accuracies of the judging seeds; "rates": labels per class -> method -> the chosen rate;
        "accuracy": labels per class -> method -> kind -> values; "mixes": labels per class -> kind
        -> a list per seed.
    """
    sources = {}
    for seed in seeds:
        sources[seed] = kept(f"{plan}, source, seed {seed}", source_weights, plan, seed)
        report(f"source, seed {seed}: {sources[seed]['accuracy']:.3f}")
    search: dict = {}
    for shots in plan.searched:
        search[str(shots)] = {}
        all_methods = shots == plan.searched[0]
        for method in methods_at(shots, plan) if all_methods else [SCRATCH]:
            tries = []
            for seed in list(seeds)[: plan.judges]:
                key = f"{plan}, {method}, {shots} labels, seed {seed}"
                weights = sources[seed]["weights"]
                tries.append(kept(key, validated, method, shots, weights, seed, plan))
            by_rate = zip(plan.rates, zip(*tries, strict=True), strict=True)
            search[str(shots)][method] = {str(rate): list(values) for rate, values in by_rate}
            report(f"{shots} labels, {method}: {search[str(shots)][method]}")
    chosen: dict = {}
    for shots in plan.shots:
        low, high = (search[str(n)] for n in plan.searched)
        trials = low | (high if shots >= plan.searched[1] else {})
        best = {m: max(tried, key=lambda r: np.mean(tried[r])) for m, tried in trials.items()}
        chosen[str(shots)] = {m: float(best[m]) for m in methods_at(shots, plan)}
    accuracies: dict = {}
    mixes: dict = {}
    for seed in seeds:
        key = f"{plan}, tested, seed {seed}, rates {chosen}"
        found = kept(key, tested, chosen, sources[seed]["weights"], seed, plan)
        for shots, row in found["rows"].items():
            for method, kinds in row.items():
                for kind, value in kinds.items():
                    lists = accuracies.setdefault(shots, {}).setdefault(method, {})
                    lists.setdefault(kind, []).append(value)
        for shots, kinds in found["mixes"].items():
            for kind, values in kinds.items():
                mixes.setdefault(shots, {}).setdefault(kind, []).append(values)
        for shots, row in found["rows"].items():
            own = ", ".join(f"{method} {kinds['own']:.3f}" for method, kinds in row.items())
            report(f"seed {seed}, {shots} labels: {own}")
    return {
        "source": [sources[seed]["accuracy"] for seed in seeds],
        "search": search,
        "rates": chosen,
        "accuracy": accuracies,
        "mixes": mixes,
    }


def run_longer(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Worth = LONGER
) -> dict:
    """The comparison with more labels, steps and rates: what `run_worth` gives."""
    return run_worth(seeds, report, plan=plan)
