"""Chapter 12: how much to unfreeze, at which rate; judged on pictures like those tuned on and on
others. Needs no Jupyter.

CPU profile: small digits, all methods trained at once (`ch12_rates`). GPU profile: CIFAR-10 and
CIFAR-100 (`ch12_gpu`).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from .. import data
from ..data.corruptions import STRENGTHS, corrupt
from ..networks.trunks import Classifier, cnn, mlp
from ..training.loop import fit
from ..transfer.schedules import layers
from .ch12_gpu import Photos, full_size
from .ch12_rates import METHODS, correct, rate_table, train_runs

__all__ = [
    "METHODS",
    "SETS",
    "Digits",
    "Study",
    "norm_source",
    "padded",
    "rate_table",
    "run",
    "standard",
    "train_runs",
]

SETS = ("own", "corrupted", "other")


@dataclass(frozen=True)
class Digits:
    """Sizes of the experiment on digits, and the settings that each method may try: as many for
    every method.
    """

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
    pulls: tuple[tuple[float, float], ...] = (
        (0.01, 1e-2),
        (0.03, 1e-3),
        (0.03, 1e-2),
        (0.03, 1e-1),
        (0.1, 1e-2),
    )  # L2-SP: rate and strength


def settings(method: str, plan: Digits) -> list[tuple[float, float]]:
    """(rate, strength of L2-SP) of the runs that a method may try."""
    return list(plan.pulls) if method == "L2-SP" else [(rate, 0.0) for rate in plan.rates]


@cache
def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Digits [N, 1, 14, 14] in [0, 1] and labels [N]: MNIST averaged over 2x2 pixels, UCI digits
    enlarged to MNIST's place in the frame.
    """
    ds = data.load(name)
    x, y = torch.from_numpy(np.array(ds.x)).float()[:, None], torch.from_numpy(np.array(ds.y))
    if name == "digits":
        return (
            F.pad(
                F.interpolate(x / 16, size=(10, 10), mode="bilinear", align_corners=False),
                (2, 2, 2, 2),
            ),
            y,
        )
    return F.avg_pool2d(x / 255, 2), y


