"""Chapter 21: its experiment at tiny size, the record, and what the chapter derives."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_tools import load_or_skip
from torch import nn
from torch.nn import functional as F

from mtl_course import records, training
from mtl_course.dev import notebooks
from mtl_course.exercises import ch21 as exercises
from mtl_course.experiments import ch21
from mtl_course.transfer import logistic_near

TINY = replace(
    ch21.PLANS["cpu"],
    patients=300,
    labels=(20,),
    strengths=(1.0, 100.0),
    folds=2,
    hidden=4,
    epochs=2,
    few_epochs=2,
    net_folds=2,
    weights=(0.3, 1.0),
    few=40,
)


def cell(name):
    """The function of the cell of the chapter that defines it."""
    ((_, path),) = notebooks.find(["21"])
    (source,) = (
        c.source
        for c in notebooks.read(path).cells
        if c.cell_type == "code"
        and f"def {name}(" in c.source
        and not c.source.startswith("# EXERCISE")
    )
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space = {"torch": torch, "nn": nn, "F": F}
    exec(compile(tree, "notebook", "exec"), space)
    return space[name]


def rows(n=60, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = (x[:, 0] + 0.8 * torch.randn(n, generator=g, dtype=torch.float64) > 0).double()
    return x, y, 0.3 * torch.randn(d, generator=g, dtype=torch.float64)


# ---------------------------------------------------------------------- what the chapter derives
def test_equation_2_is_the_packages_loss():
    g = torch.Generator().manual_seed(0)
    logits, time, died, days = exercises._followed("ties")(g)
    labels = training.died_by(time, died, days.tolist())
    torch.testing.assert_close(
        exercises.horizon_losses.reference(logits, time, died, days),
        training.known_losses(logits, labels),
    )


@pytest.mark.parametrize("strength", [0.3, 10.0, 1e4])
def test_newton_in_the_notebook_is_the_packages(strength):
    x, y, centre = rows(200)
    ours, theirs = cell("near")(x, y, strength, centre), logistic_near(x, y, strength, centre)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_the_loop_in_plain_sight_is_train():
    x, y, _ = rows(300)
    labels = torch.stack([y, torch.where(torch.arange(300) < 40, 1 - y, torch.nan)], dim=1).float()
    model = cell("train_heads")(x.float(), labels, torch.tensor([1.0, 0.3]), 3, 7)
    plan = ch21.PLANS["cpu"]
    other = ch21.fresh(plan, x, 2, 7)
    said = ch21.train(plan, other, x, labels, [1.0, 0.3], 7, x, 3)
    torch.testing.assert_close(said[-1], model(x.float()).double().detach())


def test_equation_4_by_hand_and_by_simulation():
    by_hand = (4 * 0.9 + 12 * 0.5) / 16
    assert by_hand == pytest.approx(0.6)
    gap, n, rng = 0.3, 20, np.random.default_rng(0)
    mean = gap + rng.normal(size=200_000) / np.sqrt(n)  # the source says 0, sigma is 1
    strength = 1 / gap**2
    near = n * mean / (n + strength)
    assert np.mean((near - gap) ** 2) == pytest.approx(1 / (1 / gap**2 + n), rel=0.02)


def test_equation_5_is_the_packages():
    p = torch.linspace(0, 1, 11).double()
    torch.testing.assert_close(
        exercises.moved_chances.reference(p, 0.2, 0.6), training.move_base_rate(p, 0.2, 0.6)
    )
    assert float(training.move_base_rate(torch.tensor(0.2), 0.2, 0.5)) == pytest.approx(0.5)


def test_equation_6_is_the_packages():
    chances, labels, cuts = exercises._decided("ties")(torch.Generator().manual_seed(1))
    model, everyone = exercises.decision_curve.reference(chances, labels, cuts)
    torch.testing.assert_close(model, training.net_benefit(chances, labels, cuts.tolist()))
    torch.testing.assert_close(
        everyone, training.net_benefit(torch.ones_like(chances), labels, cuts.tolist())
    )


# --------------------------------------------------------------------------------- the experiment
def test_no_input_was_known_later_than_day_3():
    load_or_skip("support2")
    s = ch21.split(TINY, 0)
    assert s.x.shape == (9105, len(s.names)) and s.x.isfinite().all()
    words = " ".join(s.names)
    for late in (
        "order",
        "care",
        "slos",
        "hospdead",
        "totcst",
        "surv2m",
        "prg2m",
        "income",
        "race",
    ):
        assert late not in words
    assert not set(s.train.tolist()) & set(s.test.tolist())
    assert len(s.train) + len(s.test) == 9105


def test_the_test_patients_change_no_training_row():
    load_or_skip("support2")
    train = np.random.default_rng(0).permutation(9105)[:300]
    others = np.setdiff1d(np.arange(9105), train)
    first, _ = ch21.columns(train)
    ds, whole = ch21.patients(), ch21.patients
    other = {name: np.array(ds[name]) for name in ds}
    other["numbers"] = other["numbers"].copy()
    other["numbers"][others] *= 3
    try:
        ch21.patients = lambda: other
        second, _ = ch21.columns(train)
    finally:
        ch21.patients = whole
    for name in first:
        if "not measured" not in name:
            np.testing.assert_array_equal(first[name][train], second[name][train], err_msg=name)


def test_folds_have_yeses_of_about_equal_number():
    labels = torch.tensor([1.0] * 7 + [0.0] * 13)
    fold = ch21.folds(labels, 5)
    assert {int((labels[fold == f]).sum()) for f in range(5)} == {1, 2}
    assert torch.bincount(fold).tolist() == [5, 5, 4, 3, 3]


def test_late_labels_that_are_not_shown_change_nothing():
    load_or_skip("support2")
    s = ch21.split(TINY, 1)
    labelled = ch21.known(s.train, s.late)[:20]
    hidden = torch.ones(len(s.late), dtype=torch.bool)
    hidden[labelled], hidden[s.test] = False, False
    other = replace(s, late=torch.where(hidden, 1 - s.late, s.late))
    assert ch21.two_heads(TINY, s, labelled, 0) == ch21.two_heads(TINY, other, labelled, 0)


def test_the_experiment_is_plain_json_and_a_seed_fixes_it():
    load_or_skip("support2")
    told = []
    results = ch21.run("cpu", [5], told.append, plan=TINY)
    assert len(told) == 1 and json.loads(json.dumps(results)) == results
    again = ch21.run("cpu", [5], told.append, plan=TINY)
    assert again == results
    [seed] = results["seeds"]
    assert set(seed["surrogate"]["labels"]["20"]) == {
        ch21.ALONE, ch21.NEAR, ch21.JOINT, ch21.NET_ALONE, ch21.TUNED,
    }  # fmt: skip
    assert ch21.few_labels([seed], ch21.NEAR).shape == (1, 1)
    assert ch21.few_labels([seed], ch21.NEAR, "later").shape == (1, 1)


# -------------------------------------------------------------------------------------- the record
@pytest.mark.slow
def test_one_seed_of_the_record_is_within_its_spread():
    """Regressions, chances and the leak of seed 0 are those of the record; networks are not run."""
    load_or_skip("support2")
    kept = records.load("21", "cpu").results["seeds"][0]
    plan = ch21.PLANS["cpu"]
    fresh = ch21.surrogate(plan, 0, networks=False)
    assert fresh["fixed"] == pytest.approx(kept["surrogate"]["fixed"], abs=1e-3)
    for n, ways in fresh["labels"].items():
        for way, row in ways.items():
            there = kept["surrogate"]["labels"][n][way]
            assert row["auc"] == pytest.approx(there["auc"], abs=5e-3), (n, way)
    assert ch21.leak(plan, 0) == pytest.approx(kept["leak"], abs=1e-3)
    worth = ch21.worth(plan, 0)
    assert worth["share"] == pytest.approx(kept["worth"]["share"])
    for way, row in worth["ways"].items():
        assert row["mean"] == pytest.approx(kept["worth"]["ways"][way]["mean"], abs=5e-3)
