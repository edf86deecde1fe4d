"""Against torchvision's crops of 8-bit images, and Pillow's, and one way against the other."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from fishr.data.images.domainbed_augmentation import DrawnAugmentation, augment, crop, crop_together, draw_augmentation
from fishr.data.images.preprocessing import Preprocessing

SEEDS = range(24)


def _pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _crop(images, drawn, size):
    return crop(((image.permute(1, 2, 0), one) for image, one in zip(images, drawn, strict=True)), size)


def _geometry(drawn):
    """The crop and the mirror alone."""
    box = (drawn.top, drawn.left, drawn.height, drawn.width)
    return DrawnAugmentation(*box, mirrored=drawn.mirrored, jitters=(), gray=False)


@pytest.mark.parametrize(("width", "height", "size"), [(50, 37, 24), (31, 31, 31), (20, 33, 48)])
def test_each_crop_is_torchvisions_and_pillows(noise, width, height, size):
    """To the bit torchvision's of 8-bit tensors, and within one level Pillow's; of images that shrink and that grow."""
    images = [noise(seed, width, height) for seed in SEEDS]
    drawn = [draw_augmentation(seed, width, height) for seed in SEEDS]
    made = _crop([_pixels(image) for image in images], drawn, size)
    assert (made.shape, made.dtype) == ((len(drawn), 3, size, size), torch.uint8)
    for cut, image, one in zip(made, images, drawn, strict=True):
        theirs = F.resized_crop(_pixels(image), one.top, one.left, one.height, one.width, [size, size], antialias=True)
        assert torch.equal(cut, F.horizontal_flip(theirs) if one.mirrored else theirs)
        pillows = _pixels(augment(image, _geometry(one), Preprocessing(size))).int()
        assert (cut.int() - pillows).abs().max() <= 1


def test_a_batch_at_once_rounds_like_one_by_one(noise):
    """The accelerators' way, on a CPU: the same to one level, as it rounds once where the other rounds each axis."""
    images = torch.stack([_pixels(noise(seed, 40, 40)) for seed in SEEDS])
    drawn = [draw_augmentation(seed, 40, 40) for seed in SEEDS]
    whole = DrawnAugmentation(0, 0, 40, 40, mirrored=False, jitters=(), gray=False)
    together, each = crop_together(images, [whole, *drawn[1:]], 40), _crop(images, [whole, *drawn[1:]], 40)
    assert torch.equal(together[0], images[0])
    difference = (together.int() - each.int()).abs()
    assert difference.max() <= 1
    assert (difference == 0).double().mean() > 0.85


def test_a_batch_at_once_against_torchvisions_floats(noise):
    """It rounds what torchvision makes of floats: within half a level, but for the rounding of coordinates."""
    images = torch.stack([_pixels(noise(seed, 40, 40)) for seed in SEEDS])
    drawn = [draw_augmentation(seed, 40, 40) for seed in SEEDS]
    for cut, image, one in zip(crop_together(images, drawn, 40), images, drawn, strict=True):
        theirs = F.resized_crop(image.float(), one.top, one.left, one.height, one.width, [40, 40], antialias=True)
        theirs = F.horizontal_flip(theirs) if one.mirrored else theirs
        assert (cut - theirs).abs().max() < 0.502


def test_pixels_beyond_the_crop_do_not_show():
    """Coordinates end at the crop's edge, as torchvision's do, not at the image's."""
    image = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    image[:, :, 2:6, 3:8] = 0
    inside = DrawnAugmentation(2, 3, 4, 5, mirrored=True, jitters=(), gray=False)
    assert not crop_together(image, [inside], 8).any()
    assert not _crop(image, [inside], 8).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_as_on_the_cpu(noise):
    images = torch.stack([_pixels(noise(seed, 40, 40)) for seed in SEEDS])
    drawn = [draw_augmentation(seed, 40, 40) for seed in SEEDS]
    there = crop_together(images.cuda(), drawn, 40)
    assert there.is_cuda
    assert (there.cpu().int() - _crop(images, drawn, 40).int()).abs().max() <= 1
