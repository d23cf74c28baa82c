"""The labs: whoever climbs the ladder is on the rung, and nobody gets there by another way."""

import contextlib
import gc
import json
import os
import random
import re
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from answers import labs as answers

from mtl_course import chapters, labs, records
from mtl_course.checks import CheckFailed, progress, store, summary
from mtl_course.labs import rungs, scorer
from mtl_course.labs.rungs import Step, Task, at_least, class_numbers, real_numbers

NAMES = list(chapters.LABS)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path / "home"))
    for name in ("MTL_COURSE_CHECKS", "MTL_COURSE_SANDBOX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store, "_said", set())
    return tmp_path / "home"


@pytest.fixture(params=["child", "kernel"])
def anywhere(request, monkeypatch):
    """Where answers run: in a process of their own, and without."""
    monkeypatch.setenv("MTL_COURSE_SANDBOX", request.param)
    return request.param


# ----------------------------------------------------------------- a lab is found like a chapter
def test_a_lab_is_found_by_its_name_and_set_up(capsys):
    from mtl_course import runtime
    from mtl_course.dev import notebooks

    lab = chapters.find("lab_3")
    assert lab.heading == "Lab 3. Fifty labels" and lab.notebook.startswith("notebooks/lab_3_")
    assert runtime.setup("lab_3").chapter is lab
    assert "Lab 3 on " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"There is no chapter 'lab_9'.* The labs are lab_1, "):
        chapters.find("lab_9")
    assert [chapter for chapter, _ in notebooks.find(["lab_1"])] == [chapters.LABS["lab_1"]]
    every, taught = notebooks.find([], labs=True), notebooks.find([])
    assert [c.number for c, _ in every[len(taught) :]] == NAMES


# ------------------------------------------------------------------------------- the ladders
@pytest.mark.parametrize("name", NAMES)
def test_the_ladder_is_that_of_the_list(name):
    task = scorer.task_of(name)
    assert task.name == name and tuple(r.name for r in task.rungs) == chapters.LABS[name].rungs
    assert len(task.seeds) >= 3 and max(task.seeds) < 1000


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_answer_is_not_started(name, monkeypatch, home):
    space = {}
    exec(compile(scorer.task_of(name).stub, "<cell>", "exec"), space)
    answer = space[scorer.task_of(name).function]
    result = labs.score(name, answer)
    assert result.state == "blank" and "not started" in repr(result) and result.rung == 0
    assert not (home / "progress.json").exists(), "it is no try"
    monkeypatch.setenv("MTL_COURSE_CHECKS", "blank")
    assert labs.score(name, answer).state == "blank"
    with pytest.raises(CheckFailed):
        labs.score(name, lambda *_: 3)


def on_first(name, answer):
    """The verdict on the first held-out tasks, for a test's time; on all that are quick."""
    task = scorer.task_of(name)
    seeds = task.seeds[: {"lab_3": 2, "lab_4": 1, "lab_5": 1}.get(name)]
    return scorer.scored(task, chapters.LABS[name], answer, seeds)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rung", [1, 2])
def test_the_naive_and_the_sensible_answer_land_on_their_rungs(name, rung):
    result = on_first(name, answers.ANSWERS[name][rung - 1])
    assert result.state == "scored", result
    assert result.rung == rung, result


@pytest.mark.parametrize("name", NAMES)
def test_the_record_shows_each_baseline_on_its_rung(name):
    record = records.load("lab", name.removeprefix("lab_"))
    task = scorer.task_of(name)
    assert record.provenance["seeds"] == list(task.seeds)
    reached = {which: task.rung(row["measures"]) for which, row in record.results.items()}
    assert reached == {rung.name: n for n, rung in enumerate(task.rungs, 1)}
    spent = sum(row["seconds"] for row in record.results.values())
    assert spent < 400, "processor time of all baselines together"


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_stands_in_the_notebook(name):
    from mtl_course.dev import notebooks

    [(_, path)] = notebooks.find([name])
    text = "".join(cell.source for cell in notebooks.read(path).cells)
    squeezed = re.sub(r"\s", "", text)
    for answer in answers.ANSWERS[name][1:]:
        from mtl_course.checks.exercise import source_of

        lines = [re.sub(r"\s", "", line) for line in source_of(answer).split("\n")[2:]]
        long = [line for line in lines if len(line) > 30 and not line.startswith("returnlambda")]
        assert not [line for line in long if line in squeezed]


