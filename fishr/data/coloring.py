"""Spurious colors: the construction that turns images of digits into domains.

The label says whether the digit is below five, and is wrong with probability ``label_noise``. The color agrees
with that noisy label except with probability ``flip``, which differs between domains. So in the training
domains the color predicts the label better than the shape does, and in the reversed domain it misleads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.errors import InputError


def binary_labels(digits: Tensor, label_noise: float, generator: torch.Generator) -> Tensor:
    """Label 1 where the digit is below five, flipped with probability ``label_noise``.

    Args:
        digits: [N] whole numbers from 0 to 9.
        label_noise: probability from 0 to 1; 0 leaves the labels clean.
        generator: advances by N draws, whatever the probability.

    Returns:
        [N] int64, each 0 or 1.

    Example:
        >>> binary_labels(torch.tensor([0, 4, 5, 9]), 0.0, torch.Generator())
        tensor([1, 1, 0, 0])

    Source:
        Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """
    return (digits < 5).long() ^ _bernoulli(label_noise, len(digits), generator)


def colors_of(labels: Tensor, flip: float, generator: torch.Generator) -> Tensor:
    """The color of each image: its label, exchanged with probability ``flip``.

    Args:
        labels: [N] int64, each 0 or 1.
        flip: probability from 0 to 1.
        generator: advances by N draws, whatever the probability.

    Returns:
        [N] int64, each 0 or 1.

    Example:
        >>> colors_of(torch.tensor([0, 1, 1]), 1.0, torch.Generator())
        tensor([1, 0, 0])

    Source:
        Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """
    return labels ^ _bernoulli(flip, len(labels), generator)


def colored(pictures: Tensor, colors: Tensor) -> Tensor:
    """Two color channels: channel c of an image of color c holds it, channel 1 - c is zero.

    Args:
        pictures: [N, H, W].
        colors: [N] int64, each 0 or 1.

    Returns:
        [N, 2, H, W].

    Example:
        >>> colored(torch.ones(2, 1, 1), torch.tensor([0, 1])).flatten(1)
        tensor([[1., 0.],
                [0., 1.]])
    """
    count, height, width = pictures.shape
    channels = pictures.new_zeros((count, 2, height, width))
    channels[torch.arange(count), colors] = pictures
    return channels


def gray(pictures: Tensor) -> Tensor:
    """Two color channels that both hold the image, so that color carries no information.

    Args:
        pictures: [N, H, W].

    Returns:
        [N, 2, H, W].

    Example:
        >>> gray(torch.ones(1, 1, 1)).flatten(1)
        tensor([[1., 1.]])
    """
    return torch.stack((pictures, pictures), dim=1)


def colored_domains(
    pictures: Tensor,
    digits: Tensor,
    training_rows: Tensor,
    evaluation_rows: Tensor,
    flips: Sequence[float],
    test_flip: float,
    label_noise: float,
    generator: torch.Generator,
    copies: int = 1,
) -> Domains:
    """One training domain for each flip, dealt in turn; the evaluation rows reversed, and gray.

    Args:
        pictures: [N, H, W] from 0 to 1.
        digits: [N] whole numbers from 0 to 9.
        training_rows: row numbers in the order they are dealt: with two flips, the even places go to the
            first domain and the odd ones to the second.
        evaluation_rows: row numbers of "reversed", and of "gray" (the same labels, without color).
        flips: probability of a wrong color in each training domain.
        test_flip: probability of a wrong color in "reversed".
        label_noise: probability of a wrong label, everywhere.
        generator: the only source of randomness.
        copies: number of samples of each training image, each with a label noise and a color of its own. All
            are in one domain, so that training domains share no image.

    Returns:
        Domains "flip p" for training, "reversed" and "gray" for evaluation; 2 classes.

    Example:
        >>> pictures, digits, rows = torch.ones(6, 4, 4), torch.arange(6), torch.arange(6)
        >>> made = colored_domains(
        ...     pictures, digits, rows[:4], rows[4:], (0.2, 0.1), 0.9, 0.25, torch.Generator()
        ... )
        >>> [(domain.name, len(domain.labels)) for domain in (*made.training, *made.evaluation)]
        [('flip 0.2', 2), ('flip 0.1', 2), ('reversed', 2), ('gray', 2)]

    Source:
        Arjovsky et al., arXiv 1907.02893, section 5.2; the gray evaluation is that of Ramé et al., Fishr,
        arXiv 2109.02934, table 2.
    """
    dealt = (training_rows[start :: len(flips)].repeat(copies) for start in range(len(flips)))
    training = tuple(
        _colored_domain(f"flip {flip:g}", pictures[rows], digits[rows], flip, label_noise, generator)
        for flip, rows in zip(flips, dealt, strict=True)
    )
    kept = pictures[evaluation_rows]
    reverse = _colored_domain("reversed", kept, digits[evaluation_rows], test_flip, label_noise, generator)
    return Domains(training, (reverse, Domain("gray", gray(kept), reverse.labels)), classes=2)


def check_coloring(flips: Sequence[float], test_flip: float, label_noise: float, training_images: int) -> None:
    """Refuse probabilities outside 0 to 1, flips that name no or equal domains, and too few images.

    Args:
        flips: one probability a training domain.
        test_flip: one probability.
        label_noise: one probability.
        training_images: at least one a training domain.

    Raises:
        InputError: naming the argument, what was got and what was expected.

    Example:
        >>> check_coloring((0.2, 1.5), 0.9, 0.25, 1500)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: flips: got 1.5, expected a probability from 0 to 1
    """
    if not flips:
        raise InputError("flips: got none, expected a probability for each training domain, such as (0.2, 0.1)")
    for name, value in (
        *(("flips", flip) for flip in flips),
        ("test_flip", test_flip),
        ("label_noise", label_noise),
    ):
        if not 0 <= value <= 1:
            raise InputError(f"{name}: got {value}, expected a probability from 0 to 1")
    if len({f"{flip:g}" for flip in flips}) < len(flips):
        raise InputError(f"flips: got {tuple(flips)}, expected no value twice, since it names the domain")
    if training_images < len(flips):
        raise InputError(
            f"training_images: got {training_images}, expected at least {len(flips)}, one a training domain"
        )


def check_rest(training_images: int, total: int) -> None:
    """Refuse a training part that leaves no image for evaluation.

    Args:
        training_images: number of images to train on.
        total: how many there are.

    Raises:
        InputError: there are not more images than ``training_images``.

    Example:
        >>> check_rest(1797, 1797)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: training_images: got 1797, expected at most 1796: there are 1797 images ...
    """
    if training_images >= total:
        raise InputError(
            f"training_images: got {training_images}, expected at most {total - 1}: there are {total} "
            "images and evaluation needs one"
        )


def _bernoulli(probability: float, count: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).long()


def _colored_domain(
    name: str,
    pictures: Tensor,
    digits: Tensor,
    flip: float,
    label_noise: float,
    generator: torch.Generator,
) -> Domain:
    labels = binary_labels(digits, label_noise, generator)
    return Domain(name, colored(pictures, colors_of(labels, flip, generator)), labels)
