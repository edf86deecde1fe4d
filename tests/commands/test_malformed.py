"""Malformed inputs over all commands: each is one line on stderr and exit code 2, never an internal error."""

import json
import re
import shutil
import time
from pathlib import Path

import click
import pytest

from fishr.commands import cli as group
from fishr.configuration import unstructure
from fishr.protocols import recipes
from fishr.sweeps.plan import Plan

# What a message would have of an exception that nobody foresaw.
INTERNAL = re.compile(r"\b((?!SquaredError)\w+Error(?!:)|Errno|FISHR_TRACEBACK|Traceback|internal)\b")
# Values that fit no setting but free text.
NEVER = ("1979-05-27", "nan", "-inf", "{a = 1}", "[[[]]]")
GARBAGE = {
    "empty": b"",
    "zeros": bytes(100),
    "bytes": bytes(range(256)),
    "latin": "caf\xe9".encode("latin-1"),
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "number": b"9" * 10_000,
    "nan": b"NaN",
    "null": b"null",
    "nul": b'{"a": "\\u0000"}',
    "surrogate": b'{"a": "\\ud800"}',
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "zip": b"PK\x03\x04" + bytes(50),
}
PLAN = 'datasets = ["PACS"]\nalgorithms = ["ERM"]\nsettings.steps = 1\n'


@pytest.fixture
def refuses(call):
    """Hold commands to the form of a refusal; each that is not one is listed."""

    def check(inputs):
        wrong = {}
        for arguments in inputs:
            said = call(*arguments)
            line = re.fullmatch(r"Error: [^\n]+\n", said.err)
            if said.code != 2 or said.out or not line or INTERNAL.search(said.err):
                wrong[" ".join(repr(str(argument))[:80] for argument in arguments)] = (said.code, said.err[-300:])
        assert wrong == {}
        return len(inputs)

    return check


def _leaves(table, path=""):
    for key, value in table.items():
        yield from _leaves(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]


def _bad_values(value):
    if isinstance(value, str):
        # Whatever is no TOML value is text, which a setting of free text takes.
        return ("1979-05-27", "true", "{a = 1}", "[[[]]]", '"\\u0000"', "\udcff")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (*NEVER, *(("1e400",) if number else ()), "text", "true" if number else "3")


@pytest.mark.slow
def test_settings_of_a_run(refuses):
    keys = list(_leaves(unstructure(recipes()["colored-digits"]())))
    settings = [f"{key}={bad}" for key, value in keys for bad in _bad_values(value)]
    assert refuses([("config", "validate", "colored-digits", "--set", setting) for setting in settings]) > 200


def test_settings_of_a_plan(refuses, home):
    Path("plan.toml").write_text(PLAN)
    keys = [key for key, _ in _leaves(unstructure(Plan(("PACS",), ("ERM",)))) if key != "settings.weights"]
    bad = ("1979-05-27", "{a = 1}", "[[[]]]", "-9e99", str(2**70))
    assert refuses([("sweep", "plan", "plan.toml", "--no-calibration", "--set", f"{k}={b}") for k in keys for b in bad])


@pytest.fixture
def world(home, call, finished, animals):
    """Something of every kind that commands read."""
    finished.rename("run")
    assert call("cache", "features", "run", "-o", "f.h5").code == 0
    Path("plan.toml").write_text(PLAN)
    Path("sweep", "jobs").mkdir(parents=True)
    shutil.copy("plan.toml", "sweep")
    return home


REQUIRED = {
    "evaluate": ("run",),
    "analyze": ("run",),
    "landscape": ("run",),
    "reproduce": ("colored-digits",),
    "cache images": ("data/animals", "-o", "new.h5"),
    "cache features": ("run", "-o", "new.h5"),
    "cache gradients": ("f.h5", "-o", "new.h5"),
    "cache info": ("f.h5",),
    "cache verify": ("f.h5",),
    "cache merge": ("f.h5", "f.h5", "-o", "new.h5"),
    "config validate": ("run/config.toml",),
    "data info": ("PACS",),
    "data download": ("PACS",),
    "data verify": ("data/animals",),
    "bench data": ("data/animals",),
    "sweep plan": ("plan.toml",),
    "sweep run": ("plan.toml", "--out", "new"),
    "sweep resume": ("sweep",),
    "sweep status": ("sweep",),
    "sweep collect": ("sweep",),
    "sweep features": ("plan.toml", "-o", "new.h5"),
}


def _commands(command, path=()):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))
    else:
        yield path, command


def _bad_texts(option):
    if isinstance(option.type, click.IntRange):
        return ("", "x", "-1", "1.5", "nan", "9" * 30)
    if isinstance(option.type, click.types.FloatParamType):
        return ("", "x")
    if isinstance(option.type, click.Choice) or option.type.name == "module":
        return ("", "x y", "\0", "\ud800")
    return ("", "\0", "\ud800") if option.type.name == "path" else ()


