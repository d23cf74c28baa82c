"""Records of full-size experiments: whole or refused, with their provenance; and the command that
writes them.
"""

import json
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtl_course import records
from mtl_course.data import DataError
from mtl_course.dev.notebooks import ROOT
from mtl_course.multitask.fit import TaskHistory
from mtl_course.records import command

RECORD = records.Record(
    "01",
    "gpu",
    {"joint": [0.1, 0.2, 0.3]},
    {
        "date": "2026-01-02T03:04:05",
        "device": "Tesla T4",
        "torch": "2.11",
        "commit": "a" * 40,
        "command": "run",
    },
)


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    path = records.save(RECORD, tmp_path / "new")
    assert path.name == "01_gpu.json"
    assert records.load("01", folder=path.parent) == RECORD
    assert str(RECORD) == "Record of 2026-01-02 on Tesla T4, torch 2.11, commit aaaaaaaaa: run"


def test_there_may_be_no_record_yet(tmp_path):
    assert records.load("01", folder=tmp_path) is None
    assert records.load("01", folder=tmp_path / "nowhere") is None


def test_where_there_is_no_record_a_chapter_names_the_command_that_makes_it(tmp_path, capsys):
    records.load("01", folder=tmp_path)
    assert capsys.readouterr().out == ""
    assert records.load("01", folder=tmp_path, say=True) is None
    assert "`python -m mtl_course.record 01` makes the record" in capsys.readouterr().out
    assert records.load("01", "cpu", tmp_path, say=True) is None
    assert "`python -m mtl_course.record 01 --profile cpu` makes" in capsys.readouterr().out
    records.save(RECORD, tmp_path)
    assert records.load("01", folder=tmp_path, say=True) == RECORD
    assert capsys.readouterr().out == ""


def test_arrays_and_tensors_are_saved_as_lists(tmp_path):
    results = {"a": np.array([1.0, 2.0]), "b": torch.tensor([3]), "c": np.float32(0.5)}
    records.save(records.Record("01", "gpu", results, {}), tmp_path)
    assert records.load("01", folder=tmp_path).results == {"a": [1.0, 2.0], "b": [3], "c": 0.5}


def test_a_history_is_saved_epoch_by_epoch(tmp_path):
    run = TaskHistory([0.9, 0.5], [0.8, 0.6], 2, {"a": 1.0}, {"a": [0.8, 0.6]}, {"a": [0.7, 0.9]})
    records.save(records.Record("01", "gpu", {"history": [run]}, {}), tmp_path)
    (found,) = records.load("01", folder=tmp_path).results["history"]
    assert TaskHistory(**found) == run


def broken(tmp_path):
    whole = records.save(RECORD, tmp_path).read_text(encoding="utf-8")
    content = json.loads(whole)
    del content["provenance"]
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": "",
        "a list": "[1, 2]",
        "no provenance": json.dumps(content),
    }


@pytest.mark.parametrize("how", ["truncated", "empty", "a list", "no provenance"])
def test_a_record_that_is_not_whole_is_refused(tmp_path, how):
    (tmp_path / "01_gpu.json").write_text(broken(tmp_path)[how], encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"01_gpu\.json is not a whole record.*python -m mtl_course\.record 01"
    ):
        records.load("01", folder=tmp_path)


@pytest.mark.parametrize("stop", ["dump", "write"])
def test_a_save_that_fails_keeps_the_old_record(tmp_path, monkeypatch, stop):
    records.save(RECORD, tmp_path)
    if stop == "write":
        monkeypatch.setattr(
            records.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
        )
    new = records.Record("01", "gpu", {"joint": object() if stop == "dump" else 1}, {})
    with pytest.raises((OSError, AttributeError)):
        records.save(new, tmp_path)
    monkeypatch.undo()
    assert records.load("01", folder=tmp_path) == RECORD


def test_provenance_is_plain_json():
    found = records.provenance([0, 1, 2])
    assert json.loads(json.dumps(found)) == found
    assert {
        "mtl_course",
        "python",
        "torch",
        "torchvision",
        "numpy",
        "device",
        "platform",
        "date",
        "seeds",
        "commit",
        "command",
    } == set(found)


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
        check=True,
        capture_output=True,
    )


