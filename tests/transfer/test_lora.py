"""LoRA: equal to PEFT's, exact to merge, many on one model, and clear about what does not fit."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from mtl_course import transfer
from mtl_course.networks.trunks import Classifier, cnn, mlp

peft = pytest.importorskip("peft")  # in the test extra


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever opens a connection here fails: PEFT must not look for anything."""
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a test of LoRA opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Net(nn.Module):
    """Convolutions of several kinds, and linear layers two deep."""

    def __init__(self, dilation=2):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 5, (2, 3), dilation=(1, dilation), padding=(1, 2), bias=False),
            nn.Tanh(),
            nn.Conv2d(5, 4, 1),
        )
        self.top = nn.ModuleDict({"hidden": nn.Linear(4, 7), "out": nn.Linear(7, 3)})

    def forward(self, x):
        z = self.conv(x).mean((2, 3))
        return self.top["out"](torch.relu(self.top["hidden"](z)))


def net(seed=0, **options):
    torch.manual_seed(seed)
    return Net(**options)


def pictures(n=5):
    return torch.randn(n, 2, 8, 10, generator=torch.Generator().manual_seed(1))


def spread(model, seed=2):
    """Give every update a B that is not zero."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in transfer.lora_layers(model).values():
            for B in layer.B.values():
                B.copy_(torch.randn(B.shape, generator=g))
    return model


TARGETS = ["conv.0", "conv.2", "conv.4", "top.hidden", "top.out"]


def twins(r=2, alpha=6.0):
    """The same model with our LoRA and with PEFT's, with the same A and B.

    Without dilation, which PEFT leaves out of A.
    """
    ours = spread(transfer.add_lora(net(dilation=1), TARGETS, r=r, alpha=alpha))
    theirs = peft.get_peft_model(
        net(dilation=1),
        peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=TARGETS, lora_dropout=0.0),
    )
    with torch.no_grad():
        for path, layer in transfer.lora_layers(ours).items():
            other = theirs.base_model.model.get_submodule(path)
            other.lora_A["default"].weight.copy_(layer.A["default"])
            B = other.lora_B["default"].weight
            B.copy_(layer.B["default"].view_as(B))
    return ours, theirs


def test_outputs_and_gradients_are_pefts():
    ours, theirs = twins()
    x, y = pictures(), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(x), y).backward()
    for path, layer in transfer.lora_layers(ours).items():
        other = theirs.base_model.model.get_submodule(path)
        gA, gB = layer.A["default"].grad, layer.B["default"].grad
        assert gA.abs().max() > 0 and gB.abs().max() > 0
        torch.testing.assert_close(gA, other.lora_A["default"].weight.grad, atol=1e-6, rtol=1e-4)
        other_B = other.lora_B["default"].weight.grad.view_as(gB)
        torch.testing.assert_close(gB, other_B, atol=1e-6, rtol=1e-4)
        assert layer.base.weight.grad is None
    free = {n: p.numel() for n, p in theirs.named_parameters() if p.requires_grad}
    assert sum(free.values()) == sum(p.numel() for p in ours.parameters() if p.requires_grad)


def test_merged_weights_are_pefts():
    ours, theirs = twins()
    transfer.merge_lora(ours)
    plain, other = transfer.remove_lora(ours), theirs.merge_and_unload()
    assert list(plain.state_dict()) == list(other.state_dict()) == list(net().state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_training_by_sgd_goes_pefts_way():
    ours, theirs = twins()
    y = torch.tensor([0, 1, 2, 1, 0])
    for model in (ours, theirs):
        free = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(free, lr=0.05, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pictures()), y).backward()
            optimizer.step()
    torch.testing.assert_close(ours(pictures()), theirs(pictures()), atol=1e-5, rtol=1e-4)


def test_a_new_adapter_changes_nothing_and_is_drawn_as_pefts():
    model = net()
    before = model(pictures())
    torch.manual_seed(7)
    transfer.add_lora(model, TARGETS, r=2)
    assert torch.equal(model(pictures()), before)
    theirs = peft.get_peft_model(net(), peft.LoraConfig(r=2, target_modules=TARGETS))
    for path, layer in transfer.lora_layers(model).items():
        other = theirs.base_model.model.get_submodule(path).lora_A["default"].weight
        bound = (
            1 / layer.A["default"][0].numel() ** 0.5
        )  # Kaiming with a = sqrt(5): 1 / sqrt(fan in)
        for A in (layer.A["default"], other):
            assert A.abs().max() <= bound and A.abs().max() > bound / 2
        assert not layer.B["default"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merge_and_unmerge_are_exact(dtype):
    model = spread(transfer.add_lora(net(), ["conv.*", "top.*"], r=3, alpha=1.5)).to(dtype)
    x = pictures().to(dtype)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    before = model(x)
    for _ in range(5):
        transfer.merge_lora(model)
        transfer.merge_lora(model)  # once is enough
        torch.testing.assert_close(model(x), before, atol=2e-6, rtol=1e-5)
        assert not any(p.requires_grad for p in model.parameters()), "merged is not trained"
        transfer.unmerge_lora(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=0)
    torch.testing.assert_close(model(x), before, atol=2e-6, rtol=1e-5)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n in start if ".A." in n or ".B." in n
    }


def test_only_the_update_trains_and_statistics_stand_still():
    torch.manual_seed(0)
    model = Classifier(cnn(8, (4, 6), 10, norm=True), 10, 3)
    transfer.add_lora(model, "trunk.*", r=2)
    transfer.unfreeze(model.head)
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.1)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.randn(9, 1, 8, 8)), torch.arange(9) % 3)
        loss.backward()
        optimizer.step()
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, start[n])}
    assert moved == {n for n in start if ".A." in n or ".B." in n or n.startswith("head")}


def test_many_adapters_on_one_trunk():
    model = net()
    plain = model(pictures())
    for k, name in enumerate(["noise", "blur", "tilt"]):
        transfer.add_lora(model, ["conv.*", "top.hidden"], r=1 + k, name=name)
    spread(model)
    outputs = {}
    for name in ("blur", "tilt", "noise"):
        transfer.use_lora(model, name)
        outputs[name] = model(pictures())
        free = {n for n, p in model.named_parameters() if p.requires_grad}
        assert len(free) == 8 and all(n.endswith(name) for n in free)
    assert not torch.allclose(outputs["blur"], outputs["tilt"])
    transfer.merge_lora(model)  # noise; a switch takes it out again
    transfer.use_lora(model, "blur")
    torch.testing.assert_close(model(pictures()), outputs["blur"], atol=1e-5, rtol=1e-5)
    transfer.use_lora(model, None)
    torch.testing.assert_close(model(pictures()), plain, atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())


def test_an_adapter_on_other_layers_leaves_these_alone():
    model = transfer.add_lora(net(), "conv.*", r=2, name="low")
    transfer.add_lora(model, "top.out", r=2, name="high")
    assert model.conv[0].active is None and model.top["out"].active == "high"
    assert list(transfer.lora_state(model, "high")) == ["top.out.A", "top.out.B", "top.out.alpha"]


def test_one_adapter_is_stored_alone_and_put_onto_another_copy():
    model = spread(transfer.add_lora(net(), TARGETS, r=2, alpha=5.0, name="noise"))
    wanted = model(pictures())
    state = transfer.lora_state(model, "noise")
    assert sum(v.numel() for n, v in state.items() if not n.endswith("alpha")) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    fresh = transfer.load_lora(net(), state, "mine")
    torch.testing.assert_close(fresh(pictures()), wanted)
    with torch.no_grad():
        model.conv[0].A["noise"].zero_()
    assert state["conv.0.A"].abs().sum() > 0, "a copy"
    # beside another one
    other = transfer.load_lora(transfer.add_lora(net(), "top.*", r=1, name="old"), state, "mine")
    torch.testing.assert_close(other(pictures()), wanted)


def test_delta_is_what_merging_adds():
    model = spread(transfer.add_lora(net(), TARGETS, r=2, alpha=3.0))
    delta = transfer.lora_delta(model)
    base = {n: v.clone() for n, v in net().state_dict().items()}
    transfer.merge_lora(model)
    merged = transfer.remove_lora(model).state_dict()
    added = transfer.add_vectors(base, [delta])
    assert set(delta) == {f"{path}.weight" for path in TARGETS}
    for name in base:
        torch.testing.assert_close(merged[name], added[name])
    for value in delta.values():
        assert torch.linalg.matrix_rank(value.flatten(1), tol=1e-4) <= 2


def test_modules_that_read_the_weight_see_the_update():
    """nn.MultiheadAttention, and the fast path of nn.TransformerEncoderLayer in evaluation."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        before = model(x)
        spread(transfer.add_lora(model, ["self_attn.out_proj", "linear*"], r=2))
        fast, slow = model(x), model.train()(x)
        transfer.merge_lora(model)
        merged = transfer.remove_lora(model).eval()(x)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast, merged, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(fast, before, atol=1e-3)


