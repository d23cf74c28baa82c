"""Claims on other seeds: one that is true of its own seeds only is found, wherever it stands."""

import json
import sys
import types

import experiment_folder
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import mtl_course.experiments
from mtl_course import chapters, records
from mtl_course.dev import claims, execute, notebooks, seeds

SETUP = """\
import mtl_course
from mtl_course import claim, records
session = mtl_course.setup("01")"""
# True on the seeds 0 to 4, and on no others.
PLANTED = """\
gain = [1.0 if s < 5 else -1.0 for s in session.seeds(5)]
claim("The planted method helps", min(gain) > 0, {"gain": gain})"""
RECORDED = """\
record = records.load("01", "cpu")
joint = record.results["joint"]
claim("The record says so", max(joint) < 5, {"joint": joint})"""
EXPERIMENT = """
def run(profile, seeds):
    return {"joint": [1.0 * seed for seed in seeds]}
"""


def notebook(*cells):
    return new_notebook(cells=[new_code_cell(source) for source in (SETUP, *cells)])


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Two chapters of a few cells, in the place of the course's own."""
    exact = 'claim("Two and two are four", 2 + 2 == 4, {"sum": 2 + 2})'
    (tmp_path / "notebooks").mkdir()
    for number, cells in {"01": (PLANTED, exact), "02": (exact,)}.items():
        path = tmp_path / chapters.find(number).notebook
        notebooks.write(notebook(*cells), path)
    chosen = lambda parser, numbers: notebooks.find(numbers, tmp_path)  # noqa: E731
    monkeypatch.setattr(claims, "notebooks", types.SimpleNamespace(**vars(notebooks)))
    monkeypatch.setattr(claims.notebooks, "chosen", chosen)
    return tmp_path


@pytest.mark.slow
def test_a_claim_that_is_true_of_its_own_seeds_only_is_found(course, capsys):
    assert claims.main(["01", "02", "--seeds", "1000:1005"]) == 1
    said = capsys.readouterr().out
    assert "✗ cell 1, live: The planted method helps" in said
    assert "gain: -1 ± 0 (5 seeds)" in said
    assert "✓ cell 2, no seed: Two and two are four" in said and "sum: 4" in said
    assert "chapter 01: 1 of 2 claims hold (" in said
    assert "chapter 02: 1 of 1 claims hold (" in said


@pytest.mark.slow
def test_a_claim_planted_in_a_chapter_of_the_course_is_found():
    [(_, path)] = notebooks.find(["01"])
    nb = notebooks.read(path)
    last = next(i for i, cell in enumerate(nb.cells) if "witnesses(s)" in cell.source)
    nb.cells = [*nb.cells[: last + 1], new_code_cell(PLANTED)]
    result = claims.run(nb, range(1000, 1005), report=lambda line: None)
    assert [claim.text for claim in result.broken] == ["The planted method helps"]
    assert result.errors == [] and len(result.claims) == 3
    assert {claim.place for claim in result.claims} == {"live"}


@pytest.mark.slow
def test_a_cell_that_raises_is_said_and_the_next_runs():
    nb = notebook("{}['no such key']", PLANTED)
    result = claims.run(nb, range(5), report=print)
    assert result.errors == ["  ! cell 1 raised KeyError: 'no such key'"]
    assert [claim.holds for claim in result.claims] == [True]


def test_claims_that_hold_do_not_make_up_for_a_cell_that_raised(course, monkeypatch, capsys):
    held = claims.Claim(1, "T", True, False, {}, "live")
    result = claims.Run([held], ["  ! cell 2 raised KeyError: 'x'"])
    monkeypatch.setattr(claims, "run", lambda *_: result)
    assert claims.main(["01", "--seeds", "0:5"]) == 1
    assert "1 of 1 claims hold; 1 cells raised an error" in capsys.readouterr().out


