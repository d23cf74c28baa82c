"""Metrics against scikit-learn, and the relative gain against a sum by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mtl_course.training import tasks


@pytest.fixture(params=range(5))
def generator(request):
    return torch.Generator().manual_seed(request.param)


def test_accuracy_equals_scikit_learns(generator):
    logits, target = (
        torch.randn(50, 4, generator=generator),
        torch.randint(4, (50,), generator=generator),
    )
    assert tasks.accuracy(logits, target).item() == pytest.approx(
        metrics.accuracy_score(target, logits.argmax(1)), abs=1e-6
    )


@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_regression_metrics_equal_scikit_learns(generator, shape):
    target = torch.randn(shape, generator=generator, dtype=torch.float64)
    prediction = target + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    assert tasks.r2(prediction, target).item() == pytest.approx(
        metrics.r2_score(target, prediction), abs=1e-12
    )
    assert tasks.rmse(prediction, target).item() == pytest.approx(
        metrics.root_mean_squared_error(target, prediction), abs=1e-12
    )


def test_r2_has_its_landmarks():
    target = torch.tensor([1.0, 2.0, 6.0])
    assert tasks.r2(target, target) == 1
    assert tasks.r2(target.mean().expand(3), target).item() == pytest.approx(0, abs=1e-6)
    assert tasks.r2(-target, target) < 0


@pytest.mark.parametrize("metric", [tasks.r2, tasks.rmse])
def test_shapes_that_would_broadcast_are_refused(metric):
    with pytest.raises(ValueError, match=r"prediction has shape \(5, 1\) but target has \(5,\)"):
        metric(torch.zeros(5, 1), torch.zeros(5))


def test_targets_of_another_shape_are_refused_by_accuracy():
    with pytest.raises(ValueError, match=r"target has \(5, 1\)"):
        tasks.accuracy(torch.zeros(5, 3), torch.zeros(5, 1, dtype=torch.int64))


def test_tasks_hold_the_usual_losses():
    y = torch.tensor([0.0, 2.0])
    task = tasks.regression("height")
    assert task.name == "height" and task.higher_is_better
    assert task.loss(torch.ones(2), y) == 1 and task.metric is tasks.r2
    task = tasks.classification("digit")
    assert task.loss(torch.zeros(3, 10), torch.tensor([1, 2, 3])).item() == pytest.approx(
        np.log(10), rel=1e-6
    )
    assert task.metric is tasks.accuracy and task.higher_is_better


@pytest.mark.parametrize(
    "rows, make", [(3, tasks.classification), (1, tasks.classification), (3, tasks.regression)]
)
def test_batches_of_different_sizes_are_refused_with_the_name(rows, make):
    task = make("digit")
    output, target = (
        torch.zeros(4, 10),
        torch.zeros(rows, 10) if make is tasks.regression else torch.zeros(rows, dtype=torch.int64),
    )
    with pytest.raises(ValueError, match=rf"'digit': .*\(4, 10\).*\({rows},"):
        task.loss(output, target)


def test_delta_m_by_hand():
    single, multi = {"a": 0.8, "b": 2.0}, {"a": 0.9, "b": 2.5}
    up = {"a": True, "b": False}
    # accuracy a gains 12.5 %, error b grows by 25 %
    assert tasks.delta_m(multi, single, up) == pytest.approx((12.5 - 25.0) / 2)
    assert tasks.delta_m(single, single, up) == 0


def test_delta_m_of_a_negative_base_still_points_up():
    assert tasks.delta_m({"a": -0.1}, {"a": -0.2}, {"a": True}) == pytest.approx(50)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.1, 10), st.floats(0.1, 10), st.booleans()), min_size=1, max_size=5
    ),
    st.floats(0.01, 100),
)
def test_delta_m_does_not_depend_on_units(rows, unit):
    multi, single, up = ({str(i): row[k] for i, row in enumerate(rows)} for k in range(3))
    scaled = tasks.delta_m(
        {n: unit * v for n, v in multi.items()}, {n: unit * v for n, v in single.items()}, up
    )
    assert scaled == pytest.approx(tasks.delta_m(multi, single, up), rel=1e-6, abs=1e-6)


def test_delta_m_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match="single-task metric of 'a' is 0"):
        tasks.delta_m({"a": 1.0}, {"a": 0.0}, {"a": True})
    with pytest.raises(ValueError, match="The tasks differ"):
        tasks.delta_m({"a": 1.0}, {"b": 1.0}, {"a": True})
    with pytest.raises(ValueError, match="The tasks differ"):
        tasks.delta_m({"a": 1.0}, {"a": 1.0}, {})
