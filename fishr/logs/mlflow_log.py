"""A log in MLflow."""

import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.logs.logger import Row, flat, require

_KEY = "fishr.key"
_MOST = 1000, 100, 6000  # metrics and parameters of a request, characters of a parameter


@frozen
class MLflow:
    """Log to MLflow, with the settings as parameters and the run folder's name as that of the run.

    Server and experiment are those of its environment variables: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``.
    Characters that MLflow refuses in names become underscores. Needs the extra ``mlflow``.

    Raises:
        InputError: mlflow is not installed.

    Example:
        >>> MLflow()
        MLflow()
    """

    def __attrs_post_init__(self) -> None:
        require("mlflow")

    @contextmanager
    def __call__(self, folder: Path, key: str, settings: Mapping[str, Any]) -> Generator[Callable[[list[Row]], object]]:
        """Open the log of a run."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client, metrics, params, length = MlflowClient(), *_MOST
        run = _run(client, folder.name, key)
        given = [Param(name, str(value)[:length]) for name, value in flat(settings).items()]
        for start in range(0, len(given), params):
            client.log_batch(run, params=given[start : start + params])

        def write(rows: list[Row]) -> None:
            found = list[Metric]()
            for row in rows:
                for name, value in row.values.items():
                    if isinstance(value, Path):
                        client.log_artifact(run, str(value))
                    else:
                        found.append(Metric(_plain(name), value, round(row.time * 1000), row.step))
            for start in range(0, len(found), metrics):
                client.log_batch(run, metrics=found[start : start + metrics])

        try:
            yield write
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run)


def _run(client: Any, name: str, key: str) -> str:
    """Return the identifier of the run that has the key, a new one where none has."""
    from mlflow import set_experiment

    experiment = set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")).experiment_id
    found = client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'")
    if not found:
        return client.create_run(experiment, run_name=name, tags={_KEY: key}).info.run_id
    client.update_run(found[0].info.run_id, status="RUNNING")
    return found[0].info.run_id


def _plain(name: str) -> str:
    return re.sub(r"[^\w./: -]", "_", name, flags=re.ASCII)
