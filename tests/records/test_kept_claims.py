"""What `dev claims --save` has kept: each run is on seeds of its own, and all its claims held."""

import re

import pytest

from mtl_course import chapters
from mtl_course.dev import claims

KEPT = sorted(claims.SAVED.glob("*.txt"))
HEAD = (
    r"python -m mtl_course\.dev claims (\d\d) --seeds (\d+):(\d+)  \(20\d\d-\d\d-\d\d, commit \w+\)"
)


def faults(text: str, name: str) -> list[str]:
    """What is wrong with a kept run."""
    first, *lines, last = text.splitlines()
    head = re.fullmatch(HEAD, first)
    if not head:
        return [f"its first line is not a command: {first}"]
    number, start, _ = head.groups()
    found = [] if name == f"{number}_{start}.txt" else ["its name is of another run"]
    found += [] if number in chapters.CHAPTERS else [f"there is no chapter {number}"]
    # records are written with seeds below, but for a few that say so
    found += [] if int(start) >= 1000 else ["its seeds are among those of the records"]
    marks = [line.strip()[0] for line in lines if re.match(r"  [✓✗!] ", line)]
    found += [f"{mark} among its marks" for mark in sorted({*marks} - {"✓"})]
    held = re.match(rf"chapter {number}: (\d+) of (\d+) claims hold", last)
    if not held or held[1] != held[2] or int(held[1]) != len(marks):
        found.append(f"its last line does not count its claims: {last}")
    return found


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_all_claims_of_a_kept_run_held(path):
    assert faults(path.read_text(encoding="utf-8"), path.name) == []


def test_runs_are_kept_in_pairs():
    """Two sets of seeds per chapter: one alone may be lucky."""
    numbers = [path.name[:2] for path in KEPT]
    assert numbers and {number for number in numbers if numbers.count(number) < 2} == set()


GOOD = """\
python -m mtl_course.dev claims 01 --seeds 7001:7011  (2026-11-28, commit abc)
  ✓ cell 1, live: It helps
chapter 01: 1 of 1 claims hold (3 s)
"""


@pytest.mark.parametrize(
    "old, new",
    [
        ("  ✓", "  ✗"),
        ("1 of 1", "0 of 1"),
        ("1 of 1", "2 of 2"),
        ("7001:7011", "5:10"),
        ("claims 01", "claims 02"),
        ("(3 s)\n", "(3 s)\nmore\n"),
        ("  ✓ cell", "  ! cell 2 raised KeyError\n  ✓ cell"),
    ],
)
def test_a_kept_run_with_a_fault_is_caught(old, new):
    assert faults(GOOD, "01_7001.txt") == []
    assert faults(GOOD.replace(old, new), "01_7001.txt")
