"""What a card says is English, whatever the parts of a result are called."""

import re

import pytest
import torch

import mtl_course.exercises  # noqa: F401  registers all
from mtl_course.checks import differences
from mtl_course.checks.exercise import REGISTRY
from mtl_course.checks.report import points
from mtl_course.checks.rows import NOT_AS_EXPECTED, _below_the_part, _differs, draw_cases


def _spoilt(value):
    """A value of the same kind that differs."""
    if isinstance(value, torch.Tensor):
        return 2 * value + 1 if value.is_floating_point() else value.logical_not()
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}, not that"
    if isinstance(value, dict):
        return {key: _spoilt(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_spoilt(v) for v in value]
    return 2 * value + 1


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_part_of_a_result_is_called_in_quotes_by_name_or_by_number(name):
    exercise = REGISTRY[name]
    case = draw_cases(exercise, 0, 1)[0]
    want = case.want[0]
    if not isinstance(want, dict | list):
        assert not _differs(exercise, case, _spoilt(want), want, ()).startswith(NOT_AS_EXPECTED)
        return
    for step in want if isinstance(want, dict) else range(len(want)):
        if isinstance(want[step], dict | list) and not want[step]:
            continue
        got = dict(want) if isinstance(want, dict) else list(want)
        got[step] = _spoilt(want[step])
        told = _differs(exercise, case, got, want, exercise.parts).split("\n")[0]
        form = r'"[^"]+ [^"]+"|entry .+?|number \d+ of \d+|[a-z][A-Za-z_ ]*'
        assert re.match(rf"{NOT_AS_EXPECTED}: ({form})(, ({form}))*\.( |$)", told), told


def test_the_part_stands_before_what_its_values_have_in_common():
    detail = f'{NOT_AS_EXPECTED}: "its rate".\nfor x = 1'
    told = "It is larger by 2, everywhere.\n"
    assert _below_the_part(detail, told) == f"{detail[:28]}\n{told}for x = 1"
    assert _below_the_part("for x = 1", told) == f"{told}for x = 1"


@pytest.mark.parametrize(
    "got, want, part",
    [
        ({"not loaded": "a"}, {"not loaded": "none"}, '"not loaded"'),
        ({"head": 1}, {"head": 2}, "entry 'head'"),
        ({3: 1.0}, {3: 2.0}, "entry 3"),
    ],
)
def test_only_what_is_a_phrase_is_quoted(got, want, part):
    assert differences.first(got, want, 1e-4, 1e-5).part == part


@pytest.mark.parametrize(
    "score, worth, told",
    [
        (6 / 7, 3, "0.9"),
        (2.99, 3, "2.9"),
        (0.01, 2, "0.1"),
        (0, 2, "0"),
        (2, 2, "2"),
        (2.25, 2.5, "2.2"),
        (2.49, 2.5, "2.4"),
    ],
)
def test_a_score_has_one_decimal_and_only_all_is_all(score, worth, told):
    assert points(score, worth) == told
