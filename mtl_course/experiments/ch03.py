"""Chapter 3: what makes training fast, one change at a time, and whether it is still right.

Also the fast recipe (`ch03_recipe`) at full size. Needs no Jupyter.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from .. import data
from ..data.augment import crop
from ..networks.cost import flops
from ..networks.trunks import cnn, mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.precision import Precision, short_type
from . import ch03_optimizers, ch03_recipe
from .common import seeded


@dataclass(frozen=True)
class Variant:
    """How the same step is done. Each of `VARIANTS` changes one thing of the one before.

    Args:
        resident: images lie on the device, not in a DataLoader on the host.
        last: channels last in memory.
        half: 16-bit arithmetic.
        compiled: the model is compiled.
    """

    resident: bool = False
    last: bool = False
    half: bool = False
    compiled: bool = False


VARIANTS = {
    "data loader": Variant(),
    "data on the device": Variant(resident=True),
    "+ channels last": Variant(resident=True, last=True),
    "+ 16 bits": Variant(resident=True, last=True, half=True),
    "+ compiled": Variant(resident=True, last=True, half=True, compiled=True),
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        source: the set of images.
        batch: images per step.
        steps: timed steps of a variant in one round.
        rounds: of all variants in turn.
        variants: names in `VARIANTS`. Compiling takes longer than all the rest on a CPU.
        settings: of the recipe, whose network is then taken, and which is run; None takes a small
            plain network.
    """

    source: str = "mnist_5k"
    batch: int = 64
    steps: int = 5
    rounds: int = 5
    variants: tuple[str, ...] = tuple(VARIANTS)[:4]
    settings: ch03_recipe.Settings | None = None


CPU = Plan()
GPU = Plan(
    source="cifar10",
    batch=1024,
    steps=40,
    rounds=7,
    variants=tuple(VARIANTS),
    settings=ch03_recipe.Settings(compiled=True),
)
PLANS = {"cpu": CPU, "gpu": GPU}


def sets(source: str) -> tuple[str, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(name, training set, test set) as uint8 images and int64 labels.

    CIFAR-10 that cannot be downloaded becomes the data root's part of it.
    """
    ds = data.load_or_partial(source)
    if "x" in ds:
        rows = np.random.RandomState(0).permutation(len(ds["y"]))
        parts = [(ds["x"][some], ds["y"][some]) for some in (rows[1000:], rows[:1000])]
    else:
        parts = [(ds[f"x_{part}"], ds[f"y_{part}"]) for part in ("train", "test")]
    train, test = ((torch.tensor(x), torch.tensor(y)) for x, y in parts)
    return ds.info.name, train, test


# ----------------------------------------------------------------------------------------- variants
class Trainer:
    """One way to train: `steps(n)` takes n steps on batches moved by up to two pixels."""

    def __init__(
        self,
        variant: Variant,
        plan: Plan,
        train: tuple[Tensor, Tensor],
        device: torch.device,
        seed: int = 0,
    ):
        self.plan, self.device = plan, device
        x = ch03_recipe.prepare(train[0], train[0], torch.device("cpu")).contiguous()
        layout = torch.channels_last if variant.last else torch.contiguous_format

        def network() -> nn.Module:
            if plan.settings:
                return ch03_recipe.network(x[:5000], 10, plan.settings)
            return nn.Sequential(cnn(x.shape[-1], (8, 16), 32), nn.Linear(32, 10))

        self.model = seeded(network, seed).to(device, memory_format=layout)
        if variant.compiled:
            self.model.compile()
        self.precision = Precision(short_type(device) if variant.half else None, device)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(learned, lr=0.01, momentum=0.9)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.x, self.y = x.contiguous(memory_format=layout), train[1]
        if variant.resident:
            self.x, self.y = self.x.to(device), self.y.to(device)
        self.batches = self._resident(seed) if variant.resident else self._loaded(seed)
        self.move = crop(2)

    def _resident(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.Generator(self.device).manual_seed(seed)
        batch = self.plan.batch
        whole = len(self.y) // batch * batch  # a last smaller batch is left out
        while True:
            rows = torch.randperm(len(self.y), generator=order, device=self.device)
            for some in rows[:whole].split(batch):
                yield self.x[some], self.y[some]

    def _loaded(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            TensorDataset(self.x, self.y),
            self.plan.batch,
            shuffle=True,
            drop_last=True,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(seed),
        )
        while True:
            for x, y in loader:
                yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def gradients(self, x: Tensor, y: Tensor) -> None:
        """Those of the mean loss on one batch, left in the parameters."""
        with self.precision.forward():
            logits = self.model(x)
        self.optimizer.zero_grad()
        self.precision.backward(F.cross_entropy(self.precision.full(logits), y))

    def steps(self, n: int) -> None:
        """Take n optimizer steps."""
        for _ in range(n):
            x, y = next(self.batches)
            self.gradients(self.move(x, self.generator), y)
            self.precision.step(self.optimizer)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Wall-clock time of `work`, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def interleaved(
    jobs: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every job in every round, after one round that is not counted.

    All jobs take turns, so that a slow minute hits them all.
    """
    times = {name: [] for name in jobs}
    for k in range(rounds + 1):
        for name, job in jobs.items():
            spent = seconds(job, device)
            if k:
                times[name].append(spent)
    return times


def throughput(plan: Plan, device: torch.device) -> dict[str, list[float]]:
    """Variant -> images per second, one value per round."""
    _, train, _ = sets(plan.source)
    trainers = {name: Trainer(VARIANTS[name], plan, train, device) for name in plan.variants}
    jobs = {name: partial(trainer.steps, plan.steps) for name, trainer in trainers.items()}
    spent = interleaved(jobs, plan.rounds, device)
    return {name: [plan.steps * plan.batch / s for s in values] for name, values in spent.items()}


def agreement(plan: Plan, device: torch.device, seed: int = 0) -> dict[str, float]:
    """Variant -> distance of its gradient from the plain one on one and the same batch.

    As a share of the plain gradient's length; plain is the plan's first variant.
    """
    _, train, _ = sets(plan.source)
    order = np.random.RandomState(seed).permutation(len(train[1]))
    rows = torch.from_numpy(order[: plan.batch])
    gradients = {}
    for name in plan.variants:
        trainer = Trainer(VARIANTS[name], plan, train, device, seed)
        x = trainer.x[rows.to(trainer.x.device)]
        trainer.gradients(x.to(device), train[1][rows].to(device))
        scaler = trainer.precision.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        learned = [p for p in trainer.model.parameters() if p.requires_grad]
        gradients[name] = torch.cat([p.grad.flatten().double() / scale for p in learned])
    plain = gradients[plan.variants[0]]
    return {name: float((g - plain).norm() / plain.norm()) for name, g in gradients.items()}


# --------------------------------------------------------------------------------------- arithmetic
def operations(model: nn.Module, x: Tensor) -> int:
    """Operations of a forward and a backward pass; a multiplication and an addition are two."""
    return len(x) * flops(model, x, backward=True)


# --------------------------------------------------------------------------------- 16-bit underflow
def short_run(weight: float, kind: str, seed: int, epochs: int = 4) -> dict[str, float]:
    """Train a small network on digits with the loss times `weight`; what the arithmetic loses.

    Adam with a tiny epsilon does not see the weight, so that in exact arithmetic all weights would
    train alike. Every second pixel is used.

    Args:
        weight: of the loss.
        kind: "float32"; "float16", forward and backward pass in float16 arithmetic; "float16,
            scaled", the same with a gradient scaler.
        seed: of the network and of the order of the images.
        epochs: of 1,000 images.

    Returns:
        "accuracy" on the test images, and "zeros", the share of zeros in the first gradient of the
        first layer, over the pixels that vary.
    """
    _, train, test = sets("mnist_5k")
    x, x_test = (
        ch03_recipe.prepare(images[:, ::2, ::2], train[0], torch.device("cpu")).flatten(1)
        for images, _ in (train, test)
    )
    torch.manual_seed(seed)
    model = nn.Sequential(*mlp([196, 32]), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-16)
    precision = Precision(None if kind == "float32" else torch.float16, x.device)
    if kind == "float16":
        precision.scaler = None
    order, zeros = torch.Generator().manual_seed(seed), None
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order)[:1000].split(100):
            optimizer.zero_grad()
            with precision.forward():
                logits = model(x[rows])
            precision.backward(weight * F.cross_entropy(precision.full(logits), train[1][rows]))
            if zeros is None:
                zeros = float((model[0].weight.grad[:, x[rows].std(0) > 0] == 0).float().mean())
            precision.step(optimizer)
    with torch.no_grad():
        right = (model(x_test).argmax(1) == test[1]).float().mean()
    return {"accuracy": float(right), "zeros": zeros}


