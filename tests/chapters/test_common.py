"""What the experiments have in common, and the one signature of all of them."""

import inspect
import re
from functools import reduce
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import chapters
from mtl_course.dev import notebooks
from mtl_course.experiments import common
from mtl_course.networks.trunks import mlp


@pytest.mark.parametrize("number", sorted(chapters.CHAPTERS))
def test_every_experiment_is_run_in_the_same_way(number):
    """run(profile, seeds, report=print, *, plan=None) -> dict, and a plan for every profile."""
    experiment = import_module(f"mtl_course.experiments.ch{number}")
    run = inspect.signature(experiment.run, eval_str=True)
    kinds = {name: (p.kind, p.default) for name, p in run.parameters.items()}
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    nothing = inspect.Parameter.empty
    assert kinds == {
        "profile": (positional, nothing),
        "seeds": (positional, nothing),
        "report": (positional, print),
        "plan": (keyword, None),
    }
    assert list(kinds) == ["profile", "seeds", "report", "plan"] and run.return_annotation is dict
    assert set(experiment.PLANS) == {"cpu", "gpu"}
    assert len(inspect.getdoc(experiment.run).splitlines()[0]) <= 88


@pytest.mark.parametrize("number", sorted(chapters.CHAPTERS))
def test_a_notebook_names_the_code_of_its_tables_and_the_tests_that_hold_it(number):
    """Lines "Made by `file`, functions `a` and `b`. ...: `test file`, `test`.", all there.

    They stand below a table, as its note, or in italics in the text.
    """
    ((_, path),) = notebooks.find([number])
    told = []
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "markdown":
            told += re.findall(r"^\*?(Made by .*)", cell.source, re.M)
        else:
            shown = [o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            told += re.findall(r"Made by .*", "\n".join(" ".join(text.split()) for text in shown))
    found = [re.match(r"Made by `mtl_course/experiments/(\w+)\.py`, (.*)", text) for text in told]
    assert found and all(found), told
    lines = [match.groups() for match in found]
    for name, line in lines:
        made, _, held = line.partition(". ")
        functions = re.findall(r"`([\w.]+)`", made)
        functions = [function for function in functions if not function.endswith(".py")]
        module = import_module(f"mtl_course.experiments.{name}")
        for function in functions:
            own = reduce(getattr, function.split("."), module)
            assert callable(own) and (own.__module__ == module.__name__ or function == "train_runs")
        assert functions, line
        file = ""
        for quoted in re.findall(r"`([\w./]+)`", held):
            if quoted.endswith(".py"):
                name = quoted.removeprefix("tests/chapters/")
                file = (notebooks.ROOT / "tests" / "chapters" / name).read_text(encoding="utf-8")
            elif quoted.startswith("test_"):
                assert f"\ndef {quoted}(" in file, quoted


def test_a_seed_gives_one_network_and_leaves_the_callers_stream_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = common.seeded(lambda: nn.Linear(2, 3), 0)
    assert torch.equal(torch.rand(2), expected)
    again = common.seeded(lambda: nn.Linear(2, 3), 0)
    other = common.seeded(lambda: nn.Linear(2, 3), 1)
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)


def test_columns_are_measured_in_units_of_the_training_rows():
    like = torch.tensor([[0.0, 7.0], [2.0, 7.0]])  # means 1 and 7, deviations 1.414... and 0
    scaled = common.standardised(torch.tensor([[3.0, 7.0], [100.0, 8.0]]), like)
    torch.testing.assert_close(scaled[0], torch.tensor([2**0.5, 0.0]))
    clipped = common.standardised(torch.tensor([[3.0, 7.0], [100.0, 8.0]]), like, limit=5)
    assert clipped[1].tolist() == [5, 5] and torch.equal(clipped[0], scaled[0])


def test_many_networks_answer_as_each_alone():
    def build():
        return nn.Sequential(*mlp([4, 5]), nn.Linear(5, 3))

    parameters = common.stacked(build, [0, 1])
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 4, generator=g), torch.randint(3, (6,), generator=g)
    together = common.many_outputs(build())(parameters, x)
    right = common.right_answers(build(), parameters, x[0], y)
    for r in range(2):
        model = common.seeded(build, r)
        torch.testing.assert_close(together[r], model(x[r]).detach())
        assert torch.equal(right[r], model(x[0]).argmax(1) == y)
    assert not any(p.requires_grad for p in parameters.values()) and right.shape == (2, 6)


def test_the_best_constants_loss_and_the_share_explained():
    train = {"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([0, 0, 1, 0])}
    judged = {"a": torch.tensor([[2.0], [4.0]]), "b": torch.tensor([1, 0])}
    losses = common.constants(train, judged)
    expected = F.cross_entropy(torch.tensor([[0.75, 0.25]] * 2).log(), judged["b"])
    assert losses["a"] == 2.0 and losses["b"] == pytest.approx(float(expected))
    assert common.explained(losses, losses) == {"a": 0.0, "b": 0.0}
    assert common.explained({"a": 0.5}, losses) == {"a": 0.75}
    one_dimension = {name: y.flatten() for name, y in train.items()}
    flat = {name: y.flatten() for name, y in judged.items()}
    assert common.constants(one_dimension, flat) == losses


def trained(score):
    return common.TrainedNetwork(nn.Identity(), None, {"a": score, "b": score})


def test_the_best_trial_is_the_first_of_the_best_and_a_diverged_one_is_spent():
    def train(setting):
        if setting == "diverges":
            raise FloatingPointError("not finite")
        return trained({"low": 0.1, "high": 0.5, "as high": 0.5}[setting])

    best, chosen = common.best_on_validation(train, ["diverges", "low", "high", "as high"])
    assert chosen == "high" and best.score == 0.5
    with pytest.raises(FloatingPointError, match=r"diverged with all of \['diverges'\]"):
        common.best_on_validation(train, ["diverges"])


def test_networks_of_single_tasks_have_the_form_of_a_joint_one():
    searches = {
        "a": {"explained": {"a": 0.5}, "validation": 0.25, "chosen": 1, "metrics": {"a": 3.0}},
        "b": {"explained": {"b": 0.7}, "validation": 0.75, "chosen": 2, "metrics": {"b": 4.0}},
    }
    row = common.one_network_per_task(searches)
    assert row == {
        "explained": {"a": 0.5, "b": 0.7},
        "metrics": {"a": 3.0, "b": 4.0},
        "validation": 0.5,
        "chosen": {"a": 1, "b": 2},
    }
    assert common.one_line({"single": row}) == "single 0.600"
