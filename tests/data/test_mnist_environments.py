"""DomainBed's two data sets of MNIST, against its construction written out with torchvision."""

import struct

import numpy as np
import pytest
import torch

from fishr.data.mnist import ANGLES, DomainBedColoredMNIST, RotatedMNIST, all_digits, rotated
from fishr.errors import InputError

SEED = 1295264072


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files like MNIST's, of 600 and 100 random images."""
    home = tmp_path_factory.mktemp("mnist")
    raw = home / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for stem, count in (("train", 600), ("t10k", 100)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + images.tobytes())
        labels = random.integers(0, 10, count, np.uint8)
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())
    return home


@pytest.fixture(scope="module")
def digits(folder):
    return all_digits(folder)


def test_all_digits_are_the_training_ones_then_the_test_ones(folder, digits):
    from torchvision.datasets import MNIST

    parts = [MNIST(str(folder), train=train) for train in (True, False)]
    assert torch.equal(digits[0], torch.cat([part.data for part in parts]))
    assert torch.equal(digits[1], torch.cat([part.targets for part in parts]))


def _bernoulli(p, size):
    return (torch.rand(size) < p).float()


def test_colored_is_domainbeds_to_the_bit(folder, digits):
    torch.manual_seed(SEED)
    order = torch.randperm(700)
    images, numbers = digits[0][order], digits[1][order]
    found = DomainBedColoredMNIST()(SEED, folder)
    assert found.classes == 2
    for index, flip in enumerate((0.1, 0.2, 0.9)):
        own, labels = images[index::3], (numbers[index::3] < 5).float()
        labels = (labels - _bernoulli(0.25, len(labels))).abs()
        colors = (labels - _bernoulli(flip, len(labels))).abs()
        both = torch.stack([own, own], dim=1)
        both[torch.arange(len(both)), (1 - colors).long()] *= 0
        domain = found.domains[index]
        assert torch.equal(domain.inputs, both.float().div(255))
        assert torch.equal(domain.labels, labels.long())


def test_rotated_is_domainbeds_to_the_bit(folder, digits):
    from torchvision.transforms import functional as F

    torch.manual_seed(SEED)
    order = torch.randperm(700)
    found = RotatedMNIST(samples=5)(SEED, folder)
    assert found.classes == 10
    for index, angle in enumerate(ANGLES):
        rows = order[index::6][:5]
        for row, image in zip(rows, found.domains[index].inputs, strict=True):
            turned = F.rotate(
                F.to_pil_image(digits[0][row]), angle, interpolation=F.InterpolationMode.BILINEAR, fill=(0,)
            )
            assert torch.equal(image, F.to_tensor(turned))
        assert torch.equal(found.domains[index].labels, digits[1][rows])


def test_fewer_samples_are_the_first_of_all(folder):
    few, all_ = DomainBedColoredMNIST(samples=7)(1, folder), DomainBedColoredMNIST()(1, folder)
    for one, other in zip(few.domains, all_.domains, strict=True):
        assert torch.equal(one.inputs, other.inputs[:7])
        assert torch.equal(one.labels, other.labels[:7])
    few, more = RotatedMNIST(samples=2)(1, folder), RotatedMNIST(samples=3)(1, folder)
    for one, other in zip(few.domains, more.domains, strict=True):
        assert torch.equal(one.inputs, other.inputs[:2])


def test_turning_is_counter_clockwise_and_keeps_the_size():
    image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2] = 255  # top middle
    assert rotated(image, 90)[0, 0].argmax().item() == 2 * 5  # left middle
    assert rotated(image, 0)[0, 0, 0, 2] == 1


@pytest.mark.parametrize("data", [DomainBedColoredMNIST, RotatedMNIST])
def test_refusals(data, tmp_path):
    with pytest.raises(InputError, match="samples: got 0, expected a whole number of at least 1"):
        data(samples=0)
    with pytest.raises(InputError, match="found no train-images"):
        data()(0, tmp_path)


def test_the_real_digits(mnist_dir):
    images, numbers = all_digits(mnist_dir)
    assert images.shape == (70_000, 28, 28)
    # The first labels of MNIST's two files, as everyone who has seen them knows.
    assert numbers[:5].tolist() == [5, 0, 4, 1, 9]
    assert numbers[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
