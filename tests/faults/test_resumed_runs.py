"""What a resumed run is compared with, and how whole its file must be.

One table of every argument of every loop that keeps a checkpoint: an argument either may change on
purpose or is named by the refusal. The table finds the loops by their parameter `checkpoint`.
"""

import copy
import io
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from mtl_course import meta, multitask, training
from mtl_course.data import Inputs, Separate, Sequences, Table, Unequal
from mtl_course.dev.docstrings import ROOMS, public
from mtl_course.multitask import balancing
from mtl_course.training import classification, fingerprint, regression

LOOPS = {
    name.name: name.parameters
    for room in ROOMS
    for name in public(room)
    if name.kind == "function" and "checkpoint" in name.parameters
}
X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def table(x=X, y=Y):
    return Table(x, {"size": y, "kind": (y[:, 0] > 0).long()})


def two_heads():
    heads = {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 2)}
    return multitask.HardSharing(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2)), heads)


def ridge(strength):
    return lambda model: strength * sum(p.square().sum() for p in model.parameters())


def noise(size):
    return lambda x, generator: x + size * torch.randn(x.shape, generator=generator)


def draws(scale):
    """A meta-step on two tasks (w - 1)^2 and (w - 3)^2; called with the parameter."""

    def of(w):
        def backward(generator):
            losses = scale * (w - 1 - 2 * torch.randint(2, (1,), generator=generator)).square()
            losses.sum().backward()
            return losses

        return backward

    return of


def near(goal):
    return lambda w: lambda: (w - goal).square()


def sgd(**options):
    return lambda parameters: torch.optim.SGD(
        parameters, **{"lr": 0.05, "momentum": 0.9, **options}
    )


BASE = {
    "fit": {
        "train": (X, Y),
        "validation": (X[:16], Y[:16]),
        "loss": F.mse_loss,
        "optimizer": sgd(),
        "penalty": ridge(1e-3),
        "augment": noise(0.1),
        "schedule": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20),
        "epochs": 3,
        "batch": 16,
    },
    "fit_tasks": {
        "tasks": {"size": regression("size"), "kind": classification("kind")},
        "train": table(),
        "validation": table(X[:16], Y[:16]),
        "optimizer": sgd(),
        "combine": multitask.Fixed([1.0, 2.0]),
        "augment": noise(0.1),
        "schedule": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + 0.1 * k)),
        "epochs": 3,
        "batch": 16,
    },
    "fit_episodes": {
        "backward": draws(1.0),
        "validate": near(2.0),
        "optimizer": sgd(),
        "schedule": lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5),
        "steps": 6,
        "every": 2,
    },
}


def run(loop, path, **changed):
    """(history, parameters, the model) of a run with some arguments changed."""
    options = {**BASE[loop], **changed}
    torch.manual_seed(0)
    make_optimizer, make_schedule = options.pop("optimizer"), options.pop("schedule")
    if loop == "fit_episodes":
        model = nn.ParameterDict({"w": nn.Parameter(torch.tensor(9.0))})
        options |= {name: options[name](model["w"]) for name in ("backward", "validate")}
    else:
        model = options.pop("model", None) or (
            nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
            if loop == "fit"
            else two_heads()
        )
    options["optimizer"] = optimizer = make_optimizer(model.parameters())
    options["schedule"] = make_schedule and make_schedule(optimizer)
    before = copy.deepcopy(model.state_dict())
    call = {
        "fit": training.fit,
        "fit_tasks": multitask.fit_tasks,
        "fit_episodes": meta.fit_episodes,
    }
    options.pop("model", None)
    try:
        history = call[loop](model, **options, progress=False, checkpoint=path)
    except ValueError:
        same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert same, "the model was touched before the file was refused"
        raise
    return history, {k: v.clone() for k, v in model.state_dict().items()}


