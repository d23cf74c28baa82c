"""Run chapters on other seeds and say which of their claims hold there.

A chapter's live cells run as for a learner who solved nothing, on the seeds asked for. Claims that
rest on the committed record keep the record's seeds; ``--record`` makes the chapter's cpu records
anew on the seeds asked for, into a temporary folder, and lets the notebook read those. This takes
as long as the records took. ``--save`` keeps what was said beside the records, in `SAVED`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .. import records
from ..claims import Paired, summary
from ..records import sources
from ..seeds import seed_range
from . import execute, normalise, notebooks, seeds

SAVED = records.FOLDER / "claims"  # a file per chapter and range of seeds

# What stands beside a claim: on what it rests.
PLACES = {
    frozenset(): "no seed",
    frozenset({seeds.LIVE}): "live",
    frozenset({seeds.RECORD}): "on the record",
    frozenset({seeds.LIVE, seeds.RECORD}): "live, beside the record",
}


@dataclass
class Claim:
    """A claim that a notebook made.

    Args:
        cell: index of its cell.
        text: the sentence.
        holds: whether this run bears it out.
        few: whether a measured value has fewer than three seeds.
        evidence: name -> number, list, or the fields of a `Paired`.
        place: on what it rests, a value of `PLACES`.
    """

    cell: int
    text: str
    holds: bool
    few: bool
    evidence: dict
    place: str

    def lines(self) -> list[str]:
        """The claim with its evidence, as a reader of a terminal sees it."""
        mark = "✓" if self.holds else "✗"
        shown = [f"  {mark} cell {self.cell}, {self.place}: {self.text}"]
        for name, value in self.evidence.items():
            value = Paired(**value) if isinstance(value, dict) else value
            short = isinstance(value, list) and len(value) < 2
            shown.append(f"      {name}: {value if short else summary(value)}")
        return shown


@dataclass
class Run:
    """What a notebook claimed, and the cells that could not run.

    Args:
        claims: in the order in which they were made.
        errors: a line for each cell that raised.
    """

    claims: list[Claim] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if not claim.holds]


def run(nb, span: range, folder: Path | None = None, timeout: int = 3600, report=print) -> Run:
    """Run a notebook on these seeds and collect what it claims.

    Args:
        nb: the notebook; its outputs are written into it, and nothing into its file.
        span: the seeds, at least as many as `session.seeds` is asked for.
        folder: where its records are looked for first, if not where they always are.
        timeout: seconds that one cell may take.
        report: gets lines of progress.

    Returns:
        All claims, and the errors of cells that raised; the others have run all the same.

    Raises:
        ValueError: the notebook takes more seeds than there are.
    """
    code = [(i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    trees = {i: tree for i, cell in code if (tree := notebooks.tree(cell)) is not None}
    if (most := seeds.largest(trees.values())) > len(span):
        raise ValueError(
            f"it takes {most} seeds; give it at least {span.start}:{span.start + most}"
        )
    flow, result, made = seeds.Flow(), Run(), 0
    stated = {i: flow.cell(tree) for i, tree in trees.items()}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "claims.jsonl")
        file.touch()

        def collect(index: int) -> None:
            nonlocal made
            lines = file.read_text(encoding="utf-8").splitlines()
            for line in lines[made:]:
                entry = json.loads(line)
                where = _place(entry["text"], stated.get(index, []))
                result.claims.append(Claim(index, **entry, place=where))
            made = len(lines)

        variables = {
            "MTL_COURSE_CLAIMS": str(file),
            "MTL_COURSE_SEEDS": f"{span.start}:{span.stop}",
            "MTL_COURSE_STRICT": "0",
        }
        if where := folder or os.environ.get("MTL_COURSE_RECORDS"):
            variables["MTL_COURSE_RECORDS"] = str(where)
        for _, cell in code:
            cell.outputs, cell.execution_count = [], None
        execute.run(nb, timeout, report=report, variables=variables, keep_going=True, after=collect)
    for i, cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                said = normalise.as_on_screen(output.evalue).strip().split("\n")[0]
                result.errors.append(f"  ! cell {i} raised {output.ename}: {said}")
    return result


def _place(text: str, stated: list[tuple[str, set[str]]]) -> str:
    """On what a claim rests: that of the sentence in its cell's code, else of all of its cell."""
    for pattern, origin in stated:
        if re.fullmatch(pattern, text, re.S):
            return PLACES[frozenset(origin)]
    return PLACES[frozenset(set().union(*(origin for _, origin in stated)))]


