"""Training on several tasks: what is learned, what is refused, and killed runs that go on."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mtl_course import multitask, training
from mtl_course.data.batches import Separate, Table
from mtl_course.multitask import balancing, fit
from mtl_course.multitask.sharing import HardSharing
from mtl_course.multitask.weighting import (
    DWA,
    FAMO,
    EqualWeights,
    GradNorm,
    RandomWeights,
    Uncertainty,
    Weighting,
    parameter_groups,
)
from mtl_course.networks.trunks import mlp
from mtl_course.training.precision import Precision
from mtl_course.training.tasks import classification, regression

TASKS = {"size": regression("size"), "kind": classification("kind")}


def table(n=96, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    return Table(x, {"size": 10 * x[:, :1] + x[:, 1:2], "kind": (x[:, 2] > 0).long()})


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    trunk = nn.Sequential(mlp([4, 16]), nn.Dropout(dropout))
    return HardSharing(trunk, {"size": nn.Linear(16, 1), "kind": nn.Linear(16, 2)})


def run(model, combine=None, data=None, **options):
    groups = (
        parameter_groups(model, combine, 0.0)
        if isinstance(combine, Weighting)
        else model.parameters()
    )
    optimizer = torch.optim.Adam(groups, lr=0.01)
    settings = {"epochs": 12, "batch": 32, "progress": False, **options}
    return multitask.fit_tasks(
        model, TASKS, data or table(), table(seed=1), optimizer, combine, **settings
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: Uncertainty([True, False]),
        DWA,
        RandomWeights,
        lambda: GradNorm(2),
        lambda: FAMO(2),
        lambda: balancing.upgrad,
    ],
    ids=["sum", "uncertainty", "dwa", "random", "gradnorm", "famo", "upgrad"],
)
def test_both_tasks_are_learned(make):
    history = run(network(), make(), epochs=60, patience=60)
    assert history.best["size"] > 0.5 and history.best["kind"] > 0.8
    assert history.train[-1] < history.train[0] and len(history.losses["kind"]) == len(
        history.validation
    )


def test_the_model_keeps_the_weights_of_the_best_validation_epoch():
    model = network()
    history = run(model, epochs=30, patience=30)
    _, metrics = multitask.evaluate_tasks(model, TASKS, table(seed=1))
    assert metrics == history.best
    assert history.validation[history.best_epoch - 1] == min(history.validation)


def test_a_run_knows_its_gain_over_single_task_models():
    history = run(network(), epochs=3)
    single = {"size": 0.5, "kind": 0.8}
    by_hand = 50 * ((history.best["size"] - 0.5) / 0.5 + (history.best["kind"] - 0.8) / 0.8)
    assert history.delta_m(single, TASKS) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="The tasks differ"):
        history.delta_m({"size": 0.5}, TASKS)


def test_the_unit_of_a_task_does_not_choose_the_epoch():
    """Validation in metres or in millimetres: the same mean of relative losses."""
    metres, millimetres = table(), table()
    millimetres.targets["size"] = 1000 * metres.targets["size"]
    zero = network()
    for head in zero.heads.values():
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    losses = [multitask.evaluate_tasks(zero, TASKS, data)[0] for data in (metres, millimetres)]
    assert losses[1]["size"] == pytest.approx(1e6 * losses[0]["size"])
    relative = [
        multitask.fit_tasks(
            zero, TASKS, d, d, torch.optim.SGD(zero.parameters(), lr=0.0), epochs=1, progress=False
        )
        for d in (metres, millimetres)
    ]
    assert relative[0].validation == pytest.approx([1.0]) and relative[
        1
    ].validation == pytest.approx([1.0])


def test_missing_labels_are_left_out():
    full = table()
    mask = torch.arange(96) % 3 == 0
    spoiled = {
        **full.targets,
        "size": torch.where(mask[:, None], full.targets["size"], torch.full((96, 1), float("nan"))),
    }
    history = run(network(), data=Table(full.x, spoiled, {"size": mask}), epochs=60, patience=60)
    assert history.best["size"] > 0.3


def test_balancing_allows_a_batch_without_labels_of_a_task_and_weighting_says_so():
    full = table()
    sparse = Table(full.x, full.targets, {"size": torch.arange(96) == 0})
    run(network(), balancing.upgrad, sparse, batch=8)
    with pytest.raises(ValueError, match="label for task 'size': take larger batches"):
        run(network(), EqualWeights(), sparse, batch=8)


def test_separate_sets_of_unequal_size_are_all_seen():
    full, few = table(), table(20, seed=2)
    data = Separate({"size": (few.x, few.targets["size"]), "kind": (full.x, full.targets["kind"])})
    order = torch.Generator().manual_seed(0)
    batches = list(data.batches(32, order))
    assert [len(b.x) for b in batches] == [20 + 32] * 3
    seen = torch.cat([b.x[b.targets["kind"][0]] for b in batches])
    assert sorted(seen[:, 0].tolist()) == sorted(
        full.x[:, 0].tolist()
    )  # every row of the longest set, once
    run(network(), EqualWeights(), data)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda x, y: Table(x, {"a": y[:5]}), "'a': there are 6 inputs, so it needs 6 labels"),
        (lambda x, y: Table(x, {"a": y}, {"b": y > 0}), "names b"),
        (
            lambda x, y: Table(x, {"a": y, "b": None}),
            "'b' needs a tensor of labels, one per row of its inputs; it has NoneType",
        ),
        (lambda x, y: Table(x, {"a": y.sum()}), "'a' needs a tensor of labels.*without rows"),
        (lambda x, y: Separate({"a": (x, y), "b": (x, None)}), "'b' needs a tensor of labels"),
        (lambda x, y: Table(x, {"a": y}, {"a": y > 1e9}), "'a' has no label at all"),
        (lambda x, y: Table(x[:0], {"a": y[:0]}), "nothing to learn from"),
        (lambda x, y: Table(x, {}), "nothing to learn from"),
        (lambda x, y: Separate({}), "nothing to learn from"),
        (lambda x, y: Separate({"a": (x, y), "b": (x[:0], y[:0])}), "'b' has 0 inputs"),
        (lambda x, y: Separate({"a": (x, y), "b": (x, y[:2])}), "'b' has 6 inputs and 2 labels"),
        (lambda x, y: Separate({"a": (x, y), "b": (x[:, :1], y)}), "'b' have shape"),
    ],
)
def test_bad_data_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make(torch.randn(6, 3), torch.randn(6))


def fit_with(tasks=TASKS, data=None, model=None):
    model, data = model or network(), data or table()
    return multitask.fit_tasks(
        model,
        tasks,
        data,
        data,
        torch.optim.SGD(model.parameters(), lr=0.01),
        epochs=1,
        progress=False,
    )


def test_tasks_labels_and_heads_must_have_the_same_names():
    data = table()
    with pytest.raises(
        ValueError, match="'colour' is not among the model's outputs, which are size, kind"
    ):
        fit_with({**TASKS, "colour": classification("colour")})
    with pytest.raises(
        ValueError, match="'kind' is among the model's outputs but no task: add its loss"
    ):
        fit_with({"size": TASKS["size"]})
    with pytest.raises(ValueError, match="'kind' is not among the data's labels"):
        fit_with(data=Table(data.x, {"size": data.targets["size"]}))
    with pytest.raises(ValueError, match="'extra' is among the data's labels but no task"):
        fit_with(data=Table(data.x, {**data.targets, "extra": data.targets["kind"]}))


def test_targets_of_the_wrong_kind_or_shape_are_named():
    data = table()
    for changed, words in [
        (
            {"size": data.targets["size"].long()},
            "'size' are torch.int64; a regression needs floats",
        ),
        (
            {"size": data.targets["size"].squeeze(1)},
            r"'size': prediction \(96, 1\) and target \(96,\) differ",
        ),
        (
            {"kind": data.targets["kind"].float()},
            "'kind' are torch.float32; a classification needs class numbers",
        ),
        (
            {"kind": data.targets["kind"][:, None]},
            (
                r"'kind': logits \(96, 2\) need one class number per row, \[96\], and the targets"
                r" have shape \(96, 1\)"
            ),
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            fit_with(data=Table(data.x, {**data.targets, **changed}))


def infinite_in_training(prediction, target):
    """A squared error for the table's "size" that is sound in validation alone."""
    loss = (prediction - target).square().mean()
    return loss * float("inf") if prediction.requires_grad else loss


