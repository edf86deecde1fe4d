"""A run's events, and their numbers in logs as they come."""

import inspect
import json
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from fishr.errors import one_line
from fishr.files import json_text, present, write_atomically
from fishr.logs.logger import Logger, Row
from fishr.training.evaluation import score_entries, score_of
from fishr.training.loop import Evaluated, Event, Started, Stepped
from fishr.training.run_folder import METRICS
from fishr.training.step import step_entry

LOGS = "logs.json"  # of each log its key and the last step that it has
_EVERY = 5.0  # seconds between writes


def with_logs(
    events: Iterable[Event],
    loggers: Sequence[Logger],
    folder: Path,
    settings: Mapping[str, Any],
    pictures: Callable[[], Mapping[str, Path]] = dict,
) -> Generator[Event]:
    """Yield a run's events unchanged, and write their numbers to logs.

    The numbers of a step are ``loss``, ``risk``, ``l2``, ``batch_loss/DOMAIN``, ``lr/LAYER``, and of each term
    ``terms/NAME``, which its weight has multiplied, ``raw/NAME``, which it has not, and ``weights/NAME``; those of an
    evaluation are ``accuracy/SPLIT/DOMAIN`` and ``mean_loss/SPLIT/DOMAIN``. ``Row`` has the meaning of a step. A log
    that fails is closed with a warning, and the run goes on. A resumed run goes on in the same logs: they get the steps
    that they lack from the folder's metrics.jsonl, and no step twice.

    Args:
        events: of ``train`` or ``run``.
        loggers: the logs, opened with the first row.
        folder: run folder, or for ``train`` any folder that exists; it gets the file logs.json.
        settings: configuration of the run, as ``fishr.configuration.unstructure`` returns it; a constant learning rate
            is read from it.
        pictures: paths of PNG pictures by name, which the logs get at the end.

    Example:
        >>> import attrs, tempfile
        >>> from contextlib import contextmanager
        >>> from fishr.configuration import unstructure
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import train
        >>> @contextmanager
        ... def printed(folder, key, settings):
        ...     yield lambda rows: [print(row.step, *list(row.values)[:3]) for row in rows]
        >>> experiment = attrs.evolve(colored_digits(), steps=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for event in with_logs(train(experiment), [printed], Path(folder), unstructure(experiment)):
        ...         pass
        0 loss risk l2
        1 accuracy/training/flip 0.2 mean_loss/training/flip 0.2 accuracy/training/flip 0.1
    """
    # A run that was finished before yields only its end, and a log may lack what was computed before a kill.
    rows = _Rows(settings)
    logs = [_Log(logger, folder, settings) for logger in loggers]
    names, due = list[str](), 0.0

    def write() -> None:
        for log in logs:
            log.write(rows.made)
        rows.made.clear()

    with ExitStack() as stack:
        for log in logs:
            stack.push(log.close)
        stack.callback(write)
        stack.callback(getattr(events, "close", write))
        for event in events:
            if isinstance(event, Started) or not names:
                rows.read(folder / METRICS)
            if isinstance(event, Started):
                names = [domain.name for domain in event.domains.training]
            elif isinstance(event, Stepped):
                rows.add(step_entry(event.record, names))
            elif isinstance(event, Evaluated):
                rows.add({"scores": score_entries(event.scores)})
            else:
                rows.end(event.state.step, pictures())
            if time.monotonic() >= due:
                write()
                due = time.monotonic() + _EVERY
            yield event


class _Rows:
    """Makes rows of the entries of metrics.jsonl; the scores of an evaluation go with the step that follows."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.made = list[Row]()
        lr = settings.get("optimizer", {}).get("lr")
        self._lr, self._scores = {} if lr is None else {"model": lr}, dict[str, float]()

    def read(self, metrics: Path) -> None:
        """Make the rows of a file that is there."""
        for line in metrics.read_text().splitlines() if metrics.exists() else ():
            self.add(json.loads(line))

    def add(self, entry: Mapping[str, Any]) -> None:
        if "scores" in entry:
            for score in map(score_of, entry["scores"]):
                self._scores[f"accuracy/{score.split}/{score.title}"] = score.accuracy
                self._scores[f"mean_loss/{score.split}/{score.title}"] = score.loss
            return
        self._lr |= entry.get("lr", {})
        values = {name: entry[name] for name in ("loss", "risk", "l2")}
        values |= {f"batch_loss/{name}": loss for name, loss in entry["domain_losses"].items()}
        for name, term in entry["terms"].items():
            weighted = {f"terms/{name}": term["value"], f"weights/{name}": term["weight"]}
            values |= weighted | ({f"raw/{name}": term["value"] / term["weight"]} if term["weight"] else {})
        values |= {f"lr/{layer}": rate for layer, rate in self._lr.items()}
        self.end(entry["step"], values)

    def end(self, step: int, values: Mapping[str, float | Path]) -> None:
        """Make a row of values and of the scores that wait."""
        every = {**values, **self._scores}
        finite: dict[str, float | Path] = {
            name: value for name, value in every.items() if isinstance(value, Path) or isfinite(value)
        }
        self.made.append(Row(step, time.time(), finite))
        self._scores = {}


class _Log:
    """A log, which its first row opens and a failure closes."""

    def __init__(self, logger: Logger, folder: Path, settings: Mapping[str, Any]) -> None:
        named: Any = logger if inspect.isfunction(logger) else type(logger)
        self._name, self._path = f"{named.__module__}:{named.__qualname__}", folder / LOGS
        self._logger, self._settings, self._stack = logger, settings, ExitStack()
        self._write: Callable[[list[Row]], object] | None = None
        self._failed = False

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows that the log lacks."""
        if self._failed or not rows:
            return
        with self._guarded():
            memory = json.loads(self._path.read_bytes()) if present(self._path) else {}
            known = memory.get(self._name, {"key": uuid.uuid4().hex[:12], "step": -1})
            lacking = [row for row in rows if row.step > known["step"]]
            if not lacking:
                return
            if self._write is None:
                opened = self._logger(self._path.parent, known["key"], self._settings)
                self._write = self._stack.enter_context(opened)
            # Before they are written: a log that is killed meanwhile lacks them rather than having them twice.
            memory[self._name] = known | {"step": lacking[-1].step}
            write_atomically(self._path, (json_text(memory) + "\n").encode())
            self._write(lacking)

    def close(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the log, which gets to know what ended the run."""
        with self._guarded():
            self._stack.__exit__(kind, error, trace)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            with suppress(Exception):
                self._stack.close()
            reason = one_line(f"{type(error).__name__}: {error}")
            name = self._name.partition(":")[2]
            warnings.warn(f"{name}: the log failed and is closed, the run goes on ({reason})", stacklevel=2)
