"""A module or parameter under two names, tied weights, parts that are frozen: the caller's model is
never changed but where that is asked for, frozen parts are skipped, and an empty rest is said.
"""

import copy

import pytest
import torch
from fault_tools import TASKS, Net, multi, require_every_row, rows, that_take
from torch import nn
from torch.nn import functional as F

from mtl_course import meta, multitask, networks, streams, training, transfer, trust
from mtl_course.data import Episodes, Table
from mtl_course.meta import Functional
from mtl_course.multitask import (
    GradNorm,
    HardSharing,
    balanced_backward,
    balanced_backward_in_parts,
)
from mtl_course.streams import Distillation, Ewc, Stream
from mtl_course.transfer import add_lora, bitfit, freeze, layers, open_top, replace_head

X, Y = rows()
SGD = torch.optim.SGD
CE = F.cross_entropy


# --------------------------------------------------------------------------------------- models
def twice():
    layer = nn.Linear(6, 6)
    return Net(layer, nn.Tanh(), layer)


def two_names():
    model = Net(nn.Tanh(), nn.Linear(6, 6))
    model.again = model.trunk[2]
    return model


def tied():
    model = Net(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model.trunk[3].weight = model.trunk[1].weight
    return model


def trunk_and_head():
    model = Net(nn.Tanh(), nn.Linear(6, 3), nn.Linear(3, 6))
    model.head.weight = model.trunk[2].weight
    return model


def frozen_in_part():
    model = Net(nn.Tanh(), nn.Linear(6, 6))
    model.trunk[0].requires_grad_(False)
    model.trunk[2].bias.requires_grad_(False)
    return model


def frozen_trunk():
    model = Net(nn.Tanh())
    freeze(model.trunk)
    return model


MODELS = [twice, two_names, tied, trunk_and_head, frozen_in_part, frozen_trunk]
BOTH_SIDES = (trunk_and_head,)
EVERY_MODEL = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def shape(model):
    """What a model is made of: names, the very parameters, and which of them learn."""
    named = list(model.named_parameters(remove_duplicate=False))
    assert all(isinstance(p, nn.Parameter) for _, p in named)
    return [(name, id(p), p.requires_grad) for name, p in named]


# ---------------------------------------------------------------------------------------- calls
def fit(model):
    optimizer = SGD(model.parameters(), lr=0.1)
    training.fit(model, (X, Y), (X, Y), CE, optimizer, epochs=1, progress=False)


def fit_tasks(method):
    def run(model):
        both, data = multi(model), Table(X, {"a": Y, "b": Y})
        combine = method()
        parameters = [p for p in both.parameters() if p.requires_grad]
        options = {"epochs": 1, "progress": False}
        multitask.fit_tasks(both, TASKS, data, data, SGD(parameters, lr=0.1), combine, **options)

    return run


def step(model):
    both = multi(model)
    optimizer = SGD(both.parameters(), lr=0.1)
    batch = Table(X, {"a": Y, "b": Y}).whole()
    multitask.step(both, TASKS, batch, optimizer, multitask.EqualWeights())


def evaluate_tasks(model):
    multitask.evaluate_tasks(multi(model), TASKS, Table(X, {"a": Y, "b": Y}))


def stream():
    tasks = [(X, Y % 2 * 0), (X, Y % 2 * 0 + 1)]
    return Stream(tasks, tasks, classes_per_task=1, task_known=False)


def learn(*memories):
    def run(model):
        kept = [memory() for memory in memories]
        streams.learn(model, stream(), lambda params: SGD(params, lr=0.1), kept, epochs=1)

    return run


def fit_episodes(model):
    def backward(generator):
        loss = CE(model(X), Y)
        loss.backward()
        return loss

    optimizer, options = SGD(model.parameters(), lr=0.1), {"every": 1, "progress": False}
    meta.fit_episodes(model, backward, optimizer, 1, validate=lambda: 1.0, **options)


def episodes():
    sets = (X.reshape(2, 6, 4), Y.reshape(2, 6))
    return Episodes(sets, sets)


def with_functional(run):
    def call(model):
        f = Functional(model)
        for _ in range(2):
            run(f, f.parameters(), episodes(), CE, 1, 0.1)

    return call


def mixed(model):
    f = Functional(multi(model))
    meta.mixed_losses(f, f.parameters(), {"a": episodes()}, {"a": TASKS["a"]}, 1, 0.1)


def fine_tuned(model):
    z, y = torch.ones(2, 6, 4), Y.reshape(2, 6)
    meta.fine_tuned_logits(model, (z, y), z, steps=1)


def balanced(model):
    features = model.trunk(X)
    losses = {"a": lambda z: CE(model.head(z), Y), "b": lambda z: z.square().mean()}
    balanced_backward(features, losses, model.trunk.parameters(), multitask.upgrad)


def balanced_in_parts(model):
    losses = {"a": lambda z: CE(model.head(z), Y[::2]), "b": lambda z: z.square().mean()}
    parts = ((model.trunk(X[::2]), losses) for _ in range(2))
    balanced_backward_in_parts(parts, model.trunk.parameters(), multitask.upgrad)


def lookahead(model):
    shared = [p for p in model.parameters() if p.requires_grad]

    def losses(values):
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        given = dict(zip(named, values, strict=True))
        loss = CE(Functional(model)(given, X), Y)
        return torch.stack([loss, 2 * loss])

    multitask.lookahead(losses, shared, 0.1)


def adapt_and_restore(model):
    stack = Net(head=model)
    stack.trunk = stack.again = nn.BatchNorm1d(4)
    restore = transfer.adapt_batchnorm(stack, X)
    assert torch.allclose(stack.trunk.running_mean, X.mean(0), atol=1e-6)
    assert torch.allclose(stack.trunk.running_var, X.var(0), atol=1e-6)
    restore()


def with_lora(call):
    """On a copy that carries LoRA in its whole trunk."""

    def run(model):
        carries = add_lora(copy.deepcopy(model), "trunk.*", r=2)
        before = shape(carries)
        call(carries)
        assert shape(carries) == before

    return run


CALLS = {
    "fit": [fit],
    "evaluate": [lambda model: training.evaluate(model, (X, Y), CE)],
    "predict": [lambda model: training.predict(model, X)],
    "fit_tasks": [
        fit_tasks(lambda: None),
        fit_tasks(lambda: multitask.FAMO(2)),
        fit_tasks(lambda: GradNorm(2)),
        fit_tasks(lambda: multitask.upgrad),
    ],
    "step": [step],
    "evaluate_tasks": [evaluate_tasks],
    "parameter_groups": [
        lambda model: SGD(multitask.parameter_groups(model, multitask.EqualWeights(), 0.1), lr=0.1)
    ],
    "balanced_backward": [balanced],
    "balanced_backward_in_parts": [balanced_in_parts],
    "lookahead": [lookahead],
    "parameters": [networks.parameters],
    "flops": [lambda model: networks.flops(model, X, backward=True)],
    "layers": [layers],
    "layer_groups": [lambda model: SGD(transfer.layer_groups(model, 0.1))],
    "learn": [
        learn(),
        learn(lambda: Ewc(1.0)),
        learn(lambda: Distillation(stream(), 1.0)),
    ],
    "learn_jointly": [
        lambda model: streams.learn_jointly(
            model, stream(), lambda params: SGD(params, lr=0.1), epochs=1
        )
    ],
    "accuracies": [lambda model: streams.accuracies(model, stream(), 1)],
    "fisher_diagonal": [lambda model: streams.fisher_diagonal(model, X)],
    "per_example_gradients": [lambda model: trust.per_example_gradients(model, CE, X, Y)],
    "fit_episodes": [fit_episodes],
    "embed": [lambda model: meta.embed(model, X[None])],
    "prototype_logits": [lambda model: meta.prototype_logits(model, episodes(), 3)],
    "with_statistics": [
        lambda model: meta.with_statistics(nn.Sequential(nn.BatchNorm1d(4), model), X)
    ],
    "objective": [
        lambda model: meta.objective(Functional(model), CE)(Functional(model).parameters(), X, Y)
    ],
    "meta_losses": [with_functional(meta.meta_losses)],
    "meta_backward": [with_functional(meta.meta_backward)],
    "reptile_backward": [with_functional(meta.reptile_backward)],
    "mixed_losses": [mixed],
    "adapted_logits": [lambda model: meta.adapted_logits(Functional(model), episodes(), 1, 0.1)],
    "fine_tuned_logits": [fine_tuned],
    "teacher_outputs": [lambda model: transfer.teacher_outputs({"a": model, "b": model}, X)],
    "call_seconds": [lambda model: transfer.call_seconds({"a": model, "b": model}, X, rounds=1)],
    "adapt_batchnorm": [adapt_and_restore],
    "quantized": [transfer.quantized],
    "stored_bytes": [transfer.stored_bytes],
    "sparse_bytes": [transfer.sparse_bytes],
    "working_bytes": [lambda model: transfer.working_bytes(model, X)],
    "trainable_state": [transfer.trainable_state],
    "lora_layers": [with_lora(transfer.lora_layers)],
    "lora_state": [with_lora(transfer.lora_state)],
    "lora_delta": [with_lora(transfer.lora_delta)],
}
# What changes which parts learn, or the parts themselves, on purpose: below.
ON_PURPOSE = {
    "freeze": "freezes",
    "unfreeze": "opens",
    "open_top": "opens and freezes",
    "lp_ft": "opens and freezes, then trains by fit",
    "gradual_unfreezing": "the same",
    "replace_head": "another head",
    "export_model": "reads the model once, for a program (tests/serving/test_release.py)",
    "load_source": "other values, all or none",
    "add_lora": "freezes, and puts other layers in",
    "load_lora": "the same",
    "add_adapters": "the same",
    "use_lora": "opens one update and freezes the others",
    "merge_lora": "freezes the update, and changes the weights",
    "unmerge_lora": "undoes that",
    "remove_lora": "puts the plain layers back",
    "bitfit": "freezes all but biases",
    "episode_losses": "takes an InContext: tests/meta/test_in_context.py",
    "answer": "the same",
}
ALL_CALLS = [(name, call) for name, calls in CALLS.items() for call in calls]
EVERY_CALL = pytest.mark.parametrize("name, call", ALL_CALLS, ids=[name for name, _ in ALL_CALLS])
BALANCING = (balanced, balanced_in_parts, CALLS["fit_tasks"][3])
REFUSED_WITHOUT_TRUNK = (*BALANCING, CALLS["fit_tasks"][2])


def test_everything_that_takes_a_model_has_a_row():
    parameters = ("model", "module", "f", "head", "parameters", "shared", "teacher", "models")
    found = that_take(*parameters)
    require_every_row(found, CALLS, ON_PURPOSE)


@EVERY_MODEL
@EVERY_CALL
def test_a_model_is_made_of_the_same_parameters_afterwards(name, call, make):
    torch.manual_seed(0)
    model = make()
    before, values = shape(model), copy.deepcopy(model.state_dict())
    words = None
    if make in BOTH_SIDES and call in BALANCING:
        words = "share a parameter|used by a head too"
    if make is frozen_trunk and call in REFUSED_WITHOUT_TRUNK:
        words = "nothing to balance|all of them are frozen"
    if words:
        with pytest.raises(ValueError, match=words):
            call(model)
    else:
        call(model)
    assert shape(model) == before
    for n, p in model.named_parameters():
        assert p.requires_grad or torch.equal(p, values[n]), n


def frozen_as_a_whole():
    model = Net(nn.Tanh())
    model.requires_grad_(False)
    return model


TRAINING = ["fit", "learn", "learn_jointly", "fit_episodes", "fisher_diagonal"]


@pytest.mark.parametrize("name", TRAINING)
def test_a_model_that_is_frozen_as_a_whole_is_said(name):
    for call in CALLS[name]:
        with pytest.raises(ValueError, match="frozen as a whole"):
            call(frozen_as_a_whole())


@pytest.mark.parametrize("combine", [multitask.EqualWeights(), multitask.Fixed([1, 1])])
def test_a_step_on_a_frozen_model_is_said(combine):
    model = multi(frozen_as_a_whole()).requires_grad_(False)
    batch = Table(X, {"a": Y, "b": Y}).whole()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="frozen as a whole"):
        multitask.step(model, TASKS, batch, optimizer, combine)


