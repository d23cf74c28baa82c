"""Episodes: no class leaks between the parts, no row is both support and query, every draw is fair,
and faults are named.
"""

import pytest
import torch

from mtl_course.checks.devices import PretendedGPU
from mtl_course.data.episodes import (
    Episodes,
    EpisodeSource,
    of_rows,
    require_disjoint,
    sinusoids,
    split_classes,
)


def table(classes=12, seed=0):
    """Rows that can be told apart (x is the row's number), classes of unequal sizes from 8 on, in a
    mixed order.
    """
    y = torch.cat([torch.full((8 + c,), 3 * c) for c in range(classes)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    return torch.arange(len(y))[:, None].float(), y


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_class_is_in_two_parts_and_episodes_stay_in_theirs():
    x, y = table()
    for seed in range(20):
        parts = split_classes(y, {"train": 6, "validation": 2, "test": 4}, seed)
        assert {name: len(c) for name, c in parts.items()} == {
            "train": 6,
            "validation": 2,
            "test": 4,
        }
        require_disjoint(parts)
        seen = {}
        for name, classes in parts.items():
            episodes = EpisodeSource(x, y, classes).classification(50, 2, 3, 4, generator(seed))
            rows = torch.cat([episodes.support[0].flatten(), episodes.query[0].flatten()]).long()
            seen[name] = set(y[rows].tolist())
            assert seen[name] <= set(classes)
        assert (
            not seen["train"] & seen["test"]
            and not seen["train"] & seen["validation"]
            and not seen["validation"] & seen["test"]
        )
    assert parts != split_classes(y, {"train": 6, "validation": 2, "test": 4}, 0)
    assert split_classes(y, {"train": 6}, 3) == split_classes(y, {"train": 6}, 3)


def test_support_and_query_share_no_row_and_labels_are_those_of_the_classes():
    x, y = table()
    episodes = EpisodeSource(x, y).classification(200, 5, 3, 5, generator())
    assert episodes.support[0].shape == (200, 15, 1) and episodes.query[1].shape == (200, 25)
    for sx, sy, qx, qy in zip(*episodes.support, *episodes.query, strict=True):
        rows = torch.cat([sx, qx]).flatten().long()
        assert len(set(rows.tolist())) == 40
        original, label = y[rows], torch.cat([sy, qy])
        assert [len(set(original[label == k].tolist())) for k in range(5)] == [1] * 5 and len(
            set(original.tolist())
        ) == 5
        assert (sy.bincount() == 3).all() and (qy.bincount() == 5).all()


def chi_square(counts):
    """The probability of counts as uneven as these if all were as likely."""
    from scipy.stats import chisquare

    return chisquare(counts.numpy()).pvalue


def test_every_class_every_row_and_every_pair_is_drawn_as_often():
    x, y = table(classes=4)
    episodes = EpisodeSource(x, y).classification(8000, 2, 1, 1, generator())
    (mine, _), (judged, _) = episodes.support, episodes.query
    mine, judged = (
        y.new_tensor(part[..., 0].tolist()) for part in (mine, judged)
    )  # rows [T, 2], one a way
    first, second = (y[mine] // 3).T
    pairs = torch.bincount(4 * first + second, minlength=16).view(4, 4)
    assert (
        not pairs.diagonal().any() and chi_square(pairs[~torch.eye(4, dtype=torch.bool)]) > 1e-3
    ), "ordered pairs of classes"
    for c in range(4):
        inside = (y == 3 * c).nonzero().squeeze(1)
        at = torch.searchsorted(
            inside, torch.stack([mine, judged])[:, y[mine] == 3 * c]
        )  # support and query of this class
        drawn = torch.bincount(len(inside) * at[0] + at[1], minlength=len(inside) ** 2).view(
            len(inside), -1
        )
        assert (
            not drawn.diagonal().any()
            and chi_square(drawn[~torch.eye(len(inside), dtype=torch.bool)]) > 1e-3
        ), "ordered pairs of rows"


def test_every_row_of_a_large_class_is_as_likely_in_every_place():
    """An unsorted `topk` would leave the order of the rows to the rows' numbers, and with it who is
    support and who is query.
    """
    y = torch.arange(2).repeat(60)
    episodes = EpisodeSource(torch.arange(120)[:, None], y).classification(
        2000, 2, 3, 3, generator()
    )
    rows = torch.cat(
        [part[0].view(2000, 2, 3) for part in (episodes.support, episodes.query)], -1
    ).flatten(0, 1)
    assert all(
        chi_square(torch.bincount(rows[:, place], minlength=120)) > 1e-3 for place in range(6)
    )


def test_images_of_bytes_stay_bytes_and_keep_their_shape():
    x, y = table()
    images = x.byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 5)  # not contiguous
    a, b = (
        EpisodeSource(v, y, targets=v).classification(6, 5, 3, 4, generator()) for v in (images, x)
    )
    assert a.support[0].dtype == torch.uint8 and a.query[0].shape == (6, 20, 3, 4, 5)
    assert torch.equal(a.support[0][..., 0, 0, 0], b.support[0][..., 0].byte()) and torch.equal(
        a.query[1], b.query[1]
    )


def test_the_generator_alone_decides():
    source = EpisodeSource(*table())
    a, b, c = (source.classification(4, 3, 1, 2, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a.query[0], b.query[0]) and not torch.equal(a.query[0], c.query[0])


def test_groups_are_regressions_with_their_own_targets():
    x, y = table()
    episodes = EpisodeSource(x, y, targets=-x).regression(6, 3, 4, generator())
    assert episodes.support[0].shape == (6, 3, 1)
    groups = [
        set(y[torch.cat([s, q]).flatten().long()].tolist())
        for s, q in zip(episodes.support[0], episodes.query[0], strict=True)
    ]
    assert all(len(g) == 1 for g in groups) and len(set.union(*groups)) == 6
    for px, py in (episodes.support, episodes.query):
        assert torch.equal(px, -py)


def test_sinusoids_are_sinusoids():
    episodes = sinusoids(50, 20, 30, generator())
    x, y = (
        torch.cat([s, q], 1).double() for s, q in zip(episodes.support, episodes.query, strict=True)
    )
    design = torch.cat(
        [x.sin(), x.cos()], dim=-1
    )  # a sin(x - b) = a cos(b) sin(x) - a sin(b) cos(x)
    weights = torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(design @ weights, y, rtol=1e-4, atol=1e-4)
    size, phase = weights.norm(dim=1)[:, 0], torch.atan2(-weights[:, 1, 0], weights[:, 0, 0])
    assert (
        size.min() >= 0.1 and size.max() <= 5 and phase.min() >= -1e-5 and phase.max() <= torch.pi
    )
    assert x.abs().max() <= 5 and episodes.support[0].shape == (50, 20, 1)


X, Y = table()


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda: EpisodeSource(X, Y).classification(2, 13, 1, 1, generator()),
            "13 ways: a task has at least 2 classes, and this source has 12",
        ),
        (
            lambda: EpisodeSource(X, Y).classification(2, 1, 1, 1, generator()),
            "1 ways: a task has at least 2",
        ),
        (
            lambda: EpisodeSource(X, Y).classification(2, 5, 5, 4, generator()),
            "5 shots and 4 queries need 9 examples of every class.* class 0 has 8",
        ),
        (
            lambda: EpisodeSource(X, Y).classification(2, 5, 0, 4, generator()),
            "0 shots and 4 queries: a task needs at least one of each",
        ),
        (
            lambda: EpisodeSource(X, Y, [3, 100]),
            "No example has the label 100; the labels go from 0 to 33",
        ),
        (lambda: EpisodeSource(X, Y, []), "There is no class to draw from"),
        (lambda: EpisodeSource(X, Y[:5]), "inputs, 5 labels"),
        (lambda: EpisodeSource(X, Y).regression(2, 1, 1, generator()), "has no targets"),
        (
            lambda: EpisodeSource(X, Y, targets=X).regression(13, 1, 1, generator()),
            "13 tasks need as many groups; here are 12",
        ),
        (
            lambda: split_classes(Y, {"train": 10, "test": 3}, 0),
            "There are 12 classes, and the parts ask for",
        ),
        (lambda: split_classes(Y, {"train": 10, "test": 0}, 0), "at least one"),
        (
            lambda: require_disjoint({"train": [1, 2], "test": [3, 2]}),
            r"The classes \[2\] are in 'test' and in 'train'",
        ),
        (
            lambda: of_rows(X, Y, torch.tensor([[0, 1], [2, 3]]), torch.tensor([[4], [3]])),
            r"Task 1: support and query share the rows \[3\]",
        ),
        (
            lambda: Episodes((X[:2, None], X[:2]), (X[:3, None], X[:3])),
            r"hold \[2, 2, 3, 3\] tasks",
        ),
        (lambda: Episodes((X[:0, None], X[:0]), (X[:0, None], X[:0])), "at least one"),
        (
            lambda: Episodes((X[:4].view(2, 2, 1), X[:2]), (X[:2, None], X[:2])),
            "The support has 2 inputs",
        ),
    ],
)
def test_faults_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_episodes_lie_where_the_examples_lie():
    """Labels and row numbers may be on the host."""
    gpu = PretendedGPU()
    x, rows = gpu.take(X), torch.arange(4).view(2, 2)
    with gpu:
        for y in (Y, gpu.take(Y)):
            source = EpisodeSource(x, y, [0, 6, 9, 12], targets=x)
            drawn = (
                source.classification(4, 3, 2, 3, generator()),
                source.regression(3, 2, 3, generator()),
                of_rows(x, x, rows, rows + 4),
            )
            tensors = [t for episodes in drawn for t in (*episodes.support, *episodes.query)]
            assert {gpu.place(tensor) for tensor in tensors} == {"cuda"}


def test_episodes_of_given_rows():
    episodes = of_rows(X, Y, torch.tensor([[0, 1], [2, 3]]), torch.tensor([[2, 3], [0, 1]]))
    assert episodes.support[0].flatten().tolist() == [0, 1, 2, 3] and torch.equal(
        episodes.query[1], Y[torch.tensor([[2, 3], [0, 1]])]
    )
    first, second = episodes.split()
    assert len(first) == 1 and torch.equal(second.support[1][0], Y[2:4])
