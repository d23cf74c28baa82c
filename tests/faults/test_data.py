"""Data that cannot be learned from: NaN targets, empty sets, lengths that differ. One sentence that
names the set or the task, before the first epoch.
"""

import numpy as np
import pytest
import torch
from fault_tools import TASKS, Net, multi, require_every_row, rows, that_take
from torch import nn
from torch.nn import functional as F

from mtl_course import meta, multitask, streams, training, transfer, trust
from mtl_course.data import Episodes, EpisodeSource, Separate, Table
from mtl_course.meta import Functional
from mtl_course.streams import Stream
from mtl_course.training import regression

NAN = float("nan")
X, Y = rows()
FLOATS = torch.ones(12, 3)
SAYS = F.one_hot(Y, 3).float()  # probabilities, or logits
WITH_NAN = torch.where(torch.arange(12)[:, None] == 5, NAN, FLOATS)
EMPTY = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
NUMBERS = {"a": regression("a"), "b": regression("b")}


def fit(train, validation):
    model = Net()
    loss = F.mse_loss if train[1].is_floating_point() else F.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training.fit(model, train, validation, loss, optimizer, progress=False)


def lp_ft(train, validation):
    options = {"epochs": (1, 1), "rates": (0.1, 0.1), "progress": False}
    transfer.lp_ft(Net(), train, validation, F.mse_loss, torch.optim.SGD, **options)


def gradual(train, validation):
    options = {"rate": 0.1, "epochs": (1, 1), "progress": False}
    transfer.gradual_unfreezing(Net(), train, validation, F.mse_loss, torch.optim.SGD, **options)


