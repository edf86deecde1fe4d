"""``fishr sweep``."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.progress import progress_bar
from fishr.commands.shared import (
    COUNT,
    PATH,
    about,
    data_dir_option,
    device_option,
    experiment_options,
    format_option,
    given_options,
    loading,
    log_option,
    options,
    plugin_option,
    set_option,
)
from fishr.commands.sweep_average import average
from fishr.commands.sweep_collect import collect
from fishr.commands.sweep_features import features
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.sweeps.estimates import Estimate
    from fishr.sweeps.plan import Part, Plan

plan_argument = click.argument("plan_file", type=PATH, metavar="PLAN.toml")
folder_argument = click.argument("folder", type=PATH, metavar="FOLDER")
workers_option = click.option(
    "--workers", type=COUNT, metavar="N", help="Processes (default: cores / threads of the plan, or one per GPU)."
)
jobs_per_gpu_option = click.option("--jobs-per-gpu", type=COUNT, default=1, metavar="N", help="Jobs that share a GPU.")


working_options = options(
    workers_option,
    jobs_per_gpu_option,
    click.option("--retry-failed", is_flag=True, help="Retry the failed jobs."),
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Run on a Ray cluster, HOST:PORT, auto or local, whose nodes share the folder's file system.",
    ),
    data_dir_option,
    device_option,
    log_option,
    plugin_option,
)


@click.group(**about("Run DomainBed's benchmark.", "sweep run examples/sweep.toml --out runs/sweep", click.Group))
def sweep() -> None:
    """Run the jobs of a plan: data sets × algorithms × test environments × hyper-parameter draws × trials.

    Jobs run in parallel, on this machine or a cluster. A sweep can be stopped at any time, or lose a machine: finished
    jobs are kept, and interrupted ones resume from their checkpoints to bit-identical results.
    """


@sweep.command(**about("Estimate the cost of a plan.", "sweep plan examples/sweep.toml"))
@plan_argument
@click.option("--no-calibration", is_flag=True, help="Only count; needs no data.")
@workers_option
@jobs_per_gpu_option
@experiment_options
def plan(
    plan_file: Path,
    no_calibration: bool,
    workers: int | None,
    jobs_per_gpu: int,
    data_dir: Path | None,
    device: str,
    style: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Count a plan's jobs, steps and evaluations, and estimate time, disk and memory from a few steps of each kind."""
    with loading():
        from fishr.commands.sweep_tables import estimate_object, estimate_table
        from fishr.configuration import load
        from fishr.files import json_text
        from fishr.sweeps.estimates import calibrate, count_work
        from fishr.sweeps.plan import Plan
        from fishr.sweeps.pool import slots

    chosen = load(plan_file, Plan, overrides, plugins)
    if no_calibration:
        found, count = count_work(chosen.jobs()), None
    else:
        count = len(slots(chosen.threads, device, workers, jobs_per_gpu))
        kinds = count_work(chosen.jobs())
        with progress_bar(f"{plan_file}: interrupted", total=len(kinds), unit="kind") as bar:
            found = list["Estimate"]()
            for one in calibrate(chosen.jobs(), data_dir, device, chosen.threads, chosen.keep):
                found.append(one)
                bar.update(1)
    click.echo(json_text(estimate_object(found, count)) if style == "json" else estimate_table(found, count))


@sweep.command(**about("Run a plan.", "sweep run examples/sweep.toml --out runs/sweep"))
@plan_argument
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the sweep.")
@click.option("--replace-plan", is_flag=True, help="Replace the plan of the folder; finished jobs are kept.")
@click.option(
    "--slurm",
    metavar="KEY=VALUE,...",
    help="Only write FOLDER/slurm/array.sh with these sbatch options (time in minutes), without submitting it.",
)
@click.option("--array", type=COUNT, metavar="N", help="Number of tasks of the Slurm array.")
@working_options
@set_option
def run(
    plan_file: Path,
    out: Path,
    replace_plan: bool,
    slurm: str | None,
    array: int | None,
    overrides: tuple[str, ...],
    **working: Any,
) -> None:
    """Run the jobs of a plan in a folder; the same command resumes it.

    The folder gets the plan and, in jobs/, a run folder for each job, with results.jsonl as DomainBed writes it.
    """
    with loading():
        from fishr.configuration import load
        from fishr.sweeps.folder import check_plan
        from fishr.sweeps.plan import Plan

    if (slurm is None) != (array is None):
        raise InputError("--slurm: got one of --slurm and --array, expected both or none")
    chosen = load(plan_file, Plan, overrides, working["plugins"])
    if not replace_plan:
        check_plan(out, chosen, working["plugins"])
    if slurm is None or array is None:
        _work(out, chosen, None, replace_plan, **working)
    else:
        _write_slurm(out, chosen, replace_plan, slurm, array, **working)


@sweep.command(**about("Resume a sweep.", "sweep resume runs/sweep --workers 4 --retry-failed"))
@folder_argument
@click.option("--part", metavar="I/N", help="Only every N-th job from the I-th on, 0 ≤ I < N; parts may run at once.")
@working_options
def resume(folder: Path, part: str | None, plugins: tuple[str, ...], **working: Any) -> None:
    """Resume the sweep of a folder, with the folder's own plan."""
    from fishr.sweeps.folder import read_plan
    from fishr.sweeps.plan import parse_part

    chosen = None if part is None else parse_part(part)
    _work(folder, read_plan(folder, plugins), chosen, False, plugins=plugins, **working)


