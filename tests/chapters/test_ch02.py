"""Chapter 2: its experiment at tiny size, and right answers to its exercises, which
`test_exercises` runs.
"""

import ast
import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course import data, records
from mtl_course.dev import notebooks
from mtl_course.exercises.ch02 import source_penalty
from mtl_course.experiments import ch02
from mtl_course.experiments.common import seeded, stacked
from mtl_course.networks import Classifier, cnn, mlp

TINY = replace(
    ch02.CPU,
    channels=(2, 4),
    features=8,
    source_steps=8,
    shots=(1, 2),
    kind_shots=2,
    stops=(1, 2),
    long=2,
    last=3,
    held_out=(50, 60),
    rates=(0.01, 0.1),
    strengths=(0.01, 0.1),
    penalties=(0.1, 1.0),
)


@pytest.fixture
def small(monkeypatch):
    """Small sets in the place of every data set, of the shapes that each of them has."""

    def load(name):
        if name in missing:
            raise data.DataError(name)
        rng = np.random.RandomState(len(name))
        side, colour = {
            "mnist_5k": (28, ()),
            "mnist_t10k": (28, ()),
            "mnist": (28, ()),
            "digits": (8, ()),
            "usps": (16, ()),
            "usps_h5": (16, ()),
            "svhn": (32, (3,)),
        }[name]
        x = rng.randint(0, 256, (200, side, side, *colour)).astype(np.uint8)
        y = np.arange(200) % 10
        if name in ("mnist_5k", "mnist_t10k", "digits"):
            return {"x": x, "y": y}
        return {"x_train": x, "y_train": y, "x_test": x[:40] // 2, "y_test": y[:40]}

    missing = set()
    monkeypatch.setattr("mtl_course.data.door.load", load)
    for cached in (ch02._source, ch02._target):
        cached.cache_clear()
    yield missing
    for cached in (ch02._source, ch02._target):
        cached.cache_clear()


def test_run_gives_plain_json_with_one_value_a_seed(small):
    lines = []
    results = json.loads(json.dumps(ch02.run("cpu", [0, 1, 2], lines.append, plan=TINY)))
    part = results["targets"]["usps"]
    assert results["shots"] == [1, 2] and set(part["curves"]) == {"1", "2"}
    assert set(part["kinds"]) == {*ch02.KINDS[1:], "none"}
    names = {m.name for m in ch02.METHODS}
    assert set(part["curves"]["1"]) == names
    assert set(part["curves"]["2"]) == names - {"L2-SP"}  # runs are long there
    for shots, methods in part["curves"].items():
        for name, found in methods.items():
            assert len(found["accuracy"]) == len(found["own"]) == len(found["validation"]) == 3
            assert all(0 <= a <= 1 for a in found["accuracy"])
            stops = {None} if name == "linear probe" else {1, 2} | ({3} if shots == "2" else set())
            assert found["setting"].get("steps") in stops
    assert len(part["unchanged"]) == 3 and all(0 <= a <= 1 for a in part["unchanged"])
    assert len(lines) == 3 and lines[1].startswith("usps, seed 1: as it is 0.")


def test_the_full_size_path_runs_at_tiny_size(small):
    """The gpu plan with its convolutions, its targets and its image sizes; fewer steps and narrow
    layers.
    """
    plan = replace(
        ch02.GPU,
        channels=(2, 2, 4),
        features=8,
        source_steps=4,
        source_batch=8,
        stops=(1, 2),
        shots=(1,),
        kind_shots=1,
        kinds=("ink",),
        held_out=(50, 60),
    )
    results = ch02.run("gpu", [0, 1, 2], lambda line: None, plan=plan)
    assert list(results["targets"]) == ["usps", "svhn"]
    assert all(
        len(r["accuracy"]) == 3
        for part in results["targets"].values()
        for r in part["curves"]["1"].values()
    )


def test_sets_come_from_a_root_or_from_where_they_are_fetched(small):
    """Without the root's files: the same images under torchvision's names; else the error."""
    small |= {"usps_h5", "mnist_t10k"}
    assert len(ch02.images_of("usps", 8)[0]) == 200
    assert len(ch02.images_of("mnist_t10k", 8)[0]) == 40  # MNIST's test images
    small.add("digits")
    with pytest.raises(data.DataError, match="digits"):
        ch02.images_of("digits", 8)


def test_the_notebook_builds_the_network_that_is_evaluated():
    ((_, path),) = notebooks.find(["02"])
    (cell,) = (c.source for c in notebooks.read(path).cells if "def new_net(" in c.source)
    tree = ast.parse(cell)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space = {"cnn": cnn, "Classifier": Classifier}
    exec(compile(tree, "notebook", "exec"), space)
    assert repr(space["new_net"](10)) == repr(ch02.network(ch02.READER))


def test_a_probe_is_a_converged_regression_and_moves_no_trunk(small):
    """Its loss with the penalty has no gradient left; a weaker penalty fits the training better."""
    plan = replace(TINY, penalties=(1.0, 100.0))
    bench = ch02.Bench(plan, 0)
    model, rows = bench.start(ch02.PROBE).eval(), bench.labelled(5)
    before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("trunk")}
    x, y = bench.x[rows], bench.y[rows]
    found = bench._probes(model, x, y, 5)
    assert [one["C"] for one in found] == [1.0, 100.0]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    with torch.no_grad():
        features = model.trunk(x).double()
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-3)
    weight = (model.head.weight.double() * spread).detach().requires_grad_()
    bias = (model.head.bias.double() + model.head.weight.double() @ mean).detach().requires_grad_()
    z = (features - mean) / spread
    loss = F.cross_entropy(z @ weight.T + bias, y, reduction="sum")
    loss = loss + weight.square().sum() / (2 * 100.0)
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-3 * len(y)


