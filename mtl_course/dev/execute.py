"""Run notebooks from top to bottom in a fresh kernel, then normalise and save them.

They run as for a learner who solved nothing.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from . import normalise, notebooks

BUDGET = 60  # seconds that a chapter may take on two CPU cores
# Variables of an author's shell that would change what a page shows.
PERSONAL = ("MTL_COURSE_DATA", "MTL_COURSE_SEEDS", "MTL_COURSE_RECORDS", "MTL_COURSE_CLAIMS")


def environment(home: str, checks: str = "blank") -> dict[str, str]:
    """Environment of a kernel that verifies a notebook: claims and checks raise, CPU profile.

    The user's progress stays untouched. And what the author's shell says of data, seeds, records
    and claims is left out: what a page shows must come out the same on every machine.

    Args:
        home: folder for the progress of this run.
        checks: mode of the checks, ``"blank"`` or ``"strict"``.

    Returns:
        The variables.
    """
    return {
        "OMP_NUM_THREADS": "2",
        **{name: value for name, value in os.environ.items() if name not in PERSONAL},
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MTL_COURSE_CHECKS": checks,
        "MTL_COURSE_HOME": home,
        "MTL_COURSE_PHONE": "1",
        "MTL_COURSE_PROFILE": "cpu",
        "MTL_COURSE_STRICT": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUTF8": "1",
    }


def run(
    nb,
    timeout: int = 600,
    checks: str = "blank",
    report: Callable[[str], None] = print,
    variables: Mapping[str, str] | None = None,
    keep_going: bool = False,
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """Run a notebook in place, in a kernel of this Python and an empty folder.

    Args:
        nb: the notebook; its outputs are written into it.
        timeout: seconds that one cell may take.
        checks: mode of the checks.
        report: gets a line for each cell that took a second or more.
        variables: environment variables beside those of `environment`, or in place of them.
        keep_going: go on after a cell that raised; its output holds the error.
        after: called with the index of each code cell that has run.

    Returns:
        The seconds of each cell, 0 for text.

    Raises:
        CellExecutionError: nbclient's, for a cell that raised, unless the run keeps going;
            likewise its CellTimeoutError and DeadKernelError.
        KeyboardInterrupt: the run was stopped from outside.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    seconds, started, stopped = [0.0] * len(nb.cells), [0.0], []

    def begin(cell, cell_index):
        _stop_with_the_command(asyncio.current_task(), stopped)
        started[0] = time.perf_counter()

    def end(cell, cell_index, **_):
        seconds[cell_index] = time.perf_counter() - started[0]
        if seconds[cell_index] >= 1:
            place = f"cell {cell_index:2d} of {len(nb.cells)}"
            report(f"  {place}: {seconds[cell_index]:5.1f} s  {_headline(cell)}")
        if after:
            after(cell_index)

    # No kernel directories: the kernel is this Python, whatever a user has registered as "python3".
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, work = Path(folder, "home"), Path(folder, "work")
        work.mkdir()
        client = NotebookClient(
            nb,
            km=manager,
            timeout=timeout,
            allow_errors=keep_going,
            resources={"metadata": {"path": str(work)}},
        )
        client.extra_arguments = ["--log-level=ERROR"]  # the kernel's own log
        client.on_cell_execute, client.on_cell_executed = begin, end
        env = environment(str(home), checks) | dict(variables or {})
        try:
            asyncio.run(client.async_execute(env=env, cleanup_kc=True))
        except (DeadKernelError, asyncio.CancelledError):
            if stopped:
                raise KeyboardInterrupt from None
            raise
    nb.metadata["mtl_course"] = {"code": normalise.code_hash(nb)}
    return seconds


def _stop_with_the_command(task: asyncio.Task, stopped: list) -> None:
    """Let Ctrl-C stop the whole run.

    nbclient would take it for a kernel that died, and the command would go on with the next
    notebook. On Windows there are no such handlers: there Ctrl-C raises by itself.
    """

    def stop():
        stopped.append(True)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().add_signal_handler(number, stop)


def _headline(cell) -> str:
    """The first line of a cell that is not empty."""
    lines = [line for line in cell.source.split("\n") if line.strip()]
    return (lines or [""])[0][:60]


def execute(path: Path, timeout: int = 600, report=print) -> bool:
    """Run, normalise and save one notebook; True if it ran to its end, else it is unchanged."""
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    nb = notebooks.read(path)
    for cell in notebooks.code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    report(f"{path.name}: {len(notebooks.code_cells(nb))} code cells")
    start = time.perf_counter()
    try:
        seconds = run(nb, timeout, report=report)
    except (CellControlSignal, DeadKernelError) as error:
        report(f"{path.name}: FAILED, the file is unchanged\n{normalise.as_on_screen(str(error))}")
        return False
    normalise.normalise(nb)
    notebooks.write(nb, path)
    total = sum(seconds)
    slowest = sorted(range(len(seconds)), key=lambda i: -seconds[i])[:3]
    cells = ", ".join(f"cell {i} {seconds[i]:.1f} s" for i in slowest)
    in_all = time.perf_counter() - start
    report(f"{path.name}: {total:.1f} s in cells, {in_all:.1f} s in all; slowest: {cells}")
    if total > BUDGET:
        report(f"{path.name}: over the budget of {BUDGET} s")
    return True


def main(arguments: list[str]) -> int:
    """Execute the chapters; 1 if one did not run to its end, else 0."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev execute", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds that one cell may take (default: 600)"
    )
    options = parser.parse_args(arguments)
    pairs = notebooks.chosen(parser, options.chapters, labs=True)
    whole = [execute(path, options.timeout) for _, path in pairs]
    return int(not all(whole))