BROKEN = {**TASKS, "size": replace(TASKS["size"], loss=infinite_in_training)}


def test_a_loss_that_is_not_finite_names_its_task_and_its_epoch_and_leaves_the_weights():
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(
        FloatingPointError,
        match=(
            r"training loss of 'size' is not finite at a learning rate of 0\.1 in epoch 1, step 1\."
            " Lower the learning rate"
        ),
    ):
        multitask.fit_tasks(
            model,
            BROKEN,
            table(),
            table(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            batch=96,
            progress=False,
        )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_weights_that_the_optimizer_misses_are_named():
    model = network()
    with pytest.raises(ValueError, match=r"weighting\.log_variance"):
        multitask.fit_tasks(
            model,
            TASKS,
            table(),
            table(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            Uncertainty([True, False]),
        )


def test_balancing_needs_a_trunk_and_heads():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return {"size": self.layer(x)[:, :1], "kind": self.layer(x)[:, 1:]}

    model = Plain()
    with pytest.raises(TypeError, match="Plain has no `trunk` and `heads`"):
        multitask.fit_tasks(
            model,
            TASKS,
            table(),
            table(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            balancing.mgda,
            progress=False,
        )


def moved(model, combine, data, precision=None):
    """Losses, and the weights after one step of SGD on the whole table."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    precision = Precision(precision, torch.device("cpu"))
    if precision.scaler:
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # nothing overflows
    losses = multitask.step(model, TASKS, data.whole(), optimizer, combine, precision=precision)
    return losses, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("precision", [None, torch.float16], ids=str)
def test_equal_weights_are_a_weighting_with_weights_of_one(precision):
    """They are added without a stack: losses and steps are those of any other weighting's sum."""

    class Sum(Weighting):
        def forward(self, losses):
            return losses.sum()

    losses, weights = moved(network(), EqualWeights(), table(), precision)
    others, expected = moved(network(), Sum(), table(), precision)
    assert torch.equal(losses, others) and losses.shape == (2,) and not losses.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(weights, network().parameters(), strict=True))


def test_a_task_with_a_label_on_every_row_takes_no_index():
    last = []

    def loss(output, target):
        last.append(output.grad_fn.name())
        return TASKS["size"].loss(output, target)

    tasks = {**TASKS, "size": replace(TASKS["size"], loss=loss)}
    model, data = network(), table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for batch in (data.whole(), *data.batches(32, torch.Generator().manual_seed(0))):
        multitask.step(model, tasks, batch, optimizer, EqualWeights())
    assert last == ["AddmmBackward0"] * 4


def test_the_ends_of_the_graph_are_made_once_an_epoch():
    """One node per parameter: to make them anew at each step takes a small network's fiftieth."""
    model, made = network(), []
    weight = model.heads["size"].weight

    def look(module, inputs, outputs):
        if module.training:
            node = torch.autograd.graph.get_gradient_edge(weight).node
            made.append("seen" not in node.metadata)
            node.metadata["seen"] = True

    model.register_forward_hook(look)
    run(model, epochs=2)
    assert made == [True, False, False] * 2


def test_a_kind_of_equal_weights_is_asked_for_its_own_total():
    class Nothing(EqualWeights):
        def forward(self, losses):
            return 0 * losses.sum()

    _, weights = moved(network(), Nothing(), table())
    assert all(torch.equal(a, b) for a, b in zip(weights, network().parameters(), strict=True))


def test_a_task_whose_every_parameter_is_frozen_is_only_reported():
    model = network()
    for frozen in (model.trunk, model.heads["kind"]):
        frozen.requires_grad_(False)
    losses, _ = moved(model, EqualWeights(), table())
    assert losses.tolist() == pytest.approx(
        [*multitask.evaluate_tasks(network(), TASKS, table())[0].values()]
    )
    assert model.heads["kind"].weight.grad is None and model.heads["size"].weight.grad is not None


def test_the_training_loss_of_an_epoch_is_that_of_the_steps_that_had_a_label():
    """At a rate of 0 the mean over three batches of 32 is the loss over the rows with a label."""
    full = table()
    for combine in (None, balancing.upgrad):
        mask = torch.ones(96, dtype=torch.bool)
        if combine is not None:  # a single label: two of the three batches have none
            mask = torch.arange(96) == 5
        data, model = Table(full.x, full.targets, {"size": mask}), network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        options = {"epochs": 1, "batch": 32, "progress": False}
        history = multitask.fit_tasks(model, TASKS, data, data, optimizer, combine, **options)
        assert history.train == pytest.approx([1.0])


def test_a_divergence_names_the_step_and_the_rate_that_it_had():
    """With a schedule, the rate of that step and not of the epoch's end."""
    model = network()
    seen = []

    def broken(prediction, target):
        seen.append(prediction.requires_grad)
        return (prediction - target).square().mean() * (float("nan") if sum(seen) == 5 else 1.0)

    tasks = {**TASKS, "size": replace(TASKS["size"], loss=broken)}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.001 * (k + 1))
    # The third step finds the weights spoilt for both; the task that spoilt them is named.
    words = r"loss of 'size' is not finite at a learning rate of 0\.005 in epoch 2, step 2\."
    with pytest.raises(FloatingPointError, match=words):
        multitask.fit_tasks(
            model, tasks, table(), table(), optimizer, schedule=schedule, progress=False
        )


def test_what_a_method_refuses_is_said_with_task_epoch_step_and_rate():
    for combine in (balancing.upgrad, FAMO(2)):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        options = {"batch": 96, "progress": False}
        with pytest.raises(FloatingPointError) as caught:
            multitask.fit_tasks(model, BROKEN, table(), table(), optimizer, combine, **options)
        assert str(caught.value).startswith("Epoch 1, step 1, learning rate 0.01: The loss of task")
        assert "'size' is not finite" in str(caught.value) and "kind" not in str(caught.value)


# ------------------------------------------------------------------------------- killed and resumed
class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "make",
    [lambda: None, lambda: FAMO(2), lambda: GradNorm(2), lambda: balancing.upgrad],
    ids=["sum", "famo", "gradnorm", "upgrad"],
)
def test_a_killed_run_goes_on_to_the_same_weights(make, tmp_path, monkeypatch):
    whole = network(dropout=0.3)
    expected = run(whole, make(), checkpoint=tmp_path / "whole.pt")

    real, steps = fit._step, 0

    def killed_in_epoch_six(*args, **options):
        nonlocal steps
        steps += 1
        if steps > 5 * 3 + 1:
            raise Killed
        return real(*args, **options)

    monkeypatch.setattr("mtl_course.multitask.fit._step", killed_in_epoch_six)
    with pytest.raises(Killed):
        run(network(dropout=0.3), make(), checkpoint=tmp_path / "killed.pt")
    monkeypatch.setattr("mtl_course.multitask.fit._step", real)
    torch.manual_seed(999)  # the resumed process has another random state
    resumed = network(dropout=0.3)
    torch.rand(7)
    found = run(resumed, make(), checkpoint=tmp_path / "killed.pt")
    assert found == expected
    assert all(
        torch.equal(a, b)
        for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True)
    )


