"""Sparse experts: only the best runs, equal to a loop over rows; and their balance."""

import pytest
import torch
from torch import nn

from mtl_course.multitask import MMoE, TopOne, balance_loss
from mtl_course.networks import mlp

D, K, E = 5, 4, 3


class Counting(nn.Module):
    """An expert that remembers how many rows it was given."""

    def __init__(self):
        super().__init__()
        self.layer, self.rows = nn.Linear(D, K), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.layer(x)


def pattern(seed=0, expert=lambda: mlp([D, K]), tasks=("a", "b")):
    torch.manual_seed(seed)
    return TopOne([expert() for _ in range(E)], {t: nn.Linear(D, E) for t in tasks})


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", range(3))
def test_every_row_gets_its_best_expert_times_its_chance(rows, seed):
    model = pattern(seed).double()
    x = torch.randn(rows, D, dtype=torch.float64)
    z = model(x)
    for task, gate in model.gates.items():
        for n in range(rows):
            p = gate(x[n : n + 1]).softmax(1)[0]
            e = int(p.argmax())
            torch.testing.assert_close(z[task][n], p[e] * model.experts[e](x[n : n + 1])[0])


def test_an_expert_runs_once_on_the_rows_of_any_task_and_not_without_rows():
    model = pattern(expert=Counting)
    x = torch.randn(9, D)
    with torch.no_grad():
        model.gates["a"].weight.zero_()
        model.gates["a"].bias.copy_(torch.tensor([9.0, 0, 0]))
        model.gates["b"].weight.zero_()
        model.gates["b"].bias.copy_(torch.tensor([9.0, 0, 0]))
    model(x)
    assert [expert.rows for expert in model.experts] == [[9], [], []]


def test_gradients_reach_the_gate_the_chosen_expert_and_no_other():
    model = pattern(tasks=("a",))
    x = torch.randn(1, D)
    model(x)["a"].sum().backward()
    chosen = int(model.gates["a"](x).argmax())
    assert model.gates["a"].weight.grad.abs().sum() > 0
    for e, expert in enumerate(model.experts):
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in expert.parameters())
        assert moved == (e == chosen)


def test_with_a_sure_gate_it_is_mmoe_and_it_takes_images():
    torch.manual_seed(0)
    experts, gates = [mlp([D, K]) for _ in range(E)], {"a": nn.Linear(D, E)}
    with torch.no_grad():
        gates["a"].weight.mul_(1e4)
    x = torch.randn(20, D)
    torch.testing.assert_close(TopOne(experts, gates)(x)["a"], MMoE(experts, gates)(x)["a"])
    convolutions = [nn.Conv2d(1, 2, 3) for _ in range(E)]
    gate = nn.Sequential(nn.Flatten(), nn.Linear(36, E))
    assert TopOne(convolutions, {"a": gate})(torch.randn(3, 1, 6, 6))["a"].shape == (3, 2, 4, 4)


def test_a_gate_that_does_not_fit_and_an_empty_batch_are_refused():
    model = TopOne([nn.Linear(D, K)] * 2, {"price": nn.Linear(D, 3)})
    for call in (model, model.weights, model.balance):
        with pytest.raises(ValueError, match="'price' has 3 outputs for 2"):
            call(torch.randn(4, D))
        with pytest.raises(ValueError, match="no rows"):
            call(torch.randn(0, D))


def test_nan_makes_no_choice_up():
    x = torch.randn(3, D)
    x[1] = float("nan")
    z = pattern()(x)["a"]
    assert z[1].isnan().all() and z[[0, 2]].isfinite().all()


def test_balance_is_the_formula_and_the_mean_over_tasks():
    model = pattern()
    x = torch.randn(30, D)
    losses = []
    for p in model.weights(x).values():
        best = p.argmax(1)
        total = sum(
            float((best == e).double().mean()) * float(p[:, e].detach().mean()) for e in range(E)
        )
        losses.append(E * total)
        assert float(balance_loss(p)) == pytest.approx(losses[-1], rel=1e-5)
    assert float(model.balance(x)) == pytest.approx(sum(losses) / 2, rel=1e-5)
    model.balance(x).backward()
    assert all(gate.weight.grad.abs().sum() > 0 for gate in model.gates.values())


def test_balance_spreads_the_rows_of_a_collapsed_gate():
    torch.manual_seed(0)
    gate = nn.Linear(D, E)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([3.0, 0, 0]))
    x = torch.randn(300, D)
    optimizer = torch.optim.Adam(gate.parameters(), 0.05)
    assert balance_loss(gate(x).softmax(1)) > 2
    for _ in range(200):
        optimizer.zero_grad()
        balance_loss(gate(x).softmax(1)).backward()
        optimizer.step()
    shares = torch.bincount(gate(x).argmax(1), minlength=E) / 300
    assert shares.max() < 0.6


def test_balance_refuses_what_it_cannot_count():
    for bad, words in (
        (torch.zeros(0, 3), "at least one row"),
        (torch.ones(3), "must be"),
        (torch.tensor([[0.5, 0.5], [0.5, float("nan")]]), "Row 1"),
    ):
        with pytest.raises(ValueError, match=words):
            balance_loss(bad)
