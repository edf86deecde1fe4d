"""Augmentations: functions of an image and a seed. DomainBed's, torchvision's, none, and the protocol of one's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve, field, frozen

from fishr.checks import whole
from fishr.data.images.domainbed_augmentation import augment, draw_augmentation
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.seeding import SeededDraws

if TYPE_CHECKING:
    from PIL.Image import Image


class Augmentation(Protocol):
    """Random change of one training image: frozen settings, or a plain function.

    The image is RGB as it was read, or resized already if it comes from an image cache. The result has any size; one of
    another size than ``preprocessing.size`` is resized as a whole. Normalization follows.

    Threads call it at the same time, so it draws from the seed alone: by torch, whose draws without a generator, such
    as those of torchvision's transforms, follow the seed during the call, or from a generator of its own made of the
    seed. Draws from the global generators of Python and NumPy cannot be repeated.

    Example:
        >>> from torchvision.transforms import v2
        >>> def upright(image, seed, preprocessing):
        ...     return v2.RandomCrop(16)(image)
        >>> own: Augmentation = upright
    """

    def __call__(self, image: "Image", seed: int, preprocessing: Preprocessing, /) -> "Image":
        """Return the augmented image."""
        ...


@frozen
class NoAugmentation:
    """No augmentation: every input is the whole image, resized. ``augment = false`` is the same.

    Example:
        >>> from PIL import Image
        >>> NoAugmentation()(Image.new("RGB", (30, 20)), 0, Preprocessing(size=8)).size
        (8, 8)
    """

    def __call__(self, image: "Image", seed: int, preprocessing: Preprocessing) -> "Image":
        return preprocessing.resized(image)


@frozen
class DomainBedAugmentation:
    """DomainBed's augmentation, the default: crop, mirror, jitter of the colors, gray. ``augment = true`` is the same.

    A crop of 70 to 100 % of the area and 3:4 to 4:3 in shape, mirrored in half of the draws; brightness, contrast,
    saturation and hue changed by up to 30 % in random order; gray in a tenth of the draws.

    Example:
        >>> from PIL import Image
        >>> DomainBedAugmentation()(Image.new("RGB", (30, 20)), 0, Preprocessing(size=8)).size
        (8, 8)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    def __call__(self, image: "Image", seed: int, preprocessing: Preprocessing) -> "Image":
        return augment(image, draw_augmentation(seed, *image.size), preprocessing)


@frozen
class RandAugment:
    """RandAugment as in torchvision, on the whole image, then a crop.

    Args:
        num_ops: Number of operations in sequence.
        magnitude: Strength of all operations, from 0 to 30.
        crop: Then crop, resize and mirror as DomainBed does; False: resize the whole image.

    Raises:
        InputError: A number is out of range.

    Example:
        >>> from PIL import Image
        >>> image = Image.linear_gradient("L").convert("RGB")
        >>> made = [RandAugment(magnitude=15)(image, seed, Preprocessing(size=8)).tobytes() for seed in (0, 0, 1)]
        >>> made[0] == made[1], made[0] == made[2]
        (True, False)

    Source:
        Cubuk et al., RandAugment: practical automated data augmentation with a reduced search space, NeurIPS 2020.
    """

    num_ops: int = field(default=2, validator=whole(0))
    magnitude: int = field(default=9, validator=whole(0, 30))
    crop: bool = True

    def __call__(self, image: "Image", seed: int, preprocessing: Preprocessing) -> "Image":
        from torchvision.transforms import v2

        return _transformed(v2.RandAugment(self.num_ops, self.magnitude), image, seed, preprocessing, self.crop)


@frozen
class TrivialAugment:
    """TrivialAugment (wide) as in torchvision: one operation of random strength on the whole image, then a crop.

    Args:
        crop: Then crop, resize and mirror as DomainBed does; False: resize the whole image.

    Example:
        >>> from PIL import Image
        >>> TrivialAugment(crop=False)(Image.new("RGB", (30, 20)), 0, Preprocessing(size=8)).size
        (8, 8)

    Source:
        Müller and Hutter, TrivialAugment: tuning-free yet state-of-the-art data augmentation, ICCV 2021.
    """

    crop: bool = True

    def __call__(self, image: "Image", seed: int, preprocessing: Preprocessing) -> "Image":
        from torchvision.transforms import v2

        return _transformed(v2.TrivialAugmentWide(), image, seed, preprocessing, self.crop)


def augmentation_of(augment: bool | Augmentation) -> Augmentation:
    """Return DomainBed's augmentation for True, none for False, and an augmentation as it is."""
    if isinstance(augment, bool):
        return DomainBedAugmentation() if augment else NoAugmentation()
    return augment


def augmented(augmentation: Augmentation, image: "Image", seed: int, preprocessing: Preprocessing) -> "Image":
    """Return the augmented image, RGB of the inputs' size, for any augmentation."""
    from PIL.Image import Image

    with SeededDraws(seed):
        made: Any = augmentation(image, seed, preprocessing)
    if not isinstance(made, Image):
        name = getattr(augmentation, "__name__", type(augmentation).__name__)
        raise InputError(f"augment: got a {type(made).__name__} from {name}, expected a Pillow image")
    fits = made.mode == "RGB" and made.size == (preprocessing.size, preprocessing.size)
    return made if fits else preprocessing.resized(made)


def _transformed(
    transform: Callable[["Image"], "Image"], image: "Image", seed: int, preprocessing: Preprocessing, crop: bool
) -> "Image":
    with SeededDraws(seed):
        made = transform(image)
    if not crop:
        return preprocessing.resized(made)
    return augment(made, evolve(draw_augmentation(seed, *made.size), jitters=(), gray=False), preprocessing)
