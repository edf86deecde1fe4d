"""Statistics of the head over a run's time: one record a moment, put together when the run is finished."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from attrs import asdict

import fishr
from fishr.data.caches import Parts, Tree, save_tree
from fishr.errors import InputError
from fishr.training.artifacts import Recording
from fishr.training.experiment import Experiment
from fishr.training.head_statistics import head_statistics
from fishr.training.loop import Started
from fishr.training.state import TrainingState
from fishr.types import Layout

STATISTICS, KIND = "statistics.h5", "fishr-statistics"


class Recorder:
    """Writes a run's records as they fall due, each into a file of its own, and puts them together at the end.

    A record depends on the state alone, so a run that is resumed writes those after its checkpoint anew, to the same
    bits. Used as a context, it keeps other processes away from the records.

    Args:
        folder: of the run.
        experiment: the run.
        experiment_text: its configuration as TOML.
        recording: what is recorded.
        started_at: the step that the run goes on from.

    Raises:
        InputError: a record before that step is missing, or the records there are another run's.

    Example:
        >>> import tempfile, attrs
        >>> from fishr.protocols import colored_digits
        >>> from fishr.data.caches import load_tree
        >>> from fishr.training.artifacts import Artifacts
        >>> from fishr.training.runs import run
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     keep = Artifacts(statistics=Recording(every=2))
        ...     experiment, folder = attrs.evolve(colored_digits(), steps=3), Path(parent, "run")
        ...     events = list(run(experiment, folder, experiment_text="", keep=keep))
        ...     load_tree(folder / "statistics.h5", KIND)["steps"]
        array([0, 2, 3])
    """

    def __init__(
        self, folder: Path, experiment: Experiment, experiment_text: str, recording: Recording, started_at: int
    ) -> None:
        self._path = folder / STATISTICS
        self._experiment, self._text, self._recording = experiment, experiment_text, recording
        settings = json.dumps(asdict(recording), sort_keys=True)
        self._parts = Parts(self._path, KIND, sha256(f"{experiment_text}\n{settings}".encode()).hexdigest())
        last = experiment.steps
        self._steps = tuple(step for step in range(last + 1) if recording.due(step, last))
        self._before = tuple(step for step in self._steps if step < started_at)

    def has_parts(self) -> bool:
        """Whether there are records that were not put together, or not removed since."""
        return Parts.existing(self._path) is not None

    def __enter__(self) -> "Recorder":
        """Itself, with the records open."""
        self._parts.__enter__()
        missing = [step for step in self._before if step not in self._parts.done]
        if missing:
            self.__exit__()
            raise InputError(
                f"{self._path}.parts: lacks the record of step {missing[0]}, which comes before the checkpoint; "
                "put it back, or start the run anew under another name"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have the records."""
        self._parts.__exit__(None, None, None)

    def begin(self, started: Started) -> None:
        """Take the run's modules and data, and write the record of its first state where one is due."""
        self._model, self._domains = started.model, started.domains.training
        self.record(started.state)

    def record(self, state: TrainingState) -> None:
        """Write the record of a state where one is due.

        Raises:
            InputError: the head has no statistics.
            RunFailed: the record could not be written.
        """
        if self._recording.due(state.step, self._experiment.steps):
            found = head_statistics(self._model, self._experiment, state, self._domains, self._recording)
            self._parts.write(state.step, arrays_of(found))

    def assemble(self) -> None:
        """Put all records together in ``statistics.h5``.

        Raises:
            RunFailed: the file could not be written; the records are kept.
        """
        layout, domains = Layout.of(self._model.head), self._domains
        rows = [len(domain.labels) for domain in domains]
        limit = self._recording.samples
        tree: Tree = {
            "domains": tuple(domain.name for domain in domains),
            "count": np.array([n if limit is None else min(n, limit) for n in rows]),
            "layout": {
                "names": layout.names,
                "shapes": {name: np.array(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)},
            },
            "epsilon": self._recording.epsilon,
            "steps": np.array(self._steps),
            "provenance": {
                "experiment": self._text,
                "every": self._recording.every,
                "samples": limit,
                "library": fishr.__version__,
                "torch": str(torch.__version__),
            },
        }
        records = _stacked([self._parts.read(step) for step in self._steps])
        # Whoever writes the file takes the lock that the parts hold.
        self.__exit__()
        save_tree(self._path, KIND, tree | records, replace=True)

    def clear(self) -> None:
        """Remove the single records; the file that holds them all stands."""
        with self._parts:
            self._parts.remove()


def arrays_of(statistics: dict[str, Any]) -> Tree:
    """Return statistics as arrays, float32 where they have a column a parameter, else float64."""
    wide = {"mean", "variance", "hessian_diagonal", "weights"}
    return {
        name: arrays_of(value)
        if isinstance(value, dict)
        else value.to(torch.float32 if name in wide else torch.float64).numpy(force=True)
        for name, value in statistics.items()
    }


def _stacked(trees: list[Tree]) -> Tree:
    return {
        key: _stacked([cast(Tree, tree[key]) for tree in trees])
        if isinstance(value, dict)
        else np.stack([cast(Any, tree[key]) for tree in trees])
        for key, value in trees[0].items()
    }
