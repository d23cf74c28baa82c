"""The door to the data: manifest, data set, embedded tables, splits, command line. The other tiers
have test modules.
"""

import copy
import dataclasses
import hashlib
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtl_course import data
from mtl_course.data import __main__ as command
from mtl_course.data import cache, manifest
from mtl_course.data.tiers import packages, root

ROOT = Path(__file__).parents[2]
ENTRIES = list(manifest.read().values())
REGISTRIES = (
    "pypi.org",
    "pythonhosted",
    "npmjs",
    "cran.r-project",
    "anaconda",
    "conda.io",
    "debian.org",
)


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.name)
def test_every_entry_is_complete(info):
    assert info.title and info.source.startswith("http") and info.shape and info.chapters
    assert info.licence.startswith("not stated") or info.licence_source.startswith("http")
    assert not any(registry in f"{info.source} {info.licence_source}" for registry in REGISTRIES)
    assert all(re.fullmatch(r"\d\d", chapter) for chapter in info.chapters)
    packaged = ("package", "version", "archive", "sha256", "download", "files")
    needed = {
        "P": packaged,
        "N": packaged,
        "R": ("files",),
        "D": ("download",),
    }
    assert all(getattr(info, name) for name in needed.get(info.tier, ()))
    sums = [*info.files.values(), *filter(None, [info.sha256])]
    assert all(re.fullmatch(r"[0-9a-f]{64}", found) for found in sums)
    for path, sha256 in info.files.items() if info.tier == "E" else ():
        assert hashlib.sha256((manifest.FOLDER / path).read_bytes()).hexdigest() == sha256


def test_every_citation_is_in_the_bibliography():
    keys = re.findall(
        r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M
    )
    assert {info.citation for info in ENTRIES} <= set(keys)


def test_every_table_in_the_package_has_an_entry_and_all_are_small():
    tables = {
        str(path.relative_to(manifest.FOLDER).as_posix())
        for path in (manifest.FOLDER / "tables").iterdir()
    }
    embedded = [info for info in ENTRIES if info.tier == "E"]
    texts = {info.licence_text for info in embedded} - {""} | {"tables/NOTICE.txt"}
    assert tables == {path for info in embedded for path in info.files} | texts
    assert sum((manifest.FOLDER / path).stat().st_size for path in tables) <= 4e6


def test_the_manifest_needs_the_standard_library_only():
    """The book's build reads it where neither torch nor NumPy is installed."""
    code = (
        "import sys, runpy\nfor name in ('numpy', 'torch', 'sklearn'): sys.modules[name] = None\n"
        "from mtl_course import data\nassert data.info('exam').title and 'mnist' in data.names()\n"
        f"assert runpy.run_path({str(manifest.__file__)!r})['read']()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "change, error",
    [({"tier": "X"}, ValueError), ({"colour": "red"}, TypeError), ({"title": None}, TypeError)],
)
def test_a_faulty_manifest_is_refused(change, error, tmp_path):
    entry = {"title": "t", "tier": "E", "source": "s", "licence": "l", "citation": "c"} | change
    lines = [f'{key} = "{value}"' for key, value in entry.items() if value is not None]
    path = tmp_path / "manifest.toml"
    path.write_text("\n".join(["[one]", *lines, "shape = { x = [1] }"]), encoding="utf-8")
    with pytest.raises(error):
        manifest.read(path)


def test_an_unknown_name_gets_the_close_ones():
    with pytest.raises(
        data.DataError,
        match=r"no data set 'mnist5k'. Did you mean 'mnist_5k'.*The sets are: exam, ",
    ):
        data.load("mnist5k")
    with pytest.raises(data.DataError, match=r"no data set 'zzz'. The sets are"):
        data.load("zzz")
    assert data.names() == [info.name for info in ENTRIES]


def test_a_part_takes_the_place_of_a_whole_that_cannot_be_had(monkeypatch):
    def load(name):
        if not name.endswith("_partial"):
            raise data.DataError(f"no {name}")
        return name

    monkeypatch.setattr("mtl_course.data.door.load", load)
    assert data.load_or_partial("cifar100") == "cifar100_partial"
    with pytest.raises(data.DataError, match="no svhn"):  # of which there is no part
        data.load_or_partial("svhn")
    monkeypatch.setattr("mtl_course.data.door.load", lambda name: name)
    assert data.load_or_partial("cifar100") == "cifar100"


def test_unknown_attribute_of_the_module():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        data.lod  # noqa: B018


@pytest.fixture
def exam():
    return data.load("exam")


def test_a_data_set_is_an_immutable_mapping(exam):
    assert list(exam) == ["x", "y", "task", "names"] and len(exam) == 4 and exam["y"] is exam.y
    with pytest.raises(ValueError, match="read-only"):
        exam.x[0, 0] = 1
    with pytest.raises(TypeError):
        exam["x"] = 0
    with pytest.raises(AttributeError, match="immutable"):
        exam.y = 0
    with pytest.raises(AttributeError, match="no array 'z'; it has x, y, task, names"):
        exam.z  # noqa: B018
    for twin in (copy.copy(exam), pickle.loads(pickle.dumps(exam.y))):
        assert np.array_equal(getattr(twin, "y", twin), exam.y)


