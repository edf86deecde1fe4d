"""``fishr sweep average``."""

from pathlib import Path
from typing import Any

import click

from fishr.commands.progress import progress_bar
from fishr.commands.shared import PATH, about, choice_option, loading, run_options


@click.command(**about("Average the draws of each method.", "sweep average runs/sweep --out runs/soups"))
@click.argument("sweep", type=PATH, metavar="SWEEP")
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the means.")
@choice_option(
    "--soup", words=["uniform", "greedy"], help="Mean of all draws, or of those that do not lower validation accuracy."
)
@run_options
def average(
    sweep: Path, out: Path, soup: Any, data_dir: Path | None, device: str, style: str, plugins: tuple[str, ...]
) -> None:
    """Average the weights of the draws of each method, test environment and trial, and evaluate the means.

    SWEEP must have kept its weights. `fishr sweep collect SWEEP FOLDER` then has rows such as "ERM, uniform soup",
    whose cells are means over trials, as in all rows. The same command resumes an interrupted one, and adds means when
    more draws are done.
    """
    with loading():
        import attrs
        from tabulate import tabulate

        from fishr.files import json_text
        from fishr.inference import SweepSoup, average_sweep

    found = list[SweepSoup]()
    with progress_bar(f"{out}: interrupted; the same command resumes it", unit="mean") as bar:
        for one in average_sweep(sweep, out, soup, data_dir, device, plugins):
            found.append(one)
            bar.update(1)
    if style == "json":
        click.echo(json_text([attrs.asdict(one) for one in found]))
        return
    rows = [
        (
            one.key.dataset,
            one.key.algorithm,
            str(one.key.test_envs[0]),
            str(one.key.trial_seed),
            str(one.runs) if one.test is not None else one.reason,
            "" if one.test is None else f"{one.test:.1%}",
        )
        for one in found
    ]
    headers = ("data set", "algorithm", "test", "trial", "draws", "accuracy")
    right = ["right"] * 4
    click.echo(f"{tabulate(rows, headers, disable_numparse=True, colalign=('left', 'left', *right))}\n\nmeans: {out}")
