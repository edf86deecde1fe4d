"""Checkpoints: what they hold, and what happens to broken ones."""

import math
import zipfile

import attrs
import pytest
import torch

from fishr.errors import InputError, RunFailed
from fishr.training import checkpoints
from fishr.training.checkpoints import FORMAT, load, read_checkpoint, save
from fishr.training.loop import train
from fishr.training.state import initial_state
from fishr.training.step import NotFinite


@pytest.fixture
def trained(everything):
    *_, last = train(everything)
    return last.state


@pytest.fixture
def template(everything):
    return initial_state(everything, everything.data(everything.seed, None))


def test_everything_comes_back(trained, template, tmp_path, same):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, 'name = "é"', position=12, seconds=3.5)
    read = load(path, template)
    assert same(read.state, trained)
    assert read.state.step == trained.step
    assert read.state.optimizer.steps == trained.optimizer.steps
    assert type(read.state.penalty["fishr"]) is type(trained.penalty["fishr"])
    assert (read.experiment_text, read.position, read.seconds) == ('name = "é"', 12, 3.5)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_outsiders_read_it_with_torch_alone(trained, tmp_path, same):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    assert same(torch.load(path, weights_only=True)["parameters"], trained.parameters)
    assert same(load(path).state.parameters, trained.parameters)


def test_leftovers_of_killed_writers_go(trained, tmp_path):
    (tmp_path / ".checkpoint.pt.0123456789abcdef.fishr-partial").write_bytes(b"half")
    (tmp_path / ".other.pt.0123456789abcdef.fishr-partial").write_bytes(b"another file's")
    save(tmp_path / "checkpoint.pt", trained, "")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".other.pt.0123456789abcdef.fishr-partial",
        "checkpoint.pt",
    ]


