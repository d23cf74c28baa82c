"""Chapter 2: what a source task gives a target task, over label counts, methods and sources. Needs
no Jupyter.

Many small networks are trained at once: every tensor of parameters has a leading axis R, one entry
a run (seed x setting), and `torch.func.vmap` turns one network's gradient into all of theirs. The
runs stay independent: only the arithmetic is shared.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from .. import data
from ..networks.trunks import Classifier, cnn, mlp
from ..runtime import device as fastest
from ..transfer.penalties import l2_sp

KINDS = ("digits", "odd or even", "ink", "pixels permuted", "labels shuffled")


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment: data sets, network, steps; and the settings each method may try,
    three each: the same budget.
    """

    source: str = "mnist_5k"
    targets: tuple[str, ...] = ("digits",)
    size: int = 8  # pixels a side, for source and target alike
    channels: tuple[int, ...] = ()  # of the convolutions; none: fully connected
    features: int = 64
    source_steps: int = 300
    source_batch: int = 64
    shots: tuple[int, ...] = (1, 5, 10, 20, 50)  # labels a class of the target
    kind_shots: int = 5  # labels a class where sources are compared
    stops: tuple[int, ...] = (25, 50, 100, 200)  # steps after which validation may stop a run
    batch: int = 32
    held: tuple[int, int] = (400, 797)  # target images for validation and for the test
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    strengths: tuple[float, ...] = (1e-3, 3e-3, 1e-2)  # of L2-SP, with the middle one of the rates


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
    """Bring grey or colour images to one size and scale: float32 [N, 1, size, size] with mean 0 and
    variance 1 over the set.

    images: uint8 [N, H, W] or [N, H, W, 3]; colour becomes the mean of its channels. Grey digits on
        black are cut to their bounding box, padded to a square and resized by area, as the makers
        of the UCI set did; photographs (colour) are only resized.
    """
    if images.ndim == 4:
        x = torch.as_tensor(np.array(images)).float().mean(dim=3)[:, None]
        x = F.interpolate(
            x, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
    else:
        x = torch.stack(
            [F.adaptive_avg_pool2d(torch.from_numpy(cut(image))[None], size) for image in images]
        )
    return (x - x.mean()) / x.std()


def cut(image: np.ndarray) -> np.ndarray:
    """The square around what is drawn: rows and columns with a pixel above a fifth of the
    brightest. [H, W] -> float32 [side, side].
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
    """Images [N, 1, size, size] and labels [N] of a set; of one with a fixed split, its training
    part.
    """
    ds = data.load(name)
    x, y = (ds["x_train"], ds["y_train"]) if "x_train" in ds else (ds["x"], ds["y"])
    return frame(x, size), torch.as_tensor(np.array(y))


def source_task(kind: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The images and labels of one kind of source task; the fixed permutations are the same in
    every call.

    "digits": as they are. "odd or even": the digit's parity. "ink": which tenth of the set an
    image's total ink falls in. "pixels permuted": one permutation of the pixels, the same for all
    images. "labels shuffled": the labels of other images.
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


def hold_out(y: Tensor, held: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of the target for training, validation and test: a random split, the same for
    every run and method.
    """
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    validation, test = order[: held[0]], order[held[0] : sum(held)]
    return order[sum(held) :], validation, test


# ------------------------------------------------------------------------------ many runs at a time
def fresh(plan: Plan, seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Parameters of newly initialised networks, stacked: name -> [len(seeds), ...]. A seed always
    gives the same network.
    """
    networks = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(network(plan))
    return {name: p.detach().to(device) for name, p in stack_module_state(networks)[0].items()}


def network(plan: Plan) -> Classifier:
    """The network of a plan: convolutions where it has channels, else two fully connected layers;
    ten outputs.
    """
    if plan.channels:
        trunk = cnn(plan.size, plan.channels, plan.features)
    else:
        trunk = nn.Sequential(nn.Flatten(), *mlp([plan.size**2, plan.features, plan.features]))
    return Classifier(trunk, plan.features, 10)


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
    amp: torch.dtype | None = None,
) -> list[dict[str, Tensor]]:
    """Train R networks at once by SGD with momentum 0.9; returns their stacked parameters after
    each number of steps in `stops`.

    start: name -> [R, ...]; x [N, ...], y [N]: one pool of examples; rows int64 [R, n]: the
        examples that each run may use. All runs draw the same positions of their rows. rate [R]:
        learning rates. trunk [R]: factor on the trunk's rate, 0 where it is frozen. strength [R],
        source: name -> [R, ...]: L2-SP towards `source`, as `transfer.l2_sp`. amp: a lower
        precision for the forward pass, with the loss scaled by 1024 for fp16's sake.
    """
    R, n = rows.shape
    device, scale = x.device, 1024.0 if amp == torch.float16 else 1.0
    if strength is None or not strength.any():
        strength, source = torch.zeros(R, device=device), {}

    def loss(p, x, y, strength, source):
        with torch.autocast(device.type, amp) if amp else nullcontext():
            logits = functional_call(model, p, (x,))
        fit = F.cross_entropy(logits.float(), y)
        return scale * (fit + l2_sp(p, source, strength) if source else fit)

    gradients = vmap(grad(loss))
    order = torch.Generator().manual_seed(seed)
    p = {name: value.clone() for name, value in start.items()}
    speed = {name: torch.zeros_like(value) for name, value in p.items()}
    kept = []
    for step in range(1, max(stops) + 1):
        pick = (
            rows if n <= batch else rows[:, torch.randint(n, (batch,), generator=order).to(device)]
        )
        found = gradients(p, x[pick], y[pick], strength, source)
        for name, g in found.items():
            pace = rate * trunk if name.startswith("trunk") else rate
            speed[name].mul_(0.9).addcmul_(g, pace.view(-1, *[1] * (g.ndim - 1)) / scale)
            p[name].sub_(speed[name])
        if step in stops:
            kept.append({name: value.clone() for name, value in p.items()})
    return kept


@torch.no_grad()
def correct(model: nn.Module, p: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Which of the examples x [N, ...], y [N] each of R stacked networks gets right: bool [R, N]."""
    return vmap(lambda q: functional_call(model, q, (x,)))(dict(p)).argmax(dim=2) == y


# ---------------------------------------------------------------------------------------- the study
@dataclass(frozen=True)
class Method:
    """A line of the comparison: start from the source or not, train the trunk or not, pull towards
    the source or not.
    """

    name: str
    transferred: bool
    trunk: float
    pulled: bool


METHODS = (
    Method("scratch", False, 1.0, False),
    Method("linear probe", True, 0.0, False),
    Method("fine-tuning", True, 1.0, False),
    Method("L2-SP", True, 1.0, True),
)


def settings(method: Method, plan: Plan) -> list[tuple[float, float]]:
    """(learning rate, L2-SP strength) of the runs a method may try: as many for every method."""
    if method.pulled:
        return [(rate, strength) for rate in plan.rates[1:2] for strength in plan.strengths]
    return [(rate, 0.0) for rate in plan.rates]


class Study:
    """Source networks and one target, ready to compare. `seeds`: one source network, target subset
    and new head each.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[int],
        target: str | None = None,
        device: torch.device | None = None,
        report: Callable = print,
    ):
        self.plan, self.seeds, self.report = plan, list(seeds), report
        self.device = device or fastest()
        self.amp = torch.float16 if self.device.type == "cuda" else None
        self.model = network(plan).to(self.device)
        self.x_source, self.y_source = (
            t.to(self.device) for t in images_of(plan.source, plan.size)
        )
        self.sources: dict[str, dict[str, Tensor]] = {}
        self.known: dict[str, dict] = {}  # what `curves` found for the present target
        self.aim(target or plan.targets[0])

    def aim(self, target: str) -> None:
        """Take another target set; the sources stay."""
        self.known = {}
        self.x, self.y = (t.to(self.device) for t in images_of(target, self.plan.size))
        self.pool, self.validation, self.test = (
            rows.to(self.device) for rows in hold_out(self.y.cpu(), self.plan.held)
        )

    def source(self, kind: str = "digits") -> dict[str, Tensor]:
        """Stacked source networks of this kind, one a seed; trained when first asked for."""
        if kind not in self.sources:
            x, y = source_task(kind, self.x_source, self.y_source)
            S = len(self.seeds)
            rows = torch.arange(len(y), device=self.device).expand(S, -1)
            start = fresh(self.plan, self.seeds, self.device)
            rate = torch.full((S,), 0.1, device=self.device)
            stops = [self.plan.source_steps]
            (self.sources[kind],) = train_runs(
                self.model,
                start,
                x,
                y,
                rows,
                rate,
                stops=stops,
                batch=self.plan.source_batch,
                amp=self.amp,
            )
        return self.sources[kind]

    def subsets(self, shots: int) -> Tensor:
        """Rows of the target to train on, `shots` of every class, one line a seed: int64 [S, 10 *
        shots]. Larger ones contain smaller.
        """
        labels = self.y[self.pool].cpu().numpy()
        chosen = np.stack([data.per_class(labels, shots, seed) for seed in self.seeds])
        return self.pool[torch.as_tensor(chosen, device=self.device)]

    def start(self, method: Method, kind: str) -> dict[str, Tensor]:
        """Where a method starts: new networks (seeds apart from the source's), with the source's
        trunk where it is transferred.
        """
        new = fresh(self.plan, [1000 + seed for seed in self.seeds], self.device)
        if not method.transferred:
            return new
        return {
            name: self.source(kind)[name] if name.startswith("trunk") else p
            for name, p in new.items()
        }

    def compare(
        self, shots: int, methods: Sequence[Method] = METHODS, kind: str = "digits"
    ) -> dict[str, dict]:
        """Test accuracy of each method with `shots` labels a class: name -> accuracy a seed, and
        the setting that validation chose.

        Every method tries as many settings; the setting and the number of steps with the best mean
        validation accuracy over the seeds are used for the test. `own` is the same with a choice
        per seed on a validation set of the size of the training set.
        """
        rows, S = self.subsets(shots), len(self.seeds)
        lines = [(m, *setting) for m in methods for setting in settings(m, self.plan)]
        starts = {m.name: self.start(m, kind) for m in methods}
        stacked = {
            name: torch.cat([starts[m.name][name] for m, _, _ in lines])
            for name in starts[methods[0].name]
        }

        def column(values):
            return torch.tensor(list(values), device=self.device).repeat_interleave(S)

        kept = train_runs(
            self.model,
            stacked,
            self.x,
            self.y,
            rows.repeat(len(lines), 1),
            column(rate for _, rate, _ in lines),
            trunk=column(m.trunk for m, _, _ in lines),
            strength=column(strength for _, _, strength in lines),
            source={name: p for name, p in stacked.items() if name.startswith("trunk")},
            stops=self.plan.stops,
            batch=self.plan.batch,
            seed=shots,
            amp=self.amp,
        )
        right = [
            torch.stack(
                [
                    correct(self.model, p, self.x[on], self.y[on]).view(len(lines), S, -1)
                    for p in kept
                ],
                dim=1,
            )
            for on in (self.validation, self.test)
        ]  # [settings, stops, S, images]
        return {
            m.name: self._choose(
                m, [i for i, line in enumerate(lines) if line[0] is m], lines, *right, shots
            )
            for m in methods
        }

    def _choose(self, method, mine, lines, validation, test, shots):
        validation, test = validation[mine].float(), test[mine].float().mean(dim=3)
        mean = validation.mean(dim=(2, 3))
        i, stop = divmod(int(mean.argmax()), mean.shape[1])
        small = validation[..., : 10 * shots].mean(dim=3).flatten(0, 1).argmax(dim=0)  # [S]
        _, rate, strength = lines[mine[i]]
        return {
            "accuracy": test[i, stop].tolist(),
            "own": test.flatten(0, 1).gather(0, small[None])[0].tolist(),
            "validation": validation[i, stop].mean(dim=1).tolist(),
            "setting": {"rate": rate, "strength": strength, "steps": self.plan.stops[stop]},
        }

    def curves(self) -> dict[str, dict[str, dict]]:
        """`compare` for every number of labels: shots (as text) -> method -> result."""
        for shots in self.plan.shots:
            self.known[str(shots)] = self.compare(shots)
            mean = ", ".join(
                f"{name} {np.mean(r['accuracy']):.3f}" for name, r in self.known[str(shots)].items()
            )
            self.report(f"{shots:3d} labels a class: {mean}")
        return dict(self.known)

    def kinds(self, kinds: Sequence[str] = KINDS) -> dict[str, dict[str, dict]]:
        """Probe and fine-tuning from every kind of source, and from scratch, with `kind_shots`
        labels a class.

        "untrained" is a probe on a random trunk: what the architecture gives without any source.
        """
        probe, tuned = METHODS[1], METHODS[2]
        shots = self.plan.kind_shots
        digits = self.known.get(str(shots)) or self.compare(shots)
        results = {
            kind: digits if kind == "digits" else self.compare(shots, [probe, tuned], kind)
            for kind in kinds
        }
        untrained = self.compare(shots, [replace(probe, transferred=False)])
        results["none"] = {"scratch": digits["scratch"]} | untrained
        return results


def run(
    profile: str = "cpu",
    seeds: Sequence[int] = range(5),
    plan: Plan | None = None,
    report: Callable = print,
) -> dict:
    """The whole experiment: target -> {"curves", "kinds"}, accuracies in [0, 1] with one value a
    seed. Plain JSON.
    """
    plan = plan or PLANS[profile]
    study = Study(plan, seeds, report=report)
    results = {}
    for target in plan.targets:
        report(f"{plan.source} -> {target}")
        study.aim(target)
        results[target] = {"curves": study.curves(), "kinds": study.kinds()}
    return {"shots": list(plan.shots), "kind_shots": plan.kind_shots, "targets": results}