def test_what_a_balancing_method_draws_goes_on_where_it_stopped(tmp_path):
    whole, first, resumed = (balancing.PCGrad(3) for _ in range(3))
    run(network(), whole, epochs=4)
    run(network(), first, epochs=2, checkpoint=tmp_path / "run.pt")
    run(network(), resumed, epochs=4, checkpoint=tmp_path / "run.pt")
    states = [method.state_dict()["generator"] for method in (whole, first, resumed)]
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])


def test_fit_resumes_too(tmp_path):
    data = table()

    def once(epochs, path):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        pair = (data.x, data.targets["kind"])
        history = training.fit(
            model,
            pair,
            pair,
            nn.functional.cross_entropy,
            optimizer,
            epochs=epochs,
            progress=False,
            checkpoint=path,
        )
        return history, model.weight.detach().clone()

    whole, weights = once(8, tmp_path / "a.pt")
    once(3, tmp_path / "b.pt")
    resumed, again = once(8, tmp_path / "b.pt")
    assert resumed == whole and torch.equal(again, weights)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"not a checkpoint"]
)
def test_a_damaged_checkpoint_is_refused_and_left_alone(damage, tmp_path):
    path = tmp_path / "run.pt"
    run(network(), checkpoint=path)
    path.write_bytes(damage(path.read_bytes()))
    left, model = path.read_bytes(), network(seed=5)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        run(model, checkpoint=path)
    assert path.read_bytes() == left and all(
        torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)
    )


def test_a_checkpoint_of_another_model_or_method_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    run(network(), checkpoint=path)
    wider = HardSharing(mlp([4, 8]), {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 2)})
    for model, combine in [(wider, None), (network(), balancing.upgrad)]:
        with pytest.raises(ValueError, match="another model or another kind of run"):
            run(model, combine, checkpoint=path)
