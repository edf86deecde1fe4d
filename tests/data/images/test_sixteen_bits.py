"""Images of 16 bits and of floats by each way from a file to inputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from fishr.data.images import ImageFolders, ImageList, cache_images, find_unreadable
from fishr.data.images.decoding import normalize
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.reading import tensor_of
from fishr.data.sources import verify_images
from fishr.errors import InputError

LEVELS = {"ill": 8000, "well": 40000}
SIZE = 8


@pytest.fixture
def rays(tmp_path):
    """Two environments of two classes, which differ in their gray level alone; and a list of the same images."""
    lines = ["environment,class,path"]
    for environment, suffix in (("north", "png"), ("south", "tif")):
        for name, level in LEVELS.items():
            path = tmp_path / "rays" / environment / name / f"0.{suffix}"
            path.parent.mkdir(parents=True)
            values = np.random.default_rng(level).integers(level, level + 4000, (SIZE, SIZE)).astype(np.uint16)
            Image.fromarray(values).save(path)
            lines.append(f"{environment},{name},{path.relative_to(tmp_path)}")
    (tmp_path / "rays.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ["reader", "device", "device_cache"])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("source", ["rays", "rays.csv"])
def test_every_way_takes_the_high_byte(rays, source, cached, prepare):
    options = {"size": SIZE, "augment": False, "prepare": prepare}
    if cached:
        assert cache_images(rays / source, rays / "rays.h5", Preprocessing(SIZE), workers=1)
        options["cache"] = "rays.h5"
    kind = ImageList if source.endswith("csv") else ImageFolders
    for domain, suffix in zip(kind(source, **options)(0, rays).domains, ("png", "tif"), strict=True):
        files = [rays / "rays" / domain.name / name / f"0.{suffix}" for name in LEVELS]
        expected = torch.stack(
            [torch.from_numpy((np.asarray(Image.open(path)) >> 8).astype(np.uint8)) for path in files]
        )
        made = tensor_of(domain.inputs.to(torch.device("cpu")))
        assert torch.equal(made, normalize(expected[:, None].expand(-1, 3, -1, -1)))
    assert verify_images(rays / source).unreadable == ()


def test_every_way_refuses_floats_by_name(rays):
    bad = rays / "rays" / "south" / "ill" / "0.tif"
    Image.fromarray(np.zeros((SIZE, SIZE), np.float32)).save(bad)
    why = r"1 of 4 images cannot be read: [^\n]+ill/0\.tif \(TIFF pixels of mode F, floats, .* unsigned 8 or 16 bits\)"
    for use in (
        lambda: ImageFolders("rays")(0, rays),
        lambda: ImageList("rays.csv")(0, rays),
        lambda: cache_images(rays / "rays", rays / "rays.h5", Preprocessing(SIZE), workers=1),
    ):
        with pytest.raises(InputError, match=why):
            use()
    assert [each.path for each in verify_images(rays / "rays").unreadable] == [bad]
    assert [each.path for each in find_unreadable([bad])] == [bad]


@pytest.mark.parametrize("source", ["rays", "rays.csv"])
def test_twelve_bits_in_sixteen_are_noted(rays, source):
    for path in (rays / "rays" / "south").rglob("*.tif"):
        Image.fromarray((np.asarray(Image.open(path)) >> 4).astype(np.uint16)).save(path)
    (note,) = verify_images(rays / source).notes
    assert note.startswith("south: its first images have 16 bits but no value above 4095, so they become dark")
    Image.new("L", (SIZE, SIZE)).save(rays / "rays" / "south" / "ill" / "0.tif")
    assert verify_images(rays / source).notes == ()
