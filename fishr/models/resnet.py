"""torchvision's residual networks as featurizers, with weights from local files."""

from pathlib import Path
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen
from attrs.validators import optional
from torch import Tensor, nn

from fishr.checks import layer_names, number, one_of
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.models.featurizers import image_channels
from fishr.models.frozen import freeze_layers, freeze_norm
from fishr.models.initialization import seeded_by
from fishr.models.weight_files import Match, hub_file, load_weights, weights_for
from fishr.paths import typed_path

_FEATURES = {18: 512, 50: 2048}
_NAMED = ("imagenet", "random")
_CLASSIFIER = ("fc.weight", "fc.bias")


@frozen
class ResNet:
    """Featurizer that is torchvision's ResNet without its last layer.

    For images of other than three channels, channel c of the first convolution has the weights of channel c mod 3.
    Nothing is downloaded.

    Args:
        depth: Number of layers, 18 or 50.
        weights: ``"imagenet"`` for torchvision's IMAGENET1K_V1 in torch.hub's folder, ``"random"``, or the path of a
            state dict with or without the last layer ``fc``; a relative path starts at the working directory.
        freeze_norm: Batch normalization keeps its initial statistics; its scale and shift still train.
        dropout: Dropout rate on the features, while training.
        frozen: Names of layers below the network, as "layer1", whose parameters do not train and whose batch
            normalization keeps its statistics, see ``freeze_layers``; None: all layers train.
        match: "order" gives the tensors of a file to those of the network at the same places, whatever their names:
            all shapes must agree, counters of batches aside, and a warning shows the first and the last pair. None: by
            name, without the prefixes "module.", "model." and "backbone." of a file whose names have one.

    Raises:
        InputError: Another depth, a rate outside 0 to 1, or ``match`` without a file; when called, weights that are
            absent, damaged or of another network, a name that is no layer, or inputs that are not images.

    Example:
        >>> resnet = ResNet(depth=18, weights="random")
        >>> featurizer = resnet((3, 32, 32), torch.Generator().manual_seed(0)).eval()
        >>> featurizer(torch.zeros(2, 3, 32, 32)).shape, ResNet().features((3, 224, 224))
        (torch.Size([2, 512]), 2048)

    Source:
        He et al., Deep residual learning for image recognition, CVPR 2016. Frozen statistics, dropout and channels:
        the convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """

    depth: Literal[18, 50] = field(default=50, validator=one_of(18, 50))
    weights: str = "imagenet"
    freeze_norm: bool = True
    dropout: float = field(default=0.0, validator=number(below=1.0))
    frozen: tuple[str, ...] | None = field(default=None, validator=optional(layer_names))
    match: Match | None = field(default=None, validator=optional(one_of("order")))

    def __attrs_post_init__(self) -> None:
        if not self.weights:
            raise InputError('weights: got "", expected "imagenet", "random" or the path of a file')
        if self.match and self.weights in _NAMED:
            raise InputError(f"match: got {self.match!r} with weights = {self.weights!r}, expected the path of a file")

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from images [N, C, H, W] to features [N, F]."""
        from torchvision import models

        channels = image_channels("ResNet", shape)
        with seeded_by(generator):
            network: Any = models.get_model(f"resnet{self.depth}", weights=None)
        network.conv1.in_channels = channels
        network.conv1.weight = nn.Parameter(_cyclic(network.conv1.weight.detach(), channels))
        # In the place of the last layer, so that the other names stay torchvision's.
        network.add_module("fc", nn.Dropout(self.dropout))
        if self.weights != "random":
            self._fill(network, channels)
        network = freeze_layers(network, self.frozen or ())
        return (freeze_norm(network) if self.freeze_norm else network).to(generator.device)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return 512 or 2048, for images of any size."""
        return _FEATURES[self.depth]

    def without_weights(self) -> "ResNet":
        """Return the same network with random weights."""
        return evolve(self, weights="random", match=None)

    def published_preprocessing(self) -> Preprocessing | None:
        """Return that of ImageNet's weights; None for others."""
        return Preprocessing(224) if self.weights == "imagenet" else None

    def _fill(self, network: nn.Module, channels: int) -> None:
        from torchvision import models

        path = _imagenet_file(self.depth) if self.weights == "imagenet" else typed_path(self.weights)
        with torch.device("meta"):
            own = models.get_model(f"resnet{self.depth}", weights=None).state_dict()
        given = weights_for(own, _CLASSIFIER, path, self.match)
        # A file of a network for just these channels is taken as it is.
        if (first := given.get("conv1.weight")) is not None and first.shape[1:2] == (3,):
            given["conv1.weight"] = _cyclic(first, channels)
        load_weights(network, given, f"weights: {path}", "give the same network's")


def _imagenet_file(depth: Literal[18, 50]) -> Path:
    from torchvision import models

    published = {18: models.ResNet18_Weights, 50: models.ResNet50_Weights}[depth].IMAGENET1K_V1
    fetch = f"python -c \"import torchvision; torchvision.models.resnet{depth}(weights='IMAGENET1K_V1')\""
    return hub_file(published.url, fetch, otherwise='give weights="random" or the path of a file')


def _cyclic(weight: Tensor, channels: int) -> Tensor:
    return weight[:, torch.arange(channels) % weight.shape[1]]
