"""ARM: each image with a map of the images that it comes with."""

from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn

from fishr.checks import one_of, whole
from fishr.methods.method import Method
from fishr.methods.ranges import fixed
from fishr.mixed_samples import means_of_own
from fishr.models.featurizers import Featurizer, image_channels
from fishr.models.initialization import seeded_by

_CHANNELS = 64


@frozen
class ARM:
    """Featurizer of [x, c]: an image and its context, the mean of a context network's maps over the images of a group.

    The context network has three 5×5 convolutions to 64, 64 and 1 channels, the first two with batch normalization and
    ReLU; its map is one more channel of the image. In training, a group is a domain of the batch. In evaluation and
    prediction it is ``samples`` consecutive samples, the last ones fewer, so that a prediction depends on the samples
    that it is made with.

    Args:
        inner: The network, of images with one more channel.
        samples: Images of a group in evaluation.
        form: ``"paper"`` trains the context network; with ``"domainbed"`` it keeps its first weights, because it is in
            no optimizer there.

    Raises:
        InputError: Less than one sample. When called: inputs that are no images. In training: several micro-batches or
            ranks.

    Example:
        >>> from fishr.models import MNISTCNN
        >>> featurizer = ARM(MNISTCNN(), samples=2)((2, 28, 28), torch.Generator().manual_seed(0)).eval()
        >>> images = torch.rand(4, 2, 28, 28)
        >>> torch.equal(featurizer(images)[:2], featurizer(images[:2]))
        True

    Source:
        Zhang et al., Adaptive risk minimization, NeurIPS 2021 (arXiv 2007.02931), ARM-CML.
    """

    inner: Featurizer
    samples: int = field(default=32, validator=whole(1))
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from images [N, C, H, W] to features [N, F], with weights drawn from the generator."""
        network = self.inner(_with_context(shape), generator)
        with seeded_by(generator):
            context = nn.Sequential(
                *_normalized(shape[0]), *_normalized(_CHANNELS), nn.Conv2d(_CHANNELS, 1, 5, padding=2)
            )
        context = context.to(generator.device).requires_grad_(self.form == "paper")
        return _WithContext(network, context, self.samples)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features of the network."""
        return self.inner.features(_with_context(shape))


def _with_context(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (image_channels("ARM", shape) + 1, *shape[1:])


def _normalized(channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, _CHANNELS, 5, padding=2), nn.BatchNorm2d(_CHANNELS), nn.ReLU()


class _WithContext(nn.Module):
    mixes_samples = True

    def __init__(self, network: nn.Module, context: nn.Module, samples: int) -> None:
        super().__init__()
        self.network, self.context, self.samples = network, context, samples

    def forward(self, images: Tensor, sizes: tuple[int, ...] | None = None) -> Tensor:
        if sizes is None:
            sizes = tuple(map(len, images.split(self.samples)))
        context = means_of_own(self.context(images), sizes)
        return self.network(torch.cat([images, context], 1))


METHODS = {
    "ARM": Method(
        ranges_of=lambda dataset: {} if dataset in ("RotatedMNIST", "ColoredMNIST") else {"batch_size": fixed(8)},
        featurizer=lambda inner, h: ARM(inner, int(h["batch_size"])),
    )
}