# ------------------------------------------------------------------------------------- the sums
@pytest.mark.parametrize("make", [twice, two_names, tied], ids=lambda make: make.__name__)
def test_a_functional_with_tied_weights_equals_the_model_with_these_weights(make):
    torch.manual_seed(0)
    model, other = make(), make()
    f = Functional(model)
    params = dict(other.named_parameters())
    for _ in range(2):
        assert torch.allclose(f(params, X), other(X), atol=1e-6)
    slopes = torch.autograd.grad(f(params, X).square().sum(), list(params.values()))
    expected = torch.autograd.grad(other(X).square().sum(), list(other.parameters()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(slopes, expected, strict=True))


@pytest.mark.parametrize(
    "make", [twice, two_names, tied, frozen_in_part], ids=lambda make: make.__name__
)
def test_the_fisher_diagonal_is_that_of_the_gradients(make):
    torch.manual_seed(0)
    model = make()
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected = {n: torch.zeros_like(p) for n, p in learned.items()}
    for x in X:
        logs = model(x[None])[0].log_softmax(0)
        for log in logs:
            slopes = torch.autograd.grad(log, list(learned.values()), retain_graph=True)
            for n, slope in zip(learned, slopes, strict=True):
                expected[n] += log.exp().detach() * slope.square() / len(X)
    fisher = streams.fisher_diagonal(model, X)
    assert fisher.keys() == expected.keys()
    assert all(torch.allclose(fisher[n], expected[n], atol=1e-6) for n in expected)


def test_ewc_keeps_what_it_knows_of_a_part_that_is_frozen_for_a_while():
    model, memory = Net(nn.Tanh(), nn.Linear(6, 6)), Ewc(1.0)
    memory.end_task(model, stream(), 0)
    all_names, first = set(memory.fisher), memory.fisher["trunk.0.weight"].clone()
    model.trunk[0].requires_grad_(False)
    memory.end_task(model, stream(), 1)
    assert set(memory.fisher) == set(memory.anchor) == all_names
    assert torch.equal(memory.fisher["trunk.0.weight"], first)


def test_distillation_counts_shared_numbers_once():
    memory = Distillation(stream(), 1.0)
    model = twice()
    memory.end_task(model, stream(), 0)
    assert memory.numbers == networks.parameters(model)


def test_a_parameter_that_is_named_twice_is_balanced_once():
    def gradient(names):
        w = nn.Parameter(torch.ones(2))
        losses = {"a": lambda z: z[0], "b": lambda z: z.sum()}
        done = balanced_backward(w * 1, losses, [w] * names, multitask.upgrad)
        return w.grad, done.gram

    once, twice_ = gradient(1), gradient(2)
    assert all(torch.equal(a, b) for a, b in zip(once, twice_, strict=True))


@pytest.mark.parametrize("written", [False, True], ids=["no gradient yet", "a gradient before"])
def test_a_parameter_on_both_sides_of_the_balancing_is_refused(written):
    w = nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2) if written else None
    losses = {"a": lambda z: (z * w).sum(), "b": lambda z: z.sum()}
    with pytest.raises(ValueError, match="used by a head too"):
        balanced_backward(w * 1, losses, [w], multitask.upgrad)


