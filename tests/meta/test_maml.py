"""Meta-learning against finite differences, a loop over clones, and closed forms.

All in float64.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import meta
from mtl_course.data.episodes import Episodes, EpisodeSource, sinusoids
from mtl_course.meta.functional import Functional
from mtl_course.multitask.sharing import HardSharing
from mtl_course.networks.trunks import mlp
from mtl_course.training.tasks import classification, regression


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.trunk(x))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten())
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.trunk(x))


def by_hand(model, p, x):
    """The same networks written with torch.nn.functional."""
    if isinstance(model, Convolutional):
        z = F.conv2d(x, p["trunk.0.weight"], p["trunk.0.bias"]).tanh().flatten(1)
    else:
        z = (x @ p["trunk.0.weight"].T + p["trunk.0.bias"]).tanh()
    return z @ p["head.weight"].T + p["head.bias"]


def problem(make=Dense, tasks=3, shots=5):
    torch.manual_seed(0)
    model = make().double()
    shape = (1, 4, 4) if make is Convolutional else (3,)
    x, query = (torch.randn(tasks, shots + k, *shape, dtype=torch.float64) for k in (0, 2))
    y, truth = (torch.randint(4, (tasks, shots + k)) for k in (0, 2))
    f = Functional(model)
    return model, f, f.parameters(), Episodes((x, y), (query, truth))


def loop(model, episodes, steps, rate, first_order=False, only=("trunk", "head")):
    """A clone of the parameters per task, stepped by autograd.grad.

    The mean query loss is differentiated at the end.
    """
    params = dict(model.named_parameters())
    total = 0.0
    for x, y, query, truth in zip(*episodes.support, *episodes.query, strict=True):
        fast = {name: p.clone() for name, p in params.items()}
        for _ in range(steps):
            names = [name for name in fast if name.split(".")[0] in only]
            slopes = torch.autograd.grad(
                F.cross_entropy(by_hand(model, fast, x), y),
                [fast[n] for n in names],
                create_graph=not first_order,
            )
            for name, slope in zip(names, slopes, strict=True):
                r = rate[name] if isinstance(rate, dict) else rate
                fast[name] = fast[name] - r * slope
        total = total + F.cross_entropy(by_hand(model, fast, query), truth) / len(episodes)
    wanted = [*params.values(), *(rate.values() if isinstance(rate, dict) else ())]
    return total.item(), torch.autograd.grad(total, wanted)


def gradients(params):
    return [p.grad for p in params.values()]


CHOICES = {
    "MAML": {},
    "FOMAML": {"first_order": True},
    "ANIL": {"only": "head"},
    "ANIL, first order": {"only": ("head",), "first_order": True},
}


@pytest.mark.parametrize("make", [Dense, Convolutional])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("steps", [1, 3])
def test_equals_a_loop_over_clones(make, choice, steps):
    model, f, params, episodes = problem(make)
    options = CHOICES[choice]
    only = ("head",) if "only" in options else ("trunk", "head")
    first_order = options.get("first_order", False)
    value, expected = loop(model, episodes, steps, 0.3, first_order, only)
    losses = meta.meta_backward(f, params, episodes, F.cross_entropy, steps, 0.3, **options)
    assert losses.mean().item() == pytest.approx(value, rel=1e-12) and not losses.requires_grad
    for gradient, wanted in zip(gradients(params), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [Dense, Convolutional])
def test_meta_sgd_equals_the_loop_and_its_rates_learn(make):
    model, f, params, episodes = problem(make)
    rates = meta.learned_rates(params, 0.2)
    _, expected = loop(model, episodes, 2, rates)
    meta.meta_backward(f, params, episodes, F.cross_entropy, 2, rates)
    for gradient, wanted in zip([*gradients(params), *gradients(rates)], expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    assert all(r.grad.abs().sum() > 0 for r in rates.values())


@pytest.mark.parametrize("make", [Dense, Convolutional])
@pytest.mark.parametrize("options", [{}, {"only": "head"}])
def test_meta_gradient_equals_finite_differences(make, options):
    _, f, params, episodes = problem(make)
    meta.meta_backward(f, params, episodes, F.cross_entropy, 2, 0.4, **options)
    epsilon = 1e-6
    for p in params.values():
        flat = p.detach().view(-1)
        for i in range(0, len(flat), 7):
            values = []
            for sign in (1, -1):
                flat[i] += sign * epsilon
                values.append(
                    meta.meta_losses(f, params, episodes, F.cross_entropy, 2, 0.4, **options)
                    .mean()
                    .item()
                )
                flat[i] -= sign * epsilon
            assert p.grad.view(-1)[i].item() == pytest.approx(
                (values[0] - values[1]) / (2 * epsilon), rel=1e-5, abs=1e-8
            )


def test_first_order_is_the_query_gradient_at_the_adapted_parameters():
    _, f, params, episodes = problem()
    meta.meta_backward(f, params, episodes, F.cross_entropy, 3, 0.3, first_order=True)
    loss, expected = meta.objective(f, F.cross_entropy), dict.fromkeys(params, 0.0)
    for x, y, query, truth in zip(*episodes.support, *episodes.query, strict=True):
        ends = meta.adapt(loss, params, (x, y), 3, 0.3)
        ends = {name: p.detach().requires_grad_() for name, p in ends.items()}
        slopes = torch.autograd.grad(loss(ends, query, truth), list(ends.values()))
        for name, g in zip(ends, slopes, strict=True):
            expected[name] = expected[name] + g / len(episodes)
    for name, p in params.items():
        torch.testing.assert_close(p.grad, expected[name])


def test_maml_less_first_order_is_the_hessian_term():
    """After one step: minus the rate times the Hessian of the support loss at the start.

    It is applied to the query gradient at the adapted parameters.
    """
    _, f, params, episodes = problem()
    loss, names, flat = meta.objective(f, F.cross_entropy), list(params), []
    for first_order in (False, True):
        meta.meta_backward(f, params, episodes, F.cross_entropy, 1, 0.3, first_order=first_order)
        flat.append(torch.cat([p.grad.flatten() for p in params.values()]))
        for p in params.values():
            p.grad = None
    expected = 0.0
    for x, y, query, truth in zip(*episodes.support, *episodes.query, strict=True):
        ends = meta.adapt(loss, params, (x, y), 1, 0.3)
        ends = {name: p.detach().requires_grad_() for name, p in ends.items()}
        slopes = torch.autograd.grad(loss(ends, query, truth), list(ends.values()))

        def support_loss(*values, x=x, y=y):
            return loss(dict(zip(names, values, strict=True)), x, y)

        start = tuple(p.detach() for p in params.values())
        _, bent = torch.autograd.functional.hvp(support_loss, start, slopes)
        expected = expected - 0.3 * torch.cat([b.flatten() for b in bent]) / len(episodes)
    maml, fomaml = flat
    assert expected.norm() > 0.01 * fomaml.norm()
    torch.testing.assert_close(maml - fomaml, expected, rtol=1e-8, atol=1e-12)


def quadratic():
    """Losses (theta - c)^T A (theta - c) / 2, written as an objective of (params, c, unused)."""
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    A = M @ M.T / 4 + 0.1 * torch.eye(4, dtype=torch.float64)

    def loss(params, c, _):
        return 0.5 * (params["theta"] - c) @ A @ (params["theta"] - c)

    return A, loss, torch.randn(2, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("first_order", [False, True])
def test_on_a_quadratic_maml_has_a_closed_form_and_first_order_lacks_one_factor(first_order):
    A, loss, (c, truth) = quadratic()
    theta, rate, steps = torch.ones(4, dtype=torch.float64, requires_grad=True), 0.2, 3
    end = meta.adapt(loss, {"theta": theta}, (c, c), steps, rate, first_order=first_order)["theta"]
    shrink = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - rate * A, steps)
    torch.testing.assert_close(end, c + shrink @ (theta - c))
    (gradient,) = torch.autograd.grad(loss({"theta": end}, truth, None), theta)
    factor = torch.eye(4, dtype=torch.float64) if first_order else shrink
    torch.testing.assert_close(gradient, factor @ A @ (end - truth).detach())


class Point(nn.Module):
    """Parameters alone: the output is theta for every row."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x):
        return self.theta.expand(len(x), 4)


