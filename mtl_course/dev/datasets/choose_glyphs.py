"""Choose the characters of the set `glyphs`, as listed in mtl_course/data/glyphs.py.

``python -m mtl_course.dev.datasets.choose_glyphs``.
A candidate is a letter of one of the five scripts that all the faces have, without an accent
(Unicode does not compose it). Left out are letters for which two faces share one drawing, then,
from the best known letters on, each that looks like one before it.
"""

import io
import sys
import unicodedata

import numpy as np
from fontTools.ttLib import TTFont
from scipy.ndimage import gaussian_filter

from ...data import glyphs

BLUR = 1.0  # pixels: forgives the weight of the strokes, so that a bold o is an O
ONE_DRAWING = 0.05  # two faces whose pictures of a character are closer than this
ALIKE = 0.25  # two characters with pictures, of whichever faces, closer than this
# Of the other scripts every letter is in use.
ALPHABETS = {"Greek": (0x391, 0x3C9), "Cyrillic": (0x410, 0x44F), "Latin": (0x41, 0x7A)}


def script(character: str) -> str:
    """The script, by the first word of the character's Unicode name: "Latin"."""
    return unicodedata.name(character, "?").split()[0].capitalize()


def candidates() -> str:
    """The letters to choose from, the best known first."""
    fonts = [TTFont(io.BytesIO(glyphs.font(name)), lazy=True) for name in glyphs.FACES]
    covered = map(chr, set.intersection(*(set(font.getBestCmap()) for font in fonts)))
    letters = [c for c in covered if unicodedata.category(c) in ("Lu", "Ll", "Lo")]
    plain = [c for c in letters if not unicodedata.decomposition(c)]
    return "".join(sorted((c for c in plain if script(c) in glyphs.CHARACTERS), key=rank))


def rank(character: str) -> tuple:
    """Sorting key of a candidate: the best known alphabets, script by script, then the rest."""
    first, last = ALPHABETS.get(script(character), (0, sys.maxunicode))
    return (
        not first <= ord(character) <= last,
        list(glyphs.CHARACTERS).index(script(character)),
        ord(character),
    )


def distances(x: np.ndarray) -> np.ndarray:
    """Distances [C, F, C, F], 0 to 1.41, of pictures x [C characters, F faces, H, W].

    Each to each other, blurred and of length 1.
    """
    blurred = gaussian_filter(x.astype(np.float32), (0, 0, BLUR, BLUR)).reshape(-1, x[0, 0].size)
    blurred /= np.linalg.norm(blurred, axis=1, keepdims=True)
    return np.sqrt(np.maximum(2 - 2 * blurred @ blurred.T, 0)).reshape(*x.shape[:2], *x.shape[:2])


def between_faces(distance: np.ndarray) -> np.ndarray:
    """For each character [C], the smallest distance of two faces' pictures of it."""
    faces = distance.shape[1]
    return np.array([(distance[c, :, c] + 9 * np.eye(faces)).min() for c in range(len(distance))])


def between_characters(distance: np.ndarray) -> np.ndarray:
    """For each two characters [C, C], the smallest distance of their pictures in any faces."""
    return distance.min(axis=(1, 3))


def choose(letters: str) -> tuple[list[str], int, int]:
    """The letters that stay, in this order, and two counts of those that do not.

    How many share one drawing between faces, and how many look like one that stays.
    """
    pictures = [glyphs.draw(glyphs.font(name), letters) for name in glyphs.FACES]
    distance = distances(np.stack(pictures, axis=1))
    differ, apart = between_faces(distance) >= ONE_DRAWING, between_characters(distance)
    kept = []
    for number in np.flatnonzero(differ):
        if (apart[number, kept] >= ALIKE).all():
            kept.append(number)
    chosen = [letters[number] for number in kept]
    return chosen, int((~differ).sum()), int(differ.sum()) - len(kept)


def main() -> int:
    letters = candidates()
    chosen, one_drawing, alike = choose(letters)
    print(
        f"{len(letters)} letters; {one_drawing} are one drawing in two faces, {alike} look like"
        f" another; {len(chosen)} stay:"
    )
    for name in glyphs.CHARACTERS:
        print(f"{name}: {''.join(sorted(c for c in chosen if script(c) == name))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
