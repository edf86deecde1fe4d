"""A run folder as it was recorded: configuration, steps, evaluations and result."""

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.errors import InputError
from fishr.training.evaluation import DomainScore, score_of
from fishr.training.experiment import Experiment
from fishr.training.run_folder import CONFIGURATION, METRICS, RESULT

# Of the lines of steps and of evaluations.
_STARTS = ('{"domain_losses": ', '{"scores": ')


@frozen(eq=False)
class RunRecord:
    """What a run folder has recorded, so far if it trains still."""

    folder: Path
    name: str  # in titles
    experiment: Experiment
    text: str  # the configuration as TOML
    steps: list[dict[str, Any]]  # lines of metrics.jsonl: losses and terms of each step
    evaluations: list[tuple[int, tuple[DomainScore, ...]]]  # step and scores
    result: dict[str, Any]  # result.json, with its scores as records; empty while the run is not finished

    @property
    def scores(self) -> tuple[DomainScore, ...]:
        """Scores at the end, or the last ones so far; empty if there are none."""
        if "scores" in self.result:
            return self.result["scores"]
        return self.evaluations[-1][1] if self.evaluations else ()

    @property
    def metric(self) -> str:
        """Name of the shares in the scores: accuracy, or correct labels."""
        return next((score.accuracy_name for score in self.scores if score.accuracy_name), "accuracy")


def read_run(folder: Path, experiment: Experiment) -> RunRecord:
    """Read the records of a run folder, whose experiment is given; metrics and result may be missing."""
    steps, evaluations = list[dict[str, Any]](), list[tuple[int, tuple[DomainScore, ...]]]()
    ended: dict[str, Any] = {}
    path = folder / METRICS
    try:
        *lines, last = (path.read_text() if path.is_file() else "").split("\n")
        # A run that trains, or was killed, may have written a part of a line.
        if not any(start.startswith(last[: len(start)]) for start in _STARTS):
            raise ValueError("the last line is of another kind")
        for line in map(json.loads, lines):
            if "scores" in line:
                evaluations.append((line["step"], tuple(map(score_of, line["scores"]))))
            else:
                steps.append({name: line[name] for name in ("step", "loss", "risk", "domain_losses", "terms")})
        path = folder / RESULT
        if path.is_file():
            found = json.loads(path.read_bytes())
            scores = {"scores": tuple(map(score_of, found["scores"]))} if "scores" in found else {}
            ended = found | {"status": found["status"]} | scores
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not what fishr wrote; put back the file, or train again") from error
    text = (folder / CONFIGURATION).read_bytes().decode()
    return RunRecord(folder, folder.resolve().name, experiment, text, steps, evaluations, ended)
