"""A network that reads examples: what it must not depend on, what it refuses, and its priors."""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mtl_course import meta
from mtl_course.data import Episodes

TABLE = partial(meta.table_tasks, features=6)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def model(classes=2, features=6, seed=0):
    torch.manual_seed(seed)
    return meta.InContext(features, classes, width=8, layers=2, heads=2)


def episode(classes, tasks=3, examples=5, questions=4, features=6):
    x, new = (torch.randn(tasks, m, features, generator=draw(1)) for m in (examples, questions))
    y = torch.randn(tasks, examples, generator=draw(2))
    return x, (y if classes is None else (y > 0).long()), new


# ------------------------------------------------------------------------------------ the network
@pytest.mark.parametrize("classes", [None, 2, 4])
def test_neither_the_order_of_examples_nor_the_company_of_questions_counts(classes):
    net, (x, y, new) = model(classes), episode(classes)
    said, order = net(x, y, new), torch.randperm(x.shape[1], generator=draw(0))
    assert list(said.shape) == [3, 4, *([classes] if classes else [])]
    torch.testing.assert_close(net(x[:, order], y[:, order], new), said)
    torch.testing.assert_close(net(x, y, new[:, 2:3]), said[:, 2:3])
    torch.testing.assert_close(net(x[1:2], y[1:2], new[1:2]), said[1:2])
    other = y.flip(0) + (0 if classes else 1)
    assert not torch.allclose(net(x, other, new), said), "the labels are read"


def test_no_gradient_comes_from_another_question():
    net, (x, y, new) = model(), episode(2)
    new.requires_grad_()
    net(x, y, new)[0, 1].sum().backward()
    moved = new.grad.abs().sum(-1) > 0
    assert moved.nonzero().tolist() == [[0, 1]]


def test_the_mask_is_that_of_the_docstring():
    mask = meta.episode_mask(3, 2)
    assert mask.dtype == torch.bool and mask[:, :3].all() and not mask[:, 3:].any()


def test_losses_are_the_mean_over_the_questions_of_a_task():
    for classes in (None, 2):
        net, (x, y, new) = model(classes), episode(classes)
        truth = y[:, :4]
        losses = meta.episode_losses(net, Episodes((x, y), (new, truth)))
        said = net(x, y, new)
        for t in range(3):
            kind = torch.nn.MSELoss() if classes is None else torch.nn.CrossEntropyLoss()
            torch.testing.assert_close(losses[t], kind(said[t], truth[t]))


def test_a_network_for_two_coins_says_what_bayes_says():
    """Heads with probability 1/4 or 3/4; after two heads, heads has the probability 0.7."""
    net, generator = model(2, features=1), draw(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 300)
    for _ in range(300):
        coin = 0.25 + 0.5 * torch.randint(2, (256, 1), generator=generator)
        tosses = (torch.rand(256, 3, generator=generator) < coin).long()
        x = torch.zeros(256, 3, 1)
        losses = meta.episode_losses(
            net, Episodes((x[:, :2], tosses[:, :2]), (x[:, 2:], tosses[:, 2:]))
        )
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        schedule.step()
    x = torch.zeros(3, 2, 1)
    seen = torch.tensor([[1, 1], [0, 1], [0, 0]])
    heads = net(x, seen, x[:, :1]).softmax(-1)[:, 0, 1]
    assert (heads - torch.tensor([0.7, 0.5, 0.3])).abs().max() < 0.04, heads


