"""``fishr explain``."""

from pathlib import Path

import click

from fishr.commands.shared import (
    SEED,
    about,
    data_dir_option,
    experiment_argument,
    find_experiment,
    format_option,
    loading,
    plugin_option,
    set_option,
)


@click.command(**about("Print the terms of the loss at a step.", "explain colored-digits --step 120"))
@experiment_argument
@click.option("--step", type=SEED, metavar="N", default=0, help="Updates before the step.")
@data_dir_option
@format_option
@set_option
@plugin_option
def explain(
    experiment: str, step: int, data_dir: Path | None, style: str, overrides: tuple[str, ...], plugins: tuple[str, ...]
) -> None:
    """Print the terms of the loss at a step: weight, what each reads, whether it keeps a graph, size of its state."""
    with loading():
        import attrs

        from fishr.files import json_text
        from fishr.training import explain_objective

    explanation = explain_objective(find_experiment(experiment, overrides, plugins), step, data_dir)
    click.echo(json_text(attrs.asdict(explanation)) if style == "json" else str(explanation))