@pytest.mark.parametrize("at_once", [1, 2])
def test_reptile_has_a_closed_form_on_a_quadratic(at_once):
    A, _, _ = quadratic()
    generator = torch.Generator().manual_seed(1)
    model, centres = Point(), torch.randn(5, 1, 4, dtype=torch.float64, generator=generator)
    f, x = Functional(model, at_once=at_once), torch.zeros(5, 1, 1)

    def loss(outputs, c):
        return (0.5 * ((outputs - c) @ A * (outputs - c)).sum(1)).mean()

    episodes = Episodes((x, centres), (x, centres))
    losses = meta.reptile_backward(f, f.parameters(), episodes, loss, 4, 0.2)
    shrink = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - 0.2 * A, 4)
    mean = centres[:, 0].mean(0)
    # The start less the mean of c + shrink (start - c).
    expected = (torch.eye(4, dtype=torch.float64) - shrink) @ (model.theta.detach() - mean)
    torch.testing.assert_close(model.theta.grad, expected)
    assert len(losses) == 5
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    torch.testing.assert_close(model.theta.detach(), mean + shrink @ (1 - mean))


def test_anil_moves_the_head_alone_and_learns_the_trunk():
    _, f, params, episodes = problem()
    support = tuple(part[0] for part in episodes.support)
    ends = meta.adapt(meta.objective(f, F.cross_entropy), params, support, 2, 0.3, only="head")
    for name, p in params.items():
        assert torch.equal(ends[name], p) == name.startswith("trunk")
    meta.meta_backward(f, params, episodes, F.cross_entropy, 2, 0.3, only="head")
    assert all(p.grad.abs().sum() > 0 for p in params.values())


