"""Loss weighting: each method's formula written a second way, its invariances, its bad input."""

import math

import pytest
import torch
from torch import nn

from mtl_course.multitask.weighting import (
    DWA,
    FAMO,
    EqualWeights,
    Fixed,
    GeometricMean,
    GradNorm,
    Penalised,
    RandomWeights,
    SmoothChebyshev,
    Uncertainty,
    Weighting,
    parameter_groups,
)

LOSSES = torch.tensor([0.5, 2.0, 8.0])


def gradient(weighting, losses=LOSSES):
    live = losses.clone().requires_grad_()
    weighting(live).backward()
    return live.grad


def test_equal_and_fixed():
    assert EqualWeights()(LOSSES) == 10.5
    assert gradient(Fixed([1, 0.5, 0])).tolist() == [1.0, 0.5, 0.0]
    for bad in ([1, -1], [1, float("nan")]):
        with pytest.raises(ValueError, match="not negative"):
            Fixed(bad)


def test_the_base_weighs_nothing_and_a_method_must():
    with pytest.raises(TypeError, match="abstract"):
        Weighting()

    class Silent(Weighting):
        def before_backward(self, losses, shared):
            pass

    with pytest.raises(TypeError, match="forward"):
        Silent()


def test_a_method_may_leave_out_every_call_but_the_total():
    class Worst(Weighting):
        def forward(self, losses):
            return losses.max()

    worst = Worst()
    worst.before_backward(LOSSES, [])
    worst.after_step(LOSSES)
    worst.end_epoch(LOSSES)
    assert worst(LOSSES) == 8.0 and not worst.wants_losses_after_step


