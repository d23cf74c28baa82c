"""Where does the program wait for the GPU? Counts the calls that need a value on the host, on a
machine without a GPU too.

    with syncs.watch() as found:
        one_epoch()
    print(found)                    # Counter({'item': 100, '__bool__': 100})

A GPU works through a queue while Python runs ahead. Whatever needs a number from the device, to
print it, to branch on it or to know the size of a result, stops Python until the queue is empty. On
a real GPU `torch.cuda.set_sync_debug_mode("warn")` tells of most too.
"""

import os
import sys
from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FETCHES = frozenset(
    {
        "item",
        "tolist",
        "numpy",
        "cpu",
        "to",
        "__array__",
        "__float__",
        "__int__",
        "__index__",
        "__complex__",
        "__format__",
        "__repr__",
    }
)
BUILDERS = frozenset(
    {"tensor", "as_tensor", "asarray", "new_tensor"}
)  # from a list of tensors they fetch each
BRANCHES = frozenset({"__bool__", "__contains__", "equal", "allclose", "is_nonzero"})
SIZES = frozenset(
    {
        "nonzero",
        "argwhere",
        "unique",
        "unique_consecutive",
        "masked_select",
        "__getitem__",
        "__setitem__",
        "where",
    }
)


class watch(TorchFunctionMode):  # noqa: N801  used as a function: `with watch() as found`
    """Context manager that yields a Counter, name of the call -> how often.

    `to` counts where it says "cpu", or moves a tensor there from another device; `torch.tensor` and
    its like with a list of tensors; indexing with a mask, whose number of True entries decides the
    size of the result, and with a single number or a slice that is on the device; `where` only with
    a mask alone. What torch's optimizers read is not counted: they keep their step number on the
    host.
    """

    def __enter__(self) -> Counter:
        super().__enter__()
        self.found = Counter()
        return self.found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        own = os.path.join("torch", "optim") in sys._getframe(1).f_code.co_filename
        if (
            name in FETCHES | BUILDERS | BRANCHES | SIZES
            and not own
            and self._waits(name, args, kwargs or {})
        ):
            self.found[name] += 1
        with (
            torch._C.DisableTorchFunction()
        ):  # printing a tensor calls item many times; it is one wait
            return function(*args, **(kwargs or {}))

    @staticmethod
    def _waits(name, args, kwargs) -> bool:
        if name == "to":
            goals = [a for a in [*args[1:], *kwargs.values()] if isinstance(a, str | torch.device)]
            return any(
                torch.device(a).type == "cpu" and (isinstance(a, str) or args[0].is_cuda)
                for a in goals
            )
        if name in BUILDERS:
            return _nested([*args[name == "new_tensor" :], *kwargs.values()])
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            numbers = [
                i
                for part in index
                for i in (
                    (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
                )
            ]
            return any(
                isinstance(i, Tensor) and (i.dtype == torch.bool or i.ndim == 0) for i in numbers
            )
        return name != "where" or len(args) + len(kwargs) == 1


def _nested(values) -> bool:
    """Is there a tensor in a list or tuple among the values, however deep?"""
    lists = [v for v in values if isinstance(v, list | tuple)]
    return any(isinstance(v, Tensor) for some in lists for v in some) or any(
        _nested(some) for some in lists
    )
