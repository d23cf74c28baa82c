"""What `load` returns: named arrays that cannot be changed by accident, and their origin."""

from collections.abc import Iterator, Mapping

from .manifest import Info


class Dataset(Mapping):
    """An immutable mapping from names to read-only NumPy arrays; `load` makes it.

    ``ds["x"]`` and, for short, ``ds.x`` are the same array. ``ds.info`` is the manifest's entry,
    ``ds.origin`` says in words where the arrays came from. `torch.tensor(ds.x)` and indexing with
    an array of row numbers give writable copies (`torch.from_numpy` would warn).

    Args:
        info: the manifest's entry, with the shape of every array.
        arrays: name -> NumPy array; the data set freezes them.
        origin: where they came from, in words.

    Raises:
        DataError: if a shape is not the manifest's.
        AttributeError: for an array that is not there, or an attempt to change the data set.

    Example:
        >>> from mtl_course import data
        >>> macro = data.load("macro")
        >>> list(macro), macro.x.shape
        (['x', 'names', 'year', 'quarter'], (203, 12))
        >>> macro.x is macro["x"], macro.x.flags.writeable
        (True, False)
    """

    def __init__(self, info: Info, arrays: Mapping, origin: str):
        info.check(arrays, f"{info.name} ({origin})")
        self._arrays = {key: arrays[key] for key in info.shape}
        for array in self._arrays.values():
            array.setflags(write=False)
        self.info, self.origin = info, origin

    def __getitem__(self, key: str):
        return self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getattr__(self, key: str):
        arrays = self.__dict__.get("_arrays", {})
        if key not in arrays:
            raise AttributeError(f"this data set has no array {key!r}; it has {', '.join(arrays)}")
        return arrays[key]

    def __setattr__(self, key: str, value):
        if "origin" in self.__dict__:
            raise AttributeError("a data set is immutable; work on a copy of its arrays")
        super().__setattr__(key, value)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{key} {list(array.shape)} {array.dtype}" for key, array in self.items()
        )
        origin = f"tier {self.info.tier}, {self.origin}; licence: {self.info.licence}"
        return f"{self.info.name}: {self.info.title}\n  {arrays}\n  {origin}"
