"""ColoredDigits: spurious color on the handwritten digits that scikit-learn ships."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen

from fishr.checks import whole
from fishr.data.domains import Domains
from fishr.data.spurious_color import check_flips, check_remainder, colored_domains


@frozen
class ColoredDigits:
    """1,797 handwritten 8x8 digits whose color is spuriously correlated with the label; nothing is downloaded.

    The seed shuffles the images. The first ``training_images`` are dealt in turn to the training domains, so
    that no image is in two of them; the rest is for evaluation. Inputs are [N, 2, 8, 8] float32 from 0 to 1.

    With 25 % wrong labels, 1,500 samples are so few that a network memorizes them before a penalty takes
    effect. ``copies`` makes more samples of the same images: each copy draws its own label noise and color.

    Args:
        flips: Probability of a wrong color in each training domain.
        test_flip: Probability of a wrong color in the evaluation domain "reversed".
        label_noise: Probability that a label (digit below five) is wrong.
        training_images: Number of images, of the 1,797, to train on.
        copies: Number of samples of each training image.

    Raises:
        InputError: A probability outside 0 to 1, equal flips, too few or too many training images, or no copy.

    Example:
        >>> domains = ColoredDigits(training_images=1300, copies=5)(seed=0, data_dir=None)
        >>> [(domain.name, tuple(domain.inputs.shape)) for domain in domains.training]
        [('flip 0.2', (3250, 2, 8, 8)), ('flip 0.1', (3250, 2, 8, 8))]
        >>> [(domain.name, len(domain.labels)) for domain in domains.evaluation]
        [('reversed', 497), ('gray', 497)]

    Source:
        Images: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part).
        Construction: Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """

    flips: tuple[float, ...] = (0.2, 0.1)
    test_flip: float = 0.9
    label_noise: float = 0.25
    training_images: int = 1500
    copies: int = field(default=1, validator=whole(1))

    def __attrs_post_init__(self) -> None:
        check_flips(self.flips, self.test_flip, self.label_noise, self.training_images)

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Return the domains of one seed; ``data_dir`` is not read."""
        # The file that sklearn.datasets.load_digits reads; importing scikit-learn takes longer than a short run.
        spec = find_spec("sklearn")
        assert spec is not None
        assert spec.origin is not None
        rows = np.loadtxt(Path(spec.origin).with_name("datasets") / "data" / "digits.csv.gz", np.int64, delimiter=",")
        images, digits = torch.from_numpy(rows[:, :64]).view(-1, 8, 8), torch.from_numpy(rows[:, 64])
        check_remainder(self.training_images, len(digits))
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(digits), generator=generator)
        training, evaluation = order[: self.training_images], order[self.training_images :]
        chances = (self.flips, self.test_flip, self.label_noise)
        return colored_domains(images.float() / 16, digits, training, evaluation, *chances, generator, self.copies)