def wider(loop):
    if loop == "fit":
        return nn.Linear(4, 1)
    heads = {"size": nn.Linear(4, 1), "kind": nn.Linear(4, 2)}
    return multitask.HardSharing(nn.Identity(), heads)


OTHER_X = X.clone()
OTHER_X[7, 2] += 1e-6  # one number, in its last digits
# loop -> argument -> [(another value, the words that name it)], or None: it may change on purpose
CHANGES = {
    "fit": {
        "model": [(partial(wider, "fit"), "weight")],
        "train": [((OTHER_X, Y), "training data"), ((X[:47], Y[:47]), r"training data: \[48, 4\]")],
        "validation": [((OTHER_X[:16], Y[:16]), "validation data")],
        "loss": [(F.l1_loss, "loss: mse_loss"), (nn.HuberLoss(delta=0.5), "loss")],
        "optimizer": [
            (sgd(lr=0.1), "lr of parameter group 0: 0.05 in the file, 0.1 here"),
            (sgd(weight_decay=0.1), "weight_decay of parameter group 0: 0"),
            (sgd(momentum=0.8), "momentum of parameter group 0: 0.9 in the file, 0.8 here"),
            (sgd(nesterov=True), "nesterov of parameter group 0"),
            (sgd(maximize=True), "maximize of parameter group 0"),
        ],
        "epochs": None,
        "batch": [(12, "batch: 16 in the file, 12 here")],
        "patience": None,
        "penalty": [(ridge(2e-3), "penalty"), (None, "penalty: .* none here")],
        "augment": [(noise(0.2), "augment"), (None, "another kind of run")],
        "schedule": [
            (lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30), "T_max: 20 in the file, 30"),
            (lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.01), "eta_min"),
            (
                lambda o: lr_scheduler.LinearLR(o),
                "schedule: CosineAnnealingLR in the file, LinearLR",
            ),
            (None, "another kind of run"),
        ],
        "precision": [(torch.bfloat16, "precision: None in the file, torch.bfloat16 here")],
        "seed": [(1, "seed: 0 in the file, 1 here")],
        "progress": None,
        "checkpoint": None,
        "accumulate": None,
    },
    "fit_tasks": {
        "model": [(partial(wider, "fit_tasks"), "weight")],
        "tasks": [
            (
                {
                    "size": training.Task("size", F.l1_loss, training.rmse, False),
                    "kind": classification("kind"),
                },
                "task 'size'",
            )
        ],
        "train": [(table(OTHER_X), "training data"), (table(X, Y + 1e-6), "training data")],
        "validation": [(table(OTHER_X[:16], Y[:16]), "validation data")],
        "optimizer": [(sgd(lr=0.1), "lr of parameter group 0: 0.05 in the file, 0.1 here")],
        "combine": [
            (multitask.Fixed([1.0, 3.0]), "start of combine"),
            (multitask.EqualWeights(), "combine: Fixed in the file, EqualWeights here"),
            (balancing.upgrad, "combine"),
        ],
        "epochs": None,
        "batch": [(12, "batch: 16 in the file, 12 here")],
        "patience": None,
        "augment": [(noise(0.2), "augment")],
        "schedule": [
            (lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + 0.2 * k)), "schedule lr_lambdas")
        ],
        "precision": [(torch.bfloat16, "precision")],
        "seed": [(1, "seed")],
        "progress": None,
        "checkpoint": None,
        "accumulate": None,
    },
    "fit_episodes": {
        "parameters": [],  # another shape: tests/meta/test_fit.py
        "backward": [(draws(2.0), "backward")],
        "validate": [(near(2.5), "validate")],
        "optimizer": [(sgd(weight_decay=0.1), "weight_decay of parameter group 0")],
        "steps": None,
        "every": [(3, "every: 2 in the file, 3 here")],
        "patience": None,
        "schedule": [(lambda o: lr_scheduler.StepLR(o, 3, gamma=0.9), "schedule gamma: 0.5")],
        "seed": [(1, "seed")],
        "progress": None,
        "checkpoint": None,
    },
}
ROWS = [
    (loop, argument, number)
    for loop, changes in CHANGES.items()
    for argument, others in changes.items()
    for number in range(len(others or []))
]


