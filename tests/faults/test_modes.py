"""Training and evaluation mode, running statistics and buffers of every norm: one rule for all.

A loop trains in training mode, judges in evaluation mode, and leaves every module in the mode that
it came with. What only looks at a model changes nothing of it. A frozen part stays frozen, however
it is called.
"""

import copy
from contextlib import contextmanager

import pytest
import torch
from fault_tools import NORMS, TASKS, Net, multi, require_every_row, rows, that_take
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from mtl_course import meta, multitask, networks, streams, training, transfer, trust
from mtl_course.data import Episodes, Table
from mtl_course.meta import Functional
from mtl_course.streams import Distillation, Ewc, Replay, Stream
from mtl_course.training.evaluation import predict
from mtl_course.transfer import add_adapters, add_lora, bitfit, freeze, open_top, unfreeze

X, Y = rows()
SGD = torch.optim.SGD
CE = F.cross_entropy
NORMED = pytest.mark.parametrize("norm", NORMS)


def network(norm):
    torch.manual_seed(0)
    return Net(NORMS[norm](), nn.Linear(6, 6))


def state(model):
    values = {name: value.clone() for name, value in model.state_dict().items()}
    return values, [module.training for module in model.modules()]


def same(one, other):
    (values, modes), (values_now, modes_now) = one, other
    return modes == modes_now and all(torch.equal(v, values_now[n]) for n, v in values.items())


# ---------------------------------------------------------------------------------------- loops
def fit(model):
    optimizer = SGD(model.parameters(), lr=0.1)
    training.fit(model, (X, Y), (X, Y), CE, optimizer, epochs=2, batch=6, progress=False)


def lp_ft(model):
    options = {"rates": (0.1, 0.1), "epochs": (1, 1), "progress": False}
    transfer.lp_ft(model, (X, Y), (X, Y), CE, SGD, **options)


def gradual(model):
    options = {"rate": 0.1, "epochs": [1] * len(transfer.layers(model)), "progress": False}
    transfer.gradual_unfreezing(model, (X, Y), (X, Y), CE, SGD, **options)


def fit_tasks(combine=None):
    def run(model):
        both = multi(model)
        both.train(model.training)
        data = Table(X, {"a": Y, "b": Y})
        optimizer = SGD(both.parameters(), lr=0.1)
        options = {"epochs": 2, "progress": False}
        multitask.fit_tasks(both, TASKS, data, data, optimizer, combine, **options)

    return run


def fit_episodes(of_dict):
    def run(model):
        f = Functional(model, transductive=True)
        params = f.parameters()

        def loss():
            return CE(f(params, X) if of_dict else model(X), Y)

        def backward(generator):
            value = loss()
            value.backward()
            return value

        meta.fit_episodes(
            params if of_dict else model,
            backward,
            SGD(params.values(), lr=0.1),
            2,
            validate=lambda: loss().detach(),
            every=1,
            progress=False,
        )

    return run


def stream():
    tasks = [(X, Y % 2 * 0), (X, Y % 2 * 0 + 1)]
    return Stream(tasks, tasks, classes_per_task=1, task_known=False)


def learning(learn, *memories):
    def run(model):
        kept = [memory() for memory in memories]
        given = (kept,) if kept else ()
        learn(model, stream(), lambda params: SGD(params, lr=0.1), *given, epochs=2)

    return run


LOOPS = {
    "fit": [fit],
    "lp_ft": [lp_ft],
    "gradual_unfreezing": [gradual],
    "fit_tasks": [fit_tasks(), fit_tasks(multitask.upgrad)],
    "fit_episodes": [fit_episodes(True), fit_episodes(False)],
    "learn": [
        learning(streams.learn),
        learning(streams.learn, lambda: Distillation(stream(), 1.0), lambda: Replay(stream(), 4)),
    ],
    "learn_jointly": [learning(streams.learn_jointly)],
}


# ---------------------------------------------------------------------------------------- looks
def episodes():
    sets = (X.reshape(2, 6, 4), Y.reshape(2, 6))
    return Episodes(sets, sets)


def functional(model):
    return Functional(model, transductive=True)


def evaluate_tasks(model):
    both = multi(model)
    both.training = model.training
    multitask.evaluate_tasks(both, TASKS, Table(X, {"a": Y, "b": Y}))


def per_example(model):
    """Refused with a BatchNorm, which mixes rows: the refusal leaves no trace either."""
    try:
        trust.per_example_gradients(model, CE, X, Y)
    except ValueError:
        assert any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules())


def with_statistics(model):
    if any(isinstance(m, nn.BatchNorm1d) for m in model.modules()):
        meta.with_statistics(model, X)


def end_of_task(memory):
    return lambda model: memory.end_task(model, stream(), 0)


