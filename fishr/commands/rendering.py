"""Rendering of a run's events as progress, and of scores as tables."""

import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from fishr.commands.progress import note, progress_bar
from fishr.errors import RunFailed

if TYPE_CHECKING:
    from fishr.reproductions import Reproduction, Row
    from fishr.training import DomainScore, Event, StepRecord


@contextmanager
def progress(
    events: "Generator[Event]", folder: Path, steps: int, remedy: str, label: str = "", opening: str = ""
) -> "Generator[Callable[[Event], None]]":
    """Give a function that shows a run's events on stderr: progress, and without a terminal a line an evaluation.

    At the end the events are closed, and failures name the folder.
    """
    from fishr.training import NotFinite
    from fishr.training.loop import Evaluated, Started, Stepped

    pending, numbers = "", dict[str, str]()
    terminal = sys.stderr.isatty()

    def show(event: "Event") -> None:
        nonlocal pending, numbers
        if isinstance(event, Started):
            pending = "" if event.state.step else opening
            bar.initial = bar.n = event.state.step
        elif pending:
            # Not before the first step: input that it refuses leaves one line, the error.
            note(bar, pending)
            pending = ""
        if isinstance(event, Stepped):
            numbers = _numbers(event.record)
            bar.set_postfix(numbers, refresh=False)
            bar.update(1)
        elif isinstance(event, Evaluated) and not terminal:
            parts = [label] if label else []
            parts += [f"step {event.step}/{steps}", *(f"{name} {value}" for name, value in numbers.items())]
            parts += [f"{score.title} {score.percentage}" for score in event.scores]
            note(bar, "  ".join(parts))

    bar_options = {"total": steps, "desc": label or None, "unit": "step"}
    try:
        with closing(events), progress_bar(f"{folder}: interrupted", **bar_options) as bar:
            try:
                yield show
            except KeyboardInterrupt:
                rest = f"; {remedy}" if folder.exists() else ""
                raise RunFailed(f"{folder}: interrupted{rest}") from None
    except NotFinite as failure:
        kept = "its last checkpoint is kept" if (folder / "checkpoint.pt").exists() else "it had no checkpoint yet"
        raise RunFailed(f"{folder}: {failure}; {kept}") from failure


def _numbers(record: "StepRecord") -> dict[str, str]:
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