def test_adapting_changes_neither_the_parameters_nor_the_support_of_others():
    model, f, params, episodes = problem()
    start = {name: p.detach().clone() for name, p in params.items()}
    support = tuple(part[0] for part in episodes.support)
    ends = meta.adapt(meta.objective(f, F.cross_entropy), params, support, 0, 0.3)
    assert all(torch.equal(ends[name], p) for name, p in start.items())
    meta.meta_losses(f, params, episodes, F.cross_entropy, 5, 0.3)
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


# --------------------------------------------------------------------------- one by one, or at once
@pytest.mark.parametrize("make", [Dense, Convolutional])
def test_at_once_and_one_by_one_are_the_same(make):
    results = []
    for at_once in (2, 1):
        model, _, params, episodes = problem(make)
        f = Functional(model, at_once=at_once)
        losses = meta.meta_backward(f, params, episodes, F.cross_entropy, 2, 0.3)
        results.append([losses, *gradients(params)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_choice_needs_no_flag():
    x = torch.randn(5, 3, dtype=torch.float64)
    images, series = torch.randn(5, 1, 4, 4).double(), torch.randn(5, 6, 3).double()
    assert Functional(Dense().double()).at_once(x) > 1000
    assert Functional(Convolutional().double()).at_once(images) == 1
    assert Functional(Recurrent().double()).at_once(series) == 1


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


def test_a_recurrent_network_adapts():
    torch.manual_seed(0)
    model = Recurrent().double()
    x, y = torch.randn(3, 5, 6, 3, dtype=torch.float64), torch.randint(2, (3, 5))
    f = Functional(model)
    meta.meta_backward(f, f.parameters(), Episodes((x, y), (x, y)), F.cross_entropy, 1, 0.1)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_choice_draws_no_random_number():
    """A run that goes on from a checkpoint asks again; dropout must not draw then."""
    f = Functional(nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5)))
    before = torch.get_rng_state()
    f.at_once(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_anew_for_every_task():
    torch.manual_seed(0)
    f = Functional(nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 1)))
    x, y = torch.randn(1, 4, 3).expand(3, 4, 3), torch.zeros(3, 4, 1)
    losses = meta.meta_losses(f, f.parameters(), Episodes((x, y), (x, y)), F.mse_loss, 1, 0.01)
    assert len(set(losses.tolist())) == 3