# ------------------------------------------------------------------------------------- bad inputs
X, Y, NEW = torch.randn(5, 6, generator=draw(3)), torch.tensor([0, 1, 0, 1, 1]), torch.zeros(2, 6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: meta.answer(model(), X.repeat(1, 2), Y, NEW.repeat(1, 2)), "12 columns and the n"),
        (lambda: meta.answer(model(), X, Y + 1, NEW), "labels 0 to 1; .* from 1 to 2"),
        (lambda: meta.answer(model(), X, Y - 1, NEW), "from -1 to 0"),
        (lambda: meta.answer(model(), X, Y + 0.5, NEW), "whole numbers"),
        (lambda: meta.answer(model(None), X, Y * float("nan"), NEW), "finite numbers"),
        (lambda: meta.answer(model(), X[:0], Y[:0], NEW), "at least one labelled example"),
        (lambda: meta.answer(model(), X, Y[:4], NEW), r"targets \[1, 5\]; these are \[1, 4\]"),
        (lambda: meta.answer(model(), X, Y, NEW[:, :4]), "6 columns and the questions 4"),
        (lambda: meta.answer(model(), X / 0, Y, NEW), "Column 0 of the examples"),
        (lambda: meta.answer(model(), X, Y, NEW / 0), "Column 0 of the questions"),
        (lambda: meta.answer(model(), X, Y, NEW, orders=0), "0 orders"),
        (lambda: meta.episode_mask(0, 3), "at least one labelled example"),
        (lambda: model()(X[None, :, :4], Y[None], NEW[None]), "examples have 4 columns"),
        (lambda: model()(X[None], Y[None], NEW[None, :, :4]), "questions have 4 columns"),
        (lambda: model()(X[None, :0], Y[None, :0], NEW[None]), "at least one labelled example"),
        (lambda: model()(X[None], Y[None].float(), NEW[None]), "int64; these are torch.float32"),
        (lambda: model()(X, Y, NEW), "of the same T tasks"),
        (lambda: model()(X[None], Y[None], NEW.expand(2, 2, 6)), "of the same T tasks"),
        (lambda: meta.InContext(3, 1), "1 classes"),
        (lambda: meta.InContext(3, 2, width=10, heads=4), "4 heads"),
        (lambda: meta.ridge(X, Y.float(), NEW, 0.0), "strength is 0.0"),
        (lambda: meta.table_tasks(2, 4, 3, draw(0), features=4, columns=5), "table of 5 columns"),
        (lambda: meta.table_tasks(2, 0, 3, draw(0)), "at least one labelled example"),
    ],
)
def test_what_cannot_be_read_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------------------------------- a table
@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_units_do_not_count(unit):
    units = torch.tensor([unit, 1.0, 1.0, 1.0, unit, 1.0], dtype=torch.float64)
    x, new = X.double() + 2, NEW.double() + 1
    for one, other in zip(
        meta.scaled_columns(x * units, new * units, 8), meta.scaled_columns(x, new, 8), strict=True
    ):
        torch.testing.assert_close(one, other)
        assert one.shape[-1] == 8 and not one[..., 6:].any()


