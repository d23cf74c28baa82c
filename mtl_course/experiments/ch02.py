"""Chapter 2: what a source task gives a target task, over label counts, methods and sources.

`train_one` is one run as torch writes it: transfer by fine-tuning with SGD. The experiment needs
thousands of them, so `train_runs` trains many at once: every tensor of parameters has a leading
axis R, one entry per run, and `torch.func.vmap` turns one network's gradient into all of theirs.
The runs stay independent; a test holds the two functions equal. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from .. import data
from ..networks.trunks import Classifier, cnn, mlp
from ..runtime import device as fastest
from ..transfer.penalties import l2_sp
from .common import right_answers, stacked

KINDS = ("digits", "odd or even", "ink", "pixels permuted", "labels shuffled")


@dataclass(frozen=True)
class Plan:
    """Data sets, network and steps, and the three settings that every method may try.

    Args:
        source: the set that sources are trained on.
        targets: the sets that are transferred to.
        size: pixels a side, for source and target alike.
        channels: of the convolutions; none: fully connected.
        features: what the trunk gives the head.
        source_steps: of SGD.
        source_batch: images per step.
        shots: labels per class of the target.
        kind_shots: labels per class where kinds of sources are compared.
        stops: steps after which validation may stop a run.
        batch: images per step on the target.
        held_out: target images for validation and for the test.
        rates: learning rates that every method may try.
        strengths: of L2-SP, which tries them with the middle one of the rates.
    """

    source: str = "mnist_5k"
    targets: tuple[str, ...] = ("digits",)
    size: int = 8
    channels: tuple[int, ...] = ()
    features: int = 64
    source_steps: int = 300
    source_batch: int = 64
    shots: tuple[int, ...] = (1, 5, 10, 20, 50)
    kind_shots: int = 5
    stops: tuple[int, ...] = (25, 50, 100, 200)
    batch: int = 32
    held_out: tuple[int, int] = (400, 797)
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    strengths: tuple[float, ...] = (1e-3, 3e-3, 1e-2)


CPU = Plan()
GPU = Plan(
    source="mnist",
    targets=("usps", "svhn", "digits"),
    size=32,
    channels=(32, 64, 128),
    features=256,
    source_steps=2000,
    source_batch=128,
    stops=(50, 100, 200, 400),
)
PLANS = {"cpu": CPU, "gpu": GPU}


# ----------------------------------------------------------------------------------------- the data
def frame(images: np.ndarray, size: int) -> Tensor:
    """Grey or colour images at one size and scale: float32 [N, 1, size, size].

    They have mean 0 and variance 1 over the set. Grey digits on black are cut to their bounding
    box, padded to a square and resized by area, as the makers of the UCI set did; photographs
    (colour) are only resized.

    images: uint8 [N, H, W] or [N, H, W, 3]; colour becomes the mean of its channels.
    """
    if images.ndim == 4:
        x = torch.as_tensor(np.array(images)).float().mean(dim=3)[:, None]
        smooth = {"mode": "bilinear", "antialias": True, "align_corners": False}
        x = F.interpolate(x, size=(size, size), **smooth)
    else:
        squares = [torch.from_numpy(cut(image))[None] for image in images]
        x = torch.stack([F.adaptive_avg_pool2d(square, size) for square in squares])
    return (x - x.mean()) / x.std()


def cut(image: np.ndarray) -> np.ndarray:
    """The square around what is drawn, [H, W] -> float32 [side, side].

    Drawn are the rows and columns with a pixel above a fifth of the brightest.
    """
    on = image > 0.2 * image.max()
    rows, columns = np.flatnonzero(on.any(axis=1)), np.flatnonzero(on.any(axis=0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = box.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.float32)
    square[(side - height) // 2 :, (side - width) // 2 :][:height, :width] = box
    return square


def images_of(name: str, size: int) -> tuple[Tensor, Tensor]:
    """Images [N, 1, size, size] and labels [N] of a set, or of its training part if any."""
    ds = data.load(name)
    x, y = (ds["x_train"], ds["y_train"]) if "x_train" in ds else (ds["x"], ds["y"])
    return frame(x, size), torch.as_tensor(np.array(y))


def source_task(kind: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The images and labels of one kind of source task.

    "digits": as they are. "odd or even": the digit's parity. "ink": which tenth of the set an
    image's total ink falls in. "pixels permuted": one permutation of the pixels, the same for all
    images. "labels shuffled": the labels of other images. The permutations are fixed: the same in
    every call.
    """
    g = torch.Generator().manual_seed(2)
    if kind == "odd or even":
        return x, y % 2
    if kind == "ink":
        return x, x.flatten(1).sum(dim=1).argsort().argsort() * 10 // len(x)
    if kind == "pixels permuted":
        return x.flatten(1)[:, torch.randperm(x[0].numel(), generator=g)].view_as(x), y
    if kind == "labels shuffled":
        return x, y[torch.randperm(len(y), generator=g)]
    if kind == "digits":
        return x, y
    raise ValueError(f"There is no source task {kind!r}; there are {', '.join(KINDS)}.")


