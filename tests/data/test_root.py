"""Tier R: the sets of a data root, here MTL_COURSE_DATA or ../shared/data; where there is neither,
what needs one is skipped.
"""

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_tools import HERE, need
from PIL import Image

from mtl_course import data
from mtl_course.data import manifest
from mtl_course.data.tiers import root

SETS = [info for info in manifest.read().values() if info.tier == "R"]


@pytest.fixture
def copy_of(tmp_path, monkeypatch):
    """A data root of one's own, to spoil."""

    def copy(name: str) -> Path:
        need(name)
        for path in manifest.info(name).files:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copy(HERE / path, tmp_path / path)
            (tmp_path / path).chmod(0o644)
        monkeypatch.setenv("MTL_COURSE_DATA", str(tmp_path))
        return tmp_path

    return copy


@pytest.mark.parametrize("info", SETS, ids=lambda info: info.name)
def test_every_set_of_the_root(info, data_root):
    need(info.name)
    loaded = data.load(info.name)
    assert {key: array.shape for key, array in loaded.items()} == dict(info.shape)
    for key, array in loaded.items():
        if key.startswith("x") and array.ndim > 2:
            assert array.dtype == np.uint8 and array.min() == 0 and array.max() == 255
        if key.startswith(("y", "coarse")) and "names" in loaded and info.name.startswith("cifar"):
            assert array.dtype == np.int64 and np.unique(array).tolist() == list(
                range(20 if key[0] == "c" else len(loaded.names))
            )
    assert "tier R" in repr(loaded) and str(HERE) not in repr(loaded)


def test_ilea_columns_are_what_their_names_say(data_root):
    need("school_ilea")
    ilea = data.load("school_ilea")
    column = dict(zip(ilea.names, ilea.x.T, strict=True))
    assert (
        np.array_equal(np.unique(ilea.task), np.arange(139))
        and ilea.x.dtype == ilea.y.dtype == np.float64
    )
    groups = [range(3), range(5, 7), range(10, 21), range(21, 24), range(24, 27)]
    assert all(np.all(ilea.x[:, list(group)].sum(axis=1) == 1) for group in groups)
    assert (
        ilea.x[:, 7:10].sum(axis=1) == 0
    ).sum() == 15  # pupils whose band of verbal reasoning is unknown
    assert (
        np.sum(column["girl"] * column["boys_school"]) == 1
    )  # a single record, of 3,654, that contradicts itself
    assert not np.any(column["boy"] * column["girls_school"])
    best, middle, least = (ilea.y[column[f"band_{band}"] == 1].mean() for band in (1, 2, 3))
    assert best > middle + 5 > least + 10
    for school in range(139):
        rows = ilea.x[ilea.task == school]
        assert all(
            len(np.unique(rows[:, list(group)], axis=0)) == 1 for group in groups[3:]
        )  # a school is of one kind