def test_commit_says_whether_the_code_was_changed(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "records"
    folder.mkdir(parents=True)
    file = folder / "__init__.py"
    file.touch()
    (tmp_path / "package" / "train.py").touch()
    monkeypatch.setattr(records, "installed_commit", lambda: None)
    assert records.commit(file).startswith("unknown")
    git(tmp_path, "init")
    assert records.commit(file).startswith("unknown"), "in the checkout of another project"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    assert len(records.commit(file)) == 40
    (tmp_path / "package" / "train.py").write_text("changed", encoding="utf-8")
    assert records.commit(file).endswith(" with changes")


@pytest.mark.parametrize(
    "origin, expected",
    [
        ('{"url": "x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}', "abc"),
        ('{"url": "file:///x", "dir_info": {"editable": true}}', "unknown (not a git checkout)"),
        (None, "unknown (not a git checkout)"),
        ("{", "unknown (not a git checkout)"),
    ],
)
def test_the_commit_of_an_installed_package_is_the_one_that_pip_fetched(
    origin, expected, monkeypatch
):
    monkeypatch.setattr(
        records.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git"))
    )
    monkeypatch.setattr(
        records, "distribution", lambda name: types.SimpleNamespace(read_text=lambda file: origin)
    )
    assert records.commit() == expected


TRAINED = ("03", "08", "12")  # chapters whose full-size record shows what happened by epoch


def has_history(results):
    if isinstance(results, dict):
        return "history" in results or any(map(has_history, results.values()))
    return isinstance(results, list) and any(map(has_history, results))


def problems(path):
    """What speaks against committing this record."""
    chapter, profile = path.stem.split("_")
    record = records.load(chapter, profile, path.parent)
    from_cpu = "CPU" in record.provenance["device"]
    found = {
        "its name": (record.chapter, record.profile) != (chapter, profile),
        # A timing is a median over rounds, side by side in one run: no seed changes it.
        "too few seeds": profile != "timing" and len(record.provenance["seeds"]) < 3,
        "its device": from_cpu == (profile == "gpu"),
        "uncommitted code": "with changes" in record.provenance["commit"],
        "no history": profile == "gpu" and chapter in TRAINED and not has_history(record.results),
    }
    return [name for name, bad in found.items() if bad]


def test_committed_records_are_whole_and_from_where_they_say():
    assert {
        path.name: problems(path) for path in records.FOLDER.glob("*.json") if problems(path)
    } == {}


def test_a_record_that_must_not_be_committed_is_caught(tmp_path):
    provenance = {**RECORD.provenance, "seeds": [0, 1, 2]}
    for change, name in [
        ({}, []),
        ({"seeds": [0]}, ["too few seeds"]),
        ({"device": "CPU, 2 threads"}, ["its device"]),
        ({"commit": "a with changes"}, ["uncommitted code"]),
    ]:
        assert (
            problems(
                records.save(records.Record("01", "gpu", {}, {**provenance, **change}), tmp_path)
            )
            == name
        )
    for results, name in [
        ({"accuracy": [0.9]}, ["no history"]),
        ({"joint": [{"history": {"a": [0.1, 0.2]}}]}, []),
    ]:
        assert (
            problems(records.save(records.Record("08", "gpu", results, provenance), tmp_path))
            == name
        )
    moved = records.save(records.Record("01", "gpu", {}, provenance), tmp_path).replace(
        tmp_path / "02_gpu.json"
    )
    assert problems(moved) == ["its name"]


# ------------------------------------------------------------------------------------------ command
@pytest.fixture
def experiment(monkeypatch):
    """A tiny experiment in the place of chapter 1's, on a machine without a GPU."""
    calls = []

    def run(profile, seeds):
        calls.append((profile, seeds))
        return {"joint": [0.5 + seed for seed in seeds]}

    monkeypatch.setitem(sys.modules, "mtl_course.experiments.ch01", types.SimpleNamespace(run=run))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return calls


def test_the_command_writes_a_record(experiment, tmp_path, capsys):
    assert command.main(["1", "--profile", "cpu", "--seeds", "3", "--out", str(tmp_path)]) == 0
    assert experiment == [("cpu", [0, 1, 2])]
    record = records.load("01", "cpu", tmp_path)
    assert record.results == {"joint": [0.5, 1.5, 2.5]} and 0 <= record.provenance["seconds"] < 10
    assert 0 <= record.provenance["cpu_minutes"] < 1
    assert "written to" in capsys.readouterr().out


def test_without_a_gpu_it_refuses_politely(experiment, tmp_path, capsys):
    assert command.main(["01", "--out", str(tmp_path)]) == 2
    assert experiment == [] and list(tmp_path.iterdir()) == []
    assert "needs a CUDA device" in capsys.readouterr().err


def test_a_smoke_test_never_replaces_the_books_record(experiment, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["01", "--force"])
    assert "--force needs --out" in capsys.readouterr().err
    for same in (records.FOLDER, records.FOLDER / ".." / "records"):
        with pytest.raises(SystemExit):
            command.main(["01", "--force", "--out", str(same)])
        assert "another folder than the book's" in capsys.readouterr().err and experiment == []
    assert command.main(["01", "--force", "--seeds", "3", "--out", str(tmp_path)]) == 0
    assert experiment == [("gpu", [0, 1, 2])]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["77"], "There is no chapter '77'"),
        (["01", "--seeds", "2"], "at least 3 seeds"),
        ([], "chapter"),
    ],
)
def test_wrong_arguments_are_explained(experiment, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err and experiment == []


def test_an_experiment_that_fails_leaves_no_record(experiment, tmp_path, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "mtl_course.experiments.ch01", types.SimpleNamespace(run=lambda *_: 1 / 0)
    )
    with pytest.raises(ZeroDivisionError):
        command.main(["01", "--profile", "cpu", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_had_are_said_without_a_traceback(
    experiment, tmp_path, monkeypatch, capsys
):
    def run(profile, seeds):
        raise DataError("cifar10: 3 attempts to download it failed.")

    monkeypatch.setitem(sys.modules, "mtl_course.experiments.ch01", types.SimpleNamespace(run=run))
    assert command.main(["01", "--profile", "cpu", "--out", str(tmp_path)]) == 2
    assert "cifar10: 3 attempts" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_before_the_experiment(
    experiment, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        command.main(["01", "--profile", "cpu", "--out", str(tmp_path / "file")])
    assert "the record cannot be written to" in capsys.readouterr().err
    monkeypatch.setattr(command.os, "access", lambda *_: False)
    with pytest.raises(SystemExit):
        command.main(["01", "--profile", "cpu", "--out", str(tmp_path)])
    assert "name another folder with --out" in capsys.readouterr().err and experiment == []


@pytest.mark.parametrize("commit, said", [("a" * 40, False), ("a" * 40 + " with changes", True)])
def test_uncommitted_code_is_said_before_the_experiment(
    experiment, tmp_path, monkeypatch, capsys, commit, said
):
    monkeypatch.setattr(records, "commit", lambda: commit)
    assert command.main(["01", "--profile", "cpu", "--out", str(tmp_path)]) == 0
    assert ("uncommitted changes" in capsys.readouterr().err) == said
    assert records.load("01", "cpu", tmp_path).provenance["commit"] == commit


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mtl_course.record", "77"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "There is no chapter '77'" in done.stderr


def test_a_record_is_shown_as_one_line_that_is_broken_and_not_with_its_results():
    long = replace(RECORD, provenance=RECORD.provenance | {"command": "run " * 30 + "<it>"})
    for text in (str(long), repr(long)):
        assert max(map(len, text.split("\n"))) <= 76 and "joint" not in text
    assert str(long).split("\n")[1].startswith("  run")
    assert "&lt;it&gt;" in long._repr_html_() and "joint" not in long._repr_html_()


@pytest.mark.parametrize("device", ["CPU, 1 threads", "CPU, 11 threads"])
def test_one_thread_is_no_plural(device):
    record = replace(RECORD, provenance=RECORD.provenance | {"device": device})
    assert ("1 thread," in str(record)) == (device == "CPU, 1 threads")