def test_what_a_run_said_is_kept_with_the_seeds_of_the_records(
    course, tmp_path, monkeypatch, capsys
):
    claim = claims.Claim(1, "Old goes", False, False, {"sum": 4}, "on the record")
    monkeypatch.setattr(claims, "run", lambda *_: claims.Run([claim]))
    monkeypatch.setattr(claims, "SAVED", tmp_path / "kept")
    monkeypatch.setenv("MTL_COURSE_RECORDS", str(tmp_path / "own"))
    provenance = {"seeds": [7, 8, 9], "commit": "abc"}
    records.save(records.Record("01", "cpu", {}, provenance), tmp_path / "own")
    assert claims.main(["01", "--seeds", "7:12", "--save"]) == 1
    assert "kept in kept/01_7.txt" in capsys.readouterr().out
    kept = (tmp_path / "kept" / "01_7.txt").read_text(encoding="utf-8").splitlines()
    assert kept[0].startswith("python -m mtl_course.dev claims 01 --seeds 7:12  (")
    assert kept[1] == "  ✗ cell 1, on the record: Old goes"
    assert "  record 01_cpu.json: seeds 7 to 9, commit abc" in kept
    assert kept[-1].startswith("chapter 01: 0 of 1 claims hold")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["01_7.txt"]


def test_too_few_seeds_are_said_before_the_run(course, capsys):
    assert claims.main(["01", "--seeds", "7:9"]) == 1
    assert "chapter 01: it takes 5 seeds; give it at least 7:12" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SEEDS", "RECORDS", "CLAIMS", "DATA"])
def test_a_page_shows_the_same_whatever_the_authors_shell_says(name, monkeypatch):
    monkeypatch.setenv(f"MTL_COURSE_{name}", "other")
    assert f"MTL_COURSE_{name}" not in execute.environment("home")


@pytest.mark.parametrize("text", ["5", "5:5", "a:b", "-3:2"])
def test_what_is_no_range_of_seeds_is_refused(course, capsys, text):
    with pytest.raises(SystemExit):
        claims.main(["01", f"--seeds={text}"])
    assert "seeds are given as A:B" in capsys.readouterr().err


