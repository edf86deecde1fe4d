"""Kinds `module:Name`: a person's own code runs only when they named its module."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from attrs import frozen

from fishr.configuration.families import Family
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.structure import structure
from fishr.configuration.unstructure import unstructure

MODULE = "a_module_of_mine"


class Cost(Protocol):
    def init(self, problem: object) -> object: ...

    def __call__(self, seen: object, state: object, step: int) -> object: ...


@frozen
class Known:
    ema: float = 0.0

    def init(self, problem: object) -> object:
        return ()

    def __call__(self, seen: object, state: object, step: int) -> object:
        return 0.0


@frozen
class Wrapped:
    function: Callable[[object], object]


@frozen
class Run:
    cost: Cost


FAMILIES = (Family(Cost, (__name__,), wrapper="Wrapped", arguments=("seen",)),)

SOURCE = """
import os
import pathlib
from attrs import define, field, frozen
pathlib.Path("imported").touch()

class Penalty:
    def init(self, problem): return ()
    def __call__(self, seen, state, step): return 0.0, state

@frozen
class Mine(Penalty):
    power: int = field(default=2)

    @power.validator
    def _check(self, attribute, value):
        if value > 9:
            raise RuntimeError("too strong\\nby far")

    @frozen
    class Inner(Penalty):
        pass

def mine(seen):
    return 0.0

@define
class Thawed(Penalty):
    power: int = 2

class Heir(Mine):
    pass

@frozen
class Mute:
    def init(self, problem): return ()

@frozen
class Unresolved(Penalty):
    power: "NoSuchType" = 2

anonymous = lambda seen: 0.0
renamed = mine
instance = Mine()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in (MODULE, "broken", "quits")]:
        del sys.modules[name]


def read(kind: str, plugins: tuple[str, ...] = (MODULE,), **settings: object) -> Any:
    return structure({"cost": {"kind": kind, **settings}}, Run, plugins, FAMILIES).cost


def message(kind: str, plugins: tuple[str, ...] = (MODULE,), **settings: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(kind, plugins, **settings)
    (problem,) = caught.value.problems
    assert len(str(problem).splitlines()) == 1
    return str(problem)


def test_a_file_alone_never_runs_code(folder: Path):
    told = message(f"{MODULE}:Mine", plugins=())
    assert told.startswith(f'cost.kind: "{MODULE}:Mine" needs code')
    assert "a file alone never runs code" in told
    assert f"pass --plugin {MODULE}" in told
    assert not (folder / "imported").exists()
    assert MODULE not in sys.modules


def test_naming_another_module_does_not_help(folder: Path):
    told = message(f"{MODULE}:Mine", plugins=("a_module_of_mine.py", "other"))
    assert told.endswith(f"pass --plugin {MODULE} (got --plugin a_module_of_mine.py, other)")
    assert "--plugin os.path" in message("os.path:join", plugins=("os",))
    assert not (folder / "imported").exists()


def test_a_named_class_is_built_from_its_table(folder: Path):
    mine = read(f"{MODULE}:Mine", power=3)
    assert mine == sys.modules[MODULE].Mine(power=3)
    assert (folder / "imported").exists()


def test_a_plain_function_is_wrapped():
    assert read(f"{MODULE}:mine") == Wrapped(sys.modules[MODULE].mine)


def test_the_working_directory_is_importable_only_meanwhile(folder: Path):
    before = list(sys.path)
    assert str(folder) not in before
    read(f"{MODULE}:Mine")
    assert sys.path == before
    message("no_such_module_here:Mine", plugins=("no_such_module_here",))
    assert sys.path == before


def test_a_working_directory_that_was_importable_stays_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(folder))
    before = list(sys.path)
    read(f"{MODULE}:Mine")
    assert sys.path == before


@pytest.mark.parametrize("file", ["colorsys.py", "colorsys/__init__.py"])
def test_an_installed_module_is_found_first(folder: Path, file: str):
    """A module of the working directory must not stand in for one that others import."""
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(SOURCE)
    told = message("colorsys:Mine", ("colorsys",))
    assert re.search(
        r"has no Mine; an installed module has that name \(.*colorsys.py\) and hides yours, so rename", told
    )
    told = message("colorsys.deep:Mine", ("colorsys.deep",))
    assert re.search(r"could not be imported: .*; an installed module has that name", told)
    assert not (folder / "imported").exists()


