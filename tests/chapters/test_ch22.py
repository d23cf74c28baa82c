"""Chapter 22: its experiment at tiny size, what runs on two processes, and its formulas."""

import json
import math
import multiprocessing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import records
from mtl_course.dev import notebooks
from mtl_course.drawings import ranks
from mtl_course.exercises import ch22 as exercises
from mtl_course.experiments import ch22, ch22_processes
from mtl_course.multitask import Mixture, mixture
from mtl_course.training import launch

TINY = ch22.Plan(
    size=6,
    classes=4,
    copies=2,
    sizes=(40, 24, 12, 8, 4),
    validation=12,
    test=16,
    width=8,
    batch=6,
    stops=(5, 10),
    rates=(0.03, 0.1),
)


@pytest.fixture(scope="module")
def made():
    return ch22.pictures(TINY)


@pytest.fixture(scope="module")
def sets(made):
    return ch22.draw_sets(TINY, 1, made)


# ----------------------------------------------------------------------------------------- the sets
def test_after_five_seeds_each_script_has_had_each_size():
    sizes = [ch22.sizes_of(TINY, seed) for seed in range(5)]
    for script in ch22.SCRIPTS:
        assert sorted(s[script] for s in sizes) == sorted(TINY.sizes)
    assert all(sorted(s.values()) == sorted(TINY.sizes) for s in sizes)
    assert ch22.sizes_of(TINY, 5) == sizes[0]


def test_parts_have_the_promised_sizes_and_no_face_in_common(made, sets):
    for script, size in ch22.sizes_of(TINY, 1).items():
        x, y, faces = made[script]
        assert len(y.unique()) == TINY.classes and x.shape[1] == TINY.size**2
        seen = []
        for part, count in (("train", size), ("validation", 12), ("test", 16)):
            images, letters = sets[part][script]
            assert len(images) == len(letters) == count
            rows = [int((x == image).all(1).nonzero()[0]) for image in images]
            assert torch.equal(y[rows], letters)
            seen.append(set(faces[rows].tolist()))
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_a_seed_draws_the_sets(made, sets):
    again, other = ch22.draw_sets(TINY, 1, made), ch22.draw_sets(TINY, 2, made)
    script = ch22.SCRIPTS[0]
    assert torch.equal(sets["test"][script][0], again["test"][script][0])
    assert not torch.equal(sets["test"][script][0], other["test"][script][0])


# --------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("method", ["temperature 2", ch22.WEIGHTED, ch22.ALONE])
def test_a_run_is_a_plain_loop_over_a_mixture(sets, method):
    result = ch22.train(TINY, sets, method, 0.1, 3)
    sizes = {script: len(y) for script, (_, y) in sets["train"].items()}
    tau = {"temperature 2": 2.0, ch22.WEIGHTED: 1.0, ch22.ALONE: math.inf}[method]
    shares = mixture(sizes, tau)
    trunks, heads = ch22.networks(TINY, 3, method == ch22.ALONE)
    assert (trunks["Latin"] is trunks["Greek"]) == (method != ch22.ALONE)
    parameters = {
        p for script in ch22.SCRIPTS for m in (trunks, heads) for p in m[script].parameters()
    }
    optimizer = torch.optim.SGD(list(parameters), 0.1, momentum=0.9)
    order = torch.Generator().manual_seed(3)
    for batch in Mixture(sets["train"], shares, rows=10 * 6).batches(6, order):
        ((script, (_, y)),) = batch.targets.items()
        loss = F.cross_entropy(heads[script](trunks[script](batch.x)), y)
        if method == ch22.WEIGHTED:
            loss = loss / (5 * shares[script])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(result) == len(TINY.stops)
    for part in ("validation", "test"):
        assert result[-1][part] == ch22.accuracies(trunks, heads, sets[part])


def test_weights_make_proportional_draws_uniform_on_average():
    sizes = dict(zip("abcde", ch22.PLANS["cpu"].sizes, strict=True))
    shares, uniform = mixture(sizes), mixture(sizes, math.inf)
    weights = [uniform[t] / shares[t] for t in sizes]
    assert [shares[t] * w for t, w in zip(sizes, weights, strict=True)] == pytest.approx([0.2] * 5)
    assert 23 < weights[-1] < 25, "the text says 24"


