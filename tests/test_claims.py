"""Claims: they print mean and spread, stop a strict run when they fail, and stay calm for a
learner.
"""

import html
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtl_course import claims
from mtl_course.claims import ClaimFailed, claim, summary


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_STRICT", "1")


@pytest.fixture
def calm(monkeypatch):
    monkeypatch.delenv("MTL_COURSE_STRICT", raising=False)


JOINT, SINGLE = [0.40, 0.42, 0.41], [0.30, 0.31, 0.35]


def test_a_claim_that_holds_prints_its_evidence(strict, capsys):
    claim(
        "Joint beats single",
        np.mean(JOINT) > np.mean(SINGLE),
        evidence={"joint": JOINT, "single": np.array(SINGLE), "tasks": 2},
    )
    assert (
        capsys.readouterr().out
        == "✓ holds: Joint beats single\n    joint: 0.410 ± 0.010 (3 seeds)\n    single: 0.320 ±"
        " 0.026 (3 seeds)\n    tasks: 2\n"
    )


def test_a_claim_that_fails_stops_a_strict_run(strict, capsys):
    with pytest.raises(
        ClaimFailed, match=r"(?s)does not hold: Single beats joint.*joint: 0.410 ± 0.010"
    ):
        claim("Single beats joint", np.mean(JOINT) < np.mean(SINGLE), evidence={"joint": JOINT})
    assert issubclass(ClaimFailed, AssertionError)
    assert capsys.readouterr().out == ""


def test_a_claim_that_fails_is_said_calmly_to_a_learner(calm, capsys):
    claim("Single beats joint", False, evidence={"joint": JOINT})
    said = capsys.readouterr()
    assert (
        said.out.startswith("✗ does not hold in this run: Single beats joint\n")
        and "fine if you changed a setting" in said.out
    )
    assert said.err == ""


@pytest.mark.parametrize("value, is_strict", [("1", True), ("0", False), ("", False)])
def test_strict_is_an_environment_variable(monkeypatch, value, is_strict):
    monkeypatch.setenv("MTL_COURSE_STRICT", value)
    assert claims.strict() is is_strict


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.5], np.ones(2), torch.ones(1), []])
def test_fewer_than_three_seeds_are_no_evidence(strict, values):
    with pytest.raises(ClaimFailed, match=r"at least 3 seeds, but 'joint' has \d: Joint wins"):
        claim("Joint wins", True, evidence={"joint": values})


def test_fewer_than_three_seeds_are_said_calmly_to_a_learner(calm, capsys):
    claim("Joint wins", True, evidence={"joint": [0.4], "single": [0.1, 0.2, 0.3]})
    said = capsys.readouterr().out
    assert "joint: 0.4\n" in said and "single: 0.200 ± 0.100" in said
    assert "Fewer than 3 seeds are no evidence either way." in said


@pytest.mark.parametrize("holds", [np.bool_(True), torch.tensor(True), 1])
def test_anything_that_is_true_holds(strict, holds, capsys):
    claim("True", holds)
    assert capsys.readouterr().out == "✓ holds: True\n"


def test_one_verdict_a_seed_is_not_a_verdict(strict):
    with pytest.raises(ValueError):
        claim("Joint beats single", np.array(JOINT) > np.array(SINGLE))


@pytest.mark.parametrize(
    "values, text",
    [
        ([0.4134, 0.4245, 0.4351, 0.4240, 0.4231], "0.424 ± 0.008 (5 seeds)"),
        ([1e-7, 3e-7, 5e-7], "0.00000030 ± 0.00000020 (3 seeds)"),
        ([0.1, 0.102, 0.104], "0.102 ± 0.002 (3 seeds)"),
        ([0.1, 0.1003, 0.1006], "0.10030 ± 0.00030 (3 seeds)"),
        ([1234.0, 1300.0, 1290.5], "1274.833 ± 35.680 (3 seeds)"),
        ([2e-9, 2e-9, 2e-9], "2e-09 ± 0 (3 seeds)"),
        ([1.0, float("nan"), 2.0], "nan ± nan (3 seeds)"),
        (0.123456, "0.1235"),
        (7, "7"),
        (torch.tensor([1.0, 2.0, 3.0]), "2.000 ± 1.000 (3 seeds)"),
    ],
)
def test_summary(values, text):
    assert summary(values) == text


