"""All records in a budget: in order, resumed after a kill, and never one for less than there is."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import experiment_folder
import pytest

import mtl_course.experiments
from mtl_course import chapters, records
from mtl_course.dev.notebooks import ROOT
from mtl_course.records import command, everything, pieces, sources

EXPERIMENT = """
    import time
    from pathlib import Path
    from mtl_course.records.pieces import kept

    HERE = Path(__file__).parent

    def one(seed):
        with open(HERE / "computed", "a") as log:
            log.write(f"{seed}\\n")
        if (HERE / "slow").exists() and seed == 1:
            (HERE / "slow").rename(HERE / "waiting")
            time.sleep(300)
        return {"accuracy": seed / 7, "pair": (seed, seed)}

    def run(profile, seeds, report):
        report("tiny", profile)
        return {"joint": [kept(f"seed {seed}", one, seed) for seed in seeds]}
"""


ONE = ("01", "--profile", "cpu", "--seeds", "3")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with chapter 1's experiment, which is the course's only one; records in ``out``."""
    experiment_folder.write(tmp_path, ch01=EXPERIMENT)
    monkeypatch.setattr(chapters, "CHAPTERS", {"01": chapters.CHAPTERS["01"]})
    monkeypatch.setattr(mtl_course.experiments, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mtl_course.experiments.ch01", raising=False)
    (tmp_path / "out").mkdir()
    yield tmp_path
    sys.modules.pop("mtl_course.experiments.ch01", None)


def make(folder, *arguments):
    """One record, here; its results are those of `kept`."""
    sys.modules.pop("mtl_course.experiments.ch01", None)
    return command.main(["01", "--profile", "cpu", "--out", str(folder / "out"), *arguments])


def computed(folder):
    return (folder / "computed").read_text().split()


# ---------------------------------------------------------------------------------- resumed, whole
def test_a_record_goes_on_where_a_kill_stopped_it(folder):
    arguments = [*ONE, "--out", str(folder / "out")]
    (folder / "slow").touch()
    process = experiment_folder.start(folder, *arguments)
    for _ in range(1200):
        if (folder / "waiting").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert computed(folder) == ["0", "1"] and not list((folder / "out").glob("*.json"))
    status, out = experiment_folder.run(folder, *arguments)
    assert status == 0 and "tiny cpu" in out, out
    assert computed(folder) == ["0", "1", "1", "2"]
    resumed = records.load("01", "cpu", folder / "out")
    again = folder / "again"
    assert command.main([*arguments[:-1], str(again)]) == 0
    assert records.load("01", "cpu", again).results == resumed.results
    assert resumed.provenance["seeds"] == [0, 1, 2] and resumed.provenance["seconds"] >= 0
    assert [path.name for path in (folder / "out").iterdir()] == ["01_cpu.json"]


def test_more_seeds_go_on_from_those_of_a_try_that_failed(folder):
    code = sources.fingerprint("mtl_course.experiments.ch01")
    with pieces.keeping(pieces.place(folder / "out", "01", "cpu", code)):
        pieces.kept("seed 0", lambda: {"accuracy": 0.25})
    assert make(folder, "--seeds", "4") == 0
    assert computed(folder) == ["1", "2", "3"]
    assert records.load("01", "cpu", folder / "out").results["joint"][0] == {"accuracy": 0.25}


def test_pieces_of_other_code_are_not_taken(folder):
    other = pieces.place(folder / "out", "01", "cpu", "other")
    with pieces.keeping(other):
        pieces.kept("seed 0", lambda: {"accuracy": 0.25})
    assert make(folder, "--seeds", "3") == 0
    assert computed(folder) == ["0", "1", "2"] and not other.exists()


def test_outside_of_a_record_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pieces.kept("pair", lambda: (1, 2)) == (1, 2) and list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------ never for the worse
def test_fewer_seeds_never_replace_more(folder, capsys):
    assert make(folder, "--seeds", "5") == 0
    before = (folder / "out" / "01_cpu.json").read_bytes()
    assert make(folder, "--seeds", "3") == 2
    assert "has 5 seeds and stays" in capsys.readouterr().err
    assert (folder / "out" / "01_cpu.json").read_bytes() == before
    assert make(folder, "--seeds", "3", "--replace") == 0
    assert records.load("01", "cpu", folder / "out").provenance["seeds"] == [0, 1, 2]


def test_all_goes_on_from_the_seeds_that_a_record_began_with(folder, monkeypatch):
    """A part may be of further seeds, on which another record's settings are tried."""
    assert make(folder, "--seeds", "20:23") == 0
    [job] = everything.jobs("cpu", 3, folder / "out")
    assert job.current and (job.first, job.seeds) == (20, 3)
    [job] = everything.jobs("cpu", 4, folder / "out")
    assert not job.current and (job.first, job.seeds) == (20, 4)
    options, started = types.SimpleNamespace(force=False, replace=False), []
    ended = types.SimpleNamespace(wait=lambda timeout: 0, poll=lambda: 0)
    monkeypatch.setattr(
        everything.subprocess, "Popen", lambda words: started.append(words) or ended
    )
    assert everything._run(job, "cpu", folder / "out", options, 9.0).startswith("made in")
    assert started[0][started[0].index("--seeds") + 1] == "20:24"


def test_a_record_that_lacks_a_set_never_replaces_one_that_has_it(folder, capsys):
    assert make(folder, "--seeds", "3") == 0
    path = folder / "out" / "01_cpu.json"
    content = json.loads(path.read_text())
    content["results"]["ILEA"] = {"0": 1}
    path.write_text(json.dumps(content))
    assert make(folder, "--seeds", "3") == 2
    assert "holds more (ILEA) and stays" in capsys.readouterr().err
    assert "ILEA" in records.load("01", "cpu", folder / "out").results
    less = json.loads((folder / "out" / "01_cpu.less").read_text())
    assert "ILEA" not in less["results"]
    assert make(folder, "--seeds", "3", "--replace") == 0
    assert "ILEA" not in records.load("01", "cpu", folder / "out").results


def test_names_that_are_numbers_are_seeds_and_may_differ():
    old, new = (
        records.Record("01", "cpu", results, {})
        for results in ({"a": {"0": 1, "1": 2, "x": 3}, "7": 1}, {"a": {"1000": 1}})
    )
    assert command.lacking(new, old) == ["a: x"]


# --------------------------------------------------------------------------- what is made, and when
def test_what_is_as_new_as_its_code_is_skipped_until_the_code_changes(folder):
    out = folder / "out"
    assert [job.current for job in everything.jobs("cpu", 3, out)] == [False]
    make(folder, "--seeds", "3")
    assert [job.current for job in everything.jobs("cpu", 3, out)] == [True]
    assert [job.seeds for job in everything.jobs("cpu", 5, out)] == [5]
    assert [job.current for job in everything.jobs("cpu", 5, out)] == [False], "more seeds asked"
    text = (folder / "ch01.py").read_text()
    (folder / "ch01.py").write_text('"""Words."""\n# more\n' + text)
    assert [job.current for job in everything.jobs("cpu", 3, out)] == [True], "only words changed"
    (folder / "ch01.py").write_text(text.replace("seed / 7", "seed / 8"))
    assert [job.current for job in everything.jobs("cpu", 3, out)] == [False]


def test_a_record_keeps_its_number_of_seeds(folder):
    make(folder, "--seeds", "6")
    (folder / "ch01.py").write_text((folder / "ch01.py").read_text().replace("/ 7", "/ 8"))
    (job,) = everything.jobs("cpu", 3, folder / "out")
    assert (job.seeds, job.current) == (6, False)


def test_the_time_is_told_by_the_last_record_and_the_pieces_that_are_there(folder):
    out = folder / "out"
    (job,) = everything.jobs("cpu", 3, out)
    assert job.seconds is None or records.load("01", "cpu"), "never timed"
    provenance = {"seeds": [0, 1, 2], "seconds": 30.0, "code": "old"}
    records.save(records.Record("01", "cpu", {}, provenance), out)
    assert everything.jobs("cpu", 5, out)[0].seconds == 50
    for device, expected in {"CPU, 1 thread": 20, "A GPU": 50}.items():
        made = provenance | {"cpu_minutes": 0.2, "device": device}
        records.save(records.Record("01", "cpu", {}, made), out)
        assert everything.jobs("cpu", 5, out)[0].seconds == pytest.approx(expected)
    records.save(records.Record("01", "cpu", {}, provenance), out)
    place = pieces.place(out, "01", "cpu", sources.fingerprint("mtl_course.experiments.ch01"))
    place.mkdir(parents=True)
    (place / "a.json").write_text('{"key": "a", "seconds": 20.0, "result": 1}')
    assert everything.jobs("cpu", 5, out)[0].seconds == 30


def test_the_most_valuable_come_first(monkeypatch):
    monkeypatch.setattr(sources, "fingerprint", lambda module: "")
    listed = [str(job) for job in everything.jobs("gpu", 5, records.FOLDER)]
    first = [f"{n} gpu" for n in everything.ORDER if n in chapters.CHAPTERS]
    assert listed[: len(first)] == first and len(listed) == len(chapters.CHAPTERS)
    assert "17 schools" in [str(job) for job in everything.jobs("cpu", 5, records.FOLDER)]


# ------------------------------------------------------------------------------------ the whole run
def everything_of(folder, *arguments):
    """``record all`` on chapter 1 alone, in this process; each job in its own."""
    sys.modules.pop("mtl_course.experiments.ch01", None)
    out = str(folder / "out")
    return command.main(["all", "--profile", "cpu", "--seeds", "3", "--out", out, *arguments])


@pytest.fixture
def outside(folder, monkeypatch):
    """Processes that this one starts find the folder's experiments."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_all_are_made_without_what_a_gpu_machine_need_not_have(outside, capfd):
    assert everything_of(outside) == 0
    said = capfd.readouterr().out
    assert "== 01 cpu: 3 seeds" in said and "made in" in said
    assert records.load("01", "cpu", outside / "out").provenance["seeds"] == [0, 1, 2]
    assert everything_of(outside) == 0
    assert "is as new as its code" in capfd.readouterr().out
    assert computed(outside) == ["0", "1", "2"]


def test_what_does_not_fit_is_left_out_and_said(outside, capfd):
    provenance = {"seeds": [0, 1, 2], "seconds": 500.0}
    records.save(records.Record("01", "cpu", {}, provenance), outside / "out")
    assert everything_of(outside, "--budget", "400") == 0
    assert "did not fit (about 500 s; 400 s were left)" in capfd.readouterr().out
    assert not (outside / "computed").exists()
    assert everything_of(outside, "--budget", "2") == 0
    assert "did not fit" in capfd.readouterr().out


def test_the_end_of_the_budget_stops_what_runs_and_keeps_its_pieces(outside, capfd, monkeypatch):
    class Late(subprocess.Popen):
        """A process whose time is up when it computes the second seed."""

        def wait(self, timeout=None):
            if timeout is None:
                return super().wait()
            while not (outside / "waiting").exists() and self.poll() is None:
                time.sleep(0.1)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(everything.subprocess, "Popen", Late)
    (outside / "slow").touch()
    assert everything_of(outside, "--budget", "1000") == 0
    assert "stopped at the end of the budget" in capfd.readouterr().out
    assert not list((outside / "out").glob("*.json"))
    monkeypatch.undo()
    assert experiment_folder.run(outside, *ONE, "--out", str(outside / "out"))[0] == 0
    assert computed(outside) == ["0", "1", "1", "2"]


def test_one_that_fails_is_said_and_stops_no_other(outside, capfd, monkeypatch):
    experiment_folder.write(outside, ch03="def run(profile, seeds): 1 / 0")
    monkeypatch.setitem(chapters.CHAPTERS, "03", chapters.find("01"))
    assert everything_of(outside) == 1
    said = capfd.readouterr().out
    assert said.index("failed after") < said.index("made in")


def test_the_books_records_name_no_folder_of_one_machine(folder, monkeypatch):
    commands = []

    def popen(command):
        commands.append(command[3:])
        return subprocess.Popen([sys.executable, "-c", ""])

    options = types.SimpleNamespace(budget=None, force=False, replace=True)
    monkeypatch.setattr(
        everything, "subprocess", types.SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    )
    monkeypatch.setattr(records, "FOLDER", folder / "out")
    assert everything.make("cpu", 4, (folder / "out").resolve(), options) == 0
    assert commands == [["01", "--profile", "cpu", "--seeds", "4", "--replace"]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["all", "--part", "schools"], "goes with one chapter"),
        (["01", "--budget", "10"], "--budget goes with all"),
        (["01", "--part", "schools"], "no part 'schools'; it has none"),
        (["01", "--seeds", "7:3"], "seeds are given as A:B"),
    ],
)
def test_arguments_that_do_not_go_together_are_explained(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_a_part_is_a_record_of_its_own(folder):
    part = "\nRECORDS = {'few': lambda seeds: {'seeds': list(seeds)}}\n"
    (folder / "ch01.py").write_text((folder / "ch01.py").read_text() + part)
    assert make(folder, "--seeds", "4:8", "--part", "few") == 0
    record = records.load("01", "few", folder / "out")
    assert record.results == {"seeds": [4, 5, 6, 7]} == {"seeds": record.provenance["seeds"]}


# -------------------------------------------------------------------------------------- its sources
def test_the_files_of_an_experiment_are_those_that_it_imports():
    named = set(sources.files("mtl_course.experiments.ch19"))
    assert {"mtl_course.experiments.ch19", "mtl_course.streams.memories"} <= named
    assert "mtl_course.data.door" in named, "data.load, by way of the room's list"
    assert not {name for name in named if ".records" in name or name.endswith(".plots")}


@pytest.mark.parametrize(
    "change, same",
    [
        (("x = 1", "x  =  1  # one"), True),
        (('"""Add."""', '"""Add\n    both."""'), True),
        (("x = 1", "x = 2"), False),
        (('"# no comment"', '"# comment"'), False),
    ],
)
def test_words_and_white_space_are_not_code(change, same):
    source = 'x = 1\ndef f(a):\n    """Add."""\n    return a + "# no comment"\n'
    changed = source.replace(*change)
    assert changed != source
    assert (sources.essence(changed) == sources.essence(source)) is same


def test_every_experiment_can_be_imported_on_a_machine_that_has_only_torch_and_numpy(tmp_path):
    experiment_folder.write(tmp_path)
    code = """
from mtl_course import chapters
from mtl_course.records import sources
from importlib import import_module
for number in chapters.CHAPTERS:
    module = import_module(sources.experiment(number))
    assert callable(module.run) and all(map(callable, getattr(module, "RECORDS", {}).values()))
import sys
assert sys.modules["pandas"] is None and sys.modules["pyarrow"] is None
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
