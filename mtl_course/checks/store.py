"""What was solved so far: a small file in the user's home, written so that nothing is lost."""

import contextlib
import errno
import html
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .. import chapters
from .._output import BORDER, TONES, printable, wrapped
from .exercise import Exercise
from .report import MARKS, Result, listed, points

RANK = ["missing", "blank", "timeout", "error", "wrong", "solved"]
_said: set[str] = set()  # what a kernel was told once


def home() -> Path:
    """Where progress is kept: MTL_COURSE_HOME, else Colab's mounted Drive, else ~/.mtl_course.

    An account without a home gets a folder for temporary files.
    """
    return _home()[0]


def _home() -> tuple[Path, str | None]:
    """(where progress is kept, note for an account that has no home, or None)."""
    try:
        if chosen := os.environ.get("MTL_COURSE_HOME"):
            return Path(chosen).expanduser(), None
        drive = Path("/content/drive/MyDrive")
        if drive.is_dir():
            return drive / "mtl_course", None
        return Path.home() / ".mtl_course", None
    except RuntimeError:  # pathlib's, where there is no home
        number = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
        place = Path(tempfile.gettempdir()) / f"mtl_course{number}" / "home"
        note = (
            f"This account has no home folder: progress is kept in {place}, perhaps not for long."
            " Set MTL_COURSE_HOME to a folder of yours."
        )
        return place, note


