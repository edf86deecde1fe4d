"""The configuration of a run, which many commands use without its data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import evolve

from fishr.configuration.problems import ConfigurationError
from fishr.configuration.structure import structure
from fishr.configuration.toml import apply_overrides, load, read_toml
from fishr.data.digits import ColoredDigits
from fishr.data.domains import DataSet
from fishr.training.experiment import Experiment


def load_run_file(path: Path, overrides: Iterable[str] = (), plugins: Iterable[str] = ()) -> Experiment:
    """Return a run's experiment; what is wrong with its data alone, such as a plugin not given, their call raises."""
    overrides, plugins = tuple(overrides), tuple(plugins)
    try:
        return load(path, Experiment, overrides, plugins)
    except ConfigurationError as error:
        if any(problem.path.split(".")[0] != "data" for problem in error.problems):
            raise
        table = apply_overrides(read_toml(path), overrides)
        # Any data set stands in for that of the run while the rest is read.
        rest = structure(table | {"data": {"kind": ColoredDigits.__name__}}, Experiment, plugins)
        return evolve(rest, data=_unreadable(table.get("data"), error))


def _unreadable(table: Any, error: ConfigurationError) -> DataSet:
    def data(seed: int, data_dir: Path | None) -> Any:
        raise ConfigurationError(error.problems, error.source)

    # Reports name the data of a run.
    data.__name__ = str(table.get("kind")) if isinstance(table, dict) else "unknown"
    return data
