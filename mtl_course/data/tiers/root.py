"""Tier R: sets in the folder that MTL_COURSE_DATA names.

Every file is verified at every load; a partial set keeps its name.
"""

import gzip
import io
import os
from pathlib import Path

import numpy as np

from .. import cache
from ..manifest import DataError, Info
from . import texts


def folder() -> Path | None:
    """The data root, or None where MTL_COURSE_DATA is not set.

    DataError if it names a home folder that does not exist.
    """
    named = os.environ.get("MTL_COURSE_DATA")
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError as error:  # pathlib's, where there is no home
        raise DataError(
            f"MTL_COURSE_DATA is {named}, and there is no such home folder."
            " Set it to a full path, without a tilde."
        ) from error


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set from the data root.

    DataError if there is no root, or it lacks the set, or a file is altered.
    """
    root, wanted = folder(), f"a folder that holds {', '.join(info.files)} (from {info.source})"
    if root is None:
        raise DataError(
            f"{info.name} is read from a data root:"
            f" set the environment variable MTL_COURSE_DATA to {wanted}."
        )
    missing = [path for path in info.files if not (root / path).is_file()]
    if missing:
        raise DataError(
            f"The data root {root} lacks {', '.join(missing)}."
            f" Put it there, or set MTL_COURSE_DATA to {wanted}."
        )
    info.require()
    contents = [cache.verified(root / path, sha256) for path, sha256 in info.files.items()]
    readers = {
        "school_ilea": school_ilea,
        "usps_h5": usps_h5,
        "mnist_t10k": mnist_t10k,
        "cifar10_partial": cifar10,
        "cifar100_partial": cifar100,
        "omniglot_small": omniglot_small,
        "wnut17": texts.wnut17,
    }
    return readers[info.name](*contents), "the data root, MTL_COURSE_DATA"


ILEA_NAMES = """
    year_1985 year_1986 year_1987 school_free_meals school_band_1 girl boy band_3 band_1 band_2
    eswi african arab bangladeshi caribbean greek indian pakistani se_asian turkish other_group
    mixed_school boys_school girls_school maintained church_of_england roman_catholic
""".split()  # noqa: SIM905 - easier to compare with the description of the records


def school_ilea(mat: bytes) -> dict:
    """Exam results of pupils in inner London: a task is a school.

    x: [15362, 27] float64, features; names: [27], what they are.
    y: [15362] float64, the result; task: [15362] int64, the school, from 0 to 138.

    The file's last column, a bias of ones, is left out. The file names no column: ILEA_NAMES
    follows the description of the records (eswi: born in England, Scotland, Wales or Ireland) and
    agrees with the numbers, as tests/data/test_root.py shows.
    """
    from scipy.io import loadmat

    cells = loadmat(io.BytesIO(mat))
    schools = list(cells["X"].ravel())
    x = np.concatenate(schools).astype(np.float64)
    y = np.concatenate([scores.ravel() for scores in cells["Y"].ravel()]).astype(np.float64)
    task = np.repeat(np.arange(len(schools)), [len(rows) for rows in schools]).astype(np.int64)
    return {"x": x[:, :-1], "y": y, "task": task, "names": np.array(ILEA_NAMES)}


def usps_h5(file: bytes) -> dict:
    """Handwritten digits from envelopes, rounded down to uint8, as torchvision does.

    x_train: [7291, 16, 16], x_test: [2007, 16, 16] uint8; y_train, y_test: int64.
    """
    import h5py

    arrays = {}
    with h5py.File(io.BytesIO(file), "r") as stored:
        for part in ("train", "test"):
            pixels = (stored[part]["data"][...] * 255).astype(np.uint8)
            arrays[f"x_{part}"] = pixels.reshape(-1, 16, 16)
            arrays[f"y_{part}"] = stored[part]["target"][...].astype(np.int64)
    return arrays


def mnist_t10k(images: bytes, labels: bytes) -> dict:
    """MNIST's test digits: `x` [10000, 28, 28] uint8, `y` [10000] int64.

    In MNIST's own format, with headers of 16 and 8 bytes.
    """
    x = np.frombuffer(gzip.decompress(images), np.uint8, offset=16)
    y = np.frombuffer(gzip.decompress(labels), np.uint8, offset=8)
    return {"x": x.reshape(-1, 28, 28), "y": y.astype(np.int64)}


def cifar10(labels: bytes, *pictures: bytes) -> dict:
    """Small pictures of ten classes, most of CIFAR-10.

    x_train: [49729, 32, 32, 3], x_test: [9136, 32, 32, 3] uint8; y_train, y_test: int64.
    names: [10] of the classes.
    """
    stored = np.load(io.BytesIO(labels), allow_pickle=False)
    parts = ("train_0", "train_1", "train_2", "test")
    *train, test = [
        tiles(picture, len(stored[part])) for part, picture in zip(parts, pictures, strict=True)
    ]
    y_train = np.concatenate([stored[part] for part in parts[:3]]).astype(np.int64)
    y_test = stored["test"].astype(np.int64)
    return {
        "x_train": np.concatenate(train),
        "y_train": y_train,
        "x_test": test,
        "y_test": y_test,
        "names": stored["names"],
    }


def cifar100(labels: bytes, train: bytes, test: bytes) -> dict:
    """Small pictures of a hundred classes, a part of CIFAR-100.

    x_train: [12000, 32, 32, 3], x_test: [3000, 32, 32, 3] uint8; y_train, y_test: int64.
    coarse_train, coarse_test: int64, the superclass; names: [100] of the classes.
    """
    stored = np.load(io.BytesIO(labels), allow_pickle=False)
    arrays = {"names": stored["names"]}
    for part, picture in (("train", train), ("test", test)):
        arrays[f"x_{part}"] = tiles(picture, len(stored[part]))
        arrays[f"y_{part}"] = stored[part].astype(np.int64)
        arrays[f"coarse_{part}"] = stored[f"{part}_coarse"].astype(np.int64)
    return arrays


def omniglot_small(file: bytes) -> dict:
    """Characters of eight alphabets, each drawn by 20 people.

    x: [4840, 28, 28] uint8, ink 255; y: [4840] int64, the character.
    names: [242] of the characters; alphabet: [242] int64, of each; alphabet_names: [8].
    """
    stored = np.load(io.BytesIO(file), allow_pickle=False)
    alphabets, alphabet = np.unique(stored["alphabet"], return_inverse=True)
    return {
        "x": stored["x"].reshape(-1, 28, 28),
        "y": np.repeat(np.arange(len(alphabet)), stored["x"].shape[1]),
        "alphabet": alphabet.astype(np.int64),
        "names": np.char.add(np.char.add(stored["alphabet"], "/"), stored["character"]),
        "alphabet_names": alphabets,
    }


def tiles(picture: bytes, n: int) -> np.ndarray:
    """The first n images [n, 32, 32, 3] uint8 of a lossless picture with 100 of them per row."""
    from PIL import Image

    # the picture is verified, so its size is no attack
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        grid = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    except OSError as error:
        advice = "Install a current one: python -m pip install -U pillow"
        raise DataError(
            f"This Pillow cannot decode a lossless WebP picture ({error}). {advice}"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return grid.reshape(-1, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:n]
