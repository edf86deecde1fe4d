"""``fishr train``."""

import re
import shlex
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from fishr.commands.shared import (
    COUNT,
    FILE,
    PATH,
    SEED,
    about,
    data_dir_option,
    device_option,
    experiment_argument,
    find_experiment,
    format_option,
    given_options,
    given_parameters,
    load_run,
    loading,
    log_option,
    plugin_option,
    set_option,
)
from fishr.commands.train_benchmark import as_job, benchmark_options, chosen_job
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.ranks import Ranks
    from fishr.training import Event, Experiment, Recording


@click.command(**about("Train a model.", "train colored-digits-erm --seed 1 --set steps=300 --out runs/erm"))
@experiment_argument
@click.option("--out", type=PATH, help="Run folder to make (default: runs/RECIPE-TIME).")
@click.option("--seed", type=SEED, metavar="N", help="Seed of data, first weights and batches.")
@click.option("--steps", type=COUNT, metavar="N", help="Number of updates (default: as configured).")
@benchmark_options
@data_dir_option
@device_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="Precision of the featurizer; the rest is float32 (default: as configured).",
)
@click.option("--resume", type=PATH, metavar="DIR", help="Resume the run in this folder.")
@click.option(
    "--on-features",
    type=FILE,
    help="Train on a file of `fishr cache features`: the head alone, or, if made with --at, the layers above too.",
)
@click.option(
    "--record-statistics",
    metavar="every=STEPS[,samples=N][,epsilon=E]",
    help="Record gradient statistics of the head over the steps, on N samples of each training domain (default: all).",
)
@click.option("--keep-checkpoints", is_flag=True, help="Keep every checkpoint, not only the last.")
@log_option
@format_option
@set_option
@plugin_option
def train(
    experiment: str,
    out: Path | None,
    seed: int | None,
    steps: int | None,
    data_dir: Path | None,
    device: str,
    resume: Path | None,
    on_features: Path | None,
    precision: str | None,
    record_statistics: str | None,
    keep_checkpoints: bool,
    logs: tuple[str, ...],
    style: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    **benchmark: Any,
) -> None:
    """Train a model, and write a run folder: configuration, metrics, checkpoint, result and figure.

    RECIPE is colored-digits (the default) or colored-mnist, both with Fishr, or one of them with another method:
    colored-digits-erm, -irm, -vrex. FILE is a configuration as `fishr config show RECIPE` prints it.

    Instead of these, --benchmark PACS --algorithm Fishr --test-env 0 runs one job of DomainBed's benchmark; --set then
    changes the job, e.g. settings.image_size=64.

    --record-statistics adds statistics.h5 to the folder, --keep-checkpoints adds checkpoints/. They do not change the
    run, nor does --log. If a log fails, it is closed, and the run continues.

    With `torchrun --nproc-per-node N cli.py train ...`, N processes share every batch.
    """
    with loading():
        from fishr.commands.rendering import progress
        from fishr.configuration import dumps, structure
        from fishr.configuration.families import find_logger
        from fishr.configuration.toml import parse_toml
        from fishr.logs import with_logs
        from fishr.sweeps.job_files import DONE
        from fishr.training import Artifacts, Experiment, joined, run, run_outline
        from fishr.training.launch import agreed, from_first
        from fishr.training.run_folder import JOB

    if resume is not None:
        _refuse_changes()

    def choose() -> tuple[str, Path, Artifacts, str]:
        if resume is not None:
            # A run resumes with the very text it started with.
            load_run(resume, plugins)
            job_file = resume / JOB
            job = job_file.read_bytes().decode() if job_file.is_file() and not (resume / DONE).exists() else ""
            return (resume / "config.toml").read_bytes().decode(), resume, Artifacts(), job
        options = {"seed": seed, "steps": steps, "compute.precision": precision}
        named = (f"{name}={value}" for name, value in options.items() if value is not None)
        job = chosen_job(**benchmark, steps=steps, overrides=overrides, plugins=plugins)
        chosen = job.experiment() if job else find_experiment(experiment, (*overrides, *named), plugins)
        if on_features is not None:
            chosen = _on_features(chosen, on_features, plugins)
        recording = None if record_statistics is None else _recording(record_statistics)
        keep = Artifacts(statistics=recording, checkpoints=keep_checkpoints)
        return dumps(chosen), out or _fresh_folder(chosen.name), keep, dumps(job) if job else ""

    folder: Path | None = None
    with joined(device) as (ranks, where):
        try:
            # Of several ranks the first chooses, prints and draws.
            choice = from_first(agreed(lambda: choose() if ranks.number == 0 else None, ranks), ranks)
            assert choice is not None
            text, folder, keep, job = choice
            made = agreed(lambda: structure(parse_toml(text), Experiment, plugins), ranks)
            loggers = agreed(lambda: [find_logger(name, plugins) for name in dict.fromkeys(logs)], ranks)
            events = run(
                made,
                folder,
                experiment_text=text,
                data_dir=data_dir,
                device=where,
                resume=resume is not None,
                keep=keep,
                ranks=ranks,
            )
            if ranks.number:
                for _ in events:
                    pass
                return
            # JSON is for programs, which find the weights in metrics.jsonl.
            opening = "" if style == "json" else run_outline(made)
            remedy = f"resume it with fishr train {_resume(folder)}"
            if job:
                events = as_job(events, folder, job, plugins)
            figure = cache(partial(_figure, folder))
            if loggers:
                events = with_logs(events, loggers, folder, parse_toml(text), lambda: {"figure": figure()})
            event: Event | None = None
            with progress(events, folder, made.steps, remedy, opening=opening) as show:
                for event in events:
                    show(event)
            _report(folder, event, figure(), style)
        except (InputError, RunFailed) as error:
            shown = _shown(error, ranks, folder)
            if shown is error:
                raise
            raise shown from error