def test_the_rate_is_chosen_by_validation_alone(monkeypatch):
    def train(plan, sets, method, rate, seed):
        good = rate == 0.03
        return [
            {
                "validation": {"a": 0.9 if good else 0.2, "b": 0.4},
                "test": {"a": 0.1 if good else 0.9, "b": 0.3},
            }
        ] * 2

    monkeypatch.setattr(ch22, "train", train)
    results = ch22.try_rates(TINY, {}, "uniform", 0)
    assert set(results) == {"5", "10"}
    assert results["5"] == {
        "rate": 0.03,
        "validation": {"a": 0.9, "b": 0.4},
        "test": {"a": 0.1, "b": 0.3},
    }


def test_run_gives_plain_json_and_a_seed_decides_it(monkeypatch):
    monkeypatch.setattr(ch22, "METHODS", ("proportional", "uniform"))
    monkeypatch.setattr(ch22.one_seed, "__defaults__", (("proportional", "uniform"),))
    lines = []
    results = json.loads(json.dumps(ch22.run("cpu", [0, 1], lines.append, plan=TINY)))
    assert len(results["seeds"]) == len(lines) == 2
    rows = ch22.by_size(results["seeds"], "10")
    assert rows["uniform"].shape == (2, 5)
    assert ch22.run("cpu", [1], lines.append, plan=TINY)["seeds"][0] == results["seeds"][1]


def test_tasks_come_from_the_largest_set_to_the_smallest():
    seed = {
        "sizes": {"x": 5, "y": 50, "z": 20},
        "results": {"m": {"9": {"test": {"x": 0.1, "y": 0.2, "z": 0.3}, "validation": {}}}},
    }
    np.testing.assert_allclose(ch22.by_size([seed, seed], "9")["m"], [[0.2, 0.3, 0.1]] * 2)


# --------------------------------------------------------------------------------------- processes
def test_two_processes_give_what_one_gives_and_leave_nothing_behind():
    """Equation 1 in `fit_tasks`, equation 2 in the Gram matrix, and the notebook's other parts."""
    one = launch(ch22_processes.tour, 1)[0]
    first, second = launch(ch22_processes.tour, 2)
    assert not multiprocessing.active_children()
    for method in ("sum", "upgrad"):
        assert ch22_processes.largest_difference(one[method], first[method]) < 1e-6
        assert ch22_processes.largest_difference(first[method], second[method]) == 0
    exact, noisy = first["matrices"].values()
    torch.testing.assert_close(exact, one["matrices"]["mean first"], rtol=0, atol=1e-6)
    assert (noisy.diagonal() > exact.diagonal()).all()
    assert one["seconds"]["processes"] == 1 and one["seconds"]["average"] == []
    times = first["seconds"]
    (size, _), (more, _) = times["average"]
    assert times["processes"] == 2 and size > 100_000 and more == 5 * size
    assert min(times["whole"], times["share"], *(t for _, t in times["average"])) > 0


def test_four_parts_give_what_one_part_gives():
    one, four = (ch22_processes.train("upgrad", accumulate=k) for k in (1, 4))
    assert ch22_processes.largest_difference(one, four) < 1e-6


