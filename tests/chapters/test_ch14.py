"""Chapter 14: lessons, students side by side, the record against a run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course import records
from mtl_course.exercises import ch14 as exercises
from mtl_course.experiments import ch14, ch14_two
from mtl_course.experiments.ch14 import Lesson, Plan
from mtl_course.experiments.common import seeded
from mtl_course.transfer.compression import quantize
from mtl_course.transfer.distillation import kd_loss, kd_losses, teacher_outputs

TINY = replace(
    Plan(),
    shares=(300, 60, 100),
    channels=(4, 8),
    features=16,
    teacher_steps=30,
    width=8,
    widths=(4,),
    few=(1, 3),
    steps=15,
    batch=16,
    rates=(0.01, 0.03),
    temperatures=(1.0, 4.0),
)
PAIR = replace(
    ch14_two.Pair(),
    digits=(30, 10, 10),
    labelled=60,
    free=40,
    held_out=(50, 50),
    channels=(4, 8),
    features=16,
    teacher_steps=20,
    width=8,
    steps=10,
    rates=(0.01, 0.03),
)


@pytest.fixture(scope="module")
def room():
    return ch14.Class(TINY, 3)


# ---------------------------------------------------------------------------------------- lessons
def test_parts_of_a_split_share_no_image():
    rows = ch14.split(Plan(), 3)
    assert [len(part) for part in rows.values()] == [3500, 500, 1000]
    assert len(torch.cat(list(rows.values())).unique()) == 5000


def test_the_loss_of_many_students_is_the_packages_added_up():
    g = torch.Generator().manual_seed(0)
    z, v, T = torch.randn(3, 5, 10, generator=g), torch.randn(3, 5, 10, generator=g), [1.0, 2.5, 8]
    v[0] = ch14.certain(torch.arange(5))
    want = sum(kd_loss(a, b, t) for a, b, t in zip(z, v, T, strict=True))
    torch.testing.assert_close(ch14.divergence(z, v, torch.tensor(T)), want)


def test_a_label_is_a_teacher_that_is_certain():
    z, y = torch.randn(5, 10), torch.tensor([0, 3, 9, 3, 1])
    loss = ch14.divergence(z[None], ch14.certain(y)[None], torch.ones(1))
    torch.testing.assert_close(loss, F.cross_entropy(z, y))


def test_a_teacher_that_is_asked_answers_the_very_view(room):
    place = torch.rand(16, generator=torch.Generator().manual_seed(0))
    for variant in ("shifted", "mixed"):
        lesson = room.lesson("teacher", variant, room.some(3))
        x, goals = ch14.lesson_batch(lesson, place, room.teacher, 5)
        with torch.no_grad():
            torch.testing.assert_close(goals, room.teacher(x))
        asked = {}
        for T in (1.0, 8.0):
            hot = replace(lesson, temperature=T)
            _, same = ch14.lesson_batch(hot, place, room.teacher, 5, asked)
            assert torch.equal(same, goals) and len(asked) == 1, "other T, same question"
        labels = room.lesson("labels", variant, room.some(3))
        same, _ = ch14.lesson_batch(labels, place, None, 5)
        assert torch.equal(x, same), "labels and teacher see the same images"


def test_a_mixture_of_labels_has_their_shares(room):
    lesson = room.lesson("labels", "mixed", room.some(3))
    x, goals = ch14.lesson_batch(lesson, torch.rand(16), None, 5)
    p = F.softmax(goals, dim=1)
    assert x.shape == (16, 1, 16, 16)
    torch.testing.assert_close(p.sum(1), torch.ones(16))
    assert bool(((p > 0).sum(1) <= 2).all()) and bool(((p > 0).sum(1) == 2).any())


def test_images_as_they_are_keep_their_answers(room):
    rows = room.some(1)
    x, goals = ch14.lesson_batch(room.lesson("teacher", "plain", rows), torch.rand(16), None, 5)
    assert {tuple(v.tolist()) for v in goals} <= {tuple(v.tolist()) for v in room.answers[rows]}
    assert x.shape == (16, 1, 16, 16)


def test_students_side_by_side_are_students_one_by_one(room):
    lessons = [
        room.lesson("labels", "plain", room.some(3)),
        room.lesson("teacher", "mixed", room.some(3)),
    ]
    together = ch14.train_students(TINY, 3, lessons, room.teacher)
    for k, lesson in enumerate(lessons):
        alone = ch14.train_students(replace(TINY, rates=(0.03,)), 3, [lesson], room.teacher)
        for name, p in alone.items():
            torch.testing.assert_close(together[name][2 * k + 1], p[0], rtol=1e-4, atol=1e-5)


def test_one_that_diverges_disturbs_no_other(room):
    lesson = room.lesson("teacher", "plain", room.some(3), 16.0)
    both = ch14.train_students(replace(TINY, rates=(0.01, 1e30)), 3, [lesson])
    alone = ch14.train_students(replace(TINY, rates=(0.01,)), 3, [lesson])
    assert not all(p[1].isfinite().all() for p in both.values())
    for name, p in alone.items():
        torch.testing.assert_close(both[name][0], p[0])


def test_without_weight_the_features_change_nothing(room):
    alone = room.judged([room.lesson("teacher", "plain", room.some(3))])["teacher, plain"]
    with_none = ch14.with_features(room, few=3, strength=0.0)["both"]
    assert with_none == ch14.plain(alone)
    assert ch14.with_features(room, few=3, strength=10.0)["both"] != with_none


def test_students_without_some_digits_never_see_them(room, monkeypatch):
    used = []

    def look(lessons, width=None, seen=None):
        used.extend([*(lesson.rows for lesson in lessons), seen])
        return {}

    monkeypatch.setattr(room, "judged", look)
    ch14.without_some(room)
    assert len(used) == 4
    for rows in used:
        assert not torch.isin(room.y[rows], torch.tensor(TINY.missing)).any() and len(rows)


def test_no_label_chooses_a_student_that_has_none(room, monkeypatch):
    lessons = [room.lesson("teacher", "plain", room.some(3))]
    before = room.judged(lessons)["teacher, plain"]
    y = room.y
    spoilt = y.clone()
    spoilt[room.rows["validation"]] = (y[room.rows["validation"]] + 1) % 10
    monkeypatch.setattr(room, "y", spoilt)
    after = room.judged(lessons)["teacher, plain"]
    assert after["validation"] == before["validation"] and after["rate"] == before["rate"]


def test_steps_are_those_of_sgd_on_the_packages_loss(room):
    plan = replace(TINY, rates=(0.03,), steps=3)
    lesson = room.lesson("teacher", "mixed", room.some(3), 2.5)
    params = ch14.train_students(plan, 3, [lesson], room.teacher)
    student = seeded(lambda: ch14.student_of(plan.width), 10_003)
    sgd = torch.optim.SGD(student.parameters(), 0.03, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, plan.steps)
    order = torch.Generator().manual_seed(3)
    for step in range(plan.steps):
        place = torch.rand(plan.batch, generator=order)
        x, goals = ch14.lesson_batch(lesson, place, room.teacher, 3 * plan.steps + step)
        loss = kd_loss(student(x), goals, 2.5)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        falling.step()
    for name, p in student.named_parameters():
        torch.testing.assert_close(params[name][0], p.detach(), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------- what is derived
def test_what_the_exercises_ask_for_is_what_the_package_has():
    g = torch.Generator().manual_seed(0)
    z, v = (torch.randn(6, 5, generator=g, dtype=torch.float64) for _ in "zv")
    torch.testing.assert_close(exercises.distillation_loss(z, v, 3.0), kd_loss(z, v, 3.0))
    z.requires_grad_()
    (slope,) = torch.autograd.grad(kd_loss(z, v, 1e6), z)
    torch.testing.assert_close(exercises.hot_gradient(z, v), slope, rtol=1e-3, atol=1e-6)
    outputs = {"left": z, "right": z[:, :3] * 2}
    answers = {"right": v[:, :3], "left": v}
    none = dict.fromkeys(outputs, torch.full((6,), -1))
    loss = exercises.several_teachers_loss(outputs, answers, none, 3.0)
    torch.testing.assert_close(loss, sum(kd_losses(outputs, answers, 3.0).values()))
    weight = torch.cat([v, torch.zeros(1, 5).double()])
    for mine, ours in zip(exercises.one_byte(weight), quantize(weight), strict=True):
        assert torch.equal(mine, ours)


# ------------------------------------------------------------------------------------- two teachers
def test_no_image_has_both_labels():
    parts = ch14_two.images(PAIR, 0)
    for task, other in (("left", "right"), ("right", "left")):
        x, labels = parts[task]
        assert len(x) == 60 and bool((labels[other] == ch14_two.NONE).all())
        assert bool((labels[task] >= 0).all())
    x, labels = parts["both"]
    assert torch.equal(x[:60], parts["left"][0]) and bool((labels["right"] >= 0).all())


def test_the_experiment_with_two_teachers_runs_at_a_tiny_size():
    lines = []
    found = ch14.run_two([0, 1, 2], lines.append, plan=PAIR)
    assert len(lines) == 3 and all(len(row["left"]) == 3 for row in found.values())
    assert found.keys() == {
        "one label per image",
        "both labels",
        "two teachers",
        "two teachers, more images",
        "the teachers",
    }


# --------------------------------------------------------------------------------------- the record
def near(value, recorded):
    """Whether a value is within the spread of the record's seeds."""
    recorded = np.array(recorded)
    return abs(value - recorded[0]) < 3 * recorded.std(ddof=1) + 0.01


