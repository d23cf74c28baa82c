"""What the drawings of chapters 12, 17, 18 and 19 say is what the chapters compute."""

import math

import numpy as np
import pytest
import torch

from mtl_course.drawings import adapting, memory
from mtl_course.experiments.ch12_rates import DECAY, rate_table

NAMES = {"gradual unfreezing": "gradual", "full fine-tuning": "full"}


@pytest.mark.parametrize("method", adapting.rates())
def test_the_tables_are_those_of_chapter_12(method):
    drawn = torch.tensor(adapting.rates()[method], dtype=torch.float32)
    table = rate_table(NAMES.get(method, method), 1.0, adapting.STEPS, adapting.LAYERS)
    assert drawn.shape == table.shape
    assert torch.equal(drawn > 0, table > 0)
    if method != "LP-FT":  # whose probe has a rate of its own
        assert torch.allclose(drawn, table)
    assert adapting.DECAY == DECAY


def test_the_query_goes_to_the_nearest_mean():
    z = torch.tensor(adapting.SUPPORT, dtype=torch.float64)
    means = z.mean(1)
    drawn = [adapting.prototype_of(points) for points in adapting.SUPPORT]
    assert np.allclose(means, drawn)
    far = [math.dist(mean, adapting.QUERY) for mean in drawn]
    assert np.argmin(far) == 1, "the triangle, as the alt text says"
    assert sorted(far)[1] > 1.3 * min(far), "and it can be seen"
    assert "the shortest, solid, is to the triangle" in adapting.prototypes().desc


def test_the_springs_hold_as_equation_5_says():
    theta, fisher = np.array(memory.moves()), np.array(memory.FISHER)
    slope = (theta - memory.PULL) + 1.0 * fisher * theta
    assert np.abs(slope).max() < 1e-9
    assert (np.diff(fisher) < 0).all() and (np.diff(theta) > 0).all()
