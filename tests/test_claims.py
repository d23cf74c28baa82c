"""Claims: they print mean and spread, stop a strict run when they fail, and stay calm for a
learner.
"""

import numpy as np
import pytest
import torch

from mtl_course import claims
from mtl_course.claims import ClaimFailed, claim, summary


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_STRICT", "1")


@pytest.fixture
def calm(monkeypatch):
    monkeypatch.delenv("MTL_COURSE_STRICT", raising=False)


JOINT, SINGLE = [0.40, 0.42, 0.41], [0.30, 0.31, 0.35]


def test_a_claim_that_holds_prints_its_evidence(strict, capsys):
    claim(
        "Joint beats single",
        np.mean(JOINT) > np.mean(SINGLE),
        evidence={"joint": JOINT, "single": np.array(SINGLE), "tasks": 2},
    )
    assert (
        capsys.readouterr().out
        == "✓ holds: Joint beats single\n    joint: 0.410 ± 0.010 (3 seeds)\n    single: 0.320 ±"
        " 0.026 (3 seeds)\n    tasks: 2\n"
    )


def test_a_claim_that_fails_stops_a_strict_run(strict, capsys):
    with pytest.raises(
        ClaimFailed, match=r"(?s)does not hold: Single beats joint.*joint: 0.410 ± 0.010"
    ):
        claim("Single beats joint", np.mean(JOINT) < np.mean(SINGLE), evidence={"joint": JOINT})
    assert issubclass(ClaimFailed, AssertionError)
    assert capsys.readouterr().out == ""


def test_a_claim_that_fails_is_said_calmly_to_a_learner(calm, capsys):
    claim("Single beats joint", False, evidence={"joint": JOINT})
    said = capsys.readouterr()
    assert (
        said.out.startswith("✗ does not hold in this run: Single beats joint\n")
        and "fine if you changed a setting" in said.out
    )
    assert said.err == ""


@pytest.mark.parametrize("value, is_strict", [("1", True), ("0", False), ("", False)])
def test_strict_is_an_environment_variable(monkeypatch, value, is_strict):
    monkeypatch.setenv("MTL_COURSE_STRICT", value)
    assert claims.strict() is is_strict


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.5], np.ones(2), torch.ones(1), []])
def test_fewer_than_three_seeds_are_no_evidence(strict, values):
    with pytest.raises(ClaimFailed, match="at least 3 seeds, but 'joint' has .: Joint wins"):
        claim("Joint wins", True, evidence={"joint": values})


def test_fewer_than_three_seeds_are_said_calmly_to_a_learner(calm, capsys):
    claim("Joint wins", True, evidence={"joint": [0.4], "single": [0.1, 0.2, 0.3]})
    said = capsys.readouterr().out
    assert "joint: 0.4\n" in said and "single: 0.200 ± 0.100" in said
    assert "Fewer than 3 seeds are no evidence either way." in said


@pytest.mark.parametrize("holds", [np.bool_(True), torch.tensor(True), 1])
def test_anything_that_is_true_holds(strict, holds, capsys):
    claim("True", holds)
    assert capsys.readouterr().out == "✓ holds: True\n"


def test_one_verdict_a_seed_is_not_a_verdict(strict):
    with pytest.raises(ValueError):
        claim("Joint beats single", np.array(JOINT) > np.array(SINGLE))


@pytest.mark.parametrize(
    "values, text",
    [
        ([0.4134, 0.4245, 0.4351, 0.4240, 0.4231], "0.424 ± 0.008 (5 seeds)"),
        ([1e-7, 3e-7, 5e-7], "0.00000030 ± 0.00000020 (3 seeds)"),
        ([0.1, 0.102, 0.104], "0.102 ± 0.002 (3 seeds)"),
        ([0.1, 0.1003, 0.1006], "0.10030 ± 0.00030 (3 seeds)"),
        ([1234.0, 1300.0, 1290.5], "1274.833 ± 35.680 (3 seeds)"),
        ([2e-9, 2e-9, 2e-9], "2e-09 ± 0 (3 seeds)"),
        ([1.0, float("nan"), 2.0], "nan ± nan (3 seeds)"),
        (0.123456, "0.1235"),
        (7, "7"),
        (torch.tensor([1.0, 2.0, 3.0]), "2.000 ± 1.000 (3 seeds)"),
    ],
)
def test_summary(values, text):
    assert summary(values) == text