def test_gradnorm_looks_at_what_learns_and_not_at_what_is_frozen():
    a, b = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()), requires_grad=False)
    frozen, alone = GradNorm(2), GradNorm(2)
    losses = torch.stack([a + b, 10 * a])
    frozen.before_backward(losses, [a, b, a])
    alone.before_backward(losses, [a])
    assert torch.equal(frozen.weights, alone.weights)


def test_gradnorm_takes_a_task_that_nothing_shared_reaches():
    a, own = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
    weighting = GradNorm(2)
    weighting.before_backward(torch.stack([a * 1, own * 1]), [a])
    assert torch.isfinite(weighting.weights).all()


# -------------------------------------------------------------------------------------- opening
def test_open_top_gives_shared_weights_to_the_highest_layer():
    model = tied()
    stack = layers(model)  # three of the trunk, and the head
    for count in range(1, len(stack) + 1):
        open_top(model, count)
        for layer in stack[len(stack) - count :]:
            assert all(p.requires_grad for p in layer.parameters()), count
        assert model.trunk[0].weight.requires_grad == (count == len(stack))


def test_open_top_does_not_freeze_a_layer_that_is_open_under_another_name():
    model = twice()
    open_top(model, 2)
    model.train()
    assert model.trunk[1].weight.requires_grad and model.trunk[1].training
    assert not model.trunk[0].weight.requires_grad


