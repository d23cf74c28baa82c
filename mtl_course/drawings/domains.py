"""Drawings of chapter 15: a reversed gradient, and what each way of aligning makes equal."""

import numpy as np

from .pen import Pen, drawing


@drawing
def gradient_reversal() -> Pen:
    pen = Pen(
        "gradient_reversal", 440, 360, "The reversal layer between trunk and domain head",
        """A labelled batch of the source and an unlabelled one of the target pass through one
        trunk. Above, the label head reads the source only; the dashed gradient of its loss
        returns to the trunk as it is. Below, between the trunk and the domain head, which
        tells source from target, stands a reversal: forward it changes nothing, backward it
        turns the domain loss's gradient round, times minus lambda.""",
    )  # fmt: skip
    source = pen.box(2, 66, 84, 60, "source\nwith labels", "source", size=14)
    target = pen.box(2, 200, 84, 60, "target\nno labels", "target", size=14)
    trunk = pen.box(112, 108, 70, 110, "trunk\n*θ*_f", "shared")
    for batch, part in ((source, 0.2), (target, 0.8)):
        y = trunk.at("left", part)[1]
        pen.arrow(batch.right, trunk.at("left", part),
                  via=[(99, batch.right[1]), (99, y)])  # fmt: skip
    # labels, as always
    up, low = 82.0, 244.0
    head = pen.box(268, up - 28, 72, 56, "label\nhead", "source", size=15)
    pen.box(386, up - 24, 50, 48, "*L*_y", "source")
    pen.arrow((182, 128), head.at("left", 0.3), via=[(204, 128), (204, up - 11)])
    pen.arrow(head.at("right", 0.3), (386, up - 11))
    pen.arrow((386, up + 14), (340, up + 14), "source", True)
    pen.arrow((268, up + 14), (182, 148), "source", True, via=[(222, up + 14), (222, 148)])
    pen.text(244, up + 34, "+ ∂*L*_y", 15)
    # domains, with the sign changed
    gate = pen.box(204, low - 34, 50, 68, "", "task3", fill=0.25)
    pen.text(229, low - 15, "× 1", 15)
    pen.text(229, low + 15, "× −*λ*", 14)
    pen.box(286, low - 28, 72, 56, "domain\nhead", "task3", size=15)
    pen.box(390, low - 24, 46, 48, "*L*_d", "task3")
    pen.arrow((182, 178), gate.at("left", 0.28), via=[(194, 178), (194, low - 15)])
    pen.arrow(gate.at("right", 0.28), (286, low - 15))
    pen.arrow((358, low - 15), (390, low - 15))
    pen.arrow((390, low + 15), (358, low + 15), "task3", True)
    pen.arrow((286, low + 15), (254, low + 15), "task3", True)
    pen.arrow((204, low + 15), (160, 218), "task3", True, via=[(160, low + 15)], width=2.6)
    pen.text(156, low + 34, "− *λ* ∂*L*_d", 15)
    pen.text(270, low + 48, "+ ∂*L*_d", 15)
    pen.text(229, low - 48, "reversal", 14, bold=True)
    pen.text(404, low + 50, "source or\ntarget?", 14)
    pen.text(4, 338, "the head learns to tell, the trunk to hide it", 14, "start", role="soft")
    return pen


# Two classes in the plane of two features: their centres, and the cloud's two radii.
PLACES = (((-1.0, 0.75), (0.55, 0.45)), ((0.95, -0.7), (0.65, 0.4)))
EACH = 7  # examples of a class in a domain


def cloud(each: tuple[int, int] = (EACH, EACH), turn: float = 0.0) -> list[np.ndarray]:
    """Examples of both classes [n, 2], spread evenly like the seeds of a sunflower."""
    classes = []
    for (centre, radii), n in zip(PLACES, each, strict=True):
        k = np.arange(n)
        angle = k * 2.399963 + turn
        way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        classes.append(np.array(centre) + np.array(radii) * np.sqrt((k + 0.5) / n)[:, None] * way)
    return classes


def root(matrix: np.ndarray, power: float) -> np.ndarray:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values**power @ vectors.T


