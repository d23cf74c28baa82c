"""Domain adaptation against closed forms, finite differences and loops, and its refusals."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.networks.trunks import Classifier, cnn
from mtl_course.transfer.adaptation import (
    GradientReversal,
    adapt_batchnorm,
    domain_loss,
    gradient_reversal,
    reversal_schedule,
)
from mtl_course.transfer.alignment import coral, mmd
from mtl_course.transfer.freezing import freeze
from mtl_course.transfer.shift import proxy_a_distance, target_shares


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ------------------------------------------------------------------------------------------ AdaBN
def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(cnn(8, (3, 4), 5, norm=True), 5, 2)


def seen_by(model, x):
    """What reaches each BatchNorm in evaluation mode."""
    inputs, hooks = [], []
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            hooks.append(m.register_forward_pre_hook(lambda m, z: inputs.append((m, z[0]))))
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return inputs


def test_adabn_gives_every_norm_the_statistics_of_what_reaches_it():
    model, x = network(), 3 + 2 * normal(20, 1, 8, 8, dtype=torch.float32)
    adapt_batchnorm(model, x)
    for norm, z in seen_by(model, x):
        z = z.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(norm.running_mean.double(), z.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), z.var(1), rtol=1e-5, atol=1e-6)


def test_adabn_of_one_norm_is_torchs_own_update_whatever_the_batches():
    x = 5 + 3 * normal(12, 4, dtype=torch.float32)
    ours, theirs = (nn.Sequential(nn.BatchNorm1d(4)) for _ in range(2))
    torch.optim.swa_utils.update_bn([x], theirs)
    for batch in (None, 12, 5, 2):
        adapt_batchnorm(ours, x, batch)
        for a, b in zip(ours[0].buffers(), theirs[0].buffers(), strict=True):
            if a.is_floating_point():
                torch.testing.assert_close(a, b)


def test_adabn_restores_statistics_modes_and_momentum_and_leaves_weights():
    model, x = network().train(), normal(6, 1, 8, 8, dtype=torch.float32)
    model.trunk[1].eval()
    former = {name: t.clone() for name, t in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    restore = adapt_batchnorm(model, 4 + x)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, former[n])}
    assert changed == {f"trunk.{i}.running_{w}" for i in (1, 4) for w in ("mean", "var")}
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    restore()
    assert all(torch.equal(t, former[name]) for name, t in model.state_dict().items())


def test_adabn_adapts_a_frozen_trunk_and_ignores_dropout():
    model = nn.Sequential(nn.Dropout(0.9), freeze(nn.BatchNorm1d(3)))
    x = 2 + normal(50, 3, dtype=torch.float32)
    adapt_batchnorm(model.train(), x)
    torch.testing.assert_close(model[1].running_mean, x.mean(0))


def test_adabn_names_what_is_wrong_and_leaves_the_model_alone():
    x = normal(6, 1, 8, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match="no BatchNorm"):
        adapt_batchnorm(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), x)
    with pytest.raises(ValueError, match="no BatchNorm"):
        adapt_batchnorm(nn.BatchNorm1d(3, track_running_stats=False), normal(4, 3))
    model = network()
    former = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="at least 2"):
        adapt_batchnorm(model, x[:1])
    with pytest.raises(ValueError, match="batch is 1"):
        adapt_batchnorm(model, x, batch=1)
    with pytest.raises(ValueError, match="all equal"):
        adapt_batchnorm(model, torch.ones(4, 1, 8, 8))
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="inputs have a value that is not finite"):
        adapt_batchnorm(model, broken)
    assert all(torch.equal(t, former[name]) for name, t in model.state_dict().items())
    with torch.no_grad():
        model.trunk[3].weight[0] = torch.inf
    with pytest.raises(ValueError, match=r"BatchNorm 'trunk\.4'"):
        adapt_batchnorm(model, x)
    assert torch.equal(model.trunk[1].running_mean, former["trunk.1.running_mean"])
    assert not model.trunk[1]._forward_pre_hooks


# ------------------------------------------------------------------------------------------ CORAL
@pytest.mark.parametrize("n, m, d", [(7, 4, 3), (2, 9, 1), (5, 5, 6)])
def test_coral_is_the_closed_form_of_numpy(n, m, d):
    a, b = normal(n, d), 2 + 3 * normal(m, d, seed=1)
    gap = np.cov(a.numpy(), rowvar=False, ddof=1) - np.cov(b.numpy(), rowvar=False, ddof=1)
    expected = np.linalg.norm(np.atleast_2d(gap)) ** 2 / (4 * d**2)
    assert coral(a, b).item() == pytest.approx(expected, rel=1e-12)


def test_coral_sees_no_shift_and_scales_with_the_fourth_power():
    a, b = normal(8, 3), 2 * normal(6, 3, seed=1)
    assert coral(a, a + 100).item() < 1e-20
    assert coral(10 * a, 10 * b).item() == pytest.approx(1e4 * coral(a, b).item())


@pytest.mark.parametrize("loss", [coral, mmd, lambda a, b: mmd(a, b, scale=2.0, unbiased=True)])
def test_the_gradient_of_a_loss_is_that_of_finite_differences(loss):
    a, b = normal(5, 3).requires_grad_(), (1 + normal(4, 3, seed=1)).requires_grad_()
    if loss is mmd:  # the median is a constant to the gradient, but not to a finite difference
        scale = torch.pdist(torch.cat([a, b]).detach()).square().median()
        for ours, fixed in zip(
            torch.autograd.grad(mmd(a, b), (a, b)),
            torch.autograd.grad(mmd(a, b, scale=scale), (a, b)),
            strict=True,
        ):
            torch.testing.assert_close(ours, fixed)
        return
    assert torch.autograd.gradcheck(loss, (a, b))


def test_a_constant_feature_is_no_fault_of_coral():
    a, b = normal(5, 3), normal(4, 3, seed=1)
    a[:, 1], b[:, 1] = 0.0, 0.0
    a.requires_grad_()
    coral(a, b).backward()
    assert torch.isfinite(a.grad).all() and (a.grad[:, 1] == 0).all()


# -------------------------------------------------------------------------------------------- MMD
def by_loops(a, b, factors, scale, unbiased):
    """The definition, row by row."""

    def k(x, y):
        squared = sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
        return sum(math.exp(-squared / (f * scale)) for f in factors) / len(factors)

    def within(rows):
        pairs = [
            k(x, y)
            for i, x in enumerate(rows)
            for j, y in enumerate(rows)
            if i != j or not unbiased
        ]
        return sum(pairs) / len(pairs)

    across = [k(x, y) for x in a for y in b]
    return within(a) + within(b) - 2 * sum(across) / len(across)


@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_is_the_double_loop(unbiased):
    a, b, factors = normal(6, 3), 1 + 2 * normal(4, 3, seed=1), (0.5, 3.0)
    scale = float(torch.pdist(torch.cat([a, b])).square().sort().values[(10 * 9 // 2 - 1) // 2])
    expected = by_loops(a.tolist(), b.tolist(), factors, scale, unbiased)
    assert mmd(a, b, factors, unbiased=unbiased).item() == pytest.approx(expected, rel=1e-10)


def test_unbiased_mmd_of_normal_samples_has_the_mean_of_its_closed_form():
    """Of N(0, 1) and N(mu, s^2) in d dimensions, with k = exp(-|a - b|^2 / (2 w)).

    E k(x, y) for x - y ~ N(m, v) is (w / (w + v))^(d/2) exp(-|m|^2 / (2 (w + v))).
    """
    mu, s, w, d = 0.7, 1.5, 2.0, 2

    def mean_kernel(gap, v):
        return (w / (w + v)) ** (d / 2) * math.exp(-d * gap**2 / (2 * (w + v)))

    exact = mean_kernel(0, 2) + mean_kernel(0, 2 * s**2) - 2 * mean_kernel(mu, 1 + s**2)
    values = [
        mmd(
            normal(100, d, seed=2 * i),
            mu + s * normal(80, d, seed=2 * i + 1),
            (1.0,),
            scale=2 * w,
            unbiased=True,
        ).item()
        for i in range(200)
    ]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - exact) < 4 * error < 0.1 * exact


def test_mmd_does_not_depend_on_the_unit_or_on_the_origin_and_biased_is_not_negative():
    a, b = normal(9, 4), normal(7, 4, seed=1)
    for change in (lambda x: 1e6 * x, lambda x: 1e-6 * x, lambda x: x + 1e4):
        assert mmd(change(a), change(b)).item() == pytest.approx(mmd(a, b).item(), rel=1e-6)
    assert mmd(a, a).item() == pytest.approx(0, abs=1e-12)
    assert min(mmd(normal(5, 2, seed=i), normal(5, 2, seed=50 + i)).item() for i in range(20)) > 0


def test_mmd_scales_by_the_distances_that_are_not_zero():
    a, b = torch.zeros(6, 2, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    b[0] = 3.0
    assert torch.isfinite(mmd(a, b)) and mmd(a, b) > 0


@pytest.mark.parametrize("loss", [coral, mmd, lambda a, b: domain_loss(a, b, nn.Linear(3, 1))])
def test_what_is_wrong_with_features_is_named(loss):
    a, b = normal(5, 3, dtype=torch.float32), normal(4, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match="3 features and the target 2"):
        loss(a, b[:, :2])
    with pytest.raises(ValueError, match="source's features have shape"):
        loss(a[:, 0], b)
    least = b[:1] if loss in (coral, mmd) else b[:0]
    with pytest.raises(ValueError, match=f"target's batch has {len(least)} example"):
        loss(a, least)
    broken = b.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"target's features are not finite in columns \[1\]"):
        loss(a, broken)


def test_mmd_refuses_what_has_no_scale():
    ones = torch.ones(4, 3)
    with pytest.raises(ValueError, match="are equal"):
        mmd(ones, ones)
    with pytest.raises(ValueError, match="scale is 0"):
        mmd(ones, ones, scale=0.0)
    with pytest.raises(ValueError, match="factors"):
        mmd(ones, 2 * ones, factors=(1.0, 0.0))


# ------------------------------------------------------------------------------- gradient reversal
def test_a_reversed_gradient_is_minus_lambda_times_a_finite_difference():
    x, strength, step = normal(3, 2), 0.3, 1e-6

    def f(x):
        return (torch.sin(x) * x**2).sum()

    x.requires_grad_()
    f(gradient_reversal(x, strength)).backward()
    for i in range(x.numel()):
        nudge = torch.zeros(x.numel(), dtype=x.dtype)
        nudge[i] = step
        nudge = nudge.view_as(x)
        slope = (f(x.detach() + nudge) - f(x.detach() - nudge)) / (2 * step)
        assert x.grad.view(-1)[i].item() == pytest.approx(-strength * slope.item(), rel=1e-6)


def test_a_reversal_works_under_vmap_and_keeps_what_is_above_it():
    x = normal(5, 3)
    gradients = torch.func.vmap(torch.func.grad(lambda x: gradient_reversal(x, 2.0).square().sum()))
    torch.testing.assert_close(gradients(x), -4 * x)
    layer = nn.Linear(3, 1).double()
    layer(gradient_reversal(x, 7.0)).sum().backward()
    torch.testing.assert_close(layer.weight.grad[0], x.sum(0))


def test_the_layer_reads_its_strength_at_every_step():
    layer, x = GradientReversal(1.0), torch.ones(2, requires_grad=True)
    for strength in (1.0, 0.25, 0.0):
        layer.strength, x.grad = strength, None
        layer(x).sum().backward()
        assert x.grad.tolist() == [-strength] * 2
    assert "0.0" in repr(layer)


@pytest.mark.parametrize("strength", [-1.0, math.nan, math.inf])
def test_a_strength_is_finite_and_not_negative(strength):
    with pytest.raises(ValueError, match="strength is"):
        gradient_reversal(torch.ones(2), strength)


def test_the_schedule_is_the_papers_formula():
    for p in np.linspace(0, 1, 11):
        for gamma in (1.0, 10.0, 1000.0):
            expected = 2 / (1 + math.exp(-gamma * p)) - 1 if gamma * p < 700 else 1.0
            assert reversal_schedule(float(p), gamma) == pytest.approx(expected, abs=1e-14)
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="progress"):
            reversal_schedule(p)
    with pytest.raises(ValueError, match="gamma"):
        reversal_schedule(0.5, 0.0)


def test_the_domain_loss_counts_the_domains_alike_and_pulls_both_ways():
    a, b = normal(9, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
    discriminator = nn.Linear(3, 1).double()
    loss = domain_loss(a, b, discriminator, 0.5)
    zero, one = discriminator(a)[:, 0], discriminator(b)[:, 0]
    expected = (
        F.binary_cross_entropy_with_logits(zero, torch.zeros_like(zero))
        + F.binary_cross_entropy_with_logits(one, torch.ones_like(one))
    ) / 2
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, (a, b, discriminator.weight))
    got = torch.autograd.grad(loss, (a, b, discriminator.weight))
    torch.testing.assert_close(got[0], -0.5 * wanted[0])
    torch.testing.assert_close(got[1], -0.5 * wanted[1])
    torch.testing.assert_close(got[2], wanted[2])


# ------------------------------------------------------------------------------------------ shift
def test_target_shares_are_exact_where_only_the_shares_differ():
    confusion = torch.tensor(
        [[0.8, 0.1, 0.1], [0.1, 0.7, 0.3], [0.1, 0.2, 0.6]], dtype=torch.float64
    )
    counts = (100 * confusion).round().long()  # of 100 examples of each class
    labels = torch.arange(3).expand(3, 3)
    predicted = torch.arange(3)[:, None].expand(3, 3)
    q = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    says = (1000 * confusion @ q).round().long()
    shares = target_shares(
        labels.reshape(-1).repeat_interleave(counts.reshape(-1)),
        predicted.reshape(-1).repeat_interleave(counts.reshape(-1)),
        torch.arange(3).repeat_interleave(says),
        3,
    )
    torch.testing.assert_close(shares, q, rtol=0, atol=1e-9)


def test_target_shares_are_shares_and_refuse_what_cannot_be_solved():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    shares = target_shares(labels, torch.tensor([0, 1, 1, 1, 2, 0]), torch.tensor([0, 0, 0]), 3)
    assert (shares >= 0).all() and shares.sum().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot be inverted"):
        target_shares(labels, torch.zeros(6).long(), labels, 3)
    with pytest.raises(ValueError, match=r"none of the classes \[3\]"):
        target_shares(labels, labels, labels, 4)
    with pytest.raises(ValueError, match="`predicted_target` has a class outside"):
        target_shares(labels, labels, labels + 1, 3)
    with pytest.raises(ValueError, match="6 labels but 5"):
        target_shares(labels, labels[:5], labels, 3)
    with pytest.raises(ValueError, match="at least one"):
        target_shares(labels, labels, labels[:0], 3)


def test_proxy_a_distance_is_near_zero_for_one_domain_and_two_for_two():
    a, b = normal(400, 3), normal(300, 3, seed=1)
    assert proxy_a_distance(a, b) < 0.3
    far = b + torch.tensor([0.0, 50.0, 0.0])
    assert proxy_a_distance(a, far) == 2.0
    a[:, 0], far[:, 0] = 1.0, 1.0  # a constant feature is no fault
    assert proxy_a_distance(a, far) == 2.0
    with pytest.raises(ValueError, match="source's batch has 3 examples"):
        proxy_a_distance(a[:3], b)
