"""The recorder of statistics over a run's time: one record a step, put together when the run is finished."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from attrs import asdict

import fishr
from fishr.data.caches.domain_writing import write_records
from fishr.data.caches.encoding import Tree, layout_tree
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError
from fishr.training.artifacts import Recording
from fishr.training.experiment import Experiment
from fishr.training.head_statistics import head_statistics
from fishr.training.loop import Started
from fishr.training.state import TrainingState
from fishr.types import Layout

STATISTICS, KIND = "statistics.h5", "fishr-statistics"


class Recorder:
    """Writes each record of a run into a file of its own when it is due, and assembles them at the end."""

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

    def __enter__(self) -> "Recorder":
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
        self._parts.__exit__(None, None, None)

    def begin(self, started: Started) -> None:
        """Take the run's modules and data, and write the record of its first state where one is due."""
        self._model, self._domains = started.model, started.domains.training
        self.record(started.state)

    def record(self, state: TrainingState) -> None:
        """Write the record of a state where one is due."""
        if self._recording.due(state.step, self._experiment.steps):
            found = head_statistics(self._model, self._experiment, state, self._domains, self._recording)
            self._parts.write(state.step, arrays_of(found))

    def assemble(self) -> None:
        """Put all records together in ``statistics.h5``."""
        domains, limit = self._domains, self._recording.samples
        rows = [len(domain.labels) for domain in domains]
        tree: Tree = {
            "domains": tuple(domain.name for domain in domains),
            "count": np.array([n if limit is None else min(n, limit) for n in rows]),
            "layout": layout_tree(Layout.of(self._model.head)),
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
        # Wide heads and many steps are more than fits the memory, so one record is held at a time.
        write_records(self._path, KIND, tree, len(self._steps), map(self._parts.read, self._steps))
        self.__exit__()

    def clear(self) -> None:
        """Remove the single records, if there are any; statistics.h5 stays."""
        if Parts.existing(self._path) is not None:
            with self._parts:
                self._parts.remove()


def arrays_of(statistics: dict[str, Any]) -> Tree:
    """Return statistics as arrays, float32 where they have a column a parameter, else float64."""
    wide = {"mean", "variance", "hessian_diagonal", "weights"}
    tree: Tree = {}
    for name, value in statistics.items():
        if name == "penalties":
            tree[name] = {term: one.double().numpy(force=True) for term, one in value.items()}
        else:
            tree[name] = value.to(torch.float32 if name in wide else torch.float64).numpy(force=True)
    return tree


def stacked(trees: list[Tree]) -> Tree:
    """Return the trees of several steps as one, whose arrays have an axis more."""
    return {
        key: stacked([cast(Tree, tree[key]) for tree in trees])
        if isinstance(value, dict)
        else np.stack([cast(Any, tree[key]) for tree in trees])
        for key, value in trees[0].items()
    }
