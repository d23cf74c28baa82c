"""Chapter 12: how much to unfreeze, at which rate; judged on pictures like those tuned on and on others. Needs no Jupyter.

CPU profile: small digits. Every method is a table of learning rates, [steps, layers], and many networks are trained at once by it: their
parameters are stacked along a first axis R (method x setting x seed) and `torch.func.vmap` turns one network's outputs into all of theirs.
GPU profile: CIFAR-10 and CIFAR-100 with a residual network, one run after another, through `fine_tuning` and `train.fit`.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from .. import data
from ..data.augment import compose, crop, flip
from ..data.corruptions import STRENGTHS, corrupt
from ..fine_tuning import gradual_unfreezing, layer_groups, layers, lp_ft, open_top
from ..models import Classifier, cnn, mlp
from ..precision import short_type
from ..resnet import resnet
from ..runtime import device as fastest
from ..tasks import accuracy
from ..train import evaluate, fit
from ..transfer import l2_sp, load_source

METHODS = ("scratch", "linear probe", "full", "L2-SP", "layer-wise", "gradual", "LP-FT")
DECAY = 2.6  # of layer-wise rates, as Howard and Ruder have it
PROBE_RATE = 0.03  # of LP-FT's first half
SETS = ("own", "corrupted", "other")


@dataclass(frozen=True)
class Digits:
    """Sizes of the experiment on digits, and the settings that each method may try: as many for every method."""

    side: int = 14  # pixels
    width: int = 64
    depth: int = 3  # hidden layers
    source_steps: int = 400
    source_batch: int = 64
    steps: int = 100
    batch: int = 32
    shots: tuple[int, ...] = (3, 10, 50)  # labels a class
    held: tuple[int, int] = (400, 800)  # target images for validation and for the test
    held_uci: tuple[int, int] = (150, 300)
    severity: int = 2  # of the corruptions in the test
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    pulls: tuple[tuple[float, float], ...] = ((0.01, 1e-2), (0.03, 1e-3), (0.03, 1e-2), (0.03, 1e-1), (0.1, 1e-2))  # L2-SP: rate and strength


# ------------------------------------------------------------------------------------------------ a method is a table of rates
def rate_table(method: str, rate: float, steps: int, count: int) -> Tensor:
    """Learning rates [steps, count layers, from the input to the head] of a method whose largest rate is `rate`; 0 is frozen."""
    table = torch.full((steps, count), float(rate))
    up = torch.arange(count - 1, -1, -1)  # layers above this one
    if method == "linear probe":
        table[:, :-1] = 0
    elif method == "layer-wise":
        table /= DECAY**up
    elif method == "gradual":
        table[torch.arange(steps)[:, None] < up * steps // count] = 0
    elif method == "LP-FT":
        table[: steps // 2] = 0
        table[: steps // 2, -1] = PROBE_RATE
    elif method not in METHODS:
        raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
    return table


def settings(method: str, plan: Digits) -> list[tuple[float, float]]:
    """(rate, strength of L2-SP) of the runs that a method may try."""
    return list(plan.pulls) if method == "L2-SP" else [(rate, 0.0) for rate in plan.rates]


def layer_of(model: nn.Module) -> dict[str, int]:
    """Name of a parameter -> number of its layer, from the input on."""
    number = {id(p): k for k, layer in enumerate(layers(model)) for p in layer.parameters()}
    return {name: number[id(p)] for name, p in model.named_parameters()}


def train_runs(
    model: nn.Module,
    start: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    rates: Tensor,
    *,
    strength: Tensor | None = None,
    source: Mapping[str, Tensor] | None = None,
    batch: int,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train R networks at once by SGD with momentum 0.9 and a rate for every step and layer; returns their stacked parameters.

    start: name -> [R, ...]; x [N, ...], y [N]: one pool of examples; rows int64 [R, n]: the examples that each run may use. All runs
    draw the same positions of their rows. rates [steps, layers, R]; a layer gathers no momentum while its rate is 0, like a parameter
    without a gradient in torch's optimizers. strength [R], source: name -> [R, ...]: L2-SP towards `source`, by the gradient of
    `transfer.l2_sp`; a run of strength 0 has none.
    """

    outputs, number = vmap(lambda p, x: functional_call(model, p, (x,))), layer_of(model)
    held = [] if strength is None else strength.nonzero()[:, 0].tolist()
    pulled = slice(min(held), max(held) + 1) if held else None  # the runs between the first and the last with a pull
    order = torch.Generator().manual_seed(seed)
    p = {name: value.clone().requires_grad_() for name, value in start.items()}
    speed = {name: torch.zeros_like(value) for name, value in start.items()}
    for now in rates:
        pick = rows[:, torch.randint(rows.shape[1], (batch,), generator=order)]
        # The gradient of the runs' losses, summed, holds each run's own: no run's loss depends on another's parameters.
        loss = F.cross_entropy(outputs(p, x[pick]).flatten(0, 1), y[pick].flatten(), reduction="sum") / batch
        with torch.no_grad():
            for name, g in zip(p, torch.autograd.grad(loss, list(p.values()))):
                shape = -1, *[1] * (g.ndim - 1)
                if pulled and name in source:
                    g[pulled] += 2 * strength[pulled].view(shape) * (p[name][pulled] - source[name][pulled])
                rate = now[number[name]].view(shape)
                speed[name].mul_(0.9).addcmul_(g, (rate > 0).to(g.dtype))
                p[name].addcmul_(speed[name], rate, value=-1)
    return {name: value.detach() for name, value in p.items()}


