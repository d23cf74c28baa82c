"""The search for settings: both ways find the top of a hill, prune what is behind, and give the
same trials again for the same seed.
"""

import math

import pytest

from mtl_course.training import tuning


def hill(suggest):
    """Best at a rate of 0.01; every stage gets nearer to the final score."""
    off = abs(math.log10(suggest("rate", 1e-4, 1.0)) + 2)
    for stage in (1, 2, 3):
        yield -off - 1 / stage


WAYS = [tuning.random_search, tuning.optuna_search]


@pytest.mark.parametrize("way", WAYS)
def test_finds_the_top_and_prunes_what_is_behind(way):
    found = way(hill, 30, seed=1)
    assert abs(math.log10(tuning.best(found).settings["rate"]) + 2) < 0.2
    assert len(found) == 30 and not any(trial.ended for trial in found[:4])
    ended = [trial for trial in found if trial.ended]
    assert ended and all(
        len(trial.scores) < 3 or trial.scores[-1] < tuning.best(found).scores[-1] for trial in ended
    )
    assert sum(len(trial.scores) for trial in found) < 3 * 30


@pytest.mark.parametrize("way", WAYS)
def test_settings_stay_in_their_range_and_a_seed_fixes_them(way):
    runs = [way(hill, 8, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert all(1e-4 <= trial.settings["rate"] <= 1.0 for trial in runs[0])


@pytest.mark.parametrize("way", WAYS)
def test_a_diverged_trial_is_a_trial_and_cleans_up(way):
    closed = []

    def objective(suggest):
        rate = suggest("rate", 1e-4, 1.0)
        try:
            yield -1.0
            if rate > 1e-2:
                raise FloatingPointError("diverged")
            yield rate
        finally:
            closed.append(rate)

    found = way(objective, 12)
    assert len(found) == len(closed) == 12 and all(
        trial.ended for trial in found if trial.settings["rate"] > 1e-2
    )
    assert tuning.best(found).settings["rate"] <= 1e-2


def test_no_whole_trial_is_an_error():
    with pytest.raises(ValueError, match="None of the 3 trials ran to its end"):
        tuning.best([tuning.Trial(ended=True)] * 3)


def test_the_search_takes_optuna_where_it_is(monkeypatch):
    assert tuning.search(hill, 6) == tuning.optuna_search(hill, 6)
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    assert tuning.search(hill, 6) == tuning.random_search(hill, 6)
