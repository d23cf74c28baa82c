"""Chapter 24: its experiment, and that its parts are what the text says."""

from mtl_course.experiments import ch24


def test_the_experiment_has_one_result_per_seed():
    lines = []
    results = ch24.run("cpu", range(3), lines.append)
    assert set(results) == {"mean", "first"} and len(lines) == 3
    assert all(len(errors) == 3 for errors in results.values())
    assert results == ch24.run("cpu", range(3), lines.append), "a seed decides a result"


def test_a_mean_of_many_is_closer_than_one():
    results = ch24.run("cpu", range(20), lambda line: None)
    assert sum(results["mean"]) < sum(results["first"])
