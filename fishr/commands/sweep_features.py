"""``fishr sweep features``."""

from pathlib import Path

import click

from fishr.commands.shared import FILE, PATH, about, run_options
from fishr.errors import InputError


@click.command(
    **about(
        "Compute a data set's features once.",
        "sweep features plan.toml --dataset PACS -o pacs-features.h5 --data-dir data",
    )
)
@click.argument("plan", type=PATH, metavar="PLAN.toml")
@click.option("--dataset", metavar="NAME", help="A data set of the plan (default: its only one).")
@click.option("-o", "--out", type=FILE, required=True, help="New HDF5 file.")
@run_options
def features(
    plan: Path, dataset: str | None, out: Path, data_dir: Path | None, device: str, style: str, plugins: tuple[str, ...]
) -> None:
    """Compute the features of a data set's whole environments once, with the network of the plan's settings.

    With the file under [settings.features] of the plan, the sweep trains heads alone, in seconds a job. Images are not
    augmented. The same command resumes an interrupted one.
    """
    from fishr.analysis.cache_writing import cache_features, featured_experiment
    from fishr.commands.cache import writing
    from fishr.configuration import load
    from fishr.protocols.domainbed.job import feature_experiment
    from fishr.sweeps.plan import Plan

    made = load(plan, Plan, (), plugins)
    known = ", ".join(made.datasets)
    if dataset is None and len(made.datasets) > 1:
        raise InputError(f"--dataset: {plan} has {known}; name one of them")
    name = known if dataset is None else dataset
    if name not in made.datasets:
        raise InputError(f"--dataset: got {name!r}, expected one of the plan's, {known}")
    experiment = feature_experiment(name, made.settings)
    featured = featured_experiment(experiment, data_dir=data_dir, device=device)
    with writing(out, style, featured) as progress:
        cache_features(featured, out, "float32", progress)
