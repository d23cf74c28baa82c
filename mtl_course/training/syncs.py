"""Where does the program wait for the GPU? Counts the calls that need a value on the host.

    with SyncCounter() as waits:
        one_epoch()
    print(waits)                    # Counter({'item': 100, '__bool__': 100})

A GPU works through a queue while Python runs ahead. Whatever needs a number from the device, to
print it, to branch on it or to know the size of a result, stops Python until the queue is empty.
The count works on a machine without a GPU too. On a real GPU
`torch.cuda.set_sync_debug_mode("warn")` tells of most as well.
"""

import os
import sys
from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FETCHES = frozenset({"item", "tolist", "numpy", "cpu", "to", "__array__", "__float__", "__int__"})
FETCHES |= {"__index__", "__complex__", "__format__", "__repr__"}
# From a list of tensors they fetch each.
BUILDERS = frozenset({"tensor", "as_tensor", "asarray", "new_tensor"})
BRANCHES = frozenset({"__bool__", "__contains__", "equal", "allclose", "is_nonzero"})
# The size of their result depends on values.
SIZES = frozenset({"nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"})
SIZES |= {"__getitem__", "__setitem__", "where"}
COUNTED = FETCHES | BUILDERS | BRANCHES | SIZES


class SyncCounter(TorchFunctionMode):
    """Context manager that yields a Counter: name of a call that waits -> how often.

    `to` counts where it says "cpu", or moves a tensor there from another device; `torch.tensor` and
    its like with a list of tensors; indexing with a mask, whose number of True entries decides the
    size of the result, and with a single number or a slice that is on the device; `where` only with
    a mask alone. What torch's optimizers read is not counted: they keep their step number on the
    host.

    Example:
        >>> x = torch.tensor([1.0, -2.0, 3.0])
        >>> with SyncCounter() as waits:
        ...     total = x.sum()
        ...     if total > 0:
        ...         shown = f"{total.item():.1f}"
        >>> waits
        Counter({'__bool__': 1, 'item': 1})
    """

    def __enter__(self) -> Counter:
        super().__enter__()
        self.waits = Counter()
        return self.waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in COUNTED and not _called_by_optimizer() and _waits(name, args, kwargs):
            self.waits[name] += 1
        # Printing a tensor calls item many times; it is one wait.
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)


def _called_by_optimizer() -> bool:
    """Whether the call that is counted stands in a file of `torch.optim`."""
    caller = sys._getframe(2).f_code.co_filename
    return os.path.join("torch", "optim") in caller


def _waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a call of this name with these arguments needs a value on the host."""
    if name == "to":
        return _moves_to_the_host(args[0], [*args[1:], *kwargs.values()])
    if name in BUILDERS:
        values = args[1:] if name == "new_tensor" else args
        return _holds_tensor([*values, *kwargs.values()])
    if name in ("__getitem__", "__setitem__"):
        return _index_waits(args[1] if isinstance(args[1], tuple) else (args[1],))
    if name == "where":
        return len(args) + len(kwargs) == 1
    return True


def _moves_to_the_host(tensor: Tensor, options: list) -> bool:
    goals = [goal for goal in options if isinstance(goal, str | torch.device)]
    return any(
        torch.device(goal).type == "cpu" and (isinstance(goal, str) or tensor.is_cuda)
        for goal in goals
    )


def _index_waits(index: tuple) -> bool:
    """Whether an index has a mask, a single number on the device, or a slice with one."""
    places = []
    for place in index:
        places += [place.start, place.stop, place.step] if isinstance(place, slice) else [place]
    return any(isinstance(i, Tensor) and (i.dtype == torch.bool or i.ndim == 0) for i in places)


def _holds_tensor(values: list) -> bool:
    """Whether there is a tensor in a list or tuple among the values, however deep."""
    lists = [value for value in values if isinstance(value, list | tuple)]
    inside = [value for some in lists for value in some]
    return any(isinstance(value, Tensor) for value in inside) or any(map(_holds_tensor, lists))