def test_what_a_data_set_prints(exam):
    text = repr(exam)
    assert (
        "x [4059, 9] float64" in text
        and "GPL" in text
        and "tier E" in text
        and exam.info.title in text
    )
    assert len(text.splitlines()) == 3 and str(Path.home()) not in text


def test_altered_shapes_are_refused(exam):
    with pytest.raises(data.DataError, match=r"altered.*(4058, 9)"):
        data.Dataset(exam.info, dict(exam) | {"x": exam.x[1:]}, "here")


def test_exam_is_the_published_table(exam):
    """Counts from the documentation of mlmRev, and the two corrections of its labels."""
    assert [exam[key].dtype for key in ("x", "y", "task")] == [np.float64, np.float64, np.int64]
    sizes = np.bincount(exam.task)
    assert len(sizes) == 65 and sizes.min() == 2 and sizes.max() == 198
    column = dict(zip(exam.names, exam.x.T, strict=True))
    assert (
        column["girl"].sum() == 2436
        and column["boys_school"].sum() == 513
        and column["girls_school"].sum() == 1377
    )
    assert abs(exam.y.mean()) < 2e-4 and abs(exam.y.std() - 1) < 2e-3
    for top, bottom, score in (
        ("vr_top", "vr_bottom", "standLRT"),
        ("schavg_top", "schavg_bottom", "schavg"),
    ):
        assert not np.any(column[top] * column[bottom])
        assert (
            column[score][column[top] == 1].mean()
            > 0.3
            > -0.3
            > column[score][column[bottom] == 1].mean()
        )
    means = np.bincount(exam.task, column["standLRT"]) / sizes
    np.testing.assert_allclose(means[exam.task], column["schavg"], atol=1e-6)
    assert not np.any(column["girl"] * column["boys_school"]) and not np.any(
        (1 - column["girl"]) * column["girls_school"]
    )


def test_digits_is_scikit_learns_copy():
    from sklearn.datasets import load_digits

    digits, bunch = data.load("digits"), load_digits()
    assert digits.x.dtype == np.uint8 and digits.x.max() == 16 and digits.y.dtype == np.int64
    assert np.array_equal(digits.x.reshape(-1, 64), bunch.data) and np.array_equal(
        digits.y, bunch.target
    )


@pytest.mark.parametrize(
    "fault, message",
    [("truncate", "truncated or altered"), ("flip", "truncated or altered"), ("remove", "missing")],
)
def test_a_damaged_embedded_table(fault, message, tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    content = bytearray((manifest.FOLDER / "tables" / "exam.csv.gz").read_bytes())
    content[1000] ^= 1
    if fault != "remove":
        (tmp_path / "tables" / "exam.csv.gz").write_bytes(
            content if fault == "flip" else content[:1000]
        )
    monkeypatch.setattr("mtl_course.data.tiers.embedded.FOLDER", tmp_path)
    with pytest.raises(data.DataError, match=message):
        data.load("exam")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(data.DataError, match=r"cannot be read.*permissions"):
        cache.verified(tmp_path, "0" * 64)  # a folder


# ------------------------------------------------------------------------------------------- Splits


def test_split_per_task_on_the_schools(exam):
    before = np.random.get_state()[1].copy()
    for seed in range(5):
        splits = {n: data.split_per_task(exam.task, n, seed, n_max=36) for n in (6, 12, 36)}
        large = np.flatnonzero(np.bincount(exam.task) > 36)
        for n, (train, test) in splits.items():
            assert (
                train.dtype == test.dtype == np.int64
                and np.all(np.diff(train) > 0)
                and np.all(np.diff(test) > 0)
            )
            assert np.array_equal(
                np.bincount(exam.task[train], minlength=65)[large], np.full(len(large), n)
            )
            assert len(train) == n * len(large) and not set(train) & set(test)
            assert np.array_equal(test, splits[6][1])
        assert set(splits[6][0]) < set(splits[12][0]) < set(splits[36][0])
        rows = np.flatnonzero(np.isin(exam.task, large))
        assert np.array_equal(
            np.sort(np.concatenate(splits[36])), rows
        )  # with n_max rows each, nothing of these schools is lost
    assert np.array_equal(np.random.get_state()[1], before)


def test_splits_name_the_same_rows_for_ever():
    """Pinned: a change here would change every stored result that rests on a split."""
    task = np.repeat([0, 3, 7], [5, 9, 2])
    train, test = data.split_per_task(task, 2, seed=1)
    assert train.tolist() == [1, 4, 6, 7] and test.tolist() == [0, 2, 3, 5, 8, 9, 10, 11, 12, 13]
    assert data.per_class(task, 2, seed=1).tolist() == [1, 4, 6, 7, 14, 15]


def test_a_tasks_rows_do_not_depend_on_the_other_tasks():
    task = np.repeat([4, 9], [10, 10])
    alone = np.flatnonzero(task == 4)
    both = data.per_class(task, 3, seed=0)
    assert np.array_equal(both[task[both] == 4], data.per_class(task[alone], 3, seed=0))


def test_seeds_and_tasks_are_shuffled_differently():
    task = np.repeat(np.arange(20), 50)
    chosen = [data.per_class(task, 10, seed) for seed in range(5)]
    assert len({tuple(rows) for rows in chosen}) == 5
    assert len({tuple(np.sort(rows % 50)) for rows in np.split(chosen[0], 20)}) == 20


def test_per_class_is_nested_and_uniform():
    y = np.arange(1000) % 10
    few, more = data.per_class(y, 5, 0), data.per_class(y, 50, 0)
    assert set(few) < set(more) and np.array_equal(np.bincount(y[few]), np.full(10, 5))
    counts = sum(np.bincount(data.per_class(y, 20, seed), minlength=1000) for seed in range(200))
    assert (
        counts.min() > 15 and counts.max() < 75
    )  # 40 expected of each row, standard deviation 5.7


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: data.split_per_task([0, 0, 1], 0, 0), "n_train must be between 1 and n_max = 0"),
        (
            lambda: data.split_per_task([0, 0, 1], 3, 0, n_max=2),
            "n_train must be between 1 and n_max = 2; it is 3",
        ),
        (lambda: data.split_per_task([0, 0, 1], 2, 0), "No task has more than 2 rows"),
        (lambda: data.per_class([0, 0, 1], 2, 0), "between 1 and 1, the number of rows of class 1"),
        (lambda: data.per_class([0, 1], 0, 0), "n must be between 1"),
        (lambda: data.per_class([0.5, 1.0], 1, 0), "whole numbers"),
        (lambda: data.per_class([-1, 1], 1, 0), "from 0 on"),
        (lambda: data.per_class(np.zeros((2, 2), int), 1, 0), "one per row"),
        (lambda: data.per_class([], 1, 0), "whole numbers"),
    ],
)
def test_impossible_splits_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --------------------------------------------------------------------------------- The command line


