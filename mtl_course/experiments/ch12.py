"""Chapter 12: how much to unfreeze, and at which rate.

Judged on pictures like those tuned on, and on others. CPU profile: small digits, all methods
trained at once (`ch12_rates`). GPU profile: CIFAR-10 and CIFAR-100 (`ch12_gpu`). Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.corruptions import STRENGTHS, corrupt
from ..networks.trunks import Classifier, cnn, mlp
from ..training.loop import fit
from ..transfer.schedules import layers
from .ch12_gpu import Photos, full_size
from .ch12_rates import CONVERGED, METHODS, converged_heads, correct, rate_table, train_runs
from .ch12_worth import run_longer, run_worth
from .common import many_outputs, seeded, stacked

__all__ = [
    "CONVERGED",
    "METHODS",
    "PLANS",
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
    """Sizes of the experiment on digits, and the settings that each method may try.

    Args:
        side: pixels a side.
        width: of the hidden layers.
        depth: hidden layers.
        source_steps: of SGD.
        source_batch: images per step.
        steps: of SGD on the target.
        batch: images per step.
        shots: labels per class.
        held_out: target images for validation and for the test.
        held_out_uci: the same, of the UCI digits.
        severity: of the corruptions in the test.
        rates: that every method but L2-SP may try.
        pulls: rate and strength of L2-SP: as many.
        penalties: scikit-learn's C of a converged probe, which has no rate: as many.
    """

    side: int = 14
    width: int = 64
    depth: int = 3
    source_steps: int = 400
    source_batch: int = 64
    steps: int = 100
    batch: int = 32
    shots: tuple[int, ...] = (3, 10, 50)
    held_out: tuple[int, int] = (400, 800)
    held_out_uci: tuple[int, int] = (150, 300)
    severity: int = 2
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    pulls: tuple[tuple[float, float], ...] = (
        (0.01, 1e-2),
        (0.03, 1e-3),
        (0.03, 1e-2),
        (0.03, 1e-1),
        (0.1, 1e-2),
    )
    penalties: tuple[float, ...] = (0.001, 0.03, 1.0, 30.0, 1000.0)


PLANS: dict[str, Digits | Photos] = {"cpu": Digits(), "gpu": Photos()}


def settings(method: str, plan: Digits) -> list[tuple[float, float]]:
    """(rate, strength) of the runs that a method may try.

    The strength is that of L2-SP, and the C of a converged probe, which has no rate.
    """
    if method == CONVERGED:
        return [(0.0, strength) for strength in plan.penalties]
    return list(plan.pulls) if method == "L2-SP" else [(rate, 0.0) for rate in plan.rates]


@cache
def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Digits [N, 1, 14, 14] in [0, 1] and labels [N].

    MNIST is averaged over 2 x 2 pixels, UCI digits are enlarged to MNIST's place in the frame.
    """
    ds = data.load(name)
    x, y = torch.from_numpy(np.array(ds.x)).float()[:, None], torch.from_numpy(np.array(ds.y))
    if name == "digits":
        larger = F.interpolate(x / 16, size=(10, 10), mode="bilinear", align_corners=False)
        return F.pad(larger, (2, 2, 2, 2)), y
    return F.avg_pool2d(x / 255, 2), y


