"""What a check shows: the same verdict as text and as a card, on light pages and dark ones."""

import html
import math
import textwrap
from dataclasses import dataclass, field

from .._markup import to_html, to_text
from .._output import ON_PAPER, TONES, card, printable, wrapped
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
# (tone, sign) of the card of each state, and (tone, words for who cannot see it) of a row's sign.
FACES = {
    "solved": ("good", "✓"),
    "wrong": ("bad", "✗"),
    "error": ("stop", "!"),
    "timeout": ("stop", "!"),
    "blank": ("calm", "○"),
    "missing": ("calm", "?"),
}
SIGNS = {True: ("good", "passed"), False: ("bad", "not yet"), None: ("calm", "not tried")}


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
        return f"{headline} ({points(self.score, worth)} of {worth:g} point{'s' * (worth != 1)})"

    @property
    def again(self) -> str | None:
        """The call that repeats this check on the very same inputs, where that is of use."""
        if self.state not in ("wrong", "error", "timeout"):
            return None
        return f'check("{self.exercise.name}", seed={self.seed})'

    def __repr__(self) -> str:
        lines = [self.headline]
        for row in self.rows:
            lines.append(wrapped(f"{MARKS[row.ok]} {to_text(row.name)}", "  ", "  "))
            if row.detail:
                lines.append(wrapped(row.detail, "      ", "  "))
        if self._printed:
            lines += ["  Your function printed:", wrapped(self._printed, "      ")]
        if self.hint:
            lines.append(wrapped(f"{self._hint_label}: {to_text(self.hint)}", "  ", "  "))
        if self.again:
            lines.append(f"  Same inputs again: {self.again}")
        return printable("\n".join([*lines, *(wrapped(to_text(n), "  ") for n in self.notes)]))

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
        worth = self.headline.partition(" (")[2].rstrip(")")
        title = f"<strong>{html.escape(self.exercise.name)}</strong>{worth and f', {worth}'}"
        parts = [listed((row.ok, to_html(row.name) + _block(row.detail)) for row in self.rows)]
        if self._printed:
            parts.append(f"<div>Your function printed:</div>{_block(self._printed)}")
        if self.hint:
            label = f"<strong>{self._hint_label}:</strong>"
            parts.append(f'<div style="margin:.3em 0">{label} {to_html(self.hint)}</div>')
        if self.again:
            parts.append(f"<div>Same inputs again: {to_html(f'`{self.again}`')}</div>")
        parts += [f"<div>{to_html(note)}</div>" for note in self.notes]
        tone, sign = FACES[self.state]
        word = HEADLINES[self.state]
        return card(tone, sign, word, title, "".join(parts), "check", self.headline)


def points(score: float, worth: float) -> str:
    """A score with one decimal. Only what is worth all is told as all, only nothing as 0."""
    told = round(score, 1)
    if 0 < score < worth:
        told = min(max(told, 0.1), math.ceil(10 * worth - 1) / 10)
    return f"{told:g}"


def say(text: str) -> None:
    """Print a text, on any console."""
    print(printable(text))


def listed(items) -> str:
    """HTML of a list whose signs say for each item whether it holds.

    Args:
        items: pairs (True, False or None for what was not tried; HTML).
    """
    lines = []
    for ok, inner in items:
        tone, word = SIGNS[ok]
        sign = (
            f'<span role="img" aria-label="{word}" style="flex:none;width:1.5em;'
            "height:1.5em;line-height:1.5;margin-top:.3em;border-radius:50%;text-align:center;"
            "font-size:.75em;font-weight:700;"
            f'background:{TONES[tone]};color:#fff;{ON_PAPER}">{MARKS[ok]}</span>'
        )
        lines.append(
            f'<li style="display:flex;gap:.5em;margin:.15em 0">{sign} '
            f'<div style="min-width:0">{inner}</div></li>'
        )
    style = "list-style:none;margin:.3em 0;padding:0"
    return f'<ul role="list" style="{style}">{"".join(lines)}</ul>' if lines else ""


def _block(text: str) -> str:
    style = (
        "margin:.2em 0 .4em;padding:0;white-space:pre-wrap;"
        "background:transparent;color:inherit;border:0;font-size:.9em;"
        "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
    )
    return f'<pre style="{style}">{html.escape(text)}</pre>' if text else ""
