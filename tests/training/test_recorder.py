"""Statistics over time: right at every step, without a trace in the run, to the same bits after any death."""

import tracemalloc

import attrs
import numpy as np
import pytest
import torch

from fishr.data.caches import load_tree
from fishr.errors import InputError, RunFailed
from fishr.penalties import Total
from fishr.tensor_trees import named_tensors
from fishr.training import recorder as module
from fishr.training.artifacts import ARTIFACTS, Artifacts, Recording, snapshots
from fishr.training.checkpoints import load
from fishr.training.head_statistics import head_statistics
from fishr.training.loop import Evaluated, Finished, Started, Stepped
from fishr.training.model import build_model
from fishr.training.objective import Objective
from fishr.training.recorder import KIND, STATISTICS
from fishr.training.runs import run
from fishr.training.state import first_state

pytestmark = pytest.mark.slow

KEEP = Artifacts(Recording(every=2, samples=11), checkpoints=True)


def _run(experiment, folder, keep=KEEP, **options):
    return run(experiment, folder, experiment_text="text", keep=keep, **options)


def _cut(experiment, folder, step, event_type=Stepped):
    """Leave what a run leaves that dies right after an event."""
    going = _run(experiment, folder)
    for event in going:
        if isinstance(event, event_type) and getattr(event, "step", None) in (step, None):
            if event_type is Stepped and event.state.step != step:
                continue
            break
    going.close()


def _statistics(folder):
    return load_tree(folder / STATISTICS, KIND)