def test_the_choice_is_made_on_validation_and_the_same_for_all_seeds():
    def one(rate, validation, test, own):
        return {"rate": rate, "validation": validation, "test": test, "own": own}

    found = ch02.choose(
        [
            [one(0.1, 0.9, 0.1, 0.5), one(0.2, 0.8, 0.2, 0.6)],
            [one(0.1, 0.5, 0.3, 0.9), one(0.2, 0.8, 0.4, 0.1)],
        ]
    )
    assert found["setting"] == {"rate": 0.2} and found["accuracy"] == [0.2, 0.4]
    assert found["own"] == [0.2, 0.3] and found["validation"] == [0.8, 0.8]


def test_labels_needed_reads_the_curve_over_the_logarithm():
    shots, scratch = [1, 10, 100], [0.4, 0.6, 0.5]
    assert ch02.labels_needed(shots, scratch, 0.3) == 1
    assert ch02.labels_needed(shots, scratch, 0.5) == pytest.approx(10**0.5)
    assert ch02.labels_needed(shots, scratch, 0.6) == pytest.approx(10)
    assert ch02.labels_needed(shots, scratch, 0.7) == float("inf")


def perceptron():
    """A network without BatchNorm, as `train_runs` wants it."""
    return Classifier(torch.nn.Sequential(torch.nn.Flatten(), *mlp([64, 16, 16])), 16, 10)


def test_training_many_at_once_is_training_each_alone():
    """vmap and the hand-written SGD against torch.optim.SGD, one network at a time.

    With L2-SP and a slow trunk; with fewer examples than a batch, and with more.
    """
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 1, 8, 8, generator=g), torch.randint(10, (30,), generator=g)
    rows = torch.stack([torch.randperm(30, generator=g)[:6] for _ in range(3)])
    start = stacked(perceptron, [0, 1, 2])
    source = {k: v + 0.1 for k, v in start.items() if k.startswith("trunk")}
    rate, slow = torch.tensor([0.1, 0.05, 0.1]), torch.tensor([1.0, 0.0, 0.5])
    strength = torch.tensor([0.0, 0.2, 0.3])
    model = perceptron()
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
    x, y = torch.randn(6, 1, 16, 16, generator=g), torch.arange(6)
    torch.manual_seed(0)
    model = ch02.network(TINY).train()
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
    start, rate = stacked(perceptron, [0, 1]), torch.full((2,), 0.05)
    (exact,) = ch02.train_runs(perceptron(), start, x, y, rows, rate, stops=[3], batch=64)
    (rough,) = ch02.train_runs(
        perceptron(), start, x, y, rows, rate, stops=[3], batch=64, precision=torch.bfloat16
    )
    for name in exact:
        moved = (exact[name] - start[name]).norm()
        assert (
            0 < (rough[name] - exact[name]).norm() < 0.1 * moved
            and rough[name].dtype == torch.float32
        )


