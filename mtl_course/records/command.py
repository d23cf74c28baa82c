"""Run a chapter's full-size experiment and write its record: ``python -m mtl_course.record 01``.
Needs no Jupyter.
"""

import argparse
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from .. import chapters, records
from ..data.manifest import DataError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.record", description=__doc__)
    parser.add_argument("chapter", help="number of the chapter, such as 01")
    parser.add_argument(
        "--profile",
        choices=["cpu", "gpu"],
        default="gpu",
        help="size of the experiment (default: gpu)",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="how many seeds, from 0 on (default: 5)"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="run the gpu profile without a GPU, as a smoke test; needs --out",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the record (default: where the book reads it)"
    )
    options = parser.parse_args(arguments)
    try:
        chapter = chapters.find(options.chapter)
    except ValueError as error:
        parser.error(str(error))
    if options.seeds < 3:
        parser.error("a record needs at least 3 seeds, or it shows no spread")

    from ..runtime import device

    if options.profile == "gpu" and device().type != "cuda" and not options.force:
        advice = "Run it on Colab, or with --force as a smoke test."
        print(f"The gpu profile needs a CUDA device and none was found. {advice}", file=sys.stderr)
        return 2
    folder = (options.out or records.FOLDER).resolve()
    if options.force and folder == records.FOLDER.resolve():
        parser.error(
            "--force needs --out, another folder than the book's: a smoke test must not replace the"
            " book's record"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"the record cannot be written to {folder} ({error})")
    if not os.access(folder, os.W_OK):
        parser.error(f"the record cannot be written to {folder}; name another folder with --out")
    seeds = list(range(options.seeds))
    provenance = records.provenance(seeds)
    if provenance["commit"].endswith(" with changes"):
        print(
            "The code has uncommitted changes, and the record will say so; the book takes no such"
            " record.",
            file=sys.stderr,
        )
    start = time.perf_counter()
    try:
        results = import_module(f"mtl_course.experiments.ch{chapter.number}").run(
            options.profile, seeds
        )
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    provenance["seconds"] = round(time.perf_counter() - start, 1)
    record = records.Record(chapter.number, options.profile, results, provenance)
    print(f"{record}\nwritten to {records.save(record, folder)}")
    return 0
