"""``fishr train``."""

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fishr.commands.shared import (
    data_dir_option,
    device_option,
    experiment_argument,
    find_experiment,
    format_option,
    load_run,
    plugin_option,
    set_option,
)
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.training import Experiment


@click.command(
    short_help="Train, and leave a run folder.",
    epilog="Example: fishr train colored-digits-erm --seed 1 --set steps=300 --out runs/erm",
)
@experiment_argument
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to make (default: runs/RECIPE-TIME).")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Decides data, first weights and batches.")
@data_dir_option
@device_option
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with the run in this folder.")
@format_option
@set_option
@plugin_option
def train(
    experiment: str,
    out: Path | None,
    seed: int | None,
    data_dir: Path | None,
    device: str,
    resume: Path | None,
    style: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train, and leave a run folder: configuration, metrics, checkpoint, result and figure.

    RECIPE is colored-digits (the default) or colored-mnist, both with Fishr, or one of them with another method:
    colored-digits-erm, -irm, -vrex. FILE is a configuration as `fishr config show RECIPE` prints it.
    """
    if resume is None:
        seeded = () if seed is None else (f"seed={seed}",)
        chosen = find_experiment(experiment, (*overrides, *seeded), plugins)
        folder = out or _fresh_folder(chosen.name)
    else:
        _refuse_changes(overrides, seed, out)
        chosen, folder = load_run(resume, plugins), resume
    _train_in(chosen, folder, data_dir, device, resume is not None, style)


def _refuse_changes(overrides: tuple[str, ...], seed: int | None, out: Path | None) -> None:
    named = click.get_current_context().get_parameter_source("experiment") is not ParameterSource.DEFAULT
    given = (("RECIPE or FILE", named), ("--set", overrides), ("--seed", seed is not None), ("--out", out is not None))
    for name, is_given in given:
        if is_given:
            raise InputError(f"{name}: got it together with --resume, which goes on exactly as begun; drop one of them")


def _fresh_folder(name: str) -> Path:
    # A name is free text; the folder stays in runs whatever it says.
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run"
    stem = f"{plain[:100]}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (Path("runs") / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())


def _train_in(
    experiment: "Experiment", folder: Path, data_dir: Path | None, device: str, resume: bool, style: str
) -> None:
    from fishr.commands.rendering import follow, score_table
    from fishr.configuration import dumps
    from fishr.plots import save_run_figure
    from fishr.training import Finished, run
    from fishr.training.step import NotFinite

    # A run goes on under the very text it was begun with.
    text = (folder / "config.toml").read_bytes().decode() if resume else dumps(experiment)
    events = run(experiment, folder, experiment_text=text, data_dir=data_dir, device=device, resume=resume)
    table = ""
    try:
        for event in follow(events, experiment.steps):
            if isinstance(event, Finished):
                table = score_table(event.scores)
    except NotFinite as failure:
        kept = "its last checkpoint is kept" if (folder / "checkpoint.pt").exists() else "it had no checkpoint yet"
        raise RunFailed(f"{folder}: {failure}; {kept}") from failure
    except KeyboardInterrupt:
        remedy = f"; go on with --resume {folder}" if folder.exists() else ""
        raise RunFailed(f"{folder}: interrupted{remedy}") from None
    figure = save_run_figure(folder)
    if style == "json":
        click.echo((folder / "result.json").read_text(), nl=False)
    else:
        click.echo(f"{table}\n\nrun: {folder}\nfigure: {figure}")