def test_a_layer_under_two_names_gets_one_update():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    transfer.add_lora(model, "*", r=1)
    assert model[0] is model[2] and isinstance(model[0], transfer.LoRALayer)
    assert transfer.remove_lora(model)[2] is layer


def test_stacked_adapters_by_vmap_give_what_each_gives():
    base = mlp([6, 8, 5])
    models = [spread(transfer.add_lora(copy.deepcopy(base), "*", r=2), seed) for seed in range(3)]
    params, _ = stack_module_state(models)
    x = torch.randn(4, 6)
    together = vmap(lambda p: functional_call(models[0], p, (x,)))(params)
    torch.testing.assert_close(together, torch.stack([m(x) for m in models]))


def test_copies_are_their_own():
    model = spread(transfer.add_lora(net(), TARGETS, r=2))
    twin = copy.deepcopy(model)
    transfer.merge_lora(twin)
    assert model.conv[0].merged is None
    assert not torch.equal(model.conv[0].base.weight, twin.conv[0].base.weight)


@pytest.mark.parametrize(
    ("patterns", "options", "said"),
    [
        ("nothing.*", {}, r"'nothing\.\*' matches no layer .*has conv\.0, conv\.2"),
        (["conv.0", "*.bias"], {}, r"'\*\.bias' matches no layer"),
        ("conv.1", {}, r"'conv\.1' matches no layer"),
        ("*", {"r": 4}, r"'top\.out' has a weight of shape \(3, 7\).* 1 and 3, not 4"),
        ("conv.2", {"r": 6}, r"'conv\.2' .* 1 and 5, not 6"),
        ("conv.2", {"r": 0}, "not 0"),
        ("conv.0", {"name": "a.b"}, "'a.b' cannot be the name"),
        ("conv.0", {"name": "keys"}, "'keys' cannot be the name"),
        ("conv.0", {"name": ""}, "'' cannot be the name"),
    ],
)
def test_what_does_not_fit_is_named_and_the_model_stays_as_it_was(patterns, options, said):
    model = net()
    with pytest.raises(ValueError, match=said):
        transfer.add_lora(model, patterns, **({"r": 2} | options))
    assert all(p.requires_grad for p in model.parameters()) and list(model.state_dict()) == list(
        net().state_dict()
    )


