"""On a phone the panels of a figure stand below each other.

A figure of two panels or more is about twice as wide as a phone: shrunk to its width, its words
would be 6 pixels high. For each of them the build makes a second picture of the same pixels, in
which the panels follow each other downwards, and a phone shows that one.

The panels are found in the picture. A panel has a left and a bottom spine, long dark lines that
meet in a corner. Between two panels the picture is cut along an empty line, and only there: what no
empty line divides stays together. Panels that share the numbers of an axis get them each; a title
or a label of all panels stands above or below them, in two lines where one is too long.

A figure of one panel cannot be cut. The notebook holds a narrower drawing of it
(mtl_course/plots/phone.py), and a phone shows that.
"""

import base64
import hashlib
import itertools
import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

WIDE = 600  # pixels of the page; a narrower figure is read on a phone as it is
DOTS = 2  # of a stored figure per pixel of the page
LONG = 90  # dots that a spine is long, at least
DARK, PALE = 90, 250  # grey values: what a spine is at most, what empty paper is at least
GAP = 5  # dots of an empty line, at least
WORD, DIGIT = 9, 1  # dots on either side of a word, or of a number, that belong to it
APART = 16  # dots between a panel and the next, at least; a name is 12 from its numbers
NUMBERS = 70  # dots that the numbers beside a scale of colours take, at most
TICK = 12  # dots that a tick sticks out of its spine, at most
NUMBER = 18  # dots that a number at the end of an axis goes beyond it, at most
DRAWING = 240  # dots of what is no label of a panel but another drawing, without axes
PLACE = 716  # dots of a phone's width
MARGIN = 8
PHONE = "screen and (max-width: 600px)"  # as in course.css
IMAGE = re.compile(r'<img\b[^>]*\bsrc="(?P<src>[^"]*_images/(?P<name>[^"/]+\.png))"[^>]*>')


class Paper:
    """A picture, and where it has ink."""

    def __init__(self, image: Image.Image):
        self.image = image if image.mode == "P" else image.convert("RGB")
        grey = image.convert("L")
        self.width, self.height = grey.size
        dark = grey.point(lambda value: value <= DARK)
        ink = grey.point(lambda value: value < PALE)
        turn = Image.Transpose.TRANSPOSE
        self.ink = (ink.tobytes(), ink.transpose(turn).tobytes())
        self.down, self.across = self.lines(dark.transpose(turn)), self.lines(dark)

    @staticmethod
    def lines(dark: Image.Image) -> list[tuple[int, int, int]]:
        """(place, begin, end) of the long dark lines of a picture's rows."""
        found = []
        for run in re.finditer(rb"\x01{%d,}" % LONG, dark.tobytes()):
            place, begin = divmod(run.start(), dark.width)
            if begin + len(run[0]) <= dark.width:  # else it goes over the end of a row
                found.append((place, begin, begin + len(run[0]) - 1))
        return found

    def blank(self, width: int, height: int) -> Image.Image:
        """White paper, with the picture's own colours."""
        if self.image.mode == "RGB":
            return Image.new("RGB", (width, height), "white")
        colours = self.image.getpalette()
        lightest = max(range(0, len(colours), 3), key=lambda k: sum(colours[k : k + 3])) // 3
        sheet = Image.new("P", (width, height), lightest)
        sheet.putpalette(colours)
        return sheet

    def runs(self, box, across: bool):
        """(begin, end, has ink) of the runs of a box's columns (`across`) or rows, in order."""
        left, top, right, bottom = box
        data, size = self.ink[across], self.height if across else self.width
        begin, end, low, high = (left, right, top, bottom) if across else (top, bottom, left, right)
        found = []
        for k in range(begin, end):
            full = data.find(b"\x01", k * size + low, k * size + high) >= 0
            if found and found[-1][2] == full:
                found[-1][1] = k + 1
            else:
                found.append([k, k + 1, full])
        return [tuple(run) for run in found]

    def empty(self, box) -> bool:
        return not any(full for _, _, full in self.runs(box, False))

    def tight(self, box):
        """The box without the empty paper around its ink; None if it has none."""
        for across in (True, False):
            full = [run for run in self.runs(box, across) if run[2]]
            if not full:
                return None
            begin, end = full[0][0], full[-1][1]
            box = (begin, box[1], end, box[3]) if across else (box[0], begin, box[2], end)
        return box


