"""The rules of the house that no linter knows: names, docstrings, and which of them a package offers."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.house import REPEATING, docstring, exported, long_docstrings

ROOT = Path(__file__).resolve().parents[1]
TREES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "fishr").rglob("*.py"))}
FACES = [path for pattern in ("__init__.py", "__init__.pyi") for path in sorted((ROOT / "fishr").rglob(pattern))]
OFFERED = {name for path in FACES for name in exported(ast.parse(path.read_text()))}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_no_two_modules_have_the_same_name() -> None:
    found = defaultdict(list)
    for path in TREES:
        if path.stem != "__init__" and not set(REPEATING) & set(path.parts):
            found[path.stem].append(path.relative_to(ROOT))
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


def test_what_no_package_exports_has_a_docstring_of_one_line_at_most() -> None:
    found = long_docstrings(TREES, OFFERED)
    assert not {str(path.relative_to(ROOT)): names for path, names in found.items()}


@pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_package_exports_has_a_docstring(path: Path) -> None:
    nodes = [node for node in TREES[path].body if isinstance(node, Definition) and node.name in OFFERED]
    assert not [node.name for node in nodes if docstring(node) is None]
    summaries = [docstring(node).value.value.splitlines()[0] for node in nodes]
    assert not [line for line in summaries if not line.endswith((".", ":", "?"))]
    assert not [line for line in summaries if line.startswith(("What ", "Whether ", "How "))]
    if "commands" not in path.parts:
        refusing = [
            node.name
            for node in nodes
            if refuses(node) and not re.search("Raises:|refuse|as ``", ast.get_docstring(node))
        ]
        assert not refusing, "say in Raises what a validator or a raise refuses"


def refuses(node: Definition) -> bool:
    """Return whether a function, or the making or a call of a record, may raise for its arguments."""
    own = [
        one for one in node.body if not isinstance(one, Definition) or one.name in ("__attrs_post_init__", "__call__")
    ]
    code = "\n".join(map(ast.unparse, own[1:] if isinstance(node, ast.ClassDef) else node.body[1:]))
    return "validator=" in code or "raise " in code
