"""What ``fishr sweep run`` and ``resume`` do, beside reading their arguments."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.shared import given_options
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.protocols.domainbed.job import Job
    from fishr.sweeps.plan import Part, Plan


def work(
    folder: Path,
    plan: "Plan",
    part: "Part | None",
    replace: bool,
    *,
    workers: int | None,
    jobs_per_gpu: int,
    retry_failed: bool,
    ray: str | None,
    data_dir: Path | None,
    device: str,
    plugins: tuple[str, ...],
) -> None:
    """Run what is left of a sweep, or of a part of it, and say how it went.

    Args:
        folder: of the sweep.
        plan: of the folder, or that it is to get.
        part: to work on; None: the whole.
        replace: whether the plan may take another one's place.
        workers: processes; None: as many as there is room for.
        jobs_per_gpu: jobs that share a GPU.
        retry_failed: whether jobs that were given up are tried again.
        ray: address of a cluster; None: this machine.
        data_dir: where data files lie.
        device: "auto", "cpu" or "cuda".
        plugins: modules whose penalties the plan may name.

    Raises:
        InputError: data, device or folder cannot be used; nothing has begun.
        RunFailed: a job failed, or somebody interrupted the sweep.
    """
    from fishr.commands.sweep_tables import follow
    from fishr.sweeps.execution import Conditions, check_input
    from fishr.sweeps.folder import sweep_folder
    from fishr.sweeps.pool import run_local, slots
    from fishr.sweeps.ray_cluster import run_on_ray

    if ray is not None and workers is not None:
        raise InputError("--workers: got it together with --ray, which uses all of its cluster; drop one of them")
    jobs = plan.jobs() if part is None else part.share(plan.jobs())
    # The devices of a cluster are not this machine's.
    check_input(_left(folder, jobs, retry_failed), data_dir, "cpu" if ray else device)
    _release_freed_memory()
    with sweep_folder(folder, plan, part, replace, plugins):
        left = _left(folder, jobs, retry_failed)
        conditions = Conditions(folder, plan.threads, plan.keep, data_dir, device)
        if ray is None:
            places = slots(plan.threads, device, workers, jobs_per_gpu)[: len(left)]
            events = run_local(left, conditions, places, plugins)
        else:
            events = run_on_ray(left, conditions, ray, jobs_per_gpu, plugins)
        try:
            with closing(events):
                follow(events, done=len(jobs) - len(left), jobs=len(jobs))
        except KeyboardInterrupt:
            raise RunFailed(f"{folder}: interrupted; go on with {_resume(folder)}") from None
    _conclude(folder, jobs)


def write_slurm(
    folder: Path,
    plan: "Plan",
    replace: bool,
    options: str,
    tasks: int,
    *,
    workers: int | None,
    jobs_per_gpu: int,
    retry_failed: bool,
    ray: str | None,
    data_dir: Path | None,
    device: str,
    plugins: tuple[str, ...],
) -> None:
    """Prepare a sweep for a Slurm array, and say how to submit it.

    Args:
        folder: of the sweep.
        plan: that it is to get.
        replace: whether the plan may take another one's place.
        options: of sbatch, KEY=VALUE,…
        tasks: of the array.
        workers: processes of each task.
        jobs_per_gpu: jobs that share a GPU.
        retry_failed: whether jobs that were given up are tried again.
        ray: refused.
        data_dir: where data files lie.
        device: of the tasks.
        plugins: modules whose penalties the plan may name.

    Raises:
        InputError: data, options or folder cannot be used.
    """
    from fishr.sweeps.execution import check_input
    from fishr.sweeps.folder import sweep_folder
    from fishr.sweeps.slurm import array_script, parse_options, write_script

    if ray is not None:
        raise InputError("--ray: got it together with --slurm; drop one of them")
    arguments = [
        *(("--workers", str(workers)) if workers else ()),
        *(("--jobs-per-gpu", str(jobs_per_gpu)) if jobs_per_gpu > 1 else ()),
        *(("--retry-failed",) if retry_failed else ()),
        *(("--data-dir", str(data_dir.absolute())) if data_dir else ()),
        *(("--device", device) if device != "auto" else ()),
        *(word for plugin in plugins for word in ("--plugin", plugin)),
    ]
    text = array_script(folder, tasks, parse_options(options), arguments)
    # The devices of the nodes are not this machine's.
    check_input(_left(folder, plan.jobs(), retry_failed), data_dir)
    with sweep_folder(folder, plan, replace=replace, plugins=plugins):
        script = write_script(folder, text)
    click.echo(f"sbatch {script}")


def _left(folder: Path, jobs: "tuple[Job, ...]", retry_failed: bool) -> "tuple[Job, ...]":
    from fishr.sweeps.folder import is_done, job_folder
    from fishr.sweeps.job_files import is_failed

    left = (job for job in jobs if not is_done(folder, job))
    return tuple(job for job in left if retry_failed or not is_failed(job_folder(folder, job)))


def _resume(folder: Path, retry_failed: bool = False) -> str:
    """Return the command that goes on with a sweep, with the options that were given to this one."""
    given = given_options("part", "workers", "jobs_per_gpu", "ray", "data_dir", "device", "plugins")
    retry = ["--retry-failed"] if retry_failed or given_options("retry_failed") else []
    return shlex.join(["fishr", "sweep", "resume", str(folder), *given, *retry])


def _release_freed_memory() -> None:
    """Hand what the check of the data has freed to the workers: this process only waits from now on."""
    import ctypes
    import platform

    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _conclude(folder: Path, jobs: "tuple[Job, ...]") -> None:
    from fishr.commands.sweep_tables import progress_table
    from fishr.sweeps.progress import progress

    found = progress(folder, (job.key for job in jobs))
    click.echo(progress_table(found))
    if found.failures:
        first = found.failures[0]
        count = f"all {len(jobs)}" if len(found.failures) == len(jobs) else f"{len(found.failures)} of {len(jobs)}"
        raise RunFailed(
            f"{folder}: {count} jobs failed (first {first.key}: {first.failure.message}); see them by "
            f"{shlex.join(['fishr', 'sweep', 'status', str(folder)])} --failed, try them again by "
            f"{_resume(folder, retry_failed=True)}"
        )