def test_other_errors_name_the_part():
    model = transfer.add_lora(net(), "top.*", r=1, name="blur")
    with pytest.raises(ValueError, match=r"'top\.hidden' has an adapter 'blur' already"):
        transfer.add_lora(model, "top.*", r=1, name="blur")
    with pytest.raises(ValueError, match="no adapter 'noise'; there are blur"):
        transfer.use_lora(model, "noise")
    with pytest.raises(ValueError, match="No layer has an adapter 'noise'"):
        transfer.lora_state(model, "noise")
    with pytest.raises(ValueError, match="No layer has an adapter 'noise'"):
        transfer.lora_delta(model, "noise")
    with pytest.raises(ValueError, match="call add_lora first"):
        transfer.merge_lora(net())
    state = transfer.lora_state(model, "blur")
    with pytest.raises(ValueError, match=r"'top\.hidden', which the model does not have"):
        transfer.load_lora(mlp([4, 7]), state)
    wide = {name: torch.zeros(1, 9) if name == "top.out.A" else v for name, v in state.items()}
    with pytest.raises(ValueError, match=r"does not fit layer 'top.out'.*\(1, 9\)"):
        transfer.load_lora(net(), wide)
    with pytest.raises(ValueError, match="no adapter: it has no entry"):
        transfer.load_lora(net(), {})
    with pytest.raises(ValueError, match="'0' is a convolution in 2 groups"):
        transfer.add_lora(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "0", r=1)
    with pytest.raises(ValueError, match="in groups; this one has 2"):
        transfer.LoRALayer(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(TypeError, match="not for ReLU"):
        transfer.LoRALayer(nn.ReLU())
    layer = transfer.LoRALayer(nn.Linear(3, 2))
    layer.add("a", 1)
    with pytest.raises(ValueError, match="'a' already"):
        layer.add("a", 1)
    with pytest.raises(ValueError, match="between 1 and 2, not 3"):
        layer.add("b", 3)
    with pytest.raises(ValueError, match="no adapter 'b'; there is a"):
        layer.use("b")
