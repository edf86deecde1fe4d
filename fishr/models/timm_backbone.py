"""Networks of timm as featurizers, with weights from local files."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen
from attrs.validators import optional
from torch import nn

from fishr.checks import layer_names, number, one_of
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.extras import from_extra
from fishr.models.featurizers import image_channels
from fishr.models.frozen import freeze_layers, freeze_norm
from fishr.models.initialization import seeded_by
from fishr.models.weight_files import Match, hub_file, weights_for
from fishr.paths import typed_path


@frozen
class TimmBackbone:
    """Featurizer that is a network of timm without its classifier; needs the extra ``timm``.

    The network is built for the channels of the inputs and, if it has a fixed input size, for their size; timm adapts
    published weights to them. Nothing is downloaded.

    Args:
        name: Name in timm, with or without the tag of its weights.
        pretrained: Start from published weights; False: from random ones.
        freeze_norm: Batch normalization keeps its initial statistics; its scale and shift still train.
        dropout: Dropout rate on the features, while training.
        weights: Path of the state dict to start from; a relative path starts at the working directory. None: the file
            of that name that timm keeps in the cache of Hugging Face or of torch.hub.
        frozen: Names of layers below the network, as "layer1", whose parameters do not train and whose batch
            normalization keeps its statistics, see ``freeze_layers``; None: all layers train.
        match: "order" gives the tensors of a file to those of the network at the same places, whatever their names:
            all shapes must agree, counters of batches aside, and a warning shows the first and the last pair. None: by
            name, without the prefixes "module.", "model." and "backbone." of a file whose names have one.

    Raises:
        InputError: A rate outside 0 to 1, ``weights`` with ``pretrained=False``, or ``match`` without ``weights``; when
            called, timm or the weights are absent, the name of the network or of a frozen layer is unknown, the weights
            are of another network, or the network refuses the inputs.

    Example:
        >>> backbone = TimmBackbone("test_resnet", pretrained=False)
        >>> featurizer = backbone((3, 32, 32), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(2, 3, 32, 32)).shape, backbone.features((3, 32, 32))
        (torch.Size([2, 96]), 96)

    Source:
        R. Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
    """

    name: str
    pretrained: bool = True
    freeze_norm: bool = False
    dropout: float = field(default=0.0, validator=number(below=1.0))
    weights: str | None = None
    frozen: tuple[str, ...] | None = field(default=None, validator=optional(layer_names))
    match: Match | None = field(default=None, validator=optional(one_of("order")))

    def __attrs_post_init__(self) -> None:
        if self.weights is not None and not self.pretrained:
            raise InputError(f"weights: got {self.weights!r} with pretrained = false, expected none; leave one out")
        if self.match and self.weights is None:
            raise InputError(f"match: got {self.match!r} without weights, expected the path of a file as weights")

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from images [N, C, H, W] to features [N, F]."""
        self.features(shape)
        with seeded_by(generator):
            network = self._filled(shape) if self.pretrained else self._build(shape)
        module = nn.Sequential(freeze_layers(network, self.frozen or ()), nn.Dropout(self.dropout))
        return (freeze_norm(module) if self.freeze_norm else module).to(generator.device)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for images of this shape; no weights are drawn or read."""
        image_channels(self.name, shape)
        try:
            with torch.device("meta"), torch.no_grad():
                features = self._build(shape).eval()(torch.empty(1, *shape))
        except InputError:
            raise
        except Exception as error:  # each network raises its own errors on inputs it cannot take
            raise InputError(f"{self.name}: got inputs of shape {shape}, which it refuses: {_line(error)}") from error
        if features.ndim != 2:
            raise InputError(f"{self.name}: its features are of shape {tuple(features.shape[1:])}, expected a vector")
        return features.shape[1]

    def without_weights(self) -> "TimmBackbone":
        """Return the same network with random weights."""
        return evolve(self, pretrained=False, weights=None, match=None)

    def published_preprocessing(self) -> Preprocessing | None:
        """Return that of the published weights; None for random ones, and for a file where the name has no tag."""
        published = self.pretrained and (self.weights is None or "." in self.name)
        return timm_preprocessing(self.name) if published else None

    def _build(self, shape: tuple[int, ...], **options: Any) -> Any:
        if _published(self.name).fixed_input_size:
            options["img_size"] = shape[1:]
        return _timm().create_model(self.name, **{"num_classes": 0, "in_chans": shape[0]} | options)

    def _filled(self, shape: tuple[int, ...]) -> nn.Module:
        path = _published_file(self.name) if self.weights is None else typed_path(self.weights)
        with torch.device("meta"):
            # As published: timm adapts the weights to other channels and sizes once their names are its own.
            whole = _timm().create_model(self.name, num_classes=1).state_dict()
            classifier = whole.keys() - self._build(shape).state_dict().keys()
        # Without addresses timm downloads nothing; without the name of a classifier it loads strictly.
        source: dict[str, Any] = {
            "state_dict": weights_for(whole, classifier, path, self.match),
            "hf_hub_id": None,
            "url": "",
            "classifier": None,
        }
        try:
            network = self._build(shape, pretrained=True, pretrained_cfg_overlay=source)
        except Exception as error:  # of torch, or of timm's translation of names
            raise InputError(f"weights: {path} does not fit {self.name}: {_line(error)}") from error
        network.pretrained_cfg.pop("state_dict")
        return network


def timm_preprocessing(name: str) -> Preprocessing:
    """Return the preprocessing that a network's published weights were trained with, as timm has it.

    The whole image is resized; timm's evaluation crops the center of a larger one.

    Args:
        name: Name in timm; its tag chooses among several published weights.

    Raises:
        InputError: timm is absent, the name is unknown, or the inputs of the network are no squares.

    Example:
        >>> timm_preprocessing("vit_base_patch16_clip_224.openai").mean
        (0.48145466, 0.4578275, 0.40821073)
        >>> timm_preprocessing("vit_small_patch14_dinov2.lvd142m").size
        518
    """
    published = _published(name)
    from timm.data.config import resolve_data_config

    found = resolve_data_config(pretrained_cfg=published.to_dict())
    _, height, width = found["input_size"]
    if height != width:
        raise InputError(
            f"{name}: its inputs are of {height} × {width} pixels, expected a square; choose another network"
        )
    return Preprocessing(height, tuple(found["mean"]), tuple(found["std"]), found["interpolation"])


def _published(name: str) -> Any:
    """Return timm's settings of a network and its published weights."""
    timm = _timm()
    known = (*timm.list_models(), *timm.list_models(pretrained=True))
    if name not in known:
        near = get_close_matches(name, known) or get_close_matches(name.split(".")[0], known)
        close = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has them all"
        raise InputError(f"name: got {name!r}, which is no network of timm {timm.__version__}; {close}")
    return timm.models.get_pretrained_cfg(name)


def _published_file(name: str) -> Path:
    """Return the file that ``timm.create_model(name, pretrained=True)`` would read."""
    published = _published(name)
    fetch = f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
    otherwise = "give pretrained = false or the path of a file as weights"
    if not published.hf_hub_id and not published.url:
        raise InputError(f"weights: timm publishes none for {name}; {otherwise}")
    if not published.hf_hub_id:
        return hub_file(published.url, fetch, otherwise)
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, revision = published.hf_hub_id.partition("@")
    stored = published.hf_hub_filename or "pytorch_model.bin"
    for file in (stored.replace("pytorch_", "").replace(".bin", ".safetensors"), stored):
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    raise InputError(
        f"weights: nothing of {repository} in {constants.HF_HUB_CACHE}; on a machine with a network type: {fetch}; "
        f"or {otherwise}"
    )


def _timm() -> Any:
    return from_extra("timm", "timm", "TimmBackbone")


def _line(error: Exception) -> str:
    """Return the first line of a message, below the title that torch puts above it."""
    lines = str(error).splitlines() or [type(error).__name__]
    said = " ".join(lines[1 if len(lines) > 1 and lines[0].startswith("Error(s)") else 0].split())
    return said if len(said) < 200 else f"{said[:200]}…"
