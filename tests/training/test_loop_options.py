"""What `fit` and `fit_tasks` take besides data and model: augmentation, a schedule, mixed
precision; and evaluation in chunks.
"""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import multitask, training
from mtl_course.data.augment import compose, crop, cutout, flip
from mtl_course.data.batches import Batch, Separate, Table
from mtl_course.multitask import balancing
from mtl_course.multitask.sharing import HardSharing
from mtl_course.multitask.weighting import (
    FAMO,
    EqualWeights,
    GradNorm,
    Uncertainty,
    Weighting,
    parameter_groups,
)
from mtl_course.networks.trunks import mlp
from mtl_course.training.precision import Precision, default_precision
from mtl_course.training.syncs import SyncCounter
from mtl_course.training.tasks import classification, regression, rmse

TASKS = {"size": regression("size"), "kind": classification("kind")}
HALF = [torch.bfloat16, torch.float16]
COMBINE = {
    "sum": EqualWeights,
    "uncertainty": lambda: Uncertainty([True, False]),
    "gradnorm": lambda: GradNorm(2),
    "famo": lambda: FAMO(2),
}
COMBINE |= {"upgrad": lambda: balancing.upgrad}


def table(n=96, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    return Table(x, {"size": x[:, :1] + x[:, 1:2], "kind": (x[:, 2] > 0).long()})


def network(seed=0, trunk=None):
    torch.manual_seed(seed)
    return HardSharing(trunk or mlp([4, 16]), {"size": nn.Linear(16, 1), "kind": nn.Linear(16, 2)})


def fit_one(model=None, optimizer=None, **options):
    """One task, three batches an epoch."""
    model = model or nn.Sequential(mlp([4, 8]), nn.Linear(8, 2))
    data, held_out = ((t.x, t.targets["kind"]) for t in (table(), table(seed=1)))
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return training.fit(
        model,
        data,
        held_out,
        F.cross_entropy,
        optimizer,
        **{"epochs": 3, "progress": False, **options},
    )


def fit_two(model=None, optimizer=None, combine=None, data=None, **options):
    """Two tasks, three batches an epoch."""
    model = model or network()
    groups = (
        parameter_groups(model, combine, 0.0)
        if isinstance(combine, Weighting)
        else model.parameters()
    )
    optimizer = optimizer or torch.optim.SGD(groups, lr=0.1)
    return multitask.fit_tasks(
        model,
        TASKS,
        data or table(),
        table(seed=1),
        optimizer,
        combine,
        **{"epochs": 3, "progress": False, **options},
    )


BOTH = pytest.mark.parametrize(
    "run, make",
    [(fit_one, lambda: nn.Sequential(mlp([4, 8]), nn.Linear(8, 2))), (fit_two, network)],
    ids=["fit", "fit_tasks"],
)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# ------------------------------------------------------------------------------------- augmentation
@BOTH
def test_only_training_inputs_are_augmented(run, make):
    model, seen = make(), {True: [], False: []}
    model.register_forward_pre_hook(
        lambda module, inputs: seen[module.training].append(float(inputs[0].min()))
    )
    run(model, torch.optim.SGD(model.parameters(), lr=0.0), augment=lambda x, generator: x + 1000)
    assert min(seen[True]) > 900 and max(seen[False]) < 100 and len(seen[True]) == 9


@BOTH
def test_the_seed_fixes_the_draws_and_they_leave_the_order_alone(run, make):
    def weights(seed, augment):
        model = seeded(make)
        run(model, seed=seed, augment=augment)
        return model

    def noise(x, generator):
        return x + torch.randn(x.shape, generator=generator, device=x.device)

    assert same(weights(1, noise), weights(1, noise)) and not same(
        weights(1, noise), weights(2, noise)
    )
    drawn = weights(1, lambda x, generator: (torch.rand(5, generator=generator), x)[1])
    assert same(drawn, weights(1, None))


@BOTH
def test_draws_differ_between_batches_and_from_the_order(run, make):
    draws = []

    def record(x, generator):
        draws.append(torch.randperm(96, generator=generator))
        return x

    run(make(), augment=record, seed=7)
    assert len(draws) == 9 and len({tuple(d.tolist()) for d in draws}) == 9
    assert not torch.equal(draws[0], torch.randperm(96, generator=torch.Generator().manual_seed(7)))


def test_images_of_separate_sets_are_augmented_together():
    seen = []
    sets = Separate(
        {
            "size": (table().x, table().targets["size"]),
            "kind": (table(20).x, table(20).targets["kind"]),
        }
    )
    fit_two(data=sets, augment=lambda x, generator: (seen.append(len(x)), x)[1], epochs=1)
    assert seen == [52, 52, 52]


# ----------------------------------------------------------------------------------------- schedule
@BOTH
def test_the_schedule_is_stepped_after_every_step(run, make):
    model, rates = make(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.1 * (k + 1))
    optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    run(model, optimizer, schedule=schedule)
    assert rates == pytest.approx([0.1 * (k + 1) for k in range(9)])
    assert schedule.last_epoch == 9


def test_a_one_cycle_schedule_has_as_many_steps_as_the_loop():
    model, rates = nn.Linear(4, 2), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=4 * math.ceil(96 / 40)
    )
    optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    fit_one(model, optimizer, schedule=schedule, batch=40, epochs=4)
    assert max(rates) > 0.4 and rates[-1] < 1e-4
    with pytest.raises(ValueError, match="Tried to step"):
        fit_one(model, optimizer, schedule=schedule, batch=40, epochs=1)