# ------------------------------------------------------------------------------------------- paired
def test_a_paired_difference_says_what_it_could_have_seen(strict, capsys):
    gain = claims.paired([0.82, 0.84, 0.83, 0.81, 0.85], [0.80, 0.81, 0.82, 0.80, 0.82])
    claim("Joint beats single", gain.above(), {"joint - single": gain, "tasks": 2})
    assert capsys.readouterr().out == (
        "✓ holds: Joint beats single\n"
        "    joint - single: 0.020 (standard error 0.004, 5 seeds);\n"
        "        beyond its 95 % limit of 0.012\n"
        "    tasks: 2\n"
    )


def test_a_difference_within_its_limit_says_what_would_have_shown():
    level = claims.Paired(mean=-0.004, error=0.004, limit=0.012, seeds=5)
    assert str(level) == (
        "-0.004 (standard error 0.004, 5 seeds); within its 95 % limit of 0.012:"
        " a larger difference would have been seen"
    )


@pytest.mark.parametrize("seeds, quantile", [(3, 4.303), (5, 2.776), (10, 2.262)])
def test_the_limit_is_the_t_quantile_times_the_error(seeds, quantile):
    a, b = np.random.RandomState(seeds).normal(size=(2, seeds))
    difference = claims.paired(a, b)
    assert difference.error == pytest.approx((a - b).std(ddof=1) / seeds**0.5)
    assert difference.limit / difference.error == pytest.approx(quantile, abs=1e-3)
    assert (difference.mean, difference.seeds) == (pytest.approx((a - b).mean()), seeds)


def test_the_interval_is_that_of_a_paired_t_test():
    scipy = pytest.importorskip("scipy.stats")
    a, b = np.random.RandomState(0).normal(size=(2, 8))
    low, high = scipy.ttest_rel(a, b).confidence_interval(0.95)
    difference = claims.paired(a, b)
    assert difference.mean - difference.limit == pytest.approx(low)
    assert difference.mean + difference.limit == pytest.approx(high)


def test_above_and_below_take_the_whole_interval():
    difference = claims.Paired(mean=0.02, error=0.004, limit=0.012, seeds=5)
    assert difference.above() and difference.above(0.007) and not difference.above(0.009)
    assert not difference.below() and difference.below(0.033) and not difference.below(0.031)


def test_the_order_of_the_seeds_matters_to_a_paired_difference():
    a, b = [1.0, 2.0, 3.0], [0.9, 1.9, 2.9]
    assert claims.paired(a, b).above() and not claims.paired(a, b[::-1]).above()
    assert claims.paired(a, b).error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "a, b", [([1, 2, 3], [1, 2]), ([1], [1]), (1.0, 2.0), ([[1, 2]], [[1, 2]]), ([], [])]
)
def test_what_is_not_paired_is_refused(a, b):
    with pytest.raises(ValueError, match="two lists with one value per seed"):
        claims.paired(a, b)


def test_two_pairs_are_too_few(strict):
    with pytest.raises(ClaimFailed, match="at least 3 seeds, but 'gain' has 2: Joint wins"):
        claim("Joint wins", True, {"gain": claims.paired([1, 2], [0, 1])})


# ---------------------------------------------------------------------------------------- collected
def test_claims_are_collected_where_a_file_is_named(calm, tmp_path, monkeypatch, capsys):
    file = tmp_path / "claims.jsonl"
    claim("Not collected", True)
    monkeypatch.setenv("MTL_COURSE_CLAIMS", str(file))
    claim("Ä", np.bool_(True), {"a": np.array(JOINT), "b": torch.tensor(2), "c": 1})
    claim("Single", False, {"gain": claims.paired(JOINT, SINGLE), "few": [0.5]})
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    evidence = {"a": JOINT, "b": 2, "c": 1}
    assert first == {"text": "Ä", "holds": True, "few": False, "evidence": evidence}
    assert (second["holds"], second["few"]) == (False, True)
    assert claims.Paired(**second["evidence"]["gain"]) == claims.paired(JOINT, SINGLE)
    assert capsys.readouterr().out.count("holds") == 2


