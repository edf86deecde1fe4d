import pytest
import torch

from fishr.data.images import ImageFolders, ImageList, cache_images
from fishr.data.images import throughput as measuring
from fishr.data.images.image_stores import DeviceImages
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.throughput import Speed, Way, measure, ways_of
from fishr.data.reading import begin_reading, tensor_of

CPU = torch.device("cpu")


@pytest.fixture
def ways(folder):
    cache_images(folder, folder.parent / "images.h5", Preprocessing(8), workers=1)
    return ways_of(ImageFolders("animals", size=8, samples=4), folder.parent, CPU, "images.h5")


@pytest.mark.slow
def test_every_way_is_there_augmented_and_plain(ways):
    pairs = [
        ("files", "reader"),
        ("files", "device"),
        ("cache", "reader"),
        ("cache", "device"),
        ("device_cache", "device_cache"),
    ]
    assert list(ways) == [Way(*pair, augmented) for pair in pairs for augmented in (True, False)]
    for way, domains in ways.items():
        assert [len(domain.labels) for domain in domains] == [4, 4, 4]
        inputs = domains[0].inputs
        assert inputs.prepare == way.prepare
        assert isinstance(inputs.images, DeviceImages) == (way.images == "device_cache")
        made = begin_reading(inputs, range(4), [1, 2, 3, 4]).result()
        assert torch.equal(made, tensor_of(inputs)) != way.augmented


@pytest.mark.slow
def test_plain_inputs_are_the_same_by_all_ways(ways):
    plain = [tensor_of(domains[1].inputs) for domains in ways.values()]
    assert all(torch.equal(one, plain[0]) for one in plain)


def test_without_a_cache(folder, tmp_path):
    lines = [f"{path.parts[-3]},{path.parts[-2]},{path}" for path in sorted(folder.rglob("*.*"))]
    (tmp_path / "some.csv").write_text("\n".join(["environment,class,path", *lines]))
    found = ways_of(ImageList("some.csv", size=8, samples=2), tmp_path, CPU)
    assert {way.images for way in found} == {"files", "device_cache"}


@pytest.mark.slow
def test_images_are_counted_and_ways_take_turns(ways, monkeypatch):
    """A clock on which a batch of files takes 2 seconds and one of the cache 1."""
    turns = []

    def turn(domains, batch, count, seed):
        turns.append((domains[0].inputs.prepare, count, seed))
        return count * (2.0 if domains[0].inputs.prepare == "reader" else 1.0)

    monkeypatch.setattr(measuring, "_turn", turn)
    two = {way: ways[way] for way in (Way("files", "reader", True), Way("device_cache", "device_cache", True))}
    slow, fast = measure(two, batch=10, rounds=3)
    assert slow == Speed(Way("files", "reader", True), (15.0,) * 3)
    assert fast.quartiles == [30.0, 30.0, 30.0]
    assert fast.over(slow) == [2.0, 2.0, 2.0]
    assert turns[4:] == [(name, 3, seed) for seed in range(3) for name in ("reader", "device_cache")]


@pytest.mark.slow
def test_a_turn_draws_its_batches(ways, monkeypatch):
    read = []
    domains = ways[Way("device_cache", "device_cache", True)]
    batch = DeviceImages.batch
    monkeypatch.setattr(DeviceImages, "batch", lambda self, rows, drawn: read.extend(rows) or batch(self, rows, drawn))
    assert measuring._turn(domains, 5, 4, seed=0) > 0
    assert len(read) == 4 * 5 * 3
