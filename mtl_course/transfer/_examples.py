"""What scores of transferability take: features or answers of a target's examples, and labels."""

import torch
from torch import Tensor


def matrix(values, name: str, rows: int = 1) -> Tensor:
    """[N, d] in float64 on the CPU; ValueError that names it for anything else."""
    x = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if x.ndim != 2 or len(x) < rows or x.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {list(x.shape)}; it takes [N, columns] with N at least {rows}."
        )
    if not x.isfinite().all():
        row, column = (~x.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name} is {x[row, column]} in row {row}, column {column}.")
    return x


def classes_in(labels, name: str, least: int = 1) -> tuple[Tensor, int]:
    """Labels as 0, 1, ... without gaps, and how many classes occur."""
    y = torch.as_tensor(labels).detach().cpu()
    if y.ndim != 1 or len(y) == 0 or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"{name} has shape {list(y.shape)} and type {y.dtype}; it takes whole numbers [N]."
        )
    present, number = y.unique(return_inverse=True)
    if len(present) < least:
        raise ValueError(f"{name} has only class {present[0]}: there is nothing to tell apart.")
    return number, len(present)


def one_hot(y: Tensor, classes: int) -> Tensor:
    """[N, classes] in float64."""
    return torch.nn.functional.one_hot(y, classes).to(torch.float64)


def same_length(rows: int, labels: int, name: str) -> None:
    """ValueError that names what has another length than the labels."""
    if rows != labels:
        raise ValueError(f"{name} has {rows} rows, but there are {labels} labels or targets.")
