"""``fishr sweep features``."""

from pathlib import Path
from typing import Any

import click

from fishr.commands.shared import HDF5_FILE, PATH, about, choice_option, loading, run_options
from fishr.errors import InputError


@click.command(
    **about(
        "Compute a data set's features once.",
        "sweep features plan.toml --dataset PACS -o pacs-features.h5 --data-dir data",
    )
)
@click.argument("plan", type=PATH, metavar="PLAN.toml")
@click.option("--dataset", metavar="NAME", help="A data set of the plan (default: its only one).")
@click.option("-o", "--out", type=HDF5_FILE, required=True, help="New HDF5 file.")
@choice_option("--dtype", words=["float32", "float16"], help="Type of the stored features; float16 halves the file.")
@run_options
def features(
    plan: Path,
    dataset: str | None,
    out: Path,
    dtype: Any,
    data_dir: Path | None,
    device: str,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Compute the features of a data set's whole environments once, with the network of the plan's settings.

    With the file under [settings.features] of the plan, the sweep trains heads alone, in seconds a job. If the plan has
    settings.features_at, the file has the outputs of that layer, and the sweep trains the layers above it too. Images
    are not augmented. The same command resumes an interrupted one.
    """
    with loading():
        from fishr.analysis.cache_writing import cache_features, featured_experiment
        from fishr.analysis.layer_caching import cache_layer, layer_outputs
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
    at = made.settings.features_at
    if at is not None:
        outputs = layer_outputs(experiment, at, data_dir=data_dir, device=device)
        with writing(out, style) as progress:
            cache_layer(outputs, out, dtype, progress)
        return
    featured = featured_experiment(experiment, data_dir=data_dir, device=device)
    with writing(out, style) as progress:
        cache_features(featured, out, dtype, progress)