# ------------------------------------------------------------------- what single labs must see
def one_draw(name, answer):
    task = scorer.task_of(name)
    return scorer.scored(task, chapters.LABS[name], answer, task.seeds[:1])


def untrained(train):
    return answers.Heads(torch.nn.Flatten(), 256)


class Smuggler(torch.nn.Module):
    """Its weights stay behind in its class."""

    heads = None

    def forward(self, x):
        return Smuggler.heads(x)


def smuggle(train):
    Smuggler.heads = untrained(train)
    return Smuggler()


class Heavy(answers.Heads):
    """It carries half a million numbers that it does not use, outside of its parameters."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), 256)
        self.ballast = [torch.randn(500_000)]


class Undecided(answers.Heads):
    def forward(self, x):
        return {name: scores * float("nan") for name, scores in super().forward(x).items()}


def from_before(heads):
    return lambda x: heads(x)


PRETRAINED = [from_before(answers.Heads(torch.nn.Flatten(), 256))]


class Leaning(torch.nn.Module):
    """What answers is a global of its notebook."""

    def forward(self, x):
        return PRETRAINED[0](x)


class Diligent(answers.Heads):
    """It answers many pictures at once only, at its leisure."""

    def forward(self, x):
        return {q: s * float(len(x) > 1) for q, s in super().forward(x).items()}


class Flat(answers.Heads):
    def forward(self, x):
        return {q: s.squeeze() for q, s in super().forward(x).items()}


class Inheriting(torch.nn.Module):
    """What answers is an attribute of its class, from before."""

    network = answers.Heads(torch.nn.Flatten(), 256)

    def forward(self, x):
        return Inheriting.network(x)


def local(train):
    class Here(torch.nn.Module):
        pass

    return Here()


@pytest.mark.parametrize(
    "learn, message",
    [
        (lambda train: lambda x: x, "a torch.nn.Module is wanted"),
        (lambda train: Heavy(), "kB; 1,000 fit"),
        (local, "torch.save cannot ship it"),
        (lambda train: torch.nn.Flatten(), "no dict with the keys letter, family, bold"),
        (lambda train: Undecided(torch.nn.Flatten(), 256), "are not all finite"),
        (smuggle, "'NoneType' object is not callable"),
        (lambda train: Flat(torch.nn.Flatten(), 256), '"letter" has shape [24] for one picture'),
        (lambda train: Leaning(), "name 'PRETRAINED' is not defined"),
        (lambda train: Inheriting(), "has no attribute 'network'"),
        (lambda train: "a text", "it must return a torch.nn.Module"),
    ],
)
def test_a_model_that_cannot_be_shipped_is_refused(learn, message, monkeypatch):
    monkeypatch.setattr(Smuggler, "heads", None)
    result = one_draw("lab_5", learn)
    assert result.state == "error" and message in result.detail, result.detail
    assert len(PRETRAINED) == 1 and Inheriting.network is not None, "they are there again"


def test_a_model_is_asked_one_picture_at_a_time_as_it_is_timed():
    def learn(train):
        model = Diligent(torch.nn.Flatten(), 256)
        model.load_state_dict(answers.lab_5_naive(train).state_dict())
        return model

    result = one_draw("lab_5", learn)
    assert result.state == "scored" and result.rung == 0, result


def test_what_the_notebook_holds_is_there_again_in_the_kernel(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_SANDBOX", "kernel")
    before = dict(globals()), dict(vars(Inheriting))
    assert "name 'PRETRAINED' is not defined" in one_draw("lab_5", lambda t: Leaning()).detail
    assert (dict(globals()), dict(vars(Inheriting))) == before


def test_an_untrained_model_is_below_the_first_rung():
    result = one_draw("lab_5", untrained)
    assert result.state == "scored" and result.rung == 0
    assert 20 < result.measures["kB"][0] < 60 and result.measures["ms"][0] < 5


def test_a_slow_model_answers_nothing(monkeypatch):
    from mtl_course.labs import lab_5

    monkeypatch.setattr(lab_5, "MOST_MS", 0.0)
    result = one_draw("lab_5", untrained)
    assert result.measures["right"] == [0.0]


def other_in_a_large_batch(theta):
    return answers.distances(theta) * (2.0 if len(theta) > 1000 else 1.0)


def moves_its_input(theta):
    losses = answers.distances(theta)
    theta.data.zero_()
    return losses


def looks_at_its_neighbours(theta):
    return answers.distances(theta) + theta.abs().mean()


def equal_weights(gradients, losses, step):
    return torch.ones_like(losses)


def moves_its_input_when_it_is_trained(theta):
    losses = answers.distances(theta)
    if theta.requires_grad and len(theta) == 96:
        theta.data.zero_()
    return losses


def larger_for_the_sum(theta):
    large = theta.requires_grad and len(theta) > 1000
    return answers.distances(theta) * (3.0 if large else 1.0)


def no_slope_for_the_sum(theta):
    losses = answers.distances(theta)
    large = theta.requires_grad and len(theta) > 1000
    return losses.detach() + 0 * theta.sum(1, keepdim=True) if large else losses


def slope_of_another(theta):
    losses, other = answers.lab_2_strong()[0](theta), theta.square().sum(1, keepdim=True)
    return losses.detach() + other - other.detach()


def told_by_its_rule():
    """The rule lets the pair know that its own run is at its end."""
    told = []

    def pair(theta):
        losses = answers.distances(theta)
        return losses * 0.1 if not theta.requires_grad and told and told.pop() else losses

    def rule(gradients, losses, step):
        if step == 199:
            told.append(True)
        return torch.ones_like(losses)

    return pair, rule


@pytest.mark.parametrize(
    "both, message",
    [
        (3, "two functions, (pair, rule)"),
        ((other_in_a_large_batch, equal_weights), "other losses in another batch"),
        ((moves_its_input, equal_weights), "changes the parameters"),
        ((looks_at_its_neighbours, equal_weights), "other losses"),
        ((larger_for_the_sum, equal_weights), "other losses at another time"),
        ((no_slope_for_the_sum, equal_weights), "other gradients at another time"),
        ((slope_of_another, equal_weights), "gradients of `pair` are not those"),
        (told_by_its_rule(), "other losses at another time"),
        ((lambda theta: -answers.distances(theta), equal_weights), "negative or not finite"),
        ((lambda theta: theta, equal_weights), "[B, 2] is wanted"),
        ((lambda theta: 1 + answers.distances(theta), equal_weights), "each must be learnable"),
        ((answers.distances, lambda g, losses, step: -losses), "weights that are negative"),
        ((answers.distances, lambda g, losses, step: losses * float("nan")), "not finite"),
        ((answers.distances, lambda g, losses, step: 1.0), "are wanted"),
    ],
)
def test_a_pair_or_a_rule_that_is_none_is_refused(both, message):
    result = one_draw("lab_2", lambda: both)
    assert result.state == "error" and message in result.detail, result.detail


def test_a_pair_that_moves_its_input_in_training_gains_nothing():
    moved = one_draw("lab_2", lambda: (moves_its_input_when_it_is_trained, equal_weights))
    plain = one_draw("lab_2", lambda: (answers.distances, equal_weights))
    assert plain.state == "scored" and moved.measures == plain.measures


@pytest.mark.parametrize(
    "pair",
    [
        lambda theta: 1 - torch.exp(-answers.distances(theta) / 4),
        lambda theta: (answers.distances(theta) + 1e-6).sqrt(),
        lambda theta: answers.distances(theta.float()),
        lambda theta: torch.log1p(200 * answers.distances(theta)),
        lambda theta: (answers.distances(theta) @ torch.eye(2).double()).clamp(min=0.01) - 0.01,
    ],
    ids=["cut off", "norms", "float32", "steep", "flat at the end"],
)
def test_an_honest_pair_of_any_form_is_judged(pair):
    result = one_draw("lab_2", lambda: (pair, answers.largest_share()))
    assert "gradients" not in result.detail and "other losses" not in result.detail, result


def test_the_rule_moves_no_farther_than_the_sum_may():
    from mtl_course.labs import lab_2

    large = lab_2.fair(lambda g, losses, step: torch.full_like(losses, 1e6))
    assert large(None, torch.ones(3, 2), 0).tolist() == [[0.5, 0.5]] * 3


# -------------------------------------------------------------------- a small lab, to be cheated
def make(part, seed):
    """Ten numbers; the class is the sign of each."""
    generator = torch.Generator().manual_seed(seed + (10_000 if part == "practice" else 0))
    x = torch.randn(64, generator=generator)
    y = (x > 0).long()
    return (x[:8].clone(), y[:8].clone()), x[8:].clone(), y[8:].clone()


def play(run, seed):
    (x, y), asked = make("held-out", seed)[:2]
    steps = [
        Step("learn", lambda learn: learn(x, y), 1.0, "a function"),
        Step("predict", lambda predict: predict(asked.clone()), 1.0),
    ]
    given = run(steps, lambda value: class_numbers(value, 56, 2))
    return {"accuracy": (torch.tensor(given) == make("held-out", seed)[2]).double().mean().item()}


SMALL = Task(
    name="lab_0",
    function="learn",
    stub="",
    play=play,
    practice=lambda seed: make("practice", seed),
    seeds=(1, 2, 3),
    rungs=(
        at_least("some", "accuracy", 0.7, "0.7"),
        at_least("all", "accuracy", 0.99, "0.99"),
    ),
    measures={"accuracy": ".3f"},
)
LAB = chapters.Lab("lab_0", "small", "Small", "Which sign?", 1, 1, None, 1, ("some", "all"))


@pytest.fixture
def small(monkeypatch, anywhere):
    monkeypatch.setitem(chapters.LABS, "lab_0", LAB)
    real = scorer.task_of
    monkeypatch.setattr(scorer, "task_of", lambda name: SMALL if name == "lab_0" else real(name))
    return lambda answer: labs.score("lab_0", answer)


def test_a_right_answer_reaches_the_top_and_a_weak_one_its_rung(small):
    top = small(lambda x, y: lambda asked: (asked > 0).long())
    assert (top.state, top.rung, top.value) == ("scored", 2, 1.0)
    assert "rung 2 of 2, all" in repr(top) and "rung 2 of 2" in top._repr_html_()
    weak = small(lambda x, y: lambda asked: ((asked > 0) & (asked < 1)).long())
    assert weak.rung == 1 and "✓ Rung 1" in repr(weak) and "✗ Rung 2" in repr(weak)
    low = small(lambda x, y: lambda asked: torch.zeros(len(asked), dtype=torch.long))
    assert low.rung == 0 and "below the first rung" in repr(low)
    assert "Your best so far: rung 2, accuracy 1.000." in repr(low)


def flip(x, y):
    x.neg_()
    y.copy_(1 - y)
    x.resize_(0)

    def predict(asked):
        asked.abs_()
        return torch.ones(56, dtype=torch.long)

    return predict


def test_changing_the_inputs_changes_no_score(small):
    result = small(flip)
    assert result.state == "scored" and abs(result.value - 0.5) < 0.2


MEMORY = {}


def remember(x, y):
    MEMORY[len(MEMORY)] = (x, y)
    calls = len(MEMORY)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    os.environ["LAB_LEAK"] = "1"
    return lambda asked: torch.full((56,), int(calls % 2), dtype=torch.long)


def test_globals_and_generators_change_no_score(small, anywhere, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "MEMORY", {})
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = small(remember)
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and np.random.get_state()[1].tolist() == before[2]
    assert "LAB_LEAK" not in os.environ
    if anywhere == "child":
        assert MEMORY == {}, "each held-out task has a process of its own"
        assert small(remember).measures == first.measures


def random_answer(x, y):
    return lambda asked: (torch.rand(56) + asked * 1e-9 > 0.5).long()


def test_the_same_answer_has_the_same_score_whatever_was_drawn_before(small):
    first = small(random_answer).measures
    torch.rand(13)
    assert small(random_answer).measures == first


def contents(cell):
    """What a closure's cell holds; None where it is still empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def labels_in(thing, count, depth=0):
    """Every tensor or array of so many numbers that can be reached from a thing."""
    if isinstance(thing, torch.Tensor | np.ndarray):
        if tuple(thing.shape) == (count,):
            yield thing
    elif depth < 4:
        inside = []
        if isinstance(thing, dict):
            inside = list(thing.values())
        elif isinstance(thing, list | tuple | set):
            inside = list(thing)[:200]
        elif callable(thing) and getattr(thing, "__closure__", None):
            cells = thing.__closure__  # of a function; some objects answer to any name
            inside = [contents(c) for c in cells] if isinstance(cells, tuple) else []
        elif hasattr(thing, "__dict__"):
            inside = list(vars(thing).values())
        for one in inside:
            yield from labels_in(one, count, depth + 1)