def test_the_source_as_it_is_and_the_kept_head_are_the_source(small):
    """`unchanged` is the accuracy of the source network; KEPT starts at it, all others that are
    transferred have the source's trunk, running statistics too, and a new head.
    """
    bench = ch02.Bench(TINY, 3)
    source = bench.source()
    with torch.no_grad():
        right = source(bench.x[bench.test]).argmax(1) == bench.y[bench.test]
    assert bench.unchanged() == pytest.approx(float(right.float().mean()))
    state = source.state_dict()
    for method in (ch02.KEPT, ch02.FINE_TUNING, ch02.PULLED, ch02.PROBE):
        start = bench.start(method).state_dict()
        assert all(torch.equal(start[k], v) for k, v in state.items() if k.startswith("trunk"))
        same = torch.equal(start["head.weight"], state["head.weight"])
        assert same == (method is ch02.KEPT)
    scratch = bench.start(ch02.SCRATCH).state_dict()
    name = next(k for k in state if k.endswith("weight"))
    assert not torch.equal(scratch[name], state[name])


def test_the_loop_in_plain_sight_is_train_one(small):
    """`fine_tuned` of the notebook against `train_one`, with L2-SP and without."""
    ((_, path),) = notebooks.find(["02"])
    (cell,) = (c.source for c in notebooks.read(path).cells if "def fine_tuned(" in c.source)
    tree = ast.parse(cell)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space = {"torch": torch, "F": F, "penalty": source_penalty.reference}
    exec(compile(tree, "notebook", "exec"), space)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 1, 16, 16, generator=g), torch.randint(10, (50,), generator=g)
    begin = seeded(lambda: ch02.network(TINY), 7)
    trunk = {k: p.detach() + 0.1 for k, p in begin.named_parameters() if k.startswith("trunk")}
    for few, alpha, start in ((50, 0.0, None), (50, 0.2, trunk), (20, 0.0, None)):
        ours, theirs = copy.deepcopy(begin), copy.deepcopy(begin)
        order = torch.Generator().manual_seed(1)
        space["fine_tuned"](ours, x[:few], y[:few], 0.03, order, alpha, start)
        order = torch.Generator().manual_seed(1)
        options = {"strength": alpha, "source": start, "steps": 150, "batch": 32, "order": order}
        ch02.train_one(theirs, x[:few], y[:few], 0.03, **options)
        for p, q in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(p, q)


def test_a_run_is_measured_at_its_stops_in_evaluation_mode():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 1, 16, 16, generator=g), torch.arange(20) % 10
    model, modes = ch02.network(TINY), []

    def measure(model):
        modes.append(model.training)
        return {"weight": model.head.weight.detach().clone()}

    options = {"batch": 8, "order": torch.Generator().manual_seed(0)}
    found = ch02.train_one(model, x, y, 0.1, steps=4, stops=(1, 3), measure=measure, **options)
    assert modes == [False, False] and model.training
    assert not torch.equal(found[0]["weight"], found[1]["weight"])
    assert not torch.equal(found[1]["weight"], model.head.weight)


@pytest.mark.parametrize("plan", [ch02.CPU, ch02.GPU, ch02.READER])
def test_every_method_has_the_same_budget(plan):
    run = [m for m in ch02.METHODS if not m.pulled or plan.strengths]  # L2-SP may be left out
    assert len(run) >= 4 and {len(ch02.settings(m, plan)) for m in run} == {len(plan.penalties)}


