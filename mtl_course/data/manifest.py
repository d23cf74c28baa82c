"""What the course knows of each data set: the entries of `manifest.toml`.

Standard library only, so that the book can read it.
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
    "N": "from a published package, through npm",
    "R": "from the data root, MTL_COURSE_DATA",
    "D": "downloaded by torchvision",
}


class DataError(RuntimeError):
    """A data set could not be had; the message says what is wrong and what to do.

    Example:
        >>> try:
        ...     info("glyph")
        ... except DataError as error:
        ...     print(error)
        There is no data set 'glyph'. Did you mean 'glyphs'? The sets are: ...
    """


@dataclass(frozen=True, eq=False)
class Info:
    """One entry of the manifest: what a set is, where it comes from, what one may do with it.

    Args:
        name: what `load` is given.
        title: one line for people.
        tier: "E", "P", "N", "R" or "D", see `TIERS`.
        source: where it can be had, for people.
        licence: of the data.
        citation: BibTeX key in the book's bibliography.
        shape: array -> its shape.
        licence_source: where the licence is stated.
        licence_text: tier E: file with its text, beside the manifest, where it must go with a copy.
        chapters: numbers of the chapters that use it.
        note: what one should know before using it.
        files: file -> sha256. Those of tier E lie beside the manifest, those of tier R below the
            data root, those of tiers P and N in the archive; torchvision verifies those of tier D.
        package: tiers P and N: the package that carries it.
        version: tiers P and N: of the package.
        archive: tiers P and N: the package's file.
        sha256: tiers P and N: of the archive.
        arrays: tiers P and N: checksum of what is made of it, as `cache.checksum` gives it.
        download: bytes that are fetched, once.
        needs: a library beyond the course's own that reads the set.

    Raises:
        DataError: from `check` for arrays of other names or shapes, and from `require` without the
            library that the set needs.

    Example:
        >>> exam = info("exam")
        >>> exam.tier, exam.shape["x"]
        ('E', (4059, 9))
        >>> exam.require()  # nothing is missing
    """

    name: str
    title: str
    tier: str
    source: str
    licence: str
    citation: str
    shape: Mapping[str, tuple[int, ...]]
    licence_source: str = ""
    licence_text: str = ""
    chapters: tuple[str, ...] = ()
    note: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    version: str = ""
    archive: str = ""
    sha256: str = ""
    arrays: str = ""
    download: int = 0
    needs: str = ""

    def check(self, arrays: Mapping, where: str) -> None:
        """DataError unless the arrays have exactly the manifest's names and shapes."""
        shapes, wanted = {key: tuple(a.shape) for key, a in arrays.items()}, dict(self.shape)
        if shapes != wanted:
            raise DataError(
                f"{where} was altered: its arrays are {shapes}, expected {wanted}."
                f" Get it again from {self.source}."
            )

    def require(self) -> None:
        """DataError, with the command to install it, if the library that reads it is missing."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            command = f"{sys.executable} -m pip install {self.needs}"
            raise DataError(
                f"{self.name} is read with {self.needs}, which is not installed. Run: {command}"
            )


@cache
def read(path: Path = FOLDER / "manifest.toml") -> Mapping[str, Info]:
    """All entries by name, in the file's order.

    ValueError for an unknown tier, TypeError for a field too many or too few.
    """
    entries = {}
    for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        shape = {array: tuple(sizes) for array, sizes in entry.pop("shape").items()}
        entries[name] = Info(
            name=name,
            shape=MappingProxyType(shape),
            files=MappingProxyType(entry.pop("files", {})),
            chapters=tuple(entry.pop("chapters", ())),
            **entry,
        )
        if entries[name].tier not in TIERS:
            raise ValueError(
                f"{name} has the tier {entries[name].tier!r}; it must be one of {', '.join(TIERS)}."
            )
    return MappingProxyType(entries)


def names() -> list[str]:
    """The names of all sets.

    Returns:
        What `load` takes, in the manifest's order.

    Example:
        >>> names()[:3]
        ['exam', 'rf1', 'adult']
    """
    return list(read())


def info(name: str) -> Info:
    """The manifest's entry of a set: source, licence, shapes, citation.

    Args:
        name: one of `names()`.

    Returns:
        The entry; nothing is loaded.

    Raises:
        DataError: if there is no such set; it names the closest ones.

    Example:
        >>> info("digits").tier, info("digits").shape["x"]
        ('E', (1797, 8, 8))
    """
    entries = read()
    if name not in entries:
        close = difflib.get_close_matches(str(name), entries, n=3, cutoff=0.4)
        guess = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise DataError(
            f"There is no data set {name!r}. {guess}The sets are: {', '.join(entries)}."
        )
    return entries[name]
