"""Peak memory that a step adds to what is in use when it starts (Linux).

It is measured in a process of its own, which no earlier step has grown.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RESET = Path("/proc/self/clear_refs")


def peak(script: str, *case: str | int) -> float:
    """MiB, as ``python script --peak *case`` prints it; NaN where the system cannot tell."""
    if not RESET.exists():
        return float("nan")
    command = [sys.executable, script, "--peak", *map(str, case)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def added(step: Callable[[], None], times: int = 3) -> float:
    """MiB that so many steps need at once, besides what is in use now."""
    RESET.write_text("5")  # the peak starts anew from here
    at_start = _high_water()
    for _ in range(times):
        step()
    return _high_water() - at_start


def _high_water() -> float:
    """Peak of this process's resident memory in MiB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
