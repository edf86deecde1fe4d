import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from fishr.data.images.decoding import decode, normalize, pixels, resize
from fishr.errors import InputError


@pytest.mark.parametrize("size", [(33, 21), (21, 33), (24, 24), (300, 7), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_plain_inputs_are_torchvisions_to_the_bit(tmp_path, draw, size, mode):
    path = draw(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), 3, *size, mode=mode)
    steps = [T.Resize((24, 24)), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    with Image.open(path) as image:
        expected = T.Compose(steps)(image.convert("RGB"))
    made = normalize(pixels([resize(decode(path), 24)], 24))
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


V = np.array([[0, 255, 256, 1000, 32767, 32768, 65280, 65535]], np.uint16)


def _tiff(values, bits, photometric=1, sample_format=1, order="<"):
    """An uncompressed gray TIFF of one row, made by hand: Pillow writes only some of those that it reads."""
    width, data = values.size, _packed(values) if bits == 12 else values.astype(values.dtype.newbyteorder(order))
    data = bytes(data) if bits == 12 else data.tobytes()
    data += b"\0" * (len(data) % 2)
    shorts = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = [
        struct.pack(f"{order}HHIHH", tag, 3, 1, each, 0) for tag, each in (shorts | {339: sample_format}).items()
    ]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def _packed(values):
    digits = "".join(f"{value:03x}" for value in values.flatten())
    return bytes.fromhex(digits + "0" * (len(digits) % 2))


def _png(values, color_type, channels):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"\0" + values.astype(">u2").repeat(channels).tobytes()
    header = struct.pack(">IIBBBBB", values.size, 1, 16, color_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _pgm(values, largest):
    return f"P5 {values.size} 1 {largest}\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gray.png", _png(V, 0, 1), V >> 8),
        ("color.png", _png(V, 2, 3), V >> 8),
        ("gray-alpha.png", _png(V, 4, 2), V >> 8),
        ("color-alpha.png", _png(V, 6, 4), V >> 8),
        ("little.tif", _tiff(V, 16), V >> 8),
        ("big.tif", _tiff(V, 16, order=">"), V >> 8),
        ("white-is-zero.tif", _tiff(V, 16, photometric=0), 255 - (V >> 8)),
        ("white-is-zero-8.tif", _tiff((V >> 8).astype(np.uint8), 8, photometric=0), 255 - (V >> 8)),
        ("twelve.tif", _tiff(V >> 4, 12), V >> 8),
        ("full.pgm", _pgm(V, 65535), V >> 8),
        ("twelve.pgm", _pgm(np.array([0, 2048, 4095]), 4095), np.array([[0, 128, 255]])),
    ],
)
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    pixels = np.asarray(decode(tmp_path / name))
    assert pixels.tolist() == np.repeat(expected[..., None], 3, axis=2).tolist()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_sixteen_bits_of_a_compressed_tiff(tmp_path, compression):
    Image.fromarray(V).save(tmp_path / "a.tif", compression=compression)
    assert np.asarray(decode(tmp_path / "a.tif"))[..., 0].tolist() == (V >> 8).tolist()


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (_tiff(V.astype(np.float32), 32, sample_format=3), "F"),
        (_tiff(V.astype(np.int32), 32, sample_format=2), "I"),
        (_tiff(V.astype(np.uint32), 32), "I"),
        (_tiff(V.astype(np.int16), 16, sample_format=2), "I"),
        (_tiff(V.astype(np.int8), 8, sample_format=2), "L"),
    ],
)
def test_pixels_without_a_range_are_refused(tmp_path, content, mode):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError) as caught:
        decode(tmp_path / "a.tif")
    assert str(caught.value) == (
        f"{tmp_path / 'a.tif'}: cannot be read as an image (TIFF pixels of mode {mode}, floats, 32-bit or signed "
        "integers, have no defined range; save it with unsigned 8 or 16 bits); delete or replace it"
    )


def test_batches_of_any_size():
    assert normalize(pixels([], 5)).shape == (0, 3, 5, 5)
    pictures = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    batch = normalize(pixels(pictures, 5))
    assert batch.shape == (2, 3, 5, 5)
    assert torch.equal(batch[1:], normalize(pixels(pictures[1:], 5)))


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
