"""Training on several processes: each takes its share of every batch, and all take the same step.

Every process makes the same call with all of the data. `fit` and `fit_tasks` divide each batch by
rows, average the gradients over the processes and step everywhere alike. So the number of processes
is no part of a result: order, weights, history and checkpoint are those of one process, up to
rounding. Shares may be unequal, since a task's loss counts by its labels.

A loss L that is a mean over n rows, n_r of them here, is the mean over R processes of
R (n_r / n) L_r. Losses are multiplied by that factor, and all that follows is a plain mean: of the
losses, of gradients, and of what is the same everywhere, such as a penalty on the weights.

The processes come from `torchrun`, or from `launch` in a notebook. They talk through
`torch.distributed`: gloo on CPUs, nccl where each has a GPU.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from .modes import batch_norms

# Tensors are averaged so many bytes at a time: one message for many small ones, and no second copy
# of a large model.
BUCKET = 25 * 2**20
NO_ROWS = "No process has a row in this batch: skip the step, in all of them."


# ---------------------------------------------------------------------------------------- the group
@dataclass(frozen=True)
class World:
    """Which process this is, and of how many.

    Args:
        rank: from 0.
        size: number of processes.
        device: where this one computes.

    Example:
        >>> World(rank=1, size=2, device=torch.device("cpu")).first
        False
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0


@contextmanager
def world(timeout: float = 600.0) -> Iterator[World]:
    """The processes of this run: join them at the start of the block, leave them at its end.

    Under `torchrun` it reads the environment that it sets. Within a group, as `launch` makes it,
    the block has that group. Otherwise there is one process, and nothing is set up.

    Seed alike before you build the model. Where it draws while it trains, as dropout does, seed
    apart afterwards, ``torch.manual_seed(here.rank)``: else every process draws the same for its
    rows.

    Args:
        timeout: seconds after which a process that waits for the others gives up.

    Returns:
        A context manager for the `World`.

    Example:
        >>> with world() as here:
        ...     print(here.rank, here.size)
        0 1
    """
    environment = os.environ
    if _in_a_group():
        rank, size = place()
        yield World(rank, size, _device(*_local(rank, size)))
    elif int(environment.get("WORLD_SIZE", "1")) > 1 and "RANK" in environment:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        with joined(rank, size, timeout):
            yield World(rank, size, _device(*_local(rank, size)))
    else:
        yield World(0, 1, _device(0, 1))


@contextmanager
def joined(
    rank: int, size: int, timeout: float, store: distributed.Store | None = None
) -> Iterator[None]:
    """A group of processes during the block; they meet at the store, or where torchrun says."""
    device = _device(*_local(rank, size))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _in_contact(rank, size):
        distributed.init_process_group(
            backend, rank=rank, world_size=size, store=store, timeout=timedelta(seconds=timeout)
        )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _local(rank: int, size: int) -> tuple[int, int]:
    """Which process this is on its machine, and of how many there."""
    environment = os.environ
    return int(environment.get("LOCAL_RANK", rank)), int(environment.get("LOCAL_WORLD_SIZE", size))


def _device(rank: int, size: int) -> torch.device:
    """A GPU of its own for each process of this machine, or the CPU for all of them."""
    if torch.cuda.is_available() and torch.cuda.device_count() >= size:
        return torch.device("cuda", rank)
    return torch.device("cpu")


