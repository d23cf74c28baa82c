"""What an answer returned is taken apart in the words of the docstring, or refused in them."""

import numpy as np
import pytest
import torch

from mtl_course.exercises.outcomes import named, required, scalar


def test_the_parts_of_a_tuple_get_their_names():
    for result in ((1, 2), [1, 2]):
        assert named(result, "mean", "half") == {"mean": 1, "half": 2}


@pytest.mark.parametrize(
    "result, told",
    [
        (None, r"returned None. Did you forget `return`\?"),
        ((1,), r"Return \(mean, half\); yours is a tuple of 1"),
        (torch.ones(2), r"Return \(mean, half\); yours is a tensor"),
    ],
)
def test_what_is_no_such_tuple_is_refused_in_words(result, told):
    with pytest.raises(ValueError, match=told):
        named(result, "mean", "half")


@pytest.mark.parametrize(
    "value",
    [2.5, np.float32(2.5), np.array(2.5), torch.tensor(2.5), torch.tensor(2.5, requires_grad=True)],
)
def test_a_scalar_in_any_clothes(value):
    assert scalar(value, "mean") == 2.5


@pytest.mark.parametrize("value", [torch.ones(1), np.ones(2), "2.5", None])
def test_what_is_no_scalar_is_refused_by_name(value):
    with pytest.raises(ValueError, match="mean is to be a scalar; yours is"):
        scalar(value, "mean")


def test_nothing_returned():
    assert required(0) == 0
    with pytest.raises(ValueError, match="None"):
        required(None)
