"""A run on disk: configuration, metrics, checkpoint and result in one folder, resumable after any kill."""

import json
import platform
import shutil
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

import fishr
from fishr.checks import returned
from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.files import json_text, present, remove_leftovers, write_atomically
from fishr.ranks import ALONE, RankLost, Ranks
from fishr.training.artifacts import SNAPSHOTS, Artifacts, Recording, keep_snapshot, load_artifacts, snapshot_path
from fishr.training.checkpoints import Checkpoint, load, save
from fishr.training.compute import resolve_device
from fishr.training.evaluation import averaged_weights, score_entries, score_of
from fishr.training.experiment import Experiment
from fishr.training.launch import agreed, from_first
from fishr.training.loop import Evaluated, Event, Finished, Started, StepFunctions, Stepped, train
from fishr.training.model import Model, build_model
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
from fishr.training.signature import Signature
from fishr.training.state import TrainingState, first_state, state_to
from fishr.training.step import NotFinite, step_entry

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
    by: StepFunctions | None = None,
    checkpoint_seconds: float = 0.0,
) -> Generator[Event]:
    """Train in a run folder: the events of ``train``, each recorded before it is yielded.

    The folder holds config.toml, metrics.jsonl (a line a step and a line an evaluation), checkpoint.pt and, at the end,
    result.json; with ``keep`` also statistics.h5 at the end and checkpoints/ on the way. On a CPU, a run that is killed
    at any moment and resumed with as many threads has identical bits in metrics, weights and statistics.

    Args:
        experiment: the run.
        folder: run folder; it must not exist, or with ``resume`` it must be that of this run.
        experiment_text: the configuration as TOML, written to config.toml.
        data_dir: folder of data files, for data that has files.
        device: as for ``train``.
        resume: resume from the folder's checkpoint; a finished run yields only its Finished.
        keep: statistics and snapshots, neither of which changes the run; a resumed run keeps those it started with.
        ranks: the processes that train together; only the first reads and writes the folder. Another number of them
            may resume a run.
        by: as for ``train``.
        checkpoint_seconds: least time between two checkpoints but the last, where no snapshots are kept.

    Raises:
        InputError: a folder that exists, or that cannot be resumed; input that ``train`` refuses.
        RunFailed: the loss or a parameter is not finite, or a file could not be written; the last checkpoint is kept.
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
    where, text = resolve_device(device), experiment_text
    with ExitStack() as stack:

        def prepare() -> tuple[Domains, Model | None, Checkpoint | Finished | None, Artifacts]:
            """Return data and modules on the device, where the first rank starts, and artifacts."""
            kept = keep
            if ranks.number == 0 and resume:
                stack.enter_context(existing_folder(folder, text))
                kept = load_artifacts(folder)
            elif ranks.number == 0:
                check_absent(folder)
            domains = returned("data", experiment.data(experiment.seed, data_dir), Domains)
            finished = _finished(folder, text) if ranks.number == 0 and resume else None
            if finished is not None:
                return domains, None, finished, kept
            domains = domains.to(where)
            model = build_model(experiment, domains)
            if ranks.number:
                return domains, model, None, kept
            # On the CPU, from where the other ranks get it.
            state = state_to(first_state(experiment, model, len(domains.training)), torch.device("cpu"))
            if resume:
                return domains, model, _last_checkpoint(folder, text, state, experiment.steps), kept
            # Only now: an experiment that cannot be trained leaves no folder behind.
            stack.enter_context(new_folder(folder, text, kept.save))
            stack.enter_context(_removed_if_refused(folder))
            return domains, model, Checkpoint(state, text), kept

        domains, model, start, kept = agreed(prepare, ranks)
        start = from_first(start, ranks)
        if isinstance(start, Finished):
            # A run that was killed between its result and its end left its records.
            if ranks.number == 0 and kept.statistics:
                _recorder(folder, experiment, text, kept.statistics).clear()
            yield start
            return
        assert start is not None
        journal = _Journal(folder, text, kept, start, where, ranks, checkpoint_seconds) if ranks.number == 0 else None
        with nullcontext() if journal is None else journal.open():
            begun = time.monotonic()
            for event in train(experiment, None, str(where), start.state, domains, ranks, model, by):
                yield event if journal is None else journal.write(event, time.monotonic() - begun)
                begun = time.monotonic()


@contextmanager
def _removed_if_refused(folder: Path) -> Generator[None]:
    """Remove the folder of a run whose first step is refused: there is nothing to resume."""
    try:
        yield
    except InputError:
        metrics = folder / METRICS
        if not metrics.exists() or metrics.stat().st_size == 0:
            shutil.rmtree(folder)
        raise


class _Journal:
    """Writes the events of a run into its folder."""

    def __init__(
        self, folder: Path, text: str, keep: Artifacts, start: Checkpoint, on: torch.device, ranks: Ranks, rest: float
    ) -> None:
        self._folder, self._device, self._ranks = folder, on, ranks
        self._text, self._keep, self._clock = text, keep, time.monotonic()
        self._rest, self._saved = 0.0 if keep.checkpoints else rest, self._clock
        self._start = self._last = start
        self._recorder: Recorder | None = None

    @contextmanager
    def open(self) -> Generator[None]:
        """Open the files that events are written to; leave a result or a checkpoint where the run ends early."""
        with LineFile(self._folder / METRICS, self._start.position) as self._metrics, ExitStack() as self._files:
            try:
                yield
            except NotFinite as failure:
                self._write_result(status="failed", message=str(failure), step=failure.step, term=failure.term)
                raise
            except (RankLost, GeneratorExit):
                # Nothing of this rank's work is to be lost with another.
                if not self._ranks.alone:
                    self._checkpoint()
                raise

    def write(self, event: Event, seconds: float) -> Event:
        """Write an event that took so long to compute, and return it with that time."""
        if isinstance(event, Started):
            self._experiment = event.experiment
            self._names = [domain.name for domain in event.domains.training]
            self._signature, self._model = Signature.of(event.domains), event.model
            # After a kill the checkpoint that the run resumes from may have no snapshot yet.
            if self._keep.checkpoints and event.state.step:
                keep_snapshot(self._folder / CHECKPOINT, event.state.step)
            elif self._keep.checkpoints:
                (self._folder / SNAPSHOTS).mkdir(exist_ok=True)
                self._save(snapshot_path(self._folder, 0), Checkpoint(event.state, self._text))
            if self._keep.statistics:
                recorder = _recorder(
                    self._folder, event.experiment, self._text, self._keep.statistics, event.state.step
                )
                self._recorder = self._files.enter_context(recorder)
                recorder.begin(event)
        elif isinstance(event, Stepped):
            self._metrics.append(json_text(step_entry(event.record, self._names)))
            state, done = event.state, event.state.step
            self._last = Checkpoint(state, self._text, self._metrics.position, self._seconds)
            rested = time.monotonic() - self._saved >= self._rest
            if done == self._experiment.steps or (rested and done % self._experiment.checkpoint_every == 0):
                self._checkpoint()
                if self._keep.checkpoints:
                    keep_snapshot(self._folder / CHECKPOINT, done)
            if self._recorder:
                self._recorder.record(state)
            return attrs.evolve(event, seconds=seconds)
        elif isinstance(event, Evaluated):
            self._metrics.append(json_text({"step": event.step, "scores": score_entries(event.scores)}))
        else:
            # An average may have read the last scores. The position stays: a resumed run writes these again.
            if hasattr(self._experiment.average, "evaluated"):
                self._last = attrs.evolve(self._last, state=event.state)
                self._checkpoint()
            self._metrics.sync()
            if self._recorder:
                self._recorder.assemble()
            self._write_result(status="finished", scores=score_entries(event.scores))
            # Only now: killed before, the run resumes from its last step and assembles them again.
            if self._recorder:
                self._recorder.clear()
        return event

    @property
    def _seconds(self) -> float:
        return self._start.seconds + time.monotonic() - self._clock

    def _checkpoint(self) -> None:
        self._saved = time.monotonic()
        self._metrics.sync()
        self._save(self._folder / CHECKPOINT, self._last)

    def _save(self, path: Path, made: Checkpoint) -> None:
        averaged = averaged_weights(self._model, self._experiment, made.state)
        save(path, made.state, made.experiment_text, made.position, made.seconds, self._signature, averaged)

    def _write_result(self, **outcome: Any) -> None:
        result = {
            "name": self._experiment.name,
            "seed": self._experiment.seed,
            "steps": self._experiment.steps,
            "device": str(self._device),
            "ranks": self._ranks.count,
            "seconds": round(self._seconds, 3),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "fishr": fishr.__version__,
                "numpy": np.__version__,
                "backpack-for-pytorch": version("backpack-for-pytorch"),
            },
        }
        write_atomically(self._folder / RESULT, (json_text(result | outcome, indent=2) + "\n").encode())


def _recorder(folder: Path, experiment: Experiment, text: str, recording: Recording, started_at: int = 0) -> "Recorder":
    # Here, because HDF5 takes long to load and most runs record nothing.
    from fishr.training.recorder import Recorder

    return Recorder(folder, experiment, text, recording, started_at)


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
    # The result of a failed attempt is not that of the resumed run.
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
        scores = tuple(map(score_of, result["scores"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a result that fishr wrote; remove it to resume from the checkpoint") from error
    return Finished(load(checkpoint_of(folder), experiment_text=text).state, scores)
