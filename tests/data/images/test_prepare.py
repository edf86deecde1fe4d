"""Who prepares inputs changes rounding alone: readers, batches on the device, and pixels cached there."""

import pickle

import pytest
import torch
from attrs import evolve

from fishr.data.batches import Minibatch
from fishr.data.domains import Domain, Domains, LazyInputs
from fishr.data.images import ImageFolders, TrivialAugment, cache_images
from fishr.data.images.color_jitter import jitter_colors
from fishr.data.images.decoding import STD
from fishr.data.images.domainbed_augmentation import crop, draw_augmentation
from fishr.data.images.image_inputs import ImageInputs
from fishr.data.images.image_stores import DeviceImages, ImageFiles
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.reading import begin_reading, chunks, tensor_of
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.models import MLP
from fishr.protocols import colored_digits
from fishr.training import Stepped, train

SIZE, CPU = 16, torch.device("cpu")
SEEDS = [5, 2**61, 5, 9, 0, 77]
LEVELS = 2.5


@pytest.fixture
def files(tmp_path, draw):
    """Images of the inputs' size, so that nothing is resized before a crop."""
    names = tuple(f"photo/dog/{number}.png" for number in range(6))
    for number, name in enumerate(names):
        draw(tmp_path / name, number, SIZE, SIZE)
    return ImageFiles(tmp_path, names)


@pytest.fixture(params=["device", "device_cache"])
def prepared(request, files):
    return ImageInputs(files, Preprocessing(SIZE), prepare=request.param).to(CPU)


def _inputs(pictures, rows, seeds=None):
    return begin_reading(pictures, rows, seeds).result()


def _levels(one, other):
    """Difference in steps of 8-bit images."""
    return (one - other).abs() * torch.tensor(STD).view(3, 1, 1) * 255


def test_they_are_lazy_inputs(prepared):
    assert isinstance(prepared, LazyInputs)
    assert (len(prepared), prepared.shape, prepared.dtype) == (6, (6, 3, SIZE, SIZE), torch.float32)
    assert prepared.read([0, 1], SEEDS[:2]).dtype == prepared.read([0]).dtype == torch.uint8
    assert _inputs(prepared, [0, 1]).dtype == torch.float32


def test_plain_inputs_are_the_readers_to_the_bit(files, prepared):
    rows = [4, 0, 4]
    expected = ImageInputs(files, Preprocessing(SIZE)).read(rows)
    assert torch.equal(_inputs(prepared, rows), expected)
    assert torch.equal(_inputs(evolve(prepared, augment=False), rows, SEEDS[:3]), expected)
    assert torch.equal(_inputs(prepared.plain(), rows, SEEDS[:3]), expected)
    assert torch.equal(tensor_of(prepared, rows), expected)


def test_plain_inputs_of_other_sizes_are_resized_alike(tmp_path, draw):
    names = ("a.png", "b.png")
    for number, name in enumerate(names):
        draw(tmp_path / name, number, 30 + number, 25)
    reader, *others = (
        ImageInputs(ImageFiles(tmp_path, names), Preprocessing(SIZE), prepare=p).to(CPU)
        for p in ("reader", "device", "device_cache")
    )
    for other in others:
        assert torch.equal(_inputs(other, [0, 1]), _inputs(reader, [0, 1]))


def test_augmented_inputs_are_the_readers_to_rounding(files, prepared):
    """The same draws; but a reader rounds after each change, and Pillow's hues have steps of 1.4 degrees."""
    expected = ImageInputs(files, Preprocessing(SIZE)).read(range(6), SEEDS)
    made = _inputs(prepared, range(6), SEEDS)
    assert _levels(made, expected).mean() < LEVELS
    drawn = [draw_augmentation(seed, SIZE, SIZE) for seed in SEEDS]
    whole = torch.cat([prepared.plain().read([row]) for row in range(6)])
    crops = crop(zip(whole.permute(0, 2, 3, 1), drawn, strict=True), SIZE)
    assert torch.equal(made, jitter_colors(crops, drawn, Preprocessing(SIZE)))
    others = _inputs(prepared, range(6), [seed + 1 for seed in SEEDS])
    assert _levels(others, expected).mean() > 10 * LEVELS