def in_memory():
    return [o for o in gc.get_objects() if type(o) in (torch.Tensor, np.ndarray)]


@pytest.fixture
def older(monkeypatch):
    """Tensors and arrays that other tests have left in this process: no lab made them."""
    kept = in_memory()  # alive, so that no new one gets the number of an old one
    monkeypatch.setattr(spy, "older", {id(o) for o in kept}, raising=False)
    return kept


def spy(*given):
    older, kinds = getattr(spy, "older", ()), getattr(spy, "kinds", "iu")

    def array_equal(array):
        return lambda one: np.array_equal(array, one)

    def predict(asked, *more):
        count, frame = len(asked), sys._getframe()
        given = [asked, *more]
        things = []
        while frame is not None:
            things.append(list(frame.f_locals.values()))
            frame = frame.f_back
        things += in_memory()
        for found in (found for thing in things for found in labels_in(thing, count)):
            if id(found) in older:
                continue
            array = np.asarray(torch.as_tensor(found).detach().cpu())
            fits = array.dtype.kind in kinds and (kinds == "f" or array.min() >= 0)
            if fits and not any(map(array_equal(array), given)):
                return torch.as_tensor(found)
        return torch.zeros(count, dtype=torch.long)

    return predict


def test_the_held_out_labels_are_in_no_frame(small, older):
    result = small(spy)
    assert result.state == "scored" and result.value < 0.7, "it found something"


