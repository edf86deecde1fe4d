"""The folder of a sweep: its plan, its locks, and a run folder for each job."""

import re
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from fishr.configuration import dumps, load, structure, unstructure
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.toml import read_toml
from fishr.errors import InputError
from fishr.files import present, whole_name, write_atomically
from fishr.locks import LOCK, is_locked, locked
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.records import JobKey
from fishr.sweeps.job_files import DONE
from fishr.sweeps.plan import Part, Plan, first_difference
from fishr.training.run_folder import JOB

PLAN, JOBS, REPLACED = "plan.toml", "jobs", "replaced"
_BUSY = "another process works on this sweep; wait for it to end, or choose another --out"
_JOB = re.compile(r"[0-9a-f]{32}")
_PART_LOCK = re.compile(rf"{re.escape(LOCK)}-\d+-of-\d+")


def job_folder(folder: Path, job: Job) -> Path:
    """The run folder of a job.

    Example:
        >>> job = Job("PACS", "ERM", (0,), hparams_seed=0, trial_seed=0)
        >>> job_folder(Path("sweep"), job) == Path("sweep", "jobs", job.name)
        True
    """
    return folder / JOBS / job.name


def is_done(folder: Path, job: Job) -> bool:
    """Whether a job of a sweep has its results.

    Example:
        >>> is_done(Path("no-such-sweep"), Job("PACS", "ERM", (0,), hparams_seed=0, trial_seed=0))
        False
    """
    return (job_folder(folder, job) / DONE).exists()


def read_plan(folder: Path, plugins: tuple[str, ...] = ()) -> Plan:
    """The plan of a sweep folder.

    Args:
        folder: of the sweep.
        plugins: modules whose penalties the plan may name.

    Raises:
        InputError: the folder is not one, or its plan is damaged.

    Example:
        >>> read_plan(Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere: no sweep is there, it has no plan.toml and jobs/; begin one with \
fishr sweep run
    """
    check_is_sweep(folder)
    return load(folder / PLAN, Plan, plugins=plugins)


def check_plan(folder: Path, plan: Plan, plugins: tuple[str, ...] = ()) -> None:
    """Refuse a folder that cannot take a plan, before anything is computed for it.

    Args:
        folder: that exists or not.
        plan: to be run in it.
        plugins: modules whose penalties the folder's plan may name.

    Raises:
        InputError: it holds another plan, the first difference is named; or something that is no sweep.

    Example:
        >>> check_plan(Path("nowhere"), Plan(("PACS",), ("ERM",)))
    """
    if is_sweep(folder):
        difference = first_difference(unstructure(read_plan(folder, plugins)), unstructure(plan))
        if difference:
            raise InputError(
                f"{folder}: holds another plan ({difference}); go on with its own by fishr sweep resume {folder}, "
                "choose another --out, or give --replace-plan, which keeps every finished job"
            )
    _check_place(folder)


@contextmanager
def sweep_folder(
    folder: Path, plan: Plan, part: Part | None = None, replace: bool = False, plugins: tuple[str, ...] = ()
) -> Generator[None]:
    """A sweep folder with its plan, locked while the context lasts.

    Args:
        folder: where; it is made where it is absent.
        plan: what it holds, or is to hold.
        part: the part that is worked on, of a folder that has its plan; None: the whole, which no other process may
            then work on.
        replace: whether the plan may take another one's place. Jobs that the new one lacks go to ``replaced/``, and
            come back with a plan that has them.
        plugins: modules whose penalties the folder's plan may name.

    Raises:
        InputError: another process works on the same; the folder holds something else; or it cannot be made.
        RunFailed: the plan could not be written.

    Example:
        >>> import tempfile
        >>> plan = Plan(("PACS",), ("ERM",))
        >>> with tempfile.TemporaryDirectory() as parent, sweep_folder(Path(parent, "sweep"), plan):
        ...     read_plan(Path(parent, "sweep")) == plan
        True
    """
    _check_place(folder)
    try:
        (folder / JOBS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: could not be made ({error.strerror}); choose another place") from error
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
        _sort_out(folder, plan)
        yield


def is_worked_on(folder: Path) -> bool:
    """Whether a process works on a sweep or on a part of it.

    Example:
        >>> is_worked_on(Path("nowhere"))
        False
    """
    return any(is_locked(lock) for lock in (folder / LOCK, *_part_locks(folder)))


def _part_locks(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in folder.iterdir() if _PART_LOCK.fullmatch(path.name)) if folder.is_dir() else ()


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    # A plan alone may be somebody's own file.
    return (folder / PLAN).is_file() and (folder / JOBS).is_dir()


def check_is_sweep(folder: Path) -> None:
    """Raise an InputError for a folder that holds no sweep."""
    if not is_sweep(folder):
        raise InputError(f"{folder}: no sweep is there, it has no {PLAN} and {JOBS}/; begin one with fishr sweep run")


def _check_place(folder: Path) -> None:
    """Refuse what is neither a sweep, nor empty, nor what a sweep leaves that is killed as it begins."""
    if not folder.exists() or is_sweep(folder):
        return
    if not folder.is_dir() or any(not _is_beginning(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: exists already and is no sweep; choose another --out")


def _is_beginning(name: str) -> bool:
    return name in (JOBS, LOCK) or _PART_LOCK.fullmatch(name) is not None or whole_name(name) == PLAN


def _sort_out(folder: Path, plan: Plan) -> None:
    """Keep the jobs of the plan in jobs/ and those of former plans beside it, so that nothing mixes their results."""
    aside = folder / REPLACED
    wanted = {job.name for job in plan.jobs()}
    for path in list((folder / JOBS).iterdir()):
        if path.name not in wanted and _JOB.fullmatch(path.name):
            aside.mkdir(exist_ok=True)
            _move(path, aside / path.name)
    for path in list(aside.iterdir()) if aside.is_dir() else ():
        if path.name in wanted:
            _move(path, folder / JOBS / path.name)


def _move(path: Path, place: Path) -> None:
    if not present(place):
        path.rename(place)


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