def _in_a_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def place() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) outside a group."""
    if _in_a_group():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def _in_contact(rank: int, size: int) -> Iterator[None]:
    """ConnectionError in place of what a lost process looks like here."""
    try:
        yield
    except RuntimeError as error:
        # gloo raises plain RuntimeErrors, which name its files; other errors are no lost contact.
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        # "[a file of the library] what happened. General advice."
        said = str(error).strip().split("\n")[0].split("] ", 1)[-1].split(". ")[0]
        raise ConnectionError(
            f"Process {rank} of {size} has lost contact with another one, which has ended or does"
            " not answer; what that one says is the cause. A checkpoint is whole: the same call"
            f" goes on from it. ({said})"
        ) from error


# ------------------------------------------------------------------------------------ what is meant
def process_mean(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The mean of each tensor over the processes, the same bits in all of them.

    Every process must call it with as many tensors of the same shapes and types.

    Args:
        tensors: of floating point, of any shapes; they stay as they are.

    Returns:
        Their means, in the same order; the tensors themselves where there is one process.

    Raises:
        ConnectionError: another process has ended.

    Example:
        >>> process_mean([torch.tensor([1.0, 3.0])])  # one process: its own mean
        [tensor([1., 3.])]
    """
    tensors = list(tensors)
    rank, size = place()
    if size == 1:
        return tensors
    means: list[Any] = [None] * len(tensors)
    for numbers in _buckets(tensors):
        flat = torch.cat([tensors[k].detach().reshape(-1) for k in numbers])
        with _in_contact(rank, size):
            distributed.all_reduce(flat)
        flat /= size
        for k, piece in zip(
            numbers, flat.split([tensors[k].numel() for k in numbers]), strict=True
        ):
            means[k] = piece.view(tensors[k].shape)
    return means


