"""The cache holds what was kept and nothing else: content, types and sizes are verified, and sizes
before anything is unpacked.
"""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from mtl_course.data import cache, manifest

INFO = manifest.info("mnist_5k")
DRAW = np.random.RandomState(0)
RIGHT = {
    "x": DRAW.randint(0, 256, INFO.shape["x"]).astype(np.uint8),
    "y": np.repeat(np.arange(10), 500),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of the set in a new cache."""
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path))
    with cache.staging() as staged:
        cache._keep(cache.file_of(INFO), RIGHT, staged)
    return cache.file_of(INFO)


def test_what_was_kept_comes_back(path, capsys):
    arrays = cache._kept(INFO)
    assert list(arrays) == ["x", "y"] and capsys.readouterr().err == ""
    for name, array in arrays.items():
        assert array.dtype == RIGHT[name].dtype and np.array_equal(array, RIGHT[name])


def other(**changed):
    """The arrays with some exchanged, and the checksum of the right ones."""
    return {**RIGHT, cache.SUM: np.array(cache.checksum(RIGHT)), **changed}


FLIPPED = RIGHT["x"].copy()
FLIPPED[4999, 27, 27] ^= 1
OTHERS = {
    "one pixel": other(x=FLIPPED),
    "other labels": other(y=RIGHT["y"][::-1].copy()),
    "labels of another type": other(y=RIGHT["y"].astype(np.int32)),
    "pixels as floats": other(x=RIGHT["x"].astype(np.float64)),
    "pixels as signed numbers": other(x=RIGHT["x"].view(np.int8)),
    "columns first": other(x=np.asfortranarray(np.zeros_like(RIGHT["x"]))),
    "no checksum": RIGHT,
    "the checksum of nothing": other(checksum=np.array("")),
    "a checksum that is a number": other(checksum=np.zeros(3)),
    "complex numbers": other(y=RIGHT["y"].astype(complex)),
    "long texts": other(y=np.zeros(5000, "U5000")),
    "objects": other(y=np.array([None] * 5000)),
    "records": other(y=np.zeros(5000, [("a", "i8")])),
    "one array more": other(z=np.zeros(3)),
    "one array less": {k: v for k, v in other().items() if k != "y"},
    "another shape of the same size": other(x=RIGHT["x"].reshape(5000, 784)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arrays_are_refused_and_fetched_anew(name, path, capsys):
    with open(path, "wb") as file:
        np.savez(file, **OTHERS[name])
    assert cache._kept(INFO) is None
    assert "is damaged" in capsys.readouterr().err
    arrays = cache.through(INFO, lambda staged: RIGHT)
    assert arrays is RIGHT and cache._kept(INFO).keys() == RIGHT.keys()


def npy(header_shape, dtype, content=b""):
    """An array's file with this header, whatever its content is."""
    file = io.BytesIO()
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": header_shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


GIGABYTES = 3 * 2**30
BOMBS = {
    "a shape that is too large": {"x": npy((GIGABYTES,), "u1")},
    "more bytes than the header says": {"x": npy(INFO.shape["x"], "u1")},
    "a type that is too large": {"x": npy(INFO.shape["x"], f"U{2**20}")},
    "an array that nobody asked for": {"z": npy((GIGABYTES,), "u1")},
    "a checksum that never ends": {cache.SUM: npy((), "U100")},
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_the_memory_is_not_unpacked(name, path, monkeypatch, capsys):
    """100 MB of zeros, packed into less than one, stand for any number of gigabytes."""
    zeros = bytes(2**20)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        kept = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry, content in kept.items():
            if entry.removesuffix(".npy") not in BOMBS[name]:
                archive.writestr(entry, content)
        for entry, header in BOMBS[name].items():
            with archive.open(f"{entry}.npy", "w", force_zip64=True) as file:
                file.write(header)
                for _ in range(100):
                    file.write(zeros)
    read = []
    real = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda self, n=-1: read.append(r := real(self, n)) or r
    )
    assert cache._kept(INFO) is None and "is damaged" in capsys.readouterr().err
    assert sum(map(len, read)) < 10_000


def test_a_checksum_tells_names_types_shapes_and_content_apart():
    x = np.arange(6, dtype=np.int64)
    sums = [
        cache.checksum({"x": x}),
        cache.checksum({"y": x}),
        cache.checksum({"x": x.astype(np.uint64)}),
        cache.checksum({"x": x.reshape(2, 3)}),
        cache.checksum({"x": x[::-1]}),
        cache.checksum({"x": x, "y": x}),
    ]
    assert len(set(sums)) == 6
    assert cache.checksum({"x": x.astype(">i8")}) == sums[0], "the order of bytes is no content"
    assert cache.checksum({"y": x, "x": x}) == sums[5]
    assert cache.checksum({"x": x.reshape(2, 3).T.copy().T}) == sums[3]


def test_files_of_an_earlier_version_are_known_by_the_manifest(path, capsys):
    """They have no checksum of their own; the manifest has that of their arrays."""
    np.savez(path, **RIGHT)
    known = replace(INFO, arrays=cache.checksum(RIGHT))
    assert cache._kept(known).keys() == RIGHT.keys() and capsys.readouterr().err == ""


def test_every_set_of_a_package_has_its_checksum():
    sets = [manifest.info(name) for name in manifest.names()]
    assert all(bool(info.arrays) == (info.tier in "PN") for info in sets)


def test_columns_of_long_texts_are_kept_compressed(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path))
    info = replace(INFO, name="texts", shape={"text": (5000,)})
    texts = np.array([f"{number} " * 120 for number in range(5000)])
    assert texts.nbytes > 1e7
    with cache.staging() as staged:
        cache._keep(cache.file_of(info), {"text": texts}, staged)
    assert cache.file_of(info).stat().st_size < texts.nbytes / 20
    assert np.array_equal(cache._kept(info)["text"], texts)
