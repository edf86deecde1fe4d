"""Pictures of a data set's inputs: a strip of samples of each domain."""

import base64
from collections.abc import Sequence
from io import BytesIO
from itertools import chain, zip_longest
from typing import Any

import torch
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.data.reading import tensor_of
from fishr.reports.page import Picture

_SAMPLES, _SIDE, _DOMAINS = 8, 72, 24
# Smaller images are shown pixel by pixel.
_PHOTO = 48


def sample_pictures(domains: Domains) -> list[Picture]:
    """Return a strip of up to 8 samples of each domain, 24 domains at most; nothing if inputs are no images."""
    if len(domains.shape) != 3 or domains.shape[0] > 3:
        return []
    names = domains.class_names or tuple(map(str, range(domains.classes)))
    return [_strip(domain, split, names) for domain, split in domains.by_split[:_DOMAINS]]


def _strip(domain: Domain, split: str, names: Sequence[str]) -> Picture:
    from PIL import Image

    rows = _rows(domain.labels)
    images, photos = _colors(domain, rows), domain.inputs.shape[-1] >= _PHOTO
    strip = Image.new("RGB", (len(rows) * (_SIDE + 2) - 2, _SIDE), "gray")
    for place, image in enumerate(images):
        pixels = Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())
        small = pixels.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS if photos else Image.Resampling.NEAREST)
        strip.paste(small, (place * (_SIDE + 2), 0))
    file, form = BytesIO(), "JPEG" if photos else "PNG"
    strip.save(file, form, quality=80, optimize=True)
    url = f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    text = f"{len(rows)} samples of {domain.title}"
    if not domain.labels.is_floating_point():
        classes: list[int] = domain.labels[rows].tolist()
        text += ", of class " + ", ".join(names[k] for k in classes)
    return Picture(f"{domain.title} ({split})", url, text)


def _rows(labels: Tensor) -> list[int]:
    """Return the first rows of each class in turn."""
    if labels.is_floating_point():
        return list(range(min(_SAMPLES, len(labels))))
    classes = labels[labels >= 0].unique()[:_SAMPLES].tolist()
    each = [(labels == number).nonzero().flatten()[:_SAMPLES].tolist() for number in classes]
    return [row for row in chain.from_iterable(zip_longest(*each)) if row is not None][:_SAMPLES]


def _colors(domain: Domain, rows: Sequence[int]) -> Tensor:
    """Return samples as RGB images [n, 3, H, W] from 0 to 1."""
    inputs = domain.inputs if isinstance(domain.inputs, Tensor) else domain.inputs.plain()
    found, preprocessing = tensor_of(inputs, rows).float().cpu(), getattr(inputs, "preprocessing", None)
    if preprocessing is not None:
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in _normalization(preprocessing))
        found = found * std + mean
    elif found.min() < 0 or found.max() > 1:
        found = (found - found.min()) / (found.max() - found.min()).clamp(min=1e-12)
    if found.shape[1] == 1:
        found = found.expand(-1, 3, -1, -1)
    # Two channels are red and green.
    return torch.cat([found, torch.zeros_like(found[:, :1])], 1)[:, :3].clamp(0, 1)


def _normalization(preprocessing: Any) -> tuple[Sequence[float], Sequence[float]]:
    return preprocessing.mean, preprocessing.std
