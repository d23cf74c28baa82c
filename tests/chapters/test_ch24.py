"""Chapter 24: its network and loop are the package's, its split is by piece, its alarm rings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtl_course import records, serving
from mtl_course.dev import notebooks
from mtl_course.exercises import ch24 as exercises
from mtl_course.experiments import ch24
from mtl_course.multitask import Network, Parallel, Shared

TINY = replace(
    ch24.PLANS["cpu"],
    labels=600,
    validation=200,
    test=600,
    most=500,
    length=40,
    width=8,
    hidden=8,
    steps=6,
    window=20,
    sizes=(20, 40),
    windows=3,
    shares=(0.5, 1.0),
)


@pytest.fixture(scope="module")
def ready():
    return ch24.prepare(TINY, 0)


def cell(beginning: str) -> str:
    """The source of the chapter's cell that begins so."""
    ((_, path),) = notebooks.find(["24"])
    (source,) = [
        c.source for c in notebooks.read(path).cells if c.source.lstrip().startswith(beginning)
    ]
    return source


def test_the_network_of_the_notebook_is_the_packages(ready):
    spaces = {"nn": nn, "torch": torch}
    exec(cell("class Encoder"), spaces)
    heads = Parallel({task: nn.Linear(8, k) for task, k in ch24.TASKS.items()})
    encoder = spaces["Encoder"](ready.rarity, 8, 8)
    there = Network(Shared(encoder, heads), heads)
    ours = ch24.Reviewer(ready.rarity, ch24.TASKS, 8, 8, 0.3)
    state = encoder.state_dict() | {f"heads.{k}": v for k, v in heads.state_dict().items()}
    names = {name: name.replace("heads.heads.", "heads.") for name in state}
    ours.load_state_dict({names[name]: value for name, value in state.items()})
    ids = ready.ids[:30]
    for mode in (False, True):
        outputs = []
        for model in (there, ours):
            torch.manual_seed(1)
            outputs.append(model.train(mode)(ids))
        for task in ch24.TASKS:
            torch.testing.assert_close(outputs[0][task], outputs[1][task])