# ---------------------------------------------------------------------------------------- BatchNorm
def normed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)).double()
    model(torch.randn(64, 3, dtype=torch.float64))  # its statistics are not those of other batches
    return model


def test_batchnorm_must_be_chosen():
    with pytest.raises(ValueError, match="has BatchNorm: say transductive=True"):
        Functional(normed())


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("transductive", [True, False])
def test_transductive_statistics_are_those_of_the_batch_and_nothing_is_written(
    transductive, at_once
):
    model, x = normed(), torch.randn(3, 9, 3, dtype=torch.float64)
    before = {name: b.clone() for name, b in model.named_buffers()}
    f = Functional(model, transductive=transductive, at_once=at_once)
    alone, together = f(f.parameters(), x[0, :2]), f(f.parameters(), x[0])[:2]
    assert torch.allclose(alone, together) != transductive
    y = torch.randint(4, (3, 9))
    meta.meta_backward(f, f.parameters(), Episodes((x, y), (x, y)), F.cross_entropy, 2, 0.1)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers()) and model.training
    model.eval()
    if not transductive:
        torch.testing.assert_close(alone, model(x[0, :2]))


# ----------------------------------------------------------------------- kinds of tasks, and faults
def test_regressions_and_classifications_in_one_meta_batch():
    torch.manual_seed(0)
    heads = {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 4)}
    model = HardSharing(mlp([3, 8], nn.Tanh), heads).double()
    f, tasks = Functional(model), {"size": regression("size"), "kind": classification("kind")}
    x, query = torch.randn(3, 6, 3, dtype=torch.float64), torch.randn(3, 5, 3, dtype=torch.float64)
    episodes = {
        "size": Episodes((x, x.sum(-1, keepdim=True)), (query, query.sum(-1, keepdim=True))),
        "kind": Episodes((x[:2], torch.randint(4, (2, 6))), (query[:2], torch.randint(4, (2, 5)))),
    }
    losses = meta.mixed_losses(f, f.parameters(), episodes, tasks, 2, 0.1)
    assert {kind: len(values) for kind, values in losses.items()} == {"size": 3, "kind": 2}
    start = dict(model.named_parameters())

    def loss(kind, p, x, y):
        z = (x @ p["trunk.0.weight"].T + p["trunk.0.bias"]).tanh()
        out = z @ p[f"heads.{kind}.weight"].T + p[f"heads.{kind}.bias"]
        return ((out - y) ** 2).mean() if kind == "size" else F.cross_entropy(out, y)

    for kind, values in losses.items():
        for t, value in enumerate(values):
            support = tuple(part[t] for part in episodes[kind].support)
            fast = dict(start)
            names = [name for name in fast if name.startswith("trunk") or kind in name]
            for _ in range(2):
                moving = [fast[name] for name in names]
                slopes = torch.autograd.grad(loss(kind, fast, *support), moving)
                fast |= {n: fast[n] - 0.1 * g for n, g in zip(names, slopes, strict=True)}
            expected = loss(kind, fast, *(part[t] for part in episodes[kind].query))
            assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    sum(values.mean() for values in losses.values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_kind_without_a_task_or_with_the_wrong_targets_is_refused():
    heads = {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 4)}
    f = Functional(HardSharing(mlp([3, 8], nn.Tanh), heads))
    tasks = {"size": regression("size"), "kind": classification("kind")}
    labelled = torch.zeros(2, 6, 3), torch.zeros(2, 6, dtype=torch.int64)
    episodes = Episodes(labelled, labelled)
    with pytest.raises(ValueError, match="episodes of 'colour', but `tasks` has size, kind only"):
        meta.mixed_losses(f, f.parameters(), {"colour": episodes}, tasks, 1, 0.1)
    with pytest.raises(ValueError, match=r"'size' are torch\.int64; a regression needs floats"):
        meta.mixed_losses(f, f.parameters(), {"size": episodes}, tasks, 1, 0.1)


