"""The file in which progress is kept: nothing is lost, and two kernels may write at once."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sample_exercises import SAMPLES

# Registers the course's own exercises, before the samples take their place.
import mtl_course.exercises  # noqa: F401
from mtl_course.checks import check, progress, store
from mtl_course.checks.exercise import REGISTRY


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("MTL_COURSE_HOME", str(folder))
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)
    monkeypatch.setattr(store, "_said", set())
    before = dict(REGISTRY)
    REGISTRY.clear()
    REGISTRY.update(SAMPLES)
    yield folder
    REGISTRY.clear()
    REGISTRY.update(before)


def right(losses, log_vars):
    return ((-log_vars).exp() * losses + log_vars).sum()


def wrong(losses, log_vars):
    return losses.sum() * 1.37


def entries(home):
    return json.loads((home / "progress.json").read_text(encoding="utf-8"))["exercises"]


def test_best_state_is_kept(home):
    check("weighted", lambda a, b: 1 / 0)
    assert entries(home)["weighted"]["state"] == "error"
    check("weighted", wrong)
    assert (
        entries(home)["weighted"]["state"] == "wrong"
        and entries(home)["weighted"]["solved"] is None
    )
    check("weighted", right)
    check("weighted", wrong)
    entry = entries(home)["weighted"]
    assert (
        entry["state"] == "solved"
        and entry["score"] == 2
        and entry["tries"] == 4
        and entry["solved"]
    )


def test_blank_and_missing_are_no_tries(home):
    check("weighted")
    check("weighted", lambda a, b: None)
    assert "weighted" not in (entries(home) if (home / "progress.json").exists() else {})


def test_damaged_file_is_set_aside_and_nothing_is_lost(home):
    home.mkdir()
    contents = [
        "{ not json",
        '{"exercises": 3}',
        "[]",
        '{"exercises": {"weighted": {"state": "odd", "tries": 1, "score": 0}}}',
        "\x00\x01",
    ]
    for n, content in enumerate(contents, 1):
        (home / "progress.json").write_text(content)
        result = check("weighted", right)
        assert (
            "damaged" in repr(result)
            and "damaged" in result._repr_html_()
            and result.state == "solved"
        )
        assert (home / f"progress.unreadable-{n}.json").read_text() == content
        assert entries(home)["weighted"]["state"] == "solved"
        assert "damaged" not in repr(check("weighted", right))
    (home / "progress.json").write_text("{")
    assert "damaged" in repr(progress()) and "damaged" not in repr(progress())


def test_bytes_that_are_no_text_are_set_aside(home):
    home.mkdir()
    (home / "progress.json").write_bytes(b"\xff\xfe\x80")
    assert "damaged" in repr(check("weighted", right))


def test_entries_of_another_version_are_kept(home):
    home.mkdir()
    future = {"state": "solved", "score": 1.0, "tries": 3, "solved": "2030-01-01", "extra": 5}
    (home / "progress.json").write_text(
        json.dumps({"version": 1, "exercises": {"from_the_future": future}})
    )
    check("weighted", right)
    assert entries(home)["from_the_future"] == future


def test_a_home_that_cannot_be_written_is_said_once(home, monkeypatch, capfd):
    home.write_text("a file where the folder should be")
    first, second = check("weighted", right), check("weighted", right)
    assert first.state == second.state == "solved"
    assert "could not be kept" in repr(first) and "could not be kept" not in repr(second)
    assert "of" in repr(progress())
    assert capfd.readouterr().err == ""


def test_a_full_disk_leaves_the_old_file(home, monkeypatch):
    check("weighted", wrong)
    before = (home / "progress.json").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in " ".join(repr(check("weighted", right)).split())
    assert (home / "progress.json").read_bytes() == before
    assert [p.name for p in home.iterdir()] == ["progress.json"]


def test_a_reader_on_windows_delays_the_write_only(home, monkeypatch):
    real, refused = os.replace, []

    def busy(a, b):
        if len(refused) < 3:
            refused.append(1)
            raise PermissionError(13, "in use")
        return real(a, b)

    monkeypatch.setattr(os, "replace", busy)
    assert check("weighted", right).notes == [] and entries(home)["weighted"]["state"] == "solved"


def test_a_lock_left_by_a_killed_kernel_is_broken(home):
    lock = home / ".progress.lock"
    lock.mkdir(parents=True)
    os.utime(lock, (1, 1))
    assert check("weighted", right).notes == [] and entries(home)["weighted"]


def test_a_lock_held_for_long_is_said(home, monkeypatch):
    (home / ".progress.lock").mkdir(parents=True)
    monkeypatch.setattr(store._alone.__wrapped__, "__defaults__", (0.1, 10.0))
    result = check("weighted", right)
    assert result.state == "solved" and "could not be kept" in repr(result)


def test_threads_at_once_lose_nothing(home):
    results = [check(name, SAMPLES[name].mistakes[0][0]) for name in ("weighted", "project")]
    threads = [threading.Thread(target=store.record, args=(results[i % 2],)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entries(home)[r.exercise.name]["tries"] for r in results] == [11, 11]


def test_two_kernels_at_once_lose_nothing(home):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from sample_exercises import SAMPLES
from mtl_course.checks import report, store
exercise = SAMPLES[sys.argv[1]]
for _ in range(30):
    note = store.record(report.Result(exercise, "wrong", [], 0.5, None, 0))
    assert note is None, note
"""
    kernels = [
        subprocess.Popen([sys.executable, "-c", code, name])
        for name in ("weighted", "weighted", "project")
    ]
    assert [kernel.wait(120) for kernel in kernels] == [0, 0, 0]
    assert entries(home)["weighted"]["tries"] == 60 and entries(home)["project"]["tries"] == 30
    assert [p.name for p in home.iterdir()] == ["progress.json"]


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_COURSE_HOME", "~/somewhere")
    assert store.home() == store.Path.home() / "somewhere"
    monkeypatch.delenv("MTL_COURSE_HOME")
    monkeypatch.setattr(store.Path, "home", lambda: tmp_path)
    assert store.home() == tmp_path / ".mtl_course"
    monkeypatch.setattr(
        store.Path, "is_dir", lambda self: self.as_posix() == "/content/drive/MyDrive"
    )
    assert store.home().as_posix() == "/content/drive/MyDrive/mtl_course"


