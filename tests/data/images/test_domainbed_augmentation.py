"""Against torchvision: the distribution of what is drawn, and the application of one draw."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchvision import transforms as T
from torchvision.transforms import functional as F

from fishr.data.images.domainbed_augmentation import DrawnAugmentation, augment, draw_augmentation
from fishr.data.images.preprocessing import Preprocessing

DRAWS = 4000
# A test of two samples of this size that agree fails once in 10,000 times; seeds are fixed, so it is no matter of luck.
SIGNIFICANCE = 1e-4


def _ours(width, height, draws=DRAWS):
    return [draw_augmentation(seed, width, height) for seed in range(draws)]


def _torchvisions(width, height, draws=DRAWS):
    image = torch.zeros(3, height, width)
    torch.manual_seed(1)
    return np.array([T.RandomResizedCrop.get_params(image, [0.7, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)])


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(227, 227), (100, 150), (400, 260), (185, 100)])
def test_crops_are_distributed_as_torchvisions(width, height):
    """In images into which drawn shapes fit often, and in one where most are cut in the middle."""
    ours = np.array([(a.top, a.left, a.height, a.width) for a in _ours(width, height)])
    theirs = _torchvisions(width, height)
    quantities = {
        "top": lambda c: c[:, 0],
        "left": lambda c: c[:, 1],
        "height": lambda c: c[:, 2],
        "width": lambda c: c[:, 3],
        "area": lambda c: c[:, 2] * c[:, 3],
        "aspect": lambda c: c[:, 3] / c[:, 2],
        "centre": lambda c: c[:, 0] + c[:, 2] / 2 - c[:, 1] - c[:, 3] / 2,
    }
    for name, quantity in quantities.items():
        assert stats.ks_2samp(quantity(ours), quantity(theirs), method="asymp").pvalue > SIGNIFICANCE, name
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    # The last row and column are reached, as the first are.
    for start, length, side in ((0, 2, height), (1, 3, width)):
        assert (ours[:, start] + ours[:, length] == side).any()
        assert (ours[:, start] == 0).any()


@pytest.mark.parametrize(("width", "height"), [(500, 3), (3, 500), (7, 1), (1000, 430), (430, 1000)])
def test_what_no_crop_fits_is_cut_in_the_middle_as_torchvision_does(width, height):
    """70 % of the area never lie within the aspect ratios."""
    theirs = {tuple(map(int, row)) for row in _torchvisions(width, height, 20)}
    assert len(theirs) == 1
    assert {(a.top, a.left, a.height, a.width) for a in _ours(width, height, 20)} == theirs


@given(seed=st.integers(0, 2**62), width=st.integers(1, 900), height=st.integers(1, 900))
def test_every_crop_lies_in_its_image(seed, width, height):
    drawn = draw_augmentation(seed, width, height)
    assert drawn.top >= 0
    assert drawn.left >= 0
    assert 0 < drawn.height <= height - drawn.top
    assert 0 < drawn.width <= width - drawn.left
    assert drawn == draw_augmentation(seed, width, height)


def test_colours_are_distributed_as_torchvisions():
    jitter = T.ColorJitter(0.3, 0.3, 0.3, 0.3)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    torch.manual_seed(1)
    theirs = [jitter.get_params(*ranges) for _ in range(DRAWS)]
    ours = _ours(227, 227)
    names = ("brightness", "contrast", "saturation", "hue")
    for index, name in enumerate(names):
        factors = [dict(a.jitters)[name] for a in ours]
        assert stats.ks_2samp(factors, [row[1 + index] for row in theirs], method="asymp").pvalue > SIGNIFICANCE, name
        low, high = ranges[index]
        assert low <= min(factors) < low + 0.01
        assert high - 0.01 < max(factors) <= high
    orders = [tuple(name for name, _ in a.jitters) for a in ours]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_half_are_mirrored_and_a_tenth_is_gray():
    ours = _ours(227, 227)
    for flags, probability in (([a.mirrored for a in ours], 0.5), ([a.gray for a in ours], 0.1)):
        assert stats.binomtest(sum(flags), DRAWS, probability).pvalue > SIGNIFICANCE


def test_draws_are_independent_of_each_other_and_of_the_neighbouring_seeds():
    ours = _ours(227, 227)
    columns = np.array(
        [
            (a.top, a.left, a.width * a.height, a.mirrored, *(dict(a.jitters)[n] for n in sorted(dict(a.jitters))))
            for a in ours
        ]
    )
    correlation = np.corrcoef(columns[:, 3:].T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 5 / math.sqrt(DRAWS)
    for column in columns.T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 5 / math.sqrt(DRAWS)


def test_colours_do_not_depend_on_the_size():
    """As from files and from a cache of them, of which one may need more tries to find a crop."""
    for one, other in zip(_ours(20, 20, 50), _ours(190, 100, 50), strict=True):
        assert (one.mirrored, one.jitters, one.gray) == (other.mirrored, other.jitters, other.gray)


def test_golden_draw():
    """Computed by this library; a change of it changes what every seed of an experiment means."""
    drawn = draw_augmentation(7, 227, 180)
    assert (drawn.top, drawn.left, drawn.height, drawn.width) == (1, 5, 167, 202)
    assert (drawn.mirrored, drawn.gray) == (True, False)
    assert [name for name, _ in drawn.jitters] == ["hue", "contrast", "brightness", "saturation"]
    assert dict(drawn.jitters)["hue"] == pytest.approx(0.02152920258401353, abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_application_is_torchvisions_by_hand(noise, seed):
    image = noise(seed, 50, 37)
    drawn = draw_augmentation(seed, 50, 37)
    by_hand = F.resize(F.crop(image, drawn.top, drawn.left, drawn.height, drawn.width), [24, 24])
    if drawn.mirrored:
        by_hand = F.hflip(by_hand)
    for name, factor in drawn.jitters:
        by_hand = getattr(F, f"adjust_{name}")(by_hand, factor)
    if drawn.gray:
        by_hand = F.to_grayscale(by_hand, num_output_channels=3)
    made = augment(image, drawn, Preprocessing(24))
    assert (made.mode, made.size) == ("RGB", (24, 24))
    assert made.tobytes() == by_hand.tobytes()


def test_each_part_of_an_augmentation_shows(noise):
    image = noise(0, 40, 40)
    nothing = {"top": 0, "left": 0, "height": 40, "width": 40, "mirrored": False, "jitters": (), "gray": False}
    assert augment(image, DrawnAugmentation(**nothing), Preprocessing(40)).tobytes() == image.tobytes()
    gray = np.asarray(augment(image, DrawnAugmentation(**nothing | {"gray": True}), Preprocessing(40)))
    assert (gray[..., :1] == gray).all()
    mirrored = np.asarray(augment(image, DrawnAugmentation(**nothing | {"mirrored": True}), Preprocessing(40)))
    assert np.array_equal(mirrored, np.asarray(image)[:, ::-1])
    bright, turned = ("brightness", 1.3), ("hue", 0.2)
    one, other = (
        augment(image, DrawnAugmentation(**nothing | {"jitters": order}), Preprocessing(40)).tobytes()
        for order in ((bright, turned), (turned, bright))
    )
    assert one != other
