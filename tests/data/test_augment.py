"""Augmentation over a batch equals the same draws applied image by image; a seed fixes it; memory,
inputs and device stay as they are.
"""

import pytest
import torch
from torch.nn import functional as F

from mtl_course.checks.devices import PretendedGPU
from mtl_course.data.augment import compose, crop, cutout, flip

PARTS = {
    "flip": flip,
    "crop": crop(2),
    "crop of another width": crop(3),
    "reflected crop": crop(2, mode="reflect"),
    "cutout": cutout(4),
    "odd cutout": cutout(3),
    "all": compose(flip, crop(2), cutout(3)),
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(n=12, height=8, width=6, channels=3, seed=0):
    return torch.randn(n, channels, height, width, generator=seeded(seed))


# ------------------------------------------------ the same draws, one image and one pixel at a time
def naive_flip(x, generator):
    draws = torch.rand(len(x), generator=generator)
    return torch.stack(
        [image.flip(2) if u < 0.5 else image for image, u in zip(x, draws, strict=True)]
    )


def naive_crop(padding, mode):
    def cropped(x, generator):
        down, right = torch.randint(2 * padding + 1, (2, len(x), 1), generator=generator)[
            ..., 0
        ].tolist()
        h, w = x.shape[2:]
        padded = [F.pad(image[None], (padding,) * 4, mode=mode)[0] for image in x]
        return torch.stack(
            [p[:, i : i + h, j : j + w] for p, i, j in zip(padded, down, right, strict=True)]
        )

    return cropped


def naive_cutout(size):
    def cut(x, generator):
        h, w = x.shape[2:]
        centres = [
            torch.randint(n, (len(x), 1), generator=generator)[:, 0].tolist() for n in (h, w)
        ]
        x = x.clone()
        for image, i, j in zip(x, *centres, strict=True):
            top, left = i - size // 2, j - size // 2
            for row in range(max(top, 0), min(top + size, h)):
                for column in range(max(left, 0), min(left + size, w)):
                    image[:, row, column] = 0
        return x

    return cut


NAIVE = {
    "flip": naive_flip,
    "crop": naive_crop(2, "constant"),
    "crop of another width": naive_crop(3, "constant"),
    "reflected crop": naive_crop(2, "reflect"),
    "cutout": naive_cutout(4),
    "odd cutout": naive_cutout(3),
    "all": lambda x, g: naive_cutout(3)(naive_crop(2, "constant")(naive_flip(x, g), g), g),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_loop_over_images(name, seed):
    x = images(seed=seed)
    assert torch.equal(PARTS[name](x, seeded(seed)), NAIVE[name](x, seeded(seed)))


@pytest.mark.parametrize("name", PARTS)
def test_a_seed_fixes_the_draws_and_nothing_else_is_touched(name):
    x = images(64)
    kept, state = x.clone(), torch.get_rng_state()
    first, second, other = (PARTS[name](x, seeded(seed)) for seed in (1, 1, 2))
    assert (
        torch.equal(first, second) and not torch.equal(first, other) and not torch.equal(first, x)
    )
    assert torch.equal(x, kept) and torch.equal(torch.get_rng_state(), state)
    generator = seeded(1)
    PARTS[name](x, generator)
    assert not torch.equal(PARTS[name](x, generator), first), "the next batch has other draws"


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_format_and_dtype_are_kept(name, layout, channels):
    x = images(channels=channels).to(memory_format=layout)
    for dtype in (torch.float32, torch.bfloat16, *([] if "reflected" in name else [torch.uint8])):
        changed = PARTS[name](x.to(dtype), seeded(0))
        assert (
            changed.shape == x.shape
            and changed.dtype == dtype
            and changed.is_contiguous(memory_format=layout)
        )


@pytest.mark.parametrize("name", PARTS)
def test_everything_stays_on_the_device_of_the_images(name):
    gpu = PretendedGPU()
    x = gpu.take(images())
    with gpu:
        assert gpu.place(PARTS[name](x, seeded(0))) == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PARTS)
def test_on_a_gpu_nothing_waits_for_it(name):
    x, generator = images().cuda(), torch.Generator("cuda").manual_seed(0)
    PARTS[name](x, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert PARTS[name](x, generator).is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_half_of_the_images_are_mirrored():
    x = images(4000, 1, 2, 1)
    share = (flip(x, seeded(0)) != x).flatten(1).any(1).float().mean()
    assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5


def test_every_window_and_every_centre_occurs():
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3).expand(2000, 1, 3, 3)
    windows = {tuple(w) for w in crop(1)(x, seeded(0)).flatten(1).tolist()}
    holes = {tuple(w) for w in (cutout(1)(x, seeded(0)) == 0).flatten(1).tolist()}
    assert len(windows) == 9 and len(holes) == 9 and all(sum(h) == 1 for h in holes)


@pytest.mark.parametrize(
    "make, words", [(lambda: crop(0), "padding is 0"), (lambda: cutout(0), "size is 0")]
)
def test_sizes_that_do_nothing_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", PARTS)
def test_what_is_no_batch_of_images_is_refused(name):
    with pytest.raises(ValueError, match=r"x has shape \(5, 4\); augmentation needs images"):
        PARTS[name](torch.randn(5, 4), seeded(0))
