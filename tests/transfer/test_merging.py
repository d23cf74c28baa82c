"""Merging: the formulas, by hand and by loops, and every misfit by its name."""

import pytest
import torch
from torch import nn

from mtl_course import transfer
from mtl_course.networks.trunks import Classifier, cnn, mlp


def states(count=3, scale=0.03, seed=0):
    """A base and `count` descendants of it, with BatchNorm."""
    torch.manual_seed(seed)
    base = cnn(8, (4, 6), 10, norm=True).state_dict()
    base = {name: value.clone() for name, value in base.items()}
    tuned = [
        {
            n: v + scale * torch.randn(v.shape) if v.is_floating_point() else v
            for n, v in base.items()
        }
        for _ in range(count)
    ]
    return base, tuned


def test_average_is_the_mean_of_every_tensor_and_touches_nothing():
    _, tuned = states()
    copies = [{n: v.clone() for n, v in s.items()} for s in tuned]
    mean = transfer.average(tuned)
    for name, value in mean.items():
        expected = tuned[0][name]
        if value.is_floating_point():
            expected = torch.stack([s[name] for s in tuned]).mean(0)
        torch.testing.assert_close(value, expected)
        value.zero_()
    assert all(torch.equal(s[n], c[n]) for s, c in zip(tuned, copies, strict=True) for n in s)


def test_weights_count():
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, 2.0])}
    assert transfer.average([a, b], [0.75, 0.25])["w"].tolist() == [2.0, 2.0]
    for weights in ([0.5, 0.6], [1.0]):
        with pytest.raises(ValueError, match="one weight per model, 2, with a sum of 1"):
            transfer.average([a, b], weights)
    for t in (0.0, 0.3, 1.0, 1.5):
        expected = (1 - t) * a["w"] + t * b["w"]
        torch.testing.assert_close(transfer.interpolate(a, b, t)["w"], expected)


def test_a_model_of_the_mean_of_linear_models_is_the_mean_of_their_outputs():
    torch.manual_seed(0)
    models = [nn.Linear(4, 3) for _ in range(3)]
    mean = nn.Linear(4, 3)
    mean.load_state_dict(transfer.average([m.state_dict() for m in models], related=None))
    x = torch.randn(5, 4)
    torch.testing.assert_close(mean(x), torch.stack([m(x) for m in models]).mean(0))


def test_task_arithmetic_adds_takes_away_and_gives_back():
    base, (one, two, _) = states()
    vectors = [transfer.task_vector(s, base) for s in (one, two)]
    floats = {n for n, v in base.items() if v.is_floating_point()}
    assert set(vectors[0]) == floats
    again = transfer.add_vectors(base, vectors[:1])
    both = transfer.add_vectors(base, vectors, 0.3)
    mixed = transfer.add_vectors(base, vectors, [1.0, -0.5])
    for n in floats:
        torch.testing.assert_close(again[n], one[n])
        torch.testing.assert_close(both[n], base[n] + 0.3 * (one[n] - base[n] + two[n] - base[n]))
        torch.testing.assert_close(mixed[n], one[n] - 0.5 * (two[n] - base[n]))
    assert torch.equal(both["1.num_batches_tracked"], base["1.num_batches_tracked"])
    mean = transfer.average([one, two])
    half = transfer.add_vectors(base, vectors, 0.5)
    for n in floats:  # the average is task arithmetic with a coefficient of 1 / T
        torch.testing.assert_close(mean[n], half[n])


def by_hand(vectors, keep):
    """TIES entry by entry, from the paper's algorithm 1, in plain Python."""
    names = list(vectors[0])
    rows = [[float(x) for n in names for x in v[n].flatten()] for v in vectors]
    k = max(1, round(keep * len(rows[0])))
    trimmed = []
    for row in rows:
        least = sorted((abs(x) for x in row), reverse=True)[k - 1]
        trimmed.append([x if abs(x) >= least else 0.0 for x in row])
    merged = []
    for entries in zip(*trimmed, strict=True):
        total = sum(entries)
        same = [x for x in entries if x * total > 0]
        merged.append(sum(same) / len(same) if same else 0.0)
    return merged


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 1.0])
def test_ties_is_the_papers_algorithm(keep):
    torch.manual_seed(1)
    vectors = [
        {"a": torch.randn(5, 4).double(), "b": 9 * torch.randn(3).double()} for _ in range(4)
    ]
    merged = transfer.ties(vectors, keep)
    assert merged["a"].shape == (5, 4) and list(merged) == ["a", "b"]
    flat = torch.cat([merged["a"].flatten(), merged["b"]])
    torch.testing.assert_close(flat, torch.tensor(by_hand(vectors, keep)).double())


def test_ties_of_one_or_of_equals_is_the_trimmed_vector_itself():
    vector = {"w": torch.tensor([3.0, -2.0, 0.5, 0.1])}
    assert transfer.ties([vector], keep=0.5)["w"].tolist() == [3.0, -2.0, 0.0, 0.0]
    assert transfer.ties([vector] * 3, keep=1.0)["w"].tolist() == pytest.approx(
        vector["w"].tolist()
    )
    opposite = {"w": -vector["w"]}
    assert transfer.ties([vector, opposite], keep=1.0)["w"].tolist() == [0.0] * 4
    assert transfer.ties([{"w": torch.zeros(4)}] * 2)["w"].tolist() == [0.0] * 4


