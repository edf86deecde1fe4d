"""The documentation: generated pages are complete, links have targets, and blocks of Python run as they are."""

import re
import shlex
import tomllib
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pytest

from docs import generate
from docs.generate import interfaces
from docs.generate.meanings import meanings
from fishr.commands import cli

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate.pages()


def test_every_command_and_option_is_on_a_page(pages: dict[str, str]) -> None:
    def check(command: click.Command, path: str) -> None:
        section = re.search(rf"^## {path}\n(.*?)(?=^## |\Z)", pages["commands"], re.MULTILINE | re.DOTALL)
        assert section, path
        for one in command.params:
            assert one.opts[0] in section[1] or one.make_metavar(click.Context(command)) in section[1], (path, one.name)
        for name, inner in getattr(command, "commands", {}).items():
            check(inner, f"{path} {name}")

    check(cli, "fishr")


def test_every_key_has_a_meaning_on_a_page(pages: dict[str, str]) -> None:
    from fishr.configuration.declared_types import settings
    from fishr.configuration.families import FAMILIES
    from fishr.sweeps.plan import Plan
    from fishr.training import Experiment

    text = "\n".join(pages[name] for name in ("experiment", "kinds", "plan"))
    sections = dict(re.findall(r"^##+ (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    for cls in {Experiment, Plan, *(cls for family in FAMILIES for cls in family.kinds.values())}:
        for key in settings(cls):
            assert f"| `{key}` |" in sections[cls.__name__] or "| *any names* |" in sections[cls.__name__], cls.__name__
    # Also of the tables within these.
    assert not re.findall(r"^\| `\w+` \|  \|.*", text, re.MULTILINE), (
        "write it under Args, or as a comment at the field"
    )
    assert meanings(Experiment)["steps"] == "Number of updates."
    assert meanings(Plan)["trials"] == "Splits of each data set, each with its own seed"


def test_every_public_name_is_on_a_page(pages: dict[str, str]) -> None:
    packages = interfaces.packages()
    assert len(packages) > 20
    for package in packages:
        for name in import_module(package).__all__:
            place = interfaces.home(package, name)
            members = re.search(r":members: (.*)", pages[f"api/{place}"])
            # autodoc leaves constants and aliases out.
            documented = getattr(getattr(import_module(package), name), "__module__", "").startswith("fishr")
            entry = (
                members and name in members[1].split(", ")
                if documented
                else f".. py:data:: {name}\n" in pages[f"api/{place}"]
            )
            assert place.endswith(f".{name}") or entry, (package, name)
            assert place == package or f"| [`{name}`](" in pages[f"api/{package}"], (package, name)


def test_every_method_has_an_entry() -> None:
    from fishr.methods.every_method import METHODS

    headings = re.findall(r"^### (.*)$", WRITTEN[ROOT / "docs" / "methods.md"], re.MULTILINE)
    assert {name for heading in headings for name in heading.split(", ")} == set(METHODS)


def test_every_link_has_a_target(pages: dict[str, str]) -> None:
    texts = WRITTEN | {ROOT / "docs" / "reference" / f"{name}.md": text for name, text in pages.items()}
    for path, text in texts.items():
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", prose):
            found = (path.parent / target).resolve() if target else path
            assert found in texts or found.exists(), (path, target)
            if anchor.startswith("fishr."):
                package, _, name = anchor.rpartition(".")
                assert re.search(rf":members:.* {name}(?!\w)", pages[f"api/{package}"]), (path, anchor)
            elif anchor:
                titles = re.findall(r"^#+ (.*)$", texts[found], re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in slugs, (path, f"{target}#{anchor}")


@pytest.mark.parametrize("name", ["docs/three-ways.md", "docs/own-methods.md"])
def test_every_block_of_python_runs_after_the_ones_before(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = dict[str, Any]()
    for block in re.findall(r"```python\n(.*?)```", WRITTEN[ROOT / name], re.DOTALL):
        exec(block, names)
    if "batch" in names:
        assert names["state"].updates == names["step"] + 1 == 10
        assert names["seen"].domain_losses.shape == (2,)
        assert names["value"] > 0
    if "found" in names:
        assert names["gap"] > 0
        assert names["found"]["variance_distance"].value > 0
    assert ("numbers remembered" in capsys.readouterr().out) == ("explain(" in WRITTEN[ROOT / name])


def test_the_loop_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    import fishr

    domains = [TensorDataset(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(2)]
    featurizer, head = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)
    names: dict[str, Any] = {
        "fishr": fishr,
        "loaders": [DataLoader(domain, batch_size=4) for domain in domains],
        "featurizer": featurizer,
        "head": head,
        "optimizer": torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.1),
    }
    endless = fishr.batches
    monkeypatch.setattr(fishr, "batches", lambda loaders: islice(endless(loaders), 3))
    first = head.weight.detach().clone()
    exec(re.findall(r"```python\n(.*?)```", WRITTEN[ROOT / "README.md"], re.DOTALL)[0], names)
    assert names["state"].updates == 3
    assert not torch.equal(head.weight, first)


def test_the_class_of_the_page_on_own_methods_is_a_penalty() -> None:
    import torch

    import fishr

    names = dict[str, Any]()
    for block in re.findall(r"```python\n(.*?)```", WRITTEN[ROOT / "docs" / "own-methods.md"], re.DOTALL):
        exec(block, names)
    head, penalty = torch.nn.Linear(4, 2), names["MeanGradientGap"]()
    batch = fishr.DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
    state = penalty.init(fishr.Problem.of(head, domains=2))
    value, state = penalty(fishr.observe(torch.nn.Identity(), head, batch), state, 0)
    assert value > 0
    assert state.updates == 1


def test_every_command_shown_parses() -> None:
    """Each line is taken by the command that it calls, with its options, without running it."""
    blocks = [block for text in WRITTEN.values() for block in text.split("```")[1::2] if block.startswith("\n")]
    shown = re.findall(r"^(?:fishr|python cli.py|torchrun .*? cli.py) (.*)$", "".join(blocks), re.MULTILINE)
    assert len(shown) > 80
    # Those within lines and tables that have options.
    tables = "".join(WRITTEN[ROOT / "docs" / name] for name in ("from-domainbed.md", "faq.md"))
    shown += re.findall(r"`fishr (\w+ [^`…]* -[^`…]*)`", tables)
    for line in shown:
        words = shlex.split(re.split(r" +# | > ", line)[0])
        command, context = cli, click.Context(cli)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
            context = click.Context(command, parent=context)
        command.parse_args(context, words)


def test_every_table_of_toml_has_known_keys() -> None:
    """Blocks are parts of an experiment or of a plan, so that only what they contain is checked."""
    import jsonschema

    from fishr.configuration import schema
    from fishr.sweeps.plan import Plan
    from fishr.training import Experiment

    schemas = {cls.__name__: schema(cls) for cls in (Experiment, Plan)}
    for name, found in schemas.items():
        del found["$defs"][name]["required"]
    tables = [
        (path, tomllib.loads(block))
        for path, text in WRITTEN.items()
        for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    ]
    assert len(tables) > 20
    for path, table in tables:
        if "kind" not in table.get("data", {"kind": ""}):
            table["data"] = {"kind": "HeldOut", "test": [0]} | table["data"]
            table["data"]["source"] = {"kind": "ImageFolders", "folder": "PACS"} | table["data"]["source"]
        target = next(found for name, found in schemas.items() if set(table) <= set(found["$defs"][name]["properties"]))
        errors = jsonschema.Draft202012Validator(target).iter_errors(table)
        assert not [error.message for error in errors], path
