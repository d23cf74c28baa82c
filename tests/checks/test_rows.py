"""The rows of a check: type, values, inputs unchanged, gradients, laws."""

import numpy as np
import pytest
import torch
from exercise_tools import ODD
from sample_exercises import SAMPLES, row, written

from mtl_course.checks import check, rows
from mtl_course.checks.exercise import Exercise

pytestmark = pytest.mark.usefixtures("course")


def test_type_shape_and_dtype():
    good = SAMPLES["weighted"].reference
    for change, words in (
        (lambda out: None, "return"),
        (lambda out: out.item(), "torch.Tensor"),
        (lambda out: out[None], "shape ()"),
        (lambda out: out.double(), "dtype"),
        (lambda out: out.detach().numpy(), "torch.Tensor"),
        (lambda out: out.to("meta"), "cpu"),
    ):
        result = check("weighted", lambda a, b, change=change: change(good(a, b)))
        assert result.state == "wrong" and words in row(result, "right type and shape").detail


def test_numpy_answers_have_no_gradient_or_device_row():
    result = check("centred", lambda x: x - np.mean(x, axis=0, keepdims=True))
    assert result.state == "solved" and [r.name for r in result.rows] == [
        "runs on fresh random inputs",
        "right type and shape",
        "right values",
        "leaves its inputs unchanged",
    ]
    assert "NumPy array" in repr(check("centred", lambda x: torch.tensor(x)))
    assert "float64" in repr(check("centred", lambda x: (x - x.mean(0)).astype(np.float32)))

    def in_place(x):
        x -= x.mean(axis=0)
        return x

    assert row(check("centred", in_place), "leaves its inputs unchanged").ok is False


def test_numbers_may_be_pythons_or_numpys():
    for answer in (
        lambda x: np.ptp(x),
        lambda x: x.max() - x.min(),
        lambda x: np.asarray(np.ptp(x)),
    ):
        assert check("spread", answer).state == "solved"
    for answer in (lambda x: x, lambda x: torch.tensor(np.ptp(x)), lambda x: "3", lambda x: True):
        assert row(check("spread", answer), "right type and shape").ok is False


def test_gradient_row():
    cut = check("weighted", lambda a, b: (torch.exp(-b) * a + b).sum().detach())
    assert "No gradient" in row(cut, "gradients flow").detail and cut.hint is None
    part = check("weighted", lambda a, b: (torch.exp(-b.detach()) * a + b).sum())
    assert "differs" in row(part, "gradients flow").detail and part.hint is None


def test_modules_are_compared_and_moved():
    result = check("Shared", written(SAMPLES["Shared"].solution, "Shared"))
    assert result.state == "solved" and row(result, "works on any device").ok
    stuck = SAMPLES["Shared"].solution.replace(
        "h = self.trunk(x)", "h = self.trunk(x) + torch.zeros(8)"
    )
    assert check("Shared", written(stuck, "Shared")).state == "wrong"


def test_an_exercise_that_changes_a_model_and_its_optimizer():
    assert check("one_step", written(SAMPLES["one_step"].solution, "one_step")).state == "solved"

    def forgets_the_step(model, optimizer, x):
        return model(x).square().mean().item()

    def changes_the_mode(model, optimizer, x):
        out = SAMPLES["one_step"].reference(model, optimizer, x)
        model.eval()
        return out

    for wrong in (forgets_the_step, changes_the_mode):
        result = check("one_step", wrong)
        assert result.state == "wrong" and row(result, "changes its inputs as asked").ok is False


@pytest.mark.parametrize("name", SAMPLES)
def test_stopping_at_a_fault_does_not_change_what_is_solved(name):
    own = SAMPLES[name]
    cases = rows.draw_cases(own, 0, 2)
    answers = [written(own.solution, name), written(own.stub, name), *ODD.values()]
    for answer in [*answers, *(wrong for wrong, _ in own.mistakes)]:
        whole = rows.examine(own, answer, cases)
        quick = rows.examine(own, answer, cases, stop_at_a_fault=True)
        assert (quick.state == "solved") == (whole.state == "solved"), answer
        if whole.state == "solved":
            assert quick.rows == whole.rows
        faults = [r for r in quick.rows if r.ok is False]
        assert bool(faults) == any(r.ok is False for r in whole.rows), answer


def test_stopping_at_a_fault_tries_nothing_after_it():
    tried = []
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs)
    own.law("is asked")(lambda answer, a, b: tried.append("law"))
    cases = rows.draw_cases(own, 0, 2)

    def wrong(a, b):
        tried.append("values")
        return a.sum() * 1.37

    rows.examine(own, wrong, cases, stop_at_a_fault=True)
    assert tried == ["values"]
    rows.examine(own, wrong, cases)
    assert tried == ["values"] * 3 + ["law"] * 2


def test_laws_that_fail_or_raise_are_rows():
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs)
    own.law("numpy false")(lambda answer, a, b: np.bool_(False))
    own.law("tensor true")(lambda answer, a, b: torch.tensor(True))
    own.law("says nothing")(lambda answer, a, b: None)
    own.law("raises")(lambda answer, a, b: 1 / 0)
    answer = written(SAMPLES["weighted"].solution, "weighted")
    found = {r.name: r.ok for r in rows.examine(own, answer, rows.draw_cases(own, 0, 1)).rows}
    assert (found["numpy false"], found["tensor true"], found["says nothing"], found["raises"]) == (
        False,
        True,
        True,
        False,
    )


@pytest.mark.parametrize(
    "does, told",
    [
        ("losses.requires_grad_()", "requires_grad"),
        ("losses.grad = torch.ones_like(losses)", ".grad"),
        ("losses.requires_grad_(); losses.sum().backward(); losses.requires_grad_(False)", ".grad"),
    ],
)
def test_what_hangs_on_the_very_inputs_is_seen(does, told):
    code = f"""
        def weighted(losses, log_vars):
            {does}
            return (torch.exp(-log_vars) * losses.detach() + log_vars).sum()
    """
    cases = rows.draw_cases(SAMPLES["weighted"], 0, 2)
    seen = rows.examine(SAMPLES["weighted"], written(code, "weighted"), cases)
    pure = next(r for r in seen.rows if r.name == "leaves its inputs unchanged")
    assert pure.ok is False and told in pure.detail


def test_a_hook_left_on_a_module_is_seen_and_what_the_reference_leaves_is_not():
    reference = SAMPLES["one_step"].reference

    def hooks(model, optimizer, x):
        model[0].register_forward_hook(lambda *args: None)
        return reference(model, optimizer, x)

    def cleans_up(model, optimizer, x):
        loss = reference(model, optimizer, x)
        optimizer.zero_grad()
        return loss

    result = check("one_step", hooks)
    assert "hook" in row(result, "leaves its inputs unchanged").detail
    assert check("one_step", cleans_up).state == "solved"
