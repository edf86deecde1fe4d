"""Colored and Rotated MNIST as DomainBed defines them: all 70,000 digits, dealt to the environments by the seed."""

from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from fishr.data.coloring import colored
from fishr.data.domains import Domain
from fishr.data.environments import Environments
from fishr.data.idx import read_labels, read_pictures
from fishr.data.mnist import TEST_LABELS, TEST_PICTURES, mnist_files
from fishr.errors import InputError
from fishr.paths import DATA

FLIPS = (0.1, 0.2, 0.9)
COLOR_NAMES = ("+90%", "+80%", "-90%")
ANGLES = (0, 15, 30, 45, 60, 75)
LABEL_NOISE = 0.25


@frozen
class DomainBedColoredMNIST:
    """Digits below five against the others, in a colour that agrees with the noisy label with 90, 80 and 10%.

    Inputs are [N, 2, 28, 28] float32 from 0 to 1. The draws are torch's from the seed, in DomainBed's order: one
    permutation of all digits, then each environment's label noise and colours.

    Args:
        samples: keep the first so many rows of each environment; None: all.

    Raises:
        InputError: fewer than one sample; when called, files that are missing, truncated or not MNIST's.

    Example:
        >>> DomainBedColoredMNIST(samples=0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: samples: got 0, expected at least 1 row of each environment

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    samples: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse empty environments."""
        _check_samples(self.samples)

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Build the environments of one seed from MNIST's four files in ``data_dir``."""
        pictures, digits = all_digits(data_dir)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(digits), generator=generator)
        domains = list[Domain]()
        for index, (name, flip) in enumerate(zip(COLOR_NAMES, FLIPS, strict=True)):
            rows = order[index :: len(FLIPS)]
            noise, wrong = (torch.rand(len(rows), generator=generator) < chance for chance in (LABEL_NOISE, flip))
            labels = (digits[rows] < 5) ^ noise
            kept = slice(self.samples)
            grey = pictures[rows[kept]].float().div_(255)
            domains.append(Domain(name, colored(grey, (labels ^ wrong)[kept].long()), labels[kept].long()))
        return Environments(tuple(domains), classes=2)


@frozen
class RotatedMNIST:
    """The ten digits, turned counter-clockwise by 0 to 75 degrees.

    Inputs are [N, 1, 28, 28] float32 from 0 to 1, interpolated bilinearly, with black corners.

    Args:
        samples: keep the first so many rows of each environment; None: all.

    Raises:
        InputError: fewer than one sample; when called, files that are missing, truncated or not MNIST's.

    Example:
        >>> RotatedMNIST()(seed=0, data_dir=Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: MNIST: found no train-images-idx3-ubyte (or .gz) and no train-labels-...

    Source:
        Ghifary et al., ICCV 2015, as Gulrajani and Lopez-Paz, ICLR 2021, have it.
    """

    samples: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse empty environments."""
        _check_samples(self.samples)

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Build the environments of one seed from MNIST's four files in ``data_dir``."""
        pictures, digits = all_digits(data_dir)
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
        domains = list[Domain]()
        for index, angle in enumerate(ANGLES):
            rows = order[index :: len(ANGLES)][: self.samples]
            domains.append(Domain(f"{angle} degrees", rotated(pictures[rows], angle), digits[rows]))
        return Environments(tuple(domains), classes=10)


def rotated(pictures: Tensor, angle: float) -> Tensor:
    """Pictures turned about their middle, bilinearly and in place of size.

    Args:
        pictures: [N, H, W] uint8.
        angle: degrees, counter-clockwise.

    Returns:
        [N, 1, H, W] float32 from 0 to 1.

    Example:
        >>> corner = torch.tensor([[[255, 0], [0, 0]]], dtype=torch.uint8)
        >>> rotated(corner, 90)
        tensor([[[[0., 0.],
                  [1., 0.]]]])
    """
    turned = np.empty(tuple(pictures.shape), np.uint8)
    for row, picture in enumerate(pictures.numpy()):
        turned[row] = np.asarray(Image.fromarray(picture).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))
    return torch.from_numpy(turned).unsqueeze(1).float().div_(255)


def all_digits(data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """MNIST's training digits followed by its test digits.

    Args:
        data_dir: where the files lie (default: the folder "data").

    Returns:
        Pictures [70000, 28, 28] uint8 and digits [70000] int64.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = DATA if data_dir is None else data_dir
    pictures, digits = list[Tensor](), list[Tensor]()
    for files in (mnist_files(folder), mnist_files(folder, TEST_PICTURES, TEST_LABELS)):
        pictures.append(torch.as_tensor(read_pictures(files[0])))
        digits.append(torch.as_tensor(read_labels(files[1]).copy()).long())
        if len(pictures[-1]) != len(digits[-1]):
            raise InputError(
                f"{files[0]}: {len(pictures[-1])} pictures but {len(digits[-1])} labels in {files[1]}; "
                "expected two files that belong together"
            )
    return torch.cat(pictures), torch.cat(digits)


def _check_samples(samples: int | None) -> None:
    if samples is not None and samples < 1:
        raise InputError(f"samples: got {samples}, expected at least 1 row of each environment")
