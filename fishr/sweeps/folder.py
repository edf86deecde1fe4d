"""The folder of a sweep: its plan, its locks, and a run folder for each job."""

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import attrs

from fishr.configuration import dumps, load, structure, unstructure
from fishr.configuration.families import KIND
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.toml import read_toml
from fishr.errors import InputError, reason
from fishr.files import present, sync_folder, whole_name, write_atomically
from fishr.locks import LOCK, is_locked, locked
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.records import JobKey
from fishr.sweeps.job_files import DONE, FAILED, read_outcome
from fishr.sweeps.plan import Part, Plan, first_difference
from fishr.training.run_folder import JOB

PLAN, JOBS, REPLACED = "plan.toml", "jobs", "replaced"
_BUSY = "another process works on this sweep; wait for it to end, or choose another --out"
_JOB = re.compile(r"[0-9a-f]{32}")
_PART_LOCK = re.compile(rf"{re.escape(LOCK)}-\d+-of-\d+")
# By the key of a plan whose table may name a plugin's kind.
_BUILT_IN = {
    "data": {KIND: "ColoredDigits"},
    "featurizer": {KIND: "MLP"},
    "head": {KIND: "LinearHead"},
    "loss": {KIND: "CrossEntropy"},
    "optimizer": {KIND: "Adam", "lr": 1.0},
    "penalty": {KIND: "ERM"},
    "transform": {KIND: "Mixup"},
    "descent": {KIND: "SAM"},
    "average": {KIND: "EMA"},
    "source": {KIND: "ImageFolders", "folder": "data"},
}
# Settings that need not be there, with tables of plugins' kinds by other names.
_OPTIONAL = ("lr_schedule", "lr_factors")


def job_folder(folder: Path, job: Job) -> Path:
    return folder / JOBS / job.name


def jobs_left(folder: Path, jobs: Iterable[Job], retry_failed: bool = False) -> tuple[Job, ...]:
    """Return the jobs without results, with or without the failed ones."""
    places = ((job, job_folder(folder, job)) for job in jobs)
    left = ((job, place) for job, place in places if not (place / DONE).exists())
    return tuple(job for job, place in left if retry_failed or not (place / FAILED).exists())


def is_sweep(folder: Path) -> bool:
    # A plan alone may be somebody's own file.
    return (folder / PLAN).is_file() and (folder / JOBS).is_dir()


def read_plan(folder: Path, plugins: tuple[str, ...] = ()) -> Plan:
    """Return the plan of a sweep folder."""
    _check_is_sweep(folder)
    return load(folder / PLAN, Plan, plugins=plugins)


def check_plan(folder: Path, plan: Plan, plugins: tuple[str, ...] = ()) -> None:
    """Refuse a folder that holds another plan, or something that is no sweep."""
    if is_sweep(folder):
        difference = first_difference(unstructure(read_plan(folder, plugins)), unstructure(plan))
        if difference:
            raise InputError(
                f"{folder}: holds another plan ({difference}); resume its own with fishr sweep resume {folder}, "
                "choose another --out, or give --replace-plan, which keeps every finished job"
            )
    _check_place(folder)


@contextmanager
def sweep_folder(
    folder: Path, plan: Plan, part: Part | None = None, replace: bool = False, plugins: tuple[str, ...] = ()
) -> Generator[None]:
    """Lock a sweep folder with its plan; without a ``part``, no other process may work on the sweep."""
    _check_place(folder)
    _make(folder / JOBS)
    with ExitStack() as whole, ExitStack() as stack:
        whole.enter_context(locked(folder / LOCK, folder, _BUSY))
        if part is not None:
            check_plan(folder, plan, plugins)
            busy = f"another process works on part {part} of this sweep; wait for it to end"
            stack.enter_context(locked(folder / f"{LOCK}-{part.index}-of-{part.of}", folder, busy))
            # Parts take their locks only while nobody has the whole, and then leave it to the others.
            whole.close()
            yield
            return
        for lock in _part_locks(folder):
            with locked(lock, folder, _BUSY):
                pass
        if not replace:
            check_plan(folder, plan, plugins)
        if not is_sweep(folder) or read_plan(folder, plugins) != plan:
            write_atomically(folder / PLAN, dumps(plan).encode())
        # Jobs that a new plan lacks move to replaced/, and come back with a plan that has them.
        _sort_jobs(folder, plan)
        yield


