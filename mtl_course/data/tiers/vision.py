"""Tier D: image sets that torchvision downloads and verifies. It works in a staging folder, and
only a whole result is kept.
"""

import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import cache
from ..manifest import DataError, Info

ATTEMPTS = 3
PAUSE = 2.0  # seconds before the second attempt, twice as many before the third
TIMEOUT = 60.0  # seconds without a byte before an attempt is given up


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set from the cache, or downloaded the first time. DataError if it cannot
    be had.
    """
    return cache.through(info, lambda staged: fetch(info, staged)), "torchvision's download"


def fetch(info: Info, staged: Path) -> dict:
    """Download, verify and read this set in the folder `staged`, in up to three attempts. DataError
    says how the last failed.
    """
    readers = {
        "mnist": mnist,
        "usps": usps,
        "svhn": svhn,
        "cifar10": cifar10,
        "cifar100": cifar100,
        "omniglot": omniglot,
    }
    reader = readers[info.name]
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            with _timeout(TIMEOUT):
                return reader(staged)
        except Exception as error:
            # torchvision lets through what urllib, http, tarfile, gzip, bz2 and scipy raise
            if isinstance(error, OSError) and error.errno in cache.FULL + cache.FORBIDDEN:
                raise
            last = error
    raise DataError(_why(info, last)) from last


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let no socket that is opened meanwhile wait longer than this; urllib's default is to wait for
    ever.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _why(info: Info, error: Exception) -> str:
    said = " ".join(str(error).split())[-200:] or type(error).__name__
    if (
        "urlopen error" in said
        or "HTTP Error" in said
        or isinstance(error, (ConnectionError, TimeoutError))
    ):
        return (
            f"{info.name}: {ATTEMPTS} attempts to download it failed. There is no network, or its"
            " server cannot be reached. Connect and try again; `python -m mtl_course.data --full`"
            f" fetches the large sets ahead. The last attempt said: {said}"
        )
    return (
        f"{info.name}: {ATTEMPTS} downloads arrived truncated or altered, so nothing was kept. Try"
        " again later; a proxy that answers with a page of its own looks like this too. The last"
        f" attempt said: {said}"
    )


def _halves(train, test, labels: str = "targets") -> dict:
    """The arrays of torchvision's two halves of a set."""
    arrays = {}
    for part, half in (("train", train), ("test", test)):
        arrays |= {
            f"x_{part}": np.asarray(half.data),
            f"y_{part}": np.asarray(getattr(half, labels)).astype(np.int64),
        }
    return arrays


def mnist(staged: Path) -> dict:
    """`x_train` [60000, 28, 28], `x_test` [10000, 28, 28] uint8; `y_train`, `y_test` int64."""
    from torchvision.datasets import MNIST

    return _halves(MNIST(staged, train=True, download=True), MNIST(staged, train=False))


def usps(staged: Path) -> dict:
    """`x_train` [7291, 16, 16], `x_test` [2007, 16, 16] uint8; `y_train`, `y_test` int64."""
    from torchvision.datasets import USPS

    for file in staged.glob(
        "usps*"
    ):  # of an earlier attempt, which torchvision would take without verifying it
        file.unlink()
    return _halves(
        USPS(staged, train=True, download=True), USPS(staged, train=False, download=True)
    )


def svhn(staged: Path) -> dict:
    """`x_train` [73257, 32, 32, 3], `x_test` [26032, 32, 32, 3] uint8; `y_train`, `y_test` int64,
    the digit 0 labelled 0.
    """
    from torchvision.datasets import SVHN

    arrays = _halves(
        SVHN(staged, split="train", download=True),
        SVHN(staged, split="test", download=True),
        labels="labels",
    )
    return arrays | {
        key: np.ascontiguousarray(arrays[key].transpose(0, 2, 3, 1))
        for key in ("x_train", "x_test")
    }


def cifar10(staged: Path) -> dict:
    """`x_train` [50000, 32, 32, 3], `x_test` [10000, 32, 32, 3] uint8; `y_train`, `y_test` int64;
    `names` [10].
    """
    from torchvision.datasets import CIFAR10

    train = CIFAR10(staged, train=True, download=True)
    return _halves(train, CIFAR10(staged, train=False)) | {"names": np.array(train.classes)}


def cifar100(staged: Path) -> dict:
    """As `cifar10`, with 100 classes, and their 20 superclasses, `coarse_train` and `coarse_test`,
    which torchvision omits.
    """
    from torchvision.datasets import CIFAR100

    train = CIFAR100(staged, train=True, download=True)
    arrays = _halves(train, CIFAR100(staged, train=False)) | {"names": np.array(train.classes)}
    for part in ("train", "test"):
        with open(
            staged / train.base_folder / part, "rb"
        ) as file:  # torchvision has just verified and unpickled it itself
            arrays[f"coarse_{part}"] = np.array(
                pickle.load(file, encoding="latin1")["coarse_labels"], dtype=np.int64
            )
    return arrays


def omniglot(staged: Path) -> dict:
    """`x` [32460, 28, 28] uint8, ink 255, and the character `y` [32460] int64 of each, 20 a
    character; `names` [1623] of the characters, the `alphabet` [1623] int64 of each with
    `alphabet_names` [50], and whether it is of the `background` [1623] set, bool.

    Sorted by name, the background set first; torchvision's own numbers follow the order that the
    file system lists folders in.
    """
    from torchvision.datasets import Omniglot

    pictures, alphabet_names, rows = [], [], []
    for background in (True, False):
        for folder in sorted(
            Path(Omniglot(staged, background=background, download=True).target_folder).iterdir()
        ):
            for character in sorted(folder.iterdir()):
                files = sorted(character.glob("*.png"))
                rows.append(
                    (f"{folder.name}/{character.name}", len(alphabet_names), background, len(files))
                )
                pictures += [_small(file) for file in files]
            alphabet_names.append(folder.name)
    names, alphabet, background, count = map(np.array, zip(*rows, strict=True))
    return {
        "x": np.stack(pictures),
        "y": np.repeat(np.arange(len(names)), count),
        "alphabet": alphabet.astype(np.int64),
        "names": names,
        "alphabet_names": np.array(alphabet_names),
        "background": background,
    }


def _small(file: Path) -> np.ndarray:
    """A drawing of 105 x 105 pixels, black on white, as 28 x 28 grey levels with ink 255: Pillow
    averages over the area of a pixel.
    """
    from PIL import Image

    with Image.open(file) as picture:
        return 255 - np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