def test_pairs_are_made_by_name_not_by_place():
    base, (one, two, _) = states()
    turned = dict(reversed(list(two.items())))
    left, right = transfer.average([one, two]), transfer.average([one, turned])
    assert all(torch.equal(left[n], right[n]) for n in left)
    v, w = transfer.task_vector(one, base), transfer.task_vector(two, base)
    turned = dict(reversed(list(w.items())))
    left, right = transfer.ties([v, w]), transfer.ties([v, turned])
    assert all(torch.equal(left[n], right[n]) for n in left)


def test_a_greedy_soup_keeps_what_helps_on_validation_data():
    points = [{"w": torch.tensor([x])} for x in (5.0, 1.0, 2.9, -20.0)]
    seen = []

    def score(state):
        seen.append(float(state["w"]))
        return -abs(float(state["w"]) - 2.5)

    soup, chosen = transfer.greedy_soup(points, score)
    # 2.9 first; with 1.0 the mean 1.95 is worse; with 5.0 too; with -20 as well
    assert chosen == [2] and soup["w"].tolist() == pytest.approx([2.9])
    assert seen[:4] == pytest.approx([5.0, 1.0, 2.9, -20.0]) and len(seen) == 7
    points = [{"w": torch.tensor([x])} for x in (4.0, 1.0, 2.0)]
    soup, chosen = transfer.greedy_soup(points, score)
    # 2.0 first; with 4.0 the mean 3.0 is as good, and stays; with 1.0 it is 7 / 3, better
    assert chosen == [2, 0, 1] and float(soup["w"]) == pytest.approx(7 / 3)
    constant = [{"w": torch.tensor([x])} for x in (1.0, 3.0)]
    soup, chosen = transfer.greedy_soup(constant, lambda state: 1.0)
    assert chosen == [0, 1] and soup["w"].tolist() == [2.0], "equal is good enough"


# ---------------------------------------------------------------------------------------- misfits
def test_other_names_and_shapes_are_named():
    base, (one, two, _) = states()
    lacking = {n: v for n, v in two.items() if n != "0.bias"}
    with pytest.raises(ValueError, match=r"model 1 and model 0 .*0\.bias is in one of them only"):
        transfer.average([one, lacking])
    wide = two | {"3.bias": torch.zeros(9)}
    with pytest.raises(ValueError, match=r"'3\.bias' has shape \(9,\) in model 1 but \(6,\)"):
        transfer.average([one, wide])
    with pytest.raises(ValueError, match=r"'3\.bias' has shape \(9,\) in the tuned model"):
        transfer.task_vector(wide, base)
    with pytest.raises(ValueError, match="Vector 0 has 'x', which the base does not have"):
        transfer.add_vectors(base, [{"x": torch.zeros(2)}])
    with pytest.raises(ValueError, match=r"'3\.bias' has shape \(9,\) in vector 0 but \(6,\)"):
        transfer.add_vectors(base, [{"3.bias": torch.zeros(9)}])
    with pytest.raises(ValueError, match="1 task vectors but 2 coefficients"):
        transfer.add_vectors(base, [{}], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"'w' has shape \(3,\) in vector 1"):
        transfer.ties([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])
    for keep in (0, 1.1, -1):
        with pytest.raises(ValueError, match="keep is a share"):
            transfer.ties([{"w": torch.zeros(2)}], keep)
    for merge in (transfer.average, transfer.ties, lambda s: transfer.greedy_soup(s, len)):
        with pytest.raises(ValueError, match="no model to merge"):
            merge([])


def test_whole_numbers_that_differ_are_not_mixed():
    _, (one, two, _) = states()
    two = two | {"1.num_batches_tracked": torch.tensor(7)}
    with pytest.raises(ValueError, match=r"'1\.num_batches_tracked' counts in whole numbers"):
        transfer.average([one, two])
    mean = transfer.average([two, one], skip="*num_batches_tracked")
    assert torch.equal(mean["1.num_batches_tracked"], torch.tensor(7))
    assert "1.running_mean" in transfer.task_vector(two, one, skip="*tracked", related=None)


def test_other_ancestors_are_refused_by_name_unless_wanted():
    torch.manual_seed(0)
    ancestors = [Classifier(mlp([20, 30, 10]), 10, 12).state_dict() for _ in range(2)]
    children = [{n: v + 0.02 * torch.randn(v.shape) for n, v in a.items()} for a in ancestors]
    said = r"do not look like descendants of one model: the cosine of 'trunk\.0\.weight' is -?0\.0"
    with pytest.raises(ValueError, match="model 1 and model 0 " + said):
        transfer.average(children)
    with pytest.raises(ValueError, match="the tuned model and the base " + said):
        transfer.task_vector(children[0], ancestors[1])
    with pytest.raises(ValueError, match=said):
        transfer.interpolate(*children, 0.5)
    with pytest.raises(ValueError, match=said):
        transfer.greedy_soup(children, lambda state: 1.0)
    transfer.average(children, related=None)
    transfer.task_vector(children[0], ancestors[0])
    # a new head for each task is a stranger to the other, too
    with pytest.raises(ValueError, match=r"'head\.weight'"):
        transfer.average([children[0], children[0] | {"head.weight": torch.randn(12, 10)}])
