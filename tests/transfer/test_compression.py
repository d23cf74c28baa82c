"""8-bit weights: the bound of the rounding, layers of every kind, bytes and memory by hand."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mtl_course.networks.trunks import Classifier, cnn
from mtl_course.transfer.compression import (
    Int8Layer,
    call_seconds,
    dequantize,
    quantize,
    quantized,
    sparse_bytes,
    stored_bytes,
    working_bytes,
)


# ------------------------------------------------------------------------------------- the rounding
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 3, 3), (6,)])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_no_weight_moves_by_more_than_half_a_scale(bits, shape, unit):
    g = torch.Generator().manual_seed(0)
    weight = unit * torch.randn(shape, generator=g, dtype=torch.float64)
    q, scale = quantize(weight, bits)
    assert q.dtype == torch.int8 and scale.shape == shape[:1]
    top = 2 ** (bits - 1) - 1
    assert int(q.abs().max()) == top
    error = (
        (dequantize(q, scale) - weight).abs().flatten(1)
        if len(shape) > 1
        else (dequantize(q, scale) - weight).abs()[:, None]
    )
    assert bool((error <= scale[:, None] / 2 * (1 + 1e-9)).all())
    torch.testing.assert_close(scale, weight.reshape(shape[0], -1).abs().amax(1) / top)


def test_a_scale_per_channel_saves_the_small_channels():
    weight = torch.tensor([[1e-4, -5e-5], [100.0, 3.0]])
    q, _ = quantize(weight)
    assert q[0].tolist() == [127, -64] or q[0].tolist() == [127, -63]
    one_scale = (weight / (100 / 127)).round() * (100 / 127)
    assert one_scale[0].tolist() == [0, 0], "with one scale they would be gone"


def test_zero_stays_zero_and_whole_numbers_come_back_exactly():
    weight = torch.tensor([[0.0, 0.0, 0.0], [127.0, -64.0, 0.0]])
    q, scale = quantize(weight)
    assert torch.equal(dequantize(q, scale), weight) and scale.tolist() == [1.0, 1.0]
    tiny = torch.full((1, 2), 1e-45)  # the smallest number: its scale would be 0
    assert dequantize(*quantize(tiny)).isfinite().all()


@pytest.mark.parametrize(
    "weight, bits, error, says",
    [
        (torch.ones(2, 2), 9, ValueError, "bits is 9"),
        (torch.ones(2, 2), 1, ValueError, "bits is 1"),
        (torch.ones(2, 2, dtype=torch.int8), 8, TypeError, "int8 already"),
        (torch.ones(0, 2), 8, ValueError, r"shape \(0, 2\)"),
        (torch.tensor([[math.nan]]), 8, FloatingPointError, "not finite"),
    ],
)
def test_what_cannot_be_rounded_is_refused(weight, bits, error, says):
    with pytest.raises(error, match=says):
        quantize(weight, bits)


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"There are \(3,\) scales .* \(2, 4\)"):
        dequantize(torch.zeros(2, 4, dtype=torch.int8), torch.ones(3))


# ------------------------------------------------------------------------------------------- layers
LAYERS = [
    (lambda: nn.Linear(6, 4), (5, 6)),
    (lambda: nn.Linear(6, 4, bias=False), (2, 3, 6)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    (lambda: nn.Conv2d(4, 6, (3, 5), padding=(1, 2), groups=2, dilation=2), (2, 4, 9, 11)),
    (lambda: nn.Conv2d(3, 6, 3, padding="same", bias=False), (2, 3, 7, 8)),
    (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), (2, 3, 7, 8)),
    (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 5, 6)),
]


@pytest.mark.parametrize("build, shape", LAYERS)
def test_a_layer_computes_what_the_layer_with_the_rounded_weight_computes(build, shape):
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    small, rounded = Int8Layer(layer), copy.deepcopy(layer)
    rounded.weight.data = dequantize(*quantize(layer.weight))
    torch.testing.assert_close(small(x), rounded(x))
    assert not torch.equal(small(x), layer(x)), "and not what the old weight gives"
    assert list(small.parameters()) == [] and "weight_int8" in small.state_dict()


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="not BatchNorm1d"):
        Int8Layer(nn.BatchNorm1d(3))


def test_a_model_keeps_what_it_does_and_loses_bytes():
    torch.manual_seed(0)
    model = Classifier(cnn(16, (8, 16), 32, norm=True), 32, 10)
    model(torch.randn(64, 1, 16, 16))  # statistics
    x, before = torch.randn(20, 1, 16, 16), copy.deepcopy(model.state_dict())
    small = quantized(model)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items()) and model.training
    assert not small.training
    z, want = small(x), model.eval()(x)
    assert (z - want).abs().max() < 0.05 * want.abs().max()
    weights = sum(m.weight.numel() for m in model.modules() if hasattr(m, "stride")) + sum(
        m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)
    )
    channels = 8 + 16 + 32 + 10
    assert stored_bytes(small) == stored_bytes(model) - 3 * weights + 4 * channels
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    assert stored_bytes(small) < len(file.getvalue()) < stored_bytes(small) + 8000


def test_a_saved_copy_comes_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    small, other = quantized(model), quantized(copy.deepcopy(model))
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(small.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(other(x), small(x)) and torch.equal(copy.deepcopy(small)(x), small(x))


def test_a_layer_that_occurs_twice_is_one_in_the_copy():
    layer = nn.Linear(4, 4)
    small = quantized(nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer)))
    assert small[0] is small[2][0]
    assert stored_bytes(small) == 16 + 4 * 4 + 4 * 4
    assert isinstance(quantized(layer), Int8Layer)


def test_attention_is_left_alone_and_still_works():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    x = torch.randn(2, 3, 8)
    small = quantized(layer)
    kinds = {name: type(m).__name__ for name, m in small.named_modules()}
    assert kinds["linear1"] == "Int8Layer" and kinds["self_attn.out_proj"] != "Int8Layer"
    want = layer.eval()(x)
    assert (small.train()(x) - want).abs().max() < 0.1


def test_models_that_cannot_be_stored_so_are_refused():
    with pytest.raises(ValueError, match="ReLU has no linear layer"):
        quantized(nn.ReLU())
    bad = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    bad[1][0].weight.data[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match=r"Layer 1\.0: The weight is not finite"):
        quantized(bad)


# ----------------------------------------------------------------------------------- bytes, memory
def test_shared_tensors_count_once_and_buffers_count():
    layer = nn.Linear(3, 3)
    assert stored_bytes(nn.Sequential(layer, layer)) == 48
    assert stored_bytes(nn.BatchNorm1d(4)) == 4 * 4 * 4 + 8  # and how many batches it saw


def test_pruned_weights_take_fewer_bytes_only_where_zeros_are_left_out():
    torch.manual_seed(0)
    layer = nn.Linear(64, 10, bias=False)
    prune.l1_unstructured(layer, "weight", amount=0.9)
    prune.remove(layer, "weight")
    assert stored_bytes(layer) == 2560
    assert sparse_bytes(layer) == 64 * 4 + 640 // 8
    assert sparse_bytes(nn.Linear(64, 10, bias=False)) == 2560, "a full tensor stays as it is"


def test_memory_of_a_pass_is_the_widest_pair():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    ).train()
    x = torch.zeros(1, 1, 16, 16)
    assert working_bytes(model, x) == 4 * (512 + 512) and model.training
    assert working_bytes(model, x.repeat(3, 1, 1, 1)) == 3 * 4 * 1024
    assert working_bytes(quantized(model), x) == 4 * 1024
    assert not any(m._forward_hooks for m in model.modules())


def test_calls_take_turns_in_evaluation_mode_and_the_median_counts(monkeypatch):
    seen, clock = [], iter(range(10**6))

    class Told(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen.append((self.name, self.training, torch.is_grad_enabled()))
            if self.name == "slow":
                [next(clock) for _ in range(9)]
            return x

    monkeypatch.setattr("mtl_course.transfer.compression.time.perf_counter", lambda: next(clock))
    models = {"slow": Told("slow"), "fast": Told("fast")}
    assert call_seconds(models, torch.zeros(1), rounds=3) == {"slow": 10, "fast": 1}
    assert seen == [("slow", False, False), ("fast", False, False)] * 3
    assert all(model.training for model in models.values())
    with pytest.raises(ValueError, match="rounds is 0"):
        call_seconds(models, torch.zeros(1), rounds=0)


def test_a_channel_of_zeros_stays_zero():
    q, scale = quantize(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))
    assert scale[0] == 1 and not dequantize(q, scale)[0].any()
