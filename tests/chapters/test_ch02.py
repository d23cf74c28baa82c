"""Chapter 2: its experiment at tiny size, and right answers to its exercises, which
`test_exercises` runs.
"""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course import data, transfer
from mtl_course.dev import notebooks
from mtl_course.experiments import ch02

TINY = replace(
    ch02.CPU,
    features=16,
    source_steps=20,
    shots=(1, 2),
    kind_shots=2,
    stops=(2, 4),
    held_out=(50, 60),
)


@pytest.fixture
def small(monkeypatch):
    """Small sets in the place of every data set, of the shapes that each of them has."""

    class Set(dict):
        pass

    def load(name):
        rng = np.random.RandomState(len(name))
        side, colour = {
            "mnist_5k": (28, ()),
            "mnist": (28, ()),
            "digits": (8, ()),
            "usps": (16, ()),
            "svhn": (32, (3,)),
        }[name]
        x = rng.randint(0, 256, (200, side, side, *colour)).astype(np.uint8)
        y = np.arange(200) % 10
        return (
            Set(x=x, y=y)
            if name in ("mnist_5k", "digits")
            else Set(x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
        )

    monkeypatch.setattr("mtl_course.data.door.load", load)


def test_run_gives_plain_json_with_one_value_a_seed(small):
    lines = []
    results = json.loads(json.dumps(ch02.run("cpu", [0, 1, 2], lines.append, plan=TINY)))
    part = results["targets"]["digits"]
    assert (
        results["shots"] == [1, 2]
        and set(part["curves"]) == {"1", "2"}
        and set(part["kinds"]) == {*ch02.KINDS, "none"}
    )
    for methods in part["curves"].values():
        assert set(methods) == {m.name for m in ch02.METHODS}
        for found in methods.values():
            assert len(found["accuracy"]) == len(found["own"]) == len(found["validation"]) == 3
            assert (
                all(0 <= a <= 1 for a in found["accuracy"])
                and found["setting"]["steps"] in TINY.stops
            )
    assert len(part["unchanged"]) == 3 and all(0 <= a <= 1 for a in part["unchanged"])
    assert len(lines) == 4 and lines[1].startswith("  1 labels per class: scratch")


def test_the_full_size_path_runs_at_tiny_size(small):
    """The gpu plan with its convolutions, its three targets and its image sizes; fewer steps and
    narrow layers.
    """
    plan = replace(
        ch02.GPU,
        channels=(2, 2, 4),
        features=8,
        source_steps=2,
        source_batch=8,
        stops=(1, 2),
        shots=(1,),
        kind_shots=1,
        held_out=(50, 60),
    )
    results = ch02.run("gpu", [0, 1, 2], lambda line: None, plan=plan)
    assert list(results["targets"]) == ["usps", "svhn", "digits"]
    assert all(
        len(r["accuracy"]) == 3
        for part in results["targets"].values()
        for r in part["curves"]["1"].values()
    )


def test_training_many_at_once_is_training_each_alone():
    """vmap and the hand-written SGD against torch.optim.SGD, one network at a time.

    With L2-SP and a slow trunk; with fewer examples than a batch, and with more.
    """
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 1, 8, 8, generator=g), torch.randint(10, (30,), generator=g)
    rows = torch.stack([torch.randperm(30, generator=g)[:6] for _ in range(3)])
    start = ch02.fresh(TINY, [0, 1, 2], torch.device("cpu"))
    source = {k: v + 0.1 for k, v in start.items() if k.startswith("trunk")}
    rate, slow = torch.tensor([0.1, 0.05, 0.1]), torch.tensor([1.0, 0.0, 0.5])
    strength = torch.tensor([0.0, 0.2, 0.3])
    model = ch02.network(TINY)
    for batch in (32, 4):
        (together,) = ch02.train_runs(
            model,
            start,
            x,
            y,
            rows,
            rate,
            trunk=slow,
            strength=strength,
            source=source,
            stops=[4],
            batch=batch,
            seed=5,
        )
        for r in range(3):
            model.load_state_dict({k: v[r] for k, v in start.items()})
            ch02.train_one(
                model,
                x[rows[r]],
                y[rows[r]],
                float(rate[r]),
                trunk=float(slow[r]),
                strength=float(strength[r]),
                source={k: v[r] for k, v in source.items()},
                steps=4,
                batch=batch,
                order=torch.Generator().manual_seed(5),
            )
            for name, p in model.named_parameters():
                assert torch.allclose(p, together[name][r], atol=1e-5), (batch, r, name)
        frozen = [k for k in start if k.startswith("trunk")]
        assert all(torch.equal(start[k][1], together[k][1]) for k in frozen)