def hold_out(y: Tensor, held_out: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of the target for training, validation and test.

    The split is random, and the same for every run and method.
    """
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    validation, end = held_out[0], sum(held_out)
    return order[end:], order[:validation], order[validation:end]


# ------------------------------------------------------------------------------------------ one run
def network(plan: Plan) -> Classifier:
    """A freshly drawn network with ten outputs: convolutions if the plan has channels."""
    if plan.channels:
        trunk = cnn(plan.size, plan.channels, plan.features)
    else:
        trunk = nn.Sequential(nn.Flatten(), *mlp([plan.size**2, plan.features, plan.features]))
    return Classifier(trunk, plan.features, 10)


def train_one(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    rate: float,
    *,
    trunk: float = 1.0,
    strength: float = 0.0,
    source: Mapping[str, Tensor] | None = None,
    steps: int,
    batch: int,
    order: torch.Generator,
) -> None:
    """One run, as torch writes it: SGD with momentum 0.9 from where the model stands.

    This is what the chapter measures; `train_runs` does the same for many models at once.

    Args:
        model: changed in place.
        x: [n, 1, H, W], the labelled images of the target.
        y: int64 [n].
        rate: of the head.
        trunk: the trunk's rate as a share of the head's: 0 is a linear probe, 1 fine-tuning.
        strength: alpha of L2-SP, the pull of the trunk towards `source`.
        source: name -> the source's parameters of the trunk.
        steps: of the optimizer.
        batch: images per step; all of them if there are no more.
        order: draws the batches.
    """
    groups = [
        {"params": model.trunk.parameters(), "lr": rate * trunk},
        {"params": model.head.parameters(), "lr": rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    for _ in range(steps):
        small = len(y) <= batch
        rows = slice(None) if small else torch.randint(len(y), (batch,), generator=order)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        if source:
            loss = loss + l2_sp(dict(model.named_parameters()), source, strength)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# ------------------------------------------------------------------------------ many runs at a time
def fresh(plan: Plan, seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Parameters of new networks, name -> [len(seeds), ...]; a seed always gives the same one."""
    return {name: p.to(device) for name, p in stacked(partial(network, plan), seeds).items()}


def train_runs(
    model: nn.Module,
    start: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    rate: Tensor,
    *,
    trunk: Tensor | float = 1.0,
    strength: Tensor | None = None,
    source: Mapping[str, Tensor] | None = None,
    stops: Sequence[int],
    batch: int,
    seed: int = 0,
    precision: torch.dtype | None = None,
) -> list[dict[str, Tensor]]:
    """Train R networks at once, each as `train_one` would, by SGD with momentum 0.9.

    Args:
        model: gives the form of the networks, not their parameters.
        start: name -> [R, ...].
        x: [N, ...], one pool of examples for all runs.
        y: int64 [N].
        rows: int64 [R, n], the examples that each run may use. All runs draw the same positions.
        rate: [R].
        trunk: [R], factor on the trunk's rate, 0 where it is frozen.
        strength: [R], of L2-SP towards `source`, as `transfer.l2_sp`.
        source: name -> [R, ...].
        stops: numbers of steps.
        batch: examples per step; all n if there are no more.
        seed: of the batches.
        precision: a lower one for the forward pass; fp16 has the loss scaled by 1024.

    Returns:
        The stacked parameters after each number of steps in `stops`.
    """
    R, n = rows.shape
    device, scale = x.device, 1024.0 if precision == torch.float16 else 1.0
    if strength is None or not strength.any():
        strength, source = torch.zeros(R, device=device), {}

    def loss_of_one(params, x, y, strength, source):
        with torch.autocast(device.type, precision) if precision else nullcontext():
            logits = functional_call(model, params, (x,))
        loss = F.cross_entropy(logits.float(), y)
        return scale * (loss + l2_sp(params, source, strength) if source else loss)

    gradients_of_all = vmap(grad(loss_of_one))
    order = torch.Generator().manual_seed(seed)
    params = {name: value.clone() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in params.items()}
    checkpoints = []
    for step in range(1, max(stops) + 1):
        if n <= batch:
            some = rows
        else:
            some = rows[:, torch.randint(n, (batch,), generator=order).to(device)]
        gradients = gradients_of_all(params, x[some], y[some], strength, source)
        for name, g in gradients.items():
            pace = rate * trunk if name.startswith("trunk") else rate
            pace = pace.view(-1, *[1] * (g.ndim - 1))
            velocity[name].mul_(0.9).addcmul_(g, pace / scale)
            params[name].sub_(velocity[name])
        if step in stops:
            checkpoints.append({name: value.clone() for name, value in params.items()})
    return checkpoints


# ---------------------------------------------------------------------------------------- the study
@dataclass(frozen=True)
class Method:
    """A line of the comparison: where it starts and what it trains.

    Args:
        name: as the chapter has it.
        transferred: whether the trunk starts from the source.
        trunk: the trunk's rate as a share of the head's; 0 is frozen.
        pulled: whether the trunk is pulled towards the source (L2-SP).
        head: whether the head starts from the source as well, for a target with the same labels.
    """

    name: str
    transferred: bool
    trunk: float
    pulled: bool
    head: bool = False


SCRATCH = Method("scratch", transferred=False, trunk=1.0, pulled=False)
PROBE = Method("linear probe", transferred=True, trunk=0.0, pulled=False)
FINE_TUNING = Method("fine-tuning", transferred=True, trunk=1.0, pulled=False)
PULLED = Method("L2-SP", transferred=True, trunk=1.0, pulled=True)
KEPT = Method("fine-tuning, head kept", transferred=True, trunk=1.0, pulled=False, head=True)
METHODS = (SCRATCH, PROBE, FINE_TUNING, PULLED, KEPT)


def settings(method: Method, plan: Plan) -> list[tuple[float, float]]:
    """(learning rate, L2-SP strength) of the runs a method may try: as many for every method."""
    if method.pulled:
        return [(rate, strength) for rate in plan.rates[1:2] for strength in plan.strengths]
    return [(rate, 0.0) for rate in plan.rates]


@dataclass(frozen=True)
class Trial:
    """One training run: a method, a setting of it, and which of the study's seeds (0, 1, ...)."""

    method: Method
    rate: float
    strength: float
    place: int


class Study:
    """Source networks and one target, ready to compare.

    Args:
        plan: sizes and settings.
        seeds: one source network, one subset of the target and one new head each.
        target: a set; the plan's first one if None.
        device: the fastest one if None.
        report: is called with a line for every finished comparison.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[int],
        target: str | None = None,
        device: torch.device | None = None,
        report: Callable[[str], None] = print,
    ):
        self.plan, self.seeds, self.report = plan, list(seeds), report
        self.device = device or fastest()
        self.precision = torch.float16 if self.device.type == "cuda" else None
        self.model = network(plan).to(self.device)
        images, labels = images_of(plan.source, plan.size)
        self.x_source, self.y_source = images.to(self.device), labels.to(self.device)
        self.sources: dict[str, dict[str, Tensor]] = {}
        self.by_shots: dict[str, dict] = {}  # what `curves` measured on the present target
        self.aim(target or plan.targets[0])

    def aim(self, target: str) -> None:
        """Take another target set; the sources stay."""
        self.by_shots = {}
        images, labels = images_of(target, self.plan.size)
        self.x, self.y = images.to(self.device), labels.to(self.device)
        parts = hold_out(labels, self.plan.held_out)
        self.pool, self.validation, self.test = (rows.to(self.device) for rows in parts)

    def source(self, kind: str = "digits") -> dict[str, Tensor]:
        """Stacked source networks of this kind, one per seed; trained when first asked for."""
        if kind not in self.sources:
            x, y = source_task(kind, self.x_source, self.y_source)
            count = len(self.seeds)
            (self.sources[kind],) = train_runs(
                self.model,
                fresh(self.plan, self.seeds, self.device),
                x,
                y,
                rows=torch.arange(len(y), device=self.device).expand(count, -1),
                rate=torch.full((count,), 0.1, device=self.device),
                stops=[self.plan.source_steps],
                batch=self.plan.source_batch,
                precision=self.precision,
            )
        return self.sources[kind]

    def subsets(self, shots: int) -> Tensor:
        """Rows of the target to train on, `shots` per class: int64 [seeds, 10 * shots].

        Larger subsets contain the smaller ones.
        """
        labels = self.y[self.pool].cpu().numpy()
        chosen = np.stack([data.per_class(labels, shots, seed) for seed in self.seeds])
        return self.pool[torch.as_tensor(chosen, device=self.device)]

    def start(self, method: Method, kind: str) -> dict[str, Tensor]:
        """Where a method starts, name -> [seeds, ...]: new networks, new heads on sources, sources.

        The new networks have seeds apart from the sources'.
        """
        new = fresh(self.plan, [1000 + seed for seed in self.seeds], self.device)
        if not method.transferred:
            return new
        source = self.source(kind)
        if method.head:
            return source
        return {name: source[name] if name.startswith("trunk") else p for name, p in new.items()}

    def unchanged(self) -> list[float]:
        """Test accuracy of each source network as it is: no label of the target, nothing trained.

        It can answer because source and target have the same ten labels.
        """
        right = right_answers(self.model, self.source(), self.x[self.test], self.y[self.test])
        return right.float().view(len(self.seeds), -1).mean(dim=1).tolist()

    def trials(self, method: Method) -> list[Trial]:
        """Every setting of a method with every seed."""
        places = range(len(self.seeds))
        return [
            Trial(method, *setting, k) for setting in settings(method, self.plan) for k in places
        ]

    def train(self, trials: Sequence[Trial], shots: int, kind: str) -> list[dict[str, Tensor]]:
        """Train these runs side by side; their stacked parameters after each stop of the plan."""
        methods = dict.fromkeys(trial.method for trial in trials)
        starts = {method: self.start(method, kind) for method in methods}
        stack = {
            name: torch.stack([starts[trial.method][name][trial.place] for trial in trials])
            for name in starts[trials[0].method]
        }

        def column(values):
            return torch.tensor(values, device=self.device)

        return train_runs(
            self.model,
            stack,
            self.x,
            self.y,
            rows=self.subsets(shots)[column([trial.place for trial in trials])],
            rate=column([trial.rate for trial in trials]),
            trunk=column([trial.method.trunk for trial in trials]),
            strength=column([trial.strength for trial in trials]),
            source={name: p for name, p in stack.items() if name.startswith("trunk")},
            stops=self.plan.stops,
            batch=self.plan.batch,
            seed=shots,
            precision=self.precision,
        )

    def compare(
        self, shots: int, methods: Sequence[Method] = METHODS, kind: str = "digits"
    ) -> dict[str, dict]:
        """Test accuracy of each method with `shots` labels per class.

        Every method tries as many settings; the setting and the number of steps with the best mean
        validation accuracy over the seeds are used for the test.

        Returns:
            Method -> "accuracy", one value per seed; "own", the same with a choice per seed, on as
            many validation images as the run had for training; "validation", of the chosen setting;
            and "setting".
        """
        trials = [trial for method in methods for trial in self.trials(method)]
        checkpoints = self.train(trials, shots, kind)
        return {method.name: self._choose(method, trials, checkpoints, shots) for method in methods}

    def _choose(self, method, trials, checkpoints, shots):
        """A method's result. What may be chosen is a setting and a stop: the axis `options`."""
        mine = [k for k, trial in enumerate(trials) if trial.method is method]
        options = [
            {"rate": rate, "strength": strength, "steps": steps}
            for rate, strength in settings(method, self.plan)
            for steps in self.plan.stops
        ]
        validation = self._right(checkpoints, mine, self.validation)  # [options, seeds, images]
        test = self._right(checkpoints, mine, self.test).mean(dim=2)  # [options, seeds]
        best = int(validation.mean(dim=(1, 2)).argmax())
        per_seed = validation[..., : 10 * shots].mean(dim=2).argmax(dim=0)
        return {
            "accuracy": test[best].tolist(),
            "own": test.gather(0, per_seed[None])[0].tolist(),
            "validation": validation[best].mean(dim=1).tolist(),
            "setting": options[best],
        }

    def _right(self, checkpoints, mine, rows):
        """1.0 for right and 0.0 for wrong answers on `rows`: [settings * stops, seeds, images]."""
        by_stop = []
        for params in checkpoints:
            params = {name: p[mine] for name, p in params.items()}
            right = right_answers(self.model, params, self.x[rows], self.y[rows])
            by_stop.append(right.view(-1, len(self.seeds), len(rows)))  # [settings, seeds, images]
        return torch.stack(by_stop, dim=1).flatten(0, 1).float()

    def curves(self) -> dict[str, dict[str, dict]]:
        """`compare` for every number of labels: shots (as text) -> method -> result."""
        for shots in self.plan.shots:
            row = self.by_shots[str(shots)] = self.compare(shots)
            mean = ", ".join(f"{name} {np.mean(r['accuracy']):.3f}" for name, r in row.items())
            self.report(f"{shots:3d} labels per class: {mean}")
        return dict(self.by_shots)

    def kinds(self, kinds: Sequence[str] = KINDS) -> dict[str, dict[str, dict]]:
        """Probe and fine-tuning from each kind of source, and from scratch, by kind and method.

        All with `kind_shots` labels per class. "none" has "scratch", and as "linear probe" one on a
        random trunk: what the architecture gives without any source.
        """
        shots = self.plan.kind_shots
        results = {}
        for kind in kinds:
            if kind == "digits":
                results[kind] = self.by_shots.get(str(shots)) or self.compare(shots)
            else:
                results[kind] = self.compare(shots, [PROBE, FINE_TUNING], kind)
        scratch = (results.get("digits") or self.compare(shots))["scratch"]
        untrained = self.compare(shots, [replace(PROBE, transferred=False)])
        return results | {"none": {"scratch": scratch} | untrained}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment: target -> {"unchanged", "curves", "kinds"}, as `Study` gives them.

    Plain JSON. Accuracies are in [0, 1], with one value per seed.
    """
    plan = plan or PLANS[profile]
    study = Study(plan, seeds, report=report)
    results = {}
    for target in plan.targets:
        report(f"{plan.source} -> {target}")
        study.aim(target)
        results[target] = {
            "unchanged": study.unchanged(),
            "curves": study.curves(),
            "kinds": study.kinds(),
        }
        accuracies = {
            kind: np.mean(row["fine-tuning"]["accuracy"])
            for kind, row in results[target]["kinds"].items()
            if kind != "none"
        }
        line = ", ".join(f"{kind} {mean:.3f}" for kind, mean in accuracies.items())
        report(f"{plan.kind_shots} labels per class, fine-tuned from {line}")
    return {"shots": list(plan.shots), "kind_shots": plan.kind_shots, "targets": results}
