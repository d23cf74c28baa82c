"""Run full-size experiments and write their records: ``python -m mtl_course.record 01``.

Or ``all`` of them. Needs no Jupyter.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path

from .. import chapters, records
from ..data.manifest import DataError
from ..seeds import seed_range
from . import everything, pieces, sources


def main(arguments: list[str] | None = None) -> int:
    """Make the record that the arguments ask for, or all that fit; 0 where that went well."""
    parser = _parser()
    options = parser.parse_args(arguments)
    every = options.chapter == "all"
    chapter = None
    if every:
        if options.part:
            parser.error("--part goes with one chapter; all makes the parts, too")
    else:
        if options.budget:
            parser.error("--budget goes with all")
        chapter = _chapter(parser, options)
    if len(options.seeds) < 3:
        parser.error("a record needs at least 3 seeds, or it shows no spread")
    if options.profile == "gpu" and not options.part and not options.force and not _has_gpu():
        advice = "Run it on Colab, or with --force as a smoke test."
        print(f"The gpu profile needs a CUDA device and none was found. {advice}", file=sys.stderr)
        return 2
    folder = _folder(parser, options)
    if every:
        return everything.make(options.profile, len(options.seeds), folder, options)
    return _one(chapter, options.part or options.profile, options, folder)


def _parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.record", description=__doc__)
    add = parser.add_argument
    add("chapter", help="number of the chapter, such as 01; or all, most valuable first")
    add(
        "--profile",
        choices=["cpu", "gpu"],
        default="gpu",
        help="size of the experiment (default: gpu)",
    )
    add(
        "--seeds",
        type=_seeds,
        default=range(5),
        metavar="N|A:B",
        help="how many, from 0 on, or a range whose end is not in it (default: 5)",
    )
    add("--part", metavar="NAME", help="a record that a chapter has beside its profiles")
    add(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="with all: leave out what does not fit, and stop after so long",
    )
    add(
        "--force",
        action="store_true",
        help="run the gpu profile without a GPU, as a smoke test; needs --out",
    )
    add("--out", type=Path, help="folder of the record (default: where the book reads it)")
    add(
        "--replace",
        action="store_true",
        help="write the record although the one that is there holds more",
    )
    return parser


def _seeds(text: str) -> range:
    """Seeds from a count or a range."""
    try:
        return range(int(text)) if ":" not in text else seed_range(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chapter(parser, options) -> str:
    """The number of the chapter; an unknown one, or part, ends the command with a message."""
    try:
        number = chapters.find(options.chapter).number
    except ValueError as error:
        parser.error(str(error))
    if options.part:
        names = sources.parts(sources.experiment(number))
        if options.part not in names:
            there = f"it has {', '.join(names)}" if names else "it has none"
            parser.error(f"chapter {number} has no part {options.part!r}; {there}")
    return number


def _has_gpu() -> bool:
    """Whether there is a CUDA device."""
    from ..runtime import device

    return device().type == "cuda"


def _folder(parser, options) -> Path:
    """Where the records go; a folder that will not do ends the command before any work."""
    folder = (options.out or records.FOLDER).resolve()
    if options.force and folder == records.FOLDER.resolve():
        parser.error(
            "--force needs --out, another folder than the book's:"
            " a smoke test must not replace the book's record"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"the record cannot be written to {folder} ({error})")
    if not os.access(folder, os.W_OK):
        parser.error(f"the record cannot be written to {folder}; name another folder with --out")
    return folder


def _one(chapter: str, profile: str, options, folder: Path) -> int:
    """Make one record: run, or finish, its experiment and write it where it is no worse."""
    seeds = list(options.seeds)
    old = records.load(chapter, profile, folder)
    if old and not options.replace and (more := len(old.provenance["seeds"])) > len(seeds):
        print(
            f"The record that is there has {more} seeds and stays: give --seeds {more},"
            " --out another folder, or --replace.",
            file=sys.stderr,
        )
        return 2
    provenance = records.provenance(seeds)
    if provenance["commit"].endswith(" with changes"):
        print(
            "The code has uncommitted changes, and the record will say so;"
            " the book takes no such record.",
            file=sys.stderr,
        )
    module = sources.experiment(chapter)
    provenance["code"] = sources.fingerprint(module)
    kept = pieces.place(folder, chapter, profile, provenance["code"])
    spent = pieces.spent(kept)
    if spent[0]:
        print(f"going on after pieces that took {spent[0]:.0f} s", flush=True)
    start = pieces.clocks()
    try:
        with pieces.keeping(kept):
            results = _run(import_module(module), profile, seeds, bool(options.part))
    except DataError as error:
        pieces.discard(kept)
        print(error, file=sys.stderr)
        return 2
    except Exception:
        if not pieces.spent(kept)[0]:
            pieces.discard(kept)
        raise
    wall, cpu = (
        before + now - then for before, now, then in zip(spent, pieces.clocks(), start, strict=True)
    )
    provenance |= {"seconds": round(wall, 1), "cpu_minutes": round(cpu / 60, 2)}
    record = records.Record(chapter, profile, results, provenance)
    missing = lacking(record, old) if old and not options.replace else []
    if missing:
        path = records.save(record, folder, ".less")
        print(
            f"The record that is there holds more ({', '.join(missing)}) and stays;"
            f" the new one is {path}. --replace takes it all the same.",
            file=sys.stderr,
        )
        return 2
    print(f"{record}\nwritten to {records.save(record, folder)}")
    pieces.discard(kept)
    return 0


def _run(module, profile: str, seeds: list[int], is_part: bool) -> dict:
    """Call an experiment, with a line of progress now and then where it takes `report`."""
    call: Callable = module.RECORDS[profile] if is_part else module.run
    given = (seeds,) if is_part else (profile, seeds)
    try:
        reports = "report" in signature(call).parameters
    except (TypeError, ValueError):
        reports = False
    return call(*given, **({"report": _report} if reports else {}))


def _report(*words) -> None:
    """Print at once, also into a file."""
    print(*words, flush=True)


def lacking(new: records.Record, old: records.Record) -> list[str]:
    """What an old record's results hold and a new one's do not, such as a data set left out.

    Two levels of names are compared; names that are numbers are seeds or settings, and do not
    count.
    """
    missing = [name for name in old.results if name not in new.results]
    for name, inside in new.results.items():
        there = old.results.get(name)
        if isinstance(inside, dict) and isinstance(there, dict):
            missing += [f"{name}: {key}" for key in there if key not in inside]
    return [name for name in missing if not name.split(": ")[-1].lstrip("-").isdigit()]
