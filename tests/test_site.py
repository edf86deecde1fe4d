"""The documentation: generated pages are complete, links have targets, and blocks of Python run as they are."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from docs.generate import interfaces, pages
from docs.generate.meanings import meanings
from fishr.commands import cli
from fishr.configuration.declared_types import settings
from fishr.configuration.families import FAMILIES
from fishr.methods.every_method import METHODS
from fishr.sweeps.plan import Plan
from fishr.training import Experiment

ROOT = Path(__file__).resolve().parents[1]
PAGES = pages()
TEXTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXTS |= {ROOT / "docs" / "reference" / f"{name}.md": text for name, text in PAGES.items()}
KINDS = sorted(
    {cls for family in FAMILIES for cls in family.kinds.values()} | {Experiment, Plan}, key=lambda c: c.__name__
)


def test_every_command_and_option_is_on_a_page() -> None:
    def check(command: click.Command, path: str) -> None:
        section = re.search(rf"^## {path}\n(.*?)(?=^## |\Z)", PAGES["commands"], re.MULTILINE | re.DOTALL)
        assert section, path
        for one in command.params:
            assert one.opts[0] in section[1] or one.make_metavar(click.Context(command)) in section[1], (path, one.name)
        for name, inner in getattr(command, "commands", {}).items():
            check(inner, f"{path} {name}")

    check(cli, "fishr")


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_every_key_has_a_meaning_on_a_page(cls: Any) -> None:
    section = "".join(
        re.findall(rf"^##+ {cls.__name__}\n(.*?)(?=^##|\Z)", "\n".join(PAGES.values()), re.MULTILINE | re.DOTALL)
    )
    for key in settings(cls):
        row = re.search(rf"^\| `{key}` \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
        assert row or "*any name*" in section, (
            f"{cls.__name__}.{key} has no meaning: write it under Args, or as a comment"
        )


@pytest.mark.parametrize("page", ["experiment", "kinds", "plan"])
def test_no_table_has_a_key_without_a_meaning(page: str) -> None:
    assert not re.findall(r"^\| `\w+` \|  \|.*", PAGES[page], re.MULTILINE)


def test_every_method_has_an_entry() -> None:
    headings = re.findall(r"^### (.*)$", TEXTS[ROOT / "docs" / "methods.md"], re.MULTILINE)
    assert {name for heading in headings for name in heading.split(", ")} == set(METHODS)


def test_meanings_come_from_the_docstring_and_from_comments() -> None:
    assert meanings(Experiment)["steps"] == "Number of updates."
    assert meanings(Plan)["trials"] == "Splits of each data set, each with its own seed"


@pytest.mark.parametrize("package", interfaces.packages())
def test_every_public_name_is_on_a_page(package: str) -> None:
    for name in import_module(package).__all__:
        place = interfaces.home(package, name)
        page = PAGES[f"api/{place}"]
        members = re.search(r":members: (.*)", page)
        assert place.endswith(f".{name}") or (members and name in members[1].split(", ")), name
        assert place == package or f"| [`{name}`](" in PAGES[f"api/{package}"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(path: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", TEXTS[path], flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", prose):
        found = (path.parent / target).resolve() if target else path
        assert found in TEXTS or found.exists(), target
        if anchor.startswith("fishr."):
            package, _, name = anchor.rpartition(".")
            assert re.search(rf":members:.* {name}(?!\w)", PAGES[f"api/{package}"]), anchor
        elif anchor:
            titles = re.findall(r"^#+ (.*)$", TEXTS[found], re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("name", ["README.md", "docs/three-ways.md", "docs/own-methods.md"])
def test_every_block_of_python_runs_after_the_ones_before(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = dict[str, Any]()
    for block in re.findall(r"```python\n(.*?)```", TEXTS[ROOT / name], re.DOTALL):
        exec(block, names)
    if "batch" in names:
        assert names["state"].updates == names["step"] + 1 == 10
        assert names["seen"].domain_losses.shape == (2,)
        assert names["value"] > 0
    if "found" in names:
        assert names["gap"] > 0
        assert names["found"]["variance_distance"].value > 0
    assert ("numbers remembered" in capsys.readouterr().out) == ("explain(" in TEXTS[ROOT / name])


@pytest.mark.parametrize(
    "name", ["README.md", "docs/start.md", "docs/three-ways.md", "docs/gpus.md", "docs/clusters.md"]
)
def test_every_command_shown_exists(name: str) -> None:
    shown = re.findall(r"^(?:fishr|python cli.py|torchrun .*? cli.py) (\w+(?: \w+)?)", TEXTS[ROOT / name], re.MULTILINE)
    assert len(shown) >= 3
    for words in shown:
        command: click.Command = cli
        for word in words.split():
            if isinstance(command, click.Group):
                assert word in command.commands, words
                command = command.commands[word]
