"""Source checkpoints that fit a model in part, with a report of what was loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Loaded:
    """What `load_source` did: names that were loaded, names left as they were (new), names of the
    checkpoint that were not used.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self):
        parts = [
            f"{len(self.loaded)} tensors loaded",
            f"new: {', '.join(self.new) or 'none'}",
            f"not used: {', '.join(self.unused) or 'none'}",
        ]
        return "; ".join(parts)


def load_source(
    model: nn.Module, state: Mapping[str, Tensor], new: Sequence[str] = ("head",)
) -> Loaded:
    """Load a source checkpoint into a model whose parts named in `new` are its own. Returns a
    report; print it.

    Every tensor outside `new` must be in `state` with the same shape and nothing else may be, or a
    ValueError lists what does not fit and the model stays as it was.
    ``load_state_dict(strict=False)`` skips missing and unexpected names without a word instead.
    """
    own = model.state_dict()
    fresh = [
        name for name in own if any(name == part or name.startswith(part + ".") for part in new)
    ]
    unused = [
        name for name in state if any(name == part or name.startswith(part + ".") for part in new)
    ]
    shared = [name for name in own if name not in fresh]
    problems = [f"{name} is missing" for name in shared if name not in state]
    problems += [
        f"{name} is unexpected" for name in state if name not in own and name not in unused
    ]
    for name in shared:
        if name in state and state[name].shape != own[name].shape:
            problems.append(
                f"{name} has shape {tuple(state[name].shape)}, the model needs"
                f" {tuple(own[name].shape)}"
            )
    if problems:
        raise ValueError(
            "The checkpoint does not fit: "
            + "; ".join(problems)
            + f". Only {', '.join(new) or 'nothing'} may be new."
        )
    model.load_state_dict({name: state[name] for name in shared}, strict=False)
    return Loaded(tuple(shared), tuple(fresh), tuple(unused))
