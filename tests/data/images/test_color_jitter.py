"""Against torchvision's operations on floating-point tensors, image by image."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as F

from fishr.data.images.color_jitter import jitter_colors, jitter_together
from fishr.data.images.domainbed_augmentation import JITTERS, DrawnAugmentation, draw_augmentation
from fishr.data.images.preprocessing import Preprocessing

# Of values from 0 to 1: some roundings of float32 after each other, where 8-bit images have steps of 4e-3.
TOLERANCE = 4e-6
CLIP = Preprocessing(17, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def _batch(count, height=15, width=17, seed=0):
    """Noise, with the edges of the colour space and with pixels whose channels are equal in every way."""
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()
    corners = torch.tensor(list(itertools.product((0, 100, 255), repeat=3))).byte()
    for image in pixels:
        image.view(3, -1)[:, : len(corners)] = corners.T
    return pixels


def _drawn(seeds):
    return [draw_augmentation(seed, 17, 15) for seed in seeds]


def _theirs(image, drawn):
    values = image.float() / 255
    for name, factor in drawn.jitters:
        values = getattr(F, f"adjust_{name}")(values, factor)
    values = F.rgb_to_grayscale(values, 3) if drawn.gray else values
    return F.normalize(values, list(CLIP.mean), list(CLIP.std))


def _worst(images, drawn):
    made = jitter_colors(images, drawn, CLIP)
    assert (made.shape, made.dtype) == (images.shape, torch.float32)
    theirs = torch.stack([_theirs(image, one) for image, one in zip(images, drawn, strict=True)])
    return float(((made - theirs) * torch.tensor(CLIP.std).view(3, 1, 1)).abs().max())


def test_drawn_colours_are_torchvisions():
    drawn = _drawn(range(120))
    assert {one.gray for one in drawn} == {True, False}
    assert _worst(_batch(120), drawn) < TOLERANCE


@pytest.mark.parametrize("gray", [False, True])
def test_every_order_is_torchvisions(gray):
    drawn = [
        DrawnAugmentation(0, 0, 15, 17, False, tuple((name, {"hue": -0.3}.get(name, 1.3)) for name in order), gray)
        for order in itertools.permutations(JITTERS)
    ]
    assert _worst(_batch(24), drawn) < TOLERANCE


@given(name=st.sampled_from(JITTERS), factor=st.floats(0, 1), seed=st.integers(0, 99))
@example(name="hue", factor=4 / 18, seed=0)
@example(name="hue", factor=14 / 18, seed=0)
@settings(max_examples=60)
def test_each_change_alone(name, factor, seed):
    factor = (0.6 * factor - 0.3) if name == "hue" else (0.7 + 0.6 * factor)
    jitters = tuple((each, factor if each == name else NEUTRAL[each]) for each in JITTERS)
    assert _worst(_batch(1, seed=seed), [DrawnAugmentation(0, 0, 15, 17, False, jitters, False)]) < TOLERANCE


def test_without_changes_pixels_stay():
    images = _batch(2)
    same = jitter_colors(images, [DrawnAugmentation(0, 0, 15, 17, False, tuple(NEUTRAL.items()), False)] * 2, CLIP)
    values = (same * torch.tensor(CLIP.std).view(3, 1, 1) + torch.tensor(CLIP.mean).view(3, 1, 1)) * 255
    assert (values - images).abs().max() < 1e-3


def test_what_becomes_of_an_image_depends_on_no_other():
    """The same bits in any batch and place."""
    images, drawn = _batch(40, 19, 23), _drawn(range(40))
    whole = jitter_colors(images, drawn, CLIP)
    for row in (0, 7, 39):
        assert torch.equal(jitter_colors(images[row : row + 1], drawn[row : row + 1], CLIP)[0], whole[row])
    order = torch.randperm(40)
    assert torch.equal(jitter_colors(images[order], [drawn[row] for row in order], CLIP), whole[order])


class Count(TorchDispatchMode):
    """The number of operators that are called."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_an_image_takes_few_operators():
    """Reading threads wait for each other in each."""
    images, drawn = _batch(64), _drawn(range(64))
    with Count() as count:
        jitter_colors(images, drawn, CLIP)
    assert count.number < 64 * 17


def test_together_as_one_by_one():
    """The kernels of a GPU, on the CPU, to rounding: before they are normalized, values are those of ``_batch``."""
    bare = Preprocessing(17, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    for count in (1, 2, 40):
        images, drawn = _batch(count, 19, 23), _drawn(range(count))
        assert (jitter_together(images, drawn) - jitter_colors(images, drawn, bare)).abs().max() < 255 * TOLERANCE


def test_threads_change_no_bit():
    """Of an image large enough that threads share it, more threads than it has channels."""
    images, drawn = _batch(1, 201, 203), _drawn(range(1))
    alone = jitter_colors(images, drawn, CLIP)
    try:
        torch.set_num_threads(5)
        assert torch.equal(jitter_colors(images, drawn, CLIP), alone)
    finally:
        torch.set_num_threads(1)


def test_inputs_stay_as_they_are_and_may_have_any_strides():
    images, drawn = _batch(5), _drawn(range(5))
    before = images.clone()
    made = jitter_colors(images, drawn, CLIP)
    assert torch.equal(images, before)
    assert torch.equal(jitter_colors(images.contiguous(memory_format=torch.channels_last), drawn, CLIP), made)
    assert jitter_colors(images[:0], [], CLIP).shape == (0, 3, 15, 17)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_as_on_the_cpu():
    images, drawn = _batch(40), _drawn(range(40))
    there = jitter_colors(images.cuda(), drawn, CLIP)
    assert there.is_cuda
    assert torch.allclose(there.cpu(), jitter_colors(images, drawn, CLIP), atol=1e-4)