def axes(paper: Paper) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each pair of spines that meet in the lower left corner."""
    found = []
    for x, top, bottom in paper.down:
        for y, left, right in paper.across:
            # A tick at the corner makes a spine longer.
            near = -3 <= x - left <= TICK and -3 <= bottom - y <= TICK and right > x + LONG
            if near and not any(abs(x - a) <= 4 and abs(y - d) <= 4 for a, _, _, d in found):
                found.append((x, top, right, y))
    return [box for box in found if not any(box != other and inside(box, other) for other in found)]


def inside(box, other) -> bool:
    """Whether a box is a part of another, as a dark field of a map of colours is."""
    return all(a >= b - 4 for a, b in zip(box[:2], other[:2], strict=True)) and all(
        a <= b + 4 for a, b in zip(box[2:], other[2:], strict=True)
    )


def in_rows(boxes) -> list[list[tuple]]:
    """Boxes in the rows that they stand in, from left to right."""
    rows = []
    for box in sorted(boxes, key=lambda box: (box[1] + box[3], box[0])):
        middle = (box[1] + box[3]) / 2
        row = next((row for row in rows if row[0][1] < middle < row[0][3]), None)
        if row is None:
            rows.append([box])
        else:
            row.append(box)
    return [sorted(row) for row in rows]


def gaps(bands, reaches) -> list[tuple[int, int]]:
    """(begin, end) of what is empty in all bands: each the runs of a box, and how far they reach.

    Words that follow each other closer than twice this reach are not divided.
    """
    begin = min(runs[0][0] for runs in bands if runs)
    end = max(runs[-1][1] for runs in bands if runs)
    full = bytearray(end - begin)
    for runs, reach in zip(bands, reaches, strict=True):
        for a, b, ink in runs:
            if ink:
                a, b = max(a - reach, begin), min(b + reach, end)
                full[a - begin : b - begin] = b"\x01" * (b - a)
    return [
        (begin + run.start(), begin + run.end())
        for run in re.finditer(rb"\x00{%d,}" % GAP, bytes(full))
    ]


class Row:
    """Panels beside each other: where they are cut apart, and what belongs to all of them."""

    def __init__(self, paper: Paper, boxes, top: int, bottom: int, left: int):
        self.paper, self.boxes, self.left = paper, boxes, left
        self.top, self.bottom = top, bottom
        self.spines = min(box[1] for box in boxes), max(box[3] for box in boxes)
        self.groups = []  # (begin, end, boxes) of what the cuts divide

    def divide(self, heads: bool, feet: bool) -> None:
        """Find the cuts; lines at the top (`heads`) and bottom (`feet`) that bar them are left out.

        As few lines as will do: a title over all panels, a label or a legend below them.
        """
        right = self.paper.width
        above = self.paper.runs((self.left, self.top, right, self.spines[0]), False)
        below = self.paper.runs((self.left, self.spines[1], right, self.bottom), False)
        tops = [self.top, *(end for _, end, full in above if full)] if heads else [self.top]
        # The numbers of the axes stay with them.
        lines = [begin for begin, _, full in below if full and begin > self.spines[1] + TICK]
        feet_at = lines[:0:-1] if feet else []
        choices = [
            (i + j, i, top, bottom)
            for i, top in enumerate(tops)
            for j, bottom in enumerate([self.bottom, *feet_at])
        ]
        best = max(
            (sum(map(bool, cuts)), -dropped, -i, top, bottom, cuts)
            for dropped, i, top, bottom in choices
            for cuts in [[self.cut(k, top, bottom) for k in range(len(self.boxes) - 1)]]
        )
        *_, self.top, self.bottom, cuts = best
        begin = self.lead()
        self.groups = [(self.left, begin, [])] if begin > self.left else []
        panels = []
        for box, cut in zip(self.boxes, [*cuts, self.paper.width], strict=True):
            panels.append(box)
            if cut:
                self.groups.append((begin, cut, panels))
                begin, panels = cut, []

    def lead(self) -> int:
        """Where the first panel begins, if a drawing without axes stands before it."""
        box = (self.left, self.top, self.boxes[0][0], self.bottom)
        runs = [(b - a, a, b) for a, b, full in self.paper.runs(box, True) if not full]
        _, a, b = max([run for run in runs if run[1] - self.left >= DRAWING], default=(0, 0, 0))
        return (a + b) // 2 if b - a >= APART else self.left

    def cut(self, k: int, top: int, bottom: int) -> int:
        """Where the picture is cut between one panel and the next; 0 if it cannot be."""
        begin, end = self.boxes[k][2] + 1, self.boxes[k + 1][0]
        scale = 0  # of colours, which belongs to its panel with the numbers beside it
        for x, low, high in self.paper.down:
            if begin < x < end - 2 * TICK and self.beside(low, high):
                scale = max(scale, x)
        begin = max(begin, scale)
        below = self.paper.runs((self.left, self.spines[1] + TICK, self.paper.width, bottom), False)
        numbers = next((b for _, b, full in below if full), bottom)  # end of the line of these
        heights = [top, self.spines[0] - TICK, self.spines[1] + TICK, numbers, bottom]
        bands = [
            self.paper.runs((begin, a, end, b), True) if a < b else []
            for a, b in itertools.pairwise(heights)
        ]
        found = gaps(bands, (WORD, 0, DIGIT, WORD))
        if scale:
            found = [gap for gap in found if gap[1] - gap[0] >= APART]
            stop = found[0][0] if found else end
            beside = self.paper.runs((begin, heights[1], stop, heights[2]), True)
            if any(full and b - a > NUMBERS for a, b, full in beside[2:]):
                return 0  # words of the next panel are too near
        elif found and found[0][0] >= next((b for _, b in gaps(bands[1:2], (0,))), end):
            return 0  # the numbers of the next panel are passed already
        return sum(found[0]) // 2 if found else 0

    def beside(self, low: int, high: int) -> bool:
        return self.spines[0] - TICK < low and high < self.spines[1] + TICK

    def join(self, width: int) -> None:
        """Let neighbours stay together as long as they are no wider than this."""
        for many in range(len(self.groups), 0, -1):
            chunks = [self.groups[k : k + many] for k in range(0, len(self.groups), many)]
            if many == 1 or all(chunk[-1][1] - chunk[0][0] <= width for chunk in chunks):
                break
        self.groups = [
            (chunk[0][0], chunk[-1][1], [box for _, _, boxes in chunk for box in boxes])
            for chunk in chunks
        ]


def dissect(paper: Paper):
    """(rows, head, side, foot): the rows' panels, and the boxes of what belongs to all of them."""
    boxes = axes(paper)
    rows = in_rows(boxes)
    cuts = between(paper, rows)
    if len(boxes) < 2 or 0 in cuts:
        return [], None, None, None
    side = name_of_all(paper, rows, cuts)
    left = side[2] if side else 0
    edges = [0, *cuts, paper.height]
    found = [
        Row(paper, row, top, bottom, left)
        for row, (top, bottom) in zip(rows, itertools.pairwise(edges), strict=True)
    ]
    for row in found:
        row.divide(row is found[0], row is found[-1])
    head = paper.tight((0, 0, paper.width, found[0].top))
    foot = paper.tight((0, found[-1].bottom, paper.width, paper.height))
    if foot and is_name_of_one(foot, rows[-1]):
        return [], None, None, None
    return found, head, side, foot


