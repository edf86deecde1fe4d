"""The page of all commands, from the groups and options of click."""

import re
from collections.abc import Iterator

import click

from fishr.commands import cli

_HEAD = """# Commands

Every command and option. `fishr COMMAND --help` prints the same. `python cli.py` in a clone runs the same commands.
A command ends with one line on standard error and exit code 2 if its input cannot be used, and exit code 1 if it fails.
"""


BAR = "\\|"


def page() -> str:
    """Return a section for each command."""
    return _HEAD + "".join(_section(context) for context in _contexts(click.Context(cli, info_name="fishr")))


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _contexts(click.Context(command, info_name=name, parent=context))


def _section(context: click.Context) -> str:
    command = context.command
    # Groups print their usage with a word for the command that they lack.
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    said = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context)) and record[1]]
    rows = "".join(f"| `{option.replace('|', BAR)}` | {_cell(text)} |\n" for option, text in records)
    example = (command.epilog or "").removeprefix("Example: ")
    return (
        f"\n## {context.command_path}\n\n```\n{usage}\n```\n\n"
        + "".join(f"{_cell(part)}\n\n" for part in said)
        + (f"| option | meaning |\n|---|---|\n{rows}\n" if rows else "")
        + (f"Example:\n\n```\n{example}\n```\n" if example else "")
    )


def _cell(text: str) -> str:
    """Return a text of click as Markdown, its options as code."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        escaped = re.sub(r"[\\*_<|\[]", r"\\\g<0>", parts[index])
        parts[index] = re.sub(r"(?<!\w)--[a-z][\w-]*", r"`\g<0>`", escaped)
    return "`".join(parts)
