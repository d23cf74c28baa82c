"""A last or only row: no loop hands a network with BatchNorm a batch of one, which has no variance.
It joins the batch before, or the loop says so before the first step.
"""

import pytest
import torch
from fault_tools import BATCH_NORMS, NORMS, TASKS, Net, multi, require_every_row, rows, that_take
from torch import nn
from torch.nn import functional as F

from mtl_course import multitask, streams, training, transfer
from mtl_course.data import Separate, Table
from mtl_course.meta import with_statistics
from mtl_course.multitask import HardSharing
from mtl_course.streams import Stream, fisher_diagonal
from mtl_course.transfer import freeze

SGD = torch.optim.SGD


def fit(model, n, batch):
    data = rows(n)
    optimizer = SGD(model.parameters(), lr=0.1)
    options = {"epochs": 2, "batch": batch, "progress": False}
    training.fit(model, data, rows(4), F.cross_entropy, optimizer, **options)


def lp_ft(model, n, batch):
    options = {"rates": (0.1, 0.1), "epochs": (1, 1), "batch": batch, "progress": False}
    transfer.lp_ft(model, rows(n), rows(4), F.cross_entropy, SGD, **options)


def gradual(model, n, batch):
    count = len(transfer.layers(model))
    options = {"rate": 0.1, "epochs": (1,) * count, "batch": batch, "progress": False}
    transfer.gradual_unfreezing(model, rows(n), rows(4), F.cross_entropy, SGD, **options)


def joint(combine, table):
    def run(model, n, batch):
        model = multi(model)
        (x, y), (x4, y4) = rows(n), rows(4)
        data = Table(x, {"a": y, "b": y}) if table else Separate({"a": (x, y)})
        tasks = TASKS if table else {"a": TASKS["a"]}
        if not table:
            model = HardSharing(model.trunk, {"a": model.heads["a"]})
        test = Table(x4, dict.fromkeys(tasks, y4))
        optimizer = SGD(model.parameters(), lr=0.1)
        options = {"epochs": 2, "batch": batch, "progress": False}
        multitask.fit_tasks(model, tasks, data, test, optimizer, combine, **options)

    return run


def learning(learn):
    def run(model, n, batch):
        x, y = rows(n)
        tasks = [(x, y * 0), (x, y * 0 + 1)]
        stream = Stream(tasks, tasks, classes_per_task=1, task_known=False)
        learn(model, stream, lambda params: SGD(params, lr=0.1), epochs=2, batch=batch)

    return run


LOOPS = {
    "fit": [fit],
    "lp_ft": [lp_ft],
    "gradual_unfreezing": [gradual],
    "fit_tasks": [
        joint(combine, table) for combine in (None, multitask.upgrad) for table in (True, False)
    ],
    "learn": [learning(streams.learn)],
    "learn_jointly": [learning(streams.learn_jointly)],
}
NO_TRAINING = {
    "predict": "below",
    "teacher_outputs": "goes through predict",
    "encode": "takes a SentenceEncoder, which has no BatchNorm",
    "adapt_batchnorm": "refuses batches of one: tests/transfer/test_adaptation.py",
}
RUNS = [(name, run) for name, runs in LOOPS.items() for run in runs]
EVERY = pytest.mark.parametrize("name, run", RUNS, ids=[name for name, _ in RUNS])
NORMED = pytest.mark.parametrize("norm", BATCH_NORMS)


def watched(norm):
    """A network, and the number of rows of each of its training batches."""
    torch.manual_seed(0)
    model, sizes = Net(NORMS[norm]() if isinstance(norm, str) else norm), []

    def note(module, inputs):
        if module.training:
            sizes.append(len(inputs[0]))

    model.trunk[1].register_forward_pre_hook(note)
    return model, sizes


def test_every_loop_with_batches_has_a_row():
    require_every_row(that_take("batch", "options"), LOOPS, NO_TRAINING)


@NORMED
@EVERY
def test_a_last_row_joins_the_batch_before_it(name, run, norm):
    model, sizes = watched(norm)
    n, batch = (9, 4) if name != "learn_jointly" else (9, 17)
    run(model, n, batch)
    # Of learn_jointly both tasks' rows are one set, 18 rows.
    expected = {4, 5} if name != "learn_jointly" else {18}
    assert set(sizes) == expected, sizes


@NORMED
@EVERY
@pytest.mark.parametrize("n, batch", [(8, 1), (1, 4)], ids=["batch of one", "one row"])
def test_a_batch_of_one_alone_is_refused_before_the_first_step(name, run, norm, n, batch):
    if name == "learn_jointly" and n == 1:
        n, batch = 1, 1
    model, sizes = watched(norm)
    with pytest.raises(ValueError, match=r"'trunk\.1'|'1' takes mean and variance"):
        run(model, n, batch)
    assert not sizes


@EVERY
def test_without_such_a_norm_the_last_row_stands_alone_as_ever(name, run):
    model, sizes = watched(nn.LayerNorm(6))
    run(model, 9, 4)
    assert min(sizes) == (1 if name != "learn_jointly" else 2)


@EVERY
def test_a_frozen_norm_takes_any_batch(name, run):
    model, _ = watched(freeze(nn.BatchNorm1d(6)))
    if name not in ("lp_ft", "gradual_unfreezing"):  # which open it
        run(model, 5, 1)


def test_a_head_with_a_norm_is_not_given_a_single_labelled_row():
    x, y = rows(8)
    only_one = torch.arange(8) == 3
    data = Table(x, {"a": y, "b": y}, {"b": only_one})
    head = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    model = HardSharing(nn.Linear(4, 6), {"a": nn.Linear(6, 3), "b": head})
    whole = Table(x, {"a": y, "b": y})
    optimizer = SGD(model.parameters(), lr=0.1)
    options = {"epochs": 1, "batch": 4, "progress": False}
    history = multitask.fit_tasks(model, TASKS, data, whole, optimizer, multitask.upgrad, **options)
    assert history.best_epoch in (0, 1)


def test_predictions_of_a_norm_without_statistics_leave_no_row_alone():
    model, _ = watched("batch norm without statistics")
    x, _ = rows(9)
    assert training.predict(model, x, batch=4).shape == (9, 3)
    with pytest.raises(ValueError, match="no running statistics"):
        training.predict(model, x[:1])
    with pytest.raises(ValueError, match="no running statistics"):
        fisher_diagonal(model, x)


def test_the_statistics_of_a_single_row_are_refused():
    model, _ = watched("batch norm")
    with pytest.raises(ValueError, match="single row"):
        with_statistics(model, rows(1)[0])


@pytest.mark.parametrize("masked", [False, True])
def test_joined_batches_hold_every_row_once_with_its_own_labels(masked):
    x = torch.arange(9.0)[:, None]
    y = x * 10
    mask = {"b": torch.arange(9) % 2 == 0} if masked else None
    table = Table(x, {"a": y, "b": y}, mask)
    seen = []
    for batch in table.batches(4, torch.Generator().manual_seed(0), least=2):
        for rows_, labels in batch.targets.values():
            assert torch.equal(batch.x[rows_] * 10, labels)
        seen += batch.x.flatten().tolist()
    assert sorted(seen) == x.flatten().tolist()