def is_name_of_one(foot, row) -> bool:
    """Whether a line below a row is the name of one panel, which is longer than it."""

    def apart(left: int, right: int) -> float:
        return abs((foot[0] + foot[2]) - (left + right)) / 2

    return apart(row[0][0], row[-1][2]) > 2 * APART and any(
        apart(box[0], box[2]) < APART for box in row
    )


def between(paper: Paper, rows) -> list[int]:
    """Where the picture is cut between one row of panels and the next; 0 if it cannot be."""
    cuts = []
    left = min((box[0] for row in rows for box in row), default=0)
    for upper, lower in itertools.pairwise(rows):
        begin, end = max(box[3] for box in upper) + 1, min(box[1] for box in lower) - 2
        runs = paper.runs((left, begin, paper.width, end), False)
        lines = [run for run in runs if run[2] and run[1] - run[0] > GAP]
        if lines and is_title(paper, lower[0], rows[0][0], lines[-1]):
            runs = [run for run in runs if run[1] <= lines[-1][0]]
        empty = [run for run in runs if not run[2] and run[1] - run[0] > 2]
        cuts.append((empty[-1][0] + empty[-1][1]) // 2 if empty else 0)
    return cuts


def name_of_all(paper: Paper, rows, cuts):
    """The box of a label that runs along several rows on their left; None if there is none."""
    top, bottom = rows[0][0][1], rows[-1][0][3]
    left = min(box[0] for row in rows for box in row)
    full = [run for run in paper.runs((0, top, left, bottom), True) if run[2]]
    if not full:
        return None
    found = paper.tight((full[0][0], top, full[0][1], bottom))
    # One line of words, and not a label of each row.
    whole = all(ink or b - a < 4 * WORD for a, b, ink in paper.runs(found, False))
    return found if whole and any(found[1] <= cut < found[3] for cut in cuts) else None


def is_title(paper: Paper, box, first, line) -> bool:
    """Whether a line of words above a panel is its title.

    It begins where the panel does, or is as far from it as the title of the first row.
    """
    found = paper.tight((max(box[0] - 40, 0), line[0], box[2], line[1]))
    if found is not None and abs(found[0] - box[0]) <= 8:
        return True
    above = [run for run in paper.runs((first[0], 0, first[2], first[1] - 2), False) if run[2]]
    return bool(above) and abs((box[1] - line[1]) - (first[1] - above[-1][1])) <= 3


def words(paper: Paper, box, width: int):
    """A line of words as lines that are no wider: boxes of what each takes."""
    gaps = [run for run in paper.runs(box, True) if not run[2]]
    broad = [run for run in gaps if run[1] - run[0] >= 40]  # between the entries of a legend
    at = [run for run in (broad or gaps) if run[1] - run[0] >= 8]
    lines, begin, last = [], box[0], None
    for gap in [*at, (box[2], box[2], False)]:
        if last is not None and gap[0] - begin > width:
            lines.append((begin, box[1], last[0], box[3]))
            begin = last[1]
        last = gap
    return [*lines, (begin, box[1], box[2], box[3])]


def panel(paper: Paper, row: Row, group, rows) -> Image.Image:
    """One group of panels as a picture, with the numbers that its axes share with others."""
    begin, end, boxes = group
    own = paper.image.crop((begin, row.top, end, row.bottom))
    if not boxes:
        return trimmed(own)
    left, high, low = boxes[0][0], boxes[0][1] - NUMBER, boxes[0][3] + NUMBER
    if paper.empty((begin, high, left - TICK, low - TICK)):
        for other, _, others in reversed(row.groups[: row.groups.index(group)]):
            scale = others and paper.tight((other, high, others[0][0] - TICK, low))
            if scale:
                room = max(others[0][0] - scale[0], left - begin)
                wider = paper.blank(room + end - left, own.height)
                wider.paste(own, (room - (left - begin), 0))
                own, begin = wider, left - room
                place = (room - (others[0][0] - scale[0]), scale[1] - row.top)
                own = with_ink(paper, own, paper.image.crop(scale), place)
                break
    under = row.spines[1] + TICK
    ticks = not paper.empty((left, row.spines[1] + 4, end, under))
    if ticks and paper.empty((left, under, end, row.bottom)):
        for other, stop, others in rows[-1].groups:
            if others and abs(others[0][0] - left) <= 4:
                scale = paper.tight((other, rows[-1].spines[1] + TICK, stop, rows[-1].bottom))
                if scale:
                    down = row.spines[1] - rows[-1].spines[1] - row.top
                    place = (scale[0] - begin, scale[1] + down)
                    own = with_ink(paper, own, paper.image.crop(scale), place)
    return trimmed(own)


def with_ink(paper: Paper, image: Image.Image, other: Image.Image, place) -> Image.Image:
    """A picture with the ink of another on it; it grows if need be."""
    size = [max(a, b + c) for a, b, c in zip(image.size, place, other.size, strict=True)]
    sheet = paper.blank(*size)
    sheet.paste(image, (0, 0))
    sheet.paste(other, place, marked(other))
    return sheet


def marked(image: Image.Image) -> Image.Image:
    """Where a picture has ink."""
    return image.convert("L").point(lambda value: 255 * (value < PALE))


def trimmed(image: Image.Image) -> Image.Image:
    """Without the empty paper around it."""
    box = marked(image).getbbox()
    return image.crop(box) if box else image


def below_each_other(image: Image.Image) -> Image.Image | None:
    """The picture for a phone; None if there are no panels to be cut apart."""
    paper = Paper(image)
    rows, head, side, foot = dissect(paper)
    for row in rows:
        row.join(PLACE * 4 // 3)
    if sum(len(row.groups) for row in rows) < 2:
        return None
    parts = [panel(paper, row, group, rows) for row in rows for group in row.groups]
    width = max(PLACE - 2 * MARGIN, *(part.width for part in parts))
    if width + 2 * MARGIN > 0.8 * image.width:
        return None
    lines = []
    if head:
        lines += [(paper.image.crop(box), 4) for box in words(paper, head, width)]
    if side:
        lines.append((paper.image.crop(side).transpose(Image.Transpose.ROTATE_270), 12))
    lines += [(part, 24) for part in parts]
    if foot:
        one = foot[3] - foot[1] <= 48
        boxes = words(paper, foot, width) if one else [foot]
        lines += [(paper.image.crop(box), 12) for box in boxes]
    lines = [(fitted(line, width), gap) for line, gap in lines]
    phone = paper.blank(width + 2 * MARGIN, sum(line.height + gap for line, gap in lines) + MARGIN)
    y = 0
    for line, gap in lines:
        y += gap
        phone.paste(line, (MARGIN, y), marked(line))
        y += line.height
    return phone


def fitted(line: Image.Image, width: int) -> Image.Image:
    """A line of words no wider than this: smaller, if it is a legend of several lines."""
    if line.width <= width:
        return line
    size = width, line.height * width // line.width
    smaller = line.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if line.mode == "P":
        return smaller.quantize(palette=line, dither=Image.Dither.NONE)
    return smaller


def below(app, pagename, templatename, context, doctree):
    """Give each wide figure of a page its picture for a phone."""
    if app.builder.format != "html":
        return
    sources = {name: source for source, name in app.builder.images.items()}
    stored = drawn(Path(app.env.doc2path(pagename))) if doctree is not None else {}

    def twin(match):
        source = sources.get(unquote(unescape(match["name"])))
        phone = source and narrow(app, Path(app.srcdir, source), stored)
        if not phone:
            return match[0]
        address = match["src"].removesuffix(match["name"]) + phone
        return f'<picture><source media="{PHONE}" srcset="{address}" />{match[0]}</picture>'

    context["body"] = IMAGE.sub(twin, context.get("body", ""))


def drawn(page: Path) -> dict[str, bytes]:
    """What a notebook holds for phones: hash of a figure -> its narrower drawing."""
    if page.suffix != ".ipynb":
        return {}
    found = {}
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            phone = output.get("metadata", {}).get("image/png", {}).get("phone")
            if phone:
                figure = base64.b64decode("".join(output["data"]["image/png"]))
                found[hashlib.sha256(figure).hexdigest()] = base64.b64decode(phone)
    return found


def narrow(app, source: Path, stored: dict[str, bytes]) -> str:
    """The name of the picture for a phone, which is written; empty if a figure needs none."""
    with Image.open(source) as image:
        if image.width <= DOTS * WIDE:
            return ""
        phone = below_each_other(image)
    own = stored.get(hashlib.sha256(source.read_bytes()).hexdigest())
    if phone is None and own is None:
        return ""
    target = Path(app.outdir, "_images", f"{source.stem}-phone.png")
    target.parent.mkdir(exist_ok=True)
    if phone is None:
        target.write_bytes(own)
    else:
        phone.save(target, optimize=True)
    return target.name


def setup(app):
    app.connect("html-page-context", below)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
