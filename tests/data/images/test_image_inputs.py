import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fishr.data.domains import LazyInputs
from fishr.data.images.decoding import decode, normalize, pixels, resize
from fishr.data.images.domainbed_augmentation import augment, draw_augmentation
from fishr.data.images.image_inputs import ImageInputs
from fishr.data.images.image_stores import ImageFiles
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError

SEEDS = [5, 2**61, 5, 9, 0, 77]


@pytest.fixture
def pictures(files):
    return ImageInputs(files, Preprocessing(16))


def test_they_are_lazy_inputs(pictures):
    assert isinstance(pictures, LazyInputs)
    assert (len(pictures), pictures.shape, pictures.dtype) == (6, (6, 3, 16, 16), torch.float32)
    made = pictures.read([0, 1])
    assert (made.shape, made.dtype, made.device.type) == ((2, 3, 16, 16), torch.float32, "cpu")
    assert pictures.read([]).shape == (0, 3, 16, 16)


def test_without_seeds_they_are_plain(files, pictures):
    expected = torch.cat([normalize(pixels([resize(decode(files.path(row)), 16)], 16)) for row in (4, 0, 4)])
    assert torch.equal(pictures.read([4, 0, 4]), expected)


def test_with_seeds_each_is_augmented_by_its_own(files, pictures):
    made = pictures.read([3, 3, 1], SEEDS[:3])
    for row, seed, picture in zip([3, 3, 1], SEEDS, made, strict=False):
        image = decode(files.path(row))
        by_hand = augment(image, draw_augmentation(seed, *image.size), Preprocessing(16))
        assert torch.equal(picture, normalize(pixels([by_hand], 16))[0])
    assert not torch.equal(made[0], made[1])


def test_the_place_in_a_batch_changes_nothing(pictures):
    order = [2, 5, 0, 4, 1, 3]
    whole = pictures.read(range(6), SEEDS)
    assert torch.equal(pictures.read(order, [SEEDS[row] for row in order]), whole[order])
    halves = [pictures.read(range(3), SEEDS[:3]), pictures.read(range(3, 6), SEEDS[3:])]
    assert torch.equal(torch.cat(halves), whole)


def test_threads_change_nothing_and_leave_the_global_generator_alone(pictures):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    whole = pictures.read(range(6), SEEDS)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda row: pictures.read([row], [SEEDS[row]]), [*range(6)] * 5))
    assert torch.equal(torch.cat(made), whole.repeat(5, 1, 1, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_augment_off_and_plain(files):
    off, both = (
        ImageInputs(files, Preprocessing(16), augment=False),
        ImageInputs(files, Preprocessing(16), augment_evaluation=True),
    )
    plain = off.read(range(6))
    assert torch.equal(off.read(range(6), SEEDS), plain)
    assert not torch.equal(both.read(range(6)), plain)
    assert torch.equal(both.plain().read(range(6)), plain)
    assert torch.equal(both.plain().read(range(6), SEEDS), plain)


def test_evaluation_is_augmented_by_the_images_name_alone(tmp_path, files, draw):
    both = ImageInputs(files, Preprocessing(16), augment_evaluation=True)
    whole = both.read(range(6))
    assert torch.equal(both.read([4, 2]), whole[[4, 2]])
    assert torch.equal(both.select([4, 2, 1]).read([1, 0]), whole[[2, 4]])
    # The same data set elsewhere, of which a file is missing.
    elsewhere = tmp_path / "elsewhere"
    names = tuple(name for name in files.names if name != files.names[0])
    for number, name in enumerate(names, start=1):
        draw(elsewhere / name, number, 30 + number, 25)
    assert torch.equal(
        ImageInputs(ImageFiles(elsewhere, names), Preprocessing(16), augment_evaluation=True).read([0]), whole[[1]]
    )
    # Two images of the same pixels are augmented in different ways.
    twins = ImageFiles(tmp_path, ("one.png", "two.png"))
    for name in twins.names:
        draw(tmp_path / name, 3)
    one, two = ImageInputs(twins, Preprocessing(16), augment_evaluation=True).read([0, 1])
    assert not torch.equal(one, two)


def test_selections_of_selections(pictures):
    chosen = pictures.select([5, 3, 3, 0]).select([3, 1])
    assert (len(chosen), chosen.shape) == (2, (2, 3, 16, 16))
    assert torch.equal(chosen.read([0, 1], SEEDS[:2]), pictures.read([0, 3], SEEDS[:2]))


def test_pickled(pictures):
    again = pickle.loads(pickle.dumps(pictures.select([4, 1])))
    assert torch.equal(again.read([0, 1], SEEDS[:2]), pictures.read([4, 1], SEEDS[:2]))


def test_as_many_seeds_as_rows(pictures):
    with pytest.raises(ValueError, match="zip"):
        pictures.read([0, 1], [3])


def test_a_file_that_vanished_is_named(files, pictures):
    files.path(2).unlink()
    with pytest.raises(InputError, match=r"photo/dog/2\.png: cannot be read as an image \(No such file"):
        pictures.read([1, 2])
