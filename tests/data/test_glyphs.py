"""Tier E, drawn: the characters of the DejaVu fonts, the way they are drawn and how they were
chosen.
"""

import io
import shutil
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont

from mtl_course import data
from mtl_course.data import glyphs
from mtl_course.dev.datasets import choose_glyphs

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def found():
    return data.load("glyphs")


def test_every_character_has_one_picture_a_face(found):
    assert found.x.dtype == np.uint8 and all(
        found[key].dtype == np.int64 for key in ("y", "font", "scripts")
    )
    assert (
        len(set(zip(found.y.tolist(), found.font.tolist(), strict=True)))
        == len(found.y)
        == 267 * 12
    )
    assert np.bincount(found.scripts).tolist() == [128, 24, 37, 45, 33]
    assert (
        found.script_names.tolist() == ["Latin", "Greek", "Cyrillic", "Armenian", "Georgian"]
        and len(found.font_names) == 12
    )
    for letter, script in zip(found.names.tolist(), found.scripts, strict=True):
        assert unicodedata.name(letter).startswith(found.script_names[script].upper())
    assert "matplotlib" in found.origin and data.load("glyphs").x is found.x  # drawn once a process


def test_ink_fills_22_pixels_in_the_middle(found):
    rows, columns = found.x.max(axis=2) > 0, found.x.max(axis=1) > 0
    lengths = []
    for ink in (rows, columns):
        first, last = ink.argmax(axis=1), 27 - ink[:, ::-1].argmax(axis=1)
        assert (first >= 3).all() and (last <= 24).all() and (abs(first + last - 27) <= 1).all()
        lengths.append(last - first + 1)
    assert np.isin(
        np.maximum(*lengths), (21, 22)
    ).all()  # a fine tip may cover too little of its row
    assert (found.x.reshape(-1, 784).max(axis=1) == 255).all()


def test_faces_differ_as_their_names_say(found):
    ink = found.x.reshape(267, 12, -1).mean(axis=(0, 2))
    for number, name in enumerate(found.font_names.tolist()):
        upright = found.font_names.tolist().index(
            name.replace("BoldOblique", "Bold").replace("BoldItalic", "Bold")
        )
        assert (
            "Bold" not in name
            or ink[number] > 1.3 * ink[upright - 2 if name.endswith("Bold") else number - 2]
        )
    lean = {}  # how far the upper half of an I stands to the right of its lower half, in pixels
    for number, name in enumerate(found.font_names.tolist()):
        picture = found.x[(found.y == found.names.tolist().index("I")) & (found.font == number)][
            0
        ].astype(float)
        centre = [
            (half.sum(axis=0) @ np.arange(28)) / half.sum() for half in (picture[:14], picture[14:])
        ]
        lean[name] = centre[0] - centre[1]
    assert all((shift > 1) == name.endswith(("Oblique", "Italic")) for name, shift in lean.items())


@pytest.mark.parametrize("name", ["DejaVuSans", "DejaVuSerif-BoldItalic"])
def test_pictures_are_those_that_pillow_draws(name, found):
    """Against FreeType at eight times the size, made small by averaging: the same picture up to its
    hinting and its whole pixels.
    """
    face = found.font_names.tolist().index(name)
    font = ImageFont.truetype(str(FONTS / f"{name}.ttf"), 400)
    for letter in "RgæΩЖ\u0554ღ":
        left, top, right, bottom = font.getbbox(letter)
        large = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(large).text((-left, -top), letter, fill=255, font=font)
        large = large.crop(large.getbbox())
        side = max(large.size) * 28 / 22
        box = ((large.width - side) / 2, (large.height - side) / 2)
        square = Image.new("L", (round(side), round(side)))
        square.paste(large, (-round(box[0]), -round(box[1])))
        theirs = np.asarray(square.resize((28, 28), Image.Resampling.BOX), dtype=float)
        ours = found.x[(found.y == found.names.tolist().index(letter)) & (found.font == face)][
            0
        ].astype(float)
        assert abs(ours - theirs).sum() < 0.06 * theirs.sum(), letter


def test_the_characters_are_the_chosen_ones():
    """The rule gives the list, from the fonts on: no accent, no letter that two faces share, none
    that looks like another.
    """
    letters = choose_glyphs.candidates()
    chosen, one_drawing, alike = choose_glyphs.choose(letters)
    assert (len(letters), one_drawing, alike) == (618, 65, 286)
    for name, listed in glyphs.CHARACTERS.items():
        assert listed == "".join(sorted(c for c in chosen if choose_glyphs.script(c) == name))
    assert {"A", "O", "Ж", "Ω"} <= set(chosen) and not {"\u0391", "\u0410", "o", "L"} & set(
        chosen
    )  # L: one drawing in Sans and Mono


