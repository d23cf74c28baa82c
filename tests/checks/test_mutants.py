"""The machine that makes mutants and odd answers, on throw-away exercises.

It tells a strong check from a weak one.
"""

import dataclasses

import pytest
import torch
from exercise_tools import ODD, RESULTS, answer_from, mutants, survivors, unlisted
from sample_exercises import SAMPLES

from mtl_course.checks.exercise import Exercise
from mtl_course.checks.rows import draw_cases, examine


def test_a_strong_check_lets_no_mutant_pass_but_the_equivalent():
    assert survivors(SAMPLES["weighted"]) == ([], 18)
    alive, _ = survivors(SAMPLES["project"])
    # Dot products commute, and at dot == 0 the correction is 0. The third is for stronger inputs
    # to catch.
    assert alive == [
        "dot = g_i @ g_j  =>  dot = g_j @ g_i",
        "if dot < 0:  =>  if dot <= 0:",
        "if dot < 0:  =>  if dot < -1:",
    ]


def test_a_weak_check_is_seen_to_be_weak():
    shape_only = dataclasses.replace(
        SAMPLES["weighted"],
        call=lambda answer, *args: torch.zeros_like(answer(*args)),
        grad=False,
        laws=[],
    )
    alive, made = survivors(shape_only)
    assert len(alive) > made / 3


def test_mutants_are_of_every_kind_and_only_of_what_the_learner_writes():
    def example(x, y=3, *, keep=None):
        """The docstring, with 1 number."""
        given = 10  # noqa: F841
        ### BEGIN SOLUTION
        total = -(x + y).detach().sum(dim=0, keepdim=True)
        if total < 1 and keep is not None:
            total = torch.where(total, x, y)
        total += 2
        while total > 3:
            total = [t for t in total if t]
        return total
        ### END SOLUTION

    made = mutants(Exercise("example", example, []))
    text = "\n".join(made)
    for part in (
        "(x - y)",
        "-x.detach()",
        "total = (x + y).detach()",
        ".mean(dim=0",
        "sum(keepdim=True)",
        "sum(dim=1",
        "keepdim=False",
        "-(x + y).sum(",
        "if total >= 1",
        "if total <= 1",
        "total < 1 or",
        "keep is None",
        "if True:",
        "if False:",
        "torch.where(x, total, y)",
        "total -= 2",
        "total = 2",
        "while False",
        "[t for t in total]",
        "return x",
        "=>  pass",
    ):
        assert part in text, part
    assert all(
        "given = 10" in source
        and "def example(x, y=3, *, keep=None)" in source
        and "with 1 number" in source
        for source in made.values()
    )
    for source in made.values():
        compile(source, "mutant", "exec")


def test_every_mutant_is_one_change():
    assert len(set(mutants(SAMPLES["project"]).values())) == len(mutants(SAMPLES["project"]))


def test_there_are_forty_odd_answers():
    assert len(ODD) >= 40 and len(RESULTS) >= 30


@pytest.mark.parametrize(
    "name", [n for n, e in SAMPLES.items() if not isinstance(e.reference, type)]
)
def test_unlisted_answers_are_wrong(name):
    exercise = SAMPLES[name]
    wrong = unlisted(exercise)
    assert len(wrong) == 3
    for answer in wrong:
        assert examine(exercise, answer, draw_cases(exercise, 0, 3)).state == "wrong"


def test_answers_from_source_see_the_names_of_the_exercises_module():
    answer = answer_from(SAMPLES["weighted"], SAMPLES["weighted"].solution)
    assert answer(torch.ones(2), torch.zeros(2)) == 2