def remake(number: str, span: range, folder: Path, report: Callable = print) -> bool:
    """Make a chapter's cpu records anew on these seeds, each with as many as it has.

    Args:
        number: the chapter.
        span: the seeds; a record takes its number of them from the start.
        folder: where the records go.
        report: gets lines of progress.

    Returns:
        Whether all were made.

    Raises:
        ValueError: a record has more seeds than there are.
    """
    well = True
    for name in ["cpu", *sources.parts(sources.experiment(number))]:
        old = records.load(number, name)
        if old is None:
            continue
        count = len(old.provenance["seeds"])
        if count > len(span):
            raise ValueError(
                f"its record {name} has {count} seeds; give it at least"
                f" {span.start}:{span.start + count}"
            )
        chosen = f"{span.start}:{span.start + count}"
        report(f"chapter {number}: its record {name} on the seeds {chosen}")
        command = [sys.executable, "-m", "mtl_course.record", number, "--profile", "cpu"]
        command += ["--seeds", chosen, "--out", str(folder)]
        command += ["--part", name] if name != "cpu" else []
        well &= subprocess.run(command).returncode == 0
    return well


def main(arguments: list[str]) -> int:
    """Print which claims hold; 0 if all do, else 1."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev claims", description=__doc__)
    parser.add_argument("chapters", nargs="+", metavar="NN", help="numbers of chapters")
    parser.add_argument(
        "--seeds", type=_span, required=True, metavar="A:B", help="the seeds A to B - 1"
    )
    parser.add_argument(
        "--record", action="store_true", help="make the chapter's cpu records on them, too"
    )
    parser.add_argument(
        "--save", action="store_true", help="keep what is said, beside the committed records"
    )
    parser.add_argument(
        "--timeout", type=int, default=3600, help="seconds that one cell may take (default: 3600)"
    )
    options = parser.parse_args(arguments)
    well = True
    for chapter, path in notebooks.chosen(parser, options.chapters):
        well &= _chapter(chapter, path, options)
    return int(not well)


def _span(text: str) -> range:
    """Seeds from the command line."""
    try:
        return seed_range(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chapter(chapter, path: Path, options) -> bool:
    """Run one chapter and print its claims; True if all hold and every cell ran."""
    span, start = options.seeds, time.perf_counter()
    print(f"chapter {chapter.number} on the seeds {span.start} to {span.stop - 1}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) if options.record else None
        try:
            if folder and not remake(chapter.number, span, folder):
                print(f"chapter {chapter.number}: a record could not be made (see above)")
                return False
            result = run(notebooks.read(path), span, folder, options.timeout)
        except ValueError as error:
            print(f"chapter {chapter.number}: {error}")
            return False
        read = _read(chapter.number, folder)
    said = [line for claim in result.claims for line in claim.lines()] + result.errors
    said += read
    said += [_summary(chapter.number, result, options.record, time.perf_counter() - start)]
    print(*said, sep="\n")
    if options.save:
        print(f"kept in {_save(chapter.number, span, said)}")
    return not (result.broken or result.errors)


def _read(number: str, folder: Path | None) -> list[str]:
    """A line for each record of the chapter: its seeds and the commit of its code."""
    elsewhere = folder or os.environ.get("MTL_COURSE_RECORDS")
    places = [records.FOLDER, Path(elsewhere)] if elsewhere else [records.FOLDER]
    files = {file.name: file for place in places for file in sorted(place.glob(f"{number}_*.json"))}
    lines = []
    for name, file in sorted(files.items()):
        made = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        of, commit = made["seeds"], made.get("commit", "unknown")[:9]
        lines.append(f"  record {name}: seeds {of[0]} to {of[-1]}, commit {commit}")
    return lines


def _save(number: str, span: range, said: list[str]) -> str:
    """Write what a run said, below the command and the commit; returns the file's name."""
    SAVED.mkdir(exist_ok=True)
    day, commit = time.strftime("%Y-%m-%d", time.gmtime()), records.commit()[:9]
    head = f"python -m mtl_course.dev claims {number} --seeds {span.start}:{span.stop}"
    file = SAVED / f"{number}_{span.start}.txt"
    text = "\n".join([f"{head}  ({day}, commit {commit})", *said])
    records.write_whole(file, text + "\n")
    return f"{file.parent.name}/{file.name}"


def _summary(number: str, result: Run, renewed: bool, seconds: float) -> str:
    """One line: how many claims hold, and how many of them the seeds asked for have tested."""
    count, broken, errors = len(result.claims), len(result.broken), len(result.errors)
    old = sum(claim.place == PLACES[frozenset({seeds.RECORD})] for claim in result.claims)
    text = f"chapter {number}: {count - broken} of {count} claims hold"
    if old:
        text += f"; {old} rest on the record alone, on {'these' if renewed else 'its own'} seeds"
    if errors:
        text += f"; {errors} cells raised an error"
    return f"{text} ({seconds:.0f} s)"
