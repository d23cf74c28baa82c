"""Claims: the sentences of a chapter that rest on a measurement, asserted where they stand."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

MIN_SEEDS = 3


class ClaimFailed(AssertionError):
    """A claim of the book does not hold in a strict run (CI)."""


def strict() -> bool:
    """True where a failing claim must stop the run: the environment variable MTL_COURSE_STRICT is
    set to 1.
    """
    return os.environ.get("MTL_COURSE_STRICT") == "1"


def summary(values: Sequence[float] | float) -> str:
    """Mean and sample standard deviation of one value a seed, such as ``0.424 ± 0.011 (5 seeds)``;
    a single number as it is.

    Three decimals; with a spread that these would round to nothing, as many as show two digits of
    it.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim == 0:
        return f"{float(x):.4g}"
    mean, spread = x.mean(), x.std(ddof=1)
    if spread == 0 or not np.isfinite(spread):
        return f"{mean:.4g} ± {spread:.4g} ({x.size} seeds)"
    decimals = 3 if spread >= 5e-4 else 1 - int(np.floor(np.log10(spread)))
    return f"{mean:.{decimals}f} ± {spread:.{decimals}f} ({x.size} seeds)"


def claim(
    text: str, holds: bool, evidence: Mapping[str, Sequence[float] | float] | None = None
) -> None:
    """State a result of the chapter and say whether this run bears it out.

    text: the sentence, as the prose makes it.
    holds: the comparison, computed in this run.
    evidence: name -> one value a seed (at least three), or a plain number for what is exact (a
        closed form, a count).

    A claim that does not hold stops a strict run with `ClaimFailed`, and so does a measured value
    with fewer than three seeds: one lucky run is no evidence. For a learner who changed a setting
    both are said, and the notebook goes on.
    """
    lines, few = [], []
    for name, values in (evidence or {}).items():
        x = np.asarray(values, dtype=float)
        if x.ndim and x.size < MIN_SEEDS:
            few.append(f"{name!r} has {x.size}")
            lines.append(f"    {name}: {', '.join(f'{v:.4g}' for v in x)}")
        else:
            lines.append(f"    {name}: {summary(values)}")
    holds = bool(holds)
    if few and strict():
        raise ClaimFailed(f"a claim needs at least {MIN_SEEDS} seeds, but {', '.join(few)}: {text}")
    if not holds and strict():
        raise ClaimFailed("\n".join([f"claim does not hold: {text}", *lines]))
    head = "✓ holds" if holds else "✗ does not hold in this run"
    print("\n".join([f"{head}: {text}", *lines]))
    if few:
        print(f"    Fewer than {MIN_SEEDS} seeds are no evidence either way.")
    elif not holds:
        print("    That is fine if you changed a setting; with the settings of the book it holds.")