def test_task_gradients_are_those_of_each_loss_alone():
    task = ch22_processes.reading()
    batch = ch22_processes.one_batch(task, 7)
    J = ch22_processes.task_gradients(task.model, task.tasks, batch)
    for row, (name, (rows, y)) in zip(J, batch.targets.items(), strict=True):
        task.model.zero_grad()
        F.cross_entropy(task.model(batch.x[rows])[name], y).backward()
        alone = torch.cat([p.grad.flatten() for p in task.model.trunk.parameters()])
        torch.testing.assert_close(row, alone.double(), rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------------------------- formulas
def test_equation_3_the_mean_of_gram_matrices_adds_the_ranks_noise():
    shares = [torch.randn(3, 11, dtype=torch.float64) for _ in range(4)]
    J = sum(shares) / 4
    first, mean = ch22_processes.two_orders(shares)
    noise = sum((Jr - J) @ (Jr - J).T for Jr in shares) / 4
    torch.testing.assert_close(first, J @ J.T)
    torch.testing.assert_close(mean, first + noise)
    torch.testing.assert_close(exercises.gram_over_ranks(shares, [9] * 4), first)


def test_the_example_by_hand_is_that_of_the_drawing():
    assert ranks.mean_gradients() == [(1, 0), (-1, 0)]
    assert ranks.matrix(ranks.mean_gradients()) == [[1, -1], [-1, 1]]
    assert [ranks.matrix(rank) for rank in ranks.RANKS] == [[[2, 0], [0, 2]]] * 2
    assert ranks.mean_matrix() == [[2, 0], [0, 2]]


def test_equation_8_gives_the_best_shares_of_the_toy():
    """Against a numerical search on three tasks of which all are drawn."""
    use, steps = np.array([0.5, 0.3, 0.2]), 100

    def error(p):
        return float(use @ np.exp(-steps * p / 20))

    logs = np.log(use)
    # The constant that makes the shares sum to one.
    p = 20 / steps * (logs - logs.mean()) + 1 / 3
    assert p.min() > 0 and p.sum() == pytest.approx(1)
    slopes = steps / 20 * use * np.exp(-steps * p / 20)
    np.testing.assert_allclose(slopes, slopes[0])
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = p + rng.normal(0, 0.05, 3)
        other = np.abs(other) / np.abs(other).sum()
        assert error(other) >= error(p) - 1e-12


def test_the_exercises_shares_are_the_packages():
    sizes = {"c": 17, "a": 1, "b": 90_000}
    for tau in (1.0, 2.5, math.inf):
        assert exercises.mixture_shares(sizes, tau) == pytest.approx(mixture(sizes, tau))


def _cells(*starts):
    ((_, path),) = notebooks.find(["22"])
    sources = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    return "\n".join(next(s for s in sources if s.startswith(start)) for start in starts)


def test_the_notebooks_loop_on_ranks_in_a_group_of_one_is_its_loop_on_one():
    """And with two ranks whose all-reduce is done by hand, of parts that differ."""
    scope = {"torch": torch, "nn": nn, "F": F}
    exec(_cells("def network", "def on_ranks"), scope)
    x, y = torch.randn(21, 144), torch.randint(20, (21,))
    order = torch.randperm(21)
    scope["dist"] = SimpleNamespace(get_rank=lambda: 0, all_reduce=lambda values: None)
    alone = scope["on_one"](x, y, list(order.split(8)))
    group = scope["on_ranks"](x, y, [order], 8)
    for p, q in zip(alone, group, strict=True):
        torch.testing.assert_close(p, q)


def test_the_loop_on_ranks_has_at_most_twenty_lines():
    source = _cells("def on_ranks")
    assert len(source.splitlines()) <= 20 and source.count("dist.all_reduce") == 2


# ------------------------------------------------------------------------------------------- record
def test_one_seed_of_the_record_is_within_its_spread():
    """Seed 0 again with two mixtures, one rate and the fewest steps."""
    record = records.load("22", "cpu")
    runs = record.results["seeds"]
    plan = replace(ch22.PLANS["cpu"], stops=(300,), rates=(0.03,))
    again = ch22.one_seed(plan, 0, ("proportional", "uniform"))
    assert again["sizes"] == runs[0]["sizes"]
    there, here = (ch22.by_size(seeds, "300") for seeds in (runs, [again]))
    for method, row in here.items():
        spread = there[method].std(0, ddof=1)
        assert (np.abs(row[0] - there[method][0]) < np.maximum(3 * spread, 0.05)).all(), method


def test_beyond_the_edge_of_its_grid_alone_is_far_worse():
    """As the fine print says of the rate 0.3, on one seed of the record."""
    runs = records.load("22", "cpu").results["seeds"]
    assert all(run["results"][ch22.ALONE]["300"]["rate"] == 0.1 for run in runs)
    plan = replace(ch22.PLANS["cpu"], stops=(300,))
    (beyond,) = ch22.train(plan, ch22.draw_sets(plan, 0), ch22.ALONE, 0.3, 0)
    recorded = runs[0]["results"][ch22.ALONE]["300"]
    for part in ("validation", "test"):
        means = [np.mean(list(at[part].values())) for at in (beyond, recorded)]
        assert means[0] < means[1] - 0.2
