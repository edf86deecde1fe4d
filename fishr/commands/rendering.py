"""Rendering of events and scores: a bar on a terminal, lines in a pipe, tables at the end."""

import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate
from tqdm import tqdm

from fishr.errors import RunFailed

if TYPE_CHECKING:
    from fishr.reproductions import Reproduction, Row
    from fishr.training import DomainScore, Event, StepRecord


@contextmanager
def progress(
    events: "Generator[Event]", folder: Path, steps: int, remedy: str, label: str = "", opening: str = ""
) -> "Generator[Callable[[Event], None]]":
    """Give a function that shows a run's events on stderr: a bar on a terminal, a line an evaluation elsewhere.

    At the end the events are closed, and failures name the folder.
    """
    from fishr.training import NotFinite
    from fishr.training.loop import Evaluated, Started, Stepped

    terminal, pending = sys.stderr.isatty(), ""
    last: StepRecord | None = None

    def show(event: "Event") -> None:
        nonlocal pending, last
        if isinstance(event, Started):
            pending = "" if event.state.step else opening
            bar.update(event.state.step - bar.n)
        elif pending:
            # Not before the first step: input that it refuses leaves one line, the error.
            bar.write(pending, file=sys.stderr)
            pending = ""
        if isinstance(event, Stepped):
            last = event.record
            bar.set_postfix(_numbers(last), refresh=False)
            bar.update(1)
        elif isinstance(event, Evaluated) and not terminal:
            parts = [label] if label else []
            parts += [f"step {event.step}/{steps}", *(f"{k} {v}" for k, v in _numbers(last).items())]
            parts += [f"{score.title} {score.percentage}" for score in event.scores]
            click.echo("  ".join(parts), err=True)

    try:
        with closing(events), tqdm(total=steps, desc=label or None, unit="step", disable=not terminal) as bar:
            yield show
    except NotFinite as failure:
        kept = "its last checkpoint is kept" if (folder / "checkpoint.pt").exists() else "it had no checkpoint yet"
        raise RunFailed(f"{folder}: {failure}; {kept}") from failure
    except KeyboardInterrupt:
        raise RunFailed(f"{folder}: interrupted" + (f"; {remedy}" if folder.exists() else "")) from None


def _numbers(record: "StepRecord | None") -> dict[str, str]:
    if record is None:
        return {}
    return {"loss": f"{record.loss:.4g}"} | {name: f"{term.value:.3g}" for name, term in record.terms.items()}


def score_table(scores: "Iterable[DomainScore]") -> str:
    """Return scores as a table for people."""
    scores = list(scores)
    name = next((s.accuracy_name for s in scores if s.accuracy_name), "accuracy")
    rows = [(s.title, s.split, s.samples, s.percentage, f"{s.loss:.4f}") for s in scores]
    return tabulate(rows, ("domain", "split", "samples", name, "loss"), disable_numparse=True)


def reproduction_table(rows: "Iterable[Row]", reproduction: "Reproduction") -> str:
    """Return measured beside published accuracies, as a Markdown table."""
    from fishr.protocols.invariance import METHODS
    from fishr.reproductions import COLUMNS

    published = COLUMNS if reproduction.published else ()
    headers = ["method", "restarts", *COLUMNS, *(f"published: {column}" for column in published)]
    cells = [
        [METHODS[row.method].title, str(row.restarts), *(str(row.measured[c]) for c in COLUMNS)]
        + [str(row.published[c]) if row.published else "" for c in published]
        for row in rows
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)