def _buckets(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of tensors that are averaged in one message: of one type, and not too large."""
    buckets: list[list[int]] = []
    last: dict[torch.dtype, tuple[list[int], int]] = {}
    for number, tensor in enumerate(tensors):
        bytes_here = tensor.numel() * tensor.element_size()
        bucket, filled = last.get(tensor.dtype, ([], BUCKET + 1))
        if filled + bytes_here > BUCKET:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(number)
        last[tensor.dtype] = (bucket, filled + bytes_here)
    return buckets


def mean_gradients(params: Iterable[nn.Parameter], rows: int | None = None) -> None:
    """Put the mean over the processes into every ``.grad``, for a training loop by hand.

    A parameter without a gradient in one process counts there as zero; without one in any it stays
    without. Where there is one process, nothing changes.

    Args:
        params: the same in every process, in the same order; those that are frozen are left out.
        rows: of this process's batch, 0 or more. Given, the mean is over the rows of all processes,
            for losses that are means over rows; else every process counts alike.

    Raises:
        ValueError: no process has a row.
        ConnectionError: another process has ended.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> layer(torch.tensor([[2.0], [4.0]])).mean().backward()
        >>> mean_gradients(layer.parameters(), rows=2)
        >>> layer.weight.grad
        tensor([[3.]])
    """
    params = [p for p in {id(p): p for p in params}.values() if p.requires_grad]
    alone = place()[1] == 1
    if alone and rows == 0:
        raise ValueError(NO_ROWS)
    if alone or not params:
        return
    share = None if rows is None else _share_of_rows(rows, params[0].device)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    if share is not None:
        # What has no rows has no say, though its loss be NaN.
        grads = [g * share if rows else torch.zeros_like(g) for g in grads]
    present = grads[0].new_tensor([p.grad is not None for p in params])
    present, *means = process_mean([present, *grads])
    anywhere = None
    for number, (parameter, mean) in enumerate(zip(params, means, strict=True)):
        if parameter.grad is not None:
            parameter.grad.copy_(mean)
            continue
        # Only now: to look is to wait for the device.
        anywhere = present.tolist() if anywhere is None else anywhere
        if anywhere[number] > 0:
            parameter.grad = mean.clone()


def _share_of_rows(rows: int, device: torch.device) -> float:
    """The rows of this process by the mean number of rows of all."""
    (mean,) = process_mean([torch.tensor([float(rows)], dtype=torch.float64, device=device)])
    if not mean > 0:
        raise ValueError(NO_ROWS)
    return rows / float(mean)


class _Mean(torch.autograd.Function):
    """The mean over the processes; a gradient goes to this process's own value alone.

    Gradients are averaged later, all at once.
    """

    @staticmethod
    def forward(ctx, values):
        return process_mean([values])[0].clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def mean_losses(losses: Tensor) -> Tensor:
    """The mean of losses [T] over the processes, with this process's part of its graph."""
    return losses if place()[1] == 1 else _Mean.apply(losses)


# ---------------------------------------------------------------------------- what a loop asks here
@dataclass(frozen=True)
class Division:
    """How each batch of a run is divided: by process, and there into parts one after the other.

    Args:
        rank: of this process.
        size: number of processes.
        accumulate: parts of a process's share.
    """

    rank: int
    size: int
    accumulate: int

    @property
    def parts(self) -> range:
        """The numbers of this process's parts, among ``size * accumulate``."""
        return range(self.rank, self.size * self.accumulate, self.size)

    @property
    def count(self) -> int:
        """Number of parts of a batch, of all processes."""
        return self.size * self.accumulate

    def factor(self, rows: int, of: int) -> float:
        """What the mean loss of `rows` rows is multiplied by, in a batch with `of` of them.

        Summed over the parts of a process and averaged over processes, that is the mean over rows.
        """
        return self.size * rows / of


def division(model: nn.Module, accumulate: int) -> Division | None:
    """How batches are divided; None for one process that takes each at once.

    ValueError for a number of parts below 1, and where the parts would meet in a norm.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it is a number of parts, 1 or more.")
    rank, size = place()
    if size == accumulate == 1:
        return None
    if norms := batch_norms(model):
        raise ValueError(
            f"The norm {norms[0]!r} takes mean and variance over the rows at hand, and each process"
            " or part has only some rows of a batch: freeze the norm in evaluation mode"
            " (`transfer.freeze` does so), or use GroupNorm or LayerNorm."
        )
    return Division(rank, size, accumulate)


def require_mean(name: str, loss: Callable, outputs: Tensor, targets: Tensor) -> None:
    """ValueError unless this loss of all rows is the mean of its halves: else it has no shares."""
    if len(targets) < 2:
        return
    halves = [slice(0, None, 2), slice(1, None, 2)]
    with torch.no_grad():
        whole = float(loss(outputs, targets))
        shares = [float(loss(outputs[h], targets[h])) * len(targets[h]) for h in halves]
    mean = sum(shares) / len(targets)
    # A NaN passes here: what is not finite is for the run to say.
    if abs(mean - whole) > 1e-4 * max(abs(whole), abs(mean), 1e-6):
        raise ValueError(
            f"{name} is not a mean over rows: {whole:.4g} over all validation rows, {mean:.4g} as"
            " the mean of two halves. So it cannot be divided among processes or parts. Class"
            " weights, ignored labels and losses of pairs are such cases: train in one process,"
            " with accumulate=1."
        )


def require_same(settings: Mapping[str, Any]) -> None:
    """ValueError, in all processes, unless these texts and numbers are the same in all of them."""
    rank, size = place()
    if size == 1:
        return
    everywhere: list[Any] = [None] * size
    with _in_contact(rank, size):
        distributed.all_gather_object(everywhere, dict(settings))
    for other, there in enumerate(everywhere):
        names = {**everywhere[0], **there}
        if differing := [n for n in names if everywhere[0].get(n) != there.get(n)]:
            first = differing[0]
            raise ValueError(
                f"Process {other} differs from process 0 in its {first}"
                f" ({there.get(first, 'none')}, not {everywhere[0].get(first, 'none')}). Every"
                " process makes the same call with all of the data and the same weights: seed"
                " before you build the model, torch.manual_seed(0) for instance. The batches are"
                " divided for you."
            )


def on_first(function: Callable[[], Any]) -> Any:
    """What the function gives or raises in process 0, which alone calls it, in all processes."""
    rank, size = place()
    if size == 1:
        return function()
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    with _in_contact(rank, size):
        distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def gathered(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, one after the other, of which process r has counts[r]."""
    rank, size = place()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    everywhere = [torch.empty_like(padded) for _ in range(size)]
    with _in_contact(rank, size):
        distributed.all_gather(everywhere, padded)
    return torch.cat([part[:count] for part, count in zip(everywhere, counts, strict=True)])
