import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from fishr.data.images.decoding import decode, normalized, resized
from fishr.errors import InputError


@pytest.mark.parametrize("size", [(33, 21), (21, 33), (24, 24), (300, 7), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_plain_inputs_are_torchvisions_to_the_bit(tmp_path, draw, size, mode):
    path = draw(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), 3, *size, mode=mode)
    steps = [T.Resize((24, 24)), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    with Image.open(path) as image:
        expected = T.Compose(steps)(image.convert("RGB"))
    made = normalized([resized(decode(path), 24)], 24)
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert torch.equal(made[0], expected)


def test_a_palette_with_transparency_gives_its_colours_without_a_warning(tmp_path):
    """Pillow warns of it, and in these tests a warning is an error."""
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 20, 30, 240, 40])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert np.asarray(decode(tmp_path / "a.png")).tolist() == [[[250, 10, 20], [30, 240, 40]]]


def test_batches_of_any_size():
    assert normalized([], 5).shape == (0, 3, 5, 5)
    pictures = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    batch = normalized(pictures, 5)
    assert batch.shape == (2, 3, 5, 5)
    assert torch.equal(batch[1:], normalized(pictures[1:], 5))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jpg", b"", "not an image"),
        ("a.png", b"<html>quota exceeded</html>", "not an image"),
        ("a.bmp", b"BM" + b"\0" * 60, "a.bmp: cannot be read as an image"),
    ],
)
def test_no_image_is_refused_in_one_line(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        decode(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