@sweep.command(**about("Show the progress of a sweep.", "sweep status runs/sweep --failed"))
@folder_argument
@click.option("--watch", is_flag=True, help="Repeat every two seconds until the sweep is done.")
@click.option("--failed", is_flag=True, help="Show the failed jobs, with the end of their logs.")
@format_option
def status(folder: Path, watch: bool, failed: bool, style: str) -> None:
    """Count the done, running, failed and waiting jobs of a sweep, while it runs or afterwards."""
    import sys
    import time

    from fishr.commands.sweep_tables import failure_text, progress_object, progress_table
    from fishr.files import json_text
    from fishr.sweeps.folder import planned_keys
    from fishr.sweeps.progress import FilesRead, progress

    keys, seen, shown = planned_keys(folder), FilesRead(), ""
    while True:
        found = progress(folder, keys, seen)
        if style == "json":
            text = json_text(progress_object(found))
        else:
            text = progress_table(found) + (failure_text(folder, found) if failed else "")
        if watch and sys.stdout.isatty():
            click.clear()
            click.echo(text)
        elif text != shown:
            click.echo(text)
        shown = text
        if not watch or found.total.running + found.total.waiting == 0:
            return
        try:
            time.sleep(2)
        except KeyboardInterrupt:
            return


def _work(
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
    logs: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Run the jobs that are left of a sweep or of a part of it, and show the progress."""
    with loading():
        from fishr.commands.sweep_tables import follow, progress_table
        from fishr.configuration.families import find_logger
        from fishr.sweeps.execution import Conditions
        from fishr.sweeps.folder import jobs_left, sweep_folder
        from fishr.sweeps.pool import run_local, slots
        from fishr.sweeps.preflight import check_input
        from fishr.sweeps.progress import progress
        from fishr.sweeps.ray_cluster import run_on_ray

    if ray is not None and workers is not None:
        raise InputError("--workers: got it together with --ray, which uses all of its cluster; drop one of them")
    jobs = plan.jobs() if part is None else part.share(plan.jobs())
    for name in logs:
        find_logger(name, plugins)
    # The devices of a cluster are not this machine's.
    check_input(jobs_left(folder, jobs, retry_failed), data_dir, "cpu" if ray else device)
    with sweep_folder(folder, plan, part, replace, plugins):
        left = jobs_left(folder, jobs, retry_failed)
        conditions = Conditions(folder, plan.threads, plan.keep, data_dir, device, plan.together, logs, plugins)
        if ray is None:
            places = slots(plan.threads, device, workers, jobs_per_gpu)[: len(left)]
            events = run_local(left, conditions, places, plugins)
        else:
            events = run_on_ray(left, conditions, ray, jobs_per_gpu, plugins)
        interrupted = f"{folder}: interrupted; resume it with {_resume(folder)}"
        with closing(events):
            follow(events, interrupted, done=len(jobs) - len(left), jobs=len(jobs))
    found = progress(folder, (job.key for job in jobs))
    click.echo(progress_table(found))
    if found.failures:
        first = found.failures[0]
        count = f"all {len(jobs)}" if len(found.failures) == len(jobs) else f"{len(found.failures)} of {len(jobs)}"
        raise RunFailed(
            f"{folder}: {count} jobs failed (first {first.key}: {first.failure.message}); see them with "
            f"{shlex.join(['fishr', 'sweep', 'status', str(folder)])} --failed, retry them with "
            f"{_resume(folder, retry_failed=True)}"
        )


def _write_slurm(
    folder: Path, plan: "Plan", replace: bool, slurm: str, tasks: int, *, plugins: tuple[str, ...], **working: Any
) -> None:
    """Prepare a sweep for a Slurm array, and show the command that submits it."""
    from fishr.sweeps.folder import jobs_left, sweep_folder
    from fishr.sweeps.preflight import check_input
    from fishr.sweeps.slurm import array_script, parse_options, write_script

    if working["ray"] is not None:
        raise InputError("--ray: got it together with --slurm; drop one of them")
    arguments = given_options("workers", "jobs_per_gpu", "retry_failed", "data_dir", "device", "logs", "plugins")
    text = array_script(folder, tasks, parse_options(slurm), arguments)
    # The devices of the nodes are not this machine's.
    check_input(jobs_left(folder, plan.jobs(), working["retry_failed"]), working["data_dir"])
    with sweep_folder(folder, plan, replace=replace, plugins=plugins):
        script = write_script(folder, text)
    click.echo(f"sbatch {script}")


def _resume(folder: Path, retry_failed: bool = False) -> str:
    """Return the command that continues a sweep, with the options that were given to this one."""
    given = given_options("part", "workers", "jobs_per_gpu", "ray", "data_dir", "device", "logs", "plugins")
    retry = ["--retry-failed"] if retry_failed or given_options("retry_failed") else []
    return shlex.join(["fishr", "sweep", "resume", str(folder), *given, *retry])


sweep.add_command(average)
sweep.add_command(collect)
sweep.add_command(features)
