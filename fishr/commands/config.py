"""``fishr config``."""

import click

from fishr.commands.shared import about, experiment_argument, find_experiment, plugin_option, set_option


@click.group(epilog="Example: fishr config show colored-mnist > run.toml")
def config() -> None:
    """Show or check a configuration, or print its schema."""


@config.command(**about("Print a whole configuration.", "config show colored-digits --set steps=100 > run.toml"))
@experiment_argument
@set_option
@plugin_option
def show(experiment: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Print the whole configuration of a recipe or file, every setting spelled out."""
    from fishr.configuration import dumps

    click.echo(dumps(find_experiment(experiment, overrides, plugins)), nl=False)


@config.command(**about("Check a configuration file.", "config validate run.toml"))
@click.argument("experiment", metavar="FILE")
@set_option
@plugin_option
def validate(experiment: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Check a configuration file; every problem is listed with its path."""
    found = find_experiment(experiment, overrides, plugins)
    click.echo(f"{experiment}: valid, {found.name}, {found.steps} steps")


@config.command(**about("Print the JSON schema of a file.", "config schema plan > plan.schema.json"))
@click.argument("what", type=click.Choice(["experiment", "plan"]), default="experiment")
def schema(what: str) -> None:
    """Print the JSON schema of an experiment or of a sweep's plan, with which editors complete and check TOML files."""
    from fishr.configuration import schema as schema_of
    from fishr.files import json_text
    from fishr.sweeps.plan import Plan
    from fishr.training import Experiment

    click.echo(json_text(schema_of(Plan if what == "plan" else Experiment)))
