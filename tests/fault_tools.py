"""What the tests of faults share: the public entry points, and networks that are hard to handle.

A table of such a test has one row per entry point that takes what the fault is about. The entry
points are read from the source, so a new one without a row fails.
"""

import ast

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from mtl_course.dev.docstrings import ROOMS, public
from mtl_course.multitask import HardSharing
from mtl_course.training import classification

PUBLIC = [name for room in ROOMS for name in public(room) if name.kind != "value"]
TASKS = {"a": classification("a"), "b": classification("b")}


def that_take(*parameters: str, kind: str = "function") -> set[str]:
    """Functions (or classes) that take one of these parameters."""
    return {n.name for n in PUBLIC if n.kind == kind and set(parameters) & set(n.parameters)}


def that_divide(*rooms: str) -> set[str]:
    """Functions and classes of these rooms that divide by something else than a constant."""
    return {n.name for n in PUBLIC if n.room in rooms and any(map(_is_quotient, ast.walk(n.node)))}


def _is_quotient(node: ast.AST) -> bool:
    by = getattr(node, "right", getattr(node, "value", None))
    divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
    return divides and not isinstance(by, ast.Constant)


def require_every_row(found: set[str], *tables) -> None:
    """Each entry point stands in exactly one table, and nothing else does."""
    rows = [name for table in tables for name in table]
    assert len(rows) == len(set(rows)), "in two tables"
    assert set(rows) == found, f"no row: {found - set(rows)}; no such entry: {set(rows) - found}"


class Net(nn.Module):
    """A trunk of 4 inputs and 6 features below a head for 3 classes."""

    def __init__(self, *layers: nn.Module, head: nn.Module | None = None):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), *layers)
        self.head = nn.Linear(6, 3) if head is None else head

    def forward(self, x):
        return self.head(self.trunk(x))


def multi(net: Net) -> HardSharing:
    """Two tasks on the trunk of a network: its own head, and another one."""
    return HardSharing(net.trunk, {"a": net.head, "b": nn.Linear(6, 3)})


def rows(n: int = 12, seed: int = 0):
    """Inputs [n, 4] and labels [n] of three classes."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g), torch.arange(n) % 3


class PerRow(nn.Module):
    """A norm of two dimensions below a network for rows: [B, 6] as [B, 2, 3]."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.unflatten(1, (2, 3))).flatten(1)


NORMS = {
    "dropout": lambda: nn.Dropout(0.5),
    "batch norm": lambda: nn.BatchNorm1d(6),
    "batch norm without statistics": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "instance norm": lambda: PerRow(nn.InstanceNorm1d(2, affine=True)),
    "instance norm with statistics": lambda: PerRow(
        nn.InstanceNorm1d(2, affine=True, track_running_stats=True)
    ),
    "spectral norm": lambda: spectral_norm(nn.Linear(6, 6)),
}
BATCH_NORMS = ("batch norm", "batch norm without statistics")
