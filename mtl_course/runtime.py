"""Where a notebook runs: device, profile, seeds, versions. `setup("01")` is the first call of every
chapter.
"""

import os
import platform
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from . import __version__, chapters

PROFILES = ("cpu", "gpu")


@dataclass(frozen=True)
class Session:
    """What `setup` found: the chapter, a `torch.device`, and the profile (``"cpu"`` or ``"gpu"``)
    that sizes the experiments.
    """

    chapter: chapters.Chapter
    device: torch.device
    profile: str


def device() -> torch.device:
    """The fastest device here: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def profile() -> str:
    """``"gpu"`` where there is a CUDA device, else ``"cpu"``; the environment variable
    MTL_COURSE_PROFILE overrides it.

    ValueError for any other value of the variable.
    """
    chosen = os.environ.get("MTL_COURSE_PROFILE") or ("gpu" if device().type == "cuda" else "cpu")
    if chosen not in PROFILES:
        raise ValueError(
            f"MTL_COURSE_PROFILE is {chosen!r}; it must be one of {', '.join(PROFILES)}."
        )
    return chosen


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def environment() -> dict[str, str]:
    """Versions and hardware, as plain strings: what a record keeps as its provenance."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "mtl_course": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "device": gpu or f"CPU, {torch.get_num_threads()} threads",
        "platform": f"{platform.system()} {platform.machine()}",
    }


def setup(chapter: str | int, seed: int = 0) -> Session:
    """Start a chapter: seed everything, set the figure style, and print versions, device, profile
    and expected time.

    Raises ValueError for an unknown chapter or profile. A GPU that is asked for but missing is
    said, not hidden.
    """
    from . import plots

    here = Session(chapters.find(chapter), device(), profile())
    seed_everything(seed)
    plots.use_style()
    env = environment()
    minutes = getattr(here.chapter, here.profile)
    expected = f"about {minutes} min" if minutes else "not timed yet, made for 10 min on a Colab T4"
    print(
        f"mtl_course {env['mtl_course']}, Python {env['python']}, torch {env['torch']}, numpy"
        f" {env['numpy']}"
    )
    print(f"Chapter {here.chapter.number} on {env['device']}; profile {here.profile}: {expected}")
    if here.profile == "gpu" and here.device.type == "cpu":
        print(
            "The profile is gpu but no CUDA device was found: the full-size experiments will be"
            " slow here."
        )
        print("On Colab: Runtime > Change runtime type > GPU. To go back: MTL_COURSE_PROFILE=cpu.")
    return here


@contextmanager
def timer(on: torch.device | None = None):
    """Wall-clock seconds of a block, with the device's queue drained at both ends: ``with timer()
    as t: ...; t()``.
    """
    on = on or device()

    def now():
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        return time.perf_counter()

    start, end = now(), None
    yield lambda: (end or now()) - start
    end = now()