def bare(model):
    """Whether it has a norm for which there is no output of one input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    return any(norm.running_mean is None for norm in norms)


def fisher(model):
    if not bare(model):
        streams.fisher_diagonal(model, X)


def mixed(model):
    both = functional(multi(model))
    tasks = {"a": TASKS["a"]}
    meta.mixed_losses(both, both.parameters(), {"a": episodes()}, tasks, 1, 0.1)


def fine_tuned(model):
    head = nn.Sequential(model.trunk[1], nn.Linear(6, 3))
    has_choice = any(hasattr(m, "running_mean") for m in head.modules())
    if not has_choice:  # which a head does not make
        z = torch.ones(2, 6, 6)
        meta.fine_tuned_logits(head, (z, Y.reshape(2, 6)), z, steps=1)


def adapted(model):
    meta.adapted_logits(functional(model), episodes(), steps=1, rate=0.1)


def adapt_and_restore(model):
    """BatchNorm's statistics move on purpose, and come back; nothing else ever moves."""
    names = [f"{n}." for n, m in model.named_modules() if isinstance(m, nn.BatchNorm1d)]
    if not names or bare(model):
        with pytest.raises(ValueError, match="nothing to adapt"):
            transfer.adapt_batchnorm(model, X)
        return
    values, modes = state(model)
    restore = transfer.adapt_batchnorm(model, X)
    values_now, modes_now = state(model)
    moved = {n for n in values if not torch.equal(values[n], values_now[n])}
    assert moved == {f"{names[0]}running_mean", f"{names[0]}running_var"} and modes == modes_now
    restore()


def with_lora(call):
    """On a copy that carries LoRA, whose norm is open and in the mode that it came with."""

    def run(model):
        carries = add_lora(copy.deepcopy(model), ["trunk.0", "head"], r=2)
        nn.init.ones_(carries.head.B["default"])
        unfreeze(carries.trunk[1])
        modes = {name: module.training for name, module in carries.named_modules()}
        assert modes["trunk.1"] == model.trunk[1].training
        buffers = {name: buffer.clone() for name, buffer in carries.named_buffers()}
        call(carries)
        for name, module in carries.named_modules():
            assert module.training == modes[name], name
        assert {n for n, _ in carries.named_buffers()} == set(buffers)
        assert all(torch.equal(b, buffers[n]) for n, b in carries.named_buffers())

    return run


def merge_and_unmerge(model):
    transfer.merge_lora(model)
    transfer.unmerge_lora(model)


LOOKS = {
    "evaluate": lambda model: training.evaluate(model, (X, Y), CE),
    "predict": lambda model: predict(model, X, batch=5),
    "evaluate_tasks": evaluate_tasks,
    "accuracies": lambda model: streams.accuracies(model, stream(), 1),
    "fisher_diagonal": fisher,
    "flops": lambda model: networks.flops(model, X),
    "parameters": networks.parameters,
    "parameter_groups": lambda model: multitask.parameter_groups(
        model, multitask.EqualWeights(), 0.1
    ),
    "layers": transfer.layers,
    "layer_groups": lambda model: transfer.layer_groups(model, 0.1),
    "with_statistics": with_statistics,
    "per_example_gradients": per_example,
    "objective": lambda model: meta.objective(functional(model), CE)(
        functional(model).parameters(), X, Y
    ),
    "meta_losses": lambda model: meta.meta_losses(
        functional(model), functional(model).parameters(), episodes(), CE, 1, 0.1
    ),
    "meta_backward": lambda model: meta.meta_backward(
        functional(model), functional(model).parameters(), episodes(), CE, 1, 0.1
    ),
    "reptile_backward": lambda model: meta.reptile_backward(
        functional(model), functional(model).parameters(), episodes(), CE, 1, 0.1
    ),
    "mixed_losses": mixed,
    "adapted_logits": adapted,
    "fine_tuned_logits": fine_tuned,
    "teacher_outputs": lambda model: transfer.teacher_outputs({"a": model, "b": model}, X),
    "call_seconds": lambda model: transfer.call_seconds({"a": model, "b": model}, X, rounds=1),
    "adapt_batchnorm": adapt_and_restore,
    "quantized": transfer.quantized,
    "stored_bytes": transfer.stored_bytes,
    "sparse_bytes": transfer.sparse_bytes,
    "working_bytes": lambda model: transfer.working_bytes(model, X),
    "trainable_state": transfer.trainable_state,
    "lora_layers": with_lora(transfer.lora_layers),
    "lora_state": with_lora(transfer.lora_state),
    "lora_delta": with_lora(transfer.lora_delta),
    "use_lora": with_lora(lambda model: transfer.use_lora(model, None)),
    "merge_lora": with_lora(transfer.merge_lora),
    "unmerge_lora": with_lora(merge_and_unmerge),
}
MEMORIES = {
    "Ewc": lambda model: end_of_task(Ewc(1.0))(model) if not bare(model) else None,
    "Distillation": lambda model: end_of_task(Distillation(stream(), 1.0))(model),
}
# What changes the model in place, as it says, in one forward pass in the caller's mode or in none.
ON_PURPOSE = {
    "step": "a training step in the caller's mode",
    "embed": "a forward pass in the caller's mode",
    "prototype_logits": "the same",
    "open_top": "freezes",
    "freeze": "freezes",
    "unfreeze": "opens",
    "replace_head": "a new head",
    "load_source": "other values",
    "encode": "a forward pass in the caller's mode",
    "add_lora": "freezes",
    "load_lora": "freezes",
    "add_adapters": "freezes",
    "bitfit": "freezes",
    "remove_lora": "other layers, in the mode that they are frozen in",
    "episode_losses": "a forward pass in the caller's mode",
    "answer": "the same, without gradients (tests/meta/test_in_context.py)",
    "export_model": "a program in evaluation mode; the model's own stays (tests/serving)",
}


