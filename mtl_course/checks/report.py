"""What a check shows: the same verdict as text and as a card that reads on light and dark pages."""

import html
import textwrap
from dataclasses import dataclass, field

from .._output import printable
from .exercise import Exercise
from .rows import Row

MARKS = {True: "✓", False: "✗", None: "–"}
HEADLINES = {
    "solved": "solved",
    "wrong": "not yet",
    "blank": "not started",
    "missing": "not found",
    "error": "stopped with an error",
    "timeout": "took too long",
}
GREEN, ORANGE, GREY = "#2da44e", "#d4730b", "#808a94"
BORDERS = {
    "solved": GREEN,
    "wrong": ORANGE,
    "error": ORANGE,
    "timeout": ORANGE,
    "blank": GREY,
    "missing": GREY,
}


@dataclass
class Result:
    """The verdict on one answer. Shown by a notebook as a card, by print as text.

    state: solved, wrong, blank, missing, error or timeout; score: points earned, of
        `exercise.points`.
    hint: the hint of the known mistake that the answer behaves like, or the way to begin; else
        None.
    """

    exercise: Exercise
    state: str
    rows: list[Row]
    score: float
    hint: str | None
    seed: int
    printed: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        headline = f"{self.exercise.name}: {HEADLINES[self.state]}"
        if self.state not in ("solved", "wrong"):
            return headline
        worth = self.exercise.points
        return f"{headline} ({self.score:.3g} of {worth:g} point{'s' * (worth != 1)})"

    @property
    def again(self) -> str | None:
        """The call that repeats this check on the very same inputs, where that is of use."""
        if self.state not in ("wrong", "error", "timeout"):
            return None
        return f'check("{self.exercise.name}", seed={self.seed})'

    def __repr__(self) -> str:
        lines = [self.headline]
        for row in self.rows:
            lines.append(f"  {MARKS[row.ok]} {row.name}")
            if row.detail:
                lines.append(textwrap.indent(row.detail, "      "))
        if self._printed:
            lines += ["  Your function printed:", textwrap.indent(self._printed, "      ")]
        if self.hint:
            lines.append(f"  {self._hint_label}: {self.hint}")
        if self.again:
            lines.append(f"  Same inputs again: {self.again}")
        return printable("\n".join(lines + [f"  {note}" for note in self.notes]))

    @property
    def _hint_label(self) -> str:
        """What is known of an answer is how it behaves, not what is written in it."""
        return "Hint" if self.state == "missing" else "Hint (it behaves like a known mistake)"

    @property
    def _printed(self) -> str:
        if self.state not in ("wrong", "error", "timeout"):
            return ""
        return textwrap.shorten(self.printed, 300, placeholder=" …")

    def _repr_html_(self) -> str:
        # Only the border has a colour of its own: text and background are the page's.
        e = html.escape
        lines = (f"{MARKS[row.ok]} {e(row.name)}{_block(row.detail)}" for row in self.rows)
        items = "".join(f'<li style="list-style:none">{line}</li>' for line in lines)
        parts = [
            f"<strong>{e(self.headline)}</strong>",
            f'<ul style="margin:.3em 0;padding:0">{items}</ul>' if items else "",
        ]
        if self._printed:
            parts.append(f"<div>Your function printed:</div>{_block(self._printed)}")
        if self.hint:
            label = f"<strong>{self._hint_label}:</strong>"
            parts.append(f'<div style="margin:.3em 0">{label} {e(self.hint)}</div>')
        if self.again:
            parts.append(f"<div>Same inputs again: <code>{e(self.again)}</code></div>")
        parts += [f"<div>{e(note)}</div>" for note in self.notes]
        return card(BORDERS[self.state], "".join(parts))


def say(text: str) -> None:
    """Print a text, on any console."""
    print(printable(text))


def card(border: str, inner: str) -> str:
    """HTML of a card with a coloured left border."""
    inner = inner.encode("utf-8", "backslashreplace").decode()  # halves of surrogate pairs
    return (
        f'<div style="border-left:4px solid {border};padding:.3em .8em;margin:.4em 0">{inner}</div>'
    )


def _block(text: str) -> str:
    style = (
        "margin:.2em 0 .4em 1.6em;padding:0;white-space:pre-wrap;"
        "background:transparent;color:inherit;border:0"
    )
    return f'<pre style="{style}">{html.escape(text)}</pre>' if text else ""
