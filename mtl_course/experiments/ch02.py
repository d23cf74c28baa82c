"""Chapter 2: what a source task gives a target task, over label counts, methods and sources.

`train_one` is one run as torch writes it: transfer by SGD from where a model stands. `Bench` holds
one seed's source networks and its draw of the target, and lets every method try as many settings;
`run` chooses among them on validation data. `train_runs` trains many networks at once, as chapter
16 does: every tensor of parameters has a leading axis R, one entry per run. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from .. import data
from ..networks.trunks import Classifier, cnn
from ..records.pieces import kept
from ..runtime import device as fastest
from ..transfer.penalties import l2_sp
from .common import seeded

KINDS = ("digits", "odd or even", "ink", "pixels permuted", "labels shuffled")
MNIST = ("mnist_5k", "mnist_t10k")


@dataclass(frozen=True)
class Plan:
    """Data sets, network and steps, and the settings that every method may try.

    Args:
        source: the sets that sources are trained on, one after another.
        targets: the sets that are transferred to.
        size: pixels a side, for source and target alike.
        channels: of the convolutions.
        features: what the trunk gives the head.
        source_steps: of SGD at the rate 0.1; a quarter as many at 0.01 follow.
        source_batch: images per step.
        shots: labels per class of the target.
        kind_shots: labels per class where kinds of sources are compared.
        kinds: of sources beside "digits".
        stops: steps after which validation may stop a run.
        long: from this many labels per class on, runs go on to `last`, and L2-SP is left out.
        last: one more stop of the long runs.
        batch: images per step on the target.
        held_out: validation images of the target; and test images, if it has no test set.
        rates: learning rates that every method may try.
        strengths: of L2-SP, which tries them with `pulled_rate`: as many, or none without L2-SP.
        pulled_rate: learning rate of L2-SP.
        penalties: scikit-learn's C of a converged probe, which has no rate: as many.
        chosen: (method, rate) of the methods whose rate was chosen before, on other seeds; such a
            method tries no other.
    """

    source: tuple[str, ...] = MNIST
    targets: tuple[str, ...] = ("usps",)
    size: int = 16
    channels: tuple[int, ...] = (8, 16)
    features: int = 64
    source_steps: int = 600
    source_batch: int = 64
    shots: tuple[int, ...] = (1, 3, 10, 30, 100, 300)
    kind_shots: int = 3
    kinds: tuple[str, ...] = KINDS[1:]
    stops: tuple[int, ...] = (50, 200)
    long: int = 100
    last: int = 600
    batch: int = 32
    held_out: tuple[int, int] = (500, 797)
    rates: tuple[float, ...] = (0.001, 0.006, 0.035, 0.2)
    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    pulled_rate: float = 0.035
    penalties: tuple[float, ...] = (1e-3, 0.03, 1.0, 30.0)
    chosen: tuple[tuple[str, float], ...] = ()


CPU = Plan()
GPU = Plan(
    source=("mnist",),
    targets=("usps", "svhn"),
    size=32,
    channels=(32, 64, 128),
    features=256,
    source_steps=2000,
    source_batch=128,
)
READER = Plan(
    source=("mnist_5k",),
    targets=("digits",),
    size=8,
    source_steps=200,
    shots=(1, 3, 10, 30),
    kinds=("ink",),
    stops=(150,),
    long=1000,
    held_out=(400, 797),
    strengths=(),
    penalties=(1.0,),
    chosen=(("scratch", 0.06), ("fine-tuning", 0.02), ("fine-tuning, head kept", 0.006)),
)
# What the reader's methods could choose from, on other seeds; see `run_rates`.
TRIED = replace(
    READER,
    rates=(0.002, 0.006, 0.02, 0.06, 0.2),
    penalties=(1e-3, 0.03, 1.0, 30.0),
    chosen=(),
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
    ds = _stored(name)
    x, y = (ds["x_train"], ds["y_train"]) if "x_train" in ds else (ds["x"], ds["y"])
    return frame(x, size), torch.as_tensor(np.array(y))


def _stored(name: str) -> Mapping[str, np.ndarray]:
    """A set, from a data root where one has it, else from where torchvision fetches it."""
    try:
        return data.load({"usps": "usps_h5"}.get(name, name))
    except data.DataError:
        if name == "mnist_t10k":
            whole = data.load("mnist")
            return {"x": whole["x_test"], "y": whole["y_test"]}
        if name != "usps":
            raise
        return data.load(name)


@cache
def _target(name: str, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and labels of a target, and the row numbers of pool, validation and test.

    A set's own test images are the test; a set that has none is split at random. The split is the
    same for every seed and method.
    """
    ds = _stored(name)
    if "x_test" not in ds:
        x, y = images_of(name, plan.size)
        return x, y, *hold_out(y, plan.held_out)
    images = np.concatenate([ds["x_train"], ds["x_test"]])
    x, y = frame(images, plan.size), np.concatenate([ds["y_train"], ds["y_test"]])
    count = len(ds["y_train"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    validation = plan.held_out[0]
    y = torch.as_tensor(y.astype(np.int64))
    return x, y, order[validation:], order[:validation], torch.arange(count, len(y))


@cache
def _source(plan: Plan) -> tuple[Tensor, Tensor]:
    """Images and labels of all of a plan's source sets."""
    parts = [images_of(name, plan.size) for name in plan.source]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


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
    """A freshly drawn network with BatchNorm and ten outputs."""
    return Classifier(cnn(plan.size, plan.channels, plan.features, norm=True), plan.features, 10)


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
    stops: Sequence[int] = (),
    measure: Callable[[Classifier], dict] = lambda model: {},
) -> list[dict]:
    """One run, as torch writes it: SGD with momentum 0.9 from where the model stands.

    This is what the chapter measures; `train_runs` does the same for many models at once, where
    these have no BatchNorm.

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
        stops: numbers of steps after which to measure.
        measure: what to measure, called with the model in evaluation mode.

    Returns:
        What was measured, a dictionary per stop.
    """
    found = []
    groups = [
        {"params": model.trunk.parameters(), "lr": rate * trunk},
        {"params": model.head.parameters(), "lr": rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    for step in range(1, steps + 1):
        model.train()
        small = len(y) <= batch
        rows = slice(None) if small else torch.randint(len(y), (batch,), generator=order)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        if source:
            loss = loss + l2_sp(dict(model.named_parameters()), source, strength)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in stops:
            found.append(measure(model.eval()))
    return found


# ------------------------------------------------------------------------------ many runs at a time
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
        head: whether the head starts from the source as well, for a target with the same labels.
        pulled: whether the trunk is pulled towards the source (L2-SP).
        frozen: whether only the head is trained: a logistic regression, to convergence.
    """

    name: str
    transferred: bool = True
    head: bool = False
    pulled: bool = False
    frozen: bool = False


SCRATCH = Method("scratch", transferred=False)
PROBE = Method("linear probe", frozen=True)
FINE_TUNING = Method("fine-tuning")
PULLED = Method("L2-SP", pulled=True)
KEPT = Method("fine-tuning, head kept", head=True)
METHODS = (SCRATCH, PROBE, FINE_TUNING, PULLED, KEPT)
UNTRAINED = Method("untrained trunk", transferred=False, frozen=True)


def settings(method: Method, plan: Plan) -> list[dict[str, float]]:
    """The settings a method may try: as many for every method that is run."""
    before = dict(plan.chosen)
    if method.name in before:
        return [{"rate": before[method.name]}]
    if method.frozen:
        return [{"C": c} for c in plan.penalties]
    if method.pulled:
        return [{"rate": plan.pulled_rate, "strength": strength} for strength in plan.strengths]
    return [{"rate": rate} for rate in plan.rates]


class Bench:
    """One seed: its source networks, its draw of the target, its new heads.

    Args:
        plan: sizes and settings.
        seed: of the source networks, the labelled images and the new parameters.
        target: a set; the plan's first one if None.
    """

    def __init__(self, plan: Plan, seed: int, target: str | None = None):
        self.plan, self.seed, self.device = plan, seed, fastest()
        self.x_source, self.y_source = _source(plan)
        x, y, self.pool, self.validation, self.test = _target(target or plan.targets[0], plan)
        self.x, self.y = x.to(self.device), y.to(self.device)
        self._sources: dict[str, Classifier] = {}

    def source(self, kind: str = "digits") -> Classifier:
        """The source network of this kind, in evaluation mode; trained when first asked for."""
        if kind not in self._sources:
            x, y = source_task(kind, self.x_source, self.y_source)
            x, y = x.to(self.device), y.to(self.device)
            model = seeded(lambda: network(self.plan), self.seed).to(self.device)
            order = torch.Generator().manual_seed(self.seed)
            for rate, steps in ((0.1, self.plan.source_steps), (0.01, self.plan.source_steps // 4)):
                batch = self.plan.source_batch
                train_one(model, x, y, rate, steps=steps, batch=batch, order=order)
            self._sources[kind] = model.eval()
        return self._sources[kind]

    def labelled(self, shots: int) -> Tensor:
        """Rows of the target to train on, `shots` per class; larger sets contain the smaller."""
        labels = self.y[self.pool].cpu().numpy()
        return self.pool[torch.as_tensor(data.per_class(labels, shots, self.seed))]

    def start(self, method: Method, kind: str = "digits") -> Classifier:
        """A network where a method starts: a new one, the source with a new head, or the source.

        New parameters have seeds apart from the sources'.
        """
        model = seeded(lambda: network(self.plan), 1000 + self.seed).to(self.device)
        if method.transferred:
            source = self.source(kind).state_dict()
            names = [n for n in source if method.head or n.startswith("trunk")]
            model.load_state_dict({n: source[n] for n in names}, strict=False)
        return model

    @torch.no_grad()
    def measure(self, model: Classifier, shots: int) -> dict[str, float]:
        """Accuracy on validation and test, and on as many validation images as were trained on."""
        right = {
            part: (model(self.x[rows]).argmax(1) == self.y[rows]).float()
            for part, rows in (("validation", self.validation), ("test", self.test))
        }
        own = right["validation"][: 10 * shots]
        return {part: float(r.mean()) for part, r in right.items()} | {"own": float(own.mean())}

    def unchanged(self) -> float:
        """Test accuracy of the source network as it is: no label of the target, nothing trained.

        It can answer because source and target have the same ten labels.
        """
        return self.measure(self.source(), 1)["test"]

    def tries(self, method: Method, shots: int, kind: str = "digits") -> list[dict]:
        """Every setting and stop that a method may try, with what was measured there."""
        rows = self.labelled(shots)
        x, y = self.x[rows], self.y[rows]
        if method.frozen:
            return self._probes(self.start(method, kind).eval(), x, y, shots)
        found = []
        long = shots >= self.plan.long
        stops = (*self.plan.stops, *((self.plan.last,) if long else ()))
        for setting in settings(method, self.plan):
            model = self.start(method, kind)
            before = {n: p.detach().clone() for n, p in model.named_parameters() if "trunk" in n}
            measured = train_one(
                model,
                x,
                y,
                setting["rate"],
                strength=setting.get("strength", 0.0),
                source=before if method.pulled else None,
                steps=stops[-1],
                batch=self.plan.batch,
                order=torch.Generator().manual_seed(self.seed),
                stops=stops,
                measure=lambda model: self.measure(model, shots),
            )
            found += [setting | {"steps": n} | m for n, m in zip(stops, measured, strict=True)]
        return found

    def _probes(self, model: Classifier, x: Tensor, y: Tensor, shots: int) -> list[dict]:
        """Heads on a frozen trunk: converged logistic regressions on standardised features."""
        with torch.no_grad():
            features = model.trunk(x).double().cpu()
        mean, spread = features.mean(dim=0), features.std(dim=0).clamp_min(1e-3)
        found = []
        for setting in settings(PROBE, self.plan):
            fit = LogisticRegression(C=setting["C"], max_iter=5000)
            fit.fit(((features - mean) / spread).numpy(), y.cpu().numpy())
            weight = torch.from_numpy(fit.coef_) / spread
            bias = torch.from_numpy(fit.intercept_) - weight @ mean
            model.head.weight.data.copy_(weight)
            model.head.bias.data.copy_(bias)
            found.append(setting | self.measure(model, shots))
        return found

    def curves(self) -> dict[str, dict[str, list[dict]]]:
        """shots (as text) -> method -> tries."""
        return {
            str(shots): {
                method.name: self.tries(method, shots)
                for method in METHODS
                if not method.pulled or (self.plan.strengths and shots < self.plan.long)
            }
            for shots in self.plan.shots
        }

    def kinds(self) -> dict[str, dict[str, list[dict]]]:
        """Probe and fine-tuning from each kind of source but digits, which `curves` has.

        Returns:
            kind -> method -> tries, with `kind_shots` labels per class. "none" has the probe of an
            untrained trunk: what the architecture gives without any source.
        """
        shots = self.plan.kind_shots
        found = {
            kind: {method.name: self.tries(method, shots, kind) for method in (PROBE, FINE_TUNING)}
            for kind in self.plan.kinds
        }
        return found | {"none": {PROBE.name: self.tries(UNTRAINED, shots)}}


def piece(plan: Plan, seed: int, target: str) -> dict:
    """Everything of one seed and one target: what a record keeps if it is stopped."""
    bench = Bench(plan, seed, target)
    return {"unchanged": bench.unchanged(), "curves": bench.curves(), "kinds": bench.kinds()}


MEASURED = ("validation", "test", "own")


def choose(tries: Sequence[Sequence[dict]]) -> dict:
    """A method's result from its tries, one list per seed, all in the same order.

    The setting and the number of steps with the best mean validation accuracy over the seeds are
    used for the test.

    Returns:
        "accuracy" on the test, one value per seed; "own", the same with a choice per seed, on as
        many validation images as the run had for training; "validation", of the chosen setting; and
        "setting".
    """
    validation, test, own = (
        np.array([[one[part] for one in seed] for seed in tries]) for part in MEASURED
    )
    best = int(validation.mean(axis=0).argmax())
    return {
        "accuracy": test[:, best].tolist(),
        "own": test[np.arange(len(tries)), own.argmax(axis=1)].tolist(),
        "validation": validation[:, best].tolist(),
        "setting": {k: v for k, v in tries[0][best].items() if k not in MEASURED},
    }


def labels_needed(shots: Sequence[int], scratch: Sequence[float], reached: float) -> float:
    """Labels per class with which scratch reaches an accuracy, between the measured ones.

    Args:
        shots: numbers of labels per class, rising.
        scratch: accuracy from scratch with each.
        reached: the accuracy to be reached.

    Returns:
        The smallest number, on straight lines over log(shots); the first of `shots` where that is
        enough already, and inf where the last one is not.

    Example:
        >>> round(labels_needed([1, 10, 100], [0.4, 0.6, 0.8], reached=0.7), 1)
        31.6
        >>> labels_needed([1, 10, 100], [0.4, 0.6, 0.8], reached=0.9)
        inf
    """
    if scratch[0] >= reached:
        return float(shots[0])
    for k in range(1, len(shots)):
        low, high = scratch[k - 1], scratch[k]
        if high >= reached:
            share = (reached - low) / (high - low)
            return float(shots[k - 1] * (shots[k] / shots[k - 1]) ** share)
    return float("inf")


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment: target -> {"unchanged", "curves", "kinds"}.

    "unchanged" has one accuracy per seed, the others method -> `choose`'s result, by number of
    labels or kind of source. Plain JSON. Accuracies are in [0, 1].
    """
    plan = plan or PLANS[profile]
    results = {}
    for target in plan.targets:
        found = []
        for seed in seeds:
            found.append(kept(f"{target}, seed {seed}", piece, plan, seed, target))
            report(f"{target}, seed {seed}: {_in_words(found[-1])}")
        results[target] = {"unchanged": [one["unchanged"] for one in found]} | {
            part: {
                key: {
                    name: choose([one[part][key][name] for one in found])
                    for name in found[0][part][key]
                }
                for key in found[0][part]
            }
            for part in ("curves", "kinds")
        }
    return {"shots": list(plan.shots), "kind_shots": plan.kind_shots, "targets": results}


def validated(plan: Plan, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> setting (as text) -> labels per class -> validation accuracy after all steps.

    And under "ink" fine-tuning from that source, with `kind_shots` labels per class.
    """
    bench, found = Bench(plan, seed), {}

    def note(name: str, shots: int, tries: list[dict]) -> None:
        for one in tries:
            setting = str(one["C"] if "C" in one else one["rate"])
            by_shots = found.setdefault(name, {}).setdefault(setting, {})
            by_shots[str(shots)] = one["validation"]

    for method in (m for m in METHODS if not m.pulled):
        for shots in plan.shots:
            note(method.name, shots, bench.tries(method, shots))
    note("ink", plan.kind_shots, bench.tries(FINE_TUNING, plan.kind_shots, "ink"))
    return found


def run_rates(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = TRIED
) -> dict:
    """Which rate each of the reader's methods should have: one for all numbers of labels.

    Its seeds are to be others than those of the reader's run.

    Returns:
        "validation": method -> setting (as text) -> one value per seed, the mean over the numbers
        of labels; "chosen": method -> the setting with the best mean. Plain JSON.
    """
    found = []
    for seed in seeds:
        found.append(kept(f"{plan}, rates, seed {seed}", validated, plan, seed))
        report(f"seed {seed}: validated")
    means = {
        name: {
            setting: [float(np.mean(list(one[name][setting].values()))) for one in found]
            for setting in found[0][name]
        }
        for name in found[0]
    }
    chosen = {name: max(row, key=lambda s: np.mean(row[s])) for name, row in means.items()}
    return {"validation": means, "chosen": {name: float(s) for name, s in chosen.items()}}


# Written by ``python -m mtl_course.record 02 --part rates --seeds 100:105``.
RECORDS = {"rates": run_rates}


def _in_words(found: dict) -> str:
    """The validation accuracies of one seed, the best of each method, in a line."""
    lines = [f"as it is {found['unchanged']:.3f}"]
    for shots, methods in found["curves"].items():
        best = {name: max(one["validation"] for one in tries) for name, tries in methods.items()}
        line = ", ".join(f"{name} {value:.3f}" for name, value in best.items())
        lines.append(f"{shots} labels per class: {line}")
    return "; ".join(lines)