def fit_tasks(train, validation, combine=None):
    model = multi(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    multitask.fit_tasks(model, NUMBERS, train, validation, optimizer, combine, progress=False)


def table(y=FLOATS):
    return Table(X, {"a": FLOATS, "b": y})


def stream(**sets):
    sound = [(X, Y % 2), (X, 2 + Y % 2)]
    return Stream(**{"train": sound, "test": sound, **sets}, classes_per_task=2, task_known=False)


def learning(learn):
    sgd = torch.optim.SGD
    model = nn.Linear(4, 4)
    return lambda tasks: learn(model, tasks, lambda params: sgd(params, lr=0.1), epochs=1)


def of_one_task(fit):
    """Rows for a loop on one task: training and validation data, each with every fault."""
    sound = (X, FLOATS)
    broken = [
        ((X, WITH_NAN), "NaN or infinite"),
        ((X, torch.where(WITH_NAN.isnan(), torch.inf, FLOATS)), "NaN or infinite"),
        ((X[:11], FLOATS), "11 inputs and 12 targets"),
        ((X, FLOATS[:11]), "12 inputs and 11 targets"),
        ((X[:0], FLOATS[:0]), "at least one"),
    ]
    return [
        *(
            (lambda data=data: fit(data, sound), f"training data.*{words}")
            for data, words in broken
        ),
        *(
            (lambda data=data: fit(sound, data), f"validation data.*{words}")
            for data, words in broken
        ),
    ]


def of_a_stream(run):
    """Rows for what takes a stream: its second task with every fault, to train and to test."""
    sound = (X, Y % 2)
    broken = [(X[:11], 2 + Y % 2), (X, 2 + Y[:11] % 2), EMPTY]
    return [
        (lambda kind=kind, data=data: run(stream(**{kind: [sound, data]})), rf"Task 1 \({kind}\)")
        for kind in ("train", "test")
        for data in broken
    ]


def episodes(bad):
    y = torch.ones(3, 2, 1)
    with_nan = y.clone()
    with_nan[1, 0] = NAN
    sets = {"support": y, "query": y, bad: with_nan}
    return Episodes(*((torch.ones(3, 2, 1), sets[side]) for side in ("support", "query")))


def of_episodes(run):
    """Rows for meta-learning: the second task's targets have a NaN."""
    f = Functional(nn.Linear(1, 1))
    return [
        (lambda bad=bad: run(f, f.parameters(), episodes(bad)), f"Task number 1 .* {bad}")
        for bad in ("support", "query")
    ]


def of_a_score(score, name, values):
    """Rows for a score of transferability: what it takes beside the labels, and the labels."""
    with_nan = torch.where(WITH_NAN[:, :1].isnan(), NAN, values)
    return [
        (lambda: score(with_nan, Y), f"{name} is nan in row 5"),
        (lambda: score(values[:11], Y), f"{name} has 11 rows, but there are 12 labels"),
        (lambda: score(values, Y[:11]), f"{name} has 12 rows, but there are 11 labels"),
        (lambda: score(values[:0], Y), f"{name} has shape"),
        (lambda: score(values, Y[:0]), "labels has shape"),
        (lambda: score(values, torch.full((12,), NAN)), "labels .* whole numbers"),
    ]


def of_a_judge(judge):
    """Rows for what judges yes and no: scores and labels of the same rows."""
    said, truth = torch.ones(12), (Y > 0).float()
    return [
        (lambda: judge(said[:11], truth), r"\[11\] and labels of \[12\]"),
        (lambda: judge(said[:0], truth[:0]), "no rows"),
        (lambda: judge(torch.where(torch.arange(12) == 5, NAN, said), truth), "Row 5 .* is NaN"),
        (lambda: judge(said, torch.where(torch.arange(12) == 5, NAN, truth)), "Row 5 .* label nan"),
    ]


mse = F.mse_loss
REFUSED = {
    "fit": of_one_task(fit),
    "lp_ft": of_one_task(lp_ft),
    "gradual_unfreezing": of_one_task(gradual),
    "fit_tasks": [
        (lambda: fit_tasks(table(WITH_NAN), table()), "Task 'b', training data.*NaN"),
        (lambda: fit_tasks(table(), table(WITH_NAN)), "Task 'b', validation data.*NaN"),
        (lambda: fit_tasks(table(WITH_NAN), table(), multitask.upgrad), "Task 'b', training"),
        (
            lambda: fit_tasks(Separate({"a": (X, FLOATS), "b": (X, WITH_NAN)}), table()),
            "Task 'b', training",
        ),
    ],
    "evaluate": [
        (lambda data=data: training.evaluate(Net(), data, F.cross_entropy), "The data.*targets")
        for data in ((X[:11], Y), (X, Y[:11]), EMPTY)
    ],
    "learn": of_a_stream(learning(streams.learn)),
    "learn_jointly": of_a_stream(learning(streams.learn_jointly)),
    "accuracies": of_a_stream(lambda s: streams.accuracies(nn.Linear(4, 4), s, 1))[3:],
    "class_stream": [(lambda: streams.class_stream(EMPTY, EMPTY, (0, 1), 1, True), "examples")],
    "meta_losses": of_episodes(lambda *given: meta.meta_losses(*given, mse, 1, 0.1)),
    "meta_backward": of_episodes(lambda *given: meta.meta_backward(*given, mse, 1, 0.1)),
    "reptile_backward": of_episodes(lambda *given: meta.reptile_backward(*given, mse, 1, 0.1)),
    "prequential": [
        (lambda n=n, m=m: streams.prequential(None, np.ones((n, 1)), np.ones(m)), "as many")
        for n, m in ((3, 2), (2, 3), (0, 0))
    ],
    "fisher_diagonal": [(lambda: streams.fisher_diagonal(Net(), X[:0]), "no input")],
    "mixed_loss": [
        (lambda: transfer.mixed_loss(SAYS, SAYS, Y[:11]), r"12 rows and the labels .*\(11,\)"),
        (lambda: transfer.mixed_loss(SAYS, SAYS[:11], Y), "12 rows and the teacher 11"),
        (lambda: transfer.mixed_loss(SAYS[:11], SAYS, Y), "11 rows and the teacher 12"),
    ],
    "nce": [
        (lambda: transfer.nce(Y[:11], Y), "source_labels has 11 rows, but there are 12 labels"),
        (lambda: transfer.nce(Y, Y[:11]), "source_labels has 12 rows, but there are 11 labels"),
        (lambda: transfer.nce(Y[:0], Y), "source_labels has shape"),
        (lambda: transfer.nce(Y, Y[:0]), "^labels has shape"),
        (lambda: transfer.nce(Y, torch.full((12,), NAN)), "^labels .* whole numbers"),
    ],
    "leep": of_a_score(transfer.leep, "probabilities", SAYS),
    "h_score": of_a_score(transfer.h_score, "features", X),
    "probe_score": of_a_score(transfer.probe_score, "features", X),
    "logme": of_a_score(transfer.logme, "features", X),
    "target_shares": [
        (lambda: transfer.target_shares(Y[:11], Y, Y, 3), "11 labels but 12 predictions"),
        (lambda: transfer.target_shares(Y, Y[:11], Y, 3), "12 labels but 11 predictions"),
        (lambda: transfer.target_shares(Y[:0], Y[:0], Y, 3), "at least one example"),
        (lambda: transfer.target_shares(Y, Y, Y[:0], 3), "at least one example"),
        (lambda: transfer.target_shares(Y * 0, Y, Y, 3), r"none of the classes \[1, 2\]"),
    ],
    "auc": of_a_judge(training.auc),
    "precision_recall_f1": of_a_judge(training.precision_recall_f1),
    "calibration_curve": of_a_judge(training.calibration_curve),
    "calibration_error": of_a_judge(training.calibration_error),
    "known_losses": [
        (lambda: training.known_losses(FLOATS, SAYS[:11]), r"\[12, 3\] and labels of \[11, 3\]"),
        (lambda: training.known_losses(FLOATS, FLOATS + 1), "Row 0 has the label 2 for task 0"),
    ],
    "net_benefit": [
        (lambda: training.net_benefit(X[:, 0].sigmoid(), WITH_NAN[:, 0], 0.5), "1 of 12 outcomes"),
        (lambda: training.net_benefit(X[:0, 0], Y[:0], 0.5), "no rows"),
        (lambda: training.net_benefit(X[:11, 0].sigmoid(), Y % 2, 0.5), r"\[11\] and labels"),
    ],
    "logistic_near": [
        (lambda: transfer.logistic_near(X, WITH_NAN[:, 0], 1.0), "row 5 is not known"),
        (lambda: transfer.logistic_near(X[:11], Y % 2, 1.0), "must be"),
        (lambda: transfer.logistic_near(*EMPTY, 1.0), "no rows"),
    ],
    "confidence": [
        (lambda: trust.confidence(SAYS[:, 0], Y[:11]), "do not belong together"),
        (lambda: trust.confidence(SAYS[:, 0], Y + 2), "0 or 1"),
    ],
    "label_map": [
        (lambda: transfer.label_map(torch.ones(3, 2) / 2, torch.tensor([0, 1]), 2), "2 labels")
    ],
}
CLASSES = {
    "Table": [
        (lambda: Table(X, {"a": Y, "b": Y[:11]}), "Task 'b'"),
        (lambda: Table(X[:11], {"a": Y}), "Task 'a'"),
        (lambda: Table(X[:0], {"a": Y[:0]}), "at least one row"),
        (lambda: Table(X, {"b": Y}, {"b": Y > 5}), "Task 'b' has no label"),
    ],
    "Separate": [
        (lambda: Separate({"a": (X, Y), "b": (X[:11], Y)}), "Task 'b'"),
        (lambda: Separate({"a": (X, Y), "b": EMPTY}), "Task 'b'"),
    ],
    "Episodes": [
        (lambda: Episodes((X[None], Y[None, :11]), (X[None], Y[None])), "support"),
        (lambda: Episodes((X[None], Y[None]), (X[None, :0], Y[None, :0])), "query"),
    ],
    "EpisodeSource": [(lambda: EpisodeSource(X[:11], Y), "11 inputs, 12 labels")],
}
# What takes data that one of the above has looked at, or that has no targets.
LOOKED_AT = {
    "step": "a batch of Table or Separate",
    "evaluate_tasks": "whole sets of Table or Separate",
    "mixed_losses": "by meta_losses",
    "prototype_logits": "Episodes",
    "adapted_logits": "Episodes",
    "single_task": "by learn and accuracies",
    "adapt": "one task inside vmap: looks at no value",
    "fine_tuned_logits": "features of Episodes",
    "episode_losses": "Episodes",
}


def test_everything_that_takes_data_has_a_row():
    found = that_take("train", "data", "stream", "episodes", "support", "learner", "labels")
    require_every_row(found | {"fisher_diagonal"}, REFUSED, LOOKED_AT)


CASES = [
    (name, *case)
    for table_ in (REFUSED, CLASSES)
    for name, cases in table_.items()
    for case in cases
]


@pytest.mark.parametrize("name, call, words", CASES, ids=[name for name, *_ in CASES])
def test_broken_data_are_refused_by_name(name, call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_nan_where_no_label_is_used_is_no_fault():
    used = ~WITH_NAN.isnan().any(1)
    data = Table(X, {"a": FLOATS, "b": WITH_NAN}, {"b": used})
    fit_tasks(data, data, multitask.upgrad)


def test_the_error_of_a_run_that_diverges_names_the_tasks_that_were_first():
    """After the step all tasks share spoilt weights; the one that spoilt them is to be named."""

    def bad(prediction, y):
        return prediction.square().mean() * (NAN if prediction.requires_grad else 1.0)

    tasks = {"a": regression("a"), "b": training.Task("b", bad, training.rmse, False)}
    model = multi(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match=r"training loss of 'b' is not finite.*step 1"):
        multitask.fit_tasks(model, tasks, table(), table(), optimizer, batch=4, progress=False)


def test_labels_of_classes_need_no_look():
    model = multi(Net())
    data = Table(X, {"a": Y, "b": Y})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    multitask.fit_tasks(model, TASKS, data, data, optimizer, epochs=1, progress=False)
