"""Mixtures: shares by hand, batches in those shares, and what cannot be mixed."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch import nn

from mtl_course.data.batches import Separate
from mtl_course.multitask import HardSharing, Mixture, fit_tasks, mixture, passes, step, upgrad
from mtl_course.training import classification, fingerprint, regression

SIZES = {"rare": 16, "common": 10_000, "middling": 625}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sets(sizes):
    """Inputs and labels that tell their task and row: 1000 t + row."""
    rows = {name: 1000 * t + torch.arange(n) for t, (name, n) in enumerate(sizes.items())}
    return {name: (r[:, None].float(), r) for name, r in rows.items()}


# ------------------------------------------------------------------------------------------ shares
@pytest.mark.parametrize(
    ("temperature", "powers"),
    [
        (1, {"rare": 16, "common": 10_000, "middling": 625}),
        (2, {"rare": 4, "common": 100, "middling": 25}),
        (4, {"rare": 2, "common": 10, "middling": 5}),
        (0.5, {"rare": 256, "common": 10**8, "middling": 390_625}),
        (math.inf, {"rare": 1, "common": 1, "middling": 1}),
    ],
)
def test_shares_are_those_of_the_hand_computed_powers(temperature, powers):
    shares = mixture(SIZES, temperature)
    assert list(shares) == list(SIZES)
    for name, power in powers.items():
        assert shares[name] == pytest.approx(float(Fraction(power, sum(powers.values()))))


def test_extreme_sizes_and_temperatures_stay_finite():
    shares = mixture({"a": 10**12, "b": 1}, 0.01)
    assert shares == {"a": 1.0, "b": 0.0}
    assert mixture({"one": 7}, 3) == {"one": 1.0}
    assert math.fsum(mixture(SIZES, 1e9).values()) == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature is positive"):
        mixture(SIZES, temperature)


@pytest.mark.parametrize("size", [0, -3, math.nan, math.inf])
def test_a_set_without_rows_is_named(size):
    with pytest.raises(ValueError, match="'empty'"):
        mixture({"full": 3, "empty": size})
    with pytest.raises(ValueError, match="nothing to mix"):
        mixture({})


def test_passes_are_rows_drawn_over_rows_there():
    sizes = {"a": 60, "b": 20}
    assert passes(sizes, mixture(sizes), 240) == {"a": 3, "b": 3}
    assert passes(sizes, {"b": 0.25, "a": 0.75}, 240) == {"a": 3, "b": 3}
    assert passes(sizes, mixture(sizes, math.inf), 240) == {"a": 2, "b": 6}
    with pytest.raises(ValueError, match="each task needs one of both"):
        passes(sizes, {"a": 1.0}, 240)


# ----------------------------------------------------------------------------------------- batches
def drawn(rows, size, seed=0):
    return list(rows.batches(size, seeded(seed)))


@pytest.mark.parametrize("temperature", [1, 2, 5, math.inf])
def test_batches_are_of_one_task_each_and_in_the_shares(temperature):
    shares = mixture(SIZES, temperature)
    rows = Mixture(sets(SIZES), shares, rows=8 * 1000)
    batches = drawn(rows, 8)
    assert len(batches) == 1000 and all(len(b.targets) == 1 for b in batches)
    counts = Counter(name for b in batches for name in b.targets)
    for name, share in shares.items():
        assert abs(counts[name] - 1000 * share) < 1 + 0.01 * len(SIZES), name
    for batch in batches[:50]:
        ((name, (place, y)),) = batch.targets.items()
        assert len(batch.x) == 8 and torch.equal(batch.x[place][:, 0].long(), y)
        assert (y // 1000 == list(SIZES).index(name)).all() or name == "common"


def test_counts_by_hand():
    """One each, then 7 batches by what is owed: 10 * (0.7, 0.2, 0.1) - 1 = 6, 1, 0."""
    rows = Mixture(sets({"a": 5, "b": 5, "c": 5}), {"a": 7, "b": 2, "c": 1})
    assert rows.counts(10) == {"a": 7, "b": 2, "c": 1}
    assert rows.counts(3) == {"a": 1, "b": 1, "c": 1}
    assert Mixture(sets({"a": 5, "b": 5}), {"a": 1e9, "b": 1}).counts(100) == {"a": 99, "b": 1}
    for steps in range(3, 60):
        assert sum(rows.counts(steps).values()) == steps


def test_rows_of_a_task_come_in_whole_passes():
    rows = Mixture(sets({"a": 12, "b": 5}), {"a": 1, "b": 1}, rows=4 * 12)
    seen = Counter()
    for batch in drawn(rows, 4, 3):
        seen.update(batch.x[:, 0].long().tolist())
    assert {seen[row] for row in range(12)} == {2}  # 6 batches of 4 are two passes
    assert all(4 <= seen[1000 + row] <= 5 for row in range(5))  # 24 rows of 5


def test_the_order_is_random_and_the_generator_fixes_it():
    rows = Mixture(sets({"a": 40, "b": 40}), {"a": 1, "b": 1}, rows=400)
    first, again, other = (
        [(*b.targets, *b.x[:, 0].tolist()) for b in drawn(rows, 4, seed)] for seed in (1, 1, 2)
    )
    assert first == again and first != other
    names = [name for name, *_ in first]
    assert names != sorted(names) and len(first) == 100


def test_a_set_below_the_batch_is_taken_whole():
    rows = Mixture(sets({"a": 50, "b": 3}), {"a": 1, "b": 1}, rows=80)
    for batch in drawn(rows, 8):
        if "b" in batch.targets:
            assert sorted(batch.x[:, 0].tolist()) == [1000, 1001, 1002]
    assert rows.rows_of_step(8) == 3 and rows.rows_of_step(2) == 2
    assert Mixture(sets({"a": 50}), {"a": 1}).rows_of_step(8) == 8


def test_length_parts_and_whole():
    rows = Mixture(sets({"a": 50, "b": 3, "c": 7}), {"a": 2, "b": 1, "c": 1})
    assert len(rows) == 60 and len(rows.repeated(500)) == 500 and isinstance(rows, Separate)
    part = rows.only(["c", "a"])
    assert list(part.sets) == ["c", "a"] and part.shares["a"] == pytest.approx(2 / 3)
    assert len(part) == 57 and len(rows.repeated(500).only(["a"])) == 500
    assert len(rows.whole().x) == 60


def test_shares_belong_to_what_a_checkpoint_remembers():
    there = sets({"a": 50, "b": 3})
    one, same, other, longer = (
        fingerprint.of_data(Mixture(there, shares, rows))
        for shares, rows in (
            ({"a": 1, "b": 1}, None),
            ({"b": 2, "a": 2}, None),
            ({"a": 1, "b": 2}, None),
            ({"a": 1, "b": 1}, 99),
        )
    )
    assert one == same and one != other and one != longer


# --------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("share", [0, -1, math.nan, math.inf])
def test_a_share_that_cannot_be_drawn_is_named(share):
    with pytest.raises(ValueError, match="share of task 'b'"):
        Mixture(sets({"a": 5, "b": 5}), {"a": 1, "b": share})


def test_shares_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="each task needs one of both"):
        Mixture(sets({"a": 5, "b": 5}), {"a": 1})
    with pytest.raises(ValueError, match="each task needs one of both"):
        Mixture(sets({"a": 5}), {"a": 1, "b": 1})


def test_an_epoch_too_short_for_its_tasks_is_refused():
    rows = Mixture(sets({"a": 5, "b": 5, "c": 5}), {"a": 1, "b": 1, "c": 1})
    with pytest.raises(ValueError, match="2 batches cannot hold one of each of 3 tasks"):
        drawn(rows, 8)
    with pytest.raises(ValueError, match="0 rows"):
        Mixture(sets({"a": 5}), {"a": 1}, rows=0)


def test_a_batchnorm_gets_no_row_alone():
    rows = Mixture(sets({"a": 50, "b": 1}), {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="task 'b' has fewer than 2 rows"):
        list(rows.batches(8, seeded(), least=2))


# ------------------------------------------------------------------------------------ in fit_tasks
def opposed():
    """Two tasks whose labels contradict each other, and a trunk of one number."""
    x = torch.ones(64, 1)
    there = {"up": (x, torch.ones(64)), "down": (x, -torch.ones(64))}
    model = HardSharing(nn.Linear(1, 1, bias=False), {"up": nn.Flatten(0), "down": nn.Flatten(0)})
    nn.init.zeros_(model.trunk.weight)
    return there, {name: regression(name) for name in there}, model


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_training_lands_where_the_shares_say(share):
    """The squared errors' minimum under shares s and 1 - s is at 2 s - 1."""
    there, tasks, model = opposed()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    rows = Mixture(there, {"up": share, "down": 1 - share}, rows=8 * 1000)
    weights = []
    for batch in rows.batches(8, seeded()):
        step(model, tasks, batch, optimizer, lambda G: torch.ones(len(G)))
        weights.append(float(model.trunk.weight.detach()))
    assert sum(weights[-500:]) / 500 == pytest.approx(2 * share - 1, abs=0.1)


