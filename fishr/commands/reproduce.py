"""``fishr reproduce``."""

from pathlib import Path

import click

from fishr.commands.shared import COUNT, PATH, about, data_dir_option, device_option, format_option, loading
from fishr.errors import InputError


@click.command(**about("Reproduce a published table.", "reproduce colored-mnist --data-dir data --restarts 10"))
@click.argument("table", metavar="colored-digits|colored-mnist")
@click.option("--out", type=PATH, help="Folder of the runs (default: runs/reproduce-TABLE).")
@click.option("--methods", default="erm,irm,vrex,fishr", help="Methods, separated by commas.")
@click.option("--restarts", type=COUNT, metavar="N", help="Seeds per method (default: 5 digits, 1 MNIST).")
@data_dir_option
@device_option
@format_option
def reproduce(
    table: str, out: Path | None, methods: str, restarts: int | None, data_dir: Path | None, device: str, style: str
) -> None:
    """Reproduce a published table: several restarts of every method, beside the published numbers.

    The same command resumes an interrupted one, restart by restart.
    """
    with loading():
        import attrs

        from fishr.commands.rendering import progress, reproduction_table
        from fishr.data import ColoredDigits, ColoredMNIST
        from fishr.files import json_text, write_atomically
        from fishr.plots.reproduction import save_reproduction_figure
        from fishr.reproductions import find_reproduction, restarts_of
        from fishr.reproductions import table as collect

    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",")))
    folder = out or Path("runs") / f"reproduce-{table}"
    chosen = find_reproduction(table, names)
    if (folder / "config.toml").exists():
        raise InputError(f"{folder}: is itself a run folder; choose another --out for the runs of a table")
    for restart in restarts_of(table, folder, names, restarts):
        label, remedy = f"{restart.method} {restart.seed}", "the same command resumes it"
        events = restart.run(data_dir, device)
        with progress(events, restart.folder, restart.experiment.steps, remedy, label) as show:
            for event in events:
                show(event)
    rows = collect(table, folder, names)
    text = reproduction_table(rows, chosen)
    write_atomically(folder / "table.md", f"{text}\n".encode())
    data = chosen.recipe(names[0]).data
    assert isinstance(data, ColoredDigits | ColoredMNIST)
    figure = save_reproduction_figure(rows, data, data(0, data_dir), folder / "figure.png")
    found = {"table": table, "source": chosen.source, "rows": [attrs.asdict(row) for row in rows]}
    shown = f"{text}\n\npublished: {chosen.source}\nfigure: {figure}"
    click.echo(json_text(found) if style == "json" else shown)
