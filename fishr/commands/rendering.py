"""Rendering of events and scores: a bar on a terminal, lines in a pipe, tables at the end."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from tabulate import tabulate
from tqdm import tqdm

if TYPE_CHECKING:
    from fishr.reproductions import Reproduction, Row
    from fishr.training import DomainScore, Event, StepRecord


class Progress:
    """Shows a run's events on stderr: a progress bar on a terminal, a line an evaluation elsewhere."""

    def __init__(self, steps: int, label: str = "", opening: str = "") -> None:
        self._steps, self._label, self._opening, self._pending = steps, label, opening, ""
        self._terminal = sys.stderr.isatty()
        self._last: StepRecord | None = None

    def __enter__(self) -> "Progress":
        self._bar = tqdm(total=self._steps, desc=self._label or None, unit="step", disable=not self._terminal)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: "Event") -> None:
        from fishr.training.loop import Evaluated, Started, Stepped

        if isinstance(event, Started):
            self._pending = "" if event.state.step else self._opening
            self._bar.update(event.state.step - self._bar.n)
        elif self._pending:
            # Not before the first step: input that it refuses leaves one line, the error.
            self._bar.write(self._pending, file=sys.stderr)
            self._pending = ""
        if isinstance(event, Stepped):
            self._last = event.record
            self._bar.set_postfix(_numbers(self._last), refresh=False)
            self._bar.update(1)
        elif isinstance(event, Evaluated) and not self._terminal:
            parts = [f"step {event.step}/{self._steps}", *(f"{k} {v}" for k, v in _numbers(self._last).items())]
            parts += [f"{score.title} {score.accuracy:.1%}" for score in event.scores]
            click.echo("  ".join([self._label, *parts] if self._label else parts), err=True)


def _numbers(record: "StepRecord | None") -> dict[str, str]:
    if record is None:
        return {}
    return {"loss": f"{record.loss:.4g}"} | {name: f"{term.value:.3g}" for name, term in record.terms.items()}


def score_table(scores: "Iterable[DomainScore]") -> str:
    """Return scores as a table for people."""
    rows = [(s.title, s.split, s.samples, f"{s.accuracy:.1%}", f"{s.loss:.4f}") for s in scores]
    return tabulate(rows, ("domain", "split", "samples", "accuracy", "loss"), disable_numparse=True)


def reproduction_table(rows: "Iterable[Row]", reproduction: "Reproduction") -> str:
    """Return measured beside published accuracies, as a Markdown table."""
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
