"""What `load` returns: named arrays that cannot be changed by accident, and where they come from."""

from collections.abc import Iterator, Mapping

from .manifest import Info


class Dataset(Mapping):
    """An immutable mapping from array name to a read-only NumPy array: ``ds["x"]``, or ``ds.x`` for short; ``ds.info`` is its manifest entry.

    `torch.tensor(ds.x)` and indexing with an array of rows give writable copies. DataError if the arrays are not of the manifest's shapes.
    """

    def __init__(self, info: Info, arrays: Mapping, origin: str):
        info.check(arrays, f"{info.name} from {origin}")
        self._arrays = dict(arrays)
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
        try:
            return self.__dict__["_arrays"][key]
        except KeyError:
            raise AttributeError(
                f"this data set has no array {key!r}; it has {', '.join(self.__dict__.get('_arrays', ()))}"
            ) from None

    def __setattr__(self, key: str, value):
        if "origin" in self.__dict__:
            raise AttributeError("a data set is immutable; work on a copy of its arrays")
        super().__setattr__(key, value)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{key} {list(array.shape)} {array.dtype}" for key, array in self.items())
        return f"{self.info.title} ({self.info.name})\n  {arrays}\n  tier {self.info.tier}: {self.origin}\n  licence: {self.info.licence}"
