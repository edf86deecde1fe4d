"""Checkpoints: what they hold, and what happens to broken ones."""

import attrs
import pytest
import torch

from fishr.errors import InputError, RunFailed
from fishr.training.checkpoints import FORMAT, load, save
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


class _Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parameters": {}}, "not a checkpoint of fishr"),
        ([1, 2], "not a checkpoint of fishr"),
        ({"format": FORMAT, "version": 99}, "version 99, expected 1"),
        ({"format": FORMAT, "version": 1, "step": 3}, "it lacks parameters"),
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
