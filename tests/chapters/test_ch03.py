"""Chapter 3: right answers of its exercises; each variant is what it says; the experiment runs
whole.
"""

import ast
import json
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from answers.ch03 import RIGHT
from exercise_tools import answer_from
from torch.nn import functional as F

from mtl_course import data, records
from mtl_course.checks import check
from mtl_course.dev import notebooks
from mtl_course.exercises import ch03 as exercises
from mtl_course.experiments import ch03, ch03_optimizers, ch03_recipe

WAITING = {  # changed parts of a right answer that wait for the device, though they look harmless
    "torch.stack(losses)": [
        "torch.tensor(losses)",
        "w.new_tensor(losses)",
        "torch.as_tensor(losses, device=w.device)",
    ],
    "torch.where(norm > limit, g * (limit / norm), g)": [
        "torch.stack([g, g * (limit / norm)])[(norm > limit).long()]",
        "g * min(limit / norm, 1)",
    ],
}


@pytest.mark.parametrize(
    ("part", "other"), [(part, other) for part, others in WAITING.items() for other in others]
)
def test_a_loop_that_still_waits_is_found_out_and_told_why(part, other, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    source = RIGHT["clipped_descent"][0]
    assert part in source
    result = check(
        "clipped_descent",
        answer_from(exercises.clipped_descent, source.replace(part, other)),
        seed=0,
        rounds=1,
    )
    assert result.state == "wrong" and (
        "fetched" in result.hint if "losses" in part else "decide" in result.hint
    )


# --------------------------------------------------------------------------------------- experiment
CPU = torch.device("cpu")
TINY = replace(ch03.CPU, batch=8, steps=1, rounds=2)
TINY_GPU = replace(
    ch03.GPU,
    source="mnist_5k",
    batch=16,
    steps=1,
    rounds=2,
    settings=ch03_recipe.Settings(
        widths=(4, 8, 8), epochs=1, batch=400, mirror=False, compiled=True
    ),
)


def test_sets_are_disjoint_and_named():
    name, train, test = ch03.sets("mnist_5k")
    assert name == "mnist_5k" and len(train[1]) == 4000 and len(test[1]) == 1000
    seen = {image.tobytes() for image in train[0].numpy()}
    # A digit twice in the source would be no fault of ours.
    assert sum(image.tobytes() in seen for image in test[0].numpy()) <= 1


def test_a_set_that_is_only_a_part_says_so(monkeypatch):
    class Part(dict):
        info = data.info("cifar10_partial")

    def load(name):
        if name == "cifar10":
            raise data.DataError("no network")
        x = np.zeros((4, 8, 8, 3), dtype=np.uint8)
        return (
            Part(x_train=x, y_train=np.arange(4), x_test=x, y_test=np.arange(4))
            if name == "cifar10_partial"
            else None
        )

    monkeypatch.setattr("mtl_course.data.door.load", load)
    assert ch03.sets("cifar10")[0] == "cifar10_partial"
    monkeypatch.setattr(
        "mtl_course.data.door.load",
        lambda name: (_ for _ in ()).throw(data.DataError("no network")),
    )
    with pytest.raises(data.DataError):
        ch03.sets("mnist_5k")


def test_each_variant_changes_one_thing_of_the_one_before():
    rows = [astuple(v) for v in ch03.VARIANTS.values()]
    assert [sum(row) for row in rows] == list(range(5))
    assert all(a <= b for p, q in pairwise(rows) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("name", ch03.CPU.variants)
def test_a_variant_is_what_it_says_and_learns(name):
    variant = ch03.VARIANTS[name]
    trainer = ch03.Trainer(
        variant, replace(ch03.CPU, batch=32), tuple(t[:320] for t in ch03.sets("mnist_5k")[1]), CPU
    )
    assert (trainer.precision.dtype is torch.bfloat16) == variant.half
    assert (
        trainer.model[0][2].weight.is_contiguous(memory_format=torch.channels_last) == variant.last
    )
    x, y = next(trainer.batches)
    assert x.shape == (32, 1, 28, 28) and y.shape == (32,)

    def loss():
        with torch.no_grad():
            return float(F.cross_entropy(trainer.model(trainer.x), trainer.y))

    before = loss()
    trainer.steps(60)
    assert loss() < 0.95 * before


def test_both_ways_to_bring_batches_show_every_image_once_an_epoch():
    train = tuple(t[:64] for t in ch03.sets("mnist_5k")[1])
    for resident in (False, True):
        trainer = ch03.Trainer(
            ch03.Variant(resident=resident), replace(ch03.CPU, batch=16), train, CPU
        )
        for _ in range(2):
            labels = torch.cat([next(trainer.batches)[1] for _ in range(4)])
            assert torch.equal(
                torch.bincount(labels, minlength=10), torch.bincount(train[1], minlength=10)
            )


def test_agreement_sees_a_wrong_gradient(monkeypatch):
    found = ch03.agreement(TINY, CPU)
    assert (
        found["data loader"] == 0
        and found["data on the device"] < 1e-6
        and 1e-4 < found["+ 16 bits"] < 0.3
    )
    whole = ch03.Trainer.gradients
    monkeypatch.setattr(
        ch03.Trainer,
        "gradients",
        lambda self, x, y: whole(self, x, (y + 1) % 10 if self.precision.dtype else y),
    )
    assert ch03.agreement(TINY, CPU)["+ 16 bits"] > 0.5


def test_jobs_take_turns_after_a_round_that_does_not_count():
    order = []
    found = ch03.interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU
    )
    assert order == list("ababab") and all(len(values) == 2 for values in found.values())


def test_operations_of_a_matrix_product():
    layer = torch.nn.Linear(20, 30, bias=False)
    # Forward, and the gradient of the weights.
    assert ch03.operations(layer, torch.randn(8, 20)) == 2 * 2 * 8 * 20 * 30


def test_underflow_is_the_arithmetic_and_not_the_weight():
    lost, saved, exact = (
        ch03.short_run(1e-6, kind, 0, epochs=1)
        for kind in ("float16", "float16, scaled", "float32")
    )
    assert lost["zeros"] == 1 and saved["zeros"] == exact["zeros"] == 0
    assert (
        lost["accuracy"] < 0.3 < saved["accuracy"]
        and abs(saved["accuracy"] - exact["accuracy"]) < 0.1
    )


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_whole_experiment_runs_at_a_tiny_size(profile, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr(ch03, "fastest", lambda: CPU)
    sets = ch03.sets
    monkeypatch.setattr(
        ch03,
        "sets",
        lambda source: (
            sets(source)[0],
            *(tuple(t[:400] for t in part) for part in sets(source)[1:]),
        ),
    )
    plan = {"cpu": TINY, "gpu": TINY_GPU}[profile]
    found = ch03.run(profile, [0, 1], lambda line: None, plan=plan)
    assert json.loads(json.dumps(found)) == found
    assert all(len(values) == 2 and min(values) > 0 for values in found["images a second"].values())
    assert (
        found["images a second"].keys() == found["gradient's distance"].keys() == set(plan.variants)
    )
    if profile == "gpu":
        assert (
            compiled
            and found["recipe"]["source"] == "mnist_5k"
            and found["recipe"]["images"] == 400
        )
        assert [len(run["accuracy"]) for run in found["recipe"]["history"]] == [1, 1]


# ----------------------------------------------------------------------- optimizers and batch sizes
TINY_RUNS = ch03_optimizers.Plan(images=40, validation=20, batches=(8, 40), epochs=2)


@pytest.fixture(scope="module")
def some_digits():
    return tuple((x[:80], y[:80]) for x, y in ch03.digits())


def sight(name):
    """The function of this name in the chapter's notebook."""
    ((_, path),) = notebooks.find(["03"])
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "code" and f"def {name}(" in cell.source:
            tree = ast.parse(cell.source)
            tree.body = [node for node in tree.body if getattr(node, "name", "") == name]
            space = {"torch": torch, "F": F, "np": np}
            exec(compile(tree, name, "exec"), space)
            return space[name]
    raise AssertionError(f"no cell defines {name}")


@pytest.mark.parametrize("name", ch03_optimizers.MAKE)
def test_the_loop_in_sight_is_the_packages(name, some_digits):
    (x, y), _ = some_digits
    weights = []
    for train in (sight("train"), ch03_optimizers.descend):
        model = ch03_optimizers.network(3)
        optimizer = ch03_optimizers.MAKE[name](model.parameters(), 0.01)
        if train is ch03_optimizers.descend:
            steps = train(model, optimizer, x, y, 24, 5)
            next(steps), next(steps)
        else:
            train(model, optimizer, x, y, 24, 2, 5)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    start = torch.cat([p.detach().flatten() for p in ch03_optimizers.network(3).parameters()])
    assert not torch.equal(weights[0], start)


def test_noise_scale_is_noise_over_signal(some_digits):
    """Against one backward pass per image, and equation 7 over all batches of two."""
    (x, y), _ = some_digits
    x, y, model = x[:9].double(), y[:9], ch03_optimizers.network(1).double()
    found = ch03_optimizers.noise_scale(model, x, y, chunk=4)

    def gradient(rows):
        model.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    each = torch.stack([gradient([i]) for i in range(9)])
    signal, noise = each.mean(0).square().sum(), (each - each.mean(0)).square().sum(1).mean()
    assert found["signal"] == pytest.approx(float(signal))
    assert found["noise"] == pytest.approx(float(noise))
    assert found["ratio"] == pytest.approx(float(noise / signal))
    pairs = [gradient([i, j]).square().sum().item() for i in range(9) for j in range(9)]
    assert np.mean(pairs) == pytest.approx(found["signal"] + found["noise"] / 2)


def test_best_rate_and_gain_of_equation_8():
    """The rate of equation 8 is best, and its gain is the gain, for several batches."""
    signal, noise, h = 0.7, 5.0, 2.0
    for batch in (1, 16, 500):

        def gain(rate, batch=batch):
            return rate * signal - rate**2 * h / 2 * (signal + noise / batch)

        share = 1 / (1 + noise / signal / batch)
        assert gain(share / h) == pytest.approx(signal / (2 * h) * share)
        assert all(gain(share / h) > gain(k * share / h) for k in (0.9, 1.1))


def test_parts_of_the_digits_do_not_overlap(some_digits):
    digits, _ = some_digits
    (x, y), (x_choose, y_choose) = ch03_optimizers.parts(digits, 2, TINY_RUNS)
    assert len(x) == len(y) == 40 and len(x_choose) == len(y_choose) == 20
    rows = {image.numpy().tobytes() for image in x}
    assert not rows & {image.numpy().tobytes() for image in x_choose}
    assert not torch.equal(x, ch03_optimizers.parts(digits, 3, TINY_RUNS)[0][0])


def test_the_comparison_of_optimizers_runs_at_a_tiny_size(some_digits, monkeypatch):
    monkeypatch.setattr(ch03, "digits", lambda: some_digits)
    monkeypatch.setattr(ch03_optimizers, "RATES", {"SGD": (0.1,), "Adam": (0.01, 0.1)})
    lines = []
    found = json.loads(json.dumps(ch03.RECORDS["optimizers"]([0, 1], lines.append, plan=TINY_RUNS)))
    assert list(found["runs"]) == ["8", "40"] and len(lines) == 4
    for runs in found["runs"].values():
        assert len(runs) == 2 and np.shape(runs[0]["Adam"]) == (2, 2)
        assert np.shape(runs[0]["SGD"]) == (1, 2)
    assert len(found["noise"]) == 2 and len(found["noise"][0]) == 3
    assert found["rates"] == {"SGD": [0.1], "Adam": [0.01, 0.1]}


def test_one_seed_of_the_record_is_within_its_spread():
    results, plan = records.load("03", "optimizers").results, ch03_optimizers.Plan()
    digits, test = ch03.digits()
    train, choosing = ch03_optimizers.parts(digits, 0, plan)
    for name, batch, at in (("SGD", 1024, 3), ("momentum", 128, 3), ("Adam", 128, 3)):
        rate = results["rates"][name][at]
        found = ch03_optimizers.one(name, batch, rate, 0, train, (choosing, test), plan.epochs)
        kept = np.array([run[name][at] for run in results["runs"][str(batch)]])  # seed, set
        assert (np.abs(found - kept[0]) < 3 * kept.std(0, ddof=1) + 0.005).all(), name
    start = ch03_optimizers.noise_scale(ch03_optimizers.network(0), *train)
    kept = [run[0]["ratio"] for run in results["noise"]]
    assert abs(start["ratio"] - kept[0]) < 3 * np.std(kept, ddof=1)


def test_the_record_of_the_optimizers_is_whole():
    results, plan = records.load("03", "optimizers").results, ch03_optimizers.Plan()
    assert results["rates"] == {name: list(rates) for name, rates in ch03_optimizers.RATES.items()}
    assert results["epochs"] == plan.epochs and set(results["runs"]) == set(map(str, plan.batches))
    for runs in results["runs"].values():
        for name, rates in results["rates"].items():
            assert np.shape([run[name] for run in runs]) == (5, len(rates), 2)
    assert np.shape(results["noise"]) == (5, plan.epochs + 1)
