"""Run notebooks from top to bottom in a fresh kernel as a learner who solved nothing would, then
normalise and save them.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

from . import normalise, notebooks

BUDGET = 60  # seconds that a chapter may take on two CPU cores


def environment(home: str, checks: str = "blank") -> dict[str, str]:
    """Environment of a kernel that verifies a notebook: claims and checks raise, CPU profile, the
    user's progress untouched.

    Without the data root: what a page shows must come out the same on every machine.
    """
    return {
        "OMP_NUM_THREADS": "2",
        **{name: value for name, value in os.environ.items() if name != "MTL_COURSE_DATA"},
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MTL_COURSE_CHECKS": checks,
        "MTL_COURSE_HOME": home,
        "MTL_COURSE_PROFILE": "cpu",
        "MTL_COURSE_STRICT": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUTF8": "1",
    }


def run(nb, timeout: int = 600, checks: str = "blank", report=print) -> list[float]:
    """Run a notebook in place, in a kernel of this Python and an empty folder. Returns the seconds
    of each cell (0 for text).

    nbclient's CellExecutionError (a cell raised), CellTimeoutError or DeadKernelError pass through;
    `report` gets a line for each cell that took a second or more.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    seconds, started, stopped = [0.0] * len(nb.cells), [0.0], []

    def begin(cell, cell_index):
        # nbclient would take Ctrl-C for a kernel that died, and the command would go on with the
        # next notebook
        task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(
                RuntimeError
            ):  # Windows: Ctrl-C raises KeyboardInterrupt by itself
                asyncio.get_running_loop().add_signal_handler(
                    number, lambda: (stopped.append(True), task.cancel())
                )
        started[0] = time.perf_counter()

    def end(cell, cell_index, **_):
        seconds[cell_index] = time.perf_counter() - started[0]
        if seconds[cell_index] >= 1:
            report(
                f"  cell {cell_index:2d} of {len(nb.cells)}: {seconds[cell_index]:5.1f} s "
                f" {_headline(cell)}"
            )

    # no kernel directories: the kernel is the current Python, whatever a user has registered as
    # "python3"
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, work = Path(folder, "home"), Path(folder, "work")
        work.mkdir()
        client = NotebookClient(
            nb, km=manager, timeout=timeout, resources={"metadata": {"path": str(work)}}
        )
        client.extra_arguments = ["--log-level=ERROR"]  # the kernel's own log
        client.on_cell_execute, client.on_cell_executed = begin, end
        try:
            asyncio.run(client.async_execute(env=environment(str(home), checks), cleanup_kc=True))
        except (DeadKernelError, asyncio.CancelledError):
            if stopped:
                raise KeyboardInterrupt from None
            raise
    nb.metadata["mtl_course"] = {"code": normalise.code_hash(nb)}
    return seconds


def _headline(cell) -> str:
    lines = [line for line in cell.source.split("\n") if line.strip()]
    return (lines or [""])[0][:60]


def execute(path: Path, timeout: int = 600, report=print) -> bool:
    """Run, normalise and save one notebook; True if it ran to its end. The file is touched only
    then.
    """
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
    report(
        f"{path.name}: {total:.1f} s in cells, {time.perf_counter() - start:.1f} s in all;"
        " slowest: " + ", ".join(f"cell {i} {seconds[i]:.1f} s" for i in slowest)
    )
    if total > BUDGET:
        report(f"{path.name}: over the budget of {BUDGET} s")
    return True


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev execute", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds that one cell may take (default: 600)"
    )
    options = parser.parse_args(arguments)
    pairs = notebooks.chosen(parser, options.chapters)
    return int(not all([execute(path, options.timeout) for _, path in pairs]))