@pytest.mark.slow
def test_one_seed_of_the_record_is_within_its_spread():
    record = records.load("14", "cpu")
    rows, seed = record.results["images"]["10"], record.provenance["seeds"][0]
    plan = Plan()
    room = ch14.Class(plan, seed)
    for side in ch14.SIDES:
        lesson = room.lesson(side, "mixed", room.some(10))
        row = rows[lesson.name]
        room.plan = replace(plan, rates=(row["rate"][0],))
        assert near(room.judged([lesson])[lesson.name]["test"], row["test"]), side


@pytest.mark.slow
def test_one_seed_of_the_record_with_two_teachers_is_within_its_spread():
    record = records.load("14", "two")
    seed, way = record.provenance["seeds"][0], "two teachers"
    plan = replace(ch14.Pair(), rates=(record.results[way]["rate"][0],), steps=1000)
    parts = ch14_two.images(plan, seed)
    x, _ = parts["both"]
    teachers = {
        task: ch14_two.teacher(plan, task, *(parts[task][0], parts[task][1][task]), seed)
        for task in ch14_two.TASKS
    }
    answers = teacher_outputs(teachers, x)
    student = ch14_two.from_teachers(plan, x, answers, plan.rates[0], seed)
    new, truth = parts["test"]
    for task in ch14_two.TASKS:
        right = float((student(new)[task].argmax(1) == truth[task]).float().mean())
        assert near(right, record.results[way][task]), task