def fitted(combine):
    there, tasks, model = opposed()
    return fit_tasks(
        model,
        tasks,
        Mixture(there, {"up": 0.9, "down": 0.1}),
        Separate(there),
        torch.optim.SGD(model.parameters(), 0.01),
        combine,
        epochs=3,
        batch=8,
        progress=False,
    )


def test_any_method_of_balancing_takes_it_and_a_weighting_says_why_not():
    assert len(fitted(upgrad).train) == 3
    with pytest.raises(ValueError, match="No example of this batch has a label"):
        fitted(None)


def test_classes_and_a_rare_task_in_an_epoch_of_few_steps():
    """Every task is drawn in every epoch, so that each has a training loss."""
    g = seeded()
    x = torch.randn(90, 2, generator=g)
    there = {"many": (x[:80], (x[:80, 0] > 0).long()), "few": (x[80:], (x[80:, 1] > 0).long())}
    model = HardSharing(nn.Linear(2, 4), {"many": nn.Linear(4, 2), "few": nn.Linear(4, 2)})
    history = fit_tasks(
        model,
        {name: classification(name) for name in there},
        Mixture(there, mixture({"many": 80, "few": 10})),
        Separate(there),
        torch.optim.SGD(model.parameters(), 0.1),
        lambda G: torch.ones(len(G)),
        epochs=3,
        batch=20,
        progress=False,
    )
    assert len(history.train) == 3 and all(map(math.isfinite, history.train))
