"""The protocol of loggers, and the rows that they write."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from fishr.extras import not_installed


@frozen
class Row:
    """The numbers of one step.

    Args:
        step: number of updates before it; each number belongs to the weights after so many updates.
        time: seconds since 1970.
        values: finite numbers by name, and the paths of PNG pictures. Names have parts between slashes, as in
            ``terms/fishr``.

    Example:
        >>> Row(step=3, time=1.8e9, values={"loss": 0.5}).values
        {'loss': 0.5}
    """

    step: int
    time: float
    values: dict[str, float | Path]


class Logger(Protocol):
    """A log of runs: called for a run, it returns a context manager of a function that writes rows.

    The context lasts as long as the run. The function is called every few seconds and at the end, with rows of
    ascending steps; a row is never written twice, also where a run is killed and resumed. Whatever it raises closes the
    log, not the run. A plain function of the same arguments is a logger too.

    Args:
        folder: run folder; the log may keep files in it.
        key: text of letters and digits that no other run has, the same where the run is resumed.
        settings: configuration of the run, as tables of plain values.

    Example:
        >>> from contextlib import contextmanager
        >>> @contextmanager
        ... def printed(folder, key, settings):
        ...     yield lambda rows: print(*rows, sep="\\n")
        >>> with printed(Path("run"), "", {}) as write:
        ...     write([Row(step=0, time=0.0, values={"loss": 0.5})])
        Row(step=0, time=0.0, values={'loss': 0.5})
    """

    def __call__(
        self, folder: Path, key: str, settings: Mapping[str, Any]
    ) -> AbstractContextManager[Callable[[list[Row]], object]]:
        """Open the log of a run."""
        ...


def flat(settings: Mapping[str, Any], below: str = "") -> dict[str, str | float]:
    """Return settings by dotted names: numbers, booleans and strings as they are, lists as text.

    Example:
        >>> flat({"steps": 7, "featurizer": {"kind": "MLP", "widths": [8, 8]}})
        {'steps': 7, 'featurizer.kind': 'MLP', 'featurizer.widths': '[8, 8]'}
    """
    found = dict[str, str | float]()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{below}{name}.")
        else:
            found[f"{below}{name}"] = value if isinstance(value, str | int | float) else str(value)
    return found


def require(package: str) -> None:
    """Refuse a log whose package is not installed."""
    if find_spec(package) is None:
        raise not_installed(package, package, "--log")
