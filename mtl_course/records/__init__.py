"""Records: results of full-size experiments, committed as JSON beside this file with their
provenance.

Without a record a chapter says so in one line and claims nothing from it.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

FOLDER = Path(__file__).parent
FIELDS = ("chapter", "profile", "results", "provenance")


@dataclass(frozen=True)
class Record:
    """Results of a chapter's experiment, plain JSON; `provenance`: device, versions, date, seeds,
    commit, command, seconds.
    """

    chapter: str
    profile: str
    results: dict
    provenance: dict

    def __str__(self):
        p = self.provenance
        return (
            f"Record of {p['date'][:10]} on {p['device']}, torch {p['torch']}, commit"
            f" {p['commit'][:9]}: {p['command']}"
        )


def load(chapter: str, profile: str = "gpu", folder: Path = FOLDER) -> Record | None:
    """The committed record of a chapter, or None where there is none yet. ValueError for a file
    that is not a whole record.
    """
    path = folder / f"{chapter}_{profile}.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{name: content[name] for name in FIELDS})
    except (ValueError, KeyError, TypeError) as error:
        advice = f"Restore it with git, or write it anew: python -m mtl_course.record {chapter}"
        raise ValueError(f"{path.name} is not a whole record ({error}). {advice}") from error


def save(record: Record, folder: Path = FOLDER) -> Path:
    """Write a record; the old one stays until the new one is whole. Returns its path.

    Arrays and tensors become lists, and dataclasses, such as a `training.History`, objects:
    "history" is the key for what happened by epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.chapter}_{record.profile}.json"
    aside = path.with_suffix(".part")
    aside.write_text(
        json.dumps(asdict(record), indent=1, sort_keys=True, default=_plain) + "\n",
        encoding="utf-8",
    )
    aside.replace(path)
    return path


def _plain(value):
    return asdict(value) if is_dataclass(value) else value.tolist()


def provenance(seeds: list[int]) -> dict:
    """Where and how this process runs, for a record: versions, device, date (UTC), seeds, commit,
    command.
    """
    from ..runtime import environment

    return {
        **environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "commit": _commit(),
        "command": " ".join(["python -m mtl_course.record", *sys.argv[1:]]),
    }


def _commit() -> str:
    def git(*args):
        return subprocess.run(
            ["git", "-C", str(FOLDER), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", __file__
        )  # an environment inside another project's checkout is not ours
        return git("rev-parse", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--", ":/*.py") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return _installed_commit() or "unknown (not a git checkout)"


def _installed_commit() -> str | None:
    """The commit that pip installed, as on Colab from a repository's address; None where it did
    not.
    """
    try:
        origin = json.loads(distribution("mtl-course").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")