# ---------------------------------------------------------------------------------- mixed precision
def dtypes_of(model):
    """Collects (training mode, dtype of the output) of every linear layer."""
    found = set()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, _, out: found.add((m.training, out.dtype)))
    return found


@BOTH
@pytest.mark.parametrize("dtype", [None, torch.float32, *HALF], ids=str)
def test_forward_passes_run_in_the_precision_and_weights_stay_in_float32(run, make, dtype):
    model = make()
    found = dtypes_of(model)
    run(model, precision=dtype)
    assert found == {(mode, dtype or torch.float32) for mode in (True, False)}
    assert (
        {p.dtype for p in model.parameters()}
        == {torch.float32}
        == {p.grad.dtype for p in model.parameters()}
    )


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_losses_and_metrics_see_float32(dtype):
    seen = set()

    def loss(prediction, target):
        seen.add((prediction.dtype, torch.is_autocast_enabled("cpu")))
        return F.cross_entropy(prediction, target)

    model = nn.Linear(4, 2)
    data = (table().x, table().targets["kind"])
    training.fit(
        model,
        data,
        data,
        loss,
        torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1,
        precision=dtype,
        progress=False,
    )
    assert seen == {(torch.float32, False)}
    seen.clear()
    tasks = {**TASKS, "kind": classification("kind")}
    watched = {
        name: type(task)(
            name, lambda p, t, f=task.loss: (seen.add(p.dtype), f(p, t))[1], task.metric, True
        )
        for name, task in tasks.items()
    }
    for combine in (None, balancing.upgrad):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        multitask.fit_tasks(
            model,
            watched,
            table(),
            table(),
            optimizer,
            combine,
            epochs=1,
            precision=dtype,
            progress=False,
        )
    assert seen == {torch.float32}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", COMBINE)
def test_both_tasks_are_learned_in_half_precision(name, dtype):
    model, combine = network(), COMBINE[name]()
    groups = (
        parameter_groups(model, combine, 0.0)
        if isinstance(combine, Weighting)
        else model.parameters()
    )
    history = fit_two(
        model, torch.optim.Adam(groups, lr=0.01), combine, epochs=50, patience=50, precision=dtype
    )
    assert history.best["size"] > 0.5 and history.best["kind"] > 0.8


FACTOR = 256.0  # small enough that nothing overflows


def one_step(combine, dtype):
    """Weights before and after one step on the whole table, and the Gram matrix that a balancing
    method saw.
    """
    model, seen = network(), []
    weigh = combine if isinstance(combine, Weighting) else lambda G: (seen.append(G), combine(G))[1]
    optimizer = torch.optim.SGD(
        (
            parameter_groups(model, combine, 0.0)
            if isinstance(combine, Weighting)
            else model.parameters()
        ),
        lr=1.0,
    )
    before = copy.deepcopy(model.state_dict())
    precision = Precision(dtype, torch.device("cpu"))
    if precision.scaler:
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=FACTOR)
    multitask.step(model, TASKS, table().whole(), optimizer, weigh, precision=precision)
    return {k: v - before[k] for k, v in model.state_dict().items()}, seen


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(
    "combine",
    [EqualWeights(), Uncertainty([True, False]), balancing.upgrad, balancing.imtl_g],
    ids=["sum", "uncertainty", "upgrad", "imtl_g"],
)
def test_a_step_is_that_of_full_precision_up_to_rounding(combine, dtype):
    """With float16 the scaler's factor must be gone from the gradients and from the Gram matrix."""
    exact, exact_gram = one_step(copy.deepcopy(combine), None)
    found, gram = one_step(copy.deepcopy(combine), dtype)
    tolerance = 16 * torch.finfo(dtype).eps
    for name, move in exact.items():
        assert (found[name] - move).norm() <= tolerance * move.norm(), name
    for a, b in zip(exact_gram, gram, strict=True):
        assert (a - b).norm() <= 2 * tolerance * a.norm()


