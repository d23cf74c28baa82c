"""Drawings of chapter 19: what a stream's methods store, and how it reaches the next step."""

from .pen import Pen, drawing
from .places import Point


@drawing
def replay() -> Pen:
    pen = Pen(
        "replay", 440, 278, "Replay: old examples in each step",
        """Replay stores examples. Each step joins a batch of the new task with a batch drawn from a
        small memory that holds examples of the tasks before; both pass through the one network,
        and their losses are added up. A dashed arrow brings the gradient of both back. From the
        new batch an arrow leads down into the memory: a few examples are kept for later.""",
    )  # fmt: skip
    batch = pen.box(6, 28, 100, 56, "batch of\ntask 3", "task3")
    network = pen.box(214, 84, 88, 96, "network", "shared")
    pen.circle((404, 132), 18, label="+")
    pen.plate(6, 150, 150, 98, "stored: examples")
    for k, task in enumerate((1, 2, 2, 1, 1, 2, 2, 1, 1, 2)):
        x, y = 18 + 26 * (k % 5), 178 + 30 * (k // 5)
        pen.box(x, y, 20, 22, str(task), f"task{task}", fill=0.2, size=13, rx=2)
    pen.arrow(batch.right, network.at("left", 0.2),
              via=[(180, 56), (180, network.at("left", 0.2)[1])])  # fmt: skip
    pen.arrow((156, 199), network.at("left", 0.8),
              via=[(186, 199), (186, network.at("left", 0.8)[1])])  # fmt: skip
    pen.arrow((56, 84), (56, 150))
    pen.text(62, 117, "a few are kept", 14, "start")
    pen.text(196, 225, "drawn anew\nin each step", 14, "start")
    new = pen.box(334, 40, 48, 40, "*L*_3", "task3")
    old = pen.box(322, 180, 66, 40, "*L*_{1, 2}", "soft")
    for y, up, loss in ((104, -1, new), (160, 1, old)):
        pen.arrow((302, y), loss.left if up < 0 else loss.at("left", 0.5),
                  via=[(312, y), (312, loss.left[1])])  # fmt: skip
        pen.arrow(loss.right, (408, 132 + 18 * up), via=[(408, loss.right[1])])
    pen.arrow((386, 132), (302, 132), gradient=True)
    pen.text(344, 116, "gradient", 14)
    return pen


# Fisher information after task 1 of four parameters, which task 2 pulls to the same distance.
FISHER, PULL = (9.0, 3.0, 0.6, 0.05), 100.0


def moves() -> list[float]:
    """How far each goes from its anchor: the minimum of equation 5, task 2's curvature 1."""
    return [PULL / (1 + fisher) for fisher in FISHER]


def spring(pen: Pen, start: Point, end: Point, width: float) -> None:
    """A zigzag from left to right, with straight ends."""
    (x, y), (u, _) = start, end
    turns = 7
    edge = min(6, (u - x) / 4)
    step = (u - x - 2 * edge) / turns
    points = [(x, y), (x + edge, y)]
    points += [(x + edge + (k + 0.5) * step, y + 6 * (-1) ** k) for k in range(turns)]
    pen.line([*points, (u - edge, y), (u, y)], "frozen", width=width)


@drawing
def ewc() -> Pen:
    pen = Pen(
        "ewc", 440, 284, "Elastic weight consolidation: a spring on each parameter",
        """EWC stores the old parameters a and their Fisher information F, no data. A batch of the
        new task passes through the network, and its dashed gradient pulls at every parameter.
        On the right each parameter hangs by a spring on the place where it was: with a large F
        the spring is thick and the parameter stays, with a small F it is thin and it moves.""",
    )  # fmt: skip
    batch = pen.box(6, 40, 92, 56, "batch of\ntask 2", "task2")
    network = pen.box(6, 168, 92, 60, "network\n*θ*", "shared")
    loss = pen.box(130, 46, 48, 44, "*L*_2", "task2")
    pen.arrow(batch.bottom, network.top)
    pen.arrow(network.right, loss.at("bottom", 0.3), via=[(loss.at("bottom", 0.3)[0], 198)])
    pen.text(52, 252, "old data: gone", 14, role="soft")
    pen.plate(206, 8, 228, 268, "stored: *a* and *F*, of task 1")
    wall = 232.0
    pen.line([(wall, 44), (wall, 244)], "frozen", width=3)
    for k, (fisher, move) in enumerate(zip(FISHER, moves(), strict=True)):
        y = 66 + 52 * k
        end = wall + 36 + move
        spring(pen, (wall, y), (end - 9, y), 1 + 4 * fisher / (1 + fisher))
        pen.box(end - 9, y - 9, 18, 18, "", "shared", fill=0.6, rx=3)
        pen.arrow((end + 11, y), (end + 45, y), "task2", True)
    pen.text(244, 88, "large *F*_i: it stays", 14, "start")
    pen.text(244, 247, "small *F*_i: it moves", 14, "start")
    pen.arrow((178, 60), (204, 60), "task2", True)
    return pen


@drawing
def distillation() -> Pen:
    pen = Pen(
        "distillation", 440, 316, "Distillation in a stream: the old network as a teacher",
        """Distillation stores the old network, frozen and hatched, and no example. The new task's
        batch passes through both networks. For the old classes the new network's outputs are
        compared with the old one's; for the new classes with the labels. Dashed gradients of
        both losses run into the new network only, none into the old one.""",
    )  # fmt: skip
    batch = pen.box(6, 144, 88, 56, "batch of\ntask 2", "task2")
    pen.plate(120, 6, 192, 112, "stored: the old network")
    old = pen.box(136, 34, 112, 66, "network\nafter task 1", frozen=True, size=14)
    pen.box(136, 160, 112, 112, "network", "shared")
    pen.arrow(batch.at("right", 0.3), old.left, via=[(110, batch.at("right", 0.3)[1]), (110, 67)])
    pen.arrow(batch.at("right", 0.8), (136, batch.at("right", 0.8)[1]))
    soft = pen.box(316, 116, 118, 52, "old classes:\nheld to the old", "soft", size=14)
    hard = pen.box(316, 222, 118, 52, "new classes:\nlabels", "task2", size=14)
    pen.arrow(old.right, soft.top, via=[(soft.top[0], 67)])
    pen.arrow((248, 176), (316, 134), via=[(276, 176), (276, 134)])
    pen.arrow((316, 152), (248, 196), gradient=True, via=[(294, 152), (294, 196)])
    pen.arrow((248, 238), (316, 238))
    pen.arrow((316, 258), (248, 258), "task2", gradient=True)
    pen.arrow((50, 200), (hard.bottom[0], 274), "ink", via=[(50, 300), (hard.bottom[0], 300)])
    pen.text(192, 300, "labels", 14, halo=True)
    return pen
