"""Public names that are imported when they are first used: a room costs nothing to enter."""

from collections.abc import Callable, Mapping
from importlib import import_module


def exports(package: str, home: Mapping[str, str]) -> tuple[Callable, Callable, list[str]]:
    """What a package needs to offer names lazily (PEP 562).

    Args:
        package: its ``__name__``.
        home: public name -> module of the package that defines it.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """

    def __getattr__(name: str):  # noqa: N807 - PEP 562
        if name in home:
            return getattr(import_module(f".{home[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:  # noqa: N807
        return sorted(home)

    return __getattr__, __dir__, list(home)
