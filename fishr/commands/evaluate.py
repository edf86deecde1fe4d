"""``fishr evaluate``."""

from pathlib import Path

import click

from fishr.commands.shared import PATH, about, load_run, run_options


@click.command(**about("Score a run's last checkpoint.", "evaluate runs/erm --format json"))
@click.argument("run", type=PATH, metavar="RUN")
@run_options
def evaluate(run: Path, data_dir: Path | None, device: str, style: str, plugins: tuple[str, ...]) -> None:
    """Score the last checkpoint of a run folder on every domain of its data."""
    from fishr.commands.rendering import score_table
    from fishr.files import json_text
    from fishr.training.evaluation import score_checkpoint, score_entries

    step, scores = score_checkpoint(load_run(run, plugins), run, data_dir, device)
    found = {"run": str(run), "step": step, "scores": score_entries(scores)}
    click.echo(json_text(found) if style == "json" else f"{run} after {step} steps\n\n{score_table(scores)}")