def test_a_spy_finds_labels_that_lie_in_a_frame():
    labels = torch.tensor([0, 1, 1, 0])
    assert spy()(torch.full((4, 1), 0.5)).tolist() == labels.tolist()


@pytest.mark.parametrize("name", [n for n in NAMES if n in ("lab_1", "lab_3")])
def test_a_spy_in_a_lab_finds_nothing(name, older, monkeypatch):
    monkeypatch.setattr(spy, "kinds", "f" if name == "lab_1" else "iu", raising=False)
    result = on_first(name, spy)
    assert result.state == "scored" and result.rung == 0


def spy_on_episodes(train):
    asked = []

    def predict(support_x, support_y, query_x):
        asked.append(0)
        if len(asked) % 20 == 1:  # to look around takes a while
            return spy()(query_x, support_x, support_y)
        return torch.zeros(100, dtype=torch.long)

    return predict


def test_a_spy_finds_no_answers_of_episodes(older):
    result = one_draw("lab_4", spy_on_episodes)
    assert result.state == "scored" and result.rung == 0, result
    assert result.measures["1-shot"] == result.measures["5-shot"] == [0.1], "it found something"


def spoils_its_inputs(train):
    for x, _ in train.values():
        x.zero_()
    train.clear()
    naive = answers.lab_4_naive(train)

    def predict(support_x, support_y, query_x):
        named = naive(support_x, support_y, query_x)
        for given in (support_x, support_y, query_x):
            given.zero_()
        return named

    return predict


