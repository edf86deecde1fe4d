"""``fishr data``."""

from pathlib import Path

import click

from fishr.commands.shared import format_option


@click.group(epilog="Example: fishr data list")
def data() -> None:
    """List the data sets, or download what one needs."""


@data.command("list", short_help="List the data sets.", epilog="Example: fishr data list --data-dir data")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True, help="Folder.")
@format_option
def list_data(data_dir: Path, style: str) -> None:
    """List the data sets, what each needs, and whether it is there."""
    import attrs
    from tabulate import tabulate

    from fishr.commands.rendering import as_json
    from fishr.data import catalogue

    entries = catalogue(data_dir)
    if style == "json":
        click.echo(as_json([attrs.asdict(entry) for entry in entries]))
        return
    rows = [(e.kind, e.description, e.needs, "yes" if e.ready else "no") for e in entries]
    click.echo(tabulate(rows, ("kind", "what", "needs", "ready")))


@data.command(short_help="Download a data set's files.", epilog="Example: fishr data download mnist --data-dir data")
@click.argument("name", type=click.Choice(["mnist"]))
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True, help="Folder.")
def download(name: str, data_dir: Path) -> None:
    """Download a data set's files, checksums verified; what is there already is kept."""
    from fishr.data import download_mnist

    for path in download_mnist(data_dir):
        click.echo(path)
