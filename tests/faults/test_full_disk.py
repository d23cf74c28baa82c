"""A disk that is full while something is saved: it is said, and the old file survives."""

import builtins
import errno
import io
import os

import numpy as np
import pytest
import torch
from sample_exercises import SAMPLES
from torch import nn

from mtl_course import data, records
from mtl_course.checks import store
from mtl_course.checks.report import Result
from mtl_course.data import cache
from mtl_course.records import pieces
from mtl_course.training import checkpoint
from mtl_course.training.history import History

NEEDS_FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def run_state(width=8):
    model = nn.Linear(width, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    device = torch.device("cpu")
    return checkpoint.TrainingState(model, History(), {"optimizer": optimizer}, {}, {}, device)


@NEEDS_FULL
@pytest.mark.parametrize("width", [2, 8, 1000])
def test_a_checkpoint_on_a_full_disk(width, tmp_path):
    """The kernel's own error, at the first byte or after many."""
    path, state = tmp_path / "run.pt", run_state(width)
    checkpoint.save(path, state, state.model.state_dict(), 1.0)
    left = path.read_bytes()
    (tmp_path / "run.pt.part").symlink_to("/dev/full")
    words = r"the disk of the checkpoint .* is full.*before it is whole"
    with pytest.raises(OSError, match=words) as error:
        checkpoint.save(path, state, state.model.state_dict(), 2.0)
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == left and list(tmp_path.iterdir()) == [path]
    assert checkpoint.resume(path, state)[1] == 1.0


def test_a_checkpoint_that_is_cut_off_in_the_middle(tmp_path):
    """A limit on the size of files: the first bytes go through, a later one does not."""
    resource = pytest.importorskip("resource")
    path, state = tmp_path / "run.pt", run_state(64)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written.*too large"):
            checkpoint.save(path, state, state.model.state_dict(), 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_in_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    state = run_state()
    with pytest.raises(OSError, match=r"The checkpoint .* could not be written"):
        checkpoint.save(tmp_path / "file" / "run.pt", state, state.model.state_dict(), 1.0)


class Full:
    """An open file on a full disk: the first bytes go through."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[:7])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_for(monkeypatch, *parts):
    """Every file whose name has one of these parts is on a full disk, when it is written."""
    real = io.open

    def opened(file, mode="r", *args, **options):
        made = real(file, mode, *args, **options)
        named = any(part in str(file) for part in parts)
        return Full(made) if named and set(mode) & set("wax") else made

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(io, "open", opened)


def test_a_record_on_a_full_disk(tmp_path, monkeypatch):
    record = records.Record("99", "cpu", {"score": 1.0}, {})
    path = records.save(record, tmp_path)
    left = path.read_bytes()
    with monkeypatch.context() as patch:
        full_for(patch, ".part")
        with pytest.raises(OSError, match=r"the disk of .* is full; the file before it is whole"):
            records.save(record, tmp_path)
    assert path.read_bytes() == left and list(tmp_path.iterdir()) == [path]


def test_a_piece_of_a_record_on_a_full_disk(tmp_path, monkeypatch):
    folder = tmp_path / "pieces" / "code"
    with pieces.keeping(folder):
        with monkeypatch.context() as patch:
            full_for(patch, ".part")
            with pytest.raises(OSError, match=r"the disk of .* is full"):
                pieces.kept("two", sum, [1, 1])
        assert not list(folder.iterdir())
        assert pieces.kept("two", sum, [1, 1]) == 2


def test_a_set_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path))
    info = data.info("mnist_5k")
    arrays = {name: np.zeros(shape, np.uint8) for name, shape in info.shape.items()}
    cache.through(info, lambda staged: arrays)
    left = cache.file_of(info).read_bytes()
    with monkeypatch.context() as patch:
        full_for(patch, ".npz")
        words = "is full; nothing unfinished was kept"
        with pytest.raises(data.DataError, match=words), cache.staging() as staged:
            cache._keep(cache.file_of(info), arrays, staged)
    assert cache.file_of(info).read_bytes() == left
    assert list(tmp_path.iterdir()) == [cache.file_of(info)]


def test_progress_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(store, "_said", set())
    result = Result(SAMPLES["weighted"], "solved", [], 1.0, None, 0)
    assert store.record(result) is None
    left = (tmp_path / "progress.json").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "the disk is full" in store.record(result)
    assert (tmp_path / "progress.json").read_bytes() == left
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]
