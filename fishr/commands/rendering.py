"""How events and scores look: a bar on a terminal, lines in a pipe, tables at the end."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate
from tqdm import tqdm

if TYPE_CHECKING:
    from fishr.reproductions import Reproduction, Row
    from fishr.training import DomainScore, Event, StepRecord


def follow(
    events: "Iterable[Event]", steps: int, done: int = 0, label: str = "", opening: str = ""
) -> "Iterator[Event]":
    """Pass events on and show them on stderr: a progress bar on a terminal, a line an evaluation elsewhere.

    Args:
        events: of a run.
        steps: of the whole run.
        done: of them before these events.
        label: what stands before the bar or the line.
        opening: lines that are shown above the first step's, unless the run goes on from a later one.
    """
    from fishr.training import Evaluated, Started, Stepped

    terminal = sys.stderr.isatty()
    last: StepRecord | None = None
    pending = ""
    with tqdm(total=steps, desc=label or None, unit="step", disable=not terminal, initial=done) as bar:
        for event in events:
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
                parts = [f"step {event.step}/{steps}", *(f"{k} {v}" for k, v in _numbers(last).items())]
                parts += [f"{score.title} {score.accuracy:.1%}" for score in event.scores]
                click.echo("  ".join([label, *parts] if label else parts), err=True)
            yield event


def _numbers(record: "StepRecord | None") -> dict[str, str]:
    if record is None:
        return {}
    return {"loss": f"{record.loss:.4g}"} | {name: f"{term.value:.3g}" for name, term in record.terms.items()}


def score_table(scores: "Iterable[DomainScore]") -> str:
    """Scores as a table for people."""
    rows = [(s.title, s.split, s.samples, f"{s.accuracy:.1%}", f"{s.loss:.4f}") for s in scores]
    return tabulate(rows, ("domain", "split", "samples", "accuracy", "loss"), disable_numparse=True)


def reproduction_table(rows: "Iterable[Row]", reproduction: "Reproduction") -> str:
    """Measured beside published accuracies, as a Markdown table."""
    from fishr.protocols.invariance import METHODS
    from fishr.reproductions import COLUMNS

    headers = ["method", "restarts", *COLUMNS]
    published = [f"published: {column}" for column in COLUMNS] if reproduction.published else []
    cells = [
        [METHODS[row.method].title, str(row.restarts), *(str(row.measured[c]) for c in COLUMNS)]
        + ([str(row.published[c]) if row.published else "" for c in COLUMNS] if published else [])
        for row in rows
    ]
    return tabulate(cells, headers + published, tablefmt="github", disable_numparse=True)


def as_json(value: Any) -> str:
    """One standard JSON object."""
    import json

    return json.dumps(value, sort_keys=True, allow_nan=False)