def test_the_readers_rates_are_the_best_of_the_record_on_other_seeds():
    """No rate lies at an end of its grid, and no seed of the search is one of the reader's."""
    record = records.load("02", "rates")
    chosen = record.results["chosen"]
    assert dict(ch02.READER.chosen) == {m: chosen[m] for m, _ in ch02.READER.chosen}
    assert {m.name for m in (ch02.SCRATCH, ch02.FINE_TUNING, ch02.KEPT)} == set(
        dict(ch02.READER.chosen)
    )
    assert ch02.READER.penalties == (chosen["linear probe"],)
    for name, row in record.results["validation"].items():
        assert chosen[name] == float(max(row, key=lambda s: np.mean(row[s])))
    for rate in dict(ch02.READER.chosen).values():
        assert min(ch02.TRIED.rates) < rate < max(ch02.TRIED.rates)
    assert min(record.provenance["seeds"]) >= 100


def test_rates_are_chosen_on_validation_over_all_numbers_of_labels(small):
    plan = replace(TINY, targets=("digits",), size=8, long=1000, stops=(2,))
    found = ch02.run_rates([5, 6], lambda line: None, plan=plan)
    assert json.loads(json.dumps(found)) == found
    assert set(found["validation"]) == {m.name for m in ch02.METHODS if not m.pulled} | {"ink"}
    assert set(found["validation"]["scratch"]) == {"0.01", "0.1"}
    assert set(found["validation"]["linear probe"]) == {"0.1", "1.0"}
    bench = ch02.Bench(plan, 6)
    alone = [bench.tries(ch02.SCRATCH, shots)[1]["validation"] for shots in plan.shots]
    assert found["validation"]["scratch"]["0.1"][1] == pytest.approx(np.mean(alone))
    given = replace(plan, chosen=(("scratch", 0.3),))
    assert ch02.settings(ch02.SCRATCH, given) == [{"rate": 0.3}]
    assert ch02.settings(ch02.FINE_TUNING, given) == [{"rate": 0.01}, {"rate": 0.1}]


@pytest.mark.parametrize("target,test", [("usps", 40), ("digits", 60)])
def test_splits_do_not_overlap_and_subsets_are_nested(small, target, test):
    """A set with test images of its own keeps them for the test."""
    bench = ch02.Bench(replace(TINY, size=8), 0, target)
    parts = [set(part.tolist()) for part in (bench.pool, bench.validation, bench.test)]
    assert [len(p) for p in parts[1:]] == [50, test]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    if target == "usps":
        assert min(parts[2]) == 200
    one, two = bench.labelled(1).tolist(), bench.labelled(2).tolist()
    assert set(one) < set(two) <= parts[0] and sorted(bench.y[one].tolist()) == list(range(10))
    other = ch02.Bench(replace(TINY, size=8), 1, target)
    assert other.labelled(1).tolist() != one and torch.equal(other.test, bench.test)


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


def test_one_seed_of_the_record_is_within_its_spread():
    """Seed 0 on USPS: the source as it is, and with three labels per class two chosen settings.
    Within the record's spread over seeds, since other machines round otherwise.
    """
    for name in ("mnist_t10k", "usps_h5"):
        try:
            data.load(name)
        except data.DataError as error:
            pytest.skip(f"{name} cannot be had here: {error}")
    usps = records.load("02", "cpu").results["targets"]["usps"]
    bench = ch02.Bench(ch02.CPU, 0)
    again = {"as it is": (bench.unchanged(), usps["unchanged"])}
    for method in (ch02.FINE_TUNING, ch02.SCRATCH):
        there = usps["curves"]["3"][method.name]
        setting = there["setting"]
        bench.plan = replace(ch02.CPU, rates=(setting["rate"],), stops=(setting["steps"],))
        (one,) = bench.tries(method, 3)
        again[method.name] = (one["test"], there["accuracy"])
    for name, (accuracy, runs) in again.items():
        assert abs(accuracy - runs[0]) < np.std(runs, ddof=1), (name, accuracy, runs)