def test_a_head_under_two_names_is_replaced_under_both():
    model = Net(nn.Tanh())
    model.again = model.head
    new = replace_head(model, 5)
    assert model.again is new is model.head


def test_trunk_and_heads_that_share_are_refused_before_the_first_step():
    shared = nn.Linear(4, 4)
    model = HardSharing(shared, {"a": shared, "b": nn.Linear(4, 3)})
    data = Table(X, {"a": Y, "b": Y})
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"share a parameter \(heads\.a\.weight"):
        multitask.fit_tasks(model, TASKS, data, data, optimizer, multitask.upgrad, progress=False)


# --------------------------------------------------------- a few numbers beside the frozen weights
SHARING = pytest.mark.parametrize(
    "make", [twice, two_names, tied, trunk_and_head], ids=lambda make: make.__name__
)
ONE_LAYER = pytest.mark.parametrize("make", [twice, two_names], ids=lambda make: make.__name__)


def carrying(make):
    """The model with an update of its trunk that is not zero, and the plain layers of the trunk."""
    torch.manual_seed(0)
    model = make()
    plain = {id(m): m for m in model.trunk if isinstance(m, nn.Linear)}
    add_lora(model, "trunk.*", r=2)
    for layer in transfer.lora_layers(model).values():
        nn.init.normal_(layer.B["default"])
    return model, list(plain.values())


