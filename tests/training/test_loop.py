"""The training loop: it learns, stops on validation data, puts the best weights back, and says what
is wrong.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import training, transfer
from mtl_course.training.evaluation import evaluate
from mtl_course.training.loop import fit


def line(n, noise=0.1, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=g)
    return x, x @ torch.tensor([[2.0], [-1.0]]) + noise * torch.randn(n, 1, generator=g)


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def test_learns_the_least_squares_fit():
    torch.manual_seed(0)
    model, data = nn.Linear(2, 1), line(200)
    history = fit(
        model,
        data,
        line(100, seed=1),
        F.mse_loss,
        sgd(model),
        epochs=60,
        batch=200,
        patience=60,
        progress=False,
    )
    design = torch.cat([data[0], torch.ones(200, 1)], dim=1)
    want = torch.linalg.lstsq(design, data[1]).solution[:, 0]
    assert torch.allclose(torch.cat([model.weight[0], model.bias]), want, atol=2e-2)
    assert (
        len(history.train) == len(history.validation) == 60
        and history.train[-1] < 0.05 * history.train[0]
    )


def test_best_weights_are_put_back_and_patience_ends_the_run():
    """The validation loss is made to rise after the second epoch: the model returned must be that
    of the second.
    """
    model = nn.Linear(2, 1)
    losses, seen = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0]), []

    def loss(prediction, target):
        if prediction.requires_grad:
            return F.mse_loss(prediction, target)
        seen.append(copy.deepcopy(model.state_dict()))
        return torch.tensor(next(losses))

    history = fit(
        model,
        line(32),
        line(8),
        loss,
        sgd(model, 0.01),
        epochs=50,
        batch=8,
        patience=3,
        progress=False,
    )
    assert history.best_epoch == 2 and len(history.validation) == 5
    assert all(torch.equal(v, seen[1][k]) for k, v in model.state_dict().items())
    assert not torch.equal(seen[1]["weight"], seen[4]["weight"])


def test_same_seed_same_weights_and_the_order_is_shuffled():
    def weights(seed):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        fit(
            model,
            line(40),
            line(10),
            F.mse_loss,
            sgd(model),
            epochs=2,
            batch=8,
            seed=seed,
            progress=False,
        )
        return model.weight.detach()

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_the_penalty_pulls_and_is_not_in_the_reported_loss():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    start = {k: p.detach().clone() for k, p in model.named_parameters()}
    strong = lambda m: transfer.l2_sp(dict(m.named_parameters()), start, 4.0)  # noqa: E731
    free = copy.deepcopy(model)
    a = fit(
        model, line(64), line(32), F.mse_loss, sgd(model), epochs=20, penalty=strong, progress=False
    )
    fit(free, line(64), line(32), F.mse_loss, sgd(free), epochs=20, progress=False)
    away = lambda m: sum((p - start[k]).norm() for k, p in m.named_parameters())  # noqa: E731
    assert away(model) < 0.5 * away(free)
    assert a.validation[a.best_epoch - 1] == pytest.approx(evaluate(model, line(32), F.mse_loss))


def test_a_loss_that_is_not_finite_names_its_epoch_and_leaves_the_best_weights():
    model = nn.Linear(2, 1)
    with pytest.raises(
        FloatingPointError,
        match=r"The (training|validation) loss is (nan|inf) at a learning rate of 1e\+06 in epoch",
    ):
        fit(model, line(32), line(8), F.mse_loss, sgd(model, 1e6), epochs=50, progress=False)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_optimizer_that_misses_the_new_head_is_refused():
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    optimizer = sgd(model)
    transfer.replace_head(model, 1, name="1")
    with pytest.raises(ValueError, match=r"does not hold 1\.weight, 1\.bias"):
        fit(model, line(8), line(8), F.mse_loss, optimizer, progress=False)


def test_an_interrupt_puts_the_best_weights_back():
    model, calls, kept = nn.Linear(2, 1), [], []

    def loss(prediction, target):
        if prediction.requires_grad:
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
        else:
            kept.append(copy.deepcopy(model.state_dict()))
        return F.mse_loss(prediction, target)

    with pytest.raises(KeyboardInterrupt):
        fit(model, line(32), line(8), loss, sgd(model, 0.01), batch=8, progress=False)
    assert len(kept) == 1 and all(torch.equal(v, kept[0][k]) for k, v in model.state_dict().items())


def test_evaluate_runs_in_evaluation_mode_and_puts_the_mode_back():
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.9))
    model.train()
    x, y = line(16)
    assert evaluate(model, (x, y), F.mse_loss) == pytest.approx(F.mse_loss(model[0](x), y).item())
    assert model.training


def test_progress_goes_to_stdout(capfd):
    model = nn.Linear(2, 1)
    fit(model, line(8), line(8), F.mse_loss, sgd(model), epochs=2)
    out, err = capfd.readouterr()
    assert "epochs" in out and not err
    assert training.History().best_epoch == 0