def _shown(error: InputError | RunFailed, ranks: "Ranks", folder: Path | None) -> Exception:
    """Return the error as a rank shows it: one for all where all have the same, else with the rank's number."""
    from fishr.ranks import RankLost
    from fishr.training import NotFinite
    from fishr.training.launch import Refused

    if isinstance(error, Refused | NotFinite):
        return error if ranks.number == 0 else click.exceptions.Exit(2 if isinstance(error, InputError) else 1)
    if ranks.alone:
        return error
    remedy = f"; resume it with {_resume(folder)}" if folder and isinstance(error, RankLost) else ""
    kind = InputError if isinstance(error, InputError) else RankLost if isinstance(error, RankLost) else RunFailed
    return kind(f"rank {ranks.number} of {ranks.count}: {error}{remedy}")


@loading()
def _figure(folder: Path) -> Path:
    from fishr.plots.run import save_run_figure

    return save_run_figure(folder)


def _report(folder: Path, last: "Event | None", figure: Path, style: str) -> None:
    from fishr.commands.rendering import score_table
    from fishr.training import Finished

    if style == "json":
        click.echo((folder / "result.json").read_text(), nl=False)
    else:
        click.echo(f"{score_table(cast(Finished, last).scores)}\n\nrun: {folder}\nfigure: {figure}")


def _resume(folder: Path) -> str:
    """Return the options that resume a run, with those that were given to this one."""
    return shlex.join(["--resume", str(folder), *given_options("data_dir", "device", "logs", "style", "plugins")])


def _refuse_changes() -> None:
    """Refuse what a resumed run takes from its folder; only where its files are and how to compute may be given."""
    for one in given_parameters():
        if one.name not in ("resume", "data_dir", "device", "logs", "style", "plugins"):
            name = "RECIPE or FILE" if isinstance(one, click.Argument) else max(one.opts, key=len)
            raise InputError(f"{name}: got it together with --resume, which changes nothing of a run; drop one of them")


def _recording(text: str) -> "Recording":
    """Return the recording of a text such as ``every=50,samples=200,epsilon=0.1``."""
    from fishr.training import Recording

    types = {"every": int, "samples": int, "epsilon": float}
    try:
        parts = [part.split("=") for part in text.split(",")]
        values: dict[str, Any] = {name: types[name](value) for name, value in parts}
        if len(values) < len(parts) or "every" not in values:
            raise KeyError
    except (KeyError, ValueError):
        raise InputError(
            f"--record-statistics: got {text!r}, expected every=STEPS[,samples=N][,epsilon=E], as in every=50"
        ) from None
    try:
        return Recording(**values)
    except InputError as error:
        raise InputError(f"--record-statistics: {error}") from None


def _on_features(experiment: "Experiment", path: Path, plugins: tuple[str, ...]) -> "Experiment":
    """Return the experiment on a file of its own data's features or activations, without what computed them."""
    from fishr.configuration import structure, unstructure
    from fishr.configuration.toml import parse_toml
    from fishr.data.caches import describe, open_activations, open_features
    from fishr.models.featurizers import without_weights
    from fishr.training import Experiment, LayersAbove, on_features

    layer = open_activations(path) if describe(path).header.kind == "fishr-activations" else None
    cache = layer or open_features(path)
    text = cache.provenance.get("experiment")
    if not isinstance(text, str):
        raise InputError(f"{path}: does not name the experiment of its features; make it with `fishr cache features`")
    made = parse_toml(text)
    # Only data, seed and layers are the file's; nothing of what else they were made with need be known here.
    names = ("data", "seed") if layer is None else ("data", "seed", "featurizer")
    own = {key: made[key] for key in names if key in made}
    theirs = structure(unstructure(experiment) | own, Experiment, plugins)
    above = None
    if layer is not None:
        # The file has the weights of the layers above.
        inner = without_weights(theirs.featurizer)
        above = LayersAbove(inner, layer.at, layer.inputs, weights=str(path.absolute()))
    return on_features(experiment, path, cache.key, cache.provenance, theirs.data, theirs.seed, above)


def _fresh_folder(name: str) -> Path:
    # A name is free text; the folder stays in runs whatever it says.
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run"
    stem = f"{plain[:100]}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (Path("runs") / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())