@pytest.mark.slow
def test_options_of_all_commands(refuses, world):
    """The value of each option in turn, an option without a value, an unknown one, and a word too many."""
    inputs = []
    for path, command in _commands(group):
        base = (*path, *REQUIRED.get(" ".join(path), ()))
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                inputs += [(*base, option.opts[-1], text) for text in _bad_texts(option)]
                inputs.append((*base, option.opts[-1]))
        inputs.append((*base, "--nonsense"))
        for index, word in enumerate(REQUIRED.get(" ".join(path), ())):
            if not word.startswith("-"):
                before, after = base[: len(path) + index], base[len(path) + index + 1 :]
                inputs += [(*before, text, *after) for text in ("", "\0", "\ud800", "none/such", "x" * 5000)]
    # These options are read with the run, not before.
    texts = {"--record-statistics": "every=x", "--device": "tpu", "--set": "no value", "--on-features": "none.h5"}
    inputs += [("train", option, text, "--out", "new") for option, text in texts.items()]
    for text in ("", "\0", "\ud800", "none/such", "none.npz", "x" * 5000):
        inputs += [("evaluate", "run", option, text) for option in ("--on", "--columns")]
    inputs += [("landscape", "run", "--grid", text) for text in ("0", "x", "3x", "-1", "9x9x9", "")]
    inputs += [("landscape", "run", option, "none") for option in ("--domains", "--of")]
    inputs += [("landscape", "run", "--epsilon", text) for text in ("nan", "-1", "inf")]
    inputs += [("sweep", "resume", "sweep", "--part", text) for text in ("", "1", "2/2", "a/b", "-1/2", "0/0")]
    inputs += [
        ("sweep", "run", "plan.toml", "--out", "new", "--slurm", text, "--array", "2") for text in ("x", "=", "")
    ]
    inputs += [("reproduce", "colored-digits", "--methods", text) for text in ("", ",", "erm,,irm", "\0")]
    assert refuses(inputs) > 300


def _garbage(name):
    """Every command that reads a file, on one that holds something else."""
    return [
        ("config", "validate", f"{name}.toml"),
        ("explain", f"{name}.toml"),
        ("sweep", "plan", f"{name}.toml"),
        ("sweep", "features", f"{name}.toml", "-o", "new.h5"),
        ("cache", "info", f"{name}.h5"),
        ("cache", "verify", f"{name}.h5"),
        ("cache", "merge", f"{name}.h5", f"{name}.h5", "-o", "new.h5"),
        ("cache", "gradients", f"{name}.h5", "-o", "new.h5"),
        ("analyze", f"{name}.h5"),
        ("landscape", f"{name}.h5", "--grid", "3"),
        ("train", "--on-features", f"{name}.h5", "--out", "new"),
        ("data", "verify", f"./{name}.csv"),
        ("data", "verify", f"./{name}.json"),
        ("data", "verify", f"./{name}.jsonl"),
        ("data", "download", "PACS", "--data-dir", "new", "--archive", f"{name}.zip"),
        *(("evaluate", "run", "--on", f"./{name}.{extension}") for extension in ("h5", "npz", "csv", "json")),
        ("evaluate", f"{name}-config"),
        ("train", "--resume", f"{name}-config"),
        ("evaluate", f"{name}-checkpoint"),
        ("train", "--resume", f"{name}-checkpoint"),
        ("train", "--resume", f"{name}-result"),
        ("sweep", "status", f"{name}-sweep"),
        ("sweep", "collect", f"{name}-sweep"),
        ("report", f"{name}.h5"),
        ("report", f"{name}-checkpoint"),
        *(("report", f"{name}-{part}", "--no-data") for part in ("config", "result", "sweep")),
        # A run that has just begun has no metrics.
        *([] if name == "empty" else [("report", f"{name}-metrics", "--no-data")]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", GARBAGE)
def test_files_that_hold_something_else(refuses, world, name):
    content = GARBAGE[name]
    for extension in ("toml", "h5", "npz", "csv", "json", "jsonl", "zip"):
        Path(f"{name}.{extension}").write_bytes(content)
    for file in ("config.toml", "checkpoint.pt", "result.json", "metrics.jsonl"):
        folder = Path(f"{name}-{file.split('.')[0]}")
        shutil.copytree("run", folder)
        (folder / file).write_bytes(content)
    shutil.copytree("sweep", f"{name}-sweep")
    Path(f"{name}-sweep", "plan.toml").write_bytes(content)
    refuses(_garbage(name))


@pytest.mark.slow
def test_tens_of_thousands_of_unknown_keys(call, home):
    """A line as short as that of some, in a time that grows with their number alone."""
    lengths = {}
    for count in (100, 60_000):
        Path("many.toml").write_text("".join(f"key_{index} = 1\n" for index in range(count)))
        began = time.process_time()
        said = call("config", "validate", "many.toml")
        seconds = time.process_time() - began
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert f"{count - 20:,} more unknown keys" in said.err
        lengths[count] = len(said.err)
    assert lengths[60_000] < lengths[100] + 20
    # Each key compared with every name took about 45 seconds.
    assert seconds < 20


@pytest.mark.slow
def test_tens_of_thousands_of_wrong_entries(call, home):
    Path("many.toml").write_text(f"datasets = {json.dumps([1] * 30_000)}\nalgorithms = ['ERM']\n")
    said = call("sweep", "plan", "many.toml", "--no-calibration")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "datasets[19]" in said.err
    assert "the entries after these are not listed" in said.err
    assert len(said.err) < 3000