@pytest.mark.parametrize("learner", [meta.meta_losses, meta.meta_backward, meta.reptile_backward])
def test_an_inner_loop_that_diverges_is_named_with_its_rate(learner):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    f, episodes = Functional(model), sinusoids(4, 5, 5, torch.Generator().manual_seed(0))
    message = (
        r"inner loop diverged in 4 of 4 tasks .*first: number 0.* a rate of 1000 and 60 steps\."
        r" Lower the rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        learner(f, f.parameters(), episodes, F.mse_loss, 60, 1000.0)
    assert all(p.grad is None for p in model.parameters())


def test_learned_rates_that_diverge_are_named():
    f, episodes = Functional(nn.Linear(1, 1)), sinusoids(4, 5, 5, torch.Generator().manual_seed(0))
    rates = meta.learned_rates(f.parameters(), 1000.0)
    message = r"diverged in 4 of 4 tasks .* with its learned rates and 60 steps"
    with pytest.raises(FloatingPointError, match=message):
        meta.meta_losses(f, f.parameters(), episodes, F.mse_loss, 60, rates)


def test_a_rate_may_be_a_tensor_that_learns():
    _, f, params, episodes = problem()
    for first_order in (False, True):
        rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        losses = meta.meta_losses(
            f, params, episodes, F.cross_entropy, 2, rate, first_order=first_order
        )
        torch.testing.assert_close(
            losses, meta.meta_losses(f, params, episodes, F.cross_entropy, 2, 0.3)
        )
        losses.mean().backward()
        assert rate.grad.abs() > 0


@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_take_inputs_of_any_shape(shape, bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=bias), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(shape, dtype=torch.float64)
    f = Functional(model)
    torch.testing.assert_close(f(f.parameters(), x), model(x))


def test_parts_and_rates_that_do_not_exist_are_named():
    _, f, params, episodes = problem()
    message = r"No parameter belongs to 'tail'; there are trunk\.0\.weight"
    with pytest.raises(ValueError, match=message):
        meta.meta_losses(f, params, episodes, F.cross_entropy, 1, 0.1, only="tail")
    with pytest.raises(ValueError, match=r"There is no rate for head\.weight, head\.bias"):
        meta.meta_losses(
            f, params, episodes, F.cross_entropy, 1, {n: 0.1 for n in params if "trunk" in n}
        )


def test_a_negative_number_of_steps_is_refused():
    _, f, params, episodes = problem()
    with pytest.raises(ValueError, match="-1 steps: take 0"):
        meta.meta_losses(f, params, episodes, F.cross_entropy, -1, 0.1)


def test_frozen_parameters_stay_what_they_are():
    model, _, _, episodes = problem()
    model.trunk.requires_grad_(False)
    f = Functional(model)
    assert list(f.parameters()) == ["head.weight", "head.bias"]
    meta.meta_backward(f, f.parameters(), episodes, F.cross_entropy, 2, 0.3)
    thawed = Dense().double()
    thawed.load_state_dict(model.state_dict())
    _, (_, _, expected, _) = loop(thawed, episodes, 2, 0.3, only=("head",))
    torch.testing.assert_close(model.head.weight.grad, expected)
    assert model.trunk[0].weight.grad is None


def test_maml_learns_sinusoids_better_than_it_starts():
    torch.manual_seed(0)
    f = Functional(nn.Sequential(mlp([1, 40, 40]), nn.Linear(40, 1)))
    params, g = f.parameters(), torch.Generator().manual_seed(1)
    held_out = sinusoids(50, 10, 10, torch.Generator().manual_seed(2))
    before = meta.meta_losses(f, params, held_out, F.mse_loss, 1, 0.01).mean().item()
    optimizer = torch.optim.Adam(params.values(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        meta.meta_backward(f, params, sinusoids(10, 10, 10, g), F.mse_loss, 1, 0.01)
        optimizer.step()
    assert meta.meta_losses(f, params, held_out, F.mse_loss, 1, 0.01).mean().item() < 0.8 * before


def test_an_episode_of_real_digits_runs_end_to_end():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    source = EpisodeSource(torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y))
    f = Functional(nn.Sequential(mlp([64, 32]), nn.Linear(32, 5)))
    episodes = source.classification(8, 5, 1, 5, torch.Generator().manual_seed(0))
    assert meta.meta_backward(f, f.parameters(), episodes, F.cross_entropy, 1, 0.4).shape == (8,)