@pytest.mark.slow
def test_a_claim_on_the_record_is_asked_on_other_seeds_only_with_record(
    course, tmp_path, monkeypatch, capfd
):
    experiment_folder.write(tmp_path, blocked=(), ch01=EXPERIMENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(mtl_course.experiments, "__path__", [str(tmp_path)])
    own = tmp_path / "own"
    monkeypatch.setenv("MTL_COURSE_RECORDS", str(own))  # in the place of the committed ones
    old = records.Record("01", "cpu", {"joint": [0.0, 1.0, 2.0]}, {"seeds": [0, 1, 2]})
    records.save(old, own)
    path = course / chapters.find("01").notebook
    notebooks.write(notebook(RECORDED), path)
    assert claims.main(["01", "--seeds", "7:12"]) == 0
    said = capfd.readouterr().out
    assert "✓ cell 1, on the record: The record says so" in said
    assert "1 of 1 claims hold; 1 rest on the record alone, on its own seeds" in said
    assert claims.main(["01", "--seeds", "7:12", "--record"]) == 1
    said = capfd.readouterr().out
    assert "its record cpu on the seeds 7:10" in said
    assert "✗ cell 1, on the record: The record says so" in said
    assert "joint: 8.000 ± 1.000 (3 seeds)" in said
    assert "0 of 1 claims hold; 1 rest on the record alone, on these seeds" in said
    assert records.load("01", "cpu").results == old.results, "the committed one stays"
    assert claims.main(["01", "--seeds", "7:9", "--record"]) == 1
    assert "record cpu has 3 seeds; give it at least 7:10" in capfd.readouterr().out


# ------------------------------------------------------------------------------- read from the code
def tree(source):
    return notebooks.tree(new_code_cell(source))


@pytest.mark.parametrize(
    "source",
    [
        "seeds = range(5)",
        "SEEDS = (0, 1, 2)",
        "rates, seeds = {}, range(3)",
        "for seed in range(3):\n    train(seed)",
        "for s in [0, 1, 2]:\n    train(s)",
        "runs = {m: [train(m, seed) for seed in range(5)] for m in methods}",
        "for i, seed in enumerate((0, 1)):\n    train(seed)",
        "for k in range(3):\n    torch.manual_seed(k)",
        "runs = [train(seed=k) for k in range(3)]",
        "study = ch12.Study(plan, seeds=range(5))",
        "study = ch12.Study(plan, [0, 1, 2])",
        'mine = ch01.run("gpu", list(range(5)))',
        "def compare(plan, seeds=range(5)):\n    pass",
        "def compare(plan, *, seeds=(0, 1)):\n    pass",
    ],
)
def test_literal_seeds_are_seen(source):
    assert list(seeds.literal_seeds(tree(source)))


@pytest.mark.parametrize(
    "source",
    [
        "seeds = session.seeds(5)",
        "for seed in session.seeds(3):\n    train(seed)",
        "parts = ch04.split(name, seed=0)",
        "for i in range(3):\n    print(values[i])",
        "for k in range(40):\n    w = step(w)",
        "ax.set_xticks(range(3), names)",
        "torch.manual_seed(0)",
        "for s in strengths:\n    train(s)",
        "def train(seed=0):\n    pass",
        "sizes = [1, 2, 4]",
    ],
)
def test_no_false_alarm_about_seeds(source):
    assert list(seeds.literal_seeds(tree(source))) == []


@pytest.mark.parametrize(
    "cells, place",
    [
        (['claim("T", 1 < 2)'], set()),
        (['a = [f(s) for s in session.seeds(3)]\nclaim("T", min(a) > 0, {"a": a})'], {"live"}),
        (["a = {}", "for s in session.seeds(3):\n    a['x'] = f(s)", 'claim("T", a)'], {"live"}),
        (
            ["a = {}", "for s in session.seeds(3):\n    a['x'].append(f(s))", 'claim("T", a)'],
            {"live"},
        ),
        (
            [
                "a = {'x': []}\nfor m, runs in a.items():\n    for s in session.seeds(3):\n"
                "        runs.append(f(s))",
                'claim("T", a)',
            ],
            {"live"},
        ),
        (['print(r := records.load("04", "cpu"))', 'claim("T", r.results)'], {"record"}),
        (
            [
                "def gain(m):\n    return r.results[m]",
                'r = records.load("04")',
                'claim("T", gain(1))',
            ],
            {"record"},
        ),
        (
            [
                'a, b = session.seeds(3), records.load("04")',
                'claim("T", b.results)',
            ],
            {"record"},
        ),
        (
            ['a, b = f(session.seeds(3)), records.load("04")', 'claim("T", a < b, {})'],
            {"live", "record"},
        ),
        (['a = session.seeds(3)\na = 1\nclaim("T", a)'], set()),
        (['for s in session.seeds(3):\n    a = f(s)\n    claim(f"T {s}", a)'], {"live"}),
    ],
)
def test_what_a_claim_rests_on_is_read_from_the_code(cells, place):
    flow = seeds.Flow()
    [*_, (pattern, origin)] = [stated for source in cells for stated in flow.cell(tree(source))]
    assert origin == place and pattern.startswith("T")


def test_every_claim_of_the_course_has_a_place():
    known = {}
    for chapter, path in notebooks.find([]):
        flow = seeds.Flow()
        trees = [notebooks.tree(cell) for cell in notebooks.code_cells(notebooks.read(path))]
        stated = [claim for tree in trees for claim in flow.cell(tree)]
        known[chapter.number] = {frozenset(origin) for _, origin in stated}
        assert stated
    assert json.dumps(sorted(known)) and frozenset({"record"}) in known["19"]
    assert frozenset({"live"}) in known["01"] and frozenset({"record"}) not in known["01"]
    assert sys.modules["mtl_course.dev.seeds"].largest([tree("session.seeds(7)")]) == 7
