"""Progress of long work on stderr: bars with rate and time left."""

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fishr.errors import RunFailed

if TYPE_CHECKING:
    from tqdm import tqdm

    from fishr.data.sources.downloading import Progress

# Seconds until a bar appears, and between lines where there is no terminal.
_DELAY, _LINE = 2.0, 10.0
_FORMAT = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines:
    """A file that makes lines of what tqdm draws over and over."""

    def write(self, text: str) -> None:
        if line := text.strip():
            click.echo(line, err=True)

    def flush(self) -> None:
        """Do nothing: each line is written at once."""


def bar_class() -> "type[tqdm[Any]]":
    """Return tqdm with the settings of all commands: on a terminal a bar after two seconds, else lines every ten."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        shown: dict[str, Any] = {"delay": _DELAY}
    else:
        shown = {"delay": _LINE, "mininterval": _LINE, "file": _Lines(), "bar_format": _FORMAT, "leave": False}

    class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument] (tqdm has none at run time)
        # No thread that draws between updates.
        monitor_interval = 0
        # A lock of threads: for tqdm's own, Python 3.14 starts a process that imports from the working directory.
        _lock = threading.RLock()

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | shown | {"miniters": 0})

    return Bar


@contextmanager
def progress_bar(interrupted: str, **options: Any) -> "Generator[tqdm[Any]]":
    """Show progress with rate and time left on stderr; an interruption raises a message."""
    try:
        with bar_class()(**options) as bar:
            yield bar
    except KeyboardInterrupt:
        raise RunFailed(interrupted) from None


def note(bar: "tqdm[Any]", text: str) -> None:
    """Print lines above a bar."""
    bar.clear()
    click.echo(text, err=True)


@contextmanager
def steps_shown(interrupted: str, total: int, unit: str = "quantity") -> "Generator[Callable[[str], None]]":
    """Give a function that is called with the name of the step at work, ``total`` names in turn, once or many times."""
    current, done = "", -1
    with progress_bar(interrupted, total=total, unit=unit) as bar:

        def show(name: str) -> None:
            nonlocal current, done
            if name != current:
                current, done = name, done + 1
                bar.set_description_str(name, refresh=False)
            bar.update(min(done, total) - bar.n)

        yield show


@contextmanager
def parts_bar(unit: str, interrupted: str, *, many: bool = False) -> "Generator[Progress]":
    """Show a bar for each part of the work in turn: a function of its name, what is done of it, and all."""
    current = ""
    with progress_bar(interrupted, unit=unit, unit_scale=many) as bar:

        def update(what: str, done: int, total: int | None) -> None:
            nonlocal current
            if what != current:
                current = what
                bar.set_description_str(what, refresh=False)
                # Rate and time left are those of this file, while the time until the bar appears has passed.
                now = time.time()
                bar.delay -= now - bar.start_t
                bar.start_t, bar.n, bar.last_print_n = now, 0, 0
            bar.total = total
            bar.update(done - bar.n)

        yield update