@pytest.mark.parametrize("name", ["Mine", "mine", "Mine.Inner"])
def test_what_a_plugin_defines_is_written_by_module_and_name(name: str):
    run = Run(read(f"{MODULE}:{name}"))
    table = unstructure(run, FAMILIES)
    assert table["cost"]["kind"] == f"{MODULE}:{name}"
    assert structure(table, Run, (MODULE,), FAMILIES) == run


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("Min", f'the module {MODULE} has no Min; did you mean "Mine"?'),
        ("Mine.Other", f"the module {MODULE} has no Mine.Other"),
        (
            "os",
            "is no Cost: expected a frozen attrs class with init(problem) and __call__(seen, state, step), or a plain",
        ),
        ("instance", "is no Cost: expected a frozen attrs class"),
        ("Penalty", "is no Cost: expected a frozen attrs class"),
        ("Thawed", "is no Cost: expected a frozen attrs class"),
        ("Heir", "is no Cost: expected a frozen attrs class"),
        ("Mute", "is no Cost, it lacks __call__"),
        ("renamed", f'name it where it is defined, kind = "{MODULE}:mine"'),
        ("anonymous", "is defined elsewhere"),
        ("os.path.join", 'name it where it is defined, kind = "posixpath:join"'),
        ("", 'expected "module:Name"'),
        ("a b", 'expected "module:Name"'),
    ],
)
def test_a_name_that_is_no_penalty_is_refused(name: str, fragment: str):
    told = message(f"{MODULE}:{name}")
    assert told.startswith("cost.kind: ")
    assert fragment in told


@pytest.mark.parametrize("kind", [":Mine", ".relative:Mine", "a:b:c", "a b:Mine"])
def test_a_kind_that_names_no_module_is_refused(kind: str):
    assert 'expected "module:Name"' in message(kind)


def test_a_module_that_cannot_be_imported_is_one_line(folder: Path):
    (folder / "broken.py").write_text("raise RuntimeError('first\\nsecond')")
    (folder / "quits.py").write_text("import sys; sys.exit(3)")
    assert message("absent_module:f", ("absent_module",)).endswith(
        "the plugin absent_module could not be imported: ModuleNotFoundError: No module named 'absent_module'"
    )
    assert message("broken:f", ("broken",)).endswith("could not be imported: RuntimeError: first second")
    assert message("quits:f", ("quits",)).endswith("could not be imported: SystemExit: 3")


def test_the_settings_of_a_plugin_are_read_strictly():
    assert message(f"{MODULE}:Mine", power="3") == 'cost.power: got "3" (a string), expected a whole number'
    assert message(f"{MODULE}:Mine", powr=3) == 'cost.powr: unknown key; did you mean "power"?'
    assert message(f"{MODULE}:Mine", power=10) == "cost.power: too strong by far"
    assert message(f"{MODULE}:mine", power=3) == "cost.power: unknown key, the function mine takes none"


def test_a_type_that_means_nothing_is_one_line():
    told = message(f"{MODULE}:Unresolved")
    assert told == "cost: a type of a field of Unresolved cannot be resolved: name 'NoSuchType' is not defined"


def test_what_cannot_be_imported_by_name_is_not_written():
    @frozen
    class Local:
        def init(self, problem: object) -> object:
            return ()

        def __call__(self, seen: object, state: object, step: int) -> object:
            return 0.0, state

    told = "cannot be imported by name; define it at the top of a module of its own"
    for cost in (Wrapped(lambda seen: 0.0), Local()):
        with pytest.raises(ConfigurationError, match=told):
            unstructure(Run(cost), FAMILIES)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is no plain function"):
        unstructure(Run(Wrapped(Known())), FAMILIES)  # type: ignore[arg-type]


def test_what_is_defined_in_a_script_is_not_written(monkeypatch: pytest.MonkeyPatch):
    def scripted(seen: object) -> object:
        return seen

    scripted.__module__, scripted.__qualname__ = "__main__", "scripted"
    monkeypatch.setattr(sys.modules["__main__"], "scripted", scripted, raising=False)
    with pytest.raises(ConfigurationError, match="scripted cannot be imported by name"):
        unstructure(Run(Wrapped(scripted)), FAMILIES)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Thawed", "Mute"])
def test_a_foreign_object_that_would_not_be_read_is_not_written(name: str):
    read(f"{MODULE}:Mine")
    foreign = getattr(sys.modules[MODULE], name)()
    with pytest.raises(ConfigurationError, match="is no Cost"):
        unstructure(Run(foreign), FAMILIES)
