"""Domains of MNIST: ColoredMNIST of the IRM paper, and DomainBed's DomainBedColoredMNIST and RotatedMNIST."""

from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import optional
from PIL import Image
from torch import Tensor

from fishr.checks import whole
from fishr.data.domains import Domain, Domains
from fishr.data.environments import Environments
from fishr.data.mnist_files import ALL, find_mnist, read_mnist
from fishr.data.spurious_color import binary_labels, check_flips, check_remainder, colored, colored_domains, flipped
from fishr.paths import DATA

FLIPS = (0.1, 0.2, 0.9)
COLOR_NAMES = ("+90%", "+80%", "-90%")
ANGLES = (0, 15, 30, 45, 60, 75)
LABEL_NOISE = 0.25


@frozen
class ColoredMNIST:
    """MNIST's 60,000 training digits with a color that is spuriously correlated with the label.

    The first ``training_images`` images are shuffled by the seed and dealt in turn to the training domains; the rest
    (the last 10,000) evaluates. Every second pixel is kept: inputs are [N, 2, 14, 14] float32 from 0 to 1.

    Args:
        flips: Probability of a wrong color in each training domain.
        test_flip: Probability of a wrong color in the evaluation domain "reversed".
        label_noise: Probability that a label (digit below five) is wrong; 0 for clean labels.
        training_images: Number of images, from the beginning of the file, to train on.

    Raises:
        InputError: A probability outside 0 to 1, equal flips, or too few or too many training images; when called,
            files that are missing, truncated or not MNIST's.

    Source:
        Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """

    flips: tuple[float, ...] = (0.2, 0.1)
    test_flip: float = 0.9
    label_noise: float = 0.25
    training_images: int = 50_000

    def __attrs_post_init__(self) -> None:
        check_flips(self.flips, self.test_flip, self.label_noise, self.training_images)

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Return the domains of one seed from the files in ``data_dir`` (default: the folder "data")."""
        images, digits = map(torch.from_numpy, read_mnist(find_mnist(data_dir or DATA), every=2))
        check_remainder(self.training_images, len(digits))
        generator = torch.Generator().manual_seed(seed)
        training = torch.randperm(self.training_images, generator=generator)
        evaluation = torch.arange(self.training_images, len(digits))
        chances = (self.flips, self.test_flip, self.label_noise)
        return colored_domains(images.float().div_(255), digits, training, evaluation, *chances, generator)


@frozen
class DomainBedColoredMNIST:
    """Digits below five against the others, in a color that agrees with the noisy label with 90, 80 and 10%.

    Inputs are [N, 2, 28, 28] float32 from 0 to 1. The draws are torch's from the seed, in DomainBed's order: one
    permutation of all 70,000 digits, then the label noise and the colors of each environment.

    Args:
        samples: Samples of each environment to keep, the first ones; None: all.

    Raises:
        InputError: Fewer than one sample; when called, files that are missing, truncated or not MNIST's.

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    samples: int | None = field(default=None, validator=optional(whole(1)))

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Return the environments of one seed from MNIST's four files in ``data_dir``."""
        images, digits = all_digits(data_dir)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(digits), generator=generator)
        domains = list[Domain]()
        for index, (name, flip) in enumerate(zip(COLOR_NAMES, FLIPS, strict=True)):
            dealt, kept = order[index :: len(FLIPS)], slice(self.samples)
            labels = binary_labels(digits[dealt], LABEL_NOISE, generator)
            colors = flipped(labels, flip, generator)
            values = images[dealt[kept]].float().div_(255)
            domains.append(Domain(name, colored(values, colors[kept]), labels[kept]))
        return Environments(tuple(domains), classes=2)


@frozen
class RotatedMNIST:
    """The ten digits, rotated counter-clockwise by 0 to 75 degrees.

    Inputs are [N, 1, 28, 28] float32 from 0 to 1, interpolated bilinearly, with black corners.

    Args:
        samples: Samples of each environment to keep, the first ones; None: all.

    Raises:
        InputError: Fewer than one sample; when called, files that are missing, truncated or not MNIST's.

    Source:
        Ghifary et al., ICCV 2015, in the form of Gulrajani and Lopez-Paz, ICLR 2021.
    """

    samples: int | None = field(default=None, validator=optional(whole(1)))

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Return the environments of one seed from MNIST's four files in ``data_dir``."""
        images, digits = all_digits(data_dir)
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
        domains = list[Domain]()
        for index, angle in enumerate(ANGLES):
            dealt = order[index :: len(ANGLES)][: self.samples]
            domains.append(Domain(f"{angle} degrees", rotated(images[dealt], angle), digits[dealt]))
        return Environments(tuple(domains), classes=10)


def rotated(images: Tensor, angle: float) -> Tensor:
    """Return uint8 images [N, H, W] rotated counter-clockwise by degrees, as [N, 1, H, W] float32 from 0 to 1."""
    turned = np.empty(tuple(images.shape), np.uint8)
    for index, image in enumerate(images.numpy()):
        turned[index] = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))
    return torch.from_numpy(turned).unsqueeze(1).float().div_(255)


def all_digits(data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Return images [70000, 28, 28] uint8 and digits [70000] int64: MNIST's training digits, then its test digits."""
    files = find_mnist(data_dir or DATA, ALL)
    images, digits = zip(read_mnist(files[:2]), read_mnist(files[2:]), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(digits)).long()
