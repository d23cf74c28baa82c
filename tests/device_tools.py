"""What tests of code for a GPU share, for machines without one."""

from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts the operations for whose result the processor waits on a GPU."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(func.overloadpacket.__name__.startswith(name) for name in self.NAMES)
        return func(*args, **(kwargs or {}))
