"""The command line: parse, configure, call, render. One file a command; heavy imports inside the bodies."""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from traceback import walk_tb

import click

from fishr import __version__
from fishr.commands.allocator import keep_freed_memory
from fishr.commands.analyze import analyze
from fishr.commands.average import average
from fishr.commands.bench import bench
from fishr.commands.cache import cache
from fishr.commands.config import config
from fishr.commands.data import data
from fishr.commands.evaluate import evaluate
from fishr.commands.explain import explain
from fishr.commands.export import export
from fishr.commands.join import join
from fishr.commands.landscape import landscape
from fishr.commands.predict import predict
from fishr.commands.report import report
from fishr.commands.reproduce import reproduce
from fishr.commands.sweep import sweep
from fishr.commands.train import train
from fishr.errors import InputError, RunFailed, one_line
from fishr.paths import access_message, is_device_failure


@click.group(
    commands=[
        train,
        evaluate,
        predict,
        export,
        average,
        join,
        analyze,
        landscape,
        report,
        reproduce,
        sweep,
        explain,
        cache,
        config,
        data,
        bench,
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="Example: fishr train colored-digits --seed 1",
)
@click.version_option(__version__)
def cli() -> None:
    """Train with gradient variances that match across domains (Fishr), and analyze the result."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0, 1 for a run that failed, 2 for input that cannot be used; errors on one line."""
    _open_streams()
    keep_freed_memory()
    warnings.showwarning = _show_warning
    # The name of a file need not be UTF-8: its bytes are printed as they are.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.exit(_exit_code(arguments))


def _open_streams() -> None:
    """Open the null device in place of standard streams that are closed."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # Otherwise the next file that is opened gets the number, and what libraries in C print.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        return cli.main(arguments, prog_name="fishr", standalone_mode=False) or 0
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except InputError as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 1)
    except BrokenPipeError:
        # The reader of the output has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if _is_of_output(error):
            return _fail(f"standard output: {access_message(error)}", 1)
        return _fail(access_message(error), 1 if is_device_failure(error) else 2)
    except Exception as error:
        if os.environ.get("FISHR_TRACEBACK"):
            raise
        return _fail(f"{type(error).__name__}: {error} (set FISHR_TRACEBACK=1 to see where)", 1)


def _show_warning(message: Warning | str, *_: object) -> None:
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)


def _is_of_output(error: OSError) -> bool:
    """Return whether an error comes from printing: it bears no name of a file."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in walk_tb(error.__traceback__))


def _fail(message: str, code: int) -> int:
    with suppress(OSError):
        click.echo(f"Error: {one_line(message)}", err=True)
    return code
