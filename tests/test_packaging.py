"""The distribution's name, and what messages and pages tell people to install."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import fishr

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [
    path
    for pattern in ("fishr/**/*.py", "tests/**/*.py", "examples/*", "benchmarks/*.py", "docs/*.md", "*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
]


def test_nobody_is_told_to_install_a_package_called_fishr() -> None:
    """On the package index that name is a stranger's."""
    told = re.compile(r"pip install ['\"]?fishr\b(?!-torch)|['`]fishr\[[a-z]")
    for path in FILES:
        found = [line for line in path.read_text().splitlines() if told.search(line)]
        assert not found, (path, found)
    assert PROJECT["name"] == "fishr-torch"


def test_every_extra_that_is_named_exists() -> None:
    extras = PROJECT["optional-dependencies"]
    naming = re.compile(r"(?:-e '\.\[|from_extra\(\")([a-z]+)")
    named = {(path, name) for path in FILES for name in naming.findall(path.read_text())}
    assert {name for _, name in named} == set(extras)
    for path, name in named:
        assert name in extras, path
    whole = [entry for entry in extras["test"] if entry.startswith("fishr")]
    assert whole == ["fishr-torch[download,hf,mlflow,parquet,ray,report,slurm,tensorboard,timm,wandb]"]


def test_the_version_has_one_source() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", fishr.__version__)
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == fishr.__version__


@pytest.mark.parametrize("stub", sorted((ROOT / "fishr").rglob("__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_every_exported_name_can_be_read(stub: Path) -> None:
    package = import_module(".".join(stub.parent.relative_to(ROOT).parts))
    assert package.__all__
    for name in package.__all__:
        getattr(package, name)