class Overflow(torch.autograd.Function):
    """Multiplies the gradient by 1e4, so that with a scaler's factor of 65536 it leaves the range
    of float16.
    """

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1e4


class Steep(nn.Module):
    def forward(self, x):
        return Overflow.apply(x)


@pytest.mark.parametrize("combine", [EqualWeights(), balancing.upgrad], ids=["sum", "upgrad"])
def test_an_overflow_skips_the_step_and_lowers_the_scale(combine):
    model = network(trunk=nn.Sequential(mlp([4, 16]), Steep()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1.0)
    precision = Precision(torch.float16, torch.device("cpu"))
    scales, moved = [precision.scaler.get_scale()], []
    for _ in range(20):
        before = copy.deepcopy(model)
        multitask.step(
            model,
            TASKS,
            table().whole(),
            optimizer,
            combine,
            schedule=schedule,
            precision=precision,
        )
        scales.append(precision.scaler.get_scale())
        moved.append(not same(model, before))
    skipped = moved.index(True)
    assert 0 < skipped < 20 and moved == [False] * skipped + [True] * (20 - skipped)
    assert scales == [65536 / 2 ** min(k, skipped) for k in range(21)]
    assert schedule.last_epoch == 20 - skipped, (
        "a step that was left out is no step of the schedule"
    )


def test_fit_goes_on_after_an_overflow():
    model = nn.Sequential(mlp([4, 8]), Steep(), nn.Linear(8, 2))
    history = fit_one(
        model, torch.optim.SGD(model.parameters(), lr=1e-5), precision=torch.float16, epochs=10
    )
    assert all(torch.isfinite(p).all() for p in model.parameters()) and history.best_epoch


def test_another_precision_is_refused():
    with pytest.raises(
        ValueError,
        match=r"precision is torch\.int8; it can be None, torch\.bfloat16 or torch\.float16",
    ):
        fit_one(precision=torch.int8)


@pytest.mark.parametrize("capability, dtype", [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_sixteen_bits_are_the_default_on_a_gpu_only(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert (
        default_precision(torch.device("cuda")) is dtype
        and default_precision(torch.device("cpu")) is None
    )


def test_the_users_own_autocast_is_left_alone():
    model = nn.Linear(4, 2)
    found = dtypes_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fit_one(model)
    assert found == {(True, torch.bfloat16), (False, torch.bfloat16)}


# ----------------------------------------------------------------------------- evaluation in chunks
@pytest.mark.parametrize("batch", [1, 7, 96, 1000])
def test_predictions_do_not_depend_on_the_chunk(batch):
    x, tasks_model = table().x, network()
    plain = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    whole = plain.eval()(x)
    assert (
        torch.allclose(training.predict(plain.train(), x, batch=batch), whole, atol=1e-6)
        and plain.training
    )
    found = training.predict(tasks_model, x, batch=batch)
    assert all(torch.allclose(found[name], y, atol=1e-6) for name, y in tasks_model(x).items())
    assert not found["size"].requires_grad


def test_rows_come_in_chunks_of_the_size_asked_for():
    model, sizes = nn.Linear(4, 1), []
    model.register_forward_hook(lambda m, inputs, out: sizes.append(len(inputs[0])))
    training.predict(model, torch.randn(10, 4), batch=4)
    assert sizes == [4, 4, 2]
    sizes.clear()
    training.predict(model, torch.randn(5000, 4))
    assert sizes == [2048, 2048, 904]


def test_a_metric_is_taken_over_all_rows_and_not_averaged_over_chunks():
    model = nn.Linear(4, 1)
    x = torch.randn(3000, 4) * torch.linspace(0, 5, 3000)[:, None]
    y = torch.randn(3000, 1)
    with torch.no_grad():
        expected = float(rmse(model(x), y))
        mean_of_chunks = float(
            torch.stack(
                [rmse(model(a), b) for a, b in zip(x.split(2048), y.split(2048), strict=True)]
            ).mean()
        )
    found = training.evaluate(model, (x, y), rmse)
    assert found == pytest.approx(expected, rel=1e-5) and found != pytest.approx(
        mean_of_chunks, rel=1e-2
    )
    data = Table(x, {"size": y})
    tasks = {"size": regression("size")}
    both = HardSharing(nn.Identity(), {"size": model})
    assert multitask.evaluate_tasks(both, tasks, data)[0]["size"] == pytest.approx(
        expected**2, rel=1e-5
    )


class Limited(nn.Module):
    """Has memory for `rows` rows at a time."""

    def __init__(self, rows):
        super().__init__()
        self.layer, self.rows, self.asked = nn.Linear(4, 2), rows, []

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.layer(x)


def test_chunks_are_halved_until_they_fit():
    model, x = Limited(30), torch.randn(100, 4)
    assert torch.allclose(training.predict(model, x), model.layer(x), atol=1e-6)
    assert model.asked == [100, 50, 25, 25, 25, 25]
    with pytest.raises(torch.OutOfMemoryError):
        training.predict(Limited(0), x)
    assert model.training, "the mode is put back"


def test_evaluation_runs_in_the_precision_asked_for():
    model = network()
    found = dtypes_of(model)
    model.eval()
    outputs = training.predict(model, table().x, precision=torch.bfloat16)
    multitask.evaluate_tasks(model, TASKS, table(), precision=torch.bfloat16)
    training.evaluate(
        nn.Sequential(model.trunk),
        (table().x, table().x),
        lambda a, b: a.mean(),
        precision=torch.bfloat16,
    )
    assert found == {(False, torch.bfloat16)} and {o.dtype for o in outputs.values()} == {
        torch.float32
    }


# -------------------------------------------------------------------------------------------- speed
@BOTH
def test_a_compiled_model_trains_to_the_same_weights_under_the_same_names(run, make, tmp_path):
    """Dynamo's own backend: it traces and guards as always, and needs no C++ compiler."""
    plain, compiled = seeded(make), seeded(make)
    names = list(compiled.state_dict())
    compiled.compile(backend="eager")
    options = {"batch": 40, "checkpoint": tmp_path / "run.pt"}  # the last batch is smaller
    history = run(compiled, **options)
    assert run(plain, batch=40) == history and list(compiled.state_dict()) == names
    assert all(
        torch.allclose(v, plain.state_dict()[k], atol=1e-6)
        for k, v in compiled.state_dict().items()
    )
    again = seeded(make)
    assert run(again, **options) == history and same(again, compiled), (
        "the checkpoint fits the model that is not compiled"
    )


@pytest.mark.parametrize("run", [fit_one, fit_two], ids=["fit", "fit_tasks"])
def test_channels_last_images_stay_so_up_to_the_model(run):
    g = torch.Generator().manual_seed(0)
    last, seen = torch.channels_last, set()
    images = torch.randn(96, 4, 6, 6, generator=g).to(memory_format=last)
    trunk = nn.Sequential(nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trunk.to(memory_format=last)
    trunk.register_forward_pre_hook(
        lambda module, inputs: seen.add(inputs[0].is_contiguous(memory_format=last))
    )
    options = {"epochs": 2, "progress": False, "augment": compose(flip, crop(1), cutout(2))}
    if run is fit_one:
        model, data = nn.Sequential(trunk, nn.Linear(8, 2)), (images, table().targets["kind"])
        training.fit(
            model,
            data,
            data,
            F.cross_entropy,
            torch.optim.SGD(model.parameters(), lr=0.1),
            **options,
        )
    else:
        model = HardSharing(trunk, {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 2)})
        data = Table(images, table().targets)
        multitask.fit_tasks(
            model, TASKS, data, data, torch.optim.SGD(model.parameters(), lr=0.1), **options
        )
    assert seen == {True} and trunk[0].weight.is_contiguous(memory_format=last)


def test_no_training_step_waits_for_the_device():
    model, data = network(), table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SyncCounter() as waits:
        for batch in data.batches(16, torch.Generator().manual_seed(0)):
            assert isinstance(batch, Batch)
            multitask.step(model, TASKS, batch, optimizer, EqualWeights())
    assert not waits


def test_an_epoch_waits_as_often_with_many_batches_as_with_few():
    counts = []
    for batch in (48, 4):
        for run in (fit_one, fit_two):
            with SyncCounter() as waits:
                run(batch=batch, epochs=2)
            counts.append(waits)
    assert counts[:2] == counts[2:]
