"""What the course knows of each data set: the entries of `manifest.toml`. Standard library only, so
that the book can read it.
"""

import difflib
import importlib.util
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent
TIERS = {
    "E": "embedded in the course, or in scikit-learn or matplotlib",
    "P": "from a published package, through pip",
    "R": "from the data root, MTL_COURSE_DATA",
    "D": "downloaded by torchvision",
}


class DataError(RuntimeError):
    """A data set could not be had; the message says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class Info:
    """One entry of the manifest.

    `shape` maps each array to its shape. `files` maps a file to its sha256: those of tier E lie
    beside the manifest, those of tier R below the data root, those of tier P in the `archive` of
    `package` `version`, whose own sha256 is `sha256`; torchvision verifies those of tier D.
    `download` is how much is fetched, once, in bytes. `needs` is a library beyond the course's own
    that reads the set. `citation` is a BibTeX key of the book's bibliography.
    """

    name: str
    title: str
    tier: str
    source: str
    licence: str
    citation: str
    shape: Mapping[str, tuple[int, ...]]
    licence_source: str = ""
    chapters: tuple[str, ...] = ()
    note: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    version: str = ""
    archive: str = ""
    sha256: str = ""
    download: int = 0
    needs: str = ""

    def check(self, arrays: Mapping, where: str) -> None:
        """DataError unless the arrays have exactly the manifest's names and shapes."""
        found = {key: tuple(array.shape) for key, array in arrays.items()}
        if found != dict(self.shape):
            wanted = dict(self.shape)
            raise DataError(
                f"{where} was altered: its arrays are {found}, expected {wanted}. Get it again from"
                f" {self.source}."
            )

    def require(self) -> None:
        """DataError with the command that installs it, if the library that reads this set is
        missing.
        """
        if self.needs and importlib.util.find_spec(self.needs) is None:
            command = f"{sys.executable} -m pip install {self.needs}"
            raise DataError(
                f"{self.name} is read with {self.needs}, which is not installed. Run: {command}"
            )


@cache
def read(path: Path = FOLDER / "manifest.toml") -> Mapping[str, Info]:
    """All entries by name, in the file's order. ValueError for an unknown tier, TypeError for a
    field too many or too few.
    """
    entries = {}
    for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        shape = MappingProxyType(
            {array: tuple(sizes) for array, sizes in entry.pop("shape").items()}
        )
        files = MappingProxyType(entry.pop("files", {}))
        entries[name] = Info(
            name=name, shape=shape, files=files, chapters=tuple(entry.pop("chapters", ())), **entry
        )
        if entries[name].tier not in TIERS:
            raise ValueError(
                f"{name} has the tier {entries[name].tier!r}; it must be one of {', '.join(TIERS)}."
            )
    return MappingProxyType(entries)


def names() -> list[str]:
    """The names of all sets, in the manifest's order."""
    return list(read())


def info(name: str) -> Info:
    """The entry of this set; DataError with the closest names if there is none."""
    entries = read()
    if name not in entries:
        close = difflib.get_close_matches(str(name), entries, n=3, cutoff=0.4)
        guess = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise DataError(
            f"There is no data set {name!r}. {guess}The sets are: {', '.join(entries)}."
        )
    return entries[name]
