"""Processes of one's own for a notebook: start them, hear what each says, leave none behind."""

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch
from torch import distributed

from .distributed import joined

# Seconds that the other processes have to say what they saw, once one has failed.
GRACE = 3.0


def launch(
    function: Callable[..., Any],
    processes: int = 2,
    *args: Any,
    threads: int = 1,
    timeout: float = 600.0,
) -> list[Any]:
    """Call a function in several new processes that form a group; what each of them returned.

    For a notebook; at a command line, `torchrun` does the same for a script. Starting takes a few
    seconds: each process imports torch. What they print appears where Python was started, not in
    the notebook. However it ends, no process is left.

    Args:
        function: from a module that the processes can import, not from the notebook itself. Within
            it, `fit` and `fit_tasks` divide their batches, and `world` tells which process it is.
        processes: their number; with 1 the function is called here, with these very arguments.
        args: what it is called with, in every process; as copies, unless it is called here.
        threads: of torch in each process.
        timeout: seconds after which a process that waits for the others gives up.

    Returns:
        One result per process, in the order of their ranks.

    Raises:
        ValueError: there is no process to start, or the function stands in a notebook.
        Exception: what the function raised in one of them, as a RuntimeError if it cannot be sent
            or was an exit; the other processes are stopped.
        ConnectionError: a process was killed or left without a word; names it.

    Example:
        >>> launch(len, 1, "here")
        [4]
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; it must be 1 or more.")
    if processes == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return [function(*args)]
        finally:
            torch.set_num_threads(before)
    _require_importable(function)
    work = pickle.dumps((function, args))
    # The processes meet here, at a port that is free for sure.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    spawn, workers = get_context("spawn"), []
    try:
        for rank in range(processes):
            receiver, sender = spawn.Pipe(duplex=False)
            group = (rank, processes, timeout, store.port)
            worker = spawn.Process(target=_work, args=(work, group, threads, sender))
            worker.start()
            sender.close()
            workers.append((worker, receiver))
        return _results(workers)
    finally:
        # One that is done ends by itself; the others have no one to report to. They come first: a
        # second interrupt while this waits leaves none of them.
        for worker, receiver in workers:
            if not receiver.closed:
                worker.kill()
        for worker, receiver in workers:
            worker.join(GRACE)
            worker.kill()
            worker.join()
            receiver.close()


def _require_importable(function: Callable) -> None:
    """ValueError for a function of a notebook: a new process could not find it."""
    if getattr(function, "__module__", None) != "__main__":
        return
    if getattr(sys.modules["__main__"], "__file__", None) is None:
        raise ValueError(
            f"{getattr(function, '__name__', function)!r} stands in the notebook, where a new"
            " process cannot find it: put it into a module, a file beside the notebook, and import"
            " it from there."
        )


def _results(workers: list) -> list[Any]:
    """What each worker sent; the error that is nearest to the cause, if any failed."""
    results: dict[int, Any] = {}
    failures: dict[int, tuple[bool, Exception]] = {}
    deadline = None
    while len(results) + len(failures) < len(workers):
        waiting = {r: k for k, (_, r) in enumerate(workers) if k not in results | failures}
        left = None if deadline is None else deadline - time.monotonic()
        ready = connection.wait(list(waiting), left if left is None else max(left, 0))
        if not ready:
            break
        for receiver in ready:
            rank = waiting[receiver]
            try:
                error, result = pickle.loads(receiver.recv_bytes())
                # Lost contact is the consequence of what another process tells.
                consequence = isinstance(error, ConnectionError)
            except (EOFError, OSError):
                error, consequence = _end_of(workers[rank][0], rank, len(workers)), False
            receiver.close()
            if error is None:
                results[rank] = result
            else:
                failures[rank] = (consequence, error)
                deadline = deadline or time.monotonic() + GRACE
    if failures:
        raise min(failures.values(), key=lambda failure: failure[0])[1]
    return [results[rank] for rank in range(len(workers))]


def _end_of(worker: Any, rank: int, size: int) -> ConnectionError:
    """The error for a process that ended without a word."""
    worker.join(GRACE)
    code = worker.exitcode
    how = f"ended with exit status {code}"
    if code is not None and code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    return ConnectionError(
        f"Process {rank} of {size} {how} before it had a result; the others were stopped. A"
        " checkpoint is whole: the same call goes on from it."
    )


def _work(work: bytes, group: tuple, threads: int, sender: Any) -> None:
    """The life of one process of `launch`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    rank, size, timeout, port = group
    # As torchrun sets them; a process of a notebook under torchrun is none of its own.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(threads)
    try:
        function, args = pickle.loads(work)
        store = distributed.TCPStore("127.0.0.1", port, is_master=False)
        with joined(rank, size, timeout, store):
            result = function(*args)
        message = pickle.dumps((None, result))
    except BaseException as error:  # an exit is told at once too: the others wait for this process
        message = _packed(error, rank, size)
    sender.send_bytes(message)
    sender.close()


def _packed(error: BaseException, rank: int, size: int) -> bytes:
    """An error as bytes, with its traceback; a RuntimeError in place of what cannot be sent.

    And in place of an exit or interrupt, which would end the process that receives it.
    """
    where = f"In process {rank} of {size}:\n{''.join(traceback.format_exception(error))}"
    if isinstance(error, Exception):
        try:
            error.add_note(where)
            message = pickle.dumps((error, None))
            pickle.loads(message)
            return message
        except Exception:
            pass
    other = RuntimeError(f"{type(error).__name__}: {error}")
    other.add_note(where)
    return pickle.dumps((other, None))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    connection.wait([parent_process().sentinel])
    os._exit(1)
