"""Drawings of chapter 11: task tokens that read a sequence, and two towers with their fusion."""

from .pen import Pen, drawing

WORDS = ("very", "soft", "dress", "but", "tight")
# How much two tasks look at each word, in tenths: an example, not a result.
LOOKS = {"stars": (1, 3, 0, 1, 5), "department": (0, 1, 8, 0, 1)}


@drawing
def task_tokens() -> Pen:
    pen = Pen(
        "task_tokens", 440, 392, "One encoder, and a token for each task that looks at the words",
        """Five words of a review enter a shared encoder, in which every word may look at every
        other. Above it stand two task tokens, one for the stars and one for the department. Each
        looks at the words of the encoder with weights of its own, drawn as lines of unequal
        width: the stars look at soft and tight, the department at dress. Each token hands what it
        read to the head of its task.""",
    )  # fmt: skip
    left, step = 54.0, 83.0
    places = [left + step * k for k in range(len(WORDS))]
    for x, word in zip(places, WORDS, strict=True):
        pen.text(x, 376, word, 15)
        pen.arrow((x, 362), (x, 334))
    encoder = pen.box(12, 254, 416, 80, "", "shared", layers=1)
    pen.text(220, 320, "encoder, shared by the tasks", 14)
    for k, x in enumerate(places):
        for other in places[k + 1 :]:
            pen.line([(x, 300), ((x + other) / 2, 300 - 0.12 * (other - x)), (other, 300)],
                     "soft", width=0.9)  # fmt: skip
        pen.circle((x, 300), 4, "shared", fill=0.9)
        pen.arrow((x, encoder.y), (x, 226))
        pen.circle((x, 216), 10, "shared", fill=0.5)
    for number, (task, looks) in enumerate(LOOKS.items(), 1):
        role, x = f"task{number}", 128.0 if number == 1 else 312.0
        for place, weight in zip(places, looks, strict=True):
            if weight:
                pen.line([(x, 130), (place, 206)], role, width=0.9 * weight)
        token = pen.box(x - 76, 92, 152, 38, "", role, fill=0.3)
        pen.text(x, 111, f"token “{task}”", 14)
        head = pen.box(x - 36, 36, 72, 32, "head", role, size=14)
        pen.arrow(token.top, head.bottom)
        pen.text(x, 14, task, 15, bold=True)
        pen.arrow(head.top, (x, 24))
    return pen


@drawing
def two_towers() -> Pen:
    pen = Pen(
        "two_towers", 440, 430, "Two towers that meet by their pairs, and fusion of both",
        """Above: a picture of the sun passes one tower, the name sun with rays another. Both end
        as arrows in one space. A table of three pictures by three names has its diagonal filled:
        pairs that belong together are pulled together, all others pushed apart. Below: picture
        and name of the same row enter one network for the tasks category and group. A dashed
        slot beside the name says: if it is missing, a learned vector stands here.""",
    )  # fmt: skip
    pen.text(4, 12, "two towers: which name belongs to which picture?", 14, "start", bold=True)
    sun(pen, 44, 74)
    picture = pen.box(96, 52, 96, 44, "picture\ntower", "shared", size=14)
    name = pen.box(96, 134, 96, 44, "name\ntower", "source", size=14)
    pen.text(44, 156, "“sun with\nrays”", 14)
    pen.arrow((66, 74), picture.left)
    pen.arrow((80, 156), name.left)
    x, y, cell = 300.0, 62.0, 36.0
    for row in range(3):
        for column in range(3):
            same = row == column
            pen.box(x + cell * column + 2, y + cell * row + 2, cell - 4, cell - 4,
                    "+" if same else "−", "shared" if same else "soft", rx=2,
                    fill=0.45 if same else 0.05, size=15)  # fmt: skip
    pen.arrow(picture.right, (x - 4, y + 18), via=[(230, 74), (230, y + 18)])
    pen.arrow(name.right, (x + 18, y + 3 * cell + 4), via=[(240, 156), (240, 186), (x + 18, 186)])
    pen.text(x + 1.5 * cell, 48, "cosines", 14)
    pen.text(x + 1.5 * cell + 12, 204, "a row per picture,\na column per name", 14, role="soft")
    pen.line([(0, 228), (440, 228)], "soft", width=0.8)
    pen.text(4, 248, "fusion: both answer the same tasks", 14, "start", bold=True)
    sun(pen, 44, 296)
    pen.text(44, 366, "“sun with\nrays”", 14)
    cells = pen.box(96, 276, 84, 40, "cells", "shared", size=14)
    words = pen.box(96, 346, 84, 40, "words", "source", size=14)
    pen.arrow((66, 296), cells.left)
    pen.arrow((80, 366), words.left)
    join = pen.box(226, 296, 84, 70, "join", "shared", size=15)
    pen.arrow(cells.right, join.at("left", 0.2))
    pen.arrow(words.right, join.at("left", 0.8))
    for k, task in enumerate(("category", "group")):
        head = pen.box(346, 286 + 54 * k, 86, 34, task, f"task{k + 1}", size=14)
        pen.arrow(join.at("right", 0.25 + 0.5 * k), head.left)
    pen.box(96, 398, 84, 26, "nothing", "soft", dashed=True, fill=0.04, size=14)
    pen.text(192, 411, "a learned vector, if it is missing", 14, "start", role="soft")
    return pen


def sun(pen: Pen, x: float, y: float) -> None:
    """A little sun."""
    pen.circle((x, y), 10, "pooled", fill=0.6)
    for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7),
                   (-0.7, -0.7)):  # fmt: skip
        pen.line([(x + 14 * dx, y + 14 * dy), (x + 20 * dx, y + 20 * dy)], "pooled")