def load() -> tuple[dict[str, dict], str | None]:
    """(entry of each exercise tried so far, note for the user or None).

    A file that cannot be understood is moved aside under another name, and a new one is begun.
    """
    path, note = Path("progress.json"), None
    try:
        folder, note = _home()
        path = folder / path
        entries = json.loads(path.read_text(encoding="utf-8"))["exercises"]
        for entry in entries.values():
            _require_understood(entry)
        return entries, note and _once(note)
    except FileNotFoundError:
        return {}, note and _once(note)
    except OSError as error:
        return {}, _once(
            f"Progress could not be read from {path} ({error.strerror});"
            " the checks work all the same."
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        aside = next(
            p
            for n in range(1, 10**6)
            if not (p := path.with_name(f"progress.unreadable-{n}.json")).exists()
        )
        try:
            path.replace(aside)
        except OSError:
            return {}, _once(
                f"The progress file {path} is damaged and could not be moved aside;"
                " the checks work all the same."
            )
        return {}, f"The progress file was damaged. It is kept as {aside}, and a new one was begun."


def _require_understood(entry: dict) -> None:
    """ValueError, KeyError or TypeError unless the entry can be counted and compared."""
    state, tries, score = entry["state"], entry["tries"], entry["score"]
    numbers = isinstance(tries, int) and isinstance(score, int | float) and math.isfinite(score)
    if state not in RANK or not numbers:
        raise ValueError(entry)
    value = entry.get("value")  # of a lab
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
        raise ValueError(entry)


def record(result: Result) -> str | None:
    """Keep the best result of each exercise. Returns a note for the user, or None.

    A problem with the disk is such a note; it never raises.
    """
    if result.state in ("blank", "missing"):
        return None
    return _keep(result.exercise.name, lambda entry: _better(entry, result.state, result.score))[1]


def record_lab(
    name: str, state: str, rung: int, value: float | None
) -> tuple[dict | None, str | None]:
    """Keep the best result of a lab; it never raises.

    Args:
        name: of the lab, which no exercise has.
        state: solved on the top rung, else wrong, error or timeout.
        rung: how many rungs were reached.
        value: the measure that ranks results, more is better; None without one.

    Returns:
        (the lab's entry, None where it could not be kept; a note for the user, or None).
    """

    if value is not None and not math.isfinite(value):
        value = None

    def better(entry):
        new = _better(entry, state, rung)
        old = entry or {}
        ranks = [(old.get("score", 0), old.get("value")), (rung, value)]
        known = [(reached, best) for reached, best in ranks if best is not None]
        return {**new, "value": max(known)[1] if known else None}

    return _keep(name, better)


def _keep(name: str, better) -> tuple[dict | None, str | None]:
    """(the entry that ``better(entry so far, or None)`` gives, a note or None): it is written."""
    folder = None
    try:
        folder = home()
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            entries, note = load()
            entries[name] = better(entries.get(name))
            _write(folder / "progress.json", {"version": 1, "exercises": entries})
            return entries[name], note
    except OSError as error:
        why = error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"{why}: the disk is full"
        return None, _once(
            f"Progress could not be kept in {folder or 'any folder'} ({why});"
            " the checks work all the same."
        )


def _better(entry: dict | None, state: str, score: float) -> dict:
    entry = entry or {"state": "missing", "score": 0.0, "tries": 0}
    state = max(entry["state"], state, key=RANK.index)
    today = time.strftime("%Y-%m-%d") if state == "solved" else None
    return {
        **entry,
        "state": state,
        "score": max(entry["score"], round(score, 4)),
        "tries": entry["tries"] + 1,
        "solved": entry.get("solved") or today,
    }


def _write(path: Path, content: dict) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never half of it."""
    number, beside = tempfile.mkstemp(dir=path.parent, prefix=".progress-", suffix=".tmp")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        for attempt in range(20):
            try:
                return os.replace(beside, path)
            except PermissionError:  # Windows, while somebody else reads the file
                if attempt == 19:
                    raise
                time.sleep(0.02)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


@contextlib.contextmanager
def _alone(folder: Path, patience: float = 3.0, stale: float = 10.0):
    """One writer at a time, over all kernels.

    The lock is a folder: making one is atomic on every file system, Drive included.
    """
    lock = folder / ".progress.lock"
    end = time.monotonic() + patience
    while True:
        try:
            lock.mkdir()
            break
        # Windows says the second while the folder is being removed.
        except (FileExistsError, PermissionError):
            with contextlib.suppress(OSError):
                if time.time() - lock.stat().st_mtime > stale:  # left by a kernel that was killed
                    lock.rmdir()
                    continue
            if time.monotonic() > end:
                raise
            time.sleep(0.005)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.rmdir()


def _once(note: str) -> str | None:
    if note in _said:
        return None
    _said.add(note)
    return note


@dataclass
class Progress:
    """The course at a glance. Shown by a notebook as a card, by print as text."""

    exercises: list[Exercise]
    entries: dict[str, dict]
    note: str | None = None
    labs: dict[str, chapters.Lab] = field(default_factory=lambda: chapters.LABS)

    def _state(self, exercise: Exercise) -> str:
        return self.entries.get(exercise.name, {}).get("state", "blank")

    def counts(self, exercises: list[Exercise] | None = None) -> str:
        """How many of these exercises are solved, and their points; of all by default."""
        exercises = self.exercises if exercises is None else exercises
        solved = sum(self._state(e) == "solved" for e in exercises)
        earned = sum(min(self.entries.get(e.name, {}).get("score", 0), e.points) for e in exercises)
        worth = sum(e.points for e in exercises)
        return f"{solved} of {len(exercises)} solved, {points(earned, worth)} of {worth:g} points"

    def _lines(self, exercises: list[Exercise]) -> list[tuple[bool | None, str, str]]:
        """(whether it is solved, None before the first try; name; tries) of each exercise."""
        lines = []
        for exercise in exercises:
            entry = self.entries.get(exercise.name)
            solved, told = None, ""
            if entry is not None:
                solved = self._state(exercise) == "solved"
                tries = "1 try" if entry["tries"] == 1 else f"{entry['tries']} tries"
                told = f"{points(entry['score'], exercise.points)} of {exercise.points:g}, {tries}"
            lines.append((solved, exercise.name, told))
        return lines

    def by_chapter(self) -> list[tuple[str, list[Exercise]]]:
        """(number and title, exercises) of each chapter."""
        numbers = sorted({e.chapter for e in self.exercises})
        titles = {
            n: f"{n} {chapters.CHAPTERS[n].title}" if n in chapters.CHAPTERS else n for n in numbers
        }
        return [(titles[n], [e for e in self.exercises if e.chapter == n]) for n in numbers]

    def lab_lines(self) -> list[tuple[bool | None, str, str]]:
        """(whether its top rung is reached, None before the first try; title; rung) of each lab."""
        lines = []
        for name, lab in self.labs.items():
            entry = self.entries.get(name)
            reached, told = None, ""
            if entry is not None:
                rung = min(int(entry["score"]), len(lab.rungs))
                reached = rung == len(lab.rungs)
                tries = "1 try" if entry["tries"] == 1 else f"{entry['tries']} tries"
                told = f"rung {rung} of {len(lab.rungs)}, {tries}"
            lines.append((reached, lab.heading, told))
        return lines

    def lab_counts(self) -> str:
        """How many labs were begun."""
        begun = sum(name in self.entries for name in self.labs)
        return f"{begun} of {len(self.labs)} begun"

    def __repr__(self) -> str:
        lines = [f"Progress: {self.counts(self.exercises)}"]
        for title, exercises in self.by_chapter():
            lines.append(wrapped(f"{title}: {self.counts(exercises)}", more="  "))
            lines += [
                f"  {MARKS[solved]} {name:32} {tries}".rstrip()
                for solved, name, tries in self._lines(exercises)
            ]
        if self.labs:
            lines.append(f"Labs: {self.lab_counts()}")
            lines += [
                f"  {MARKS[top]} {title:32} {told}".rstrip()
                for top, title, told in self.lab_lines()
            ]
        return printable("\n".join(lines + ([wrapped(self.note)] if self.note else [])))

    def _repr_html_(self) -> str:
        e = html.escape
        parts = [f"<strong>Progress</strong>: {self.counts(self.exercises)}", self._bar()]
        for title, exercises in self.by_chapter():
            items = [(ok, f"{e(name)} {e(told)}") for ok, name, told in self._lines(exercises)]
            head = f"<strong>{e(title)}</strong>: {self.counts(exercises)}"
            parts.append(f'<div style="margin-top:.6em">{head}</div>{listed(items)}')
        if self.labs:
            items = [(top, f"{e(title)} {e(told)}") for top, title, told in self.lab_lines()]
            head = f"<strong>Labs</strong>: {self.lab_counts()}"
            parts.append(f'<div style="margin-top:.6em">{head}</div>{listed(items)}')
        parts += [f"<div>{e(self.note)}</div>"] if self.note else []
        return (
            f'<div class="mtl-progress" role="group" aria-label="Progress" style="border:{BORDER};'
            f"border-radius:6px;padding:.5em .9em;margin:.5em 0;line-height:1.5;"
            f'overflow-wrap:anywhere">{"".join(parts)}</div>'
        )

    def _bar(self) -> str:
        """How much is solved, as a bar; the words beside it say the same."""
        solved = sum(self._state(exercise) == "solved" for exercise in self.exercises)
        share = 100 * solved / max(len(self.exercises), 1)
        return (
            f'<div aria-hidden="true" style="border:{BORDER};border-radius:1em;height:.7em;'
            f'margin:.3em 0;overflow:hidden"><div style="height:100%;width:{share:.0f}%;'
            f'background:{TONES["good"]}"></div></div>'
        )
