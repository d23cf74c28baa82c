"""Streams of tasks: labels and competing classes, learning one after another, the scores."""

import copy

import pytest
import torch
from stream_tools import SGD, clusters, network, stream

from mtl_course import streams
from mtl_course.streams.memories import Distillation, Ewc, Replay


# ------------------------------------------------------------------------------------------- stream
def test_tasks_have_the_classes_of_the_order_renumbered():
    (x, y), tasks = clusters(), stream()
    assert len(tasks) == 3 and tasks.classes_per_task == 2
    for t, (inputs, labels) in enumerate(tasks.train):
        assert labels.unique().tolist() == [2 * t, 2 * t + 1]
        for label, old in zip((2 * t, 2 * t + 1), ((3, 1), (5, 0), (2, 4))[t], strict=True):
            assert torch.equal(inputs[labels == label], x[y == old])


@pytest.mark.parametrize("order", [(0, 1, 1, 2), (0, 1, 2), (0, 1, 2, 7)])
def test_an_order_that_cannot_be_is_refused(order):
    with pytest.raises(ValueError, match="order"):
        stream(order=order)


def test_classes_left_out_of_the_order_are_left_out():
    tasks = stream(order=(4, 2))
    assert len(tasks) == 1 and len(tasks.train[0][1]) == 60


def test_who_competes():
    logits, y = torch.zeros(3, 6), torch.tensor([0, 3, 5])
    told = stream(True).compete(logits, y, 1).isfinite()
    assert told.tolist() == [
        [True, True] + 4 * [False],
        [False, False, True, True, False, False],
        4 * [False] + [True, True],
    ]
    untold = stream(False).compete(logits, y, 1).isfinite()
    assert untold.tolist() == 3 * [[True] * 4 + [False] * 2]
    assert stream(True).classes(1) == slice(2, 4) and stream(False).classes(1) == slice(0, 4)


# ----------------------------------------------------------------------------------------- learning
def test_learning_one_task_after_another_forgets_and_replay_of_everything_does_not():
    tasks = stream(False)
    plain, held = (
        streams.learn(network(), tasks, SGD, kept, epochs=10)
        for kept in ([], [Replay(tasks, 1000)])
    )
    assert plain.diagonal().min() > 0.9 and plain[-1, 0] < 0.2 and (plain.triu(1) == 0).all()
    assert streams.average_accuracy(held) > 0.9
    assert streams.learn_jointly(network(), stream(False), SGD, epochs=10).min() > 0.9


def test_a_zero_strength_and_no_memory_are_fine_tuning_bit_for_bit():
    tasks = stream(True)
    rows = []
    models = []
    for kept in ([], [Ewc(0.0)], [Distillation(tasks, 0.0)]):
        m = network()
        rows.append(streams.learn(m, tasks, SGD, kept))
        models.append(m)
    assert all(torch.equal(rows[0], row) for row in rows)
    for other in models[1:]:
        for a, b in zip(models[0].parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_run_repeats_with_its_seed_and_not_with_another():
    a, b, c = (network() for _ in range(3))
    for model, seed in ((a, 0), (b, 0), (c, 1)):
        streams.learn(model, stream(), SGD, seed=seed)
    assert torch.equal(a.head.weight, b.head.weight) and not torch.equal(
        a.head.weight, c.head.weight
    )


def test_a_penalty_that_blows_up_is_said():
    message = r"loss of task 1 is not finite at step (\d+) with a learning rate of 0\.1: .*strength"
    with pytest.raises(FloatingPointError, match=message):
        streams.learn(network(), stream(), SGD, [Ewc(1e6)])


def test_augmentation_reaches_the_tasks_own_examples():
    seen = []

    def augment(x, generator):
        seen.append(x.shape)
        return x + 0 * torch.rand((), generator=generator)

    streams.learn(network(), stream(), SGD, epochs=1, augment=augment)
    assert len(seen) == 3 * 2


def test_one_task_alone_has_labels_from_zero():
    alone = streams.single_task(stream(), 2)
    assert len(alone) == 1 and alone.train[0][1].unique().tolist() == [0, 1] and alone.task_known
    A = streams.learn(network(), alone, SGD, epochs=10)
    assert A.shape == (1, 1) and float(A) > 0.9


def test_memories_can_be_combined():
    tasks, model = stream(False), network()
    kept = [Replay(tasks, 5), Ewc(1.0), Distillation(tasks, 1.0)]
    before = copy.deepcopy(model)
    streams.learn(model, tasks, SGD, kept, epochs=1)
    assert all(memory.numbers > 0 for memory in kept) and not torch.equal(
        before.head.weight, model.head.weight
    )


# ------------------------------------------------------------------------------------------- scores
def test_scores_by_hand():
    A = torch.tensor([[0.9, 0.5, 0.4], [0.95, 0.8, 0.6], [0.7, 0.75, 1.0]], dtype=torch.float64)
    assert streams.average_accuracy(A) == pytest.approx(2.45 / 3)
    assert streams.backward_transfer(A) == pytest.approx(((0.7 - 0.9) + (0.75 - 0.8)) / 2)
    assert streams.forgetting(A) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.75)) / 2)
    untrained = torch.tensor([0.1, 0.45, 0.5], dtype=torch.float64)
    assert streams.forward_transfer(A, untrained) == pytest.approx(((0.5 - 0.45) + (0.6 - 0.5)) / 2)


def test_forgetting_is_at_least_minus_backward_transfer():
    for seed in range(20):
        A = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed))
        assert streams.forgetting(A) >= -streams.backward_transfer(A) - 1e-6
