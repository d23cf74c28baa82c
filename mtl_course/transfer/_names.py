"""Parts of a model by patterns of their names, and putting another part in a part's place."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn


def as_list(patterns: str | Sequence[str]) -> list[str]:
    """One pattern or several, as a list."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name fits one of the patterns; ``*`` stands for anything, dots included."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def matching(
    model: nn.Module,
    patterns: str | Sequence[str],
    kinds: tuple[type[nn.Module], ...],
    closed: tuple[type[nn.Module], ...] = (),
) -> dict[str, nn.Module]:
    """Modules of some kinds whose dotted names fit a pattern, name -> module.

    Args:
        model: where to look.
        patterns: such as ``"trunk.*"``, one or several; every one of them must fit something.
        kinds: of modules that count.
        closed: kinds that are not looked into.

    Raises:
        ValueError: if a pattern fits no such module; the modules that there are are named.
    """
    patterns = as_list(patterns)
    shut = tuple(
        name + "." for name, module in model.named_modules() if name and isinstance(module, closed)
    )
    there = {
        name: module
        for name, module in model.named_modules()
        if name and isinstance(module, kinds) and not name.startswith(shut)
    }
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in there):
            some = ", ".join(list(there)[:8]) + (", ..." if len(there) > 8 else "")
            what = ", ".join(dict.fromkeys(kind.__name__ for kind in kinds))
            raise ValueError(
                f"The pattern {pattern!r} matches no layer ({what});"
                f" the model has {some or 'none'}."
            )
    return {name: module for name, module in there.items() if fits(name, patterns)}


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, under every name that the old one has."""
    for parent in list(model.modules()):
        if parent is not new:
            for child, module in list(parent._modules.items()):
                if module is old:
                    setattr(parent, child, new)