def is_worked_on(folder: Path) -> bool:
    """Return whether a process works on a sweep or on a part of it."""
    return any(is_locked(lock) for lock in (folder / LOCK, *_part_locks(folder)))


def planned_keys(folder: Path) -> tuple[JobKey, ...]:
    """Return the keys of the plan's jobs, in order, without importing plugins."""
    _check_is_sweep(folder)
    try:
        return tuple(job.key for job in structure(_without_plugins(read_toml(folder / PLAN)), Plan).jobs())
    except ConfigurationError as error:
        raise ConfigurationError(error.problems, str(folder / PLAN)) from error


def begun_jobs(folder: Path, known: dict[str, JobKey]) -> dict[JobKey, str]:
    """Return the folder names in jobs/ by key; keys that are read are added to ``known``."""
    names = [path.name for path in (folder / JOBS).iterdir()] if (folder / JOBS).is_dir() else []
    for name in names:
        if name not in known and (folder / JOBS / name / JOB).exists():
            known[name] = _key(folder / JOBS / name / JOB)
    return {known[name]: name for name in names if name in known}


def finished_jobs(folder: Path) -> dict[JobKey, Path | None]:
    """Return the folders of the jobs that are done, in the order of keys; None where the loss diverged."""
    found = dict[JobKey, Path | None]()
    for key, name in sorted(begun_jobs(folder, {}).items()):
        outcome = read_outcome(folder / JOBS / name)
        if outcome is not None:
            found[key] = folder / JOBS / name if outcome.diverged is None else None
    return found


def write_job(folder: Path, job: Job) -> None:
    """Make a job's folder with its job.toml, unless it is there."""
    if (folder / JOB).exists():
        return
    _make(folder)
    write_atomically(folder / JOB, dumps(job).encode())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise InputError(f"{folder}: could not be made ({reason(error)}); choose another place") from error


def _key(path: Path) -> JobKey:
    names = attrs.fields_dict(JobKey)
    try:
        # The settings may need plugins.
        return structure({name: value for name, value in read_toml(path).items() if name in names}, JobKey)
    except ConfigurationError as error:
        raise InputError(f"{path}: damaged; remove the folder of this job to run it again") from error


def _without_plugins(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan with built-in kinds in place of those of plugins, which decide none of the keys."""
    plain = dict[str, Any]()
    for key, value in table.items():
        if key in _OPTIONAL:
            continue
        if isinstance(value, Mapping):
            inner = cast(Mapping[str, Any], value)
            plain[key] = _BUILT_IN[key] if key in _BUILT_IN and KIND in inner else _without_plugins(inner)
        else:
            plain[key] = value
    return plain


def _check_is_sweep(folder: Path) -> None:
    if not is_sweep(folder):
        raise InputError(f"{folder}: no sweep is there, it has no {PLAN} and {JOBS}/; start one with fishr sweep run")


def _check_place(folder: Path) -> None:
    """Refuse what is neither a sweep, nor empty, nor the rest of a sweep that was killed as it began."""
    if not folder.exists() or is_sweep(folder):
        return
    if not folder.is_dir() or any(not _is_beginning(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: exists already and is no sweep; choose another --out")


def _is_beginning(name: str) -> bool:
    return name in (JOBS, LOCK) or _PART_LOCK.fullmatch(name) is not None or whole_name(name) == PLAN


def _part_locks(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in folder.iterdir() if _PART_LOCK.fullmatch(path.name)) if folder.is_dir() else ()


def _sort_jobs(folder: Path, plan: Plan) -> None:
    """Move the jobs of former plans aside and those of this plan back, so that no table mixes their results."""
    jobs, aside, planned = folder / JOBS, folder / REPLACED, {job.name for job in plan.jobs()}
    for path in [*jobs.iterdir(), *(aside.iterdir() if aside.is_dir() else ())]:
        place = (jobs if path.name in planned else aside) / path.name
        if _JOB.fullmatch(path.name) and not present(place):
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
