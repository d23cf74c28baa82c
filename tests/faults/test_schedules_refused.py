"""Schedules and optimizers that other loops allow: refused in words before the first step."""

import copy

import pytest
import torch
from fault_tools import TASKS, Net, multi, require_every_row, rows, that_take
from torch.nn import functional as F
from torch.optim import lr_scheduler

from mtl_course import meta, multitask, streams, training, transfer
from mtl_course.data import Table
from mtl_course.streams import class_stream

X, Y = rows()
DATA, TABLE = (X, Y), Table(X, {"a": Y, "b": Y})


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer)


def of_another(optimizer):
    return lr_scheduler.ConstantLR(torch.optim.SGD([torch.zeros(1)], lr=1.0))


def chained(optimizer):
    constant = lr_scheduler.ConstantLR(optimizer)
    both = lr_scheduler.ChainedScheduler([constant], optimizer=optimizer)
    both._schedulers.append(plateau(optimizer))
    return both


def sgd(params, **options):
    return torch.optim.SGD(params, **{"lr": 0.1, **options})


def lbfgs(params, **_):
    return torch.optim.LBFGS(
        [p for g in params for p in (g["params"] if isinstance(g, dict) else [g])]
    )


def fit(model, make, schedule):
    optimizer = make(model.parameters())
    training.fit(
        model, DATA, DATA, F.cross_entropy, optimizer, schedule=schedule(optimizer), progress=False
    )


def fit_tasks(model, make, schedule):
    optimizer = make(model.parameters())
    model = multi(model)
    optimizer.add_param_group({"params": model.heads["b"].parameters()}) if make is sgd else None
    multitask.fit_tasks(
        model, TASKS, TABLE, TABLE, optimizer, schedule=schedule(optimizer), progress=False
    )


def step(model, make, schedule):
    optimizer = make(model.parameters())
    batch = TABLE.whole()
    chosen = schedule(optimizer)
    multitask.step(multi(model), TASKS, batch, optimizer, multitask.EqualWeights(), schedule=chosen)


def fit_episodes(model, make, schedule):
    optimizer = make(model.parameters())

    def backward(generator):
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    meta.fit_episodes(
        model,
        backward,
        optimizer,
        2,
        validate=lambda: 1.0,
        every=1,
        schedule=schedule(optimizer),
        progress=False,
    )


def lp_ft(model, make, schedule):
    optimizer = make(list(model.parameters()))
    options = {"schedule": schedule(optimizer), "progress": False}
    transfer.lp_ft(
        model,
        DATA,
        DATA,
        F.cross_entropy,
        lambda groups: make(groups),
        (0.1, 0.1),
        (1, 1),
        **options,
    )


def gradual_unfreezing(model, make, schedule):
    optimizer = make(list(model.parameters()))
    options = {"schedule": schedule(optimizer), "progress": False}
    transfer.gradual_unfreezing(
        model, DATA, DATA, F.cross_entropy, lambda groups: make(groups), 0.1, (1, 1, 1), **options
    )


SCHEDULED = {
    "fit": fit,
    "fit_tasks": fit_tasks,
    "step": step,
    "fit_episodes": fit_episodes,
    "lp_ft": lp_ft,
    "gradual_unfreezing": gradual_unfreezing,
}
STREAM = class_stream(DATA, DATA, (0, 1, 2), 1, False)
# They build their own optimizer and take no schedule.
OWN_OPTIMIZER = {
    "learn": lambda model, make: streams.learn(model, STREAM, make),
    "learn_jointly": lambda model, make: streams.learn_jointly(model, STREAM, make),
}


def test_every_loop_has_a_row():
    found = that_take("schedule", "options") | that_take("optimizer")
    require_every_row(found, SCHEDULED, OWN_OPTIMIZER)


def refuse(run, kind, words):
    torch.manual_seed(0)
    model = Net(torch.nn.Linear(6, 6))
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=words):
        run(model)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


WATCHING = [(name, schedule) for name in SCHEDULED for schedule in (plateau, chained)]
WATCHING.remove(("step", chained))  # a single step looks at the schedule alone, to stay fast


@pytest.mark.parametrize("name, schedule", WATCHING, ids=lambda x: getattr(x, "__name__", x))
def test_a_schedule_that_watches_a_loss_is_refused(name, schedule):
    run = SCHEDULED[name]
    refuse(lambda model: run(model, sgd, schedule), TypeError, "ReduceLROnPlateau needs one")


@pytest.mark.parametrize("name", sorted(SCHEDULED.keys() - {"step"}))
def test_a_schedule_of_another_optimizer_is_refused(name):
    run = SCHEDULED[name]
    refuse(lambda model: run(model, sgd, of_another), ValueError, "another optimizer")


@pytest.mark.parametrize("name", sorted(SCHEDULED.keys() - {"step"}))
def test_what_is_no_schedule_is_refused(name):
    def function(optimizer):
        return lambda step: 0.1

    refuse(lambda model: SCHEDULED[name](model, sgd, function), TypeError, "must be a scheduler")


@pytest.mark.parametrize(
    "name", [*sorted(SCHEDULED.keys() - {"step", "fit_tasks"}), *OWN_OPTIMIZER]
)
def test_an_optimizer_that_wants_a_closure_is_refused(name):
    def run(model):
        if name in OWN_OPTIMIZER:
            return OWN_OPTIMIZER[name](model, lbfgs)
        return SCHEDULED[name](model, lbfgs, lambda optimizer: None)

    refuse(run, TypeError, "LBFGS wants a closure")
