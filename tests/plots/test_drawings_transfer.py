"""What the drawings of chapters 13 to 16 say is what the package computes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course.drawings import domains, efficient, sources, teachers
from mtl_course.transfer import alignment, merging


def test_ties_by_hand_is_the_packages():
    changes = [{"w": torch.tensor(change, dtype=torch.float64)} for change in efficient.CHANGES]
    drawn = efficient.ties()
    merged = merging.ties(changes, keep=efficient.KEPT / len(efficient.CHANGES[0]))
    assert merged["w"].tolist() == drawn["merged"]
    struck = [value for row in drawn["kept"] for value in row].count(0)
    assert struck == 3 * (5 - efficient.KEPT), "as many cells are crossed out as the trim says"
    other = sum(
        value * sign < 0
        for row in drawn["kept"]
        for value, sign in zip(row, drawn["signs"], strict=True)
    )
    assert other == 2, "and two dashed cells have the other sign"


def test_merged_points_are_where_the_formulas_put_them():
    base = {"w": torch.zeros(2, dtype=torch.float64)}
    taus = [{"w": torch.tensor(tau, dtype=torch.float64)} for tau in efficient.TAU]
    drawn = {k: torch.tensor(p).double() for k, p in efficient.merged_points().items()}
    scale = efficient.COEFFICIENT
    for name, expected in {
        "average": merging.average(taus, related=None),
        "arithmetic": merging.add_vectors(base, taus, scale),
        "negation": merging.add_vectors(base, taus[1:], -scale),
    }.items():
        assert torch.allclose(drawn[name], expected["w"], atol=1e-4), name
    assert drawn["arithmetic"].norm() > drawn["average"].norm(), "it goes on beyond the average"


@pytest.mark.parametrize("temperature", teachers.TEMPERATURES)
def test_the_bars_are_a_softmax(temperature):
    logits = torch.tensor(teachers.LOGITS, dtype=torch.float64)
    expected = F.softmax(logits / temperature, dim=0).tolist()
    assert teachers.soft_targets(temperature) == pytest.approx(expected)


def test_the_panels_make_equal_what_they_say_and_no_more():
    found = domains.domains()
    panels = {name: [torch.tensor(x) for x in pair] for name, pair in found.items()}
    apart = {name: alignment.coral(*pair).item() for name, pair in panels.items()}
    mean = {name: (s.mean(0) - t.mean(0)).norm().item() for name, (s, t) in panels.items()}
    box = {name: (s.std(0) - t.std(0)).abs().max().item() for name, (s, t) in panels.items()}
    gap = {name: alignment.mmd(*pair).item() for name, pair in panels.items()}
    assert min(apart["before"], mean["before"], box["before"]) > 0.02
    assert mean["AdaBN"] < 1e-9 and box["AdaBN"] < 1e-9 and apart["AdaBN"] > 0.02
    assert apart["CORAL"] < 1e-9 and mean["CORAL"] > 0.5
    assert gap["MMD"] < 0.25 * min(gap[name] for name in ("before", "AdaBN", "CORAL"))


def test_under_label_shift_aligning_moves_the_wrong_class():
    source, target, moved = domains.shifted()
    assert [len(points) for points in source] == [6, 2]
    assert [len(points) for points in target] == [len(points) for points in moved] == [2, 6]
    centres = np.array([centre for centre, _ in domains.PLACES])

    def place(points):
        """The place, 0 or 1, that each point lies nearest to."""
        return np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)

    for classes in (source, target):
        assert all((place(points) == k).all() for k, points in enumerate(classes))
    shares = np.bincount(place(np.concatenate(moved)))
    assert shares.tolist() == [6, 2], "the shares of the places are the source's"
    assert (place(moved[1]) == 0).sum() == 4, "and four triangles lie among the circles"


def test_the_best_source_differs_by_target():
    table = np.array(list(sources.GAINS.values()))
    best = [list(sources.GAINS)[k] for k in table.argmax(0)]
    assert best[sources.ASKED] == "D" and "D" not in np.delete(best, sources.ASKED)
    assert "the best source there is D, elsewhere another" in sources.gain_matrix().desc


def test_views_of_one_picture_are_nearer_than_those_of_others():
    angles = np.array(sources.VIEWS, dtype=float)
    turn = np.abs((angles.reshape(-1, 1) - angles.reshape(1, -1) + 180) % 360 - 180)
    same = np.kron(np.eye(3), np.ones((2, 2))).astype(bool)
    assert turn[same].max() == 50