def test_a_claim_that_stops_a_strict_run_is_collected(strict, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CLAIMS", str(tmp_path / "claims.jsonl"))
    with pytest.raises(ClaimFailed):
        claim("Single beats joint", False, {"joint": JOINT})
    assert '"holds": false' in (tmp_path / "claims.jsonl").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- as cards
@pytest.fixture
def shown(calm, monkeypatch):
    """The outputs that were shown."""
    outputs = []
    monkeypatch.setattr(claims, "show", outputs.append)
    return outputs


def words(page):
    """What a page shows of some HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_a_card_says_what_the_text_says(shown):
    gain = claims.paired([0.82, 0.84, 0.83, 0.81, 0.85], [0.80, 0.81, 0.82, 0.80, 0.82])
    claim("Joint beats single", True, {"joint": JOINT, "joint - single": gain, "tasks": 2})
    claim("Single beats joint", False, {"joint": JOINT})
    claim("Few", True, {"joint": [0.5]})
    for output in shown:
        assert words(output.html) == " ".join(output.text.replace(":", "", 1).split())
    assert [output.html.count("<li>") for output in shown] == [3, 1, 1]


def test_a_card_tells_its_verdict_without_colour(shown):
    claim("A", True)
    claim("A", False)
    good, bad = shown
    assert words(good.html) == "✓ holds A" and words(bad.html).startswith("✗ does not hold in this")
    assert "mtl-claim mtl-good" in good.html and "mtl-claim mtl-bad" in bad.html


def test_a_card_is_the_same_in_every_run(shown):
    for _ in range(2):
        claim("A", True, {"joint": JOINT})
    assert shown[0].html == shown[1].html and " id=" not in shown[0].html


def test_long_sentences_and_names_are_wrapped(shown):
    claim("A sentence that goes on and on " * 5, True, {"a long name of a method " * 4: JOINT})
    lines = shown[0].text.split("\n")
    assert max(map(len, lines)) <= 76 and len(lines) == 5
    assert lines[1].startswith("  sentence ") and lines[4].startswith("        a long")


def test_markup_in_a_claim(shown):
    claim("`fit` with $R^2 < 1$ & <b>", True, {"$\\lambda$": 1.0})
    assert shown[0].text == "✓ holds: `fit` with R² < 1 & <b>\n    λ: 1"
    assert ">fit</code>" in shown[0].html and "&amp; &lt;b&gt;" in shown[0].html
    assert "<i>λ</i>" in shown[0].html


def test_a_claim_is_displayed_in_a_kernel_and_printed_elsewhere(calm, monkeypatch, capsys):
    import IPython
    from IPython import display

    outputs = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(display, "display", outputs.append)
    claim("A", True)
    assert capsys.readouterr().out == "" and len(outputs) == 1
    assert repr(outputs[0]) == "✓ holds: A" and "mtl-claim" in outputs[0]._repr_html_()
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace())
    claim("A", True)
    assert capsys.readouterr().out == "✓ holds: A\n" and len(outputs) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "no-such"])
def test_a_claim_is_printed_on_any_console(calm, monkeypatch, encoding):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding if encoding[:2] != "no" else "ascii")
    if encoding == "no-such":
        console = SimpleNamespace(encoding=encoding, write=str, flush=str)
    monkeypatch.setattr("sys.stdout", console)
    claim("$\\sigma^2 \\le \\Lambda_1$", True, {"joint": JOINT})
    if encoding == "ascii":
        console.seek(0)
        assert console.read() == (
            "+ holds: sigma^2 <= Lambda_1\n    joint: 0.410 +- 0.010 (3 seeds)\n"
        )