@torch.no_grad()
def correct(model: nn.Module, p: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Share of the examples x [N, ...], y [N] that each of R stacked networks gets right: [R]."""
    return (vmap(lambda q: functional_call(model, q, (x,)))(dict(p)).argmax(dim=2) == y).float().mean(dim=1)


# ---------------------------------------------------------------------------------------------------------- digits, CPU
@cache
def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Digits [N, 1, 14, 14] in [0, 1] and labels [N]: MNIST averaged over 2x2 pixels, UCI digits enlarged to MNIST's place in the frame."""
    ds = data.load(name)
    x, y = torch.from_numpy(np.array(ds.x)).float()[:, None], torch.from_numpy(np.array(ds.y))
    if name == "digits":
        return F.pad(F.interpolate(x / 16, size=(10, 10), mode="bilinear", align_corners=False), (2, 2, 2, 2)), y
    return F.avg_pool2d(x / 255, 2), y


def standard(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, by MNIST's numbers, the same for every set: a corruption must not be undone."""
    return (x - 0.13) / 0.28


def many_kinds(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The images as they are and under every corruption at severities 1 and 3: what a broad source is trained on."""
    g = torch.Generator().manual_seed(seed)
    views = [x, *(corrupt(x, name, severity, g) for name in STRENGTHS for severity in (1, 3))]
    return torch.cat(views), y.repeat(len(views))


class Study:
    """Source networks for MNIST digits, one a seed, and the digits 6 to 9 of two collections as targets.

    digits: how many digits the source names, 6 (0 to 5: none of the target's) or 10. broad: train it on corrupted images, too.
    """

    def __init__(self, plan: Digits, seeds: Sequence[int], digits: int = 6, broad: bool = True):
        self.plan, self.seeds = plan, list(seeds)
        self.model = self.network(0)
        self.count = len(layers(self.model))
        self.targets = {"MNIST": "mnist_5k", "UCI": "digits"}
        self.all = {target: pictures(name) for target, name in self.targets.items()}
        x, y = self.all["MNIST"]
        kept = self.source_rows(digits)
        x, y = many_kinds(x[kept], y[kept]) if broad else (x[kept], y[kept])
        rates = torch.full((plan.source_steps, self.count, len(self.seeds)), 0.05)
        rows = torch.arange(len(y)).expand(len(self.seeds), -1)
        self.source = train_runs(self.model, self.fresh(self.seeds), standard(x), y, rows, rates, batch=plan.source_batch)

    def network(self, seed: int) -> Classifier:
        """A freshly drawn network; ten outputs, of which a target uses four."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [self.plan.side**2] + [self.plan.width] * self.plan.depth
            return Classifier(nn.Sequential(nn.Flatten(), *mlp(widths)), self.plan.width, 10)

    def fresh(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in stack_module_state([self.network(seed) for seed in seeds])[0].items()}

    def source_rows(self, digits: int) -> Tensor:
        """Rows of MNIST that a source may see: of the target's digits those that are neither validated nor tested on."""
        y = self.all["MNIST"][1]
        seen = y < digits
        seen[torch.cat(self.parts("MNIST")[1:])] = False
        return seen.nonzero()[:, 0]

    def parts(self, target: str) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers of the digits 6 to 9 for training, validation and test: a random split, the same for every run."""
        y = self.all[target][1]
        held = self.plan.held if target == "MNIST" else self.plan.held_uci
        rows = (y >= 6).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return rows[sum(held) :], rows[: held[0]], rows[held[0] : sum(held)]

    def test_sets(self, target: str, validation: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
        """What a tuned network is judged on: its own kind ("own"), the same under each corruption, and the other collection ("other").

        No source has seen any of it. Of the validation images only the clean ones of the target's own kind choose anything.
        """
        part = 1 if validation else 2
        (x, y), (x_other, y_other) = (
            tuple(values[self.parts(name)[part]] for values in self.all[name]) for name in (target, "UCI" if target == "MNIST" else "MNIST")
        )
        g = torch.Generator().manual_seed(1)
        sets = {"own": (x, y - 6), "other": (x_other, y_other - 6)}
        sets |= {name: (corrupt(x, name, self.plan.severity, g), y - 6) for name in STRENGTHS}
        return {name: (standard(x), y) for name, (x, y) in sets.items()}

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What each source's trunk makes of its own images, x [seeds, n, ...]: [seeds, n, width]."""
        trunk = {name.removeprefix("trunk."): p for name, p in self.source.items() if name.startswith("trunk.")}
        return vmap(lambda p, x: functional_call(self.model.trunk, p, (x,)))(trunk, x)

    def runs(self, target: str, shots: int, methods: Sequence[str] = METHODS) -> tuple[list, dict[str, Tensor]]:
        """Train every method with every setting; returns the lines (method, rate, strength) and the parameters, [lines x seeds, ...]."""
        plan, S = self.plan, len(self.seeds)
        lines = [(m, *setting) for m in methods for setting in settings(m, plan)]
        x, y = self.all[target]
        pool = self.parts(target)[0]
        rows = torch.stack([pool[torch.from_numpy(data.per_class(y[pool].numpy(), shots, seed))] for seed in self.seeds])
        new = self.fresh([1000 + seed for seed in self.seeds])

        def start(method, name):
            return self.source[name] if name.startswith("trunk") and method != "scratch" else new[name]

        x, y = standard(x), (y - 6).clamp_min(0)
        trained = []
        for probing in (True, False):  # apart: a probe needs its trunk once only, for the features
            some = [line for line in lines if (line[0] == "linear probe") == probing]
            if not some:
                continue
            stacked = {name: torch.cat([start(m, name) for m, _, _ in some]) for name in new}
            rates = torch.stack([rate_table(m, rate, plan.steps, self.count) for m, rate, _ in some], dim=2).repeat_interleave(S, dim=2)
            trunk = {name: p for name, p in stacked.items() if name.startswith("trunk")}
            if probing:
                head = copy.deepcopy(self.model)
                head.trunk = nn.Identity()
                first = {name: p for name, p in stacked.items() if name not in trunk}
                seen, answers, mine = self.features(x[rows]).flatten(0, 1), y[rows].flatten(), torch.arange(rows.numel()).view(rows.shape)
                part = train_runs(head, first, seen, answers, mine.repeat(len(some), 1), rates[:, -1:], batch=plan.batch, seed=shots)
            else:
                pull = torch.tensor([strength for _, _, strength in some]).repeat_interleave(S)
                part = train_runs(
                    self.model, stacked, x, y, rows.repeat(len(some), 1), rates, strength=pull, source=trunk, batch=plan.batch, seed=shots
                )
            trained.append((some, trunk | part))
        lines = [line for some, _ in trained for line in some]
        return lines, {name: torch.cat([part[name] for _, part in trained]) for name in new}

    def compare(self, target: str, shots: int, methods: Sequence[str] = METHODS) -> dict[str, dict]:
        """Method -> accuracies a seed on "own", "corrupted" (mean over the kinds) and "other" test images, and the settings chosen.

        Each seed takes the setting with the best accuracy on clean validation images, of several equal ones the first; nothing is
        chosen on corrupted or other images. "by setting": validation accuracies of every setting on "own" and "other", one value a seed.
        """
        lines, trained = self.runs(target, shots, methods)
        S = len(self.seeds)
        held = self.test_sets(target, validation=True)
        seen = {name: correct(self.model, trained, *held[name]).view(len(lines), S) for name in ("own", "other")}
        picked = {m: [i for i, line in enumerate(lines) if line[0] == m] for m in methods}
        best = {m: torch.tensor(mine)[seen["own"][mine].argmax(dim=0)] for m, mine in picked.items()}
        chosen = torch.cat([best[m] * S + torch.arange(S) for m in methods])
        tested = {name: correct(self.model, {k: p[chosen] for k, p in trained.items()}, *part).view(len(methods), S)
                  for name, part in self.test_sets(target).items()}  # fmt: skip
        tested["corrupted"] = torch.stack([tested[name] for name in STRENGTHS]).mean(dim=0)
        return {
            m: {name: accuracy[k].tolist() for name, accuracy in tested.items()}
            | {"setting": [lines[i][1:] for i in best[m].tolist()]}
            | {"by setting": [{"rate": lines[i][1], "strength": lines[i][2]} | {n: seen[n][i].tolist() for n in seen} for i in picked[m]]}
            for k, m in enumerate(methods)
        }


def padded(x: Tensor) -> Tensor:
    """Digits in [0, 1], `standard`, with a pixel of background on every side: [N, 1, 16, 16], which halves often enough for convolutions."""
    return standard(F.pad(x, (1, 1, 1, 1)))


def norm_source(study: Study, seed: int) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    """A convolutional source with BatchNorm for all ten MNIST digits, and the 1,000 images (`padded`) and labels that it was not trained on."""
    x, y = study.all["MNIST"]
    x = padded(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(cnn(16, (8, 16), 32, norm=True), 32, 10)
        rows = torch.randperm(len(y))
    train, held_out = ((x[part], y[part]) for part in (rows[:4000], rows[4000:]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(model, train, held_out, F.cross_entropy, optimizer, epochs=3, batch=64, progress=False, seed=seed)
    return model, held_out


# ------------------------------------------------------------------------------------------------------- photographs, GPU
@dataclass(frozen=True)
class Photos:
    """Sizes of the experiment on CIFAR-10 and CIFAR-100."""

    pairs: tuple[tuple[str, str], ...] = (("cifar10", "cifar100"), ("cifar100", "cifar10"))
    depths: tuple[int, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (32, 64, 128)
    source_epochs: int = 30
    source_rate: float = 0.1
    batch: int = 128
    shots: tuple[int, ...] = (1, 5, 20, 100, 500)  # labels a class; more than there are means all of them
    held: int = 40  # images a class for validation, at most a tenth of them
    epochs: int = 12
    updates: int = 50  # in an epoch, at least: small sets are gone through several times
    severity: int = 3
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    pulls: tuple[tuple[float, float], ...] = ((0.01, 1e-3), (0.01, 1e-2), (0.03, 1e-3), (0.03, 1e-2))


def photos(name: str, device: torch.device, held: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> images [N, 3, 32, 32] and labels; "name" -> the set's name, that of the partial set where the whole cannot be had.

    A validation part of `held` images a class, at most a tenth of a class, is taken from the training images. Both are `centred`; the
    test images lie in [0, 1], to be corrupted first.
    """
    try:
        ds = data.load(name)
    except data.DataError:
        ds = data.load(f"{name}_partial")
    held = min(held, int(np.bincount(ds["y_train"]).min()) // 10)
    mine = np.zeros(len(ds["y_train"]), dtype=bool)
    mine[data.per_class(ds["y_train"], held, seed=0)] = True
    parts = {"name": ds.info.name}
    for part, x, y in (
        ("train", ds["x_train"][~mine], ds["y_train"][~mine]),
        ("validation", ds["x_train"][mine], ds["y_train"][mine]),
        ("test", ds["x_test"], ds["y_test"]),
    ):
        images = torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2).float() / 255
        images = images.to(memory_format=torch.channels_last)
        parts[part] = images if part == "test" else centred(images), torch.from_numpy(np.array(y)).to(device)
    return parts


def centred(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, the same numbers for both sets."""
    return (x - 0.48) / 0.26


def photo_network(plan: Photos, classes: int, seed: int, device: torch.device) -> Classifier:
    """A freshly drawn residual network with a head of `classes` outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(resnet(plan.depths, plan.widths), plan.widths[-1], classes)
    return model.to(device, memory_format=torch.channels_last)


def precision_of(device: torch.device) -> torch.dtype | None:
    return short_type(device) if device.type == "cuda" else None


def photo_source(plan: Photos, parts: dict, seed: int, device: torch.device) -> Classifier:
    """A network trained on all of a set, with flips and crops and a rate that rises and falls."""
    model = photo_network(plan, int(parts["train"][1].max()) + 1, seed, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=plan.source_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    updates = plan.source_epochs * math.ceil(len(parts["train"][1]) / plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.source_rate, total_steps=updates)
    fit(
        model, parts["train"], parts["validation"], F.cross_entropy, optimizer, epochs=plan.source_epochs, batch=plan.batch, patience=plan.source_epochs,
        augment=compose(flip, crop(4)), schedule=schedule, precision=precision_of(device), seed=seed, progress=False,
    )  # fmt: skip
    return model


def tune_photos(method: str, rate: float, strength: float, model: Classifier, train: tuple, validation: tuple, plan: Photos, seed: int) -> tuple[float, list[dict]]:
    """Tune a network in place by a method and a setting; returns its validation accuracy and the losses by epoch, a dict for each phase."""
    x, y = train
    again = max(1, plan.updates * plan.batch // len(y))  # so that an epoch has enough updates
    train = x.repeat(again, 1, 1, 1), y.repeat(again)
    optimizer = partial(torch.optim.SGD, lr=0.0, momentum=0.9)
    options = dict(
        batch=plan.batch, patience=plan.epochs, augment=compose(flip, crop(4)), precision=precision_of(x.device), seed=seed, progress=False,
    )  # fmt: skip
    count = len(layers(model))
    if method == "LP-FT":
        half = plan.epochs // 2
        phases = lp_ft(model, train, validation, F.cross_entropy, optimizer, (PROBE_RATE, rate), (half, plan.epochs - half), **options)
    elif method == "gradual":
        stages = [1] * (count - 1) + [max(1, plan.epochs - count + 1)]
        phases = gradual_unfreezing(model, train, validation, F.cross_entropy, optimizer, rate, stages, **options)
    else:
        open_top(model, 1 if method == "linear probe" else count)
        start = {name: p.detach().clone() for name, p in model.named_parameters() if name.startswith("trunk")}
        pull = (lambda m: l2_sp(dict(m.named_parameters()), start, strength)) if method == "L2-SP" else None
        held = optimizer(layer_groups(model, rate, DECAY if method == "layer-wise" else 1.0))
        phases = [fit(model, train, validation, F.cross_entropy, held, epochs=plan.epochs, penalty=pull, **options)]
    return evaluate(model, validation, accuracy), [asdict(phase) for phase in phases]


def compare_photos(source: Classifier, parts: dict, shots: int, plan: Photos, seed: int, methods: Sequence[str] = METHODS) -> dict[str, dict]:
    """Method -> test accuracy ("own"), under each corruption, and the setting with the best validation accuracy, with its losses by epoch."""
    x, y = parts["train"]
    labels = y.cpu().numpy()
    rows = torch.from_numpy(data.per_class(labels, min(shots, int(np.bincount(labels).min())), seed)).to(y.device)
    device, classes = x.device, int(labels.max()) + 1
    found = {}
    for method in methods:
        best = None
        for rate, strength in list(plan.pulls) if method == "L2-SP" else [(rate, 0.0) for rate in plan.rates]:
            model = photo_network(plan, classes, 1000 + seed, device)
            if method != "scratch":
                load_source(model, source.state_dict())
            reached, history = tune_photos(method, rate, strength, model, (x[rows], y[rows]), parts["validation"], plan, seed)
            if best is None or reached > best[0]:
                best = reached, (rate, strength), model, history
        reached, setting, model, history = best
        g = torch.Generator(device).manual_seed(1)
        test, answers = parts["test"]
        seen = {"own": evaluate(model, (centred(test), answers), accuracy)}
        seen |= {name: evaluate(model, (centred(corrupt(test, name, plan.severity, g)), answers), accuracy) for name in STRENGTHS}
        found[method] = seen | {"corrupted": float(np.mean([seen[name] for name in STRENGTHS])), "validation": reached, "setting": setting}
        found[method]["history"] = history
    return found


# -------------------------------------------------------------------------------------------------------------------- run
def run(profile: str = "cpu", seeds: Sequence[int] = range(5), plan: Digits | Photos | None = None, report: Callable = print) -> dict:
    """The whole experiment of a profile. Accuracies in [0, 1], one value a seed. Plain JSON.

    cpu: the digits, by target and number of labels. gpu: both directions of CIFAR, by pair and number of labels.
    """
    plan = plan or {"cpu": Digits(), "gpu": Photos()}[profile]
    if isinstance(plan, Digits):
        new, known = Study(plan, seeds), Study(plan, seeds, digits=10)
        return {
            "new classes": {str(n): new.compare("MNIST", n) for n in plan.shots},
            "known classes": {"10": known.compare("UCI", 10)},
        }
    device, results = fastest(), {}
    for source_name, target_name in plan.pairs:
        source_parts, target_parts = (photos(name, device, plan.held) for name in (source_name, target_name))
        pair: dict = {}
        for seed in seeds:
            source = photo_source(plan, source_parts, seed, device)
            report(f"{source_parts['name']}, seed {seed}: validation {evaluate(source, source_parts['validation'], accuracy):.3f}")
            for shots in plan.shots:
                seen = compare_photos(source, target_parts, shots, plan, seed)
                report(f"{target_parts['name']}, {shots} a class: " + ", ".join(f"{m} {r['own']:.3f}" for m, r in seen.items()))
                for method, values in seen.items():
                    row = pair.setdefault(str(shots), {}).setdefault(method, {})
                    for key, value in values.items():
                        row.setdefault(key, []).append(value)
        results[f"{source_parts['name']} to {target_parts['name']}"] = pair
    return results
