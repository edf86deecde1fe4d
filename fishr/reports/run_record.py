"""A run folder as it was recorded: configuration, steps, evaluations and result."""

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.errors import InputError
from fishr.training.evaluation import DomainScore, score_of
from fishr.training.experiment import Experiment
from fishr.training.run_folder import CONFIGURATION, METRICS, RESULT


@frozen(eq=False)
class RunRecord:
    """What a run folder has recorded, so far if it trains still."""

    folder: Path
    name: str  # in titles
    experiment: Experiment
    text: str  # the configuration as TOML
    steps: list[dict[str, Any]]  # lines of metrics.jsonl: losses and terms of each step
    evaluations: list[tuple[int, tuple[DomainScore, ...]]]  # step and scores
    result: dict[str, Any]  # result.json; empty while the run is not finished

    @property
    def scores(self) -> tuple[DomainScore, ...]:
        """Scores at the end, or the last ones so far; empty if there are none."""
        if "scores" in self.result:
            return tuple(map(score_of, self.result["scores"]))
        return self.evaluations[-1][1] if self.evaluations else ()

    @property
    def metric(self) -> str:
        """Name of the shares in the scores: accuracy, or correct labels."""
        return next((score.accuracy_name for score in self.scores if score.accuracy_name), "accuracy")


def read_run(folder: Path, experiment: Experiment) -> RunRecord:
    """Read the records of a run folder, whose experiment is given; metrics and result may be missing."""
    metrics, result = folder / METRICS, folder / RESULT
    try:
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
        ended = json.loads(result.read_bytes()) if result.is_file() else {}
        evaluations = [(line["step"], tuple(map(score_of, line["scores"]))) for line in lines if "scores" in line]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: its {METRICS} or {RESULT} is not what fishr wrote ({error}); train again"
        ) from error
    text = (folder / CONFIGURATION).read_bytes().decode()
    return RunRecord(
        folder, folder.resolve().name, experiment, text, [line for line in lines if "loss" in line], evaluations, ended
    )
