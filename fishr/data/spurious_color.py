"""Spurious color: domains of digits whose color predicts the label better than the shape does.

The label says whether the digit is below five, and is wrong with probability ``label_noise``. The color agrees with
that noisy label except with probability ``flip``, which differs between domains. In the "reversed" domain the color
misleads.

Source: Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.errors import InputError


def colored_domains(
    images: Tensor,
    digits: Tensor,
    training: Tensor,
    evaluation: Tensor,
    flips: Sequence[float],
    test_flip: float,
    label_noise: float,
    generator: torch.Generator,
    copies: int = 1,
) -> Domains:
    """Return a training domain "flip p" for each flip, and the evaluation domains "reversed" and "gray"."""
    # All copies of an image, each with its own noise and color, are in one domain, so that domains share no image.
    # Source of "gray": Ramé et al., Fishr, arXiv 2109.02934, table 2.

    def domain(name: str, chosen: Tensor, flip: float) -> Domain:
        labels = binary_labels(digits[chosen], label_noise, generator)
        return Domain(name, colored(images[chosen], flipped(labels, flip, generator)), labels)

    dealt = (training[start :: len(flips)].repeat(copies) for start in range(len(flips)))
    trained = tuple(domain(f"flip {flip:g}", chosen, flip) for flip, chosen in zip(flips, dealt, strict=True))
    reverse = domain("reversed", evaluation, test_flip)
    return Domains(trained, (reverse, Domain("gray", gray(images[evaluation]), reverse.labels)), classes=2)


def binary_labels(digits: Tensor, label_noise: float, generator: torch.Generator) -> Tensor:
    """Return labels [N], 1 where the digit is below five, flipped with probability ``label_noise``."""
    return flipped((digits < 5).long(), label_noise, generator)


def flipped(labels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return labels [N] of 0 and 1, each flipped with a probability; the generator advances by N draws."""
    return labels ^ (torch.rand(len(labels), generator=generator) < probability).long()


def colored(images: Tensor, colors: Tensor) -> Tensor:
    """Return images [N, 2, H, W]: channel c of an image of color c holds it, the other channel is zero."""
    channels = images.new_zeros((len(images), 2, *images.shape[1:]))
    channels[torch.arange(len(images)), colors] = images
    return channels


def gray(images: Tensor) -> Tensor:
    """Return images [N, 2, H, W] whose channels are equal, so that color carries no information."""
    return torch.stack((images, images), dim=1)


def check_flips(flips: Sequence[float], test_flip: float, label_noise: float, training_images: int) -> None:
    """Refuse values that are no probabilities, flips that name no or equal domains, and too few training images."""
    if not flips:
        raise InputError("flips: got none, expected a probability for each training domain, such as (0.2, 0.1)")
    for name, value in (*(("flips", flip) for flip in flips), ("test_flip", test_flip), ("label_noise", label_noise)):
        if not 0 <= value <= 1:
            raise InputError(f"{name}: got {value}, expected a probability from 0 to 1")
    if len({f"{flip:g}" for flip in flips}) < len(flips):
        raise InputError(f"flips: got {tuple(flips)}, expected no value twice, since it names the domain")
    if training_images < len(flips):
        raise InputError(f"training_images: got {training_images}, expected at least {len(flips)}, one for each domain")


def check_remainder(training_images: int, total: int) -> None:
    """Refuse a number of training images that leaves none for evaluation."""
    if training_images >= total:
        raise InputError(
            f"training_images: got {training_images}, expected at most {total - 1}: there are {total} "
            "images and evaluation needs one"
        )
