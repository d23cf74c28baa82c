"""The exercise that the README of the exercises takes apart does what is said of it."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from exercise_tools import answer_from, survivors

import mtl_course.exercises
from mtl_course.checks import check, store
from mtl_course.checks.exercise import REGISTRY, Exercise

TEXT = (Path(mtl_course.exercises.__file__).parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
*MODULE, ANSWERS = BLOCKS


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The README's module, registered as that of chapter 99, and nothing else."""
    path = tmp_path / "ch99.py"
    path.write_text("\n\n".join(MODULE), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mtl_course.exercises.ch99", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(store, "record", lambda result: None)
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)
    with mock.patch.dict(REGISTRY, clear=True):
        spec.loader.exec_module(module)
        assert list(REGISTRY) == ["relative_loss"]
        yield REGISTRY["relative_loss"]


@pytest.mark.slow
def test_the_reference_passes_and_the_stub_is_not_started(example):
    answer = answer_from(example, example.solution)
    for seed in range(30):
        assert check(example.name, answer, seed=seed).state == "solved"
    assert check(example.name, answer_from(example, example.stub)).state == "blank"
    assert example.chapter == "99"


@pytest.mark.slow
def test_every_mistake_gets_its_own_hint(example):
    assert len(example.mistakes) == 4
    for wrong, hint in example.mistakes:
        for seed in range(10):
            result = check(example.name, wrong, seed=seed)
            assert result.state == "wrong" and result.hint == hint, result


def test_its_answers_are_right_and_no_mutant_passes(example):
    scope = {}
    exec(ANSWERS, scope)
    for source in scope["RIGHT"][example.name]:
        for seed in range(5):
            result = check(example.name, answer_from(example, source), seed=seed)
            assert result.state == "solved", result
    alive, made = survivors(example)
    assert alive == list(scope["EQUIVALENT"].get(example.name, {})) and made >= 5


def test_it_names_every_option():
    parts = {"name", "reference", "inputs", "mistakes", "laws"}
    options = {field.name for field in dataclasses.fields(Exercise)} - parts
    missing = {o for o in options if not re.search(rf"`{o}[`=]", TEXT)}
    assert not missing, missing


def test_what_learners_see_of_it_is_narrow():
    seen = TEXT[TEXT.index("def relative_loss") : TEXT.index("### END SOLUTION")]
    assert max(map(len, seen.split("\n"))) <= 72
    assert max(len(line) for block in BLOCKS for line in block.split("\n")) <= 100