@SHARING
def test_lora_gives_each_layer_one_update_under_every_name(make):
    torch.manual_seed(0)
    model = make()
    expected, count = model(X), len({m for m in model.trunk if isinstance(m, nn.Linear)})
    add_lora(model, "trunk.*", r=2)
    assert torch.allclose(model(X), expected, atol=1e-6)
    assert len(transfer.lora_layers(model)) == count
    assert sum(p.requires_grad for p in model.parameters()) == 2 * count
    assert not any(isinstance(m, nn.Linear) for m in model.trunk)
    if make is twice:
        assert model.trunk[1] is model.trunk[3]
    if make is two_names:
        assert model.again is model.trunk[2]


@SHARING
def test_lora_is_stored_once_and_loaded_under_every_name(make):
    model, plain = carrying(make)
    state = transfer.lora_state(model)
    assert len(state) == 3 * len(plain) and len(transfer.lora_delta(model)) == len(plain)
    torch.manual_seed(0)
    other = transfer.load_lora(make(), state)
    assert torch.allclose(other(X), model(X), atol=1e-6)


@SHARING
def test_lora_is_switched_off_and_removed_under_every_name(make):
    torch.manual_seed(0)
    model = make()
    before = [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)]
    expected = model(X)
    add_lora(model, "trunk.*", r=2)
    for layer in transfer.lora_layers(model).values():
        nn.init.normal_(layer.B["default"])
    assert not torch.allclose(model(X), expected)
    transfer.use_lora(model, None)
    assert torch.equal(model(X), expected)
    assert not any(p.requires_grad for p in model.parameters())
    transfer.remove_lora(model)
    assert torch.equal(model(X), expected)
    assert [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)] == before


