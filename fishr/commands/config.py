"""``fishr config``."""

import click

from fishr.commands.shared import experiment_argument, find_experiment, plugin_option, set_option


@click.group(epilog="Example: fishr config show colored-mnist > run.toml")
def config() -> None:
    """Show a recipe's configuration as TOML, or check a file."""


@config.command(
    short_help="Print a whole configuration.",
    epilog="Example: fishr config show colored-digits --set steps=100 > run.toml",
)
@experiment_argument
@set_option
@plugin_option
def show(experiment: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Print the whole configuration of a recipe or file, every setting spelled out."""
    from fishr.configuration import dumps

    click.echo(dumps(find_experiment(experiment, overrides, plugins)), nl=False)


@config.command(short_help="Check a configuration file.", epilog="Example: fishr config validate run.toml")
@click.argument("experiment", metavar="FILE")
@set_option
@plugin_option
def validate(experiment: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Check a configuration file; every problem is listed with its path."""
    found = find_experiment(experiment, overrides, plugins)
    click.echo(f"{experiment}: valid, {found.name}, {found.steps} steps")
