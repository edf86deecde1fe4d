"""Help: at once, with examples whose options exist, and in step with what there is."""

import json
import re
import shlex
import subprocess
import sys

import click
import pytest

from fishr.commands import cli as group
from fishr.protocols import recipes


def _commands(command, path=()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


COMMANDS = {" ".join(path) or "fishr": (path, command) for path, command in _commands(group)}


def test_every_command_is_known_here():
    """What the README promises; a command that goes missing is noticed."""
    promised = {
        "train",
        "evaluate",
        "config show",
        "config validate",
        "config schema",
        "explain",
        "reproduce",
        "predict",
        "export",
        "average",
        "join",
        "report",
    }
    promised |= {
        "data list",
        "analyze",
        "landscape",
        "cache features",
        "cache gradients",
        "cache info",
        "cache verify",
        "cache merge",
    }
    promised |= {"bench data", "cache images", "data info", "data verify", "data download"}
    promised |= {f"sweep {name}" for name in ("plan", "features", "average", "run", "resume", "status", "collect")}
    assert promised | {"bench", "sweep", "config", "data", "cache", "fishr"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(call, name):
    path, _ = COMMANDS[name]
    said = call(*path, "--help")
    assert (said.code, said.err) == (0, "")
    text = " ".join(said.out.split())
    assert text.startswith(f"Usage: fishr {' '.join(path)}".strip())
    example = re.search(r"Example: fishr (.*)$", text)[1]
    words = shlex.split(example.split(" > ")[0])
    assert tuple(words[: len(path)]) == path
    # Walks down to the command that the example calls and lets it take the options, without running it.
    inner, context = group, None
    while isinstance(inner, click.Group):
        inner, word = inner.commands[words[0]], words.pop(0)
        context = click.Context(inner, info_name=word, parent=context)
    inner.parse_args(context, list(words))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name):
    _, command = COMMANDS[name]
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help, option.name
            assert len(option.help.split()) >= 1


def test_help_names_the_recipes(call):
    said = " ".join(call("train", "--help").out.split())
    *_, sentence = re.findall(r"RECIPE is .*? FILE is", said)
    stems, suffixes = re.findall(r"colored-[a-z]+(?![\w-])", sentence), re.findall(r" (-[a-z]+)[,. ]", sentence)
    assert re.findall(r"colored-[a-z]+-[a-z]+", sentence) == ["colored-digits-erm"]
    named = {stem + suffix for stem in stems for suffix in ("", "-erm", *suffixes)}
    assert named == set(recipes())


@pytest.mark.parametrize("arguments", [(), ("config",), ("data",)])
def test_without_a_command_there_is_help(call, arguments):
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: fishr")
    assert "Commands:\n" in said.err


def test_version(call):
    import fishr

    said = call("--version")
    assert (said.code, said.out, said.err) == (0, f"fishr, version {fishr.__version__}\n", "")


HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "attrs", "cattrs", "tqdm", "tabulate", "backpack")
PROBE = f"""
import sys, json
from fishr.commands import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print(json.dumps([code, [name for name in {HEAVY} if name in sys.modules]]), file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["fishr", "train", "reproduce", "data download"])
def test_help_imports_nothing_heavy(name, request):
    path, _ = COMMANDS[name]
    command = [sys.executable, "-c", PROBE, *path, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=request.config.rootpath, timeout=60)
    assert "Example: " in done.stdout
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]


def test_short_helps_are_whole_sentences(call):
    """The list of commands breaks off no sentence."""
    listed = call("--help").out.split("Commands:")[1].split("Example:")[0]
    assert "..." not in listed
