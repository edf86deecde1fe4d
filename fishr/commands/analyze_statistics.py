"""``fishr analyze`` of the statistics that a run recorded, without the run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.shared import given_parameters
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.analysis import History

_ROWS = 11
_TAKEN = ("subject", "second", "figures", "replace", "style", "data_dir", "device", "plugins")


def analyze_statistics(paths: list[Path], figures: Path | None, style: str, *, replace: bool) -> None:
    """Print recorded statistics over the steps, and draw them."""
    from fishr.analysis import Settings, is_statistics, load_history
    from fishr.commands.analysis_tables import record_object
    from fishr.files import digest_of, json_text
    from fishr.plots.analysis import save_history_figure

    for one in given_parameters():
        if one.name not in _TAKEN:
            raise InputError(f"{max(one.opts, key=len)}: got it with recorded statistics, which are complete; drop it")
    for path in paths:
        if not is_statistics(path):
            raise InputError(f"{path}: got it beside recorded statistics, expected another file of statistics")
    histories = [history for path in paths if (history := load_history(path)) is not None]
    folder = figures or (paths[0].with_suffix("") if len(paths) == 1 else None)
    drawn = list[Path]()
    if folder is not None:
        keys = [({"key": digest_of(path)}, Settings()) for path in paths]
        drawn.append(save_history_figure(histories, keys, folder, replace=replace))
    if style == "json":
        found = {"figures": [str(path) for path in drawn], "histories": [record_object(one) for one in histories]}
        click.echo(json_text(found))
    else:
        click.echo("\n\n".join([*map(_table, histories), *(f"figure: {path}" for path in drawn)]))


def _table(history: "History") -> str:
    """Return a history at up to eleven of its steps, from the first to the last."""
    from tabulate import tabulate

    last = len(history.steps) - 1
    rows = sorted({round(last * part / (_ROWS - 1)) for part in range(_ROWS)})
    columns = {
        "risk": history.risks.mean(1),
        "variance distance": history.variance_distance,
        "Hessian distance": history.hessian_distance,
        "inconsistency": history.inconsistency,
        "cosine": history.cosine.mean(1),
        **history.penalties,
    }
    cells = [(int(history.steps[row]), *(f"{float(column[row]):.4g}" for column in columns.values())) for row in rows]
    return tabulate(cells, (f"{history.name}, step", *columns), disable_numparse=True)