# ---------------------------------------------------------------------------------------- all of it
def fast_recipe(
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device,
    report: Callable[[str], None] = print,
) -> dict:
    """The recipe, once per seed: accuracy after each epoch and the seconds until then.

    "source" is the name of the set, which may be a part of CIFAR-10.
    """
    source, train, test = sets(plan.source)
    settings = replace(plan.settings, precision=short_type(device))
    history = []

    def one(seed):
        return asdict(ch03_recipe.train(train, test, settings, seed, device)[1])

    for seed in seeds:
        log = kept(f"{source}, seed {seed}", one, seed)
        history.append(log)
        report(f"{source}, seed {seed}: {log['accuracy'][-1]:.4f} after {log['seconds'][-1]:.1f} s")
    sizes = {"images": len(train[1]), "test images": len(test[1])}
    return {"source": source, **sizes, "history": history}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Throughput and agreement of the variants, and the recipe once per seed. Plain JSON.

    The recipe is run where the plan has settings for it: with the gpu profile.
    """
    plan, device = plan or PLANS[profile], fastest()
    results = {}
    with torch.backends.cudnn.flags(benchmark=True):
        results["images a second"] = kept("images a second", throughput, plan, device)
        for name, speeds in results["images a second"].items():
            report(f"{name}: {np.median(speeds):,.0f} images per second")
        distances = results["gradient's distance"] = agreement(plan, device)
        report(f"gradients: at most {max(distances.values()):.1%} away from the plain one")
        if plan.settings is not None:
            results["recipe"] = fast_recipe(plan, seeds, device, report)
    return results


# ------------------------------------------------------------------------------ the chapter's part
def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Prepared digits [N, 1, 28, 28] with labels [N]: the training set and the test set."""
    _, train, test = sets("mnist_5k")
    return tuple(
        (ch03_recipe.prepare(images, train[0], torch.device("cpu")), labels)
        for images, labels in (train, test)
    )


def run_optimizers(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: ch03_optimizers.Plan | None = None,
) -> dict:
    """`ch03_optimizers.run` on the digits."""
    return ch03_optimizers.run(*digits(), seeds, report, plan)


RECORDS = {"optimizers": run_optimizers}
