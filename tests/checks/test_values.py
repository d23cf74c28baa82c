"""Nested values: compared, copied, put into words."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mtl_course.checks import values

pytestmark = pytest.mark.usefixtures("course")


@pytest.mark.parametrize(
    "got,want,fine",
    [
        ([1, 2], (1, 2), True),
        ([1], (1, 2), False),
        ({"a": 1}, {"a": 1}, True),
        ({"b": 1}, {"a": 1}, False),
        ([1], {"a": 1}, False),
        (1, 1.0, True),
        (1.0, 1, False),
        (True, 1, False),
        (np.int32(3), 3, True),
        (1j, 1.0, False),
        (2.0, 1j, True),
        ("a", "b", True),
        (1, "b", False),
        (None, None, True),
        (1, None, False),
        (np.arange(3, dtype=np.int32), np.arange(3), True),
        (np.arange(3.0), np.arange(3), False),
    ],
)
def test_problem_of_types(got, want, fine):
    assert (values.problem(got, want) is None) == fine


def test_same_of_values():
    nan = float("nan")
    assert values.same(torch.tensor([1.0, nan]), torch.tensor([1.0, nan]), 1e-4, 1e-5)
    assert values.same({"a": [1.0, "x"]}, {"a": [1.00001, "x"]}, 1e-4, 1e-5)
    assert not values.same("x", "y", 1e-4, 1e-5)
    assert not values.same(True, False, 1, 1) and not values.same(2, 3, 1, 1)
    assert not values.same(torch.tensor([1, 2]), torch.tensor([1, 3]), 1, 1)
    assert not values.same(object(), 3, 1, 1)
    assert values.same({1, 2}, {2, 1}, 0, 0) and not values.same({1}, {2}, 0, 0)


NUMBERS = [0.0, -0.0, 1e-6, 1.0, 1.00009, 1.0002, -1.0, 1e300, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("got", NUMBERS)
def test_floats_are_compared_as_numpy_does(got):
    for want in NUMBERS:
        expected = np.allclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert values.same(got, want, 1e-4, 1e-5) == expected, want


def test_brief_is_short_and_runs_no_foreign_code():
    class Loud:
        def __repr__(self):
            raise RuntimeError

    assert values.brief(torch.tensor([[1.0, 2.5], [3, 4]])) == "[[1, 2.5], [3, 4]] (shape (2, 2))"
    assert values.brief(torch.zeros(100)) == "[0, 0, 0, 0, 0, 0, …] (shape (100,))"
    assert values.brief([Loud(), 0.123456, True, np.float64(2)]) == "[a Loud, 0.1235, True, 2]"
    assert len(values.brief(list(range(1000)))) < 60
    assert "26 parameters" in values.brief(nn.Linear(12, 2))


def test_snapshot_is_cut_off_from_later_changes():
    inside = {"t": torch.zeros(2), "a": [np.zeros(2)], "m": nn.Linear(1, 1)}
    copy = values.snapshot(inside)
    inside["t"] += 1
    inside["a"][0] += 1
    nn.init.constant_(inside["m"].weight, 7)
    inside["m"].eval()
    assert copy["t"].sum() == 0 and copy["a"][0].sum() == 0
    assert not values.alike(values.snapshot(inside["m"]), copy["m"], 0, 0)
