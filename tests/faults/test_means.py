"""Means of means: what a loop reports as its training loss is the mean over rows, or over tasks,
whatever the sizes of the batches.
"""

import pytest
import torch
from fault_tools import Net, require_every_row, that_take
from torch import nn
from torch.nn import functional as F

from mtl_course import meta, multitask, training, transfer
from mtl_course.data import Separate, Table
from mtl_course.multitask import HardSharing, Weighting
from mtl_course.training import regression

# The fifth of five rows stands alone in its batch and has almost all of the loss.
X, Y = torch.ones(5, 4), torch.tensor([0.0, 0.0, 0.0, 0.0, 30.0])[:, None].expand(5, 3).clone()
OPTIONS = {"batch": 4, "progress": False}


def still(params):
    return torch.optim.SGD(params, lr=0.0)


def net():
    model = Net()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def fit():
    model = net()
    history = training.fit(model, (X, Y), (X, Y), F.mse_loss, still(model.parameters()), **OPTIONS)
    return history.train, Y.square().mean()


def phases(run, **options):
    histories = run(net(), (X, Y), (X, Y), F.mse_loss, still, **options, **OPTIONS)
    return [loss for history in histories for loss in history.train], Y.square().mean()


def fit_tasks(data, combine=None):
    model = HardSharing(net().trunk, {name: nn.Linear(6, 3) for name in "ab"})
    for p in model.parameters():
        nn.init.zeros_(p)
    tasks = {name: regression(name) for name in "ab"}
    whole = data.whole().targets
    start = {name: y.square().mean() for name, (_, y) in whole.items()}
    ones = {name: (X, torch.ones_like(Y)) for name in "ab"}  # an untrained loss of 1
    optimizer = still(model.parameters())
    history = multitask.fit_tasks(
        model, tasks, data, Separate(ones), optimizer, combine, epochs=2, **OPTIONS
    )
    return history.train, sum(start.values()) / 2


def fit_episodes():
    w, sizes = nn.Parameter(torch.ones(())), iter([1, 3, 3, 1])
    values = iter(torch.arange(8.0).tolist())

    def backward(generator):
        losses = w * torch.tensor([next(values) for _ in range(next(sizes))])
        losses.sum().backward()
        return losses

    history = meta.fit_episodes(
        {"w": w}, backward, still([w]), 4, validate=lambda: 1.0, every=4, progress=False
    )
    return history.train, torch.arange(8.0).mean()


half = torch.tensor([True, True, False, False, True])
RUNS = {
    "fit": [fit],
    "lp_ft": [lambda: phases(transfer.lp_ft, rates=(0.0, 0.0), epochs=(1, 1))],
    "gradual_unfreezing": [
        lambda: phases(transfer.gradual_unfreezing, rate=0.0, epochs=(1, 1)),
    ],
    "fit_tasks": [
        lambda: fit_tasks(Table(X, {"a": Y, "b": Y + 1})),
        lambda: fit_tasks(Table(X, {"a": Y, "b": Y + 1}), multitask.upgrad),
        lambda: fit_tasks(Table(X, {"a": Y, "b": Y + 1}, {"b": half}), multitask.upgrad),
        lambda: fit_tasks(Separate({"a": (X, Y), "b": (X, Y + 1)})),
    ],
    "fit_episodes": [fit_episodes],
}


def test_every_loop_that_reports_a_training_loss_has_a_row():
    require_every_row(that_take("validation", "validate"), RUNS)


@pytest.mark.parametrize(
    "run", [run for runs in RUNS.values() for run in runs], ids=lambda run: run.__name__
)
def test_the_training_loss_is_a_mean_over_rows(run):
    train, expected = run()
    assert train == pytest.approx([float(expected)] * len(train), rel=1e-5)


def test_a_weighting_sees_the_mean_over_rows_too():
    seen = []

    class Looks(Weighting):
        def forward(self, losses):
            return losses.sum()

        def end_epoch(self, losses):
            seen.append(losses)

    train, _ = fit_tasks(Table(X, {"a": Y, "b": Y + 1}), Looks())
    for losses in seen:
        assert losses.tolist() == pytest.approx(
            [float(Y.square().mean()), float((Y + 1).square().mean())], rel=1e-5
        )
    assert len(seen) == len(train) == 2
