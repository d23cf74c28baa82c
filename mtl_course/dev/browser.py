"""A headless Chromium that talks to nobody: to render diagrams, and to test the book."""

import os
import shutil
from pathlib import Path

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """Path of a Chromium (or Chrome, Edge) on this machine, or None.

    The environment variable CHROMIUM comes first.
    """
    named = [os.environ.get("CHROMIUM", ""), *(shutil.which(name) or "" for name in NAMES), *PLACES]
    return next((path for path in named if path and Path(path).exists()), None)


def missing() -> str | None:
    """What this machine lacks to start a browser, in words, or None."""
    try:
        import playwright  # noqa: F401  (only whether it is there)
    except ImportError:
        return 'playwright is not installed: pip install -e ".[test]"'
    if find() is None:
        return (
            "no Chromium found: install chromium or Chrome, or set the environment variable"
            " CHROMIUM to its path"
        )
    return None


def launch(playwright):
    """A browser with an empty profile of its own, from what ``sync_playwright()`` gives."""
    # Chromium refuses to start as root, as in a container, with its sandbox.
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = [*FLAGS, "--no-sandbox"] if root else list(FLAGS)
    return playwright.chromium.launch(executable_path=find(), args=flags)