def test_at_a_glance():
    assert (
        repr(progress()).split("\n")[0]
        == f"Progress: 0 of {len(SAMPLES)} solved, 0 of {sum(e.points for e in SAMPLES.values())}"
        " points"
    )
    check("weighted", right)
    check("project", SAMPLES["project"].mistakes[0][0])
    text, card = repr(progress()), progress()._repr_html_()
    assert f"Progress: 1 of {len(SAMPLES)} solved" in text
    assert (
        "✓ weighted" in text
        and "2 of 2, 1 try" in text
        and "✗ project" in text
        and "– spread" in text
    )
    assert re.search('aria-label="passed"[^>]*>✓</span> <div[^>]*>weighted 2 of 2, 1 try<', card)
    assert re.search('aria-label="not yet"[^>]*>✗</span> <div[^>]*>project ', card)
    assert 'aria-label="Progress"' in card and f"width:{100 / len(SAMPLES):.0f}%" in card


def test_chapters_have_their_titles(monkeypatch):
    from dataclasses import replace

    class InChapter(type(SAMPLES["weighted"])):
        chapter = "01"

    exercise = InChapter(
        **{f: getattr(SAMPLES["weighted"], f) for f in SAMPLES["weighted"].__dataclass_fields__}
    )
    shown = store.Progress([exercise], {})
    assert (
        "01 The multi-task objective: 0 of 1 solved" in repr(shown)
        and "01 The multi-task objective" in shown._repr_html_()
    )
    assert (
        replace(shown, note="<b>").note == "<b>"
        and "<b>" not in replace(shown, note="<b>")._repr_html_()
    )
