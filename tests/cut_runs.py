"""Runs that are closed after a step, and resumed."""

from pathlib import Path
from typing import Any

from fishr.training import Experiment, Stepped, run


def resumed(experiment: Experiment, folder: Path, text: str, step: int = 3) -> Any:
    """The last event of a run that was closed after some steps and then resumed."""
    going = run(experiment, folder, experiment_text=text)
    next(event for event in going if isinstance(event, Stepped) and event.state.step == step)
    going.close()
    *_, last = run(experiment, folder, experiment_text=text, resume=True)
    return last