def test_every_argument_of_every_loop_has_its_place():
    assert {loop: set(changes) for loop, changes in CHANGES.items()} == {
        loop: set(parameters) for loop, parameters in LOOPS.items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The checkpoint of each loop's plain run."""
    folder = tmp_path_factory.mktemp("runs")
    for loop in BASE:
        run(loop, folder / f"{loop}.pt")
    return {loop: (folder / f"{loop}.pt").read_bytes() for loop in BASE}


@pytest.mark.parametrize("loop, argument, number", ROWS)
def test_another_value_is_refused_by_its_name(loop, argument, number, files, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(files[loop])
    value, words = CHANGES[loop][argument][number]
    value = value() if argument == "model" else value
    with pytest.raises(ValueError, match=f"another kind of run.*{words}|{words}"):
        run(loop, path, **{argument: value})
    assert path.read_bytes() == files[loop]


LONGER = {
    "fit": {"epochs": 6, "patience": 20},
    "fit_tasks": {"epochs": 6, "patience": 20},
    "fit_episodes": {"steps": 12, "patience": 20},
}


@pytest.mark.parametrize("loop", BASE)
def test_the_same_call_prolonged_equals_an_unbroken_run(loop, files, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(files[loop])
    torch.rand(5)
    history, parameters = run(loop, path, **LONGER[loop])
    expected, whole = run(loop, None, **LONGER[loop])
    assert history == expected
    assert all(torch.equal(value, whole[name]) for name, value in parameters.items())


def test_no_single_bit_flip_is_trained_on(files, tmp_path):
    path, unbroken = tmp_path / "run.pt", run("fit", None, epochs=4)
    draw, loaded = np.random.RandomState(0), 0
    for _ in range(200):
        content = bytearray(files["fit"])
        content[draw.randint(len(content))] ^= 1 << draw.randint(8)
        path.write_bytes(content)
        try:
            history, parameters = run("fit", path, epochs=4)
        except ValueError:
            continue
        loaded += 1  # a bit that means nothing, such as one of a padding
        assert history == unbroken[0]
        assert all(torch.equal(value, unbroken[1][name]) for name, value in parameters.items())
    assert loaded < 100


def changed(content, names, value):
    """The file with something else in one place, and checksums that are right again."""
    stored = torch.load(io.BytesIO(content), weights_only=True)
    place = stored
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value(place[names[-1]])
    file = io.BytesIO()
    torch.save(stored, file)
    return file.getvalue()


INSIDE = {
    "generator": (("generators", "order"), lambda v: v[:-1], "generator's state is damaged"),
    "generator of zeros": (
        ("generators", "order"),
        lambda v: v * 0,
        "generator's state is damaged",
    ),
    "torch's generator": (("chance", "cpu"), lambda v: v[:100], "generator's state is damaged"),
    "no generator": (("chance",), lambda v: {}, "not a whole checkpoint"),
    "best weights": (("best",), lambda v: dict(list(v.items())[:1]), "not a whole checkpoint"),
    "history": (("history", "train"), lambda v: v[:1], "not a whole checkpoint"),
    "optimizer": (("parts", "optimizer"), lambda v: {}, "another kind of run"),
    "schedule": (("parts", "schedule"), lambda v: None, "another kind of run"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_damage_inside_is_found_before_anything_is_touched(name, files, tmp_path):
    path, (place, value, words) = tmp_path / "run.pt", INSIDE[name]
    path.write_bytes(changed(files["fit"], place, value))
    with pytest.raises(ValueError, match=words):
        run("fit", path)


def test_the_members_of_the_file_are_verified(files, tmp_path):
    """Every byte of the weights counts, also where torch would not look."""
    with zipfile.ZipFile(io.BytesIO(files["fit"])) as archive:
        entries = [e for e in archive.infolist() if "/data/" in e.filename and e.file_size > 64]
    path = tmp_path / "run.pt"
    for entry in entries[:4]:
        content = bytearray(files["fit"])
        name_and_extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
        content[entry.header_offset + 30 + sum(name_and_extra) + 7] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            run("fit", path)


# ------------------------------------------------------------------------------------ fingerprints
SCALE = 2.0
SOURCE = {"w": torch.ones(3)}


def scaled(x):
    return SCALE * x


def towards(x):
    return (x - SOURCE["w"]).sum()


def test_a_function_is_what_it_computes_with(monkeypatch):
    sums = {
        fingerprint.of_function(f)
        for f in (
            lambda x: x + 1,
            lambda x: x + 2,
            lambda x: x - 1,
            lambda x, k=1: x + k,
            lambda x, k=2: x + k,
            partial(scaled, 1),
            partial(scaled, 2),
            scaled,
            towards,
            balancing.cagrad,
            partial(balancing.cagrad, c=0.2),
            partial(balancing.cagrad, c=0.3),
            nn.CrossEntropyLoss(),
            nn.CrossEntropyLoss(label_smoothing=0.1),
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])),
        )
    }
    assert len(sums) == 16
    before = fingerprint.of_function(scaled), fingerprint.of_function(towards)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    monkeypatch.setitem(SOURCE, "w", torch.zeros(3))
    assert fingerprint.of_function(scaled) != before[0]
    assert fingerprint.of_function(towards) != before[1]


KINDS = {
    "pair": lambda x, y: (x, y),
    "Table": lambda x, y: Table(x, {"a": y}),
    "Table of Inputs": lambda x, y: Table(Inputs({"left": x, "right": x}), {"a": y}),
    "Sequences": lambda x, y: Sequences(x[:, :, None], {"a": y}),
    "Separate": lambda x, y: Separate({"a": (x, y), "b": (x, y)}),
    "Unequal": lambda x, y: Unequal({"a": (x, y), "b": (x[:, :1], y)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_are_told_by_every_value(kind):
    make, moved, other = KINDS[kind], X.clone(), Y.clone()
    moved[7, 0] += 1
    other[7] += 1
    texts = [fingerprint.of_data(make(x, y)) for x, y in ((X, Y), (moved, Y), (X, other))]
    assert len(set(texts)) == 3
    assert fingerprint.of_data(make(X.clone(), Y.clone())) == texts[0]


def test_what_a_run_changes_is_no_part_of_a_fingerprint():
    model, seen, steps = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), [], 0

    def penalty(m):
        nonlocal steps
        steps += 1
        seen.append(steps)
        return sum(
            (p - q.detach()).sum() for p, q in zip(m.parameters(), model.parameters(), strict=True)
        )

    before = fingerprint.of_function(penalty)
    model(torch.randn(4, 2)).sum().backward()
    with torch.no_grad():
        model[0].weight += 1
    penalty(model)
    assert fingerprint.of_function(penalty) == before


WEIGHTINGS = {
    "DWA": multitask.DWA,
    "GradNorm": partial(multitask.GradNorm, 2),
    "FAMO": partial(multitask.FAMO, 2),
    "RandomWeights": multitask.RandomWeights,
    "PCGrad": balancing.PCGrad,
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_objects_that_a_first_run_has_moved_on_may_be_used_again(name, tmp_path):
    """In a notebook only the cell of `fit_tasks` is run again."""
    combine = WEIGHTINGS[name]()
    model = two_heads()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=60)
    options = {"schedule": schedule, "checkpoint": tmp_path / "run.pt", "progress": False}
    for epochs in (2, 4):
        tasks = BASE["fit_tasks"]["tasks"]
        history = multitask.fit_tasks(
            model, tasks, table(), table(), optimizer, combine, epochs=epochs, **options
        )
    assert len(history.train) == 4