def test_listing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("MTL_COURSE_DATA", raising=False)
    assert command.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : len(ENTRIES) + 1]}
    assert list(rows) == data.names()
    assert rows["exam"].split()[1:3] == ["E", "yes"] and "GPL" in rows["exam"]
    assert (
        rows["mnist_5k"].split()[1:5] == ["P", "no", "1.4", "MB"] and "CC BY-SA" in rows["mnist_5k"]
    )
    assert rows["svhn"].split()[1:5] == ["D", "no", "246.3", "MB"] and rows["usps_h5"].split()[
        1:4
    ] == ["R", "no", "-"]
    cache.file_of(manifest.info("mnist_5k")).touch()
    assert command.is_here(manifest.info("mnist_5k")) and not command.is_here(
        manifest.info("mnist")
    )
    monkeypatch.setenv("MTL_COURSE_DATA", str(tmp_path))
    (tmp_path / "usps_h5").mkdir()
    (tmp_path / "usps_h5" / "usps.h5").write_bytes(b"12345")
    assert (
        command.is_here(manifest.info("usps_h5")) and command.size_of(manifest.info("usps_h5")) == 5
    )


@pytest.mark.parametrize("arguments, tiers", [([], "EP"), (["--full"], "EPND")])
def test_fetching_ahead_goes_on_after_a_failure_and_says_so(arguments, tiers, capsys, monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        if name == "rf1":
            raise data.DataError("rf1: no network")

    monkeypatch.setattr("mtl_course.data.door.load", load)
    assert command.main(arguments) == 1
    said = capsys.readouterr()
    assert asked == [info.name for info in ENTRIES if info.tier in tiers]
    assert f"{len(asked) - 1} of {len(asked)} sets are here" in said.out and "[1/" in said.out
    assert "rf1: no network" in said.err and "Could not be had: rf1." in said.err


def test_fetching_ahead_succeeds(capsys, monkeypatch):
    monkeypatch.setattr("mtl_course.data.door.load", lambda name: None)
    assert command.main(["fetch"]) == 0 and not capsys.readouterr().err


def test_tier_e_needs_no_network_and_no_cache(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(packages, "PIP", ["no-such-program"])
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path / "none"))
    for info in ENTRIES:
        if info.tier == "E":
            data.load(info.name)
    assert not (tmp_path / "none").exists()


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    info = dataclasses.replace(manifest.info("exam"), needs="no_such_library")
    with pytest.raises(
        data.DataError,
        match=r"no_such_library, which is not installed. Run: .* -m pip install no_such_library",
    ):
        info.require()


def test_data_root_is_read_from_the_environment(monkeypatch):
    monkeypatch.delenv("MTL_COURSE_DATA", raising=False)
    assert root.folder() is None
    monkeypatch.setenv("MTL_COURSE_DATA", "~/there")
    assert root.folder() == Path.home() / "there"
    monkeypatch.delenv("MTL_COURSE_CACHE", raising=False)
    assert cache.folder() == Path.home() / ".cache" / "mtl_course"
