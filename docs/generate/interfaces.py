"""Pages of the packages, a page each with the docstrings of what it exports."""

import ast
import inspect
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import fishr

_ROOT = Path(fishr.__file__).parent


@cache
def packages() -> list[str]:
    """Return every package that says what it exports."""
    names = (".".join(["fishr", *path.parent.relative_to(_ROOT).parts]) for path in _ROOT.rglob("__init__.py"))
    return sorted(name for name in names if getattr(import_module(name), "__all__", None))


def pages() -> dict[str, str]:
    """Return the Markdown of each page by the package's name, and of the list of packages by "index"."""
    found = {name: _page(name) for name in packages()}
    rows = "".join(f"| [{name}]({name}.md) | {_summary(import_module(name))} |\n" for name in found)
    entries = "\n".join(found)
    found["index"] = (
        "# Python interface\n\nEach package exports what is on its page; everything else is internal.\n\n"
        f"| package | |\n|---|---|\n{rows}\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"
    )
    return found


def home(package: str, name: str) -> str:
    """Return the package whose page documents a name: that of its code, else the first that exports it."""
    if f"{package}.{name}" in packages():
        return f"{package}.{name}"
    found = getattr(import_module(package), name)
    exporting = [
        one for one in packages() if name in import_module(one).__all__ and getattr(import_module(one), name) is found
    ]
    inside = [one for one in exporting if f"{getattr(found, '__module__', '')}.".startswith(f"{one}.")]
    return max(inside, key=len) if inside else exporting[0]


def _page(package: str) -> str:
    homes = {name: home(package, name) for name in import_module(package).__all__}
    own = [name for name, place in homes.items() if place == package]
    values = [
        name for name in own if not getattr(getattr(import_module(package), name), "__module__", "").startswith("fishr")
    ]
    members = ", ".join(name for name in own if name not in values)
    entries = "".join(_value(package, name) for name in values)
    rows = "".join(
        f"| [`{name}`]({_target(place, name)}) | {_summary(getattr(import_module(package), name))} |\n"
        for name, place in homes.items()
        if place != package
    )
    others = f"\n## From other packages\n\n| name | |\n|---|---|\n{rows}" if rows else ""
    return f"# {package}\n\n```{{eval-rst}}\n.. automodule:: {package}\n   :members: {members}\n{entries}```\n{others}"


def _value(package: str, name: str) -> str:
    """Return the entry of a constant or an alias of types, which autodoc leaves out, with the text below it."""
    for path in _ROOT.joinpath(*package.split(".")[1:]).glob("*.py"):
        for node, below in pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = indent(inspect.cleandoc(below.value.value), "   ")
                return f"\n.. py:data:: {name}\n   :module: {package}\n\n{text}\n"
    raise ValueError(f"{package}.{name}: write a string below it, which says what it is")


def _target(place: str, name: str) -> str:
    """Return the target of a link to a name on the page of a package, or to the page of a package of that name."""
    return f"{place}.md" if place.endswith(f".{name}") else f"#{place}.{name}"


def _summary(found: Any) -> str:
    text = (inspect.getdoc(found) or "").partition("\n\n")[0]
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())