def test_parameters_that_are_not_finite_are_not_saved(trained, tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    good = path.read_bytes()
    for value in (float("nan"), float("inf")):
        weight = trained.parameters["head.weight"].clone()
        weight[0, 0] = value
        bad = attrs.evolve(trained, parameters=trained.parameters | {"head.weight": weight})
        with pytest.raises(NotFinite, match=f"step 7: parameter head.weight is {value}"):
            save(path, bad, "")
    assert path.read_bytes() == good


def test_a_full_disk_leaves_the_previous_file(trained, tmp_path):
    """A limit on file sizes stands in for a disk that is full."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    good = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limits[1]))
    try:
        with pytest.raises(RunFailed, match=r"could not be written .*the previous file is kept") as caught:
            save(path, trained, "changed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == good
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(trained, template, tmp_path, share):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="not a readable checkpoint") as caught:
        load(path, template)
    assert "\n" not in str(caught.value)


TINY = {
    "format": FORMAT,
    "version": 1,
    "step": 3,
    "parameters": {"head.weight": torch.tensor([[0.5, -1.5, 2.25]])},
    "buffers": {},
    "optimizer": {"steps": (3,), "moments": {}},
    "penalty": {"fishr": None},
    "generator": torch.arange(16, dtype=torch.uint8),
    "scale": None,
    "experiment_text": "seed = 0",
    "position": 12,
    "seconds": 0.5,
}


def _leaves(tree):
    """Everything that two trees can differ in."""
    if isinstance(tree, torch.Tensor):
        return [(tree.dtype, tree.shape, tree.stride(), tree.numpy().tobytes())]
    if isinstance(tree, dict):
        return [leaf for key, child in tree.items() for leaf in (key, *_leaves(child))]
    if isinstance(tree, tuple):
        return [len(tree), *(leaf for child in tree for leaf in _leaves(child))]
    return [(type(tree), tree)]


@pytest.mark.slow
def test_flipped_bits_of_each_byte_are_noticed_or_harmless(tmp_path, monkeypatch):
    """Two bits of each, of all entries, names, sizes and paddings; with the state of a generator of 16 bytes."""
    monkeypatch.setitem(checkpoints._EXPECTED, "generator", (lambda value: True, ""))
    path = tmp_path / "checkpoint.pt"
    torch.save(TINY, path)
    content, noticed = bytearray(path.read_bytes()), 0
    for place in range(len(content)):
        for bit in (place % 8, (place + 5) % 8):
            content[place] ^= 1 << bit
            path.write_bytes(content)
            content[place] ^= 1 << bit
            try:
                found = read_checkpoint(path)
            except InputError:
                noticed += 1
                continue
            assert _leaves(found) == _leaves(TINY), (place, bit)
    # More than half of the file is content, the rest is paddings and dates.
    assert noticed > len(content)


def test_flipped_bits_of_a_whole_state_are_noticed_or_harmless(trained, template, tmp_path, same):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    content, noticed = bytearray(path.read_bytes()), 0
    for place in range(0, len(content), len(content) // 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert same(load(path, template).state, trained)
        except InputError:
            noticed += 1
    assert noticed > 100


def _changed(path, **changes):
    tree = torch.load(path, weights_only=True)
    for name, value in changes.items():
        *parents, last = name.split("__")
        part = tree
        for parent in parents:
            part = part[parent]
        part[last] = value
    torch.save(tree, path)


def _deep(levels):
    tree = ()
    for _ in range(levels):
        tree = (tree,)
    return tree


def _wide(levels):
    tree = (1, 2)
    for _ in range(levels):
        tree = (tree, tree)
    return tree


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"step": value}, "step is not a whole number of at least 0") for value in (-1, True, 3.5, "3", None)),
        *(({"position": value}, "position is not a whole number") for value in (-1, 1.0, None)),
        *(({"seconds": value}, "seconds is not a finite number") for value in (math.nan, math.inf, -1.0, "1")),
        ({"experiment_text": 5}, "experiment_text is not text"),
        ({"parameters": [1]}, "parameters is not tensors by name"),
        ({"parameters": {"head.weight": 1}}, "parameters is not tensors by name"),
        ({"buffers": None}, "buffers is not tensors by name"),
        ({"optimizer__steps": (-1,)}, "optimizer is not counts"),
        ({"optimizer__steps": 5}, "optimizer is not counts"),
        ({"optimizer__more": 5}, "optimizer is not counts"),
        ({"optimizer__moments": {"first": (torch.zeros(1),)}}, "optimizer is not counts"),
        ({"optimizer__moments": {"first": torch.zeros(1)}}, "optimizer is not counts"),
        ({"optimizer": {}}, "optimizer: got the entries"),
        ({"generator": torch.zeros(5056, dtype=torch.uint8)}, "generator is not the state"),
        ({"generator": torch.zeros(3)}, "generator is not the state"),
        ({"generator": None}, "generator is not the state"),
        ({"scale": {"value": math.nan, "steps": 0}}, "scale is not None or a factor"),
        ({"scale": {"value": 2.0, "steps": -1}}, "scale is not None or a factor"),
        ({"scale": {"value": 2.0, "steps": 0, "more": 0}}, "scale is not None or a factor"),
        ({"scale": 2.0}, "scale is not None or a factor"),
        ({"scale": {"value": 2.0, "steps": 0}}, "scale: made in another precision"),
        (
            {"parameters__head.weight": torch.zeros(1).expand(2, 6)},
            r"parameters.head.weight is a tensor whose values overlap",
        ),
        ({"parameters__head.weight": torch.zeros(7).as_strided((2, 6), (1, 1))}, "is a tensor whose values overlap"),
        ({"parameters__head.weight": torch.full((2, 6), math.nan)}, "parameter head.weight is nan"),
        ({"parameters__head.weight": torch.zeros(2, 6).double()}, r"parameters.head.weight: got .*float64"),
        ({"parameters__head.weight": torch.zeros(2, 6).to_sparse()}, "not a readable checkpoint"),
        ({"penalty": _deep(200)}, "levels"),
        ({"penalty": _wide(40)}, "entries"),
        ({"penalty": {1: 2}}, "penalty has a key that is no text"),
        ({"penalty": {1, 2}}, "penalty is a set"),
        ({"penalty": {"fishr": True}}, "penalty: got the entries fishr in the checkpoint"),
    ],
)
def test_what_no_run_can_have_written_is_refused(trained, template, tmp_path, changes, message):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    _changed(path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load(path, template)
    assert "\n" not in str(caught.value)


def test_a_circle_is_refused(trained, template, tmp_path):
    path, circle = tmp_path / "checkpoint.pt", {}
    circle["self"] = circle
    save(path, trained, "")
    _changed(path, penalty=circle)
    with pytest.raises(InputError, match="levels"):
        load(path, template)


@pytest.mark.parametrize("kind", ["compressed", "repeated", "directory"])
def test_archives_that_torch_does_not_write_are_refused(trained, tmp_path, monkeypatch, kind):
    """Two megabytes of compressed zeros are gigabytes; of a directory torch returns uninitialized memory."""
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        if kind == "repeated":
            archive.filelist += archive.filelist * 10
        if kind == "directory":
            archive.filelist[-1].external_attr |= 0x10
    assert path.stat().st_size
    monkeypatch.setattr(torch, "load", lambda *given, **named: pytest.fail("unpacked"))
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load(path)


def test_damage_is_noticed_where_a_process_switched_checksums_off(trained, template, tmp_path, same):
    torch.serialization.set_crc32_options(False)
    try:
        save(tmp_path / "checkpoint.pt", trained, "")
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load(tmp_path / "checkpoint.pt", template).state, trained)


def test_tensors_that_overlap_are_saved_so_that_they_are_read(trained, tmp_path):
    odd = torch.arange(4.0).as_strided((2, 2), (1, 1))
    state = attrs.evolve(trained, penalty={"odd": odd, "turned": torch.zeros(2, 3).T, "none": torch.zeros(3, 0)})
    save(tmp_path / "checkpoint.pt", state, "")
    read = load(tmp_path / "checkpoint.pt").state.penalty
    assert torch.equal(read["odd"], odd)
    assert read["turned"].stride() == (1, 3)


@pytest.mark.parametrize("target", ["nowhere.pt", "checkpoint.pt"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, target):
    (tmp_path / "checkpoint.pt").symlink_to(target)
    with pytest.raises(InputError, match="is a link that leads nowhere"):
        load(tmp_path / "checkpoint.pt")


class _Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parameters": {}}, "not a checkpoint of fishr"),
        ([1, 2], "not a checkpoint of fishr"),
        ({"format": FORMAT, "version": 99}, "version 99, expected 1"),
        ({"format": FORMAT, "version": 1, "step": 3}, "damaged, it lacks parameters"),
        (_Evil(), "not a readable checkpoint"),
    ],
    ids=["foreign", "list", "version", "incomplete", "code"],
)
def test_other_files_are_refused(template, tmp_path, content, message, capsys):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "checkpoint.pt", template)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_text_file_and_an_absent_one_are_refused(template, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load(tmp_path / "notes.txt", template)
    with pytest.raises(InputError, match="no such checkpoint"):
        load(tmp_path / "absent.pt", template)
    with pytest.raises(InputError, match="no such checkpoint"):
        load(tmp_path, template)


def test_the_state_of_another_experiment_is_refused(plain, trained, template, tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, trained, "")
    other = initial_state(plain, plain.data(0, None))
    with pytest.raises(InputError, match=r"checkpoint.pt: parameters: got the entries"):
        load(path, other)
    wider = template.parameters | {"head.weight": torch.zeros(2, 9)}
    with pytest.raises(InputError, match=r"parameters.head.weight: got a tensor of shape \(2, 6\)"):
        load(path, attrs.evolve(template, parameters=wider))