def standard(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, by MNIST's numbers, the same for every set:
    a corruption must not be undone.
    """
    return (x - 0.13) / 0.28


def many_kinds(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The images as they are and under every corruption at severities 1 and 3: what a broad source
    is trained on.
    """
    g = torch.Generator().manual_seed(seed)
    views = [x, *(corrupt(x, name, severity, g) for name in STRENGTHS for severity in (1, 3))]
    return torch.cat(views), y.repeat(len(views))


class Study:
    """Source networks for MNIST digits, one a seed, and the digits 6 to 9 of two collections as
    targets.

    digits: how many digits the source names, 6 (0 to 5: none of the target's) or 10. broad: train
        it on corrupted images, too.
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
        self.source = train_runs(
            self.model, self.fresh(self.seeds), standard(x), y, rows, rates, batch=plan.source_batch
        )

    def network(self, seed: int) -> Classifier:
        """A freshly drawn network; ten outputs, of which a target uses four."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [self.plan.side**2] + [self.plan.width] * self.plan.depth
            return Classifier(nn.Sequential(nn.Flatten(), *mlp(widths)), self.plan.width, 10)

    def fresh(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        return {
            name: p.detach()
            for name, p in stack_module_state([self.network(seed) for seed in seeds])[0].items()
        }

    def source_rows(self, digits: int) -> Tensor:
        """Rows of MNIST that a source may see: of the target's digits those that are neither
        validated nor tested on.
        """
        y = self.all["MNIST"][1]
        seen = y < digits
        seen[torch.cat(self.parts("MNIST")[1:])] = False
        return seen.nonzero()[:, 0]

    def parts(self, target: str) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers of the digits 6 to 9 for training, validation and test: a random split, the
        same for every run.
        """
        y = self.all[target][1]
        held = self.plan.held if target == "MNIST" else self.plan.held_uci
        rows = (y >= 6).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return rows[sum(held) :], rows[: held[0]], rows[held[0] : sum(held)]

    def test_sets(self, target: str, validation: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
        """What a tuned network is judged on: its own kind ("own"), the same under each corruption,
        and the other collection ("other").

        No source has seen any of it. Of the validation images only the clean ones of the target's
        own kind choose anything.
        """
        part = 1 if validation else 2
        (x, y), (x_other, y_other) = (
            tuple(values[self.parts(name)[part]] for values in self.all[name])
            for name in (target, "UCI" if target == "MNIST" else "MNIST")
        )
        g = torch.Generator().manual_seed(1)
        sets = {"own": (x, y - 6), "other": (x_other, y_other - 6)}
        sets |= {name: (corrupt(x, name, self.plan.severity, g), y - 6) for name in STRENGTHS}
        return {name: (standard(x), y) for name, (x, y) in sets.items()}

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What each source's trunk makes of its own images, x [seeds, n, ...]: [seeds, n, width]."""
        trunk = {
            name.removeprefix("trunk."): p
            for name, p in self.source.items()
            if name.startswith("trunk.")
        }
        return vmap(lambda p, x: functional_call(self.model.trunk, p, (x,)))(trunk, x)

    def runs(
        self, target: str, shots: int, methods: Sequence[str] = METHODS
    ) -> tuple[list, dict[str, Tensor]]:
        """Train every method with every setting; returns the lines (method, rate, strength) and the
        parameters, [lines x seeds, ...].
        """
        plan, S = self.plan, len(self.seeds)
        lines = [(m, *setting) for m in methods for setting in settings(m, plan)]
        x, y = self.all[target]
        pool = self.parts(target)[0]
        rows = torch.stack(
            [
                pool[torch.from_numpy(data.per_class(y[pool].numpy(), shots, seed))]
                for seed in self.seeds
            ]
        )
        new = self.fresh([1000 + seed for seed in self.seeds])

        def start(method, name):
            return (
                self.source[name] if name.startswith("trunk") and method != "scratch" else new[name]
            )

        x, y = standard(x), (y - 6).clamp_min(0)
        trained = []
        for probing in (True, False):  # apart: a probe needs its trunk once only, for the features
            some = [line for line in lines if (line[0] == "linear probe") == probing]
            if not some:
                continue
            stacked = {name: torch.cat([start(m, name) for m, _, _ in some]) for name in new}
            rates = torch.stack(
                [rate_table(m, rate, plan.steps, self.count) for m, rate, _ in some], dim=2
            ).repeat_interleave(S, dim=2)
            trunk = {name: p for name, p in stacked.items() if name.startswith("trunk")}
            if probing:
                head = copy.deepcopy(self.model)
                head.trunk = nn.Identity()
                first = {name: p for name, p in stacked.items() if name not in trunk}
                seen, answers, mine = (
                    self.features(x[rows]).flatten(0, 1),
                    y[rows].flatten(),
                    torch.arange(rows.numel()).view(rows.shape),
                )
                part = train_runs(
                    head,
                    first,
                    seen,
                    answers,
                    mine.repeat(len(some), 1),
                    rates[:, -1:],
                    batch=plan.batch,
                    seed=shots,
                )
            else:
                pull = torch.tensor([strength for _, _, strength in some]).repeat_interleave(S)
                part = train_runs(
                    self.model,
                    stacked,
                    x,
                    y,
                    rows.repeat(len(some), 1),
                    rates,
                    strength=pull,
                    source=trunk,
                    batch=plan.batch,
                    seed=shots,
                )
            trained.append((some, trunk | part))
        lines = [line for some, _ in trained for line in some]
        return lines, {name: torch.cat([part[name] for _, part in trained]) for name in new}

    def compare(self, target: str, shots: int, methods: Sequence[str] = METHODS) -> dict[str, dict]:
        """Method -> accuracies a seed on "own", "corrupted" (mean over the kinds) and "other" test
        images, and the settings chosen.

        Each seed takes the setting with the best accuracy on clean validation images, of several
        equal ones the first; nothing is chosen on corrupted or other images. "by setting":
        validation accuracies of every setting on "own" and "other", one value a seed.
        """
        lines, trained = self.runs(target, shots, methods)
        S = len(self.seeds)
        held = self.test_sets(target, validation=True)
        seen = {
            name: correct(self.model, trained, *held[name]).view(len(lines), S)
            for name in ("own", "other")
        }
        picked = {m: [i for i, line in enumerate(lines) if line[0] == m] for m in methods}
        best = {
            m: torch.tensor(mine)[seen["own"][mine].argmax(dim=0)] for m, mine in picked.items()
        }
        chosen = torch.cat([best[m] * S + torch.arange(S) for m in methods])
        tested = {
            name: (
                correct(self.model, {k: p[chosen] for k, p in trained.items()}, *part).view(
                    len(methods), S
                )
            )
            for name, part in self.test_sets(target).items()
        }
        tested["corrupted"] = torch.stack([tested[name] for name in STRENGTHS]).mean(dim=0)
        return {
            m: (
                {name: accuracy[k].tolist() for name, accuracy in tested.items()}
                | {"setting": [lines[i][1:] for i in best[m].tolist()]}
                | {
                    "by setting": [
                        {"rate": lines[i][1], "strength": lines[i][2]}
                        | {n: seen[n][i].tolist() for n in seen}
                        for i in picked[m]
                    ]
                }
            )
            for k, m in enumerate(methods)
        }


def padded(x: Tensor) -> Tensor:
    """Digits in [0, 1], `standard`, with a pixel of background on every side: [N, 1, 16, 16], which
    halves often enough for convolutions.
    """
    return standard(F.pad(x, (1, 1, 1, 1)))


def norm_source(study: Study, seed: int) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    """A convolutional source with BatchNorm for all ten MNIST digits, and the 1,000 images
    (`padded`) and labels that it was not trained on.
    """
    x, y = study.all["MNIST"]
    x = padded(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(cnn(16, (8, 16), 32, norm=True), 32, 10)
        rows = torch.randperm(len(y))
    train, held_out = ((x[part], y[part]) for part in (rows[:4000], rows[4000:]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(
        model,
        train,
        held_out,
        F.cross_entropy,
        optimizer,
        epochs=3,
        batch=64,
        progress=False,
        seed=seed,
    )
    return model, held_out


def run(
    profile: str = "cpu",
    seeds: Sequence[int] = range(5),
    plan: Digits | Photos | None = None,
    report: Callable = print,
) -> dict:
    """The whole experiment of a profile. Accuracies in [0, 1], one value a seed. Plain JSON.

    cpu: the digits, by target and number of labels. gpu: both directions of CIFAR, by pair and
        number of labels.
    """
    plan = plan or {"cpu": Digits(), "gpu": Photos()}[profile]
    if isinstance(plan, Digits):
        new, known = Study(plan, seeds), Study(plan, seeds, digits=10)
        return {
            "new classes": {str(n): new.compare("MNIST", n) for n in plan.shots},
            "known classes": {"10": known.compare("UCI", 10)},
        }
    return full_size(seeds, plan, report)
