"""The fast recipe: what each part promises, and that the whole learns on a small slice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import data
from mtl_course.experiments import ch03_recipe
from mtl_course.experiments.ch03_recipe import Settings
from mtl_course.networks.cost import flops
from mtl_course.training.precision import Precision

TINY = Settings(widths=(8, 16, 16), epochs=3, batch=25, rate=1.0, bias_factor=1.0, mirror=False)


def pictures(n=200, size=32, seed=0):
    """Smooth random images in three channels that depend on each other, channels last in memory."""
    g = torch.Generator().manual_seed(seed)
    small = torch.randn(n, 3, size // 4, size // 4, generator=g)
    x = F.interpolate(small, size=size, mode="bilinear") + 0.1 * torch.randn(
        n, 3, size, size, generator=g
    )
    x = torch.einsum("dc,nchw->ndhw", torch.randn(3, 3, generator=g), x)
    return x.contiguous(memory_format=torch.channels_last)


def digits(n):
    """n digits to train on and 400 others."""
    ds = data.load("mnist_5k")
    rows = np.random.RandomState(0).permutation(5000)
    x, y = torch.from_numpy(ds.x[rows]), torch.from_numpy(ds.y[rows])
    return (x[:n], y[:n]), (x[4600:], y[4600:])


@pytest.mark.parametrize("side", [2, 3])
def test_whitened_patches_are_uncorrelated_with_variance_one(side):
    x = pictures()
    filters = ch03_recipe.whitening(x, side, epsilon=0.0)
    d = 3 * side**2
    assert filters.shape == (2 * d, 3, side, side)
    torch.testing.assert_close(filters[d:], -filters[:d])
    outputs = F.conv2d(x.contiguous(), filters[:d]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(outputs), torch.eye(d), atol=2e-2, rtol=0)
    raw = torch.cov(F.unfold(x, side).transpose(0, 1).flatten(1))
    assert float((raw - torch.eye(d)).abs().max()) > 0.2  # they were far from it


def test_filters_are_exact_for_many_patches_too():
    x = 1 + torch.randn(700, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    filters = ch03_recipe.whitening(x, epsilon=0.0)[:4]
    outputs = F.conv2d(x.double(), filters.double()).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(outputs), torch.eye(4).double(), atol=1e-5, rtol=0)


def test_epsilon_keeps_noise_small():
    constant = torch.ones(20, 1, 8, 8) + 1e-4 * torch.randn(20, 1, 8, 8)
    outputs = F.conv2d(constant - 1, ch03_recipe.whitening(constant, 2))
    assert float(outputs.std()) < 0.01


def test_shape_layout_and_what_is_learned():
    x = pictures(40)
    model = ch03_recipe.network(x, 10, Settings()).to(memory_format=torch.channels_last)
    assert model(x).shape == (40, 10)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "0.weight" not in learned and "0.bias" in learned
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6 and all(
        f"{n}.bias" in learned and f"{n}.weight" not in learned for n in norms
    )
    assert all(
        m.weight.is_contiguous(memory_format=torch.channels_last)
        for m in model.modules()
        if isinstance(m, nn.Conv2d)
    )


def test_work_of_the_network_is_what_the_formula_says():
    x = pictures(2)
    model = ch03_recipe.network(x, 10, Settings())
    sides = [
        (24, 3, 4, 31),
        (64, 24, 9, 31),
        (64, 64, 9, 15),
        (256, 64, 9, 15),
        (256, 256, 9, 7),
        (256, 256, 9, 7),
        (256, 256, 9, 3),
    ]  # channels after, before, window, side
    assert flops(model, x) == 2 * (
        sum(after * before * k * side**2 for after, before, k, side in sides) + 256 * 10
    )


def test_a_convolution_starts_as_the_identity_on_its_first_channels():
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(ch03_recipe.conv(4, 6)(x)[:, :4], x)
    torch.testing.assert_close(ch03_recipe.conv(4, 3)(x), x[:, :3])


def test_rate_goes_up_in_a_line_and_down_to_nothing():
    steps, warm = 200, 0.25
    found = [ch03_recipe.rate_at(k, steps, warm) for k in range(steps)]
    expected = np.interp(range(steps), [0, 50, 200], [0.2, 1.0, 0.0])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert max(found) == found[50] == 1.0 and 0 < found[-1] < 0.01


def test_optimizer_has_every_learned_parameter_once_and_a_fast_group():
    model = ch03_recipe.network(pictures(20), 10, Settings())
    optimizer = ch03_recipe.optimizer_for(model, Settings())
    others, biases = (group["params"] for group in optimizer.param_groups)
    held = [id(p) for p in [*others, *biases]]
    assert len(held) == len(set(held)) and set(held) == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    slow, fast = optimizer.param_groups
    assert (
        len(biases) == 6
        and fast["lr"] == Settings().bias_factor * slow["lr"] > slow["lr"]
        and fast["nesterov"]
    )
    assert fast["lr"] * fast["weight_decay"] == pytest.approx(
        slow["lr"] * slow["weight_decay"]
    )  # the same decay a step


def test_images_come_moved_whole_and_mirrored_in_turn():
    x = (
        torch.arange(6.0)[:, None, None, None]
        + torch.linspace(0, 0.5, 8)[None, None, None, :]
        + torch.zeros(6, 1, 8, 8)
    )
    images = ch03_recipe.Images(
        x, torch.arange(6), replace(TINY, batch=4, padding=1, mirror=True), seed=0
    )
    assert len(images) == 1
    directions = {}
    for epoch in range(12):
        batches = list(images)
        assert [len(b) for b, _ in batches] == [4]
        for image, label in zip(*batches[0], strict=True):
            assert (
                image.shape == (1, 8, 8)
                and int(image.mean()) == label
                and bool((image.max(1).values == image.min(1).values).all())
            )
            directions.setdefault((int(label), epoch % 2), set()).add(
                bool(image[0, 0, 2] < image[0, 0, 5])
            )
    for label in range(6):  # one way round in even epochs, the other in odd ones
        assert (
            directions[label, 0] != directions[label, 1]
            and len(directions[label, 0]) == len(directions[label, 1]) == 1
        )
    assert (
        len({tuple(d) for (_, parity), d in directions.items() if parity == 0}) == 2
    )  # the coin falls both ways


def test_prepare_standardises_channels_last():
    images = torch.randint(0, 200, (50, 8, 8, 3), dtype=torch.uint8)
    x = ch03_recipe.prepare(images, images, torch.device("cpu"))
    assert x.shape == (50, 3, 8, 8) and x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert ch03_recipe.prepare(images[..., 0], images[..., 0], torch.device("cpu")).shape == (
        50,
        1,
        8,
        8,
    )


def test_it_learns_and_a_seed_fixes_it():
    train, test = digits(1000)
    model, run = ch03_recipe.train(train, test, TINY, seed=1)
    assert len(run.accuracy) == len(run.seconds) == 3 and run.accuracy[-1] > 0.8 > run.accuracy[0]
    assert all(a < b for a, b in zip(run.seconds, run.seconds[1:], strict=False))
    again, _ = ch03_recipe.train(train, test, TINY, seed=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    labels = train[1][torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))]
    _, lost = ch03_recipe.train((train[0], labels), test, TINY, seed=1)
    assert lost.accuracy[-1] < 0.3  # labels drawn at random teach nothing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_trains_in_16_bits_with_weights_in_32(dtype):
    x = (40 * pictures(60) + 128).clamp(0, 255).byte().permute(0, 2, 3, 1)
    sets = [(x[part], torch.arange(len(x[part])) % 10) for part in (slice(40), slice(40, 60))]
    settings = replace(TINY, widths=(8, 16, 32), epochs=2, batch=20, precision=dtype)
    model, run = ch03_recipe.train(*sets, settings)
    state = model.state_dict()
    assert (
        all(torch.isfinite(v).all() for v in state.values())
        and state["2.weight"].dtype == torch.float32
        and len(run.accuracy) == 2
    )
    torch.manual_seed(0)
    start = ch03_recipe.network(
        ch03_recipe.prepare(sets[0][0], sets[0][0], torch.device("cpu")), 10, settings
    ).state_dict()
    assert torch.equal(start["0.weight"], state["0.weight"]) and not torch.equal(
        start["2.weight"], state["2.weight"]
    )


def test_compiled_is_the_same_network(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **options: compiled.append(self))
    train, test = digits(100)
    model, _ = ch03_recipe.train(train, test, replace(TINY, epochs=1, compiled=True))
    assert compiled == [model] and not any("_orig_mod" in name for name in model.state_dict())


def test_the_mirror_image_is_asked_too():
    class Left(nn.Module):
        def forward(
            self, x
        ):  # sure of class 0 where the left is bright, a little for class 1 otherwise
            bright = x[:, 0, :, 0].mean(1)
            return torch.stack([3 * bright, torch.ones_like(bright)], dim=1)

    x = torch.zeros(2, 1, 4, 4)
    x[0, :, :, 0], x[1, :, :, 3] = 1, 1
    args = (x, torch.zeros(2, dtype=torch.int64), Precision(None, x.device))
    assert (
        ch03_recipe.accuracy(Left(), *args, mirror=False) == 0.5
        and ch03_recipe.accuracy(Left(), *args, mirror=True) == 1.0
    )