def test_files_are_cropped_out_of_the_whole_image(tmp_path, draw):
    """As a reader crops them, before anything is resized."""
    draw(tmp_path / "a.png", 1, 64, 48)
    files = ImageFiles(tmp_path, ("a.png",))
    expected = ImageInputs(files, Preprocessing(SIZE)).read([0] * 6, SEEDS)
    made = _inputs(ImageInputs(files, Preprocessing(SIZE), prepare="device"), [0] * 6, SEEDS)
    assert _levels(made, expected).mean() < LEVELS


def test_the_place_in_a_batch_changes_no_bit(prepared):
    order = [2, 5, 0, 4, 1, 3]
    whole = _inputs(prepared, range(6), SEEDS)
    assert torch.equal(_inputs(prepared, order, [SEEDS[row] for row in order]), whole[order])
    assert torch.equal(_inputs(prepared.select([4, 2, 1]), [1, 0], [SEEDS[2], SEEDS[4]]), whole[[2, 4]])
    halves = [_inputs(prepared, range(3), SEEDS[:3]), _inputs(prepared, range(3, 6), SEEDS[3:])]
    assert torch.equal(torch.cat(halves), whole)


def test_evaluation_is_augmented_by_the_images_name(files, prepared):
    both = evolve(prepared, augment_evaluation=True)
    whole = _inputs(both, range(6))
    assert (
        _levels(whole, ImageInputs(files, Preprocessing(SIZE), augment_evaluation=True).read(range(6))).mean() < LEVELS
    )
    assert torch.equal(_inputs(both.select([4, 2]), [0, 1]), whole[[4, 2]])
    domain = Domain("photo", both, torch.zeros(6, dtype=torch.int64))
    assert torch.equal(torch.cat([inputs for inputs, _ in chunks(domain, 4)]), whole)


def test_images_on_the_device_need_no_file_any_more(files):
    held = ImageInputs(files, Preprocessing(SIZE), prepare="device_cache").select([3, 1]).to(CPU)
    expected = ImageInputs(files, Preprocessing(SIZE)).read([3, 1])
    for row in range(6):
        files.path(row).unlink()
    assert isinstance(held.images, DeviceImages)
    assert held.images.names == (files.names[3], files.names[1])
    assert held.images.pixels.shape == (2, SIZE, SIZE, 3)
    assert torch.equal(_inputs(held, [0, 1]), expected)
    assert torch.equal(_inputs(held.to(CPU), [0, 1]), expected)
    assert torch.equal(_inputs(pickle.loads(pickle.dumps(held)), [0, 1]), expected)
    assert held.images.read(0).tobytes() == held.images.pixels[0].numpy().tobytes()


def test_only_a_device_cache_is_read_at_once(files):
    files.path(2).unlink()
    for prepare in ("reader", "device"):
        pictures = ImageInputs(files, Preprocessing(SIZE), prepare=prepare)
        assert pictures.to(CPU) is pictures
    with pytest.raises(InputError, match=r"photo/dog/2\.png: cannot be read"):
        ImageInputs(files, Preprocessing(SIZE), prepare="device_cache").to(CPU)


def test_all_of_many_images_are_cached(monkeypatch, files):
    monkeypatch.setattr("fishr.data.images.image_inputs._SAMPLES_AT_ONCE", 4)
    unread = ImageInputs(files, Preprocessing(SIZE), augment=False, prepare="device")
    cached = evolve(unread, prepare="device_cache").to(CPU)
    assert torch.equal(cached.images.batch(range(6), None), unread.read(range(6)))


def test_the_former_name_of_the_device_cache_is_kept(files):
    held = ImageInputs(files, Preprocessing(SIZE), prepare="held").to(CPU)
    assert isinstance(held.images, DeviceImages)
    assert torch.equal(_inputs(held, range(6), SEEDS), _inputs(evolve(held, prepare="device_cache"), range(6), SEEDS))


