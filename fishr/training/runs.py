"""A run on disk: configuration, metrics, checkpoint and result in one folder, resumable after any kill."""

import json
import math
import platform
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import frozen

import fishr
from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.files import present, remove_leftovers, write_atomically
from fishr.ranks import ALONE, RankLost, Ranks
from fishr.training.artifacts import SNAPSHOTS, Artifacts, keep_snapshot, load_artifacts, snapshot_path
from fishr.training.checkpoints import Checkpoint, load, save
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore
from fishr.training.experiment import Experiment
from fishr.training.launch import agreed, from_first
from fishr.training.loop import Evaluated, Event, Finished, Started, Stepped, train
from fishr.training.run_folder import (
    CHECKPOINT,
    METRICS,
    RESULT,
    LineFile,
    check_absent,
    checkpoint_of,
    existing_folder,
    new_folder,
)
from fishr.training.state import TrainingState, initial_state
from fishr.training.step import NotFinite, StepRecord

if TYPE_CHECKING:
    from fishr.training.recorder import Recorder


def run(
    experiment: Experiment,
    folder: Path,
    *,
    experiment_text: str,
    data_dir: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    keep: Artifacts = Artifacts(),  # noqa: B008 (immutable)
    ranks: Ranks = ALONE,
) -> Generator[Event]:
    """Train in a folder: the events of ``train``, each recorded before it is yielded.

    The folder holds config.toml, metrics.jsonl (a line a step and a line an evaluation), checkpoint.pt and,
    at the end, result.json; and what ``keep`` asks for: statistics.h5 at the end, checkpoints/ on the way. Killed
    at any moment and resumed, a run on a CPU with as many threads leaves the same metrics, weights and statistics,
    byte for byte, as one that was let through.

    Args:
        experiment: the run.
        folder: where; it must not exist, or with ``resume`` it must be that of this run.
        experiment_text: the configuration as TOML, kept as config.toml.
        data_dir: where data files lie, for data that has files.
        device: as for ``train``.
        resume: go on from the folder's checkpoint; a run that is finished yields its Finished alone.
        keep: statistics over time and checkpoints on the way, neither of which changes the run; a run that is
            resumed keeps what it was begun with.
        ranks: the processes that train together. The first alone reads and writes the folder, which the others need
            not see; a run may be resumed by another number of them.

    Yields:
        The events of ``train`` from the checkpoint on.

    Raises:
        InputError: a folder that exists, or that cannot be resumed; what ``train`` refuses.
        RunFailed: the loss or a parameter is not finite, or a file could not be written; the last checkpoint
            is kept.
        Refused: one of the ranks refuses; on all of them.
        RankLost: another rank is gone; the first one has made a checkpoint of the last step.

    Example:
        >>> import tempfile
        >>> from fishr.protocols import colored_digits
        >>> experiment = attrs.evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent) / "run"
        ...     events = list(run(experiment, folder, experiment_text=""))
        ...     sorted(path.name for path in folder.iterdir())
        ['checkpoint.pt', 'config.toml', 'metrics.jsonl', 'result.json']
    """
    where = resolve_device(device)
    with ExitStack() as stack:

        def prepare() -> _Prepared:
            if ranks.number:
                return _Prepared(experiment.data(experiment.seed, data_dir), None, keep)
            opened = _resumed if resume else _begun
            return stack.enter_context(opened(experiment, folder, experiment_text, data_dir, keep))

        prepared = agreed(prepare, ranks)
        start = from_first(prepared.start, ranks)
        if isinstance(start, Finished):
            yield start
            return
        assert start is not None
        events = train(experiment, device=str(where), state=start.state, domains=prepared.domains, ranks=ranks)
        if ranks.number == 0:
            events = _recorded(events, experiment, folder, experiment_text, prepared, start, where, ranks)
        yield from events


@frozen(eq=False)
class _Prepared:
    """Data, where to go on from (None on all ranks but the first), and what is kept."""

    domains: Domains
    start: Checkpoint | Finished | None
    keep: Artifacts


