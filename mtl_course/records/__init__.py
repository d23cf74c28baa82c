"""Records: results of full-size experiments, committed as JSON with their provenance.

They lie beside this file. Without a record a chapter names the command that makes it, and
claims nothing from it.
"""

import errno
import html
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .._output import wrapped

FOLDER = Path(__file__).parent
FIELDS = ("chapter", "profile", "results", "provenance")


@dataclass(frozen=True)
class Record:
    """What a chapter's experiment gave, and where, when and how it ran.

    Args:
        chapter: its number, such as ``"04"``.
        profile: ``"cpu"`` or ``"gpu"``, or the name of a part that a chapter has beside them.
        results: what the experiment returned, plain JSON.
        provenance: device, versions, date, seeds, commit, command, seconds by the clock, minutes of
            CPU, and the fingerprint of the code (`sources.fingerprint`).
    """

    chapter: str
    profile: str
    results: dict
    provenance: dict

    def __str__(self):
        return wrapped(self._line, more="  ")

    __repr__ = __str__  # not its results: they would fill pages

    def _repr_html_(self) -> str:
        line = html.escape(self._line)
        return f'<div class="mtl-note" style="font-size:.8em;overflow-wrap:anywhere">{line}</div>'

    @property
    def _line(self) -> str:
        """Where, when and how it was made."""
        p = self.provenance
        day, commit = p["date"][:10], p["commit"][:9]
        device = re.sub(r"\b1 threads\b", "1 thread", p["device"])
        return f"Record of {day} on {device}, torch {p['torch']}, commit {commit}: {p['command']}"


def load(
    chapter: str, profile: str = "gpu", folder: Path | None = None, say: bool = False
) -> Record | None:
    """The record of a chapter, or None where there is none yet.

    Args:
        chapter: its number, such as ``"04"``.
        profile: which of its records.
        folder: where to look (default: where the environment variable MTL_COURSE_RECORDS says, and
            then among the committed records).
        say: where there is none, print the command that makes it, so that a cell which shows the
            record is not empty.

    Returns:
        The record, or None.

    Raises:
        ValueError: a file of that name is not a whole record.

    Example:
        >>> load("04", "cpu").provenance["seeds"][:3]
        [0, 1, 2]
    """
    elsewhere = os.environ.get("MTL_COURSE_RECORDS")
    folders = [Path(elsewhere)] if elsewhere else []
    for place in [folder] if folder else [*folders, FOLDER]:
        path = place / f"{chapter}_{profile}.json"
        if path.exists():
            return _read(path, chapter)
    if say:
        more = "" if profile == "gpu" else f" --profile {profile}"
        print(
            f"`python -m mtl_course.record {chapter}{more}` makes the record that this cell shows."
        )
    return None


def _read(path: Path, chapter: str) -> Record:
    """The record in a file; ValueError for what is not a whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{name: content[name] for name in FIELDS})
    except (ValueError, KeyError, TypeError) as error:
        advice = f"Restore it with git, or write it anew: python -m mtl_course.record {chapter}"
        raise ValueError(f"{path.name} is not a whole record ({error}). {advice}") from error


def save(record: Record, folder: Path | None = None, ending: str = ".json") -> Path:
    """Write a record; the old one stays until the new one is whole.

    Arrays and tensors become lists, and dataclasses, such as a `training.History`, objects:
    "history" is the key for what happened by epoch.

    Args:
        record: what to write.
        folder: where (default: among the committed records).
        ending: of the file's name.

    Returns:
        The file's path.

    Raises:
        OSError: the file cannot be written; for a full disk it says so.
    """
    folder = folder or FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.chapter}_{record.profile}{ending}"
    write_whole(path, to_json(asdict(record)) + "\n")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file beside the old one, then rename it; of a full disk nothing is left behind.

    OSError that says that the disk is full, if it is.
    """
    aside = path.with_suffix(".part")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = "; the file before it is whole" if path.exists() else ""
        said = f"{os.strerror(error.errno)}: the disk of {path} is full{kept}."
        raise OSError(error.errno, f"{said} Free some space, and run it again.") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def to_json(content) -> str:
    """JSON of results: arrays and tensors as lists, dataclasses as objects."""
    return json.dumps(content, indent=1, sort_keys=True, default=_plain)


def _plain(value):
    """What JSON has no form for, in one that it has."""
    return asdict(value) if is_dataclass(value) else value.tolist()


def provenance(seeds: list[int]) -> dict:
    """Where and how this process runs: versions, device, date (UTC), seeds, commit, command."""
    from ..runtime import environment

    return {
        **environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "commit": commit(),
        "command": " ".join(["python -m mtl_course.record", *sys.argv[1:]]),
    }


def commit(file: Path | None = None) -> str:
    """The commit of the code that runs, and whether it was changed since.

    Args:
        file: a file of the checkout (default: this one). Only where git knows it is the commit that
            of the checkout: an environment inside another project's checkout is not ours.

    Returns:
        The commit's hash, with the words "with changes" where Python files differ from it; outside
        of a checkout the commit that pip installed, or words that say that it is unknown.
    """
    file = file or Path(__file__)

    def git(*arguments):
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file))
        changed = git("status", "--porcelain", "--", ":/*.py")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return installed_commit() or "unknown (not a git checkout)"


def installed_commit() -> str | None:
    """The commit that pip installed, as on Colab from a repository's address; else None."""
    try:
        origin = json.loads(distribution("mtl-course").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")