def domains() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Panel -> features of source and target [2 EACH, 2], the circles first."""
    source = np.concatenate(cloud())
    # the target lies elsewhere; its features rise together where the source's fall
    target = np.concatenate(cloud(turn=1.0)) @ np.array([[0.62, 0.28], [0.02, 0.26]])
    target = target - target.mean(0) + [0.7, 0.95]
    spread = source.std(0, ddof=1) / target.std(0, ddof=1)
    # the symmetric matrix that turns the target's covariance into the source's
    t, s = np.cov(target.T), np.cov(source.T)
    inverse = root(t, -0.5)
    recolour = inverse @ root(root(t, 0.5) @ s @ root(t, 0.5), 0.5) @ inverse
    return {
        "before": (source, target),
        "AdaBN": (source, (target - target.mean(0)) * spread + source.mean(0)),
        "CORAL": (source, (target - target.mean(0)) @ recolour + target.mean(0)),
        "MMD": (source, np.concatenate(cloud(turn=1.0))),
    }


def shifted() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Label shift: source with 6 circles and 2 triangles, target with 2 and 6, and the target moved
    so that both places hold as many examples as in the source."""
    source, target = cloud((6, 2)), cloud((2, 6), turn=1.0)
    places = cloud((6, 2), turn=2.0)
    return source, target, [places[0][:2], np.concatenate([places[0][2:], places[1]])]


def example(pen: Pen, triangle: bool, at: tuple[float, float], role: str) -> None:
    """One example: its class by its shape, filled for the target."""
    (x, y), r, fill = at, 5.0, 0.0 if role == "source" else 0.85
    if triangle:
        pen.region([(x, y - r - 1), (x + r, y + r - 1), (x - r, y + r - 1)], role, fill, width=1.6)
    else:
        pen.element("circle", role, cx=x, cy=y, r=r - 0.5, stroke="currentColor", stroke_width=1.6,
                    fill="currentColor" if fill else "none", fill_opacity=fill or None)  # fmt: skip


def ellipse(points: np.ndarray, size: float = 1.7) -> np.ndarray:
    """The outline of a cloud's covariance around its mean, so many deviations wide."""
    angle = np.linspace(0, 2 * np.pi, 41)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.mean(0) + size * circle @ root(np.cov(points.T), 0.5)


@drawing
def aligned_domains() -> Pen:
    pen = Pen(
        "aligned_domains", 440, 692, "What AdaBN, CORAL and MMD make equal, and label shift",
        """Features of a source, hollow, and a target, filled, of two classes, circles and
        triangles. Before: the clouds lie apart. AdaBN: both fill one box, mean and spread of
        each feature agree, their tilt does not. CORAL: both outlines have one shape, wherever
        they lie. MMD: the clouds cover each other. Below, label shift: the target has many
        triangles where the source has many circles; aligned, triangles lie among the circles.""",
    )  # fmt: skip
    unit, says = 44.0, {
        "before": "nothing agrees",
        "AdaBN": "each feature's mean\nand spread agree",
        "CORAL": "the covariances agree,\nwherever the means are",
        "MMD": "the distributions agree",
    }  # fmt: skip

    def place(points):
        return [(104 + unit * x, 122 - unit * y) for x, y in points]

    for k, (name, pair) in enumerate(domains().items()):
        with pen.moved(224 * (k % 2), 228 * (k // 2)):
            pen.text(2, 12, name, bold=True, anchor="start")
            if name == "AdaBN":
                centre, half = pair[0].mean(0), 1.7 * pair[0].std(0, ddof=1)
                ((x, y),) = place([centre + half * [-1, 1]])
                pen.box(x, y, *(2 * unit * half), "", "soft", fill=0, dashed=True, rx=0)
            for points, role in zip(pair, ("source", "target"), strict=True):
                if name != "MMD":
                    pen.line(place(ellipse(points)), role, width=1.4)
                for n, at in enumerate(place(points)):
                    example(pen, n >= EACH, at, role)
            pen.text(2, 200, says[name], 14, "start", role="soft")
    pen.line([(0, 452), (440, 452)], "soft", width=0.8)
    source, target, moved = shifted()
    for k, (name, there) in enumerate((("label shift, before", target), ("aligned", moved))):
        with pen.moved(224 * k, 462):
            pen.text(2, 12, name, bold=True, anchor="start")
            for classes, role in ((source, "source"), (there, "target")):
                for triangle, points in enumerate(classes):
                    for x, y in place(points):
                        example(pen, bool(triangle), (x, y - 20), role)
            if k:
                pen.arrow((122, 126), (84, 90), "target", width=2.4)
            words = "each class lies\nwhere it should", "equal shares: triangles\namong the circles"
            pen.text(2, 182, words[k], 14, "start", role="soft")
    for k, (role, says) in enumerate((("source", "source"), ("target", "target"))):
        x = 110 + 120 * k
        example(pen, False, (x, 680), role)
        example(pen, True, (x + 16, 680), role)
        pen.text(x + 30, 680, says, 14, "start")
    return pen
