"""Prototypes, distances, cosine and fine-tuned heads against formulas written a second way."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.data.episodes import Episodes, EpisodeSource
from mtl_course.meta import few_shot
from mtl_course.meta.functional import Functional


def features(seed=0, tasks=3, ways=4, shots=2, d=5):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(ways).repeat(tasks, shots)
    z = torch.randn(tasks, ways * shots, d, dtype=torch.float64, generator=g)
    judged = torch.randint(ways, (tasks, 6), generator=g)
    return z, y, torch.randn(tasks, 6, d, dtype=torch.float64, generator=g), judged


def after_sgd(model, x, y, query, steps, rate):
    """What a copy of `model` says about `query` after plain steps on (x, y), by torch's SGD."""
    tuned = copy.deepcopy(model)
    optimizer = torch.optim.SGD(tuned.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(tuned(x), y).backward()
        optimizer.step()
    return tuned(query).detach()


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
    torch.testing.assert_close(
        few_shot.distance_logits(query, centres), -(torch.cdist(query, centres) ** 2)
    )


def test_gradient_of_the_prototypes():
    """dL/dc_k = 2 sum_q (p_qk - [y_q = k]) (z_q - c_k) / Q, shared by the class's examples."""
    z, y, query, judged = (part[0] for part in features(shots=3))
    z.requires_grad_()
    centres = few_shot.prototypes(z, y, 4)
    logits = few_shot.distance_logits(query, centres)
    few_shot.query_losses(logits[None], judged[None]).sum().backward()
    with torch.no_grad():
        off = logits.softmax(1) - F.one_hot(judged, 4)
        slope = 2 * (off[:, :, None] * (query[:, None] - centres)).sum(0) / len(query)
        torch.testing.assert_close(z.grad, slope[y] / 3)


@pytest.mark.parametrize("norm", [False, True])
def test_a_prototypical_network_is_judged_on_all_tasks_at_once_as_on_each(norm):
    torch.manual_seed(0)
    x, y, query, judged = features()
    model = (
        nn.Sequential(nn.Linear(5, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Linear(8, 3))
        .double()
        .eval()
    )
    episodes = Episodes((x, y), (query, judged))
    together = few_shot.prototype_logits(model, episodes, 4)
    for t, one in enumerate(episodes.split()):
        torch.testing.assert_close(few_shot.prototype_logits(model, one, 4)[0], together[t])
    losses = few_shot.query_losses(together, judged)
    torch.testing.assert_close(losses[1], F.cross_entropy(together[1], judged[1]))
    losses.mean().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_supports_and_queries_go_through_training_mode_together():
    """BatchNorm then sees all of them as one batch, as in the paper's own experiments."""
    norm = nn.BatchNorm1d(5).double()
    x, _, query, _ = features()
    z, judged = few_shot.embed(norm, x, query)
    both = torch.cat([z, judged], 1).flatten(0, 1)
    torch.testing.assert_close(both.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(
        both.var(0, unbiased=False), torch.ones(5, dtype=torch.float64), rtol=1e-4, atol=1e-4
    )


def test_statistics_of_a_batch_and_of_no_other_example():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU()).double().train()
    x, before = (
        torch.randn(6, 5, dtype=torch.float64),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    ready = few_shot.with_statistics(model, x)
    h = model[0](x).detach()
    query = torch.randn(3, 5, dtype=torch.float64)
    expected = F.batch_norm(
        model[0](query), h.mean(0), h.var(0), model[1].weight, model[1].bias, eps=model[1].eps
    ).relu()
    torch.testing.assert_close(ready(query), expected.detach(), check_stride=False)
    torch.testing.assert_close(torch.cat([ready(q[None]) for q in query]), ready(query))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="no BatchNorm"):
        few_shot.with_statistics(nn.Linear(5, 4), x)


@pytest.mark.parametrize("shots", [1, 3])
def test_adaptation_of_the_whole_network_equals_a_loop_of_sgd(shots):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double()
    x, query = (
        torch.randn(4, 3 * shots, 1, 4, 4, dtype=torch.float64),
        torch.randn(4, 5, 1, 4, 4, dtype=torch.float64),
    )
    y = torch.arange(3).repeat(4, shots)
    found = few_shot.adapted_logits(
        Functional(model),
        Episodes((x, y), (query, torch.zeros(4, 5, dtype=torch.long))),
        3,
        0.2,
        at_once=3,
    )
    assert not found.requires_grad
    for t in range(4):
        torch.testing.assert_close(found[t], after_sgd(model, x[t], y[t], query[t], 3, 0.2))


def test_every_method_is_judged_on_the_same_episodes():
    x = torch.arange(40.0)[:, None]
    source, seen = EpisodeSource(x, torch.arange(8).repeat(5)), []

    def logits(episodes):
        seen.append(episodes.query[0])
        return F.one_hot(episodes.query[1], 3).float()

    right = few_shot.episode_accuracy(logits, source, 3, 2, 2, tasks=7, seed=4, at_once=3)
    assert right.tolist() == [1.0] * 7 and [len(part) for part in seen] == [3, 3, 1]
    first, seen = seen, []
    few_shot.episode_accuracy(lambda e: logits(e), source, 3, 2, 2, tasks=7, seed=4, at_once=3)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_cosine_head_sees_directions_only():
    head = few_shot.CosineHead(5, 4, scale=7.0).double()
    z = torch.randn(6, 5, dtype=torch.float64)
    expected = 7 * torch.stack([F.cosine_similarity(z, w, dim=1) for w in head.weight], dim=1)
    torch.testing.assert_close(head(z), expected)
    torch.testing.assert_close(head(100 * z), expected)


@pytest.mark.parametrize(
    "head", [nn.Linear(5, 4), few_shot.CosineHead(5, 4)], ids=["Baseline", "Baseline++"]
)
def test_fine_tuned_heads_equal_a_loop_over_tasks(head):
    head.double()
    start = copy.deepcopy(head.state_dict())
    z, y, query, _ = features()
    found = few_shot.fine_tuned_logits(head, (z, y), query, steps=20, rate=0.3)
    assert not found.requires_grad and all(
        torch.equal(p, start[name]) for name, p in head.named_parameters()
    )
    for t in range(3):
        torch.testing.assert_close(found[t], after_sgd(head, z[t], y[t], query[t], 20, 0.3))


def test_adapting_that_diverges_is_named_with_its_rate():
    z, y, query, judged = features()
    z[1] *= 1e300
    words = (
        r"diverged in 1 of 3 tasks \(first: number 1\) with a rate of 1e\+10 and 3 steps. Lower the"
        r" rate"
    )
    with pytest.raises(FloatingPointError, match=words):
        few_shot.fine_tuned_logits(nn.Linear(5, 4).double(), (z, y), query, steps=3, rate=1e10)
    with pytest.raises(FloatingPointError, match=words):
        few_shot.adapted_logits(
            Functional(nn.Linear(5, 4).double()), Episodes((z, y), (query, judged)), 3, 1e10
        )


def test_accuracy_and_its_interval():
    logits, y = (
        torch.eye(3).expand(4, 3, 3),
        torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 0], [2, 2, 0]]),
    )
    accuracy = few_shot.query_accuracy(logits, y)
    torch.testing.assert_close(accuracy, torch.tensor([1.0, 1.0, 2 / 3, 0.0]))
    mean, half = few_shot.interval(accuracy)
    assert mean == pytest.approx(2 / 3) and half == pytest.approx(1.96 * accuracy.std().item() / 2)
    with pytest.raises(ValueError, match="at least 2 tasks"):
        few_shot.interval(accuracy[:1])
