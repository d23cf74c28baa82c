"""Prototypes, distances, cosine heads and fine-tuned heads against formulas written a second way."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import few_shot
from mtl_course.data.episodes import Episodes
from mtl_course.functional import Functional


def features(seed=0, tasks=3, ways=4, shots=2, d=5):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(ways).repeat(tasks, shots)
    z = torch.randn(tasks, ways * shots, d, dtype=torch.float64, generator=g)
    judged = torch.randint(ways, (tasks, 6), generator=g)
    return z, y, torch.randn(tasks, 6, d, dtype=torch.float64, generator=g), judged


def test_prototypes_are_the_means_of_the_classes():
    z, y, *_ = features()
    found = few_shot.prototypes(z, y, 4)
    for t in range(3):
        for c in range(4):
            torch.testing.assert_close(found[t, c], z[t][y[t] == c].mean(0))
    with pytest.raises(ValueError, match="class 3 of a task has no example"):
        few_shot.prototypes(z, y.clamp_max(2), 4)


def test_logits_are_minus_squared_distances():
    z, y, query, _ = features()
    centres = few_shot.prototypes(z, y, 4)
    torch.testing.assert_close(few_shot.distance_logits(query, centres), -(torch.cdist(query, centres) ** 2))


def test_gradient_of_the_prototypes():
    """dL/dc_k = 2 sum_q (p_qk - [y_q = k]) (z_q - c_k) / Q, shared equally by the class's examples."""
    z, y, query, judged = (part[0] for part in features(shots=3))
    z.requires_grad_()
    centres = few_shot.prototypes(z, y, 4)
    logits = few_shot.distance_logits(query, centres)
    few_shot.query_losses(logits[None], judged[None]).sum().backward()
    with torch.no_grad():
        off = logits.softmax(1) - F.one_hot(judged, 4)
        slope = 2 * (off[:, :, None] * (query[:, None] - centres)).sum(0) / len(query)
        torch.testing.assert_close(z.grad, slope[y] / 3)


@pytest.mark.parametrize("transductive", [None, True, False])
def test_a_prototypical_network_is_trained_on_all_tasks_at_once_as_on_each(transductive):
    torch.manual_seed(0)
    x, y, query, judged = features()
    model = nn.Sequential(nn.Linear(5, 8), *([nn.BatchNorm1d(8)] if transductive is not None else []), nn.Linear(8, 3)).double()
    f = Functional(model, transductive=transductive)
    episodes = Episodes((x, y), (query, judged))
    together = few_shot.prototype_logits(f, f.parameters(), episodes, 4)
    for t, one in enumerate(episodes.split()):
        torch.testing.assert_close(few_shot.prototype_logits(f, f.parameters(), one, 4)[0], together[t])
    losses = few_shot.query_losses(together, judged)
    torch.testing.assert_close(losses[1], F.cross_entropy(together[1], judged[1]))
    losses.mean().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_cosine_head_sees_directions_only():
    head = few_shot.CosineHead(5, 4, scale=7.0).double()
    z = torch.randn(6, 5, dtype=torch.float64)
    expected = 7 * torch.stack([F.cosine_similarity(z, w, dim=1) for w in head.weight], dim=1)
    torch.testing.assert_close(head(z), expected)
    torch.testing.assert_close(head(100 * z), expected)


@pytest.mark.parametrize("head", [nn.Linear(5, 4), few_shot.CosineHead(5, 4)], ids=["Baseline", "Baseline++"])
def test_fine_tuned_heads_equal_a_loop_over_tasks(head):
    head.double()
    start = {name: p.detach().clone() for name, p in head.named_parameters()}
    z, y, query, _ = features()
    found = few_shot.fine_tuned_logits(head, (z, y), query, steps=20, rate=0.3)
    assert not found.requires_grad and all(torch.equal(p, start[name]) for name, p in head.named_parameters())
    for t in range(3):
        head.load_state_dict(start)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.3)
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(head(z[t]), y[t]).backward()
            optimizer.step()
        torch.testing.assert_close(found[t], head(query[t]).detach())


def test_adapting_that_diverges_is_named_with_its_rate():
    z, y, query, judged = features()
    z[1] *= 1e300
    words = r"diverged in 1 of 3 tasks \(first: number 1\) with a rate of 1e\+10 and 3 steps. Lower the rate"
    with pytest.raises(FloatingPointError, match=words):
        few_shot.fine_tuned_logits(nn.Linear(5, 4).double(), (z, y), query, steps=3, rate=1e10)
    with pytest.raises(FloatingPointError, match=words):
        few_shot.adapted_logits(Functional(nn.Linear(5, 4).double()), Episodes((z, y), (query, judged)), 3, 1e10)


def test_accuracy_and_its_interval():
    logits, y = torch.eye(3).expand(4, 3, 3), torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 0], [2, 2, 0]])
    accuracy = few_shot.query_accuracy(logits, y)
    torch.testing.assert_close(accuracy, torch.tensor([1.0, 1.0, 2 / 3, 0.0]))
    mean, half = few_shot.interval(accuracy)
    assert mean == pytest.approx(2 / 3) and half == pytest.approx(1.96 * accuracy.std().item() / 2)
    with pytest.raises(ValueError, match="at least 2 tasks"):
        few_shot.interval(accuracy[:1])