def test_usps_h5_and_mnist_t10k_are_digits(data_root):
    need("usps_h5", "mnist_t10k")
    usps, mnist = data.load("usps_h5"), data.load("mnist_t10k")
    assert np.bincount(usps.y_train).tolist() == [
        1194,
        1005,
        731,
        658,
        652,
        556,
        664,
        645,
        542,
        644,
    ]
    assert np.bincount(mnist.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for x, y in ((usps.x_test, usps.y_test), (mnist.x, mnist.y)):
        assert (
            x[y == 1].mean() < x[y == 0].mean()
        )  # a one takes less ink than a zero: the labels belong to these images
    with gzip.open(HERE / "mnist_t10k" / "t10k-images-idx3-ubyte.gz") as file:
        assert np.array_equal(np.frombuffer(file.read()[-784:], np.uint8), mnist.x[-1].ravel())


def test_partial_cifar_says_that_it_is_partial(data_root):
    need("cifar10_partial", "cifar100_partial")
    for name in ("cifar10_partial", "cifar100_partial"):
        info = manifest.info(name)
        assert (
            info.title != manifest.info(name.removesuffix("_partial")).title
            and "not a result on" in info.note
        )
    cifar100 = data.load("cifar100_partial")
    assert (
        np.bincount(cifar100.y_train).tolist() == [120] * 100
        and np.bincount(cifar100.y_test).tolist() == [30] * 100
    )
    assert (
        len(
            {
                (fine, coarse)
                for fine, coarse in zip(cifar100.y_train, cifar100.coarse_train, strict=True)
            }
        )
        == 100
    )
    with Image.open(HERE / "cifar100" / "test.webp") as picture:
        tile = np.asarray(picture.convert("RGB").crop((32 * 17, 32 * 2, 32 * 18, 32 * 3)))
    assert np.array_equal(cifar100.x_test[217], tile)


def test_omniglot_small_are_drawings_of_eight_alphabets(data_root):
    need("omniglot_small")
    small = data.load("omniglot_small")
    assert small.y.dtype == small.alphabet.dtype == np.int64 and np.array_equal(
        np.bincount(small.y), np.full(242, 20)
    )
    sizes = dict(
        zip(small.alphabet_names.tolist(), np.bincount(small.alphabet).tolist(), strict=True)
    )
    assert (
        sizes["Japanese_(katakana)"] == 47
        and sizes["Tagalog"] == 17
        and sizes["Latin"] == 26
        and len(sizes) == 8
    )
    for name, alphabet in zip(small.names.tolist(), small.alphabet, strict=True):
        assert name.split("/")[0] == small.alphabet_names[alphabet]
    assert len(set(small.names.tolist())) == 242 and small.names[0] == "Balinese/character01"
    assert len(np.unique(small.x.reshape(4840, -1), axis=0)) == 4840  # no drawing twice
    x = small.x.reshape(242, 20, -1).astype(float)
    within = np.abs(x[:, 0] - x[:, 1]).mean()
    assert (
        within < 0.95 * np.abs(x[:-1, 0] - x[1:, 1]).mean()
    )  # two drawings of a character are more alike than of two characters
    assert 0.02 < (small.x / 255).mean() < 0.2  # ink is 255, and the paper is 0


def test_tiles_of_a_picture():
    """101 images, each of one colour and position, come back in order, and the limit that guards
    Pillow stays as it was.
    """
    images = np.random.RandomState(0).randint(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    grid = images.reshape(2, 100, 32, 32, 3).swapaxes(1, 2).reshape(64, 3200, 3)
    file = io.BytesIO()
    Image.fromarray(grid).save(file, "webp", lossless=True)
    before = Image.MAX_IMAGE_PIXELS
    assert (
        np.array_equal(root.tiles(file.getvalue(), 101), images[:101])
        and before == Image.MAX_IMAGE_PIXELS
    )
    with pytest.raises(data.DataError, match=r"cannot decode.*pip install -U pillow"):
        root.tiles(b"RIFF....WEBPnothing", 1)
    assert before == Image.MAX_IMAGE_PIXELS


# ------------------------------------------------------------------------------------------- Faults


@pytest.mark.parametrize("info", SETS, ids=lambda info: info.name)
def test_no_root(info, monkeypatch):
    monkeypatch.delenv("MTL_COURSE_DATA", raising=False)
    with pytest.raises(
        data.DataError,
        match=f"{info.name} is read from a data root: set the environment variable MTL_COURSE_DATA",
    ):
        data.load(info.name)


@pytest.mark.parametrize("info", SETS, ids=lambda info: info.name)
def test_a_root_without_the_set(info, tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "none"):
        monkeypatch.setenv("MTL_COURSE_DATA", str(folder))
        with pytest.raises(
            data.DataError, match=f"data root .* lacks {next(iter(info.files))}.*Put it there"
        ):
            data.load(info.name)


@pytest.mark.parametrize(
    "name", ["school_ilea", "mnist_t10k", "usps_h5", "cifar100_partial", "omniglot_small"]
)
@pytest.mark.parametrize("fault", ["truncate", "flip"])
def test_a_truncated_or_altered_file(name, fault, copy_of):
    folder = copy_of(name)
    path = folder / list(manifest.info(name).files)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if fault == "flip" else content[: len(content) // 2])
    with pytest.raises(data.DataError, match=f"{path.name} is truncated or altered.*Get it again"):
        data.load(name)


def test_a_missing_file_of_several(copy_of):
    folder = copy_of("mnist_t10k")
    (folder / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        data.DataError, match=r"lacks mnist_t10k/t10k-labels-idx1-ubyte.gz. Put it there"
    ):
        data.load("mnist_t10k")


def test_h5py_is_missing(tmp_path, monkeypatch):
    (tmp_path / "usps_h5").mkdir()
    (tmp_path / "usps_h5" / "usps.h5").write_bytes(b"")
    monkeypatch.setenv("MTL_COURSE_DATA", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        data.DataError,
        match=r"usps_h5 is read with h5py, which is not installed. Run: .* -m pip install h5py",
    ):
        data.load("usps_h5")


def test_the_root_is_only_read(copy_of):
    folder = copy_of("school_ilea")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    data.load("school_ilea")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_wnut17_is_words_with_tags(data_root):
    need("wnut17")
    wnut = data.load("wnut17")
    texts = [len(np.unique(wnut.text[wnut.part == part])) for part in range(3)]
    assert texts == [3394, 1009, 1287] and np.array_equal(np.unique(wnut.text), np.arange(5690))
    assert (np.diff(wnut.text) >= 0).all() and (np.diff(wnut.part) >= 0).all()
    assert wnut.tag_names.tolist()[:3] == ["O", "B-corporation", "I-corporation"]
    begun = np.char.startswith(wnut.tag_names, "B-")[wnut.tag]
    assert [int(begun[wnut.part == part].sum()) for part in range(3)] == [1975, 836, 1079]
    assert wnut.word[:20].tolist()[14:] == ["Empire", "State", "Building", "=", "ESB", "."]
    tags = wnut.tag_names[wnut.tag[14:20]].tolist()
    assert tags == ["B-location", "I-location", "I-location", "O", "B-location", "O"]


def test_wnut17s_reader_parts_texts_at_empty_lines():
    from mtl_course.data.tiers import texts

    first = "\n\na\tO\nNew\tB-location\nYork\tI-location\n\t\n\t\nb\tO\n"
    parts = [gzip.compress(text.encode()) for text in (first, "é\tB-person", "")]
    found = texts.wnut17(*parts)
    assert found["word"].tolist() == ["a", "New", "York", "b", "é"]
    assert found["text"].tolist() == [0, 0, 0, 1, 2] and found["part"].tolist() == [0, 0, 0, 0, 1]
    names = found["tag_names"][found["tag"]].tolist()
    assert names == ["O", "B-location", "I-location", "O", "B-person"]
