"""Corruptions: each does what its name says, whole batches at a time, and the same again for the
same generator.
"""

import pytest
import torch

from mtl_course.data import corruptions
from mtl_course.data.corruptions import STRENGTHS, corrupt


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, size=16):
    return torch.rand(n, channels, size, size, generator=generator(1))


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("severity", [1, 5])
def test_keeps_shape_range_and_dtype_and_leaves_the_input_alone(name, severity):
    for dtype in (torch.float32, torch.float64):
        x = images().to(dtype)
        before = x.clone()
        out = corrupt(x, name, severity, generator())
        assert out.shape == x.shape and out.dtype == dtype
        assert out.min() >= 0 and out.max() <= 1
        assert torch.equal(x, before) and not torch.equal(out, x)


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_same_seed_gives_the_same_pictures(name):
    assert torch.equal(
        corrupt(images(), name, 3, generator(7)), corrupt(images(), name, 3, generator(7))
    )


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "rotate", "translate"])
def test_another_seed_gives_others(name):
    assert not torch.equal(
        corrupt(images(), name, 3, generator(7)), corrupt(images(), name, 3, generator(8))
    )


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_higher_severity_is_farther_from_the_clean_picture(name):
    # Smooth pictures, so that a farther shift changes more.
    x = corruptions.gaussian_blur(images(64, 1, 24), 0.12)
    x = (x - x.min()) / (x.max() - x.min())
    far = [
        float((corrupt(x, name, severity, generator()) - x).square().mean())
        for severity in range(1, 6)
    ]
    assert far == sorted(far) and far[0] < far[-1] / 2


def test_gaussian_noise_has_its_standard_deviation():
    noise = corruptions.gaussian_noise(torch.full((10, 1, 64, 64), 0.5), 0.05, generator()) - 0.5
    assert abs(float(noise.mean())) < 0.001 and abs(float(noise.std()) - 0.05) < 0.001


def test_impulse_noise_hits_its_share_of_the_values_half_of_them_white():
    out = corruptions.impulse_noise(torch.full((10, 3, 64, 64), 0.5), 0.2, generator())
    assert abs(float((out == 1).float().mean()) - 0.1) < 0.005
    assert abs(float((out == 0).float().mean()) - 0.1) < 0.005
    assert float(((out != 0) & (out != 1)).float().mean()) == pytest.approx(
        float((out == 0.5).float().mean())
    )


def test_blur_keeps_a_flat_image_and_spreads_a_point_by_its_width():
    flat = torch.full((2, 1, 20, 20), 0.3)
    torch.testing.assert_close(corruptions.gaussian_blur(flat, 0.08), flat)
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    out = corruptions.gaussian_blur(point, 2 / 41)[0, 0]
    assert float(out.sum()) == pytest.approx(1)
    place = torch.arange(41, dtype=torch.float64) - 20
    for axis in (0, 1):
        assert float((out.sum(axis) * place**2).sum()) == pytest.approx(
            4, rel=0.05
        )  # its variance: cut off at three deviations


def test_contrast_keeps_the_mean_of_every_channel():
    x = images()
    out = corruptions.contrast(x, 0.25)
    torch.testing.assert_close(out.mean(dim=(2, 3)), x.mean(dim=(2, 3)))
    torch.testing.assert_close(
        out - out.mean(dim=(2, 3), keepdim=True), 0.25 * (x - x.mean(dim=(2, 3), keepdim=True))
    )


def test_a_quarter_turn_is_a_quarter_turn_to_either_side():
    x = images(40, 2, 9)
    out = corruptions.rotate(x, 90, generator())
    left = [
        torch.allclose(a, b, atol=1e-5) for a, b in zip(out, torch.rot90(x, 1, (2, 3)), strict=True)
    ]
    right = [
        torch.allclose(a, b, atol=1e-5)
        for a, b in zip(out, torch.rot90(x, -1, (2, 3)), strict=True)
    ]
    assert all(a != b for a, b in zip(left, right, strict=True)) and 5 < sum(left) < 35


def test_a_shift_has_its_length_in_any_direction():
    x = torch.zeros(200, 1, 40, 40, dtype=torch.float64)
    x[..., 18:22, 18:22] = 1
    out = corruptions.translate(x, 0.2, generator())[:, 0]
    place = torch.arange(40, dtype=torch.float64)
    centre = torch.stack(
        [(out.sum(axis) * place).sum(1) / out.sum((1, 2)) for axis in (1, 2)], dim=1
    )
    moved = centre - 19.5
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((200,), 8.0, dtype=torch.float64), atol=0.05, rtol=0
    )
    assert (
        (moved.mean(0).abs() < 1).all() and (moved > 5).any(0).all() and (moved < -5).any(0).all()
    )


@pytest.mark.parametrize(
    ("name", "severity", "x", "said"),
    [
        ("fog", 1, images(), "gaussian_noise"),
        ("contrast", 0, images(), "severity"),
        ("contrast", 6, images(), "severity"),
        ("contrast", 1, (images() * 255).byte(), "uint8"),
        ("contrast", 1, images()[0], "shape"),
    ],
)
def test_bad_input_is_refused(name, severity, x, said):
    with pytest.raises(ValueError, match=said):
        corrupt(x, name, severity, generator())