def standard(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, by MNIST's numbers.

    They are the same for every set: a corruption must not be undone.
    """
    return (x - 0.13) / 0.28


def many_kinds(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The images as they are and under every corruption at severities 1 and 3.

    This is what a broad source is trained on.
    """
    g = torch.Generator().manual_seed(seed)
    views = [x, *(corrupt(x, name, severity, g) for name in STRENGTHS for severity in (1, 3))]
    return torch.cat(views), y.repeat(len(views))


class Study:
    """Source networks for MNIST digits, one per seed, and two collections of targets.

    The targets are the digits 6 to 9.

    Args:
        plan: sizes and settings.
        seeds: one source network each.
        digits: how many digits the source names, 6 (0 to 5: none of the target's) or 10.
        broad: train the source on corrupted images, too.
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
        return seeded(self._build, seed)

    def _build(self) -> Classifier:
        widths = [self.plan.side**2] + [self.plan.width] * self.plan.depth
        return Classifier(nn.Sequential(nn.Flatten(), *mlp(widths)), self.plan.width, 10)

    def fresh(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Parameters of freshly drawn networks, name -> [len(seeds), ...]."""
        return stacked(self._build, seeds)

    def source_rows(self, digits: int) -> Tensor:
        """Rows of MNIST that a source may see.

        Of the target's digits these are the ones that are neither validated nor tested on.
        """
        y = self.all["MNIST"][1]
        seen = y < digits
        seen[torch.cat(self.parts("MNIST")[1:])] = False
        return seen.nonzero()[:, 0]

    def parts(self, target: str) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers of the digits 6 to 9 for training, validation and test.

        The split is random, and the same for every run.
        """
        y = self.all[target][1]
        held_out = self.plan.held_out if target == "MNIST" else self.plan.held_out_uci
        rows = (y >= 6).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return rows[sum(held_out) :], rows[: held_out[0]], rows[held_out[0] : sum(held_out)]

    def test_sets(self, target: str, validation: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
        """What a tuned network is judged on: name -> images and labels from 0.

        Its own kind ("own"), the same under each corruption, and the other collection ("other"). No
        source has seen any of it. Of the validation images only the clean ones of the target's own
        kind choose anything.
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
        """What each source's trunk makes of its images x [seeds, n, ...]: [seeds, n, width]."""
        prefix = "trunk."
        trunk = {
            name.removeprefix(prefix): p
            for name, p in self.source.items()
            if name.startswith(prefix)
        }
        return many_outputs(self.model.trunk)(trunk, x)

    def runs(
        self, target: str, shots: int, methods: Sequence[str] = METHODS
    ) -> tuple[list, dict[str, Tensor]]:
        """Train every method with every setting, side by side.

        `methods` may hold `CONVERGED` beside those that have a table.

        Returns:
            The lines (method, rate, strength), and the parameters, name -> [lines x seeds, ...].
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
        features = self.features(standard(x)[rows])

        def start(method, name):
            return (
                self.source[name] if name.startswith("trunk") and method != "scratch" else new[name]
            )

        x, y = standard(x), (y - 6).clamp_min(0)
        trained = []
        if some := [line for line in lines if line[0] == CONVERGED]:
            trunk = {n: p.repeat(len(some), *[1] * (p.ndim - 1)) for n, p in self.source.items()}
            strengths = [strength for _, _, strength in some]
            trained.append(
                (
                    some,
                    trunk | converged_heads(features, y[rows], strengths, len(new["head.bias"][0])),
                )
            )
        # Probes apart: they need their trunk once only, for the features.
        for probing in (True, False):
            some = [
                line
                for line in lines
                if (line[0] == "linear probe") == probing and line[0] != CONVERGED
            ]
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
                places = torch.arange(rows.numel()).view(rows.shape)
                part = train_runs(
                    head,
                    first,
                    features.flatten(0, 1),
                    y[rows].flatten(),
                    places.repeat(len(some), 1),
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
        """Every method with `shots` labels per class, each seed with its best setting.

        Best by accuracy on clean validation images, of several equal ones the first; nothing is
        chosen on corrupted or other images.

        Returns:
            Method -> accuracies per seed on "own", "corrupted" (mean over the kinds), each kind and
            "other" test images; "setting", the chosen ones; "by setting", validation accuracies of
            every setting on "own" and "other", one value per seed.
        """
        lines, trained = self.runs(target, shots, methods)
        S = len(self.seeds)
        validation = self.test_sets(target, validation=True)
        seen = {
            name: correct(self.model, trained, *validation[name]).view(len(lines), S)
            for name in ("own", "other")
        }
        lines_of = {m: [i for i, line in enumerate(lines) if line[0] == m] for m in methods}
        best = {m: torch.tensor(i)[seen["own"][i].argmax(dim=0)] for m, i in lines_of.items()}
        chosen = torch.cat([best[m] * S + torch.arange(S) for m in methods])
        winners = {name: p[chosen] for name, p in trained.items()}
        tested = {
            name: correct(self.model, winners, *images).view(len(methods), S)
            for name, images in self.test_sets(target).items()
        }
        tested["corrupted"] = torch.stack([tested[name] for name in STRENGTHS]).mean(dim=0)
        rows = {}
        for k, m in enumerate(methods):
            row = {name: accuracy[k].tolist() for name, accuracy in tested.items()}
            row["setting"] = [lines[i][1:] for i in best[m].tolist()]
            row["by setting"] = [
                {"rate": lines[i][1], "strength": lines[i][2]}
                | {name: accuracy[i].tolist() for name, accuracy in seen.items()}
                for i in lines_of[m]
            ]
            rows[m] = row
        return rows


def padded(x: Tensor) -> Tensor:
    """Digits in [0, 1], `standard`, with a pixel of background on every side: [N, 1, 16, 16].

    That halves often enough for convolutions.
    """
    return standard(F.pad(x, (1, 1, 1, 1)))


def norm_source(study: Study, seed: int) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    """A convolutional source with BatchNorm for all ten MNIST digits.

    Also the 1,000 images (`padded`) and labels that it was not trained on.
    """
    x, y = study.all["MNIST"]
    x = padded(x)

    def build() -> tuple[Classifier, Tensor]:
        model = Classifier(cnn(16, (8, 16), 32, norm=True), 32, 10)
        return model, torch.randperm(len(y))

    model, rows = seeded(build, seed)
    train, held_out = ((x[part], y[part]) for part in (rows[:4000], rows[4000:]))
    fit(
        model,
        train,
        held_out,
        F.cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        epochs=3,
        batch=64,
        progress=False,
        seed=seed,
    )
    return model, held_out


# Written by ``python -m mtl_course.record 12 --part photos --seeds 5``.
RECORDS = {"photos": run_worth, "longer": run_longer}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Digits | Photos | None = None,
) -> dict:
    """The whole experiment of a profile; accuracies in [0, 1], one value per seed. Plain JSON.

    cpu: the digits, by target and number of labels. gpu: both directions of CIFAR, by pair and
    number of labels.
    """
    plan = plan or PLANS[profile]
    if isinstance(plan, Photos):
        return full_size(seeds, plan, report)
    results = {"new classes": {}, "known classes": {}}

    def compare(kind: str, study: Study, target: str, shots: int) -> None:
        rows = results[kind][str(shots)] = study.compare(target, shots)
        line = ", ".join(f"{method} {np.mean(row['own']):.3f}" for method, row in rows.items())
        report(f"{kind}, {target}, {shots} labels per class: {line}")

    study = Study(plan, seeds)
    for shots in plan.shots:
        compare("new classes", study, "MNIST", shots)
    compare("known classes", Study(plan, seeds, digits=10), "UCI", 10)
    return results
