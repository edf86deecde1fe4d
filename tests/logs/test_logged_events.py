"""Logs of a run: what they get, once each, whatever becomes of the run or of the log."""

import os
from contextlib import contextmanager
from math import nan
from pathlib import Path

import attrs
import pytest
import torch

from fishr.configuration import unstructure
from fishr.logs import with_logs
from fishr.penalties import LinearSchedule
from fishr.training import Evaluated, Finished, Stepped, run, train

STEPS = 7


@contextmanager
def lines(folder, key, settings):
    """A log of a line a row, in a file beside the run folder."""
    with (folder.parent / "log.txt").open("a", buffering=1) as file:
        yield lambda rows: file.writelines(f"{key} {row.step} {' '.join(sorted(row.values))}\n" for row in rows)


class Kept(list):
    """A log that keeps its rows, and how its context ended."""

    ended = ""

    @contextmanager
    def __call__(self, folder, key, settings):
        self.settings = settings
        try:
            yield self.extend
        except BaseException as error:
            self.ended = type(error).__name__
            raise


def _run(experiment, folder, loggers, **options):
    events = run(experiment, folder, experiment_text="", **options)
    return with_logs(events, loggers, folder, unstructure(experiment))


def test_the_numbers_of_a_run(experiment, tmp_path):
    log = Kept()
    settings = unstructure(experiment)
    events = list(with_logs(train(experiment), [log], tmp_path, settings, lambda: {"figure": Path("figure.png")}))
    records = [event.record for event in events if isinstance(event, Stepped)]
    assert [row.step for row in log] == list(range(STEPS + 1))
    assert log.settings == settings
    for row, record in zip(log[:STEPS], records, strict=True):
        term = record.terms["fishr"]
        assert row.values["terms/fishr"] == term.value
        assert row.values["raw/fishr"] * term.weight == pytest.approx(term.value, rel=1e-12)
        assert (row.values["loss"], row.values["weights/fishr"]) == (record.loss, term.weight)
        assert row.values["batch_loss/flip 0.1"] == record.domain_losses[1]
        assert row.values["lr/model"] == experiment.optimizer.lr
    scores = {event.step: event.scores for event in events if isinstance(event, Evaluated)}
    assert scores.keys() == {3, 6, 7}
    for step, found in scores.items():
        assert log[step].values["accuracy/evaluation/reversed"] == found[2].accuracy
        assert log[step].values["mean_loss/training/flip 0.2"] == found[0].loss
    assert [step for step in range(STEPS) if "accuracy/evaluation/gray" in log[step].values] == [3, 6]
    assert log[STEPS].values["figure"] == Path("figure.png")


def test_learning_rates_are_those_of_the_schedule(experiment, tmp_path):
    log, schedule = Kept(), LinearSchedule(start=0.0, end=1.0, steps=STEPS)
    list(with_logs(train(attrs.evolve(experiment, lr_schedule=schedule)), [log], tmp_path, {}))
    rates = [row.values["lr/model"] / experiment.optimizer.lr for row in log[:STEPS]]
    assert rates == pytest.approx([step / 7 for step in range(STEPS)])


def test_a_number_that_is_not_finite_is_left_out(experiment, tmp_path):
    log, (started, *rest) = Kept(), list(train(experiment))
    undefined = tuple(attrs.evolve(score, accuracy=nan) for score in rest[-1].scores)
    list(with_logs([started, Evaluated(0, undefined), *rest], [log], tmp_path, {}))
    assert not [name for name in log[0].values if name.startswith("accuracy")]
    assert "mean_loss/evaluation/gray" in log[0].values


# Seconds between writes: each step is written, or the last one alone.
@pytest.mark.parametrize(("at", "seconds"), [(1, 0.0), (4, 1e9), (5, 0.0), (7, 1e9)])
def test_a_killed_run_goes_on_in_its_log_and_lacks_and_doubles_nothing(experiment, tmp_path, monkeypatch, seconds, at):
    """Neither rows that waited to be written, nor rows that are computed once more, nor those of a second kill."""
    monkeypatch.setattr("fishr.logs.logged_events._EVERY", seconds)
    folder = tmp_path / "run"
    for resume, last in ((False, at), (True, max(at, 5))):
        if (child := os.fork()) == 0:
            for event in _run(experiment, folder, [lines], resume=resume):
                if isinstance(event, Finished) or (isinstance(event, Stepped) and event.state.step == last):
                    os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    list(_run(experiment, folder, [lines], resume=True))
    found = [line.split() for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [int(step) for _, step, *_ in found] == list(range(STEPS + 1))
    assert len({key for key, *_ in found}) == 1
    evaluated = [int(step) for _, step, *names in found if "accuracy/training/flip" in names]
    assert evaluated == [3, 6, 7]
    # Nor does a finished run that is resumed write anything.
    assert len(list(_run(experiment, folder, [lines], resume=True))) == 1
    assert len((tmp_path / "log.txt").read_text().splitlines()) == STEPS + 1


def test_a_log_that_is_added_when_a_run_is_resumed_gets_its_past(experiment, tmp_path):
    going = _run(experiment, tmp_path / "run", [])
    for event in going:
        if isinstance(event, Stepped) and event.state.step == 5:
            going.close()
    log = Kept()
    list(_run(experiment, tmp_path / "run", [log], resume=True))
    assert [row.step for row in log] == list(range(STEPS + 1))


def test_an_interrupted_run_leaves_the_log_complete(experiment, tmp_path):
    log = Kept()
    going = _run(experiment, tmp_path / "run", [log])
    for event in going:
        if isinstance(event, Stepped) and event.state.step == 5:
            going.close()
    assert [row.step for row in log] == list(range(5))
    assert log.ended == "GeneratorExit"


@contextmanager
def unopened(folder, key, settings):
    torch.rand(3)
    raise OSError("no\nserver")
    yield


@contextmanager
def unwritten(folder, key, settings):
    def fail(rows):
        raise KeyError("loss")

    yield fail


@contextmanager
def unclosed(folder, key, settings):
    yield lambda rows: None
    raise ValueError("not sent")


@pytest.mark.parametrize("broken", [unopened, unwritten, unclosed])
def test_a_log_that_fails_ends_alone(experiment, tmp_path, broken):
    plain, log = list(train(experiment)), Kept()
    with pytest.warns(UserWarning, match=rf"^{broken.__name__}: the log failed .*\)$") as warned:
        events = list(with_logs(train(experiment), [broken, log], tmp_path, {}))
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert [row.step for row in log] == list(range(STEPS + 1))
    assert isinstance(events[-1], Finished)
    for name, weight in plain[-1].state.parameters.items():
        assert torch.equal(weight, events[-1].state.parameters[name])
    assert [event.record for event in events if isinstance(event, Stepped)] == [
        event.record for event in plain if isinstance(event, Stepped)
    ]


def test_what_the_run_raises_is_raised(experiment, tmp_path):
    log = Kept()

    def events():
        yield from list(train(experiment))[:3]
        raise ArithmeticError("of the run")

    with pytest.raises(ArithmeticError, match="of the run"):
        list(with_logs(events(), [log], tmp_path, {}))
    assert (len(log), log.ended) == (2, "ArithmeticError")
