"""Augmentations are functions of the image and the seed, whatever other threads draw."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from fishr.data import Domain, ImageFolders, Minibatch
from fishr.data.images import DomainBedAugmentation, NoAugmentation, Preprocessing, RandAugment, TrivialAugment
from fishr.data.images.augmentation import augmented
from fishr.data.images.domainbed_augmentation import augment, draw_augmentation
from fishr.data.images.image_inputs import ImageInputs
from fishr.data.reading import begin_reading
from fishr.errors import InputError

CPU = torch.device("cpu")
SIZE = Preprocessing(16)
PIPELINE = v2.Compose([v2.RandomResizedCrop(20), v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomApply([v2.AugMix()])])


def own(image, seed, preprocessing):
    """Torchvision's transforms, which draw from the global generator, and NumPy with a generator of the seed."""
    noise = np.random.default_rng(seed).integers(0, 9, (20, 20, 3), np.uint8)
    return Image.fromarray(np.asarray(PIPELINE(image)) // 2 + noise)


@frozen
class Shade:
    """The gray image, of its own size."""

    def __call__(self, image, seed, preprocessing):
        return image.convert("L")


KINDS = [DomainBedAugmentation(), RandAugment(), RandAugment(5, 25, crop=False), TrivialAugment(), own, Shade()]


def _seeded(transform, seed, image):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return transform(image)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (RandAugment(), v2.RandAugment(2, 9)),
        (RandAugment(4, 30), v2.RandAugment(4, 30)),
        (TrivialAugment(), v2.TrivialAugmentWide()),
    ],
)
def test_draws_and_pixels_are_torchvisions(noise, mine, theirs):
    image, made = noise(4, 40, 30), set()
    for seed in range(40):
        changed = _seeded(theirs, seed, image)
        crop = evolve(draw_augmentation(seed, 40, 30), jitters=(), gray=False)
        assert mine(image, seed, SIZE) == augment(changed, crop, SIZE)
        whole = evolve(mine, crop=False)(image, seed, SIZE)
        assert whole == changed.resize((16, 16), Image.Resampling.BILINEAR)
        made.add(whole.tobytes())
    assert len(made) > 25


def test_the_default_and_no_augmentation_have_short_names(files, noise):
    for short, kind in ((True, DomainBedAugmentation()), (False, NoAugmentation())):
        assert ImageInputs(files, SIZE, augment=short).augment == ImageFolders("x", augment=short).augment == kind
        assert torch.equal(
            ImageInputs(files, SIZE, augment=short).read(range(6), range(6)),
            ImageInputs(files, SIZE, augment=kind).read(range(6), range(6)),
        )
    assert ImageFolders("x").augment == DomainBedAugmentation()
    image = noise(1, 30, 20)
    assert NoAugmentation()(image, 3, SIZE) == SIZE.resized(image)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ["reader", "device", "device_cache"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: getattr(kind, "__name__", type(kind).__name__))
def test_threads_order_and_batch_change_nothing(files, kind, prepare):
    inputs = ImageInputs(files, SIZE, augment=kind, prepare=prepare).to(CPU)
    rows, seeds = [*range(6)] * 8, list(range(100, 148))
    alone = torch.cat([inputs.finish(inputs.read([r], [s]), [r], [s]) for r, s in zip(rows, seeds, strict=True)])
    torch.manual_seed(3)
    expected = torch.rand(2000)
    torch.manual_seed(3)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(inputs.read, rows[i::8], seeds[i::8]) for i in range(8)]
        # The draws of the main thread, such as those of dropout, go on meanwhile.
        drawn = torch.cat([torch.rand(1) for _ in range(2000)])
        made = [inputs.finish(task.result(), rows[i::8], seeds[i::8]) for i, task in enumerate(tasks)]
    assert torch.equal(drawn, expected)
    assert all(torch.equal(one, alone[i::8]) for i, one in enumerate(made))
    assert torch.equal(begin_reading(inputs, rows[::-1], seeds[::-1]).result(), alone.flip(0))


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: getattr(kind, "__name__", type(kind).__name__))
def test_all_ways_to_prepare_give_the_same_bits(files, kind, tmp_path, draw):
    # Images of the inputs' size, as a device cache resizes images first.
    for number in range(6):
        draw(tmp_path / f"photo/dog/{number}.png", number, 16, 16)
    ways = [ImageInputs(files, SIZE, augment=kind, prepare=p).to(CPU) for p in ("reader", "device", "device_cache")]
    one, *others = [way.finish(way.read(range(6), range(6)), range(6), range(6)) for way in ways]
    assert all(torch.equal(one, other) for other in others)
    # Evaluation has seeds of the images' names.
    augmented_evaluation = evolve(ways[0], augment_evaluation=True)
    assert not torch.equal(augmented_evaluation.read(range(6)), ways[0].read(range(6)))
    assert torch.equal(augmented_evaluation.plain().read(range(6), range(6)), ways[0].read(range(6)))


def test_a_step_draws_the_same_on_any_number_of_ranks(files):
    from fishr.ranks import Ranks

    inputs = ImageInputs(files, SIZE, augment=RandAugment())
    domains = (Domain("photo", inputs, torch.zeros(6, dtype=torch.int64)),)
    whole, *halves = [
        Minibatch(4).draw(domains, torch.Generator().manual_seed(5), Ranks(rank, count))
        for rank, count in ((0, 1), (0, 2), (1, 2))
    ]
    assert torch.equal(torch.cat([half.inputs for half in halves]), whole.inputs)


@given(st.sampled_from(KINDS), st.integers(0, 2**63 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=60)
def test_the_result_is_a_function_of_image_and_seed_with_the_inputs_size(kind, seed, width, height, size):
    colors = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    image, preprocessing = Image.fromarray(colors), Preprocessing(size)
    before = torch.get_rng_state()
    made = augmented(kind, image, seed, preprocessing)
    assert (made.mode, made.size) == ("RGB", (size, size))
    torch.rand(3)
    assert augmented(kind, image, seed, preprocessing) == made
    torch.set_rng_state(before)
    assert np.array_equal(np.asarray(image), colors)


def test_what_is_no_image_is_refused(noise):
    def tensor(image, seed, preprocessing):
        return v2.functional.pil_to_tensor(image)

    with pytest.raises(InputError, match=r"^augment: got a Tensor from tensor, expected a Pillow image$"):
        augmented(tensor, noise(0, 8, 8), 0, SIZE)
    for options, message in (({"num_ops": -1}, "num_ops: got -1, .* at least 0"), ({"magnitude": 31}, "at most 30")):
        with pytest.raises(InputError, match=message):
            RandAugment(**options)
