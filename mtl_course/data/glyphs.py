"""Printed characters as small pictures, drawn from the outlines of matplotlib's fonts.

These are the DejaVu fonts. The outlines are read with fontTools, which matplotlib brings, and
filled here: no version of FreeType has a say in the pixels.
"""

import functools
import io
from pathlib import Path

import numpy as np

from . import cache
from .manifest import DataError

SIZE = 28  # pixels: side of a picture
BOX = 22  # pixels: longer side of its ink, which stands in the middle
FINE = 4  # scan lines per row of pixels; along a scan line the coverage is exact
PIECES = 8  # chords that stand for a curve

# The twelve faces that cover all five scripts, with the sha256 of their files in matplotlib 3.8 to
# 3.11 (DejaVu 2.37).
FACES = {
    "DejaVuSans": "3fdf69cabf06049ea70a00b5919340e2ce1e6d02b0cc3c4b44fb6801bd1e0d22",
    "DejaVuSans-Oblique": "ccdf74b350f11fd3dd5774de50e5e6346a1a5da1f5b7d5fb83590665e97a5213",
    "DejaVuSans-Bold": "b184b89e3c1075f22f6b71575b6fc20d4972b3cfd3b23322ca6fd596dcaef167",
    "DejaVuSans-BoldOblique": "6edf0283160186af451cbee71e7b845f2e4cabf264bb992ce668c83c25465e6f",
    "DejaVuSansMono": "602ec86b8948cfcd956482fe64f94c36c867770149ef2f791d4613f443bcecb3",
    "DejaVuSansMono-Oblique": "28052813f7a709fc89f52d192dc995ef4f0fdc5c3d7b73a49d6849b1916d0cd0",
    "DejaVuSansMono-Bold": "baada9a5172fe20886251aff0433fc38461912d5daf07287e7bee56620a8da96",
    "DejaVuSansMono-BoldOblique": (
        "a69081c15c76c827e0a27a5a7f5c74b6135c843499955495ffa8c20d3a98288b"
    ),
    "DejaVuSerif": "107244956e9962b9e96faccdc551825e0ae0898ae13737133e1b921a2fd35ffa",
    "DejaVuSerif-Italic": "3e7994fbc54fa10ce3352a42d548fadd7d9cadb69cb1109bc9d960f6dac57f04",
    "DejaVuSerif-Bold": "c3753f2ed6bc673f15846dc45addbeb3b9c872f32fb18fd53a21f1bef1ed7676",
    "DejaVuSerif-BoldItalic": "d93efec7a9d2e826768d1a2ee95b95870e15e29599a84f3484af1de1cec2e181",
}
# Letters that every face has and that look like no other one: what
# mtl_course/dev/datasets/choose_glyphs.py prints.
CHARACTERS = {
    "Latin": (
        "ABCDEFGHIJKMNOPQRSTUVWXYZabdefgkmnpqrtyÆØÞßæŒƁƆƇƊƏƑƒƓƔƕƛƝƢƣƤƥƦƧƫƶƷƸǂǶȡȤȴȵȸȺȻȽȾ"
        "ȿɀɁɐɗɘɚɝɞɠɥɧɨɬɮɱɲɷɾɿʇʍʐʚʛʝʣʤʦʧʨʩʪʫᴔᴖᴗᴝᴞᴟᵻᶅⱤⱮⱵⱾꜦꞐꞑꞪ"
    ),
    "Greek": "ΔΞΣΦΨΩαβδεηθιστυφωϘϚϠϺϻϾ",
    "Cyrillic": "ЂЉЊЋБДЖЗЛЦЧШЩЪЫЭЮЯиьђєћџѢѣґҖҘҚҤҫҬұҲӃӋ",
    "Armenian": "ԲԴԵԶԷԸԹԻԼԽԾԿՀՁՃՄՅՆՇՉՊՋՌՎՐՒՔՖըթիխծկհձճմնշչպվփֆ",
    "Georgian": "აგდეზთკლმოჟრსტუფქღყჩცწჭჯჰჱჲჳჴჵჶჸჹ",
}


@functools.cache
def load() -> dict:
    """All characters in all faces.

    x: [3204, 28, 28] uint8, ink 255; y: [3204] int64, the character; font: [3204] int64, the face.
    names: [267], the characters themselves; font_names: [12].
    scripts: [267] int64, the script of each character; script_names: [5].

    DataError without the fonts.
    """
    characters = "".join(CHARACTERS.values())
    files = [font(name) for name in FACES]
    x = np.stack([draw(file, characters) for file in files], axis=1)  # [characters, faces, 28, 28]
    number, face = np.indices(x.shape[:2])
    letters_per_script = [len(letters) for letters in CHARACTERS.values()]
    return {
        "x": x.reshape(-1, SIZE, SIZE),
        "y": number.ravel(),
        "font": face.ravel(),
        "names": np.array(list(characters)),
        "scripts": np.repeat(np.arange(len(CHARACTERS)), letters_per_script),
        "script_names": np.array(list(CHARACTERS)),
        "font_names": np.array(list(FACES)),
    }


