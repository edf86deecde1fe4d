"""Run folders: what is written, and what a kill leaves."""

import json

import attrs
import pytest
import torch

from fishr.errors import InputError, RunFailed
from fishr.penalties import Scaled, Total
from fishr.training.checkpoints import load
from fishr.training.loop import Finished, Started, Stepped
from fishr.training.runs import run
from fishr.training.sgd import SGD
from fishr.training.step import NotFinite

TEXT = 'name = "a run"\n'


def _go(experiment, folder, resume=False):
    return run(experiment, folder, experiment_text=TEXT, resume=resume)


def _stop_after(experiment, folder, events, resume=False):
    """Leave a run as a kill after so many events leaves it: nothing is tidied up, no file is closed in order."""
    going = _go(experiment, folder, resume)
    seen = [next(going) for _ in range(events)]
    going.close()
    return seen


def _strict(text):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_a_run_leaves_its_folder(experiment, tmp_path):
    events = list(_go(experiment, tmp_path / "runs" / "one"))
    folder = tmp_path / "runs" / "one"
    assert sorted(f.name for f in folder.iterdir()) == ["checkpoint.pt", "config.toml", "metrics.jsonl", "result.json"]
    assert [f.name for f in folder.parent.iterdir()] == ["one"]
    assert (folder / "config.toml").read_text() == TEXT

    lines = [_strict(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(7))
    assert steps[0].keys() == {"step", "loss", "risk", "l2", "terms", "domain_losses"}
    assert steps[0]["domain_losses"].keys() == {"flip 0.2", "flip 0.1"}
    assert steps[0]["terms"]["fishr"].keys() == {"value", "weight"}
    records = [event.record for event in events if isinstance(event, Stepped)]
    assert [line["loss"] for line in steps] == [record.loss for record in records]
    assert [line["step"] for line in lines if "scores" in line] == [2, 4, 6, 7]
    raw = (folder / "metrics.jsonl").read_text().splitlines()
    assert raw == [json.dumps(line, sort_keys=True) for line in lines]

    result = _strict((folder / "result.json").read_text())
    assert (result["status"], result["steps"], result["seed"]) == ("finished", 7, experiment.seed)
    assert result["name"] == experiment.name
    scores = [attrs.asdict(score, filter=lambda _, value: value is not None) for score in events[-1].scores]
    assert result["scores"] == scores
    assert result["versions"].keys() == {"fishr", "torch", "python", "numpy", "backpack-for-pytorch"}
    assert result["versions"]["torch"] == str(torch.__version__)
    assert result["seconds"] >= 0


@pytest.mark.slow
def test_killed_after_any_event_it_ends_the_same(experiment, tmp_path, same):
    whole = list(_go(experiment, tmp_path / "whole"))
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    final = load(tmp_path / "whole" / "checkpoint.pt").state
    for count in range(1, len(whole) + 1):
        folder = tmp_path / f"cut-{count}"
        _stop_after(experiment, folder, count)
        (folder / ".checkpoint.pt.0123456789abcdef.fishr-partial").write_bytes(b"half a checkpoint")
        events = list(_go(experiment, folder, resume=True))
        assert isinstance(events[-1], Finished)
        assert events[-1].scores == whole[-1].scores
        assert (folder / "metrics.jsonl").read_bytes() == metrics
        assert same(load(folder / "checkpoint.pt").state, final)
        if count < len(whole):
            assert isinstance(events[0], Started)
            assert events[0].state.step == count_of_last_checkpoint(whole[:count], experiment)
            assert not (folder / ".checkpoint.pt.0123456789abcdef.fishr-partial").exists()


def count_of_last_checkpoint(events, experiment):
    done = [event.state.step for event in events if isinstance(event, Stepped)]
    return max([0, *(step for step in done if step % experiment.checkpoint_every == 0 or step == experiment.steps)])


def test_killed_again_and_again_it_ends_the_same(everything, tmp_path, same):
    experiment = attrs.evolve(everything, checkpoint_every=1)
    list(_go(experiment, tmp_path / "whole"))
    folder = tmp_path / "cut"
    _stop_after(experiment, folder, 2)
    for _ in range(4):
        _stop_after(experiment, folder, 3, resume=True)
    list(_go(experiment, folder, resume=True))
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert same(load(folder / "checkpoint.pt").state, load(tmp_path / "whole" / "checkpoint.pt").state)


def test_checkpoints_are_as_far_apart_as_asked(plain, tmp_path, same):
    experiment = attrs.evolve(plain, checkpoint_every=1)
    whole = list(_go(experiment, tmp_path / "whole"))
    going = run(experiment, tmp_path / "cut", experiment_text=TEXT, checkpoint_seconds=1e9)
    assert [type(next(going)) for _ in range(3)] == [type(event) for event in whole[:3]]
    going.close()
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()
    list(run(experiment, tmp_path / "cut", experiment_text=TEXT, resume=True, checkpoint_seconds=1e9))
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert same(load(tmp_path / "cut" / "checkpoint.pt").state, load(tmp_path / "whole" / "checkpoint.pt").state)


def test_half_a_line_is_cut_off(plain, tmp_path):
    list(_go(plain, tmp_path / "whole"))
    folder = tmp_path / "cut"
    _stop_after(plain, folder, 6)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "lo')
    list(_go(plain, folder, resume=True))
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_finished_run_yields_its_result_alone(plain, tmp_path, monkeypatch):
    whole = list(_go(plain, tmp_path / "run"))
    before = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in (tmp_path / "run").iterdir()}
    monkeypatch.setattr("fishr.training.runs.train", None)
    (finished,) = _go(plain, tmp_path / "run", resume=True)
    assert isinstance(finished, Finished)
    assert finished.scores == whole[-1].scores
    assert torch.equal(finished.state.parameters["head.weight"], whole[-1].state.parameters["head.weight"])
    assert {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in (tmp_path / "run").iterdir()} == before