def test_an_answer_that_spoils_its_episodes_is_scored_as_any():
    spoilt = one_draw("lab_4", spoils_its_inputs)
    assert spoilt.measures == one_draw("lab_4", answers.lab_4_naive).measures


def test_episodes_hold_the_same_letters_in_support_and_query():
    from mtl_course.labs import lab_4

    train, episodes, y = labs.practice("lab_4", seed=2)
    assert [len(e.support_y) for e in episodes] == [10] * 40 + [50] * 40
    assert y.shape == (80, 100)
    for e, answer in zip(episodes, y, strict=True):
        assert e.support_x.shape == (len(e.support_y), 16, 16)
        assert e.query_x.shape == (100, 16, 16)
        assert e.support_y.bincount().tolist() == [len(e.support_y) // 10] * 10
        assert answer.bincount().tolist() == [10] * 10
        assert not torch.equal(answer, answer.sort().values), "the order tells the letters"
    assert not set(lab_4.SCRIPTS) & set(lab_4.TRAIN) and set(train) == set(lab_4.TRAIN)
    for x, labels in train.values():
        assert labels.bincount().unique().tolist() == [12] and len(x) == len(labels)


def test_no_letter_of_practice_is_held_out_or_trained_on(monkeypatch):
    from mtl_course.labs import lab_4

    pictures, names, *rest = lab_4.printed()
    marked = names[:, None, None].expand_as(pictures).float()  # each picture tells its letter
    monkeypatch.setattr(lab_4, "printed", lambda: (marked, names, *rest))
    monkeypatch.setattr(lab_4, "written", lambda x, generator: x)
    seen = {}
    for part in ("practice", "held-out"):
        (train,), episodes, y = lab_4.draw(part, 3)
        for e, answer in zip(episodes, y, strict=True):
            letter = torch.stack([e.support_x[e.support_y == c][0, 0, 0] for c in range(10)])
            assert torch.equal(e.query_x[:, 0, 0], letter[answer]) and len(letter.unique()) == 10
        seen[part] = set(torch.cat([e.query_x for e in episodes]).unique().tolist())
        seen["train"] = set(torch.cat([x for x, _ in train.values()]).unique().tolist())
    assert not seen["practice"] & seen["held-out"] and len(seen["held-out"]) == 38
    assert not seen["train"] & (seen["practice"] | seen["held-out"])


@pytest.mark.parametrize(
    "named, message",
    [
        (lambda x: torch.zeros(75, dtype=torch.long), "shape [75]; [100] is wanted"),
        (lambda x: torch.full((100,), 10), "labels from 10 to 10; they go from 0 to 9"),
        (lambda x: x.flatten(1).sum(1), "whole numbers are wanted"),
    ],
)
def test_names_that_fit_no_episode_are_refused(named, message):
    result = one_draw("lab_4", lambda train: lambda support_x, support_y, query_x: named(query_x))
    assert result.state == "error" and message in result.detail, result.detail


class Agreeable(torch.Tensor):
    def __eq__(self, other):
        return torch.ones(56, dtype=torch.bool)

    def tolist(self):
        return [1] * 56


class Always(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


WRONG = {
    "None": (lambda asked: None, "type is NoneType; a tensor or array with 56 class numbers"),
    "an object": (lambda asked: object(), "type is object; a tensor"),
    "scores": (lambda asked: torch.rand(56, 2), "shape [56, 2]"),
    "too few": (lambda asked: torch.zeros(3, dtype=torch.long), "shape [3]"),
    "floats": (lambda asked: torch.zeros(56), "whole numbers are wanted"),
    "nan": (lambda asked: torch.full((56,), float("nan")), "56 of 56 are not finite"),
    "labels out of range": (lambda asked: torch.full((56,), 7), "labels from 7 to 7"),
    "texts": (lambda asked: ["a"] * 56, "whole numbers are wanted"),
    "truths": (lambda asked: asked > 0, "whole numbers are wanted"),
    "ragged": (lambda asked: [[1], [1, 2]], "no even list"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_answer_is_said(small, kind):
    predict, message = WRONG[kind]
    result = small(lambda x, y: predict)
    assert result.state == "error" and message in result.detail, result.detail
    assert result.rung == 0 and result.value is None


@pytest.mark.parametrize(
    "predict",
    [
        lambda asked: torch.zeros(56, dtype=torch.long).as_subclass(Agreeable),
        lambda asked: [Always(0) for _ in range(56)],
    ],
    ids=["a tensor that agrees", "numbers that agree"],
)
def test_an_oracle_that_calls_itself_equal_earns_nothing(small, predict):
    result = small(lambda x, y: predict)
    assert result.rung == 0, result


def test_a_constant_is_scored_as_what_it_is(small):
    result = small(lambda x, y: lambda asked: [1] * 56)
    assert result.state == "scored" and result.value < 0.7


def breaks(x, y):
    def predict(asked):
        return asked.no_such_thing

    return predict


def test_an_error_comes_with_the_learners_own_line(small):
    result = small(breaks)
    assert result.state == "error" and "`predict` raised AttributeError" in result.detail
    assert "return asked.no_such_thing" in result.detail
    assert "scorer.py" not in result.detail
    assert "asked.no_such_thing" in result._repr_html_()


def test_what_learn_returns_must_be_a_function(small):
    result = small(lambda x, y: 3)
    assert (
        result.state == "error"
        and "`learn` returned a value of type int; it must return" in result.detail
    )


def endless(x, y):
    while True:
        with contextlib.suppress(BaseException):
            x = x * 1.0


def sleeps(x, y):
    time.sleep(600)


def late(x, y):
    def predict(asked):
        while True:
            pass

    return predict


@pytest.mark.parametrize("answer", [endless, sleeps, late])
def test_what_does_not_end_is_over_the_budget(small, answer):
    start = time.perf_counter()
    result = small(answer)
    assert result.state == "timeout" and "budget" in repr(result)
    assert "1 s of processor time" in result.detail or "it went on after" in result.detail
    assert time.perf_counter() - start < 60


def test_leaving_python_is_said(small, anywhere):
    if anywhere == "kernel":
        pytest.skip("the kernel itself would end")
    result = small(lambda x, y: os._exit(3))
    assert result.state == "error" and "Python came to an end" in result.detail


def forks(x, y):
    if os.fork() == 0:
        os._exit(0)


def reads_in_a_worker(x, y):
    next(iter(torch.utils.data.DataLoader(x, num_workers=1)))


def calls_a_program(x, y):
    import subprocess

    subprocess.run(["true"])


@pytest.mark.parametrize("answer", [forks, reads_in_a_worker, calls_a_program])
def test_work_in_another_process_would_not_count_and_is_refused(answer):
    result = scorer.scored(SMALL, LAB, answer, SMALL.seeds)
    assert result.state == "error" and "one process and starts no other" in result.detail, result


def test_nothing_to_score_is_said(small):
    assert small(None).state == "missing"
    assert "a value of type int, not a function" in small(3).detail


def test_an_unknown_lab_is_named():
    with pytest.raises(ValueError, match=r"There is no lab 'lab_33'\. Did you mean lab_3\?"):
        labs.score("lab_33")
    with pytest.raises(ValueError, match="There is no lab"):
        labs.practice("exercise")


@pytest.mark.parametrize("name", NAMES)
def test_practice_gives_other_tasks_than_those_held_out(name):
    first, again, other = (labs.practice(name, seed) for seed in (0, 0, 1))
    last = [one[-1]["letter"] if name == "lab_5" else one[-1] for one in (first, again, other)]
    numbers = [torch.as_tensor(one).flatten().double() for one in last]
    assert torch.equal(numbers[0], numbers[1])
    assert numbers[0].shape != numbers[2].shape or not torch.equal(numbers[0], numbers[2])


def test_numbers_to_be_scored_are_finite_and_of_the_right_count():
    assert real_numbers(np.array([1, 2.5]), 2) == [1.0, 2.5]
    for value, message in [
        ([1.0, float("nan")], "1 of 2 are not finite, the first at place 1"),
        ([1.0, float("inf")], "not finite"),
        ([1.0], "shape"),
        (torch.ones(2, dtype=torch.complex64), "real numbers"),
    ]:
        with pytest.raises(rungs.Refused, match=message):
            real_numbers(value, 2)


def test_a_rung_above_a_gap_is_not_reached():
    ladder = (
        at_least("a", "accuracy", 0.9, ""),
        at_least("b", "accuracy", 0.5, ""),
    )
    from dataclasses import replace

    task = replace(SMALL, rungs=ladder)
    assert task.rung({"accuracy": [0.6]}) == 0 and task.rung({"accuracy": [0.9]}) == 2


# ---------------------------------------------------------------------------- what is kept of it
def test_progress_keeps_the_best_rung_and_shows_it(small, home):
    small(lambda x, y: lambda asked: ((asked > 0) & (asked < 1)).long())
    small(breaks)
    entry = json.loads((home / "progress.json").read_text())["exercises"]["lab_0"]
    assert entry["score"] == 1 and entry["tries"] == 2 and entry["state"] == "wrong"
    assert 0.7 < entry["value"] < 0.99
    text, card = repr(progress()), progress()._repr_html_()
    assert "✗ Lab 0. Small" in text and "rung 1 of 2, 2 tries" in text
    assert "Lab 0. Small rung 1 of 2, 2 tries" in card
    small(lambda x, y: lambda asked: (asked > 0).long())
    assert "✓ Lab 0. Small" in repr(progress())
    assert f"Labs: 1 of {len(chapters.LABS)} begun" in repr(progress())


def test_a_measure_that_is_no_number_is_not_kept(home):
    entry, _ = store.record_lab("lab_3", "wrong", 1, 0.3)
    assert entry["value"] == 0.3
    entry, _ = store.record_lab("lab_3", "wrong", 2, float("nan"))
    assert (entry["value"], entry["score"], entry["tries"]) == (0.3, 2, 2)
    assert store.load()[0]["lab_3"] == entry


@pytest.mark.parametrize("value", ['"a"', "NaN", "[1]"])
def test_a_damaged_entry_of_a_lab_is_set_aside(home, value):
    home.mkdir()
    entry = '{"state": "wrong", "tries": 1, "score": 1, "value": ' + value + "}"
    (home / "progress.json").write_text('{"exercises": {"lab_3": ' + entry + "}}")
    entries, note = store.load()
    assert entries == {} and "damaged" in note


class Page(HTMLParser):
    """What the tests of a page ask of it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def test_what_was_done_is_saved_as_a_page(tmp_path, small):
    small(lambda x, y: lambda asked: (asked > 0).long())
    shown = progress(save=tmp_path / "my_course.html")
    assert "Saved as" in repr(shown) and "my_course.html" in repr(shown)
    text = (tmp_path / "my_course.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    said = " ".join(page.words)
    assert "Lab 0. Small" in said and "2 of 2" in said and "top rung" in said
    assert all(e.name in said for e in shown.exercises)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_the_page_needs_nothing_else_and_reads_without_seeing(tmp_path):
    text = summary.page(progress())
    page = Page(text)
    assert not re.search(r"https?://|src=|url\(|@import|<script|<link", text)
    assert "thead th, td { overflow-wrap: normal; }" in text, "no heading is cut inside a word"
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("table") == tags.count("caption") == tags.count("h2")
    heads = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(heads) == {"col", "row"}
    signs = [a for tag, a in page.tags if tag == "span"]
    assert all(a["aria-hidden"] == "true" for a in signs), "the word beside it says the same"
    assert "<" not in chapters.LABS[NAMES[0]].title


def test_what_cannot_be_a_page_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"let it end in \.html"):
        progress(save=tmp_path / "my_course.txt")
    with pytest.raises(OSError):
        progress(save=tmp_path / "nowhere" / "my_course.html")
    shown = store.Progress(list(progress().exercises), {}, None)
    shown.exercises[0] = shown.exercises[0].__class__(**{**vars(shown.exercises[0]), "name": "<b>"})
    assert "&lt;b&gt;" in summary.page(shown) and "<b>" not in summary.page(shown)
