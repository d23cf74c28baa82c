"""An account without a home folder, as containers have with an unknown user number, and files of
progress that nobody could understand: the course works all the same, and says so in one sentence.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mtl_course.exercises  # noqa: F401 - registers them
from mtl_course import data
from mtl_course.checks import store
from mtl_course.checks.exercise import REGISTRY
from mtl_course.data import cache
from mtl_course.data.tiers import root

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """An account that pathlib finds no home for."""

    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("MTL_COURSE_HOME", "MTL_COURSE_CACHE", "MTL_COURSE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(no_home))
    monkeypatch.setattr(
        Path, "expanduser", lambda self: no_home() if str(self).startswith("~") else self
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(store, "_said", set())
    monkeypatch.setattr(cache, "_said", set())
    return tmp_path


def test_the_cache_is_a_temporary_place_and_one_sentence_says_so(homeless, capsys):
    place = cache.folder()
    assert homeless in place.parents and cache.folder() == place
    said = capsys.readouterr().err
    assert said.count("This account has no home folder") == 1 and "MTL_COURSE_CACHE" in said


def test_a_set_is_kept_there(homeless, capsys):
    info = data.info("mnist_5k")
    arrays = {key: np.zeros(shape, "uint8") for key, shape in info.shape.items()}
    kept = cache.through(info, lambda staged: arrays)
    assert kept.keys() == arrays.keys() and homeless in cache.file_of(info).parents
    assert cache.file_of(info).exists()


def test_a_data_root_in_no_home_is_said(homeless, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_DATA", "~/sets")
    with pytest.raises(data.DataError, match=r"MTL_COURSE_DATA is ~/sets.*no such home folder"):
        root.folder()
    assert data.load("exam").x.shape == (4059, 9)  # what needs no folder needs no home


def test_progress_is_kept_in_a_temporary_place(homeless):
    assert homeless in store.home().parents
    entries, note = store.load()
    assert entries == {} and "This account has no home folder" in note
    assert store.load() == ({}, None)


SCRIPT = """
import os, pwd

def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {{number}}")

pwd.getpwuid = nobody  # as in a container that is run with a number of its own
import mtl_course.exercises
from mtl_course.checks import check, progress
print(check({name!r}, lambda *inputs: 1 / 0))
print(repr(progress()).splitlines()[0])
from mtl_course import data
from mtl_course.data import cache
print(data.load("exam").x.shape, cache.folder())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows takes the home from its own variables")
def test_check_progress_and_load_of_a_process_without_a_home(tmp_path):
    """A user number that no list of accounts has, and no HOME: pathlib's own behaviour."""
    name = next(iter(REGISTRY))
    gone = ("HOME", "MTL_COURSE_HOME", "MTL_COURSE_CACHE", "MTL_COURSE_DATA", "MTL_COURSE_CHECKS")
    environment = {key: value for key, value in os.environ.items() if key not in gone}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name)],
        cwd=ROOT,
        env=environment | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "This account has no home folder" in done.stdout
    assert "Progress: 0 of" in done.stdout and f"(4059, 9) {tmp_path}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


# ------------------------------------------------------------------------------ a file of progress
ENTRY = {"state": "solved", "score": 1.0, "tries": 1, "solved": "2030-01-01"}
ODD = {
    "100,000 brackets": "[" * 100_000,
    "100,000 brackets of the other kind": '{"exercises":' * 100_000,
    "brackets in an entry": '{"exercises": {"a": ' + "[" * 100_000,
    "a number of 10,000 digits": '{"exercises": ' + "1" * 10_000 + "}",
    "a score of 400 digits": json.dumps({"exercises": {"a": ENTRY | {"score": 10**400}}}),
    "a score that is no number": json.dumps({"exercises": {"a": ENTRY | {"score": float("nan")}}}),
    "an infinite score": json.dumps({"exercises": {"a": ENTRY | {"score": float("inf")}}}),
    "nothing": "",
    "a list of entries": '{"exercises": []}',
    "an entry that is a text": '{"exercises": {"a": "solved"}}',
    "a state that is a list": json.dumps({"exercises": {"a": ENTRY | {"state": ["solved"]}}}),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_set_aside(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(store, "_said", set())
    (tmp_path / "progress.json").write_text(ODD[name])
    entries, note = store.load()
    assert entries == {} and "damaged" in note
    assert (tmp_path / "progress.unreadable-1.json").read_text() == ODD[name]
    assert store.load() == ({}, None)
