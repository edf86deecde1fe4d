"""Against torchvision's own pipeline, and the formula in float64."""

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from fishr.configuration import ConfigurationError, structure
from fishr.data import ImageFolders, ImageList
from fishr.data.images import Preprocessing, cache_images
from fishr.data.images.color_jitter import jitter_colors
from fishr.data.images.decoding import as_image, pixels
from fishr.data.images.domainbed_augmentation import augment, draw_augmentation
from fishr.data.reading import tensor_of
from fishr.errors import InputError

CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
RESIZINGS = [(name, True) for name in ("bilinear", "bicubic", "lanczos", "nearest")]
# Without antialiasing torchvision takes 8-bit tensors, as Pillow always antialiases.
TENSOR_RESIZINGS = [("bilinear", False), ("bicubic", False)]
OTHER = Preprocessing(20, *CLIP, "bicubic")


def _torchvisions(preprocessing):
    resize = v2.Resize(
        [preprocessing.size] * 2, v2.InterpolationMode(preprocessing.interpolation), antialias=preprocessing.antialias
    )
    steps = [resize, v2.ToImage()] if preprocessing.antialias else [v2.ToImage(), resize]
    normalize = v2.Normalize(preprocessing.mean, preprocessing.std)
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), normalize])


@pytest.mark.parametrize("resizing", RESIZINGS + TENSOR_RESIZINGS)
@pytest.mark.parametrize("size", [9, 70])
def test_inputs_are_those_of_torchvisions_transforms(noise, resizing, size):
    preprocessing = Preprocessing(size, *CLIP, *resizing)
    image = noise(3, 40, 30)
    assert torch.allclose(preprocessing(image), _torchvisions(preprocessing)(image), rtol=0, atol=1e-6)


def test_ways_to_resize_differ(noise):
    kinds = [Preprocessing(9, *CLIP, *resizing)(noise(3, 40, 30)) for resizing in (*RESIZINGS, *TENSOR_RESIZINGS)]
    assert torch.equal(kinds[3], Preprocessing(9, *CLIP, "nearest", antialias=False)(noise(3, 40, 30)))
    assert all(not torch.equal(one, other) for index, one in enumerate(kinds) for other in kinds[:index])


channels = st.tuples(*[st.floats(0.05, 1.0)] * 3)


@given(channels, channels, st.integers(1, 12))
@settings(max_examples=30)
def test_the_formula_in_float64(mean, std, size):
    pixels = torch.arange(256).byte().repeat(3 * size * size)[: 3 * size * size].view(1, 3, size, size)
    center, scale = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (mean, std))
    made = Preprocessing(size, mean, std).normalized(pixels)
    assert torch.allclose(made.double(), (pixels.double() / 255 - center) / scale, rtol=1e-5, atol=1e-5)


