"""Tier N: emoji of two vendors through npm, and every fault on the way."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_tools import load_or_skip
from PIL import Image

from mtl_course import data
from mtl_course.data import cache, manifest
from mtl_course.data.tiers import npm

INFO = manifest.info("emoji_twitter")
VENDORS = ("emoji_twitter", "emoji_google")
posix = pytest.mark.skipif(os.name == "nt", reason="a script stands for npm")

# ------------------------------------------------------------------------------------ the real sets


@pytest.fixture(scope="module")
def vendors():
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    return [load_or_skip(name) for name in VENDORS]


@pytest.mark.slow
def test_two_vendors_draw_the_same_emoji(vendors):
    for loaded in vendors:
        assert cache.checksum(loaded) == loaded.info.arrays and loaded.x.dtype == np.uint8
        row = loaded.code.tolist().index("1F600")
        assert loaded.names[row] == "grinning face"
        assert loaded.category_names[loaded.category[row]] == "Smileys & Emotion"
        assert loaded.group_names[loaded.group[row]] == "face-smiling"
        # yellow in the middle, white in the corners
        red, green, blue = loaded.x[row, 8, 16].astype(int)
        assert (
            min(red, green) > 150 > blue
            and (loaded.x[row, [0, 0, -1, -1], [0, -1, 0, -1]] > 240).all()
        )
        assert len(set(loaded.code.tolist())) == 1911
        assert np.bincount(loaded.category).tolist() == [
            85,
            159,
            5,
            270,
            131,
            264,
            386,
            169,
            224,
            218,
        ]
    one, other = vendors
    assert np.array_equal(one.code, other.code) and np.array_equal(one.names, other.names)
    # the same things in another style: a picture is nearer to its twin than to most others
    flat = [vendor.x.reshape(1911, -1).astype(np.float32) / 255 for vendor in vendors]
    distance = (flat[0] ** 2).sum(1)[:, None] + (flat[1] ** 2).sum(1) - 2 * flat[0] @ flat[1].T
    rank = (distance < np.diag(distance)[:, None]).sum(1)
    assert np.median(rank) < 20 and not np.array_equal(*flat)


# ---------------------------------------------------------------------------------- the same, small


def archive(path: Path) -> Path:
    """A package with three emoji on a sheet of two times two."""
    cells = {(0, 0): (200, 0, 0, 255), (1, 0): (0, 0, 255, 128), (1, 1): (0, 0, 0, 0)}
    sheet = Image.new("RGBA", (68, 68), (9, 9, 9, 255))
    for (x, y), colour in cells.items():
        sheet.paste(colour, (34 * x + 1, 34 * y + 1, 34 * x + 33, 34 * y + 33))
    png = io.BytesIO()
    sheet.save(png, "png")
    entries = [
        {"unified": code, "name": name, "short_name": "short", "sheet_x": x, "sheet_y": y}
        | {"category": "B" if name else "A", "subcategory": name or "none"}
        for code, name, (x, y) in zip(("2", "1", "3"), ("RED", "BLUE", None), cells, strict=True)
    ]
    with tarfile.open(path, "w:gz") as made:
        contents = (json.dumps(entries).encode(), png.getvalue())
        for name, content in zip(INFO.files, contents, strict=True):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


SMALL = {"x": (3, 32, 32, 3), "names": (3,), "code": (3,), "category": (3,), "group": (3,)}
SMALL |= {"category_names": (2,), "group_names": (3,)}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The entry of a small package, which an npm that is a script brings, and its command log."""
    made = archive(tmp_path / "small.tgz")
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path / "cache"))
    script(tmp_path, monkeypatch, f'cp "{made}" {INFO.archive}')
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    return dataclasses.replace(INFO, sha256=sha256, shape=SMALL)


def script(tmp_path: Path, monkeypatch, lines: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/log"\n{lines}\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def left() -> list[str]:
    folder = cache.folder()
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


@posix
def test_fetched_once_and_offline_afterwards(small, tmp_path, monkeypatch, capfd):
    arrays, origin = npm.load(small)
    assert origin == "emoji-datasource-twitter 16.0.0 of npm"
    assert capfd.readouterr().err.count("Fetching emoji_twitter") == 1
    assert arrays["code"].tolist() == ["1", "2", "3"]
    assert arrays["names"].tolist() == ["blue", "red", "short"]
    # half of blue upon white, red, and white where nothing is drawn
    colours = [[127, 127, 255], [200, 0, 0], [255, 255, 255]]
    assert (arrays["x"] == np.array(colours)[:, None, None]).all()
    assert arrays["category_names"].tolist() == ["A", "B"]
    assert arrays["category"].tolist() == [1, 1, 0] and arrays["group"].tolist() == [0, 1, 2]
    [command] = (tmp_path / "log").read_text().splitlines()
    assert command.startswith("pack ") and "--ignore-scripts" in command
    assert command.endswith("emoji-datasource-twitter@16.0.0")
    monkeypatch.setenv("PATH", "")
    again, _ = npm.load(small)
    assert not capfd.readouterr().err and np.array_equal(again["x"], arrays["x"])
    assert left() == [cache.file_of(small).name]


@pytest.mark.parametrize("name", VENDORS)
def test_no_npm(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        data.DataError, match=rf"{name} \(Emoji as .*there is no npm here. Install Node.js.*go on"
    ):
        data.load(name)
    assert not left()


@posix
@pytest.mark.parametrize(
    "lines, message",
    [
        (f"echo half > {INFO.archive}", r"truncated or altered \(5 bytes.*Nothing was kept"),
        ("echo x > emoji-15.tgz", r"npm brought emoji-15.tgz, not emoji-datasource-twitter-16"),
        ("exit 0", "npm brought nothing, not emoji-datasource-twitter-16"),
        ("echo ENOTFOUND >&2; exit 1", "could not fetch.*no network.*npm said: ENOTFOUND"),
        ("exit 3", r"npm said: nothing \(status 3\)"),
        ("echo 'npm error code ENOSPC' >&2; exit 1", "disk of the cache .* is full"),
    ],
)
def test_faults_on_the_way(lines, message, small, tmp_path, monkeypatch):
    script(tmp_path, monkeypatch, lines)
    with pytest.raises(data.DataError, match=rf"emoji_twitter: .*{message}"):
        npm.load(small)
    assert not left()


@posix
def test_npm_does_not_finish(small, tmp_path, monkeypatch):
    script(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr("mtl_course.data.tiers.packages.TIMEOUT", 0.5)
    with pytest.raises(data.DataError, match=r"npm took over .*Check the network"):
        npm.load(small)
    assert not left()
