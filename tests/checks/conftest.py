"""What the tests of the checker share."""

import pytest
from sample_exercises import SAMPLES

# Registers the course's own exercises, before the samples take their place.
import mtl_course.exercises  # noqa: F401
from mtl_course import checks
from mtl_course.checks.exercise import REGISTRY


@pytest.fixture(params=["child", "kernel"])
def sandboxed(request, course, monkeypatch):
    """Where checks run: in a process of their own, as far as that is possible here, and without."""
    monkeypatch.setenv("MTL_COURSE_SANDBOX", request.param)
    return request.param


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Only the sample exercises, learner's mode, and a home of its own."""
    courses_own = dict(REGISTRY)
    REGISTRY.clear()
    REGISTRY.update(SAMPLES)
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)
    monkeypatch.delenv("MTL_COURSE_SANDBOX", raising=False)
    monkeypatch.setattr(checks, "_hints_given", {})
    yield
    REGISTRY.clear()
    REGISTRY.update(courses_own)
