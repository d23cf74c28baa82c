"""Claims: sentences of a chapter that rest on a measurement, asserted where they stand."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ._markup import to_html, to_text
from ._output import Output, card, show, wrapped

MIN_SEEDS = 3
SEEN = {True: ("good", "✓", "holds"), False: ("bad", "✗", "does not hold in this run")}


class ClaimFailed(AssertionError):  # noqa: N818 (it names what happened)
    """A claim of the book does not hold in a strict run (CI)."""


@dataclass(frozen=True)
class Paired:
    """A mean of differences seed by seed, and what its run could have seen; see `paired`.

    Args:
        mean: mean of the differences.
        error: standard error of that mean.
        limit: half the width of the 95 % interval, the t quantile times `error`.
        seeds: number of differences.
    """

    mean: float
    error: float
    limit: float
    seeds: int

    def above(self, value: float = 0.0) -> bool:
        """True where the whole 95 % interval lies above this value."""
        return self.mean - self.limit > value

    def below(self, value: float = 0.0) -> bool:
        """True where the whole 95 % interval lies below this value."""
        return self.mean + self.limit < value

    def __str__(self):
        mean, error, limit = _digits(self.error, self.mean, self.error, self.limit)
        seen = "beyond" if abs(self.mean) > self.limit else "within"
        said = "" if seen == "beyond" else ": a larger difference would have been seen"
        return (
            f"{mean} (standard error {error}, {self.seeds} seeds);"
            f" {seen} its 95 % limit of {limit}{said}"
        )


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """The mean of ``a - b`` seed by seed, with the smallest difference that would show.

    Two methods on the same seeds share much of what chance does: the same split, the same start.
    So the error that counts is that of their difference. A mean beyond the limit, on either side,
    is called a difference; a smaller one may be chance. The t quantile behind the limit is 4.3 for
    3 seeds, 2.8 for 5 and 2.3 for 10.

    Args:
        a: [S], one value per seed.
        b: [S], the values to compare with, of the same seeds in the same order.

    Returns:
        The differences as a `Paired`, which `claim` takes as evidence.

    Raises:
        ValueError: the two are not lists of the same length, of two values at least.

    Example:
        >>> gain = paired([0.82, 0.84, 0.83, 0.81, 0.85], [0.80, 0.81, 0.82, 0.80, 0.82])
        >>> print(f"{gain.mean:.3f} ± {gain.error:.4f}, limit {gain.limit:.3f}")
        0.020 ± 0.0045, limit 0.012
        >>> gain.above(), gain.above(0.01)
        (True, False)
    """
    from scipy.stats import t

    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise ValueError(
            "paired takes two lists with one value per seed, of the same length and at least two;"
            f" it was given shapes {a.shape} and {b.shape}"
        )
    differences = a - b
    error = differences.std(ddof=1) / math.sqrt(a.size)
    limit = t.ppf(0.975, a.size - 1) * error
    return Paired(float(differences.mean()), float(error), float(limit), a.size)


def strict() -> bool:
    """True where a failing claim must stop the run: MTL_COURSE_STRICT is set to 1."""
    return os.environ.get("MTL_COURSE_STRICT") == "1"


def summary(values: "Sequence[float] | float | Paired") -> str:
    """Evidence as a line such as ``0.424 ± 0.011 (5 seeds)``: mean, standard deviation, count.

    Three decimals; with a spread that these would round to nothing, as many as show two digits of
    it. A single number stands as it is, and a `Paired` says what it could have seen.

    Args:
        values: [S], one value per seed; or a number; or what `paired` gives.

    Returns:
        The line.

    Example:
        >>> summary([0.40, 0.42, 0.41])
        '0.410 ± 0.010 (3 seeds)'
    """
    if isinstance(values, Paired):
        return str(values)
    values = np.asarray(values, dtype=float)
    if values.ndim == 0:
        return f"{float(values):.4g}"
    mean, spread = _digits(values.std(ddof=1), values.mean(), values.std(ddof=1))
    return f"{mean} ± {spread} ({values.size} seeds)"


def _digits(spread: float, *numbers: float) -> list[str]:
    """Numbers with as many decimals as their spread asks for."""
    if spread == 0 or not np.isfinite(spread):
        return [f"{number:.4g}" for number in numbers]
    decimals = 3 if spread >= 5e-4 else 1 - int(np.floor(np.log10(spread)))
    return [f"{number:.{decimals}f}" for number in numbers]


def claim(
    text: str,
    holds: bool,
    evidence: "Mapping[str, Sequence[float] | float | Paired] | None" = None,
) -> None:
    """State a result of the chapter and say whether this run bears it out.

    A claim that does not hold stops a strict run, and so does a measured value with fewer than
    three seeds: one lucky run is no evidence. For a learner who changed a setting both are said,
    and the notebook goes on.

    A notebook shows it as a card, with the sentence, a sign and a word for whether it holds, and
    the evidence; elsewhere it is printed. The sentence and the names of the evidence may have
    `code`, **bold** and short $formulas$.

    Where the environment variable MTL_COURSE_CLAIMS names a file, each claim is appended to it as
    one line of JSON (text, holds, few, evidence), for `python -m mtl_course.dev claims`.

    Args:
        text: the sentence, as the prose makes it.
        holds: the comparison, computed in this run.
        evidence: name -> one value per seed (three at least); a plain number for what is exact (a
            closed form, a count); or a difference of two methods as `paired` gives it.

    Raises:
        ClaimFailed: in a strict run, for a claim that does not hold or has too few seeds.

    Example:
        >>> joint, single = [0.82, 0.84, 0.83], [0.70, 0.71, 0.69]
        >>> gain = paired(joint, single)
        >>> claim("Joint beats single", gain.above(), {"joint": joint, "joint - single": gain})
        ✓ holds: Joint beats single
            joint: 0.830 ± 0.010 (3 seeds)
            joint - single: 0.130 (standard error 0.006, 3 seeds);
                beyond its 95 % limit of 0.025
    """
    evidence = evidence or {}
    holds = bool(holds)
    shown, few = [], []
    for name, values in evidence.items():
        count = _seeds(values)
        if count is not None and count < MIN_SEEDS:
            few.append(f"{name!r} has {count}")
        shown.append(f"{name}: {_line(values)}")
    lines = [wrapped(to_text(one), "    ", "    ") for one in shown]
    _collect(text, holds, bool(few), evidence)
    if few and strict():
        raise ClaimFailed(f"a claim needs at least {MIN_SEEDS} seeds, but {', '.join(few)}: {text}")
    if not holds and strict():
        raise ClaimFailed("\n".join([f"claim does not hold: {text}", *lines]))
    tone, sign, word = SEEN[holds]
    note = ""
    if few:
        note = f"Fewer than {MIN_SEEDS} seeds are no evidence either way."
    elif not holds:
        note = "That is fine if you changed a setting; with the settings of the book it holds."
    lines += [wrapped(note, "    ")] if note else []
    plain = "\n".join([wrapped(f"{sign} {word}: {to_text(text)}", more="  "), *lines])
    items = "".join(f"<li>{to_html(one)}</li>" for one in shown)
    body = f'<ul style="margin:.3em 0 0;padding-left:1.4em;font-size:.9em">{items}</ul>'
    below = f'<div style="font-size:.9em">{note}</div>' if note else ""
    page = card(tone, sign, word, to_html(text), (body if items else "") + below, kind="claim")
    show(Output(page, plain))


def _seeds(values) -> int | None:
    """How many seeds stand behind a piece of evidence; None for what is exact."""
    if isinstance(values, Paired):
        return values.seeds
    values = np.asarray(values, dtype=float)
    return values.size if values.ndim else None


def _line(values) -> str:
    """`summary`, or the values themselves where they are too few for a spread."""
    if isinstance(values, Paired):
        return summary(values).replace("; ", ";\n    ")
    count = _seeds(values)
    if count is not None and count < MIN_SEEDS:
        return ", ".join(f"{value:.4g}" for value in np.asarray(values, dtype=float))
    return summary(values)


def _collect(text: str, holds: bool, few: bool, evidence: Mapping) -> None:
    """Append a claim to the file that MTL_COURSE_CLAIMS names; nothing where it names none."""
    file = os.environ.get("MTL_COURSE_CLAIMS")
    if not file:
        return
    plain = {
        str(name): asdict(values)
        if isinstance(values, Paired)
        else np.asarray(values, dtype=float).tolist()
        for name, values in evidence.items()
    }
    entry = {"text": text, "holds": holds, "few": few, "evidence": plain}
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
