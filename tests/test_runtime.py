"""`setup` and what it rests on: device, profile, seeds, versions, timing."""

import dataclasses
import random
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mtl_course import __version__, chapters, runtime


@pytest.fixture(autouse=True)
def cpu_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("MTL_COURSE_PROFILE", raising=False)


def test_setup_says_where_it_runs(capsys):
    session = runtime.setup("01")
    assert session == runtime.Session(chapters.CHAPTERS["01"], torch.device("cpu"), "cpu")
    said = capsys.readouterr().out
    for part in (
        f"mtl_course {__version__}",
        f"torch {torch.__version__}",
        f"numpy {np.__version__}",
        "Chapter 01 on CPU",
        "profile cpu: about 1 min",
    ):
        assert part in said
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    "minutes, said",
    [(7, "profile gpu: about 7 min"), (None, "profile gpu: made for 10 min on a Colab T4")],
)
def test_setup_says_what_time_to_expect(minutes, said, monkeypatch, capsys):
    monkeypatch.setenv("MTL_COURSE_PROFILE", "gpu")
    monkeypatch.setitem(
        chapters.CHAPTERS, "01", dataclasses.replace(chapters.CHAPTERS["01"], gpu=minutes)
    )
    runtime.setup("01")
    assert said in capsys.readouterr().out


def test_setup_is_repeatable():
    draws = []
    for _ in range(2):
        runtime.setup("02", seed=3)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    runtime.setup("02", seed=4)
    assert draws[0] == draws[1] != (random.random(), np.random.rand(), torch.rand(()).item())


@pytest.mark.parametrize("seed", [-1, 2**32 + 5])
def test_any_whole_number_is_a_seed(seed):
    runtime.seed_everything(seed)


def test_setup_sets_the_style_of_figures():
    plt.rcdefaults()
    runtime.setup("01")
    assert (
        plt.rcParams["figure.facecolor"] == "white"
        and plt.rcParams["figure.constrained_layout.use"]
    )


@pytest.mark.parametrize("chapter", ["01", "1", 1])
def test_a_chapter_is_found_by_its_number(chapter):
    assert chapters.find(chapter).slug == "mtl_objective"


@pytest.mark.parametrize("chapter", ["77", "x", "", None])
def test_an_unknown_chapter_is_named_with_those_there_are(chapter):
    with pytest.raises(ValueError, match=r"There is no chapter .* 01, 02"):
        runtime.setup(chapter)


def test_chapters_are_keyed_by_their_number():
    for number, chapter in chapters.CHAPTERS.items():
        assert number == chapter.number and chapter.question.endswith("?")


@pytest.mark.parametrize(
    "cuda, asked, expected",
    [
        (False, None, "cpu"),
        (True, None, "gpu"),
        (False, "gpu", "gpu"),
        (True, "cpu", "cpu"),
        (True, "", "gpu"),
    ],
)
def test_profile_follows_the_hardware_unless_asked(monkeypatch, cuda, asked, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if asked is not None:
        monkeypatch.setenv("MTL_COURSE_PROFILE", asked)
    assert runtime.profile() == expected


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match="'tpu'; it must be one of cpu, gpu"):
        runtime.setup("01")


def test_a_gpu_that_is_missing_is_said(monkeypatch, capsys):
    monkeypatch.setenv("MTL_COURSE_PROFILE", "gpu")
    session = runtime.setup("01")
    said = capsys.readouterr().out
    assert session.profile == "gpu" and session.device.type == "cpu"
    assert "no CUDA device was found" in said and "MTL_COURSE_PROFILE=cpu" in said


def test_environment_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    env = runtime.environment()
    assert env["device"] == "Tesla T4" and all(isinstance(value, str) for value in env.values())


def test_timer_measures_the_block_and_stops_at_its_end():
    with runtime.timer() as seconds:
        time.sleep(0.05)
        inside = seconds()
    total = seconds()
    time.sleep(0.05)
    assert 0.05 <= inside <= total == seconds() < 5


def test_timer_waits_for_the_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda")
    with runtime.timer(device):
        assert waited == [device]
    assert waited == [device, device]


# -------------------------------------------------------------------------------------------- seeds
SESSION = runtime.Session(chapters.CHAPTERS["01"], torch.device("cpu"), "cpu")


def test_seeds_count_from_zero(monkeypatch):
    for unset in (None, ""):
        monkeypatch.delenv("MTL_COURSE_SEEDS", raising=False)
        if unset is not None:
            monkeypatch.setenv("MTL_COURSE_SEEDS", unset)
        assert SESSION.seeds(1) == [0] and SESSION.seeds(5) == [0, 1, 2, 3, 4]


def test_a_variable_shifts_the_seeds(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_SEEDS", "1000:1005")
    assert SESSION.seeds(3) == [1000, 1001, 1002] and len(SESSION.seeds(5)) == 5
    with pytest.raises(ValueError, match=r"gives 5 seeds, but this experiment takes 6.*1000:1006"):
        SESSION.seeds(6)


@pytest.mark.parametrize("text", ["5", "5:5", "7:3", "a:b", "1:2:3", "-1:4", "1.5:3"])
def test_what_is_no_range_is_refused(monkeypatch, text):
    monkeypatch.setenv("MTL_COURSE_SEEDS", text)
    with pytest.raises(ValueError, match="seeds are given as A:B"):
        SESSION.seeds(2)


@pytest.mark.parametrize("n", [0, -1])
def test_no_seed_is_no_experiment(n):
    with pytest.raises(ValueError, match="at least one seed"):
        SESSION.seeds(n)
