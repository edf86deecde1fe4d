"""The jobs of a sweep folder, planned and begun, by their keys: no code of a method of one's own is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from fishr.configuration import dumps, structure
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.toml import read_toml
from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.records import JobKey
from fishr.sweeps.folder import JOBS, PLAN, check_is_sweep, is_sweep
from fishr.sweeps.plan import Plan
from fishr.training.checkpoint_path import JOB


def planned_keys(folder: Path) -> tuple[JobKey, ...]:
    """Return the jobs that a sweep folder holds when it is done, in the plan's order.

    Args:
        folder: of the sweep.

    Raises:
        InputError: the folder is no sweep, or its plan is damaged.

    Example:
        >>> planned_keys(Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere: no sweep is there, it has no plan.toml and jobs/; begin one with \
fishr sweep run
    """
    check_is_sweep(folder)
    try:
        return tuple(job.key for job in structure(_without_penalties(read_toml(folder / PLAN)), Plan).jobs())
    except ConfigurationError as error:
        raise ConfigurationError(error.problems, str(folder / PLAN)) from error


def expected_keys(folder: Path) -> tuple[JobKey, ...] | None:
    """Return what ``planned_keys`` returns; None for a folder without a plan, such as one of DomainBed.

    Example:
        >>> expected_keys(Path("nowhere")) is None
        True
    """
    return planned_keys(folder) if is_sweep(folder) else None


def begun_jobs(folder: Path, known: dict[str, JobKey]) -> dict[JobKey, str]:
    """Return the folder names in jobs/ by key.

    Args:
        folder: of the sweep.
        known: keys by folder name that were read before; those read now are added.

    Raises:
        InputError: a job.toml is damaged.

    Example:
        >>> begun_jobs(Path("nowhere"), {})
        {}
    """
    names = [path.name for path in (folder / JOBS).iterdir()] if (folder / JOBS).is_dir() else []
    for name in names:
        if name not in known and (folder / JOBS / name / JOB).exists():
            known[name] = _key(folder / JOBS / name / JOB)
    return {known[name]: name for name in names if name in known}


def write_job(folder: Path, job: Job) -> None:
    """Write the job.toml of a job's folder, unless it is there.

    Args:
        folder: of the job; it is made where it is absent.
        job: whose folder it is.

    Raises:
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as sweep:
        ...     job = Job("PACS", "ERM", (0,), 0, 0)
        ...     write_job(Path(sweep, "jobs", job.name), job)
        ...     begun_jobs(Path(sweep), {}) == {job.key: job.name}
        True
    """
    if not (folder / JOB).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / JOB, dumps(job).encode())


def _key(path: Path) -> JobKey:
    try:
        table = read_toml(path)
        seeds = (int(table["hparams_seed"]), int(table["trial_seed"]))
        return JobKey(str(table["dataset"]), str(table["algorithm"]), tuple(map(int, table["test_envs"])), *seeds)
    except (ConfigurationError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged; remove the folder of this job to have it run again") from error


def _without_penalties(table: dict[str, Any]) -> dict[str, Any]:
    """The plan with a penalty of ours in each method of one's own: which jobs there are does not depend on it."""
    settings: Any = table.get("settings")
    methods: Any = settings.get("methods") if isinstance(settings, Mapping) else None
    if not isinstance(methods, Mapping):
        return table
    plain = {
        name: {**cast(Mapping[str, Any], method), "penalty": {"kind": "ERM"}} if isinstance(method, Mapping) else method
        for name, method in cast(Mapping[str, Any], methods).items()
    }
    return {**table, "settings": {**cast(Mapping[str, Any], settings), "methods": plain}}
