"""A page of what a learner has done: one HTML file that needs nothing else."""

import html
import os
import time
from pathlib import Path

from .._output import TONES
from .report import SIGNS, points
from .store import Progress

# Words of each sign in a table, told without colour.
WORDS = {True: "solved", False: "not yet", None: "not tried"}
STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44em; margin: 0 auto; padding: 1em;
  color: #1b1f24; background: #fff; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6em; }} h2 {{ font-size: 1.15em; margin: 1.6em 0 .3em; }}
table {{ border-collapse: collapse; width: 100%; }}
caption {{ text-align: left; padding: .2em 0; }}
th, td {{ text-align: left; font-weight: normal; padding: .25em .6em .25em 0;
  border-bottom: 1px solid #8c959f; vertical-align: top; }}
thead th {{ font-weight: 600; }}
thead th, td {{ overflow-wrap: normal; }}
td:nth-child(3) {{ white-space: nowrap; }}
th:nth-child(1) {{ width: 40%; }} th:nth-child(2) {{ width: 20%; }}
th:nth-child(3) {{ width: 13%; }} th:nth-child(4) {{ width: 10%; }}
@media (max-width: 36em) {{ table {{ font-size: .85em; }} th, td {{ padding-right: .4em; }} }}
.sign {{ display: inline-block; width: 1.5em; line-height: 1.5; text-align: center;
  border-radius: 50%; color: #fff; font-size: .75em; font-weight: 700; margin-right: .5em;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
{"".join(f".{tone} {{ background: {colour}; }}" for tone, colour in TONES.items())}
@media (prefers-color-scheme: dark) {{ body {{ color: #e6edf3; background: #0d1117; }} }}
@media print {{ body {{ color: #000; background: #fff; }} table {{ break-inside: avoid; }} }}
"""
SIGN = {True: "✓", False: "✗", None: "–"}


def save(progress: Progress, path: str | os.PathLike) -> Path:
    """Write the page; the old file stays until the new one is whole.

    Args:
        progress: what is solved.
        path: of the file, which must end in ``.html``.

    Returns:
        The path.

    Raises:
        ValueError: it has another ending.
        OSError: it cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path.name!r} is no name of a page: let it end in .html")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(page(progress), encoding="utf-8", newline="\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def page(progress: Progress, day: str | None = None) -> str:
    """The page as text: a heading and a table for each chapter, one for the labs.

    Args:
        progress: what is solved.
        day: it is of; today by default.
    """
    e, day = html.escape, day or time.strftime("%Y-%m-%d")
    body = [f"<p>{e(progress.counts())}. As of {e(day)}.</p>"]
    for title, exercises in progress.by_chapter():
        rows = []
        for exercise in exercises:
            entry = progress.entries.get(exercise.name, {})
            solved = None if not entry else entry["state"] == "solved"
            earned = points(entry.get("score", 0), exercise.points)
            rows.append([solved, exercise.name, f"{earned} of {exercise.points:g}", *_when(entry)])
        body.append(_section(title, progress.counts(exercises), "Exercise", "Points", rows))
    if progress.labs:
        rows = []
        for (top, title, _), name in zip(progress.lab_lines(), progress.labs, strict=True):
            entry, lab = progress.entries.get(name, {}), progress.labs[name]
            rung = min(int(entry.get("score", 0)), len(lab.rungs))
            rows.append([top, title, f"{rung} of {len(lab.rungs)}", *_when(entry)])
        body.append(_section("Labs", progress.lab_counts(), "Lab", "Rung", rows))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>My course, {e(day)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        "<h1>Multi-task, transfer and meta-learning: what I have done</h1>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _when(entry: dict) -> tuple[str, str]:
    """How often it was tried, and since when it is solved."""
    return str(entry.get("tries", 0)), str(entry.get("solved") or "–")


def _section(title: str, told: str, what: str, earned: str, rows: list[list]) -> str:
    e, lines = html.escape, []
    for state, name, *cells in rows:
        tone = SIGNS[state][0]
        sign = f'<span class="sign {tone}" aria-hidden="true">{SIGN[state]}</span>'
        word = WORDS[state] if what == "Exercise" else {True: "top rung"}.get(state, WORDS[state])
        inner = "".join(f"<td>{e(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{e(name)}</th><td>{sign}{e(word)}</td>{inner}</tr>')
    heads = [what, "State", earned, "Tries", "Solved on"]
    head = "".join(f'<th scope="col">{e(text)}</th>' for text in heads)
    return (
        f"<section>\n<h2>{e(title)}</h2>\n<table>\n<caption>{e(told)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>\n"
        "</section>"
    )