def _leaves(tree, path=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


def _same(one, other):
    ours, theirs = dict(_leaves(one)), dict(_leaves(other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, np.ndarray):
            assert value.tobytes() == theirs[name].tobytes(), name
        else:
            assert value == theirs[name], name


def test_each_record_is_of_its_own_weights(experiment, tmp_path):
    """Against the same quantities of the checkpoints that the run kept."""
    experiment = attrs.evolve(experiment, checkpoint_every=1)
    list(_run(experiment, tmp_path / "run"))
    found = _statistics(tmp_path / "run")
    assert found["steps"].tolist() == [0, 2, 4, 6, 7]
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    template = first_state(experiment, model, 2)
    for row, step in enumerate(found["steps"]):
        state = load(snapshots(tmp_path / "run")[step], template).state
        assert state.step == step
        moment = head_statistics(model, experiment, state, domains.training, Recording(every=1, samples=11))
        for name, value in named_tensors(moment):
            table = found
            for part in name.split("."):
                table = table[part]
            np.testing.assert_allclose(table[row], value.numpy(), rtol=1e-5, atol=1e-7, err_msg=name)


def test_it_says_what_it_is_of(plain, tmp_path):
    list(_run(plain, tmp_path / "run"))
    found = _statistics(tmp_path / "run")
    assert found["domains"] == ("flip 0.2", "flip 0.1")
    assert found["count"].tolist() == [11, 11]
    assert found["layout"]["names"] == ("weight", "bias")
    assert {name: shape.tolist() for name, shape in found["layout"]["shapes"].items()} == {
        "weight": [1, 6],
        "bias": [1],
    }
    assert found["epsilon"] == 0.1
    assert found["provenance"]["experiment"] == "text"
    assert (found["provenance"]["every"], found["provenance"]["samples"]) == (2, 11)
    shapes = {name: value.shape for name, value in _leaves(found) if isinstance(value, np.ndarray)}
    assert shapes["risks"] == shapes["accuracies"] == (5, 2)
    assert shapes["mean"] == shapes["variance"] == shapes["hessian_diagonal"] == (5, 2, 7)
    assert shapes["weights"] == (5, 7)
    assert shapes["penalties.fishr"] == shapes["inconsistency"] == (5,)
    assert shapes["variance_distance_scale_free"] == shapes["hessian_distance_scale_free"] == (5,)
    assert found["variance"].dtype == found["weights"].dtype == np.float32


def test_one_record_at_a_time_is_put_together(plain, tmp_path, monkeypatch):
    wide, peaks = torch.rand(2, 50_000), []

    def statistics(*arguments):
        return head_statistics(*arguments) | {"variance": wide}

    def assemble(recorder):
        tracemalloc.start()
        real(recorder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    real = module.Recorder.assemble
    monkeypatch.setattr(module, "head_statistics", statistics)
    monkeypatch.setattr(module.Recorder, "assemble", assemble)
    list(_run(plain, tmp_path / "run", Artifacts(Recording(every=1, samples=11))))
    assert _statistics(tmp_path / "run")["variance"].shape == (8, 2, 50_000)
    # Arrays are read, checked and written in copies, of one record of eight.
    assert peaks[0] < 4 * wide.nbytes


def test_all_rows_unless_told_otherwise(plain, tmp_path):
    list(_run(plain, tmp_path / "run", Artifacts(Recording(every=50))))
    found = _statistics(tmp_path / "run")
    assert found["count"].tolist() == [100, 100]
    assert found["provenance"]["samples"] is None
    assert found["steps"].tolist() == [0, 7]


def test_the_run_is_the_same_with_and_without(experiment, tmp_path, bits):
    with_ = list(_run(experiment, tmp_path / "with"))[-1].state
    without = list(_run(experiment, tmp_path / "without", Artifacts()))[-1].state
    assert bits(with_) == bits(without)
    assert (tmp_path / "with" / "metrics.jsonl").read_bytes() == (tmp_path / "without" / "metrics.jsonl").read_bytes()
    files = {path.name for path in (tmp_path / "with").iterdir()}
    assert files - {path.name for path in (tmp_path / "without").iterdir()} == {STATISTICS, ARTIFACTS, "checkpoints"}


@pytest.mark.parametrize("step", [1, 2, 5, 7])
def test_killed_and_resumed_it_ends_in_the_same_arrays(everything, tmp_path, step):
    list(_run(everything, tmp_path / "untouched"))
    _cut(everything, tmp_path / "cut", step)
    assert not (tmp_path / "cut" / STATISTICS).exists()
    list(run(everything, tmp_path / "cut", experiment_text="text", resume=True))
    _same(_statistics(tmp_path / "cut"), _statistics(tmp_path / "untouched"))
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("cut", "untouched")]
    assert names[0] == names[1]
    bytes_ = [(tmp_path / name / STATISTICS).read_bytes() for name in ("cut", "untouched")]
    assert bytes_[0] == bytes_[1]


def test_a_record_that_was_changed_after_the_checkpoint_is_written_again(plain, tmp_path):
    """The run was cut in step 5, its checkpoint is of step 3."""
    list(_run(plain, tmp_path / "untouched"))
    _cut(plain, tmp_path / "cut", 5)
    parts = tmp_path / "cut" / f"{STATISTICS}.parts"
    four = next(path for path in parts.iterdir() if path.name.lstrip("0").startswith("4"))
    four.unlink()
    list(run(plain, tmp_path / "cut", experiment_text="text", resume=True))
    _same(_statistics(tmp_path / "cut"), _statistics(tmp_path / "untouched"))


def test_a_missing_record_before_the_checkpoint_is_told(plain, tmp_path):
    _cut(plain, tmp_path / "cut", 5)
    parts = tmp_path / "cut" / f"{STATISTICS}.parts"
    two = next(path for path in parts.iterdir() if path.name.lstrip("0").startswith("2"))
    two.unlink()
    with pytest.raises(InputError, match="lacks the record of step 2, which comes before the checkpoint") as first:
        list(run(plain, tmp_path / "cut", experiment_text="text", resume=True))
    # And again: the refusal left the records free, though what it was raised in is still held.
    assert first.traceback
    with pytest.raises(InputError, match="lacks the record of step 2"):
        list(run(plain, tmp_path / "cut", experiment_text="text", resume=True))


@pytest.mark.parametrize("moment", ["assembled", "finished"])
def test_killed_in_its_last_moments(plain, tmp_path, moment, monkeypatch):
    """Between the statistics and the result, and between the result and the removal of the records."""

    class Killed(BaseException):
        pass

    def dies(*arguments, **outcome):
        raise Killed

    list(_run(plain, tmp_path / "untouched"))
    with monkeypatch.context() as patch:
        if moment == "assembled":
            patch.setattr("fishr.training.journal.Journal._write_result", dies)
        else:
            patch.setattr(module.Recorder, "clear", dies)
        with pytest.raises(Killed):
            list(_run(plain, tmp_path / "cut"))
    assert (tmp_path / "cut" / f"{STATISTICS}.parts").exists()
    list(run(plain, tmp_path / "cut", experiment_text="text", resume=True))
    _same(_statistics(tmp_path / "cut"), _statistics(tmp_path / "untouched"))
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("cut", "untouched")]
    assert names[0] == names[1]


def test_a_head_without_statistics_is_refused_before_anything_is_made(plain, tmp_path):
    @attrs.frozen
    class Fixed:
        def __call__(self, features, outputs, generator):
            return torch.nn.Linear(features, outputs).requires_grad_(False)

    experiment = attrs.evolve(plain, head=Fixed(), objective=Objective())
    with pytest.raises(InputError, match="no parameter that requires grad"):
        list(_run(experiment, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_full_disk_fails_the_run_and_keeps_its_checkpoint(plain, tmp_path, monkeypatch):
    written = []

    def full(self, index, tree):
        if index == 4:
            raise RunFailed("000004.h5: could not be written (No space left on device)")
        written.append(index)
        return real(self, index, tree)

    real = module.Parts.write
    with monkeypatch.context() as patch:
        patch.setattr(module.Parts, "write", full)
        with pytest.raises(RunFailed, match="No space left"):
            list(_run(plain, tmp_path / "run"))
    assert written == [0, 2]
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3
    list(run(plain, tmp_path / "run", experiment_text="text", resume=True))
    assert _statistics(tmp_path / "run")["steps"].tolist() == [0, 2, 4, 6, 7]


def test_settings_that_were_changed_by_hand_are_refused(plain, tmp_path):
    _cut(plain, tmp_path / "cut", 5)
    Artifacts(Recording(every=2, samples=12), checkpoints=True).save(tmp_path / "cut")
    with pytest.raises(InputError):
        list(run(plain, tmp_path / "cut", experiment_text="text", resume=True))


def test_without_penalties_there_are_none(plain, tmp_path):
    experiment = attrs.evolve(plain, objective=Objective(penalty=Total()))
    list(_run(experiment, tmp_path / "run"))
    assert _statistics(tmp_path / "run")["penalties"] == {}


def test_events_are_those_of_the_run(plain, tmp_path):
    kinds = [type(event) for event in _run(plain, tmp_path / "run")]
    assert kinds == [type(event) for event in _run(plain, tmp_path / "other", Artifacts())]
    assert kinds[0] is Started
    assert kinds[-2:] == [Evaluated, Finished]