def test_the_whole_experiment_runs_at_a_tiny_size():
    lines = []
    found = ch14.run("cpu", [0, 1, 2], lines.append, plan=TINY)
    assert len(lines) == 3 and len(found["teacher"]) == 3
    assert found["images"].keys() == {"1", "3", "all"}
    row = found["images"]["1"]["labels, mixed"]
    assert len(row["test"]) == 3 and [len(v) for v in row["validation"]] == [2, 2, 2]
    assert found["missing"].keys() == {"labels", "1", "4"}
    assert found["width"]["4"].keys() == {"labels, plain", "teacher, plain"}
    assert found["features"].keys() == {"both"}
    assert found["elsewhere"].keys() == {"shuffled", "UCI"}
    assert len(ch14.better(found["images"]["all"], "teacher")) == 3


def test_the_better_variant_is_chosen_on_validation_and_not_on_the_test():
    rows = {
        "labels, plain": {"validation": [[0.1, 0.9], [0.2, 0.3]], "test": [0.5, 0.6]},
        "labels, shifted": {"validation": [[0.8, 0.7], [0.4, 0.1]], "test": [0.9, 0.7]},
    }
    assert ch14.better(rows, "labels", ("plain", "shifted")) == [0.5, 0.7]


def test_lessons_may_have_images_of_their_own():
    images = torch.randn(5, 1, 16, 16)
    lesson = Lesson("own", torch.arange(5), torch.zeros(5, 10), images=images)
    x, _ = ch14.lesson_batch(lesson, torch.rand(8), None, 0)
    assert all(any(torch.equal(a, b) for b in images) for a in x)
