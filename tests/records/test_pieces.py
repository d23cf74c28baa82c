"""Experiments that keep their finished pieces give the same record in two tries as in one."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from mtl_course.experiments import ch04, ch05, ch18, ch19
from mtl_course.records import pieces, to_json


def few_shot(seeds, monkeypatch):
    monkeypatch.setattr(ch18, "fastest", lambda: torch.device("cpu"))
    monkeypatch.setattr(ch18, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(ch18, "TUNE", ((2, 0.1),))
    monkeypatch.setattr(ch18, "ADAPT", ((1, 0.4),))
    plan = replace(ch18.CPU, steps=2, every=1, judged=4, tried=2, width=4, sets=("glyphs",))
    plan = replace(plan, elsewhere={}, methods={"glyphs": ("ProtoNet", "Baseline")})
    return ch18.run("cpu", seeds, plan=plan, report=lambda line: None)


def streams(seeds, monkeypatch):
    plan = replace(
        ch19.CPU,
        sizes=(10, 5, 5),
        epochs=1,
        buffers=(4,),
        samples=5,
        tuning=2,
        rates=(0.01, 0.1),
        ewc=((0.1, 10.0),),
        distillation=((0.1, 1.0),),
    )
    return ch19.run("cpu", seeds, plan=[plan], report=lambda line: None)


def sharing(seeds, monkeypatch):
    monkeypatch.setattr(
        ch04,
        "compare",
        lambda name, seed, plan, device: {
            method: {
                "score": seed + torch.tensor(0.1),
                "rates": (0.1, 0.2),
                "explained": {"a": 0.5},
            }
            for method in ch04.SETS[name]
        },
    )
    return ch04.run("cpu", seeds, report=lambda line: None)


def losses(seeds, monkeypatch):
    row = {"score": torch.tensor(0.1), "explained": {"hours": 0.5}, "trials": [(1, 2)]}
    monkeypatch.setattr(ch05, "search", lambda method, seed, unit, plan, device: row)
    monkeypatch.setattr(ch05, "single", lambda seed, plan, device: row | {"seed": seed})
    return ch05.run("cpu", seeds, report=lambda line: None)


@pytest.mark.parametrize("run", [few_shot, streams, sharing, losses])
def test_a_record_in_two_tries_equals_one_at_once(run, tmp_path, monkeypatch):
    whole = to_json(run([0, 1], monkeypatch))
    folder = tmp_path / "code"
    with pieces.keeping(folder):
        run([0], monkeypatch)
        first = {path.name for path in folder.iterdir()}
        again = run([0, 1], monkeypatch)
    added = {path.name for path in folder.iterdir()} - first
    assert first and added and not any("seed_0" in name for name in added)
    assert to_json(again) == to_json(json.loads(whole))
    with pieces.keeping(folder):
        monkeypatch.setattr(pieces, "to_json", None)  # nothing is computed again
        assert to_json(run([0, 1], monkeypatch)) == to_json(again)
    shutil.rmtree(folder)


def test_pieces_tell_the_clock_and_the_cpu_apart(tmp_path, monkeypatch):
    told = iter([(10.0, 1.0), (15.0, 3.0)])
    monkeypatch.setattr(pieces, "clocks", lambda: next(told))
    with pieces.keeping(tmp_path):
        pieces.kept("waits", lambda: 1)
    assert pieces.spent(tmp_path) == (5, 2)
    (tmp_path / "older.json").write_text('{"key": "older", "seconds": 20.0, "result": 1}')
    assert pieces.spent(tmp_path) == (25, 22)
