"""Source checkpoints that fit a model in part, with a report of what was loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Loaded:
    """What `load_source` did, as names of tensors; printed, it is one line.

    Args:
        loaded: taken from the checkpoint.
        new: left as they were in the model.
        unused: in the checkpoint, but not taken.

    Example:
        >>> print(Loaded(("trunk.weight",), ("head.weight",), ()))
        1 tensors loaded; new: head.weight; not used: none
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self):
        return (
            f"{len(self.loaded)} tensors loaded;"
            f" new: {', '.join(self.new) or 'none'};"
            f" not used: {', '.join(self.unused) or 'none'}"
        )


def load_source(
    model: nn.Module, state: Mapping[str, Tensor], new: Sequence[str] = ("head",)
) -> Loaded:
    """Load a source checkpoint into a model, all but the modules that are new.

    ``load_state_dict(strict=False)`` skips missing and unexpected names without a word. Here every
    tensor outside `new` must be in `state` with the same shape, and nothing else may be.

    Args:
        model: changed in place, or left as it was if the checkpoint does not fit.
        state: name -> tensor, the source's ``state_dict()``.
        new: names of modules or tensors that the model does not take from the source.

    Returns:
        A report; print it.

    Raises:
        ValueError: if a tensor is missing, unexpected or of another shape; all are listed.

    Example:
        >>> source = nn.ModuleDict({"trunk": nn.Linear(4, 8), "head": nn.Linear(8, 10)})
        >>> model = nn.ModuleDict({"trunk": nn.Linear(4, 8), "head": nn.Linear(8, 3)})
        >>> print(load_source(model, source.state_dict()))
        2 tensors loaded; new: head.weight, head.bias; not used: head.weight, head.bias
        >>> model["trunk"].weight.equal(source["trunk"].weight)
        True
    """

    def is_new(name: str) -> bool:
        return any(name == module or name.startswith(module + ".") for module in new)

    target = model.state_dict()
    fresh = [name for name in target if is_new(name)]
    unused = [name for name in state if is_new(name)]
    shared = [name for name in target if not is_new(name)]
    problems = [f"{name} is missing" for name in shared if name not in state]
    problems += [
        f"{name} is unexpected" for name in state if name not in target and not is_new(name)
    ]
    for name in shared:
        if name in state and state[name].shape != target[name].shape:
            shape, wanted = tuple(state[name].shape), tuple(target[name].shape)
            problems.append(f"{name} has shape {shape}, the model needs {wanted}")
    if problems:
        raise ValueError(
            f"The checkpoint does not fit: {'; '.join(problems)}."
            f" Only {', '.join(new) or 'nothing'} may be new."
        )
    model.load_state_dict({name: state[name] for name in shared}, strict=False)
    return Loaded(tuple(shared), tuple(fresh), tuple(unused))
