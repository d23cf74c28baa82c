"""Public names that are imported when they are first used, so that a room costs nothing to enter."""

from collections.abc import Callable, Mapping
from importlib import import_module


def exports(package: str, home: Mapping[str, str]) -> tuple[Callable, Callable, list[str]]:
    """What a package needs to offer `home`'s names lazily (PEP 562): `__getattr__, __dir__,
    __all__`.

    package: its ``__name__``.
    home: public name -> module of the package that defines it.
    """

    def __getattr__(name: str):
        if name in home:
            return getattr(import_module(f".{home[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(home)

    return __getattr__, __dir__, list(home)