def test_the_loop_of_the_notebook_is_the_packages(ready):
    """Plain Adam on the sum of three losses, with the same batches and left-out words."""
    model = ch24.train(TINY, ready, list(ch24.TASKS), 0.005, 3)
    torch.manual_seed(3)
    again = ch24.Reviewer(ready.rarity, ch24.TASKS, 8, 8, TINY.drop)
    optimizer = torch.optim.Adam(again.parameters(), 0.005)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.005, total_steps=TINY.steps, pct_start=0.1
    )
    rows, g = ready.parts["train"], torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    for _ in range(TINY.steps):
        some = rows[torch.randint(len(rows), (TINY.batch,), generator=g)]
        outputs = again(ready.ids[some])
        loss = 0
        for task, y in outputs.items():
            loss = loss + ch24.task_loss(task, y, ready.targets[task][some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not model.training


def test_no_piece_of_clothing_lies_in_two_parts():
    *_, item = ch24.reviews()
    for seed in (0, 7):
        parts = ch24.split(ch24.PLANS["cpu"], seed)
        sizes = {name: len(rows) for name, rows in parts.items()}
        assert sizes["test"] == 3000 and sizes["validation"] == 2000
        assert 12_000 < sizes["train"] <= 15_000
        pieces = {name: set(item[rows.numpy()]) for name, rows in parts.items()}
        assert not pieces["test"] & pieces["train"]
        assert not pieces["validation"] & (pieces["train"] | pieces["test"])
        assert all(len(set(rows.tolist())) == len(rows) for rows in parts.values())


def test_words_rarity_and_stars_come_from_the_training_texts_alone(ready):
    texts, targets, *_ = ch24.reviews()
    train = ready.parts["train"]
    again = serving.NGrams.learned([texts[k] for k in train], TINY.least, TINY.most, TINY.length)
    assert again.names == ready.reader.names
    name = ready.reader.names[3]
    having = sum(4 in row for row in ready.ids[train].tolist())
    assert float(ready.rarity[4]) == pytest.approx(np.log(len(train) / having)), name
    assert float(ready.rarity[0]) == 0
    stars = targets["stars"][train]
    assert ready.stars == pytest.approx((float(stars.mean()), float(stars.std())))


def test_the_exported_program_is_the_network_to_1e_5(ready):
    model = ch24.Reviewer(ready.rarity, ch24.TASKS, 8, 8).eval()
    answering = ch24.Answering(model, *ready.stars).eval()
    program = serving.export_model(answering, TINY.length, 32).module()
    for size in (1, 2, 32):
        ids = ready.ids[:size]
        here = answering(ids)
        for name, y in program(ids).items():
            torch.testing.assert_close(y, here[name], atol=1e-5, rtol=0)
    with torch.no_grad():
        nothing = program(torch.zeros(1, TINY.length, dtype=torch.int64))
    assert all(bool(y.isfinite().all()) for y in nothing.values())
    assert 1 <= float(nothing["stars"][0]) <= 5 and 0 <= float(nothing["recommend"][0]) <= 1
    assert float(nothing["department"].sum()) == pytest.approx(1)


def test_exercises_are_the_packages_functions():
    g = torch.Generator().manual_seed(0)
    reference = torch.randn(300, generator=g, dtype=torch.float64)
    window = 1 + torch.randn(60, generator=g, dtype=torch.float64)
    index = float(exercises.drift_score.reference(reference, window, 10))
    assert index == pytest.approx(serving.psi(reference.numpy(), window.numpy()))
    waited = exercises.latencies.reference(torch.tensor([0.0, 1, 2]), torch.full((3,), 2.0))
    assert waited.tolist() == [2, 3, 4]


def test_a_window_holds_as_many_strangers_as_it_says():
    home = {"stars": np.zeros(50), "known": np.zeros(50)}
    away = {"stars": np.ones(5), "known": np.ones(5)}
    rng = np.random.default_rng(0)
    for share in (0, 0.1, 0.5, 1):
        window = ch24.mixed(home, away, 20, share, rng)
        assert window["stars"].sum() == window["known"].sum() == 20 * share
        assert len(window["stars"]) == 20


def test_the_bag_of_words_is_fitted_on_the_training_rows_and_scored_once(ready):
    scores = ch24.bag_of_words(TINY, ready.parts)
    assert set(scores) == set(ch24.TASKS) and scores["recommend"] > 0.6
    fewer = dict(ready.parts) | {"train": ready.parts["train"][:100]}
    assert ch24.bag_of_words(TINY, fewer)["department"] < scores["department"] + 0.05


def test_run_gives_plain_json_and_a_seed_decides_it():
    lines = []
    results = json.loads(json.dumps(ch24.run("cpu", [0], lines.append, plan=TINY)))
    (seed,) = results["seeds"]
    assert len(lines) == 3 and set(seed) == {ch24.JOINT, ch24.ALONE, ch24.WORDS, "watched"}
    assert seed[ch24.ALONE]["numbers"] > 2.5 * seed[ch24.JOINT]["numbers"]
    watched = seed["watched"]
    assert set(watched["drift"]) == {*ch24.FOREIGN, ch24.DRESSES, ch24.UNHAPPY}
    assert all(len(s) == 3 for kind in watched["drift"].values() for s in kind.values())
    assert set(watched["held out"]) == set(watched["lines"]) == {"20", "40"}
    assert json.loads(json.dumps(ch24.one_seed(TINY, 0))) == seed


@pytest.mark.slow
def test_one_seed_of_the_record_is_within_its_spread():
    """The one encoder of its first seed, and its alarm; the rest would take half a minute."""
    record, plan = records.load("24", "cpu"), ch24.PLANS["cpu"]
    seed = record.provenance["seeds"][0]
    ready = ch24.prepare(plan, seed)
    again, model = ch24.search(plan, ready, list(ch24.TASKS), seed)
    runs = record.results["seeds"]
    for task, value in again["test"].items():
        spread = np.std([run[ch24.JOINT]["test"][task] for run in runs], ddof=1)
        assert abs(value - runs[0][ch24.JOINT]["test"][task]) < max(3 * spread, 0.02)
    watched = ch24.watched(plan, ready, model, seed)
    lines = [run["watched"]["lines"]["100"] for run in runs]
    assert abs(watched["lines"]["100"] - lines[0]) < max(3 * np.std(lines, ddof=1), 0.1)
    films = np.mean(np.array(watched["drift"]["films"]["0.5"]) > watched["lines"]["100"])
    assert films > 0.9
