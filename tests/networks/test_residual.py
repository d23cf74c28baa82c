"""The residual trunk, against torchvision's: same blocks, same counts, and maps of the size that
small images need.
"""

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.resnet import BasicBlock

from mtl_course.multitask.sharing import HardSharing
from mtl_course.networks.cost import flops, parameters
from mtl_course.networks.residual import Block, resnet

SEED = 0


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(SEED)


def copy(ours: Block, other: BasicBlock) -> None:
    """Torchvision's weights and statistics into our block, by the role of each part."""
    for name in ("conv1", "bn1", "conv2", "bn2"):
        getattr(ours, name).load_state_dict(getattr(other, name).state_dict())
    if other.downsample is not None:
        ours.shortcut.load_state_dict(other.downsample.state_dict())


def shaken(model: nn.Module) -> nn.Module:
    """The model with norms whose scales, shifts and statistics are not those of a fresh one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for t in (module.weight, module.running_var):
                nn.init.uniform_(t, 0.5, 1.5)
            for t in (module.bias, module.running_mean):
                nn.init.normal_(t, std=0.2)
    return model


def theirs(inputs: int, width: int, stride: int) -> BasicBlock:
    same = stride == 1 and inputs == width
    return shaken(
        BasicBlock(
            inputs,
            width,
            stride,
            (
                None
                if same
                else nn.Sequential(
                    nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )
            ),
        )
    )


@pytest.mark.parametrize(
    ("inputs", "width", "stride"), [(8, 8, 1), (8, 16, 2), (8, 8, 2), (4, 8, 1)]
)
@pytest.mark.parametrize("training", [True, False])
def test_block_is_torchvisions_with_its_weights(inputs, width, stride, training):
    other = theirs(inputs, width, stride).train(training)
    ours = Block(inputs, width, stride).train(training)
    copy(ours, other)
    x = torch.randn(5, inputs, 9, 9)
    copies = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [block(z) for block, z in zip((other, ours), copies, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for out in outputs:
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    torch.testing.assert_close(copies[1].grad, copies[0].grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.bn2.running_var, other.bn2.running_var)


def test_large_stem_is_resnet18_with_its_weights():
    other = shaken(resnet18(weights=None)).eval()
    ours = resnet((2, 2, 2, 2), (64, 128, 256, 512), stem="large").eval()
    ours.stem[0].load_state_dict(other.conv1.state_dict())
    ours.stem[1].load_state_dict(other.bn1.state_dict())
    for stage, layer in zip(
        ours.stages, (other.layer1, other.layer2, other.layer3, other.layer4), strict=True
    ):
        for block, its in zip(stage, layer, strict=True):
            copy(block, its)
    x = torch.randn(2, 3, 64, 64)
    other.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), other(x), rtol=1e-4, atol=1e-4)


def test_parameters_and_multiply_adds_of_resnet18_are_the_published_ones():
    meta = ResNet18_Weights.IMAGENET1K_V1.meta
    ours = HardSharing(
        resnet((2, 2, 2, 2), (64, 128, 256, 512), stem="large"), {"imagenet": nn.Linear(512, 1000)}
    )
    assert parameters(ours) == meta["num_params"]
    assert flops(ours, torch.zeros(1, 3, 224, 224)) / 2e9 == pytest.approx(meta["_ops"], abs=1e-3)


def sides(maps):
    return [tuple(m.shape[2:]) for m in maps]


def test_small_stem_keeps_the_resolution():
    model = resnet()
    x = torch.randn(2, 3, 32, 32)
    assert sides(model.maps(x)) == [(32, 32), (16, 16), (8, 8)]
    assert [m.shape[1] for m in model.maps(x)] == [64, 128, 256]
    assert model(x).shape == (2, 256) and model.features == 256
    assert sides(resnet((1, 1), (4, 8), in_channels=1).maps(torch.randn(2, 1, 28, 28))) == [
        (28, 28),
        (14, 14),
    ]


def test_pool_keeps_the_quarter_a_thing_is_in():
    model = resnet((1, 1), (4, 8), in_channels=1, pool=2).eval()
    x = torch.randn(3, 1, 16, 16)
    last, features = model.maps(x)[-1], model(x)
    assert features.shape == (3, 32) and model.features == 32
    quarters = torch.stack(
        [last[:, :, i : i + 4, j : j + 4].mean(dim=(2, 3)) for i in (0, 4) for j in (0, 4)], dim=2
    )
    torch.testing.assert_close(features, quarters.flatten(1))


def test_torchvisions_resnet18_ends_with_a_single_pixel_on_small_images():
    theirs, seen = resnet18(weights=None), {}
    theirs.layer4.register_forward_hook(
        lambda module, given, out: seen.update(side=tuple(out.shape[2:]))
    )
    theirs(torch.randn(2, 3, 32, 32))
    assert seen["side"] == (1, 1)
    assert sides(
        resnet((2, 2, 2, 2), (8, 16, 32, 64), stem="large").maps(torch.randn(2, 3, 32, 32))
    ) == [(8, 8), (4, 4), (2, 2), (1, 1)]


def by_hand(depths, widths, in_channels, side):
    """Multiply-adds and parameters from the formula k * k * c_in * c_out (* h * w), in plain
    Python.
    """
    madds = 9 * in_channels * widths[0] * side**2
    weights = 9 * in_channels * widths[0] + 2 * widths[0]
    inputs = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        side = side if stage == 0 else (side + 1) // 2
        for k in range(depth):
            shortcut = inputs * width if stage and k == 0 else 0
            madds += (9 * inputs * width + 9 * width * width + shortcut) * side**2
            weights += (
                9 * inputs * width
                + 9 * width * width
                + 4 * width
                + (shortcut + 2 * width if shortcut else 0)
            )
            inputs = width
    return madds, weights


@pytest.mark.parametrize(
    ("depths", "widths", "in_channels", "side"),
    [((2, 2, 2), (64, 128, 256), 3, 32), ((1, 1), (8, 16), 1, 20), ((1, 2, 1), (4, 8, 8), 1, 18)],
)
def test_counts_are_those_of_the_formula(depths, widths, in_channels, side):
    model = resnet(depths, widths, in_channels)
    madds, weights = by_hand(depths, widths, in_channels, side)
    assert parameters(model) == weights
    assert flops(model, torch.zeros(3, in_channels, side, side)) == 2 * madds


def test_every_parameter_gets_a_gradient_and_activations_stay_of_one_size():
    model = resnet((2, 2, 2), (16, 32, 64), in_channels=1)
    x = torch.randn(16, 1, 20, 20)
    model(x).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())
    scales = [float(m.detach().std()) for m in model.maps(x)]
    assert max(scales) < 10 * min(scales)


def test_channels_last_gives_the_same_features():
    model = resnet((1, 1), (4, 8)).eval()
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    torch.testing.assert_close(
        model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "wrong", [{"depths": (2, 2)}, {"depths": ()}, {"depths": (1, 0, 1)}, {"stem": "7x7"}]
)
def test_what_makes_no_network_is_refused(wrong):
    with pytest.raises(ValueError, match="stem" if "stem" in wrong else "depth"):
        resnet(
            **(
                ({"widths": (4, 8, 16)} | wrong)
                if wrong.get("depths") != ()
                else {"depths": (), "widths": ()}
            )
        )