@contextmanager
def _resumed(
    experiment: Experiment, folder: Path, text: str, data_dir: Path | None, keep: Artifacts
) -> Generator[_Prepared]:
    with existing_folder(folder, text):
        keep = load_artifacts(folder)
        domains = experiment.data(experiment.seed, data_dir)
        start = _finished(folder, text)
        if start is None:
            start = _last_checkpoint(folder, text, initial_state(experiment, domains), experiment.steps)
        else:
            _clear_records(folder, experiment, text, keep)
        yield _Prepared(domains, start, keep)


@contextmanager
def _begun(
    experiment: Experiment, folder: Path, text: str, data_dir: Path | None, keep: Artifacts
) -> Generator[_Prepared]:
    check_absent(folder)
    # What cannot be trained leaves no folder behind.
    domains = experiment.data(experiment.seed, data_dir)
    start = Checkpoint(initial_state(experiment, domains), text)
    with new_folder(folder, text, keep):
        try:
            yield _Prepared(domains, start, keep)
        except InputError:
            # Refused by its first step: there is nothing to go on with.
            metrics = folder / METRICS
            if not metrics.exists() or metrics.stat().st_size == 0:
                shutil.rmtree(folder)
            raise


def _recorded(
    events: Iterator[Event],
    experiment: Experiment,
    folder: Path,
    text: str,
    prepared: _Prepared,
    start: Checkpoint,
    device: torch.device,
    ranks: Ranks,
) -> Iterator[Event]:
    names, keep = [domain.name for domain in prepared.domains.training], prepared.keep
    clock, last = time.monotonic(), start
    recorder = _recorder(folder, experiment, text, keep, start.state.step)
    with LineFile(folder / METRICS, start.position) as metrics, recorder or nullcontext():
        try:
            for event, seconds in _timed(events):
                if isinstance(event, Started):
                    if keep.checkpoints:
                        _keep_first(folder, event.state, text)
                    if recorder:
                        recorder.begin(event)
                elif isinstance(event, Stepped):
                    metrics.append(_json(step_entry(event.record, names)))
                    done = event.state.step
                    made = Checkpoint(event.state, text, metrics.position, start.seconds + time.monotonic() - clock)
                    if done % experiment.checkpoint_every == 0 or done == experiment.steps:
                        _checkpoint(folder, made, metrics)
                        if keep.checkpoints:
                            keep_snapshot(folder / CHECKPOINT, done)
                    if recorder:
                        recorder.record(event.state)
                    last, event = made, attrs.evolve(event, seconds=seconds)
                elif isinstance(event, Evaluated):
                    metrics.append(_json({"step": event.step, "scores": score_entries(event.scores)}))
                else:
                    metrics.sync()
                    if recorder:
                        recorder.assemble()
                    outcome = {"status": "finished", "scores": score_entries(event.scores)}
                    total = start.seconds + time.monotonic() - clock
                    _write_result(folder, experiment, device, ranks, total, outcome)
                    # Only now: killed before, the run goes on from its last step and assembles them again.
                    if recorder:
                        recorder.clear()
                yield event
        except NotFinite as failure:
            outcome = {"status": "failed", "message": str(failure), "step": failure.step, "term": failure.term}
            _write_result(folder, experiment, device, ranks, start.seconds + time.monotonic() - clock, outcome)
            raise
        except (RankLost, GeneratorExit):
            # Nothing of this rank's work is to be lost with another.
            if not ranks.alone:
                _checkpoint(folder, last, metrics)
            raise


def _timed(events: Iterator[Event]) -> Iterator[tuple[Event, float]]:
    """Events with the seconds that each took to compute, without those that its reader spent before."""
    while True:
        begun = time.monotonic()
        try:
            event = next(events)
        except StopIteration:
            return
        yield event, time.monotonic() - begun


