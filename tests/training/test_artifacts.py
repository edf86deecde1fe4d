"""What is kept on the way: read back, refused when damaged, whole after a kill."""

import os
import shutil

import attrs
import pytest
import torch

from fishr.errors import InputError, RunFailed
from fishr.training.artifacts import ARTIFACTS, Artifacts, Recording, keep_snapshot, load_artifacts, snapshots
from fishr.training.loop import Stepped
from fishr.training.runs import run


@pytest.mark.parametrize(
    "keep",
    [
        Artifacts(),
        Artifacts(checkpoints=True),
        Artifacts(Recording(every=7)),
        Artifacts(Recording(every=7, samples=3, epsilon=0.25), checkpoints=True),
    ],
)
def test_it_reads_back(keep, tmp_path):
    keep.save(tmp_path)
    assert load_artifacts(tmp_path) == keep
    assert (tmp_path / ARTIFACTS).exists() == (keep != Artifacts())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"statistics": {"evry": 3}, "checkpoints": true}', '{"statistics": 3}']
)
def test_a_damaged_file_is_refused(text, tmp_path):
    (tmp_path / ARTIFACTS).write_text(text)
    with pytest.raises(InputError, match="not what fishr wrote"):
        load_artifacts(tmp_path)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 2, "samples": 0}, {"every": 2, "epsilon": -1.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"{list(wrong)[-1]}: got"):
        Recording(**wrong)


def test_records_are_due_at_both_ends():
    assert [step for step in range(8) if Recording(every=3).due(step, last=7)] == [0, 3, 6, 7]


def test_kept_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"weights")
    for step in (1_000_000, 200_000, 0):
        keep_snapshot(tmp_path / "checkpoint.pt", step)
    (tmp_path / "checkpoints" / ".000300.pt.0123456789abcdef.fishr-partial").touch()
    (tmp_path / "checkpoints" / "mine.pt").touch()
    assert [path.name for path in snapshots(tmp_path)] == ["000000.pt", "200000.pt", "1000000.pt"]


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_checkpoint_stays_when_the_next_one_is_made(tmp_path, links, monkeypatch):
    if not links:

        def refuse(source, target):
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    newest = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        newest.with_name("next").write_bytes(b"weights %d" % step)
        newest.with_name("next").replace(newest)
        keep_snapshot(newest, step)
        keep_snapshot(newest, step)  # again, as a run that is resumed does
    assert [path.read_bytes() for path in snapshots(tmp_path)] == [b"weights 1", b"weights 2"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert newest.samefile(snapshots(tmp_path)[1]) == links


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(RunFailed, match=r"000005.pt: could not be written \(No space left on device\)"):
        keep_snapshot(tmp_path / "checkpoint.pt", 5)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def _steps(folder):
    return [torch.load(path, weights_only=True)["step"] for path in snapshots(folder)]


def test_a_run_keeps_every_checkpoint_and_is_the_same_run(plain, tmp_path, bits):
    """Steps 0, 3, 6 and the last, 7."""
    kept = list(run(plain, tmp_path / "kept", experiment_text="", keep=Artifacts(checkpoints=True)))[-1].state
    without = list(run(plain, tmp_path / "without", experiment_text=""))[-1].state
    assert _steps(tmp_path / "kept") == [0, 3, 6, 7]
    assert snapshots(tmp_path / "without") == ()
    assert bits(kept) == bits(without)
    first = torch.load(snapshots(tmp_path / "kept")[0], weights_only=True)["parameters"]
    assert not torch.equal(first["head.weight"], kept.parameters["head.weight"])


@pytest.mark.parametrize("lost", [True, False])
def test_they_are_kept_across_a_resume(plain, tmp_path, lost):
    """Also where the death came between the checkpoint and its being kept."""
    going = run(plain, tmp_path / "cut", experiment_text="", keep=Artifacts(checkpoints=True))
    for event in going:
        if isinstance(event, Stepped) and event.state.step == 4:
            break
    going.close()
    if lost:
        snapshots(tmp_path / "cut")[-1].unlink()
        (tmp_path / "cut" / "checkpoints" / ".000003.pt.0123456789abcdef.fishr-partial").touch()
    list(run(plain, tmp_path / "cut", experiment_text="", resume=True))
    assert _steps(tmp_path / "cut") == [0, 3, 6, 7]
    assert not list((tmp_path / "cut" / "checkpoints").glob("*.fishr-partial"))


def test_a_diverging_run_leaves_none_that_is_not_finite(plain, tmp_path):
    experiment = attrs.evolve(plain, optimizer=attrs.evolve(plain.optimizer, lr=1e30), checkpoint_every=1)
    with pytest.raises(RunFailed):
        list(run(experiment, tmp_path / "run", experiment_text="", keep=Artifacts(checkpoints=True)))
    for path in snapshots(tmp_path / "run"):
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["parameters"].values())
