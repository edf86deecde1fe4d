"""Small image files, and the real ones if present."""

import numpy as np
import pytest
from PIL import Image

from fishr.data.images.image_stores import ImageFiles

ENVIRONMENTS = {"art": ("cat", "dog", "owl"), "photo": ("cat", "dog"), "sketch": ("dog", "owl")}


def _noise(seed, width, height, mode="RGB"):
    """Smooth noise of any colour, so that crops, mirrors and hues all show."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="session")
def noise():
    return _noise


@pytest.fixture(scope="session")
def draw():
    """Save an image of a seed at a path, in the format of its suffix."""

    def save(path, seed=0, width=40, height=30, mode="RGB"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _noise(seed, width, height, mode).save(path)
        return path

    return save


@pytest.fixture
def files(tmp_path, draw):
    """Six images of one class, of different widths."""
    names = tuple(f"photo/dog/{number}.png" for number in range(6))
    for number, name in enumerate(names):
        draw(tmp_path / name, number, 30 + number, 25)
    return ImageFiles(tmp_path, names)


@pytest.fixture
def folder(tmp_path, draw):
    """Three environments, two of which lack a class; four images a class, of different sizes."""
    number = 0
    for environment, classes in ENVIRONMENTS.items():
        for name in classes:
            for suffix in ("jpg", "PNG", "jpeg", "bmp"):
                number += 1
                path = tmp_path / "data" / "animals" / environment / name / f"{number % 5}.{suffix}"
                draw(path, number, 30 + number, 60 - number)
    return tmp_path / "data" / "animals"
