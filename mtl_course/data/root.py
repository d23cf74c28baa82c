"""Tier R: sets in a data root, the folder that MTL_COURSE_DATA names. Each file is verified at every load; a partial set keeps its own name."""

import gzip
import io
import os
from pathlib import Path

import numpy as np

from . import cache
from .manifest import DataError, Info


def folder() -> Path | None:
    """The data root, or None where MTL_COURSE_DATA is not set."""
    named = os.environ.get("MTL_COURSE_DATA")
    return Path(named).expanduser() if named else None


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set from the data root. DataError if there is no root, or it lacks the set, or a file is truncated or altered."""
    root = folder()
    if root is None:
        raise DataError(
            f"{info.name} is read from a data root: set the environment variable MTL_COURSE_DATA to a folder that holds {', '.join(info.files)} "
            f"(from {info.source})."
        )
    if not root.is_dir():
        raise DataError(
            f"MTL_COURSE_DATA is {root}, which is not a folder. Set it to the folder that holds {', '.join(info.files)}."
        )
    missing = [path for path in info.files if not (root / path).is_file()]
    if missing:
        raise DataError(
            f"The data root {root} lacks {', '.join(missing)} of {info.name}. Put it there (from {info.source}), or set MTL_COURSE_DATA to another folder."
        )
    info.require()
    readers = {
        "school_ilea": school_ilea,
        "usps_h5": usps_h5,
        "mnist_t10k": mnist_t10k,
        "cifar10_partial": cifar10,
        "cifar100_partial": cifar100,
    }
    return readers[info.name](
        *[cache.verified(root / path, sha256) for path, sha256 in info.files.items()]
    ), "the data root, MTL_COURSE_DATA"


def school_ilea(mat: bytes) -> dict:
    """`x` [15362, 27] and `y` [15362] float64, `task` [15362] int64: the school from 0 to 138. The last column of the file, all ones, is left out."""
    from scipy.io import loadmat

    cells = loadmat(io.BytesIO(mat))
    schools = list(cells["X"].ravel())
    x = np.concatenate(schools).astype(np.float64)
    y = np.concatenate([scores.ravel() for scores in cells["Y"].ravel()]).astype(np.float64)
    return {"x": x[:, :-1], "y": y, "task": np.repeat(np.arange(len(schools)), [len(rows) for rows in schools])}


def usps_h5(file: bytes) -> dict:
    """`x_train` [7291, 16, 16], `x_test` [2007, 16, 16] uint8, `y_train`, `y_test` int64; grey levels rounded down as torchvision does."""
    import h5py

    arrays = {}
    with h5py.File(io.BytesIO(file), "r") as stored:
        for part in ("train", "test"):
            arrays[f"x_{part}"] = (stored[part]["data"][...] * 255).astype(np.uint8).reshape(-1, 16, 16)
            arrays[f"y_{part}"] = stored[part]["target"][...].astype(np.int64)
    return arrays


def mnist_t10k(images: bytes, labels: bytes) -> dict:
    """`x` [10000, 28, 28] uint8, `y` [10000] int64, from MNIST's own format: 16 and 8 bytes of header."""
    x = np.frombuffer(gzip.decompress(images), np.uint8, offset=16).reshape(-1, 28, 28)
    return {"x": x.copy(), "y": np.frombuffer(gzip.decompress(labels), np.uint8, offset=8).astype(np.int64)}


def cifar10(labels: bytes, *pictures: bytes) -> dict:
    """`x_train` [49729, 32, 32, 3], `x_test` [9136, 32, 32, 3] uint8, `y_train`, `y_test` int64, `names` [10]."""
    stored = np.load(io.BytesIO(labels), allow_pickle=False)
    *train, test = [
        tiles(picture, len(stored[part]))
        for picture, part in zip(pictures, ("train_0", "train_1", "train_2", "test"), strict=True)
    ]
    y_train = np.concatenate([stored[f"train_{part}"] for part in range(3)])
    arrays = {
        "x_train": np.concatenate(train),
        "y_train": y_train.astype(np.int64),
        "x_test": test,
        "y_test": stored["test"].astype(np.int64),
    }
    return arrays | {"names": stored["names"]}


def cifar100(labels: bytes, train: bytes, test: bytes) -> dict:
    """As `cifar10`, [12000, 32, 32, 3] and [3000, 32, 32, 3], with `coarse_train` and `coarse_test` int64 and `names` [100]."""
    stored = np.load(io.BytesIO(labels), allow_pickle=False)
    arrays = {"names": stored["names"]}
    for part, picture in (("train", train), ("test", test)):
        arrays |= {f"x_{part}": tiles(picture, len(stored[part])), f"y_{part}": stored[part].astype(np.int64)}
        arrays |= {f"coarse_{part}": stored[f"{part}_coarse"].astype(np.int64)}
    return arrays


def tiles(picture: bytes, n: int) -> np.ndarray:
    """The first `n` images [n, 32, 32, 3] of a picture that holds 100 of them a row, row by row."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the picture is verified, so its size is no attack
    try:
        grid = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    except OSError as error:
        raise DataError(
            f"Pillow cannot decode a lossless WebP picture ({error}). Install a current one: python -m pip install -U pillow"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return grid.reshape(-1, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:n]
