"""``fishr export``."""

from pathlib import Path
from typing import Any

import click

from fishr.commands.shared import FILE, PATH, about, loading, plugin_option


@click.command(**about("Write a run's model for other programs.", "export runs/pacs -o pacs.safetensors"))
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--out", type=FILE, required=True, help="File to write; it must not exist.")
@click.option(
    "--as",
    "form",
    type=click.Choice(("safetensors", "pt", "torchscript", "export")),
    help="Weights by name, or a program for torch.jit.load or torch.export.load (default: by the suffix of FILE, "
    ".safetensors, .pt, or .pt2 for export).",
)
@plugin_option
def export(run: Path, out: Path, form: Any, plugins: tuple[str, ...]) -> None:
    """Write the weights of a run, or its network as a program, and a model card beside them.

    Weights have the names of torchvision's or timm's network, which loads them strictly; other networks have fishr's
    names. The card is FILE with the suffix .md: data, method, settings, accuracy of each domain, versions.
    """
    with loading():
        from fishr.inference import export_model, load_model

    weights = export_model(load_model(run, plugins=plugins), run, out, form)
    click.echo(f"model: {out}\ncard: {out.with_suffix('.md')}")
    if weights is not None:
        click.echo(f"names: {weights.owner}'s" + (f", since {weights.reason}" if weights.reason else ""))