def test_no_picture_is_nearly_that_of_another_class(found):
    distance = choose_glyphs.distances(found.x.reshape(267, 12, 28, 28))
    between = choose_glyphs.between_characters(distance)
    assert between[~np.eye(267, dtype=bool)].min() > choose_glyphs.ALIKE - 1e-3
    assert choose_glyphs.between_faces(distance).min() > choose_glyphs.ONE_DRAWING - 1e-3


def test_a_square_with_a_hole_is_filled_exactly():
    """Lines of 22 pixels and a hole of 11 with the other direction: coverage is exact at half
    pixels, too; an overlap counts once.
    """
    corners = np.array([[0, 0], [0, 88], [88, 88], [88, 0]], dtype=float)

    def ring(points):
        return np.stack(
            [points, (points + np.roll(points, -1, axis=0)) / 2, np.roll(points, -1, axis=0)],
            axis=1,
        )

    hole = ring((corners / 2 + 22)[::-1])
    owner = np.repeat([0, 1], [8, 8])
    curves = np.concatenate([ring(corners), hole, ring(corners), ring(corners / 2 + 22)])
    picture, overlap = glyphs.filled(glyphs.fitted(glyphs.chords(curves), owner, 2), owner, 2)
    expected = np.zeros((28, 28))
    expected[3:25, 3:25] = 255
    assert np.array_equal(overlap, expected)
    edge, inside = slice(8, 20), slice(9, 19)  # the hole reaches from 8.5 to 19.5
    expected[edge, edge] = 255 / 2
    expected[inside, inside] = 0
    for part in ((inside, edge), (edge, inside)):
        assert np.abs(picture[part] - expected[part]).max() <= 1
    assert picture[8, 8] == round(255 * 3 / 4) and picture[0].max() == 0


def test_a_circle_of_two_curves_a_side_has_the_area_of_its_curves():
    """Points off the curve only, as TrueType draws circles: the implied points between them are the
    middles.
    """
    pen = TTGlyphPen(None)
    pen.qCurveTo((0, 0), (0, 100), (100, 100), (100, 0), None)
    pen.closePath()
    built = FontBuilder(100, isTTF=True)
    built.setupGlyphOrder([".notdef", "o"])
    built.setupCharacterMap({ord("o"): "o"})
    built.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "o": pen.glyph()})
    built.setupHorizontalMetrics({".notdef": (100, 0), "o": (100, 0)})
    built.setupHorizontalHeader()
    file = io.BytesIO()
    built.save(file)
    curves, owner = glyphs.outlines(file.getvalue(), "o")
    assert curves.shape == (4, 3, 2) and not owner.any()
    assert curves[0].tolist() == [[50, 0], [0, 0], [0, 50]] and curves[3].tolist() == [
        [100, 50],
        [100, 0],
        [50, 0],
    ]
    picture = glyphs.draw(file.getvalue(), "o")[0]
    area = 22**2 * (
        1 - 4 * (1 / 4) / 6
    )  # each curve cuts a third of the triangle off its corner, which is an eighth of the square
    assert abs(picture.sum() / 255 - area) < 0.01 * area
    with pytest.raises(KeyError):
        glyphs.draw(file.getvalue(), "x")


@pytest.mark.parametrize(
    "fault, message",
    [
        ("truncate", "truncated or altered"),
        ("flip", "truncated or altered"),
        ("remove", "is missing"),
    ],
)
def test_a_damaged_font(fault, message, tmp_path, monkeypatch):
    for name in glyphs.FACES:
        (tmp_path / "fonts" / "ttf").mkdir(parents=True, exist_ok=True)
        shutil.copy(FONTS / f"{name}.ttf", tmp_path / "fonts" / "ttf")
    victim = tmp_path / "fonts" / "ttf" / "DejaVuSerif-Bold.ttf"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    if fault != "remove":
        victim.write_bytes(content if fault == "flip" else content[:1000])
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    glyphs.load.cache_clear()
    try:
        with pytest.raises(
            data.DataError,
            match=(
                f"glyphs: .*DejaVuSerif-Bold.ttf .*{message}.*pip install --force-reinstall"
                " matplotlib"
            ),
        ):
            data.load("glyphs")
    finally:
        glyphs.load.cache_clear()
