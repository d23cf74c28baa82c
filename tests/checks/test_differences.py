"""Where two values differ, in words."""

import numpy as np
import pytest
import torch

from mtl_course.checks import differences

CLOSE = 1e-4, 1e-5
EYE = np.eye(3)


@pytest.mark.parametrize(
    "got, want, part",
    [
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}, "entry 'b'"),
        ({"its head": [1, 2]}, {"its head": [1, 3]}, '"its head", number 2 of 2'),
        ([1.0, 2.0], [1.0, 3.0], "the slope"),
        (1.0, 2.0, ""),
    ],
)
def test_the_first_part_that_differs_is_named(got, want, part):
    found = differences.first(got, want, *CLOSE, names=("the target", "the slope"))
    assert found.part == part
    assert differences.at(want, found.path) == found.want != found.got


@pytest.mark.parametrize(
    "got, told",
    [
        (EYE + np.diag([0, 1, 0]), "in row 1 only|on the diagonal only"),
        (EYE + np.triu(np.ones((3, 3)), 1), "above the diagonal only"),
        (EYE + [[0], [1], [0]], "in row 1 only"),
        (EYE + [0, 0, 1], "in column 2 only"),
        (EYE + [[1, 0, 0], [0, 0, 1], [0, 0, 0]], "Entries .0, 0., .1, 2. differ"),
        (EYE + 1, "^$"),
    ],
)
def test_the_entries_that_differ_are_named(got, told):
    said = differences.entries(torch.tensor(got), torch.tensor(EYE), *CLOSE)
    assert (
        said == ""
        if told == "^$"
        else any(part in said for part in told.split("|"))
        or ("Entries [0, 0], [1, 2] differ" in said)
    )


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda x, n: -x, "The sign is turned everywhere."),
        (lambda x, n: 0.5 * x, "0.5 times what is expected"),
        (lambda x, n: 1.0004 * x, "Only later digits differ, by at most 0.000"),
        (lambda x, n: x + 2, "larger by 2, everywhere"),
        (lambda x, n: x / n, "What is expected, divided by `n`."),
        (lambda x, n: x if n != 4 else x + 1, ""),
        (lambda x, n: x.flip(0), "in another order"),
        (lambda x, n: x * torch.nan, "NaN"),
    ],
)
def test_what_the_differences_have_in_common_is_told(change, told):
    g = torch.Generator().manual_seed(0)
    inputs = [{"n": n} for n in (3, 4, 5)]
    wants = [torch.randn(4, generator=g) for _ in inputs]
    pairs = [(change(want, given["n"]), want) for want, given in zip(wants, inputs, strict=True)]
    said = differences.pattern(pairs, inputs, *CLOSE)
    assert told in said and bool(told) == bool(said)


def test_the_inputs_on_which_an_answer_is_wrong_are_told():
    pairs, inputs = [(1.0, 1.0), (1.0, 2.0), (3.0, 3.0)], [{"lam": v} for v in (0.5, 0.0, 2.0)]
    assert differences.pattern(pairs, inputs, *CLOSE) == (
        "Of these inputs, it is wrong where `lam` is 0, else right."
    )
