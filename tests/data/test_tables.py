"""Tier E: the embedded tables of chapters 18 and 19, and how they were made."""

import csv
import hashlib
import io
import re
import zipfile

import numpy as np
import pytest

from mtl_course import chapters, data
from mtl_course.data import manifest
from mtl_course.dev.colab import build_wheel
from mtl_course.dev.datasets import export_flavia


@pytest.fixture(scope="module")
def flavia():
    return data.load("flavia")


def test_flavia_has_32_species_with_enough_leaves(flavia):
    assert (
        flavia.x.dtype == np.float64 and flavia.y.dtype == np.int64 and np.isfinite(flavia.x).all()
    )
    sizes = np.bincount(flavia.y)
    assert len(sizes) == 32 and sizes.min() == 46 and sizes.max() == 77
    assert dict(zip(flavia.species.tolist(), sizes.tolist(), strict=True))["Cedrus deodara"] == 77
    assert set(flavia.species.tolist()) == set(export_flavia.SPECIES)


def test_flavias_columns_are_what_their_names_say(flavia):
    column = dict(zip(flavia.names, flavia.x.T, strict=True))
    np.testing.assert_allclose(
        column["aspect_ratio"], column["box_width"] / column["box_height"], rtol=1e-6
    )
    np.testing.assert_allclose(
        column["rectangularity"],
        column["box_width"] * column["box_height"] / column["area"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        column["circularity"], column["perimeter"] ** 2 / column["area"], rtol=1e-6
    )
    assert (
        column["area"].min() > 38_000 and column["circularity"].min() > 4 * np.pi
    )  # that of a circle
    assert (
        column["box_width"].max() == 1600 and column["box_height"].max() <= 1200
    )  # the size of the pictures


def test_flavias_labels_belong_to_their_rows(flavia):
    """Of each leaf the nearest other one, in standard deviations, is mostly of its species; least
    so if all labels slip by a few rows.
    """
    z = (flavia.x - flavia.x.mean(axis=0)) / flavia.x.std(axis=0)
    distance = ((z[:, None] - z[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1)
    agree = {
        shift: np.mean(np.roll(flavia.y, shift)[nearest] == np.roll(flavia.y, shift))
        for shift in range(-3, 4)
    }
    assert max(agree, key=agree.get) == 0 and agree[0] > 0.75
    outline = flavia.x[:, flavia.names.tolist().index("circularity")]
    typical = {
        name: np.median(outline[flavia.y == number])
        for number, name in enumerate(flavia.species.tolist())
    }
    assert (
        max(typical, key=typical.get) == "Cedrus deodara" and typical["Acer palmatum"] > 60
    )  # a needle, and a leaf of many points
    assert (
        typical["Cercis chinensis"] < 17 < 30 < typical["Nerium oleander"]
    )  # a round leaf and a narrow one


def test_the_export_leaves_out_specks_and_refuses_another_source(monkeypatch):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["", *export_flavia.NAMES])
    for row in range(1907):
        writer.writerow([0, 10.0 if row % 100 == 7 else 50_000.123456789, *range(16)])
    source = text.getvalue().encode()
    with pytest.raises(ValueError, match=r"has the sha256 .* expected b6c0969b"):
        export_flavia.rows(source)
    monkeypatch.setattr(export_flavia, "SHA256", hashlib.sha256(source).hexdigest())
    table = export_flavia.rows(source)
    assert len(table) == 1907 - 19 and table[0][:3] == ["Phyllostachys edulis", "50000.12", "0"]
    assert len({row[0] for row in table}) == 32 and table[-1][0] == "Citrus reticulata"
    assert [row[0] for row in table].index(
        "Aesculus chinensis"
    ) == 59 - 1  # 59 bamboo leaves, one of them a speck


def test_macro_is_the_published_series():
    macro = data.load("macro")
    assert macro.x.dtype == np.float64 and macro.year.dtype == macro.quarter.dtype == np.int64
    assert np.array_equal(
        macro.year * 4 + macro.quarter, 1959 * 4 + 1 + np.arange(203)
    )  # without a gap, to the third quarter of 2009
    column = dict(zip(macro.names, macro.x.T, strict=True))
    assert (
        column["realgdp"][0] == 2710.349
        and column["realint"][-1] == -3.44
        and column["unemp"][-1] == 9.6
    )
    np.testing.assert_allclose(column["infl"][1:], 400 * np.diff(np.log(column["cpi"])), atol=0.02)
    np.testing.assert_allclose(
        column["realint"][1:], (column["tbilrate"] - column["infl"])[1:], atol=0.011
    )
    assert column["infl"][0] == column["realint"][0] == 0


@pytest.mark.parametrize("name", ["flavia", "macro"])
@pytest.mark.parametrize(
    "fault, message", [("truncate", "truncated or altered"), ("remove", "is missing")]
)
def test_a_damaged_table(name, fault, message, tmp_path, monkeypatch):
    (path,) = manifest.info(name).files
    (tmp_path / "tables").mkdir()
    if fault == "truncate":
        (tmp_path / path).write_bytes((manifest.FOLDER / path).read_bytes()[:-100])
    monkeypatch.setattr("mtl_course.data.tiers.embedded.FOLDER", tmp_path)
    with pytest.raises(data.DataError, match=message):
        data.load(name)


# ---------------------------------------------------------------------------- licences in the wheel
TABLES = manifest.FOLDER / "tables"
FREE = ("public domain", "CC BY")  # no text has to go with a copy


@pytest.mark.parametrize(
    "name", [n for n, info in manifest.read().items() if any("tables/" in f for f in info.files)]
)
def test_a_table_of_others_goes_with_its_licence(name):
    info = manifest.info(name)
    text = (manifest.FOLDER / info.licence_text).read_text() if info.licence_text else ""
    if "GPL" in info.licence:
        assert "GNU GENERAL PUBLIC LICENSE" in text and "Version 2, June 1991" in text
    elif "MIT" in info.licence:
        assert text.startswith("MIT License") and "Copyright (c) 2019 Aayush Gupta" in text
    else:
        assert info.licence.startswith(FREE), f"{name}: which text must go with a copy?"
    [file] = [file.removeprefix("tables/") for file in info.files]
    assert file in (TABLES / "NOTICE.txt").read_text()


def test_the_wheel_names_all_licences_and_carries_their_texts(tmp_path):
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert "License-Expression: BSD-3-Clause AND GPL-2.0-or-later AND MIT" in text
    for file in ("GPL-2.0.txt", "MIT-flavia.txt", "NOTICE.txt"):
        assert f"mtl_course/data/tables/{file}" in names
        assert f"License-File: mtl_course/data/tables/{file}" in text


def test_pictures_of_mnist_are_excepted_from_the_licence_of_the_text():
    text = (manifest.FOLDER.parents[1] / "LICENSE-TEXT.md").read_text()
    assert "CC BY-SA 3.0" in text
    users = {int(number) for number in manifest.info("mnist_5k").chapters}
    listed = text[text.index("MNIST (chapters") :].split(")")[0]
    here = set(chapters.CHAPTERS)
    missing = {f"{n:02}" for n in users - {int(n) for n in re.findall(r"\d+", listed)}} & here
    assert not missing, f"chapters that show MNIST: {missing}"
