"""Finished pieces of an experiment, kept on disk until its record is whole.

An experiment that takes minutes may lose its machine: Colab ends a session, a budget runs out. What
it wraps in `kept`, say one seed of one method, is then not computed again.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import to_json, write_whole

_folder: Path | None = None  # where pieces are kept while a record is being made


def place(folder: Path, chapter: str, profile: str, code: str) -> Path:
    """The folder of the pieces of a record; other code has another one."""
    return folder / f".{chapter}_{profile}.pieces" / code


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Keep in a folder what is computed within; throw away pieces of other code beside it."""
    global _folder
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _folder = folder
    try:
        yield
    finally:
        _folder = None


def discard(folder: Path) -> None:
    """Throw away the pieces of a record that is whole."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def clocks() -> tuple[float, float]:
    """Seconds by the wall's clock, and of CPU in this process and in those it has waited for."""
    return time.perf_counter(), sum(os.times()[:4])


def spent(folder: Path) -> tuple[float, float]:
    """Seconds that the pieces in a folder took, by both `clocks`."""
    took = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    # a piece of an older version knows the wall's alone
    cpu = sum(piece.get("cpu_seconds", piece["seconds"]) for piece in took)
    return sum(piece["seconds"] for piece in took), cpu


def kept(key: str, compute: Callable, *arguments, **options):
    """What a computation gives, or gave in an earlier try at the same record.

    Only the record command keeps anything; elsewhere this is the plain call. What is kept has been
    through JSON, also in its first run, so that a record made in two tries equals one made at once.

    Args:
        key: what tells this piece from the others of the record: all that it depends on beside the
            code, such as ``"rivers, seed 3"``.
        compute: gives plain JSON, arrays, tensors or dataclasses.
        arguments: of the computation.
        options: of the computation, by name.

    Returns:
        The result.

    Example:
        >>> kept("two and two", sum, [2, 2])
        4
    """
    if _folder is None:
        return compute(*arguments, **options)
    readable = re.sub(r"\W+", "_", key)[:60]
    path = _folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        start = clocks()
        result = compute(*arguments, **options)
        wall, cpu = (round(now - then, 3) for now, then in zip(clocks(), start, strict=True))
        piece = {"key": key, "seconds": wall, "cpu_seconds": cpu, "result": result}
        write_whole(path, to_json(piece))
    return json.loads(path.read_text(encoding="utf-8"))["result"]
