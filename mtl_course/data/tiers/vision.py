"""Tier D: image sets that torchvision downloads and verifies.

It works in a staging folder, and only a whole result is kept.
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
    """The arrays of this set from the cache, or downloaded the first time.

    DataError if it cannot be had.
    """
    return cache.through(info, lambda staged: fetch(info, staged)), "torchvision's download"


def fetch(info: Info, staged: Path) -> dict:
    """Download, verify and read this set in the folder `staged`, in up to three attempts.

    DataError says how the last failed.
    """
    readers = {
        "mnist": mnist,
        "fashion_mnist": fashion_mnist,
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
    """Let no socket that is opened meanwhile wait longer; urllib would wait for ever."""
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(default)


def _why(info: Info, error: Exception) -> str:
    """What to tell the user when the last attempt ended with this error."""
    said = " ".join(str(error).split())[-200:] or type(error).__name__
    unreachable = "urlopen error" in said or "HTTP Error" in said
    if unreachable or isinstance(error, (ConnectionError, TimeoutError)):
        return (
            f"{info.name}: {ATTEMPTS} attempts to download it failed."
            " There is no network, or its server cannot be reached. Connect and try again;"
            " `python -m mtl_course.data --full` fetches the large sets ahead."
            f" The last attempt said: {said}"
        )
    return (
        f"{info.name}: {ATTEMPTS} downloads arrived truncated or altered, so nothing was kept."
        " Try again later; a proxy that answers with a page of its own looks like this too."
        f" The last attempt said: {said}"
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
    """Handwritten digits.

    x_train: [60000, 28, 28], x_test: [10000, 28, 28] uint8; y_train, y_test: int64.
    """
    from torchvision.datasets import MNIST

    return _halves(MNIST(staged, train=True, download=True), MNIST(staged, train=False))


def fashion_mnist(staged: Path) -> dict:
    """Small grey pictures of clothes, in the format of `mnist`, and `names` [10] of the classes."""
    from torchvision.datasets import FashionMNIST

    train = FashionMNIST(staged, train=True, download=True)
    return _halves(train, FashionMNIST(staged, train=False)) | {"names": np.array(train.classes)}


def usps(staged: Path) -> dict:
    """Handwritten digits from envelopes.

    x_train: [7291, 16, 16], x_test: [2007, 16, 16] uint8; y_train, y_test: int64.
    """
    from torchvision.datasets import USPS

    # files of an earlier attempt, which torchvision would take without verifying them
    for file in staged.glob("usps*"):
        file.unlink()
    train, test = (USPS(staged, train=train, download=True) for train in (True, False))
    return _halves(train, test)


def svhn(staged: Path) -> dict:
    """House numbers, the digit 0 labelled 0.

    x_train: [73257, 32, 32, 3], x_test: [26032, 32, 32, 3] uint8; y_train, y_test: int64.
    """
    from torchvision.datasets import SVHN

    train, test = (SVHN(staged, split=split, download=True) for split in ("train", "test"))
    arrays = _halves(train, test, labels="labels")
    for key in ("x_train", "x_test"):
        arrays[key] = np.ascontiguousarray(arrays[key].transpose(0, 2, 3, 1))
    return arrays


def cifar10(staged: Path) -> dict:
    """Small pictures of ten classes.

    x_train: [50000, 32, 32, 3], x_test: [10000, 32, 32, 3] uint8; y_train, y_test: int64.
    names: [10] of the classes.
    """
    from torchvision.datasets import CIFAR10

    train = CIFAR10(staged, train=True, download=True)
    return _halves(train, CIFAR10(staged, train=False)) | {"names": np.array(train.classes)}


def cifar100(staged: Path) -> dict:
    """As `cifar10`, with a hundred classes.

    coarse_train, coarse_test: int64, their 20 superclasses, which torchvision omits.
    """
    from torchvision.datasets import CIFAR100

    train = CIFAR100(staged, train=True, download=True)
    arrays = _halves(train, CIFAR100(staged, train=False)) | {"names": np.array(train.classes)}
    for part in ("train", "test"):
        # torchvision has just verified and unpickled this file itself
        with open(staged / train.base_folder / part, "rb") as file:
            stored = pickle.load(file, encoding="latin1")
        arrays[f"coarse_{part}"] = np.array(stored["coarse_labels"], dtype=np.int64)
    return arrays


def omniglot(staged: Path) -> dict:
    """Characters of fifty alphabets, each drawn by 20 people.

    x: [32460, 28, 28] uint8, ink 255; y: [32460] int64, the character.
    names: [1623] of the characters; alphabet: [1623] int64, of each; alphabet_names: [50].
    background: [1623] bool, whether the character is of the background set.

    Sorted by name, the background set first; torchvision's own numbers follow the order that the
    file system lists folders in.
    """
    from torchvision.datasets import Omniglot

    pictures, alphabet_names, rows = [], [], []
    for background in (True, False):
        downloaded = Omniglot(staged, background=background, download=True)
        for folder in sorted(Path(downloaded.target_folder).iterdir()):
            for character in sorted(folder.iterdir()):
                files = sorted(character.glob("*.png"))
                name = f"{folder.name}/{character.name}"
                rows.append((name, len(alphabet_names), background, len(files)))
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
    """A drawing of 105 x 105 pixels, black on white, as 28 x 28 grey levels with ink 255.

    Pillow averages over the area of a pixel.
    """
    from PIL import Image

    with Image.open(file) as picture:
        return 255 - np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