def _checkpoint(folder: Path, made: Checkpoint, metrics: LineFile) -> None:
    metrics.sync()
    save(folder / CHECKPOINT, made.state, made.experiment_text, made.position, made.seconds)


def _recorder(folder: Path, experiment: Experiment, text: str, keep: Artifacts, step: int) -> "Recorder | None":
    if keep.statistics is None:
        return None
    # Here, because HDF5 takes long to load and most runs record nothing.
    from fishr.training.recorder import Recorder

    return Recorder(folder, experiment, text, keep.statistics, step)


def _clear_records(folder: Path, experiment: Experiment, text: str, keep: Artifacts) -> None:
    """Remove what a run that was killed in its very last moment left of its records."""
    recorder = _recorder(folder, experiment, text, keep, step=0)
    if recorder is not None and recorder.has_parts():
        recorder.clear()


def _keep_first(folder: Path, state: TrainingState, text: str) -> None:
    """Keep the checkpoint that a run begins or goes on with: killed in between, it may not be kept yet."""
    (folder / SNAPSHOTS).mkdir(exist_ok=True)
    if state.step:
        keep_snapshot(folder / CHECKPOINT, state.step)
    else:
        save(snapshot_path(folder, 0), state, text)


def _last_checkpoint(folder: Path, text: str, initial: TrainingState, steps: int) -> Checkpoint:
    start = Checkpoint(initial, text)
    # A link that leads nowhere is a lost checkpoint, not a run that has none yet.
    if present(folder / CHECKPOINT):
        start = load(folder / CHECKPOINT, initial, text)
        if start.state.step > steps:
            raise InputError(
                f"{folder / CHECKPOINT}: damaged, step is {start.state.step}, expected at most {steps}; "
                "use another checkpoint"
            )
    for name in (CHECKPOINT, RESULT):
        remove_leftovers(folder / name)
    # A failed attempt's result would speak for the run that goes on.
    (folder / RESULT).unlink(missing_ok=True)
    return start


def _finished(folder: Path, text: str) -> Finished | None:
    path = folder / RESULT
    if not present(path):
        return None
    try:
        result = json.loads(path.read_bytes())
        if result["status"] != "finished":
            return None
        scores = tuple(_score(entry) for entry in result["scores"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a result that fishr wrote; remove it to go on from the checkpoint") from error
    return Finished(load(checkpoint_of(folder), experiment_text=text).state, scores)


def _write_result(
    folder: Path,
    experiment: Experiment,
    device: torch.device,
    ranks: Ranks,
    seconds: float,
    outcome: dict[str, Any],
) -> None:
    result = {
        "name": experiment.name,
        "seed": experiment.seed,
        "steps": experiment.steps,
        "device": str(device),
        "ranks": ranks.count,
        "seconds": round(seconds, 3),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "fishr": fishr.__version__,
            **{name: _version(name) for name in ("numpy", "backpack-for-pytorch")},
        },
    }
    write_atomically(folder / RESULT, (_json(result | outcome, indent=2) + "\n").encode())


def step_entry(record: StepRecord, names: Sequence[str]) -> dict[str, Any]:
    """The line of a step in metrics.jsonl, as plain values."""
    entry = attrs.asdict(record)
    return entry | {"domain_losses": dict(zip(names, record.domain_losses, strict=True))}


def score_entries(scores: Sequence[DomainScore]) -> list[dict[str, Any]]:
    """The scores of an evaluation, as plain values for JSON."""
    # JSON has no infinity: the loss of a model that diverged in its last step is null.
    entries = [attrs.asdict(score, filter=lambda _, value: value is not None) for score in scores]
    return [e | {"loss": e["loss"] if math.isfinite(e["loss"]) else None} for e in entries]


def _score(entry: dict[str, Any]) -> DomainScore:
    loss: Any = math.nan if entry["loss"] is None else entry["loss"]
    return DomainScore(**(entry | {"loss": loss}))


def _json(value: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=indent)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
