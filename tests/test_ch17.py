"""Chapter 17's experiment: families that do not leak, methods that are judged alike, and the whole of it at a tiny size."""

from dataclasses import replace

import pytest
import torch

from mtl_course.experiments import ch17

TINY = replace(ch17.PLANS["cpu"], steps=2, tasks=4, width=8, judged=3)


def test_methods_see_the_same_meta_batches_and_start_alike():
    family = ch17.waves(TINY, 0)
    still = replace(TINY, steps=0)
    starts = [ch17.train(method, family, still, 3, 1e-3) for method in ("MAML", "pretraining")]
    for a, b in zip(*(f.model.parameters() for f in starts), strict=True):
        assert torch.equal(a, b)


def test_test_schools_are_never_trained_on(monkeypatch):
    students, _, school = ch17._students()
    family = ch17.schools(replace(TINY, tasks=28), 0)

    def seen(episodes):
        rows = torch.cat([episodes["score"].support[0].flatten(0, 1), episodes["score"].query[0].flatten(0, 1)])
        return {tuple(row) for row in rows.tolist()}

    # every school has mean features of its own in columns 4 to 8 (intake), which tell schools apart
    key = lambda rows: {row[4] for row in rows}  # noqa: E731
    trained, validated, tested = (key(seen(e)) for e in (family.draw(torch.Generator().manual_seed(0)), family.validation, family.test))
    assert not trained & tested and not validated & tested and not trained & validated


def test_no_adaptation_is_among_the_choices_and_all_have_as_many():
    assert (0, 0.0) in ch17.INNER and len(set(ch17.INNER)) == len(ch17.INNER)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_whole_experiment_runs_at_a_tiny_size(profile, monkeypatch):
    monkeypatch.setitem(ch17.PLANS, profile, TINY)
    monkeypatch.setattr(ch17, "INNER", ((0, 0.0), (1, 0.01)))
    found = ch17.run(profile, [0])
    assert found.keys() == {"sinusoids", "schools"}
    for name, kinds in {"sinusoids": {"wave"}, "schools": {"score", "above"}}.items():
        assert found[name].keys() == {"scratch", *ch17.METHODS}
        for rows in found[name].values():
            assert rows.keys() == kinds and all(row[0]["test"] > 0 for row in rows.values())
            if name == "schools":
                assert all(row[0]["steps"] in (0, 1) for row in rows.values())


def test_an_inner_loop_that_diverges_is_a_trial_without_a_chance():
    family = ch17.waves(TINY, 0)
    f = ch17.train("MAML", family, TINY, 0, 1e-3)
    assert ch17.judge(f, family, family.validation, 60, 1e4, "MAML") == {"wave": float("inf")}