def test_efficientnet_lites_inputs_are_pixels_less_127_over_128():
    pixels = torch.arange(192).byte().view(1, 3, 8, 8)
    made = Preprocessing(8, (127 / 255,) * 3, (128 / 255,) * 3).normalized(pixels)
    assert torch.allclose(made, (pixels.float() - 127) / 128, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size: got 0, expected a whole number of at least 1"),
        ({"mean": (0.5, 0.5)}, r"mean: got \(0.5, 0.5\), expected three finite numbers"),
        ({"mean": (0.5, 0.5, float("inf"))}, "mean: got .*, expected three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, r"std: got .*, expected three numbers greater than 0, of red, green and blue"),
        ({"interpolation": "cubic"}, "interpolation: got 'cubic', expected 'nearest' or 'bilinear' or"),
        ({"interpolation": "lanczos", "antialias": False}, 'antialias: got False with "lanczos", expected True'),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Preprocessing(**options)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ["reader", "device", "device_cache"])
@pytest.mark.parametrize("preprocessing", [OTHER, Preprocessing(20, *HALF, "bilinear", antialias=False)])
def test_every_way_to_prepare_inputs_and_a_cache_give_the_same_bits(folder, prepare, preprocessing):
    cache_images(folder, folder.parent / "images.h5", preprocessing, workers=1)
    for cache in (None, "images.h5"):
        source = ImageFolders("animals", preprocessing=preprocessing, cache=cache, prepare=prepare)
        inputs = source(0, folder.parent).domains[1].inputs
        assert (inputs.preprocessing, source.size, inputs.shape[1:]) == (preprocessing, 20, (3, 20, 20))
        files = ImageFolders("animals", size=20)(0, folder.parent).domains[1].inputs.images
        expected = torch.stack([preprocessing(files.path(row)) for row in range(len(files.names))])
        assert torch.equal(tensor_of(inputs.to(torch.device("cpu"))), expected)


@pytest.mark.parametrize("prepare", ["device", "device_cache"])
@pytest.mark.parametrize("resizing", [*RESIZINGS[1:], *TENSOR_RESIZINGS])
def test_crops_have_the_interpolation_for_every_way_to_prepare(folder, prepare, resizing):
    preprocessing, seeds = Preprocessing(20, *CLIP, *resizing), [7, 1, 4, 9]
    source = ImageFolders("animals", preprocessing=preprocessing, prepare=prepare)
    inputs = source(0, folder.parent).domains[0].inputs.to(torch.device("cpu"))
    # A device cache has images of the inputs' size, of which crops are enlarged; files are larger.
    whole = [as_image(inputs.images.read(row)) for row in range(4)]
    drawn = [draw_augmentation(seed, *image.size) for seed, image in zip(seeds, whole, strict=True)]
    crops = [evolve(one, jitters=(), gray=False) for one in drawn]
    expected = pixels([augment(image, one, preprocessing) for image, one in zip(whole, crops, strict=True)], 20)
    read = inputs.read(range(4), seeds)
    assert torch.equal(read, expected)
    assert torch.equal(inputs.finish(read, range(4), seeds), jitter_colors(expected, drawn, preprocessing))


def test_a_cache_of_another_interpolation_is_refused(folder):
    cache_images(folder, folder.parent / "images.h5", Preprocessing(20), workers=1)
    message = r"resized bilinear, antialiased, expected bicubic; .* --size 20 --interpolation bicubic --no-antialias`"
    other = ImageFolders("animals", preprocessing=Preprocessing(20, *CLIP, "bicubic", False), cache="images.h5")
    with pytest.raises(InputError, match=message):
        other(0, folder.parent)
    with pytest.raises(InputError, match=r"made with resize = bilinear, antialiased, expected bicubic, antialiased; "):
        cache_images(folder, folder.parent / "images.h5", OTHER, workers=1)
    # Normalization is no part of a cache.
    normalized = ImageFolders("animals", preprocessing=Preprocessing(20, *CLIP), cache="images.h5")
    assert normalized(0, folder.parent).domains[0].inputs.read([0]).shape == (1, 3, 20, 20)


@pytest.mark.parametrize("kind", [ImageFolders, ImageList])
def test_a_data_set_has_one_size(kind):
    assert (kind("x").size, kind("x", 64).size, kind("x", preprocessing=OTHER).size) == (224, 64, 20)
    assert kind("x", 20, preprocessing=OTHER) == kind("x", preprocessing=OTHER)
    with pytest.raises(InputError, match=r"^size: got 64, expected 20 as in preprocessing; give one of them$"):
        kind("x", 64, preprocessing=OTHER)
    with pytest.raises(InputError, match=r"^size: got 0, expected a whole number of at least 1$"):
        kind("x", size=0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preprocessing": {"interpolation": "cubic"}}, 'preprocessing.interpolation: got "cubic" .* "bicubic"'),
        ({"preprocessing": {"std": [0.5, 0.5, 0]}}, "preprocessing.std: got .*, expected three numbers greater than 0"),
        ({"preprocessing": {"means": [0.5]}}, 'preprocessing.means: unknown key; did you mean "mean"'),
        ({"size": 64, "preprocessing": {"size": 32}}, "size: got 64, expected 32 as in preprocessing"),
        ({"augment": "yes"}, 'augment: got "yes" .*, expected true or false or a table whose kind is one of'),
        ({"augment": {"kind": "RandAug"}}, 'augment.kind: got "RandAug" .* did you mean "RandAugment"'),
        ({"augment": {"kind": "RandAugment", "magnitude": 31}}, "augment.magnitude: got 31, .* at most 30"),
        ({"augment": {"magnitude": 3}}, 'augment.kind: missing, expected one of "DomainBedAugmentation"'),
        ({"augment": {"kind": "mine:blur"}}, "augment.kind: .*a file alone never runs code"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(table, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        structure({"folder": "PACS", **table}, ImageFolders)
    assert "\n" not in str(caught.value)
