"""What the project takes from elsewhere is pinned: actions, the book's stack, tested versions."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mtl_course.dev.notebooks import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def versions(text: str) -> dict[str, set[str]]:
    """Package -> pinned versions (more than one where the system or the Python decides)."""
    pins = {}
    for name, version in re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)", text, re.M):
        pins.setdefault(canonicalize_name(name), set()).add(version)
    return pins


# ---------------------------------------------------------------------------------------- workflows
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits_with_their_version_beside(path):
    lines = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_commit():
    lines = {
        line
        for path in WORKFLOWS
        for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    }
    assert len({line.split("@")[0] for line in lines}) == len(lines)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_only_the_publishing_job_may_write(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        if name == "publish":
            assert job["permissions"] == {"pages": "write", "id-token": "write"}
            assert not any("run" in step for step in job["steps"]), "it runs no code of ours or pip"
            assert "checkout" not in str(job["steps"])
        else:
            assert "permissions" not in job
            [checkout] = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
            assert checkout["with"]["persist-credentials"] is False


def test_the_book_is_built_apart_from_where_it_is_published():
    jobs = yaml.safe_load(read(".github/workflows/deploy.yml"))["jobs"]
    assert list(jobs) == ["build", "publish"] and jobs["publish"]["needs"] == "build"
    assert any("upload-pages-artifact" in step.get("uses", "") for step in jobs["build"]["steps"])


# ------------------------------------------------------------------------------------- requirements
def test_every_file_of_the_books_stack_has_its_hash():
    text = read("requirements-book.txt")
    entries = re.split(r"\n(?=\S)", text.strip())
    entries = [entry for entry in entries if not entry.startswith("#")]
    assert len(entries) > 60
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    asked, pinned = versions(read("requirements-book.in")), versions(text)
    assert asked and all(pinned.get(name) == version for name, version in asked.items())
    assert "--require-hashes -r requirements-book.txt" in read("Makefile")


@pytest.mark.parametrize(
    "name", ["requirements-book.in", "requirements-book.txt", "constraints.txt"]
)
def test_no_requirement_names_a_host_or_a_folder(name):
    lines = [line for line in read(name).split("\n") if not line.startswith("#")]
    assert not [line for line in lines if re.search(r"://|file:|@ |--(?!hash=)|^/", line)]


def test_the_pinned_versions_are_allowed_and_whole():
    pinned = versions(read("constraints.txt"))
    assert all(len(version) == 1 and "+" not in str(version) for version in pinned.values())
    project = tomllib.loads(read("pyproject.toml"))["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        needed = Requirement(line)
        [version] = pinned.get(canonicalize_name(needed.name), {"none: see constraints.txt"})
        assert needed.specifier.contains(version), f"{line} and constraints.txt: {version}"
    for name, version in versions(read("requirements-book.txt")).items():
        assert name not in pinned or pinned[name] <= version, f"{name}: not the book's version"


def test_pinned_and_lowest_versions_are_tested():
    jobs = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]
    assert jobs["pinned"]["env"] == {"PIP_CONSTRAINT": "constraints.txt"}
    assert any(step.get("run") == "make test" for step in jobs["pinned"]["steps"])
    assert any(step.get("run") == "make .venv/.lowest" for step in jobs["lowest"]["steps"])
    assert "--resolution lowest-direct" in read("Makefile")


def test_the_package_says_that_it_is_typed():
    data = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["mtl_course"] and (ROOT / "mtl_course" / "py.typed").exists()
