"""The test run itself: it counts, it fails when something failed, and one failing part does not
hide the others.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from mtl_course.dev import sample
from mtl_course.dev import test as runner
from mtl_course.dev.notebooks import ROOT

PASSING = "def test_a(): pass\ndef test_b(): pass\n"
FAILING = """
import pytest
def test_a(): assert 0
@pytest.fixture
def bad(): raise OSError
def test_b(bad): pass
def test_c(): pytest.skip("why")
"""


@pytest.fixture
def one_process(monkeypatch):
    """pytest without workers, so that these tests are quick."""
    monkeypatch.setattr(
        runner,
        "PYTEST",
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"],
    )


@pytest.mark.parametrize(
    "source, passed, failed, skipped, problem",
    [
        (PASSING, 2, 0, 0, ""),
        (FAILING, 0, 2, 1, ""),
        ("x = 1", 0, 1, 0, "no test ran"),
        ("1 / 0", 0, 1, 0, ""),
    ],
    ids=["passing", "failing", "empty", "broken"],
)
def test_a_part_is_counted(tmp_path, one_process, source, passed, failed, skipped, problem):
    path = tmp_path / "test_it.py"
    path.write_text(source, encoding="utf-8")
    outcome = runner.pytest_part("part", tmp_path, [str(path), "--rootdir", str(tmp_path)])
    assert (outcome.passed, outcome.failed, outcome.skipped, outcome.problem) == (
        passed,
        failed,
        skipped,
        problem,
    )


def test_nothing_selected_is_fine_only_when_the_user_selected(tmp_path, one_process):
    path = tmp_path / "test_it.py"
    path.write_text(PASSING, encoding="utf-8")
    arguments = [str(path), "--rootdir", str(tmp_path), "-k", "nothing_like_this"]
    assert runner.pytest_part("part", tmp_path, arguments, may_be_empty=True).failed == 0
    assert runner.pytest_part("part", tmp_path, arguments).failed == 1


def test_pytest_that_cannot_run_is_a_failure(tmp_path, one_process):
    outcome = runner.pytest_part("part", tmp_path, ["--no-such-option"])
    assert outcome.failed == 1 and "could not run" in outcome.problem


def test_notebooks_run_in_their_mode_and_away_from_the_users_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CHECKS", "learn")
    monkeypatch.setenv("MTL_COURSE_DATA", "somewhere")
    env = runner.environment(tmp_path, "blank")
    assert (
        env["MTL_COURSE_CHECKS"] == "blank"
        and env["MTL_COURSE_STRICT"] == "1"
        and env["MTL_COURSE_PROFILE"] == "cpu"
    )
    assert env["MTL_COURSE_HOME"] == str(tmp_path) and env["OMP_NUM_THREADS"] == "1"
    assert "MTL_COURSE_DATA" not in env, "pages show what every machine can compute"
    own = runner.environment(tmp_path, None)
    assert own["MTL_COURSE_DATA"] == "somewhere" and own["MTL_COURSE_HOME"] == str(tmp_path)
    of_pages = {"MPLBACKEND", "MTL_COURSE_CHECKS", "MTL_COURSE_PHONE", "MTL_COURSE_STRICT"}
    assert of_pages <= set(env) and not of_pages & set(own)


def test_a_failing_part_lets_the_others_run(monkeypatch, capfd):
    ran = []

    def part(name, **outcome):
        return lambda folder, extra: ran.append((name, extra)) or runner.Outcome(name, **outcome)

    monkeypatch.setattr(runner, "_package", part("package", passed=3, failed=1))
    monkeypatch.setattr(runner, "_learner", part("learner", passed=5))
    monkeypatch.setattr(runner, "_solved", part("solved", passed=2, skipped=1))
    monkeypatch.setattr(runner, "_lints", part("lints", passed=1))
    assert runner.main(["--", "-k", "x"]) == 1
    assert ran == [(name, ["-k", "x"]) for name in ("lints", "package", "learner", "solved")]
    assert capfd.readouterr().out.splitlines()[-1] == "11 passed, 1 failed, 1 skipped"
    assert runner.main(["--only", "learner", "--only", "lints"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "6 passed, 0 failed, 0 skipped"


def test_the_fast_run_leaves_out_what_takes_long(monkeypatch, capfd):
    ran = []

    def part(folder, extra):
        ran.append(extra)
        return runner.Outcome("part", passed=1)

    for name in ("_package", "_lints"):
        monkeypatch.setattr(runner, name, part)
    for name in ("_learner", "_solved"):
        monkeypatch.setattr(runner, name, lambda *_: pytest.fail("takes long"))
    assert runner.main(["--fast", "--", "-k", "x"]) == 0
    assert ran == [[*runner.FAST, "-k", "x"]] * 2
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"
    names = {line.split(":")[0] for line in _markers()}
    assert set(re.findall(r"not (\w+)", runner.FAST[1])) == names == {"slow", "browser", "colab"}


def _markers():
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["pytest"]["ini_options"]["markers"]


def test_the_slowest_tests_of_all_parts_are_named(tmp_path, one_process, monkeypatch, capfd):
    source = "import pytest, time\n@pytest.mark.parametrize('i', range(9))\ndef test_{}(i): {}\n"
    sleep = "time.sleep(0.3) if i == 4 else None"
    for name, body in (("one", sleep), ("two", "pass")):
        path = tmp_path / name / "test_it.py"
        path.parent.mkdir()
        path.write_text(source.format(name, body), encoding="utf-8")
    for name, folder in (("_package", "one"), ("_learner", "two")):

        def part(home, extra, folder=folder):
            return runner.pytest_part(folder, home, [str(tmp_path / folder), "--rootdir", tmp_path])

        monkeypatch.setattr(runner, name, part)
    assert runner.main(["--only", "package", "--only", "learner"]) == 0
    said = capfd.readouterr().out.split("=== slowest ===\n")[1].split("\n\n")[0].splitlines()
    assert len(said) == runner.SLOWEST < 18, "the ten slowest of both parts"
    assert said[0].endswith("test_one[4]") and float(said[0].split()[0]) >= 0.3
    assert said == sorted(said, key=lambda line: -float(line.split()[0]))


def test_ruff_and_the_notebooks_are_the_lints(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "good.py").write_text('"""Fine."""\n', encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    outcomes = {"passed": 1, "problem": ""}
    monkeypatch.setattr(runner, "command_part", lambda *_: runner.Outcome("lints", **outcomes))
    outcome = runner._lints(tmp_path, [])
    assert (outcome.passed, outcome.failed, outcome.problem) == (3, 0, "")
    (tmp_path / "bad.py").write_text('"""Not."""\n\nimport os\nx = {  1: 2}\n', encoding="utf-8")
    outcomes = {"failed": 1, "problem": "see above"}
    outcome = runner._lints(tmp_path, [])
    assert (outcome.passed, outcome.failed) == (0, 3)
    assert outcome.problem == "notebooks: see above, ruff check, ruff format"
    exercises = tmp_path / "mtl_course" / "exercises"
    exercises.mkdir(parents=True)
    (tmp_path / "bad.py").rename(exercises / "bad.py")
    outcome = runner._lints(tmp_path, [])
    assert outcome.problem == "notebooks: see above, ruff check", "no formatter for exercises"


def test_ruff_has_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [bounds] = [line for line in project["optional-dependencies"]["test"] if line[:4] == "ruff"]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = set(re.findall(r"ruff==([\d.]+)", hooks))
    assert len(pins) == 1 and Requirement(bounds).specifier.contains(pins.pop())
    lower, upper = sorted(Requirement(bounds).specifier, key=str, reverse=True)
    assert (lower.operator, upper.operator) == (">=", "<"), "formats change between minor versions"


# ----------------------------------------------------------------------- what is looked at in turn
@pytest.fixture
def history(tmp_path):
    """A small repository; ``history(days, name)`` commits a change of this file, as old."""
    if not shutil.which("git"):
        pytest.skip("git is not installed here")
    asked = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments, **env):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", *who, *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | asked | env)

    def change(days, name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {days}", encoding="utf-8")
        date = f"{1_700_000_000 - days * 86_400} +0000"
        git("add", ".")
        git("commit", "-q", "-m", "x", GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)

    git("init", "-q", ".")
    return change


PAGES = [f"book/page{i}" for i in range(20)]


def test_axe_reads_what_changed_in_a_day_and_some_in_turn(history, tmp_path):
    for page in PAGES:
        history(9, f"{page}.md")
    assert sample.pages_to_read(PAGES, 3, tmp_path) == PAGES, "no older commit: all is new"
    history(2, "book/page3.md")
    history(0.9, "book/page5.md")
    history(0, "mtl_course/claims.py")
    read = sample.pages_to_read(PAGES, 3, tmp_path)
    assert "book/page5" in read and len(read) == 4
    (tmp_path / "book" / "page7.md").write_text("not committed", encoding="utf-8")
    (tmp_path / "book" / "page20.md").write_text("not added", encoding="utf-8")
    pages = [*PAGES, "book/page20"]
    assert {"book/page5", "book/page7", "book/page20"} <= set(
        sample.pages_to_read(pages, 0, tmp_path)
    )
    seen = set(read)
    for i in range(30):
        history(0, f"code{i}.py")
        seen |= set(sample.pages_to_read(PAGES, 3, tmp_path))
    assert seen == set(PAGES), "each has its turn"
    history(0, "book/_static/course.css")
    assert sample.pages_to_read(PAGES, 3, tmp_path) == PAGES, "which may change every page"


def test_axe_reads_a_page_made_from_code_when_the_code_changed(history, tmp_path):
    history(5, "a.md")
    history(0, "mtl_course/meta/maml.py")
    pages = ["book/appendix/api/meta", "book/appendix/api/data", "a"]
    assert sample.pages_to_read(pages, 0, tmp_path) == pages[:1]


def test_without_a_repository_every_page_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert sample.commit(tmp_path) == "" and sample.changed_files(tmp_path) is None
    assert sample.pages_to_read(PAGES, 2, tmp_path) == PAGES


def test_each_chapter_has_its_turn_on_colab():
    chapters = list(map(str, range(24)))
    turns = {sample.in_turn(chapters, 1, f"commit {i}")[0] for i in range(300)}
    assert turns == set(chapters)
    assert sample.in_turn(chapters, 1, "a") == sample.in_turn(chapters, 1, "a")


def test_what_is_looked_at_is_printed():
    pages, colab = sample.this_run()
    assert all(page in pages for page in sample.axe_pages()) or "all" in pages
    assert sample.colab_chapter() in colab


def test_a_run_without_a_test_fails(monkeypatch):
    monkeypatch.setattr(runner, "_lints", lambda folder, extra: runner.Outcome("lints"))
    assert runner.main(["--only", "lints"]) == 1


# ---------------------------------------------------------------------------------------- workflows
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name):
    return yaml.safe_load(
        (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_well_formed(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["name"] and content[True], "YAML 1.1 reads the key `on` as true"
    for job in content["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] <= 60
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_tests_run_on_three_systems_and_every_supported_python():
    job = workflow("test")["jobs"]["test"]
    assert job["strategy"]["matrix"] == {
        "os": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": ["3.11", "3.12", "3.13"],
    }
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert [command.split(" PYTHON")[0] for command in commands[-2:]] == ["make test", "make book"]


@pytest.mark.skipif(sys.platform == "win32", reason="the script runs on Linux")
@pytest.mark.parametrize(
    "url, here, code",
    [
        ("https://github.com/me/course", "https://github.com/me/course", 0),
        ('"https://github.com/me/course/"', "https://github.com/me/course", 0),
        ("https://github.com/OWNER/mtl-course", "https://github.com/OWNER-2/mtl-course", 1),
        ("https://github.com/me/course", "https://github.com/fork/course", 1),
    ],
)
def test_the_book_is_published_only_where_its_links_lead(tmp_path, url, here, code):
    [script] = [
        step["run"]
        for step in workflow("deploy")["jobs"]["build"]["steps"]
        if "HERE" in step.get("env", {})
    ]
    own = (ROOT / "_config.yml").read_text(encoding="utf-8")
    (tmp_path / "_config.yml").write_text(
        re.sub(r"(?m)^  url: .*$", f"  url: {url}", own, count=1), encoding="utf-8"
    )
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={"HERE": here, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert code == 0 or "repository.url is" in done.stdout


def test_links_are_checked_weekly():
    [when] = workflow("links")[True]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"])


# ----------------------------------------------------------------------------------------- commands
needs_bash = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("bash"), reason="runs on Linux and macOS, with bash"
)
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="GNU make is not installed here")


@pytest.fixture
def ci(tmp_path):
    """Run a copy of `.ci/run` beside made-up programs: exit code, and what `make` was asked for."""
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci")
    programs.mkdir()

    def run(fail="nothing"):
        scripts = {
            "make": (
                f'echo "$1 $PWD ${{MTL_COURSE_DATA:-none}}" >> {tmp_path}/asked\n[ "$1" != {fail} ]'
            ),
            "chromium": "true",
        }
        for name, text in scripts.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            (programs / name).chmod(0o755)
        env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)}
        code = subprocess.run(
            ["bash", str(clone / ".ci" / "run")], cwd="/", env=env, stdin=subprocess.DEVNULL
        ).returncode
        return code, (tmp_path / "asked").read_text(encoding="utf-8").splitlines()

    return run


@needs_bash
def test_ci_tests_then_builds_the_book_then_asks_nbgrader(ci, tmp_path):
    clone = str((tmp_path / "clone").resolve())
    assert ci() == (0, [f"{step} {clone} none" for step in ("test", "book", "nbgrader")])


@needs_bash
@pytest.mark.parametrize(
    "fail, asked",
    [
        ("test", ["test"]),
        ("book", ["test", "book"]),
        ("nbgrader", ["test", "book", "nbgrader"]),
    ],
)
def test_ci_fails_when_a_step_fails(ci, fail, asked):
    code, calls = ci(fail)
    assert code != 0 and [call.split()[0] for call in calls] == asked


@needs_bash
def test_ci_uses_the_full_sets_where_they_lie_beside_the_clone(ci, tmp_path):
    (tmp_path / "shared" / "data").mkdir(parents=True)
    code, calls = ci()
    assert code == 0 and {call.split()[2] for call in calls} == {
        str((tmp_path / "shared" / "data").resolve())
    }


@needs_make
def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run(
        ["make", "--no-print-directory", "help", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert (
        {"book", "test", "notebooks", "run", "zip"}
        <= listed
        == set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())
    )


@needs_make
@pytest.mark.parametrize(
    "target, command",
    [
        ("test", "test"),
        ("book", "book"),
        ("run NB=01", "lab 01"),
        ("notebooks NB=01", "execute 01"),
        ("sync", "sync"),
    ],
)
def test_make_calls_the_developer_tools(target, command):
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", *target.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert any(
        line.rstrip().endswith(f"-m mtl_course.dev {command}") for line in done.stdout.splitlines()
    )