def test_a_run_of_version_0_1_goes_on_under_the_new_name_of_its_key(plain, tmp_path):
    before, after = "[compute]\npieces = 1\n", "[compute]\nmicro_batches = 1\n"
    going = run(plain, tmp_path / "run", experiment_text=before)
    assert [next(going) for _ in range(6)]
    going.close()
    whole = list(run(plain, tmp_path / "run", experiment_text=after, resume=True))
    assert whole[0].state.step == 3
    assert (tmp_path / "run" / "config.toml").read_text() == before
    (finished,) = run(plain, tmp_path / "run", experiment_text=after, resume=True)
    assert finished.state.step == plain.steps
    with pytest.raises(InputError, match="differs from the configuration given"):
        next(run(plain, tmp_path / "run", experiment_text=after.replace("1", "2"), resume=True))


def test_an_existing_folder_is_refused(plain, tmp_path):
    list(_go(plain, tmp_path / "run"))
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match=r"exists already; resume it with --resume .*, or choose another name"):
        next(_go(plain, tmp_path / "run"))
    assert {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        next(_go(plain, tmp_path / "file"))
    with pytest.raises(InputError, match="could not be made"):
        next(_go(plain, tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_resumed_is_refused(plain, tmp_path):
    with pytest.raises(InputError, match="no run is there to resume"):
        next(_go(plain, tmp_path / "absent", resume=True))
    assert not (tmp_path / "absent").exists()
    folder = tmp_path / "run"
    _stop_after(plain, folder, 6)
    with pytest.raises(InputError, match="differs from the configuration given"):
        next(run(plain, folder, experiment_text="other", resume=True))
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"metrics.jsonl: has 0 bytes, expected at least"):
        list(_go(plain, folder, resume=True))
    (folder / "metrics.jsonl").write_bytes(whole)
    (folder / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        list(_go(plain, folder, resume=True))
    for text in ("[]", "[" * 100_000):
        (folder / "result.json").write_text(text)
        with pytest.raises(InputError, match="not a result that fishr wrote"):
            list(_go(plain, folder, resume=True))


@pytest.mark.parametrize("target", ["lost.pt", "checkpoint.pt"])
@pytest.mark.parametrize("name", ["checkpoint.pt", "result.json", "metrics.jsonl"])
def test_a_link_that_leads_nowhere_is_no_fresh_start(plain, tmp_path, name, target):
    """The run would begin anew without a word, and a link of metrics would be written through."""
    folder = tmp_path / "run"
    _stop_after(plain, folder, 5)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target if name == "checkpoint.pt" else "lost.txt")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises((InputError, RunFailed)) as caught:
        list(_go(plain, folder, resume=True))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_step_beyond_the_last_is_refused(plain, tmp_path):
    folder = tmp_path / "run"
    list(_go(plain, folder))
    (folder / "result.json").unlink()
    tree = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save(tree | {"step": 10**9}, folder / "checkpoint.pt")
    with pytest.raises(InputError, match="step is 1000000000, expected at most 7"):
        list(_go(plain, folder, resume=True))


def test_what_a_killed_beginning_left_is_removed(plain, tmp_path):
    for name in (".run.0123456789abcdef.fishr-partial", ".other.0123456789abcdef.fishr-partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("half")
    next(_go(plain, tmp_path / "run"))
    assert sorted(f.name for f in tmp_path.iterdir()) == [".other.0123456789abcdef.fishr-partial", "run"]


@pytest.mark.slow
def test_a_folder_at_work_is_refused(plain, tmp_path):
    going = _go(plain, tmp_path / "run")
    next(going)
    with pytest.raises(InputError, match="another process is training in it"):
        next(_go(plain, tmp_path / "run", resume=True))
    going.close()
    assert isinstance(list(_go(plain, tmp_path / "run", resume=True))[-1], Finished)


def test_what_cannot_be_trained_leaves_no_folder(plain, tmp_path):
    with pytest.raises(InputError, match="device"):
        next(run(plain, tmp_path / "run", experiment_text="", device="gpu"))
    bad = attrs.evolve(plain, data=lambda seed, data_dir: (_ for _ in ()).throw(InputError("no data")))
    with pytest.raises(InputError, match="no data"):
        next(_go(bad, tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@attrs.frozen
class Late:
    """A penalty that is not a number from one step on."""

    at: int

    def init(self, problem):
        return ()

    def __call__(self, seen, state, step):
        return seen.domain_losses.mean() * (float("nan") if step >= self.at else 1.0), state


def test_a_failure_keeps_the_last_good_checkpoint(plain, tmp_path):
    penalty = Total(late=Scaled(Late(at=5), 1.0))
    experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, penalty=penalty))
    with pytest.raises(NotFinite, match="step 5: late is nan"):
        list(_go(experiment, tmp_path / "run"))
    assert load(tmp_path / "run" / "checkpoint.pt").state.step == 3
    result = _strict((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["step"], result["term"]) == ("failed", 5, "late")
    lines = [_strict(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [0, 1, 2, 3, 4]
    with pytest.raises(NotFinite, match="step 5: late is nan"):
        list(_go(experiment, tmp_path / "run", resume=True))


def test_weights_that_diverge_in_the_last_step_are_not_kept(plain, tmp_path):
    """The loss is finite, its gradient times the learning rate is not."""
    objective = attrs.evolve(plain.objective, penalty=Total(late=Scaled(Late(at=99), 1e6)), rescale=False)
    experiment = attrs.evolve(plain, objective=objective, optimizer=SGD(lr=1e38), steps=1)
    with pytest.raises(NotFinite, match=r"step 1: parameter .* is (nan|inf|-inf)"):
        list(_go(experiment, tmp_path / "run"))
    assert _strict((tmp_path / "run" / "metrics.jsonl").read_text())["step"] == 0
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_score_that_is_not_finite_is_null(plain, tmp_path):
    """JSON knows no infinity."""
    objective = attrs.evolve(plain.objective, penalty=Total(late=Scaled(Late(at=99), 1e6)), rescale=False)
    experiment = attrs.evolve(plain, objective=objective, optimizer=SGD(lr=1e38), evaluate_every=1)
    with pytest.raises(NotFinite, match="step 1: risk is"):
        list(_go(experiment, tmp_path / "run"))
    scored = _strict((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    assert [score["loss"] for score in scored["scores"]] == [None] * 4


def test_a_full_disk_is_one_line(plain, tmp_path):
    resource = pytest.importorskip("resource")
    going = _go(plain, tmp_path / "run")
    next(going)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(RunFailed, match=r"metrics.jsonl: could not be written") as caught:
            list(going)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    list(_go(plain, tmp_path / "run", resume=True))
    list(_go(plain, tmp_path / "whole"))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