def test_too_many_images_for_the_device_are_refused(monkeypatch, files):
    def refuse(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "empty", refuse)
    expected = r'prepare: got "device_cache" for 6 images of 16 × 16 pixels, expected 0\.0 GiB of memory on cpu; set it'
    with pytest.raises(InputError, match=expected):
        ImageInputs(files, Preprocessing(SIZE), prepare="device_cache").to(CPU)


@pytest.mark.slow
def test_of_folders_and_of_their_cache(folder):
    cache_images(folder, folder.parent / "images.h5", Preprocessing(SIZE), workers=1)
    made = {
        (cache, prepare): ImageFolders("animals", size=SIZE, cache=cache, prepare=prepare)(0, folder.parent).domains[0]
        for cache in (None, "images.h5")
        for prepare in ("reader", "device", "device_cache")
    }
    plain = [tensor_of(domain.inputs.to(CPU)) for domain in made.values()]
    assert all(torch.equal(one, plain[0]) for one in plain)
    augmented = [
        _inputs(made["images.h5", prepare].inputs.to(CPU), range(4), SEEDS[:4])
        for prepare in ("device", "device_cache")
    ]
    assert torch.equal(*augmented)


def test_draws_are_the_readers(files, prepared):
    """Rows and seeds of a step do not depend on who prepares."""
    labels = torch.arange(6)
    states = []
    for pictures in (ImageInputs(files, Preprocessing(SIZE)), prepared):
        generator = torch.Generator().manual_seed(3)
        batch = Minibatch(4).draw((Domain("photo", pictures, labels),), generator)
        states.append((batch.labels.tolist(), generator.get_state().tolist()))
    assert states[0] == states[1]


@pytest.mark.parametrize("prepare", ["device", "device_cache"])
def test_a_run_goes_on_to_the_same_bits(folder, prepare):
    source = ImageFolders("animals", size=8, prepare=prepare)

    def data(seed, data_dir):
        environments = source(seed, folder.parent)
        domains = tuple(evolve(domain, inputs=domain.inputs.to(CPU)) for domain in environments.domains)
        return Domains(domains, (), environments.classes)

    made = evolve(colored_digits(), data=data, loss=CrossEntropy(), featurizer=MLP(widths=(4,)), batches=Minibatch(3))
    experiment = evolve(made, steps=5, evaluate_every=4)
    whole = [event.state for event in train(experiment) if isinstance(event, Stepped)]
    for begun in (1, 3):
        rest = [event.state for event in train(experiment, state=whole[begun - 1]) if isinstance(event, Stepped)]
        for one, other in zip(rest, whole[begun:], strict=True):
            assert all(torch.equal(p, other.parameters[name]) for name, p in one.parameters.items())


def test_a_seeds_colours_are_those_of_any_size():
    """What lets a device change the colours of crops whose images it never saw."""
    for seed in SEEDS:
        one, other = draw_augmentation(seed, 300, 200), draw_augmentation(seed, SIZE, SIZE)
        assert (one.jitters, one.gray, one.mirrored) == (other.jitters, other.gray, other.mirrored)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("prepare", ["reader", "device", "device_cache"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("augment", [True, TrivialAugment()])
def test_on_a_device_as_on_the_cpu(files, prepare, interpolation, augment):
    preprocessing, cuda = Preprocessing(SIZE, interpolation=interpolation), torch.device("cuda", 0)
    pictures = ImageInputs(files, preprocessing, augment, prepare=prepare)
    there, here = pictures.to(cuda), pictures.to(CPU)
    for seeds in (None, SEEDS):
        reading = begin_reading(there, range(6), seeds, cuda)
        assert reading.tasks[0].result().is_cuda
        made = reading.result()
        assert made.is_cuda
        assert _levels(made.cpu(), begin_reading(here, range(6), seeds).result()).max() < 4
