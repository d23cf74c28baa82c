"""What makes a training step fast, side by side: where batches come from, how a step is computed.

    python benchmarks/training_step.py                    all cases; prints two tables
    python benchmarks/training_step.py --out step.json    and writes them with their provenance
    python benchmarks/training_step.py --quick            a tiny network, to see that it runs

Batches: images that lie on the device, taken by index and augmented there, against
`torch.utils.data.DataLoader` with worker processes that augment image by image; each alone, and
with a training step on every batch. Steps: eager or compiled, float32 or bfloat16, contiguous or
channels last. Rounds are interleaved, so that a busy moment hits all ways alike; shown are medians
over the rounds, and the median of the ratio to the first way in the same round. On a GPU the clock
waits for the device. On a CPU there is one thread; a step is timed in CPU seconds of the process,
but batches, which other processes make, by the wall clock: run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mtl_course import records
from mtl_course.data.augment import compose, crop, flip
from mtl_course.data.batches import Table
from mtl_course.networks.residual import resnet
from mtl_course.runtime import device as fastest_device
from mtl_course.training.precision import Precision

CLASSES, PADDING = 10, 4
WORKERS = (1, 2)


@dataclass(frozen=True)
class Size:
    """What is timed.

    depths, widths: of the ResNet. batch: images in a step; images: in all. steps: in one timed
    round; rounds: how many.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    batch: int
    images: int
    steps: int
    rounds: int


SIZES = {
    "quick": Size((1,), (8,), batch=32, images=128, steps=2, rounds=2),
    "cpu": Size((1, 1, 1), (16, 32, 64), batch=128, images=1024, steps=2, rounds=7),
    "cuda": Size((2, 2, 2), (64, 128, 256), batch=512, images=50_000, steps=30, rounds=9),
}


