"""Colored Digits: the colouring construction on handwritten digits that scikit-learn ships."""

from pathlib import Path
from typing import Any, cast

import torch
from attrs import frozen

from fishr.data.coloring import check_coloring, check_rest, colored_domains
from fishr.data.domains import Domains


@frozen
class ColoredDigits:
    """1,797 handwritten 8x8 digits in colours that lie; nothing is downloaded.

    All pictures are shuffled by the seed; the first ``training_images`` are dealt in turn to the training
    domains, the rest evaluates. Inputs are [N, 2, 8, 8] float32 from 0 to 1.

    Args:
        flips: probability of a wrong colour in each training domain.
        test_flip: probability of a wrong colour in the evaluation domain "reversed".
        label_noise: probability that a label (digit below five) is wrong.
        training_images: how many of the 1,797 pictures are trained on.

    Raises:
        InputError: a probability outside 0 to 1, equal flips, or too few or too many training images.

    Example:
        >>> domains = ColoredDigits()(seed=0, data_dir=None)
        >>> [(domain.name, tuple(domain.inputs.shape)) for domain in domains.training]
        [('flip 0.2', (750, 2, 8, 8)), ('flip 0.1', (750, 2, 8, 8))]
        >>> [(domain.name, len(domain.labels)) for domain in domains.evaluation]
        [('reversed', 297), ('gray', 297)]

    Source:
        Pictures: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part).
        Construction: Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """

    flips: tuple[float, ...] = (0.2, 0.1)
    test_flip: float = 0.9
    label_noise: float = 0.25
    training_images: int = 1500

    def __attrs_post_init__(self) -> None:
        """Refuse settings that make no domains."""
        check_coloring(self.flips, self.test_flip, self.label_noise, self.training_images)

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Build the domains of one seed; ``data_dir`` is not read."""
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs]

        digits = cast(Any, load_digits())
        check_rest(self.training_images, len(digits.target))
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(digits.target), generator=generator)
        return colored_domains(
            pictures=torch.as_tensor(digits.images).float() / 16,
            digits=torch.as_tensor(digits.target),
            training_rows=order[: self.training_images],
            evaluation_rows=order[self.training_images :],
            flips=self.flips,
            test_flip=self.test_flip,
            label_noise=self.label_noise,
            generator=generator,
        )
