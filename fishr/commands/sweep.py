"""``fishr sweep``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fishr.commands.shared import COUNT, PATH, data_dir_option, device_option, format_option, plugin_option, set_option
from fishr.commands.sweep_collect import collect
from fishr.commands.sweep_features import features
from fishr.errors import InputError

plan_argument = click.argument("plan_file", type=PATH, metavar="PLAN.toml")
folder_argument = click.argument("folder", type=PATH, metavar="FOLDER")
workers_option = click.option(
    "--workers",
    type=COUNT,
    metavar="N",
    help="Processes (default: as many as there are cores for, or one a GPU).",
)
jobs_per_gpu_option = click.option(
    "--jobs-per-gpu", type=COUNT, default=1, show_default=True, help="Jobs that share a GPU."
)


def working_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What ``run`` and ``resume`` share."""
    options = (
        workers_option,
        jobs_per_gpu_option,
        click.option("--retry-failed", is_flag=True, help="Try jobs again that were given up."),
        click.option(
            "--ray",
            metavar="ADDRESS",
            help="Run on a Ray cluster, HOST:PORT, auto or local, whose nodes share the folder's file system.",
        ),
        data_dir_option,
        device_option,
        plugin_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    short_help="Run DomainBed's benchmark.", epilog="Example: fishr sweep run examples/sweep.toml --out runs/sweep"
)
def sweep() -> None:
    """Run the jobs of a plan: data sets × algorithms × test environments × hyper-parameter draws × trials.

    Jobs run in parallel, on this machine or a cluster. Stop a sweep when you like, or lose a machine: what was done
    stays done, and interrupted jobs go on from their checkpoints to the same results.
    """


@sweep.command(short_help="Say what a plan will cost.", epilog="Example: fishr sweep plan examples/sweep.toml")
@plan_argument
@click.option("--no-calibration", is_flag=True, help="Only count; no data are needed then.")
@workers_option
@jobs_per_gpu_option
@data_dir_option
@device_option
@format_option
@set_option
@plugin_option
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
    from fishr.commands.rendering import as_json
    from fishr.commands.sweep_tables import estimate_object, estimate_table
    from fishr.configuration import load
    from fishr.sweeps.estimates import calibrate, count_work
    from fishr.sweeps.plan import Plan
    from fishr.sweeps.pool import slots

    chosen = load(plan_file, Plan, overrides, plugins)
    if no_calibration:
        found, count = count_work(chosen.jobs()), None
    else:
        count = len(slots(chosen.threads, device, workers, jobs_per_gpu))
        found = tuple(calibrate(chosen.jobs(), data_dir, device, chosen.threads, chosen.keep))
    click.echo(as_json(estimate_object(found, count)) if style == "json" else estimate_table(found, count))


@sweep.command(short_help="Run a plan.", epilog="Example: fishr sweep run examples/sweep.toml --out runs/sweep")
@plan_argument
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the sweep.")
@click.option(
    "--replace-plan", is_flag=True, help="Let this plan take the place of the folder's; finished jobs are kept."
)
@click.option(
    "--slurm",
    metavar="KEY=VALUE,...",
    help="Only write FOLDER/slurm/array.sh, with these options of sbatch, time in minutes; submit it yourself.",
)
@click.option("--array", type=COUNT, metavar="N", help="Tasks of the Slurm array, each a part.")
@working_options
@set_option
def run(
    plan_file: Path,
    out: Path,
    replace_plan: bool,
    slurm: str | None,
    array: int | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Run the jobs of a plan in a folder; the same command goes on where it stopped.

    The folder holds the plan and, in jobs/, a run folder for each job, with results.jsonl as DomainBed writes it.
    """
    from fishr.commands.sweep_work import work, write_slurm
    from fishr.configuration import load
    from fishr.sweeps.folder import check_plan
    from fishr.sweeps.plan import Plan

    if (slurm is None) != (array is None):
        raise InputError("--slurm: got one of --slurm and --array, expected both or none")
    chosen = load(plan_file, Plan, overrides, options["plugins"])
    if not replace_plan:
        check_plan(out, chosen, options["plugins"])
    if slurm is not None and array is not None:
        write_slurm(out, chosen, replace_plan, slurm, array, **options)
    else:
        work(out, chosen, None, replace_plan, **options)


@sweep.command(
    short_help="Go on with a sweep.", epilog="Example: fishr sweep resume runs/sweep --workers 4 --retry-failed"
)
@folder_argument
@click.option("--part", metavar="I/N", help="Only every N-th job from the I-th on, 0 ≤ I < N; parts may run at once.")
@working_options
def resume(folder: Path, part: str | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Go on with the sweep of a folder, by its own plan."""
    from fishr.commands.sweep_work import work
    from fishr.sweeps.folder import read_plan
    from fishr.sweeps.plan import parse_part

    chosen = None if part is None else parse_part(part)
    work(folder, read_plan(folder, plugins), chosen, False, plugins=plugins, **options)


@sweep.command(short_help="Say how far a sweep is.", epilog="Example: fishr sweep status runs/sweep --failed")
@folder_argument
@click.option("--watch", is_flag=True, help="Again every two seconds, until nothing is left to do.")
@click.option("--failed", is_flag=True, help="Show the jobs that were given up, with their last lines.")
@format_option
def status(folder: Path, watch: bool, failed: bool, style: str) -> None:
    """Count the jobs of a sweep that are done, running, failed and waiting, while it runs or afterwards."""
    import sys
    import time

    from fishr.commands.rendering import as_json
    from fishr.commands.sweep_tables import failure_text, progress_object, progress_table
    from fishr.sweeps.folder import planned_keys
    from fishr.sweeps.progress import Seen, progress

    keys, seen, told = planned_keys(folder), Seen(), ""
    while True:
        found = progress(folder, keys, seen)
        if style == "json":
            text = as_json(progress_object(found))
        else:
            text = progress_table(found) + (failure_text(folder, found) if failed else "")
        if watch and sys.stdout.isatty():
            click.clear()
            click.echo(text)
        elif text != told:
            click.echo(text)
        told = text
        if not watch or found.total.running + found.total.waiting == 0:
            return
        try:
            time.sleep(2)
        except KeyboardInterrupt:
            # Nothing was interrupted but the watching.
            return


sweep.add_command(collect)
sweep.add_command(features)
