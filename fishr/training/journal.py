"""The files that a run writes: metrics, checkpoints, snapshots, statistics and the result."""

import platform
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

import fishr
from fishr.files import json_text, write_atomically
from fishr.ranks import RankLost, Ranks
from fishr.training.artifacts import SNAPSHOTS, Artifacts, keep_snapshot, snapshot_path
from fishr.training.checkpoints import Checkpoint, save
from fishr.training.evaluation import averaged_weights, score_entries
from fishr.training.loop import Evaluated, Event, Finished, Started, Stepped
from fishr.training.run_folder import CHECKPOINT, METRICS, RESULT, LineFile
from fishr.training.signature import Signature
from fishr.training.step import NotFinite, step_entry

if TYPE_CHECKING:
    from fishr.training.recorder import Recorder


class Journal:
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
        match event:
            case Started():
                self._begin(event)
            case Stepped():
                self._step(event)
                return attrs.evolve(event, seconds=seconds)
            case Evaluated():
                self._metrics.append(json_text({"step": event.step, "scores": score_entries(event.scores)}))
            case Finished():
                self._finish(event)
        return event

    def _begin(self, event: Started) -> None:
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
            # Here, because HDF5 takes long to load and most runs record nothing.
            from fishr.training.recorder import Recorder

            kept, done = self._keep.statistics, event.state.step
            recorder = Recorder(self._folder, event.experiment, self._text, kept, done)
            self._recorder = self._files.enter_context(recorder)
            recorder.begin(event)

    def _step(self, event: Stepped) -> None:
        self._metrics.append(json_text(step_entry(event.record, self._names)))
        done = event.state.step
        self._last = Checkpoint(event.state, self._text, self._metrics.position, self._seconds)
        rested = time.monotonic() - self._saved >= self._rest
        if done == self._experiment.steps or (rested and done % self._experiment.checkpoint_every == 0):
            self._checkpoint()
            if self._keep.checkpoints:
                keep_snapshot(self._folder / CHECKPOINT, done)
        if self._recorder:
            self._recorder.record(event.state)

    def _finish(self, event: Finished) -> None:
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