def test_everything_that_takes_a_model_has_a_row():
    found = that_take("model", "module", "f", "head", "parameters", "encoder", "teacher", "models")
    require_every_row(found, LOOPS, LOOKS, ON_PURPOSE)


@NORMED
@pytest.mark.parametrize("part", [True, False], ids=["training", "in part in evaluation"])
@pytest.mark.parametrize("name", [*LOOKS, *MEMORIES])
def test_a_look_changes_no_mode_and_no_buffer(name, part, norm):
    model = network(norm)
    if not part:
        model.trunk.eval()
    before = state(model)
    {**LOOKS, **MEMORIES}[name](model)
    assert same(before, state(model))


@contextmanager
def seen(model):
    """Whether the part above the norm was in training mode, in each forward pass with gradients
    and without.
    """
    modes = {True: set(), False: set()}
    hook = model.trunk[1].register_forward_pre_hook(
        lambda module, inputs: modes[torch.is_grad_enabled()].add(module.training)
    )
    yield modes
    hook.remove()


ALL_LOOPS = [(name, run) for name, runs in LOOPS.items() for run in runs]
EVERY_LOOP = pytest.mark.parametrize("name, run", ALL_LOOPS, ids=[name for name, _ in ALL_LOOPS])


@NORMED
@EVERY_LOOP
def test_a_loop_trains_in_training_mode_judges_in_evaluation_mode_and_puts_modes_back(
    name, run, norm
):
    model = network(norm)
    modes_before = [module.training for module in model.modules()]
    with seen(model) as modes:
        run(model)
    if name == "fit_episodes":
        return  # see below
    assert modes[False] == {False}
    assert True in modes[True]
    if name not in ("lp_ft", "gradual_unfreezing"):
        assert modes[True] == {True}
    assert [module.training for module in model.modules()] == modes_before


