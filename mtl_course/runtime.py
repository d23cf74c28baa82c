"""Where a notebook runs: device, profile, seeds, versions. Each starts with `setup("01")`."""

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
from .seeds import seed_range

PROFILES = ("cpu", "gpu")


@dataclass(frozen=True)
class Session:
    """Where a chapter runs, as `setup` saw it.

    Args:
        chapter: the chapter, with its title and times.
        device: the fastest device here.
        profile: ``"cpu"`` or ``"gpu"``: the size of the experiments.
    """

    chapter: chapters.Chapter
    device: torch.device
    profile: str

    def seeds(self, n: int) -> list[int]:
        """The seeds of an experiment that is repeated n times: 0 to n - 1 unless told otherwise.

        All repetitions of a notebook take their seeds here. So one setting, the environment
        variable MTL_COURSE_SEEDS, asks whether its claims hold on others: with ``1000:1010`` the
        seeds are 1000, 1001 and so on, the first n of that range (its end is not in it).

        Args:
            n: how many.

        Returns:
            n seeds, in ascending order.

        Raises:
            ValueError: n is below 1, MTL_COURSE_SEEDS is not of the form ``A:B`` with whole
                numbers A < B, or its range holds fewer than n.

        Example:
            >>> import os; os.environ.pop("MTL_COURSE_SEEDS", None) and None
            >>> session = Session(chapters.find("01"), torch.device("cpu"), "cpu")
            >>> session.seeds(3)
            [0, 1, 2]
        """
        if n < 1:
            raise ValueError(f"seeds({n!r}): at least one seed is needed")
        text = os.environ.get("MTL_COURSE_SEEDS")
        if not text:
            return list(range(n))
        chosen = seed_range(text)
        if len(chosen) < n:
            raise ValueError(
                f"MTL_COURSE_SEEDS={text} gives {len(chosen)} seeds, but this experiment takes {n};"
                f" give it at least {chosen.start}:{chosen.start + n}"
            )
        return list(chosen[:n])


def device() -> torch.device:
    """The fastest device here: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def profile() -> str:
    """``"gpu"`` where there is a CUDA device, else ``"cpu"``, or what MTL_COURSE_PROFILE says.

    Returns:
        The profile.

    Raises:
        ValueError: the environment variable holds anything but these two.
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
    threads = torch.get_num_threads()
    return {
        "mtl_course": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "device": gpu or f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        "platform": f"{platform.system()} {platform.machine()}",
    }


def setup(chapter: str | int, seed: int = 0) -> Session:
    """Start a chapter: seed everything, set the figure style, say where it runs and how long.

    It prints versions, device, profile and expected time. A GPU that is asked for but missing is
    said, not hidden.

    Args:
        chapter: its number, such as ``"01"`` or 1.
        seed: of Python, NumPy and torch.

    Returns:
        The `Session`: chapter, device, profile, and the seeds of its experiments.

    Raises:
        ValueError: there is no such chapter, or MTL_COURSE_PROFILE names no profile.

    Example:
        >>> session = setup("01")  # doctest: +ELLIPSIS
        mtl_course ...
        Chapter 01 on ...
        >>> session.chapter.title
        'The multi-task objective'
    """
    from . import plots

    here = Session(chapters.find(chapter), device(), profile())
    seed_everything(seed)
    plots.use_style()
    env = environment()
    minutes = getattr(here.chapter, here.profile)
    expected = f"about {minutes} min" if minutes else "made for 10 min on a Colab T4"
    print(
        f"mtl_course {env['mtl_course']}, Python {env['python']},"
        f" torch {env['torch']}, numpy {env['numpy']}"
    )
    print(f"{here.chapter.name} on {env['device']}; profile {here.profile}: {expected}")
    if here.profile == "gpu" and here.device.type == "cpu":
        print(
            "The profile is gpu but no CUDA device was found:"
            " the full-size experiments will be slow here."
        )
        print("On Colab: Runtime > Change runtime type > GPU. To go back: MTL_COURSE_PROFILE=cpu.")
    return here


@contextmanager
def timer(on: torch.device | None = None):
    """Wall-clock seconds of a block, with the device's queue drained at both ends.

    A GPU works through a queue: without draining it, a block would end before its work does.

    Args:
        on: the device whose queue counts (default: the fastest one here).

    Returns:
        A context manager; what it binds is called for the seconds, inside the block for those so
        far.

    Example:
        >>> with timer() as seconds:
        ...     total = sum(range(1000))
        >>> 0 < seconds() < 1
        True
    """
    on = on or device()

    def clock():
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        return time.perf_counter()

    start, end = clock(), None
    yield lambda: (end or clock()) - start
    end = clock()