def test_one_run_is_sgd_on_the_cross_entropy_and_the_penalty():
    """`train_one` against a step by hand: the trunk at its share of the rate, pulled back."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 1, 8, 8, generator=g), torch.arange(6)
    torch.manual_seed(0)
    model = ch02.network(TINY)
    source = {k: p.detach() + 0.1 for k, p in model.named_parameters() if k.startswith("trunk")}
    loss = F.cross_entropy(model(x), y)
    loss = loss + 0.3 * sum(
        ((p - source[k]) ** 2).sum() for k, p in model.named_parameters() if k in source
    )
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = {
        name: p.detach() - (0.05 if name in source else 0.1) * gradient
        for (name, p), gradient in zip(model.named_parameters(), gradients, strict=True)
    }
    pull = {"trunk": 0.5, "strength": 0.3, "source": source}
    ch02.train_one(model, x, y, 0.1, **pull, steps=1, batch=32, order=torch.Generator())
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])


def test_lower_precision_takes_the_same_steps_roughly():
    g = torch.Generator().manual_seed(0)
    x, y, rows = (
        torch.randn(40, 1, 8, 8, generator=g),
        torch.arange(40) % 10,
        torch.arange(40).expand(2, -1),
    )
    start, rate = ch02.fresh(TINY, [0, 1], torch.device("cpu")), torch.full((2,), 0.05)
    (exact,) = ch02.train_runs(ch02.network(TINY), start, x, y, rows, rate, stops=[3], batch=64)
    (rough,) = ch02.train_runs(
        ch02.network(TINY), start, x, y, rows, rate, stops=[3], batch=64, precision=torch.bfloat16
    )
    for name in exact:
        moved = (exact[name] - start[name]).norm()
        assert (
            0 < (rough[name] - exact[name]).norm() < 0.1 * moved
            and rough[name].dtype == torch.float32
        )


def test_the_source_as_it_is_and_the_kept_head_are_the_source(small):
    """`unchanged` is the accuracy of the source networks, one by one; KEPT starts at them, all
    others that are transferred have the source's trunk and a new head.
    """
    study = ch02.Study(TINY, [0, 1, 2], report=lambda line: None)
    source = study.source()
    for k, found in enumerate(study.unchanged()):
        study.model.load_state_dict({name: p[k] for name, p in source.items()})
        with torch.no_grad():
            right = study.model(study.x[study.test]).argmax(1) == study.y[study.test]
        assert found == pytest.approx(float(right.float().mean()))
    for method in (ch02.KEPT, ch02.FINE_TUNING, ch02.PROBE):
        start = study.start(method, "digits")
        assert torch.equal(start["trunk.1.weight"], source["trunk.1.weight"])
        same = torch.equal(start["head.weight"], source["head.weight"])
        assert same == (method is ch02.KEPT)


def test_the_loop_in_plain_sight_is_train_one(small):
    """`fine_tuned` of the notebook against `train_one`, with L2-SP and without."""
    ((_, path),) = notebooks.find(["02"])
    (cell,) = (c.source for c in notebooks.read(path).cells if "def fine_tuned(" in c.source)
    tree = ast.parse(cell)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space = {"torch": torch, "F": F, "transfer": transfer}
    exec(compile(tree, "notebook", "exec"), space)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 1, 8, 8, generator=g), torch.randint(10, (50,), generator=g)
    source = {k: v[0] for k, v in ch02.fresh(TINY, [7], torch.device("cpu")).items()}
    trunk = {k: v for k, v in source.items() if k.startswith("trunk")}
    for alpha, start in ((0.0, None), (0.2, trunk)):
        ours, theirs = ch02.network(TINY), ch02.network(TINY)
        for model in (ours, theirs):
            model.load_state_dict(source)
        space["fine_tuned"](ours, x, y, 0.03, torch.Generator().manual_seed(1), alpha, start)
        order = torch.Generator().manual_seed(1)
        ch02.train_one(
            theirs, x, y, 0.03, strength=alpha, source=start, steps=200, batch=32, order=order
        )
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q)


def test_every_method_has_the_same_budget():
    assert len({len(ch02.settings(m, ch02.CPU)) for m in ch02.METHODS}) == 1


def test_splits_do_not_overlap_and_subsets_are_nested(small):
    study = ch02.Study(TINY, [0, 1, 2], report=lambda line: None)
    parts = [set(part.tolist()) for part in (study.pool, study.validation, study.test)]
    assert [len(p) for p in parts[1:]] == [50, 60] and not (
        parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]
    )
    one, two = study.subsets(1), study.subsets(2)
    assert one.shape == (3, 10) and set(two.flatten().tolist()) <= parts[0]
    for few, more in zip(one.tolist(), two.tolist(), strict=True):
        assert set(few) < set(more) and sorted(study.y[few].tolist()) == list(range(10))


def test_frame_cuts_to_the_digit_pads_to_a_square_and_keeps_8_by_8():
    image = np.zeros((28, 28), dtype=np.uint8)
    image[4:20, 10:14] = 200
    assert ch02.cut(image).shape == (16, 16) and ch02.cut(image).sum() == 200 * 16 * 4
    x = ch02.frame(data.load("digits")["x"], 8)
    assert (
        x.shape == (1797, 1, 8, 8)
        and abs(float(x.mean())) < 1e-5
        and float(x.std()) == pytest.approx(1)
    )
    whole = data.load("digits")["x"][0]
    whole = whole * (whole > 0)
    assert ch02.frame(np.stack([whole, whole]), 8).shape == (2, 1, 8, 8)


def test_source_tasks_are_what_they_say():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(100, 1, 8, 8, generator=g), torch.arange(100) % 10
    assert torch.equal(ch02.source_task("odd or even", x, y)[1], y % 2)
    permuted, same = ch02.source_task("pixels permuted", x, y)
    assert (
        torch.equal(same, y)
        and torch.equal(permuted.flatten(1).sort().values, x.flatten(1).sort().values)
        and not torch.equal(permuted, x)
    )
    shuffled = ch02.source_task("labels shuffled", x, y)[1]
    assert torch.equal(shuffled.bincount(), y.bincount()) and not torch.equal(shuffled, y)
    ink = ch02.source_task("ink", x, y)[1]
    assert ink.bincount().tolist() == [10] * 10
    assert x[ink == 9].flatten(1).sum(dim=1).min() >= x[ink == 0].flatten(1).sum(dim=1).max()
    with pytest.raises(ValueError, match="no source task 'cats'"):
        ch02.source_task("cats", x, y)