def test_a_penalty_is_added_and_pulls_at_its_parameters():
    trunks = nn.Parameter(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    live = LOSSES.clone().requires_grad_()
    total = Penalised(lambda: 0.5 * (trunks[0] - trunks[1]).square().sum())(live)
    total.backward()
    assert total == 10.5 + 2.0 and live.grad.tolist() == [1.0, 1.0, 1.0]
    assert trunks.grad.tolist() == [[0.0, -2.0], [0.0, 2.0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("make", [GeometricMean, lambda: FAMO(3)], ids=["geometric mean", "famo"])
def test_a_loss_that_is_not_finite_is_a_divergence_and_names_its_task(make, bad):
    with pytest.raises(FloatingPointError, match=r"loss of task 1 \(the first is task 0\)"):
        make()(torch.tensor([0.5, bad, 2.0]))
    # It is no divergence that a loss has another sign than a method can take.
    with pytest.raises(ValueError, match=r"positive|above their minimum"):
        make()(torch.tensor([0.5, -1.0, 2.0]))


def test_famo_sees_a_divergence_after_the_step():
    weighting = FAMO(3)
    weighting(LOSSES)
    before = weighting.logits.detach().clone()
    with pytest.raises(FloatingPointError, match="loss of task 0, 2"):
        weighting.after_step(torch.tensor([float("nan"), 1.0, float("inf")]))
    assert torch.equal(weighting.logits.detach(), before)


def test_uncertainty_is_a_likelihood():
    """With the noise level at its optimum the regression term is the Gaussian negative
    log-likelihood at the empirical variance.
    """
    residual = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
    weighting = Uncertainty([True])
    with torch.no_grad():
        weighting.log_variance.copy_(residual.square().mean().log()[None])
    nll = -torch.distributions.Normal(0, residual.square().mean().sqrt()).log_prob(residual).mean()
    total = weighting(residual.square().mean()[None])
    constant = 0.5 * math.log(2 * math.pi)
    assert total.item() + constant == pytest.approx(nll.item(), rel=1e-6)
    total.backward()
    assert weighting.log_variance.grad.abs() < 1e-6  # stationary there


def test_uncertainty_of_a_cross_entropy_is_stationary_at_twice_the_loss():
    weighting = Uncertainty([False])
    with torch.no_grad():
        weighting.log_variance.copy_((2 * LOSSES[:1]).log())
    weighting(LOSSES[:1]).backward()
    assert weighting.log_variance.grad.abs() < 1e-6


def test_uncertainty_learns_small_weights_for_large_losses():
    weighting = Uncertainty([True, False, True])
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        weighting(LOSSES).backward()
        optimizer.step()
    torch.testing.assert_close(
        weighting.log_variance.exp(), torch.tensor([0.5, 4.0, 8.0]), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_geometric_mean_ignores_units(scale):
    units = torch.tensor([1.0, scale, 1.0])
    before, after = gradient(GeometricMean()), gradient(GeometricMean(), LOSSES * units) * units
    torch.testing.assert_close(after / after.sum(), before / before.sum())
    assert GeometricMean()(LOSSES) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="positive"):
        GeometricMean()(torch.tensor([1.0, 0.0]))


def test_random_weights_are_seeded_positive_and_sum_to_the_number_of_tasks():
    one, two, other = RandomWeights(1), RandomWeights(1), RandomWeights(2)
    draws = [gradient(one) for _ in range(2000)]
    torch.testing.assert_close(gradient(two), draws[0])
    assert not torch.equal(gradient(other), draws[0]) and not torch.equal(draws[0], draws[1])
    stacked = torch.stack(draws)
    assert (stacked > 0).all()
    torch.testing.assert_close(stacked.sum(1), torch.full((2000,), 3.0))
    torch.testing.assert_close(stacked.mean(0), torch.ones(3), rtol=0.1, atol=0)


def test_dwa_waits_two_epochs_and_then_favours_the_slow_task():
    weighting = DWA(temperature=2.0)
    weighting.end_epoch(torch.tensor([1.0, 1.0, 1.0]))
    assert gradient(weighting).tolist() == [1.0, 1.0, 1.0]
    weighting.end_epoch(torch.tensor([0.5, 1.0, 1.0]))
    e = torch.tensor([0.25, 0.5, 0.5]).exp()
    torch.testing.assert_close(gradient(weighting), 3 * e / e.sum())
    weighting.end_epoch(torch.tensor([0.5, 0.5, 1.0]))  # only the last two epochs count
    e = torch.tensor([0.5, 0.25, 0.5]).exp()
    torch.testing.assert_close(gradient(weighting), 3 * e / e.sum())


def test_smooth_chebyshev_lies_above_the_maximum_and_reaches_it():
    weights, ideal = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.0, 0.0, 7.0])
    worst = (weights * (LOSSES - ideal)).max()
    for mu in (1.0, 0.1, 0.001):
        value = SmoothChebyshev(weights, ideal, mu)(LOSSES)
        assert worst - 1e-6 <= value <= worst + mu * torch.log(torch.tensor(3.0)) + 1e-6
    torch.testing.assert_close(
        gradient(SmoothChebyshev(weights, ideal, 0.001)), torch.tensor([0.0, 2.0, 0.0])
    )
    with pytest.raises(ValueError, match="mu is 0"):
        SmoothChebyshev(weights, mu=0)


def gradnorm_reference(weights, norms, ratio, alpha, rate):
    """The paper's update with autograd through the absolute values."""
    w = weights.clone().requires_grad_()
    sizes = w * norms
    target = (sizes.mean() * (ratio / ratio.mean()) ** alpha).detach()
    (slope,) = torch.autograd.grad((sizes - target).abs().sum(), w)
    w = weights - rate * slope
    return w * len(w) / w.sum()


def test_gradnorm_follows_the_papers_update():
    theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    weighting = GradNorm(tasks=3, alpha=1.5, rate=0.01)
    scales = torch.tensor([1.0, 3.0, 10.0])
    for step in range(3):
        losses = scales * (theta.square().sum() + 1) + step * torch.tensor([0.0, 1.0, 0.0])
        if step == 0:
            first = losses.detach()
        expected = gradnorm_reference(
            weighting.weights,
            scales * 2 * theta.detach().norm(),
            losses.detach() / first,
            1.5,
            0.01,
        )
        weighting.before_backward(losses, [theta])
        torch.testing.assert_close(weighting.weights, expected)
    assert theta.grad is None and weighting.weights[0] > weighting.weights[2]


def test_famo_moves_weight_to_the_task_that_gained_least():
    weighting = FAMO(2)
    losses = torch.tensor([1.0, 1.0])
    assert gradient(weighting, losses)[0] == gradient(weighting, losses)[1]
    weighting(losses)
    weighting.after_step(torch.tensor([0.5, 1.0]))
    after = gradient(weighting, losses)
    assert after[1] > after[0]
    with pytest.raises(ValueError, match="above their minimum"):
        FAMO(2, minimum=[2.0, 0.0])(losses)


def test_famo_direction_is_the_log_losses_gradient():
    live = LOSSES.clone().requires_grad_()
    FAMO(3)(live).backward()
    # Equal logits: weights 1 / L_t, scaled to sum to one.
    expected = (1 / LOSSES) / (1 / LOSSES).sum()
    torch.testing.assert_close(live.grad, expected)


def test_weights_reach_the_optimizer_without_decay():
    model, weighting = nn.Linear(2, 2), Uncertainty([True, True])
    groups = parameter_groups(model, weighting, weight_decay=0.1)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    weighting(model(torch.ones(1, 2))[0].square()).backward()
    before = weighting.log_variance.detach().clone()
    optimizer.step()
    assert not torch.equal(before, weighting.log_variance)
    assert len(parameter_groups(model, EqualWeights(), 0.1)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomWeights(1),
        DWA,
        lambda: FAMO(3),
        lambda: GradNorm(3),
        lambda: Uncertainty([True] * 3),
    ],
)
def test_state_dict_resumes_a_method_exactly(make):
    theta = nn.Parameter(torch.tensor([1.0, 2.0]))

    def run(weighting, steps):
        totals = []
        for step in steps:
            losses = torch.tensor([1.0, 3.0, 10.0]) * (theta.square().sum() + 1 / (step + 1))
            weighting.before_backward(losses, [theta])
            totals.append(weighting(losses).item())
            weighting.after_step(losses * torch.tensor([0.9, 0.8, 0.7]))
            weighting.end_epoch(losses / (step + 1) ** torch.arange(3))
        return totals

    whole, first, second = make(), make(), make()
    expected = run(whole, range(6))
    start = run(first, range(3))
    second.load_state_dict(first.state_dict())
    assert start + run(second, range(3, 6)) == expected
