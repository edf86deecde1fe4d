"""``fishr join``."""

from pathlib import Path

import click

from fishr.commands.progress import steps_shown
from fishr.commands.shared import PATH, about, data_dir_option, loading, plugin_option


@click.command(
    **about("Join a run on cached outputs with its network.", "join runs/head --below runs/base -o runs/whole")
)
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--out", type=PATH, required=True, metavar="FOLDER", help="New folder of the whole network.")
@click.option(
    "--below",
    type=PATH,
    metavar="RUN",
    help="Run from which the outputs were cached (default: the file's network with its first weights).",
)
@data_dir_option
@plugin_option
def join(run: Path, out: Path, below: Path | None, data_dir: Path | None, plugins: tuple[str, ...]) -> None:
    """Join a run on cached features or activations with the network that computed them.

    evaluate, predict, export, analyze and the featurizer Frozen accept FOLDER like that of a run. The cached file and
    its data must be there: the file names the network, and the data give the shape of an input.
    """
    with loading():
        from fishr.inference import join_layers

    with steps_shown(f"{out}: interrupted; nothing was written", 4, "part") as show:
        signature = join_layers(run, out, below, data_dir, plugins, show)
    click.echo(f"whole network: {out} (inputs {' × '.join(map(str, signature.shape))}, {signature.classes} classes)")