# ------------------------------------------------------------------------------------------ batches
def dataset(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images [N, 3, 32, 32] and labels [N]: what they show does not change the time."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(size.images, 3, 32, 32, generator=g)
    y = torch.randint(CLASSES, (size.images,), generator=g)
    return x.to(device), y.to(device)


def resident(
    x: Tensor, y: Tensor, batch: int, augmented: bool
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Epochs of batches from data on the device, as `training.fit` takes them."""
    table, change = Table(x, {"label": y}), compose(flip, crop(PADDING))
    order, draws = torch.Generator().manual_seed(0), torch.Generator(x.device).manual_seed(0)

    def epoch():
        for data in table.batches(batch, order):
            yield change(data.x, draws) if augmented else data.x, data.targets["label"][1]

    return epoch


class OneByOne(Dataset):
    """Images on the host, fetched and augmented one at a time, as a DataLoader asks for them."""

    def __init__(self, x: Tensor, y: Tensor, augmented: bool):
        from torchvision.transforms import v2

        self.x, self.y = x, y
        flip_and_crop = [v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=PADDING)]
        self.change = v2.Compose(flip_and_crop) if augmented else v2.Identity()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.change(self.x[row]), self.y[row]


def loader(
    x: Tensor, y: Tensor, batch: int, augmented: bool, workers: int
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Epochs of batches from a DataLoader, moved to the device.

    Its workers stay alive between epochs.
    """
    options = {
        "shuffle": True,
        "num_workers": workers,
        "persistent_workers": True,
        "pin_memory": x.is_cuda,
    }
    batches = DataLoader(OneByOne(x.cpu(), y.cpu(), augmented), batch, **options)

    def epoch():
        for images, labels in batches:
            yield images.to(x.device, non_blocking=True), labels.to(x.device, non_blocking=True)

    return epoch


def sources(x: Tensor, y: Tensor, batch: int, augmented: bool) -> dict[str, Callable]:
    """Name -> function that starts an epoch of batches."""
    return {"on the device": resident(x, y, batch, augmented)} | {
        f"DataLoader, {n} worker{'s' if n > 1 else ''}": loader(x, y, batch, augmented, n)
        for n in WORKERS
    }


def time_batches(size: Size, device: torch.device) -> dict[str, dict[str, dict]]:
    """Case -> way -> images a second and ratio of times to the first way, for whole epochs."""
    x, y = dataset(size, device)
    cases = {}
    fast = device.type == "cuda"
    kinds = {
        "batches alone": (False, False),
        "augmented": (True, False),
        "augmented, with a step": (True, True),
    }
    for case, (augmented, trained) in kinds.items():
        step = Step(size, device, channels_last=fast, half=fast) if trained else None

        def epoch(start, step=step):
            for images, labels in start():
                if step:
                    step(images, labels)

        ways = {
            name: lambda start=start: epoch(start)
            for name, start in sources(x, y, size.batch, augmented).items()
        }
        cases[case] = interleaved(ways, size.rounds, clock(device, wall=True), size.images)
    return cases


# -------------------------------------------------------------------------------------------- steps
class Step:
    """One SGD step of a ResNet, computed in one of the ways."""

    def __init__(
        self, size: Size, device: torch.device, *, channels_last=False, half=False, compiled=False
    ):
        torch.manual_seed(0)
        trunk = resnet(size.depths, size.widths)
        model = nn.Sequential(trunk, nn.Linear(trunk.features, CLASSES))
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(device, memory_format=self.layout)
        self.precision = Precision(torch.bfloat16 if half else None, device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        if compiled:
            self.model.compile()

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Leaves the gradients of the cross-entropy in ``.grad``; returns the loss."""
        self.optimizer.zero_grad()
        with self.precision.forward():
            logits = self.model(x.contiguous(memory_format=self.layout))
        loss = F.cross_entropy(self.precision.full(logits), y)
        loss.backward()
        return loss.detach()

    def __call__(self, x: Tensor, y: Tensor) -> None:
        self.gradients(x, y)
        self.optimizer.step()


WAYS = {
    "eager, float32": {},
    "eager, float32, channels last": {"channels_last": True},
    "eager, bfloat16": {"half": True},
    "eager, bfloat16, channels last": {"half": True, "channels_last": True},
    "compiled, float32": {"compiled": True},
    "compiled, float32, channels last": {"compiled": True, "channels_last": True},
    "compiled, bfloat16, channels last": {"compiled": True, "half": True, "channels_last": True},
}


def time_steps(size: Size, device: torch.device) -> dict[str, dict]:
    """Way -> milliseconds per step, images a second and ratio to the first way; or why not."""
    x, y = (v[: size.batch] for v in dataset(size, device))
    ready, missing = {}, {}
    for name, options in WAYS.items():
        step = Step(size, device, **options)
        images = x.to(memory_format=step.layout)
        try:
            step(images, y)  # compiles
        except Exception as error:
            missing[name] = {"missing": why_not(error)}
            continue
        ready[name] = lambda step=step, images=images: [step(images, y) for _ in range(size.steps)]
    cells = interleaved(ready, size.rounds, clock(device), size.batch * size.steps)
    for cell in cells.values():
        cell["ms"] = 1e3 * cell["seconds"] / size.steps
    return {name: cells.get(name) or missing[name] for name in WAYS}


def why_not(error: Exception) -> str:
    """Why a way could not run, in a few words."""
    text = repr(error)
    if "InvalidCxxCompiler" in text or "compiler" in text.lower():
        return "no C++ compiler"
    if "triton" in text.lower():
        return "no Triton"
    return " ".join(text.split())[:60]


# ------------------------------------------------------------------------------------------- clocks
def clock(device: torch.device, wall: bool = False) -> Callable[[], float]:
    """Seconds: on a GPU once its queue is empty; else of this process, or of the wall."""
    if device.type != "cuda":
        return time.perf_counter if wall else time.process_time

    def now():
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def interleaved(
    ways: dict[str, Callable], rounds: int, now: Callable[[], float], images: int
) -> dict[str, dict]:
    """Way -> median seconds over the rounds, images a second, and median ratio to the first way.

    A ratio is taken within a round. The first round warms up and does not count.
    """
    took = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            start = now()
            run()
            took[name].append(now() - start)
    took = {name: seconds[1:] for name, seconds in took.items()}
    first = next(iter(took.values()))
    return {
        name: {
            "seconds": statistics.median(seconds),
            "images_per_second": images / statistics.median(seconds),
            "ratio": statistics.median(a / b for a, b in zip(seconds, first, strict=True)),
        }
        for name, seconds in took.items()
    }


# ------------------------------------------------------------------------------------------- tables
def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> None:
    print(f"\n{title}\n{'':34}" + "".join(f"{c:>24}" for c in columns))
    for name, cells in rows.items():
        print(f"{name:34}" + "".join(f"{cell:>24}" for cell in cells))


def show(results: dict) -> None:
    """The two tables. Times as ratios: 2.00 takes twice as long as the first line."""
    rows = {}
    for case in results["batches"].values():
        for way, cell in case.items():
            rows.setdefault(way, []).append(
                f"{cell['images_per_second']:,.0f}/s ({cell['ratio']:.2f})"
            )
    table("Images a second (time as a ratio to the first line)", list(results["batches"]), rows)
    rows = {}
    for way, cell in results["steps"].items():
        if "missing" in cell:
            rows[way] = [cell["missing"], "-", "-"]
        else:
            images = f"{cell['images_per_second']:,.0f}"
            rows[way] = [f"{cell['ms']:.2f}", images, f"{cell['ratio']:.2f}"]
    table("One training step", ["ms", "images/s", "ratio"], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny network and two rounds")
    parser.add_argument(
        "--rounds", type=int, help="how many rounds (default: 7 on a CPU, 9 on a GPU)"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    device = fastest_device()
    size = SIZES["quick" if options.quick else device.type]
    if options.rounds:
        size = Size(**asdict(size) | {"rounds": options.rounds})
    torch.set_num_threads(1)
    provenance = records.provenance([0]) | {"command": "python benchmarks/training_step.py"}
    print(f"{provenance['device']}, torch {provenance['torch']}")
    print(f"ResNet {size.depths} x {size.widths}, batches of {size.batch}, {size.rounds} rounds")
    results = {
        "size": asdict(size),
        "batches": time_batches(size, device),
        "steps": time_steps(size, device),
    }
    show(results)
    if options.out:
        options.out.write_text(
            json.dumps({"results": results, "provenance": provenance}, indent=1) + "\n",
            encoding="utf-8",
        )
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