@pytest.mark.parametrize("of_dict", [True, False], ids=["parameters", "module"])
def test_episodes_are_validated_without_dropout(of_dict):
    """The same parameters have one validation loss, and it is that of evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    f = Functional(model)
    params = f.parameters()

    def loss():
        return CE(f(params, X) if of_dict else model(X), Y)

    def backward(generator):
        value = loss()
        value.backward()
        return value

    history = meta.fit_episodes(
        params if of_dict else model,
        backward,
        SGD(params.values(), lr=0.0),
        3,
        validate=lambda: loss().detach(),
        every=1,
        progress=False,
    )
    assert len(set(history.validation)) == 1 and len(set(history.train)) == 3
    assert all(module.training for module in model.modules())
    assert history.validation[0] == pytest.approx(training.evaluate(model, (X, Y), CE))


@NORMED
def test_a_functional_gives_what_the_model_gives_and_writes_nothing(norm):
    model = network(norm)
    params = dict(model.named_parameters())
    for mode in (True, False):
        model.train(mode)
        if norm == "dropout" and mode:
            continue
        for transductive in (True, False):
            if norm == "batch norm without statistics" and not transductive:
                with pytest.raises(ValueError, match="keeps none"):
                    Functional(model, transductive=False)
                continue
            f = Functional(model, transductive=transductive)
            before, twin = state(model), copy.deepcopy(model)
            twin.eval()
            for module in twin.modules():
                if hasattr(module, "running_mean"):
                    module.train(transductive)
            expected = twin(X)
            assert torch.allclose(f(params, X), expected, atol=1e-6)
            assert same(before, state(model))


# --------------------------------------------------------------------------------------- frozen
def by_training(module, x):
    return module.train()(x)


def by_forward(module, x):
    return module.train().forward(x)


def by_part(module, x):
    module.train()
    for child in module.children():
        x = child(x)
    return x


def by_functional_call(module, x):
    return functional_call(module.train(), dict(module.named_parameters()), (x,))


def by_copy(module, x):
    return copy.deepcopy(module).train().forward(x)


def by_functional(module, x):
    f = Functional(module.train(), transductive=True)
    return f(dict(module.named_parameters()), x)


WAYS = [by_training, by_forward, by_part, by_functional_call, by_copy, by_functional]


@NORMED
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_frozen_part_stays_frozen_however_it_is_called(norm, way):
    torch.manual_seed(0)
    trunk = freeze(nn.Sequential(nn.Linear(4, 6), NORMS[norm](), nn.Linear(6, 6)))
    before = state(trunk)
    expected = trunk(X)
    assert torch.allclose(way(trunk, X), expected, atol=1e-6)
    assert same(before, state(trunk))
    assert not any(module.training for module in trunk.modules())


@NORMED
@EVERY_LOOP
def test_a_frozen_trunk_is_the_same_after_every_loop(name, run, norm):
    if name in ("lp_ft", "gradual_unfreezing"):
        return  # they open it, as they say
    model = network(norm)
    freeze(model.trunk)
    before, head = state(model.trunk), copy.deepcopy(model.head)
    if run is LOOPS["fit_tasks"][1]:
        with pytest.raises(ValueError, match="nothing to balance"):
            run(model)
        return
    run(model)
    assert same(before, state(model.trunk))
    assert not torch.equal(head.weight, model.head.weight)


def load_lora(model):
    source = add_lora(copy.deepcopy(model), "trunk.0", r=2)
    transfer.load_lora(model, transfer.lora_state(source))


def remove_lora(model):
    transfer.remove_lora(add_lora(model, "trunk.0", r=2))


ADDED = {
    "add_lora": lambda model: add_lora(model, "trunk.0", r=2),
    "load_lora": load_lora,
    "remove_lora": remove_lora,
    "add_adapters": lambda model: add_adapters(model, "trunk.0", width=2),
    "bitfit": bitfit,
}


@NORMED
@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_to_a_model_leaves_the_rest_frozen(name, norm):
    """No statistic moves and nothing drops, however often the model is put into training mode."""
    model = network(norm)
    expected = copy.deepcopy(model).eval()(X)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    ADDED[name](model)
    for _ in range(2):
        assert torch.allclose(model.train()(X), expected, atol=1e-6)
    assert not model.trunk[1].training and not model.head.training
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", ["add_lora", "load_lora", "add_adapters"])
def test_a_new_layer_has_the_mode_of_the_one_that_it_stands_for(name, mode):
    model = network("dropout").train(mode)
    ADDED[name](model)
    fresh = model.trunk[0]
    new = [module for module in fresh.modules() if module is not fresh.base]
    assert {module.training for module in new} == {mode}


def test_what_is_opened_inside_a_frozen_part_trains():
    model = freeze(Net(nn.BatchNorm1d(6)))
    unfreeze(model.trunk[1])
    model.train()
    assert model.trunk[1].training and not model.trunk.training and not model.training
    model(X)
    assert model.trunk[1].running_mean.abs().sum() > 0


@pytest.mark.parametrize("norm", ["batch norm", "batch norm without statistics"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_statistics_of_a_batch_also_for_a_network_that_open_top_has_frozen(norm, count):
    model = network(norm)
    open_top(model, count)
    before = state(model)
    ready = meta.with_statistics(model, X)
    h = model.trunk[0](X).detach()
    norm_ready = ready.trunk[1]
    assert torch.allclose(norm_ready.running_mean, h.mean(0), atol=1e-6)
    assert torch.allclose(norm_ready.running_var, h.var(0), atol=1e-6)
    assert same(before, state(model))
    one_by_one = torch.cat([ready(x[None]) for x in X])
    assert torch.allclose(one_by_one, ready(X), atol=1e-6)
    ready.train()
    assert ready.trunk[1].training == model.train().trunk[1].training


def test_famo_looks_a_second_time_without_moving_the_statistics():
    """One step moves the running mean once, from 0 by a tenth."""
    torch.manual_seed(0)
    model = multi(Net(nn.BatchNorm1d(6)))
    h = model.trunk[0](X).detach()
    batch = Table(X, {"a": Y, "b": Y}).whole()
    optimizer = SGD(model.parameters(), lr=0.5)
    multitask.step(model, TASKS, batch, optimizer, multitask.FAMO(2))
    assert torch.allclose(model.trunk[1].running_mean, 0.1 * h.mean(0), atol=1e-6)