@ONE_LAYER
def test_an_update_of_a_layer_with_two_names_is_merged_once(make):
    model, plain = carrying(make)
    expected, weights = model(X), [layer.weight.clone() for layer in plain]
    transfer.merge_lora(model)
    assert torch.allclose(model(X), expected, atol=1e-5)
    transfer.unmerge_lora(model)
    assert torch.allclose(model(X), expected, atol=1e-5)
    for layer, weight in zip(plain, weights, strict=True):
        assert torch.allclose(layer.weight, weight, atol=1e-6)


@pytest.mark.parametrize("make", [tied, trunk_and_head], ids=lambda make: make.__name__)
def test_an_update_is_not_merged_into_a_weight_that_another_layer_has_too(make):
    model, _ = carrying(make)
    expected, before = model(X), shape(model)
    with pytest.raises(ValueError, match=r"shares its weight with '(trunk|head)"):
        transfer.merge_lora(model)
    assert torch.equal(model(X), expected) and shape(model) == before
    transfer.use_lora(model, None)
    transfer.merge_lora(model)  # nothing to merge


@SHARING
def test_an_adapter_stands_behind_each_layer_once_under_every_name(make):
    torch.manual_seed(0)
    model = make()
    expected, count = model(X), len({m for m in model.trunk if isinstance(m, nn.Linear)})
    transfer.add_adapters(model, "trunk.*", width=2)
    assert torch.allclose(model(X), expected, atol=1e-6)
    assert sum(isinstance(m, transfer.AdapterLayer) for m in model.modules()) == count
    assert len(transfer.trainable_state(model)) == 4 * count
    if make is twice:
        assert model.trunk[1] is model.trunk[3]
    if make is two_names:
        assert model.again is model.trunk[2]


def tied_biases():
    model = tied()
    model.trunk[3].bias = model.trunk[1].bias
    return model


@pytest.mark.parametrize("make", [twice, two_names, tied_biases], ids=lambda make: make.__name__)
def test_a_bias_with_two_names_is_opened_and_stored_once(make):
    model = make()
    names = bitfit(model)
    assert set(names) == set(transfer.trainable_state(model)) and len(names) == 3
    for name, p in model.named_parameters(remove_duplicate=False):
        assert p.requires_grad == name.endswith("bias"), name
    other = make()
    other.load_state_dict(transfer.trainable_state(model), strict=False)
    named = dict(other.named_parameters())
    assert all(torch.equal(named[name], model.get_parameter(name)) for name in names)


@SHARING
def test_what_is_shared_is_rounded_and_counted_once(make):
    torch.manual_seed(0)
    model = make()
    kept = {p: p.ndim for p in model.parameters()}
    numbers = {n: sum(p.numel() for p in kept if kept[p] == n) for n in (1, 2)}
    assert transfer.stored_bytes(model) == 4 * (numbers[1] + numbers[2])
    assert transfer.sparse_bytes(model) == transfer.stored_bytes(model)
    small = transfer.quantized(model)
    scales = sum(len(p) for p in kept if kept[p] == 2)
    assert transfer.stored_bytes(small) == numbers[2] + 4 * (scales + numbers[1])
    assert torch.allclose(small(X), model(X), atol=0.1)
