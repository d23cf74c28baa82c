"""The drawing on the cover: several tasks, one trunk, and what it knows carried to a new task."""

from .pen import Pen, drawing
from .places import Box, Point

ALT = """Pictures, a river's curve and a table of people, three tasks in three colours, flow into
    one broad blue trunk of four layers and leave it again to three heads: which digit, how high,
    yes or no. Below, the trunk is carried over to a new task with only five examples: its first
    layers are kept as they are, hatched, and a new head is learned."""
SEVEN = ("11111", "00001", "00010", "00100", "00100")
GLYPHS = ("101010101", "010111010", "110011110", "111010010", "100110011")  # 3 x 3 each


def ribbon(pen: Pen, start: Point, end: Point, role: str, width: float, opacity=0.3) -> None:
    """A broad band that flows from start to end, level at both."""
    middle = (start[0] + end[0]) / 2
    d = f"M{start[0]:.1f} {start[1]:.1f}C{middle:.1f} {start[1]:.1f} {middle:.1f} {end[1]:.1f}"
    opacity = f"{opacity:g}"
    pen.element("path", role, d=f"{d} {end[0]:.1f} {end[1]:.1f}", fill="none",
                stroke="currentColor", stroke_width=width, stroke_opacity=opacity)  # fmt: skip


def pixels(pen: Pen, rows: tuple[str, ...], at: Point, side: float, role: str) -> None:
    """The dark pixels of a small image, its top left corner at a point."""
    d = "".join(
        f"M{at[0] + side * j:.1f} {at[1] + side * i:.1f}h{side - 0.8:.1f}v{side - 0.8:.1f}"
        f"h-{side - 0.8:.1f}z"
        for i, row in enumerate(rows)
        for j, dark in enumerate(row)
        if dark == "1"
    )
    pen.element("path", role, d=d, fill="currentColor")


def card(pen: Pen, box: Box, task: int) -> None:
    """A task's data."""
    role, (x, y) = f"task{task}", box.center
    pen.element("rect", "paper", x=box.x, y=box.y, width=box.w, height=box.h, rx=7,
                fill="currentColor")  # fmt: skip
    pen.box(*box, "", role, rx=7)
    if task == 1:
        pixels(pen, SEVEN, (x - 20, y - 20), 8, role)
    elif task == 2:
        flow = (2, 4, 3, 7, 15, 10, 7, 6, 9, 5, 3)
        points = [(x - 30 + 6 * k, y + 16 - 2.2 * level) for k, level in enumerate(flow)]
        pen.line(points, role, width=2.6)
        pen.line([(x - 32, y + 20), (x + 32, y + 20)], role, width=1.2)
    elif task == 3:
        for i in range(4):
            for j, w in enumerate((26, 14, 14)):
                left = x - 32 + (0, 32, 50)[j]
                pen.line([(left, y - 18 + 12 * i), (left + w, y - 18 + 12 * i)], role,
                         width=4 if i == 0 else 2.4)  # fmt: skip
    else:
        for k, glyph in enumerate(GLYPHS):
            left, top = x - 36 + 27 * (k % 3) + 13.5 * (k > 2), y - 21 + 24 * (k // 3)
            pen.box(left, top, 19, 19, "", role, rx=3, fill=0)
            pixels(pen, (glyph[:3], glyph[3:6], glyph[6:]), (left + 4, top + 4), 4, role)


def layers(pen: Pen, left: float, y: float, step: float, heights: tuple, frozen: int = 0) -> None:
    """The slabs of a trunk, the first ones hatched if they are kept as they are."""
    for k, height in enumerate(heights):
        slab = Box(left + step * k, y - height / 2, 0.68 * step, height)
        pen.element("rect", "paper", x=slab.x, y=slab.y, width=slab.w, height=slab.h, rx=5,
                    fill="currentColor")  # fmt: skip
        pen.box(*slab, "", "shared", frozen=k < frozen, fill=0.25 + 0.14 * k)


def composition(
    name: str, width: int, cards: float, trunk: float, step: float, heads: float
) -> Pen:
    """The cover at one width: where cards, trunk and heads begin, and a layer's share."""
    pen = Pen(name, width, 440, "Several tasks, one trunk, and a new task", ALT)
    ys, middle, new = (74, 150, 226), 150, 366
    ends = trunk + 3.68 * step
    outputs = {1: "7", 2: "3.4 m", 3: "yes", 4: "b"}
    head = {t: Box(heads, y - 20, width - heads - 6, 40) for t, y in enumerate((*ys, new), 1)}
    card_of = {t: Box(cards, y - 31, 92, 62) for t, y in enumerate((*ys, new), 1)}
    # the flow behind everything
    for t, y in enumerate(ys, 1):
        lane = middle + 34 * (t - 2)
        ribbon(pen, (cards + 92, y), (trunk + 2, lane), f"task{t}", 30)
        ribbon(pen, (ends - 2, middle + 24 * (t - 2)), (heads, y), f"task{t}", 20)
    pen.element("path", "shared", d=f"M{trunk:g} {middle:g}H{ends:g}", stroke="currentColor",
                stroke_width=88, stroke_opacity="0.22")  # fmt: skip
    ribbon(pen, (cards + 92, new), (trunk + 2, new), "task4", 26)
    ribbon(pen, (ends - 2, new), (heads, new), "task4", 20)
    pen.element("path", "shared", d=f"M{trunk:g} {new:g}H{ends:g}", stroke="currentColor",
                stroke_width=40, stroke_opacity="0.22")  # fmt: skip
    # what is carried over
    large, small = (176, 156, 136, 116), (76, 68, 60, 52)
    for k in (0, 3):
        x = trunk + (k + 0.34) * step
        pen.arrow((x, middle + large[k] / 2 + 5), (x, new - small[k] / 2 - 4), "shared", width=3)
    layers(pen, trunk, middle, step, large)
    layers(pen, trunk, new, step, small, frozen=2)
    for t in range(1, 5):
        card(pen, card_of[t], t)
        pen.element("rect", "paper", x=head[t].x, y=head[t].y, width=head[t].w, height=40, rx=5,
                    fill="currentColor")  # fmt: skip
        pen.box(*head[t], outputs[t], f"task{t}", fill=0.3, bold=True)
    centre = trunk + 1.84 * step
    pen.text(cards, 14, "several tasks", anchor="start")
    pen.text(centre, 14, "one shared trunk", bold=True)
    pen.text(width - 6, 14, "heads", anchor="end")
    pen.text(centre, (middle + 88 + new - 38) / 2, "carried over")
    pen.text(cards, new + 54, "a new task, five examples", anchor="start")
    return pen


@drawing
def cover() -> Pen:
    return composition("cover", 760, 10, 262, 62, 650)


@drawing
def cover_phone() -> Pen:
    return composition("cover_phone", 400, 4, 144, 40, 332)