def font(name: str) -> bytes:
    """The file of this face as matplotlib ships it. DataError if it is missing or another."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    try:
        return cache.verified(path, FACES[name])
    except DataError as error:
        again = "It is one of matplotlib's: python -m pip install --force-reinstall matplotlib"
        raise DataError(f"glyphs: {error} {again}") from None


def draw(file: bytes, characters: str) -> np.ndarray:
    """Pictures [len(characters), 28, 28] uint8 of these characters in a TrueType font.

    KeyError for one that the font lacks.
    """
    curves, owner = outlines(file, characters)
    lines = fitted(chords(curves), owner, len(characters))
    return filled(lines, owner, len(characters))


def outlines(file: bytes, characters: str) -> tuple[np.ndarray, np.ndarray]:
    """Curves of these characters, [S, 3, 2], and the number [S] of the character of each.

    A curve is start, control point and end, in the font's units. A TrueType outline is a ring of
    points. Where two control points follow each other, the curve passes through their middle; where
    two points of the curve do, a straight line joins them. KeyError for a character that the font
    lacks.
    """
    from fontTools.ttLib import TTFont

    numbers, lasts, on_curve, count = [], [], [], [0]
    with TTFont(io.BytesIO(file), lazy=True) as opened:
        table, names = opened["glyf"], opened.getBestCmap()
        for character in characters:
            points, ends, flags = table[names[ord(character)]].getCoordinates(table)
            numbers.append(np.array(points.array, dtype=np.float64))
            on_curve.append(np.array(flags) & 1 == 1)
            lasts += [sum(count) + end for end in ends]  # the last point of each ring
            count.append(len(points))
    p = np.concatenate(numbers).reshape(-1, 2)
    on, last = np.concatenate(on_curve), np.array(lasts)
    # the neighbours of each point in its ring
    previous, following = np.arange(len(p)) - 1, np.arange(len(p)) + 1
    first = np.append(0, last[:-1] + 1)
    previous[first], following[last] = last, first
    middle = (p + p[following]) / 2
    start = np.where(on[previous, None], p[previous], middle[previous])
    end = np.where(on[following, None], p[following], middle)
    curved, straight = np.flatnonzero(~on), np.flatnonzero(on & on[following])
    bends = np.stack([start[curved], p[curved], end[curved]], axis=1)
    lines = np.stack([p[straight], middle[straight], p[following[straight]]], axis=1)
    owner = np.repeat(np.arange(len(characters)), count[1:])
    return np.concatenate([bends, lines]), owner[np.concatenate([curved, straight])]


def chords(curves: np.ndarray) -> np.ndarray:
    """Straight lines [S, PIECES, 2 ends, 2] along quadratic curves [S, 3, 2]."""
    t = np.linspace(0, 1, PIECES + 1)[:, None]
    start, control, end = (curves[:, None, i] for i in range(3))
    along = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    return np.stack([along[:, :-1], along[:, 1:]], axis=2)


def fitted(lines: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """The same lines in pixels, y downwards, the ink of each character centred.

    The longer side of the ink is BOX pixels long.
    """
    low, high = np.full((n, 2), np.inf), np.full((n, 2), -np.inf)
    np.minimum.at(low, owner, lines.min(axis=(1, 2)))
    np.maximum.at(high, owner, lines.max(axis=(1, 2)))
    middle, side = (low + high) / 2, (high - low).max(axis=1)
    scale = (BOX / side)[owner, None, None, None] * np.array([1.0, -1.0])
    return (lines - middle[owner, None, None]) * scale + SIZE / 2


def filled(lines: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """Pictures [n, SIZE, SIZE] uint8, ink 255, of closed outlines in pixels.

    Inside is what the non-zero winding rule says, on each scan line.
    """
    (x0, y0), (x1, y1) = lines.reshape(-1, 2, 2).transpose(1, 2, 0)
    owner = np.repeat(owner, lines.shape[1])
    y0, y1 = y0 * FINE - 0.5, y1 * FINE - 0.5  # scan line k is the height k
    first, last = np.ceil(np.minimum(y0, y1)).astype(int), np.ceil(np.maximum(y0, y1)).astype(int)
    crossings = last - first
    # one entry per crossing of a line with a scan line
    line = np.repeat(np.arange(len(crossings)), crossings)
    k = first[line] + np.arange(len(line)) - np.repeat(np.cumsum(crossings) - crossings, crossings)
    x = x0[line] + (k - y0[line]) * ((x1 - x0)[line] / (y1 - y0)[line])
    pixel = np.floor(x).astype(int)
    direction = np.sign(y1 - y0)[line]
    place = (owner[line] * SIZE * FINE + k) * (SIZE + 1) + pixel
    size = n * SIZE * FINE * (SIZE + 1)
    change = np.bincount(place, direction * (pixel + 1 - x), size)
    change += np.bincount(place + 1, direction * (x - pixel), size)
    winding = change.reshape(n, SIZE * FINE, SIZE + 1).cumsum(axis=2)[..., :SIZE]
    covered = np.minimum(np.abs(winding), 1).reshape(n, SIZE, FINE, SIZE).mean(axis=2)
    return np.rint(255 * covered).astype(np.uint8)