def test_scaled_columns_are_those_of_the_examples_alone():
    x, new = X.clone(), NEW.clone()
    x[:, 1], new[:, 1], new[0, 2] = 7.0, 9.0, 1e9
    a, b = meta.scaled_columns(x, new, 6)
    torch.testing.assert_close(a[:, 0], (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(correction=0))
    assert not a[:, 1].any() and not b[:, 1].any(), "a constant column says nothing"
    assert b[0, 2] == 4 and a.abs().max() <= 4
    again, _ = meta.scaled_columns(x, new + 100, 6)
    assert torch.equal(again, a)
    batch = meta.scaled_columns(x[None].expand(2, -1, -1), new[None].expand(2, -1, -1), 6)
    torch.testing.assert_close(batch[0][1], a)


def test_an_answer_leaves_no_trace_and_takes_arrays():
    net = model().train()
    before = copy.deepcopy(net.state_dict())
    x, y, new = X.double().numpy() + 1e6, Y.numpy().copy(), NEW.double().numpy() + 1e6
    for array in (x, y, new):
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = meta.answer(net, x, y, new, orders=3)
    assert net.training and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not p.requires_grad
    torch.testing.assert_close(p.sum(1), torch.ones(2))
    shifted = meta.answer(net, X.double(), Y, NEW.double(), orders=3)
    torch.testing.assert_close(p, shifted, atol=1e-4, rtol=0)
    torch.testing.assert_close(meta.answer(net, X, Y.bool(), NEW), meta.answer(net, X, Y, NEW))
    one = meta.answer(net, X, Y, NEW)
    torch.testing.assert_close(one, net(*(v[None] for v in _read(X, Y, NEW)))[0].softmax(-1))


def _read(x, y, new):
    a, b = meta.scaled_columns(x, new, 6)
    return a, y, b


def test_more_orders_make_the_numbers_of_the_classes_count_less():
    """In the limit of all orders nothing depends on which class is called 0."""
    net = model(seed=3)

    def apart(orders):
        p = meta.answer(net, X, Y, X, orders)
        q = meta.answer(net, X, 1 - Y, X, orders)
        return float((p[:, 0] - q[:, 1]).abs().mean())

    assert apart(64) < apart(1) / 2


# ------------------------------------------------------------------------------------- the priors
@pytest.mark.parametrize("n, d", [(3, 5), (20, 2)])
def test_ridge_is_scikit_learns(n, d):
    x, new = (torch.randn(4, m, d, generator=draw(0), dtype=torch.float64) for m in (n, 6))
    y = torch.randn(4, n, generator=draw(1), dtype=torch.float64)
    ours = meta.ridge(x, y, new, 0.3)
    for t in range(4):
        a, b = (np.column_stack([np.ones(len(v)), v]) for v in (x[t].numpy(), new[t].numpy()))
        theirs = Ridge(alpha=0.3, fit_intercept=False).fit(a, y[t].numpy()).predict(b)
        np.testing.assert_allclose(ours[t], theirs, rtol=1e-8)


@pytest.mark.parametrize("prior", [meta.linear_tasks, meta.table_tasks])
def test_tasks_come_from_the_generator_alone(prior):
    one, again, other = (prior(4, 6, 3, draw(seed)) for seed in (0, 0, 1))
    tensors = [(*e.support, *e.query) for e in (one, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(*tensors[:2], strict=True))
    assert not torch.equal(tensors[0][0], tensors[2][0])


def test_ridge_of_the_right_strength_is_the_best_answer_for_lines():
    tasks = meta.linear_tasks(4000, 4, 4, draw(0), features=2, noise=0.8)
    new, truth = tasks.query
    errors = {
        s: float((meta.ridge(*tasks.support, new, s) - truth).square().mean())
        for s in (0.16, 0.64, 2.56)
    }
    assert min(errors, key=errors.get) == 0.64


def test_tables_have_two_classes_scaled_columns_and_zeros_behind():
    tasks = TABLE(50, 30, 20, draw(0), columns=4)
    (x, y), (new, truth) = tasks.support, tasks.query
    assert list(x.shape) == [50, 30, 6] and list(new.shape) == [50, 20, 6]
    assert not x[..., 4:].any() and not new[..., 4:].any()
    assert x.mean(1).abs().max() < 0.2 and torch.isfinite(x).all()  # cut at four deviations
    labels = torch.cat([y, truth], 1)
    assert labels.dtype == torch.int64 and labels.min() == 0 and labels.max() == 1
    share = labels.double().mean(1)
    assert 0.1 < share.min() < 0.4 and 0.6 < share.max() < 0.9


def test_a_made_up_table_can_be_learned_and_another_ones_rule_does_not_help():
    tasks = TABLE(60, 60, 60, draw(1))
    (x, y), (new, truth) = tasks.support, tasks.query
    own, other = [], []
    for t in range(60):
        if len(set(y[t].tolist())) == 2:
            rule = LogisticRegression().fit(x[t], y[t])
            own.append((rule.predict(new[t]) == truth[t].numpy()).mean())
            other.append((rule.predict(new[t - 1]) == truth[t - 1].numpy()).mean())
    assert np.mean(own) > 0.68 and abs(np.mean(other) - 0.5) < 0.08
