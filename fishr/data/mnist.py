"""Colored MNIST: the colouring construction on MNIST's training file, as the IRM paper built it."""

from pathlib import Path

import torch
from attrs import frozen

from fishr.data.coloring import check_coloring, check_rest, colored_domains
from fishr.data.domains import Domains
from fishr.data.idx import read_labels, read_pictures
from fishr.errors import InputError
from fishr.paths import DATA

PICTURES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
TEST_PICTURES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


@frozen
class ColoredMNIST:
    """MNIST's 60,000 training digits in colours that lie.

    The first ``training_images`` pictures are shuffled by the seed and dealt in turn to the training domains;
    the rest (the last 10,000) evaluates. Every second pixel is kept: inputs are [N, 2, 14, 14] float32 from
    0 to 1.

    Args:
        flips: probability of a wrong colour in each training domain.
        test_flip: probability of a wrong colour in the evaluation domain "reversed".
        label_noise: probability that a label (digit below five) is wrong; 0 for clean labels.
        training_images: how many pictures, from the file's beginning, are trained on.

    Raises:
        InputError: a probability outside 0 to 1, equal flips, too few or too many training images; when
            called, files that are missing, truncated or not MNIST's.

    Example:
        >>> ColoredMNIST()(seed=0, data_dir=Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: MNIST: found no train-images-idx3-ubyte (or .gz) and no train-labels-...

    Source:
        Arjovsky et al., Invariant Risk Minimization, arXiv 1907.02893, section 5.2.
    """

    flips: tuple[float, ...] = (0.2, 0.1)
    test_flip: float = 0.9
    label_noise: float = 0.25
    training_images: int = 50_000

    def __attrs_post_init__(self) -> None:
        """Refuse settings that make no domains."""
        check_coloring(self.flips, self.test_flip, self.label_noise, self.training_images)

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Build the domains of one seed from the files in ``data_dir`` (default: the folder "data")."""
        pictures_file, labels_file = mnist_files(DATA if data_dir is None else data_dir)
        digits = torch.as_tensor(read_labels(labels_file).copy())
        check_rest(self.training_images, len(digits))
        pictures = torch.as_tensor(read_pictures(pictures_file, every=2))
        if len(pictures) != len(digits):
            raise InputError(
                f"{pictures_file}: {len(pictures)} pictures but {len(digits)} labels in {labels_file}; "
                "expected two files that belong together"
            )
        generator = torch.Generator().manual_seed(seed)
        return colored_domains(
            pictures=pictures.float().div_(255),
            digits=digits,
            training_rows=torch.randperm(self.training_images, generator=generator),
            evaluation_rows=torch.arange(self.training_images, len(digits)),
            flips=self.flips,
            test_flip=self.test_flip,
            label_noise=self.label_noise,
            generator=generator,
        )


def mnist_files(data_dir: Path, pictures_name: str = PICTURES, labels_name: str = LABELS) -> tuple[Path, Path]:
    """Where MNIST's pictures and labels lie: in torchvision's layout or directly in the folder.

    Args:
        data_dir: folder with ``MNIST/raw/...``, or with the files themselves; each raw or .gz.
        pictures_name: of the file of pictures, without .gz; by default the training ones.
        labels_name: of the file of labels, likewise.

    Returns:
        Path of the pictures, path of the labels.

    Raises:
        InputError: a file is in none of these places; the message says where it was looked for and the two
            ways to get it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in (PICTURES, LABELS + ".gz"):
        ...         Path(folder, name).touch()
        ...     [path.name for path in mnist_files(Path(folder))]
        ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte.gz']
    """
    pictures, labels = (_find(data_dir, name) for name in (pictures_name, labels_name))
    if pictures is None or labels is None:
        missing = [name for name, path in ((pictures_name, pictures), (labels_name, labels)) if path is None]
        raw = data_dir / "MNIST" / "raw"
        raise InputError(
            f"MNIST: found no {' (or .gz) and no '.join(missing)} (or .gz) in {raw} or in {data_dir}; "
            f"run `fishr data download mnist --data-dir {data_dir}`, "
            f"or copy torchvision's MNIST/raw folder to {raw}"
        )
    return pictures, labels


def _find(data_dir: Path, name: str) -> Path | None:
    places = (data_dir / "MNIST" / "raw", data_dir)
    candidates = (place / (name + suffix) for place in places for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)
