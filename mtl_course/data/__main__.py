"""Fetch the data sets ahead, for work without a network, or list what is here.

``python -m mtl_course.data [list] [--full]``
"""

import argparse
import sys

from . import cache
from .manifest import FOLDER, TIERS, DataError, Info, read
from .tiers import root


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when every set that was asked for is here, 1 when one could not be had."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.data", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=["fetch", "list"],
        default="fetch",
        help="fetch (default), or list what is here",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="fetch the large sets too, through torchvision and npm (about 800 MB)",
    )
    options = parser.parse_args(arguments)
    return listing() if options.what == "list" else fetch("EPND" if options.full else "EP")


def fetch(tiers: str) -> int:
    """Load every set of these tiers once, so that it is in the cache.

    What could not be had is said, and the others follow. Exit status as `main`'s.
    """
    from . import load

    wanted = [info for info in read().values() if info.tier in tiers]
    failed = []
    for number, info in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {info.name}: {info.title}", flush=True)
        try:
            load(info.name)
        except DataError as error:
            failed.append(info.name)
            print(f"    {error}", file=sys.stderr, flush=True)
    print(
        f"{len(wanted) - len(failed)} of {len(wanted)} sets are here; the cache is {cache.folder()}"
    )
    if failed:
        print(f"Could not be had: {', '.join(failed)}. The reasons stand above.", file=sys.stderr)
    return 1 if failed else 0


def listing() -> int:
    """Print a table of all sets: tier, whether it is here, size, licence."""
    entries = read().values()
    width = max(len(info.name) for info in entries)
    print(f"{'set':{width}}  tier  here  {'size':>8}  licence")
    for info in entries:
        size = f"{max(size_of(info) / 1e6, 0.1):.1f} MB" if size_of(info) else "-"
        here = "yes" if is_here(info) else "no"
        print(f"{info.name:{width}}  {info.tier:4}  {here:4}  {size:>8}  {info.licence}")
    print("\n" + "\n".join(f"{tier}: {meaning}" for tier, meaning in TIERS.items()))
    print(f"cache: {cache.folder()}\ndata root: {root.folder() or 'MTL_COURSE_DATA is not set'}")
    return 0


def is_here(info: Info) -> bool:
    """Whether this set can be loaded without a network.

    Its files are there; loading verifies them.
    """
    if info.tier in "PND":
        return cache.file_of(info).is_file()
    place = FOLDER if info.tier == "E" else root.folder()
    return place is not None and all((place / path).is_file() for path in info.files)


def size_of(info: Info) -> int:
    """Bytes to download, or bytes of the files where they are here; 0 if unknown."""
    if info.download:
        return info.download
    if not is_here(info):
        return 0
    place = FOLDER if info.tier == "E" else root.folder()
    return sum((place / path).stat().st_size for path in info.files)


if __name__ == "__main__":
    sys.exit(main())
