"""Print the size and the shape of the package: ``python benchmarks/house.py [CHECKOUT]``.

Lines of code are those that are not blank, comment, docstring or import. The paths are read from one short run.
"""

import ast
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

# Modules whose place is fixed by what they show, so that they may repeat a word.
REPEATING = ("commands", "plots", "domainbed")

# What runs in a process of its own, with the checkout first on the path.
TRACED = """
import json, sys, tempfile
from pathlib import Path

root = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(root))
package = str(root / "fishr")

import fishr
assert fishr.__file__.startswith(package), fishr.__file__
list(zip(range(2), fishr.train(fishr.protocols.colored_digits())))
loaded = sorted(name for name in sys.modules if name.split(".")[0] == "fishr")

import attrs
from fishr.commands import main

def parts(record):
    found = {id(record)}
    for field in attrs.fields(type(record)) if attrs.has(type(record)) else ():
        if attrs.has(type(getattr(record, field.name))):
            found |= parts(getattr(record, field.name))
    return found

def stack(frame):
    found = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(package):
            found.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]

statistics = str(root / "fishr" / "statistics")
path, route, passed, known, kept = [], [], set(), set(), []

def profile(frame, event, argument):
    if event == "c_call" and not path and "mm" in argument.__name__ and frame.f_code.co_filename.startswith(statistics):
        path.extend(stack(frame))
    if event == "call" and frame.f_code.co_filename.startswith(package) and frame.f_code not in passed:
        code = frame.f_code
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            value = frame.f_locals.get(name)
            if type(value).__name__ == "Experiment":
                known.update(parts(value))
                kept.append(value)
            if id(value) in known:
                passed.add(code)
                route.append(code.co_filename)
                break

with tempfile.TemporaryDirectory() as folder:
    WEIGHT = "objective.penalty.fishr.schedule=1.0"
    sys.argv = ["fishr", "train", "colored-digits", "--set", "steps=1", "--set", WEIGHT, "--out", folder + "/run"]
    sys.setprofile(profile)
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    finally:
        sys.setprofile(None)

path = path[[name for _, name in path].index("train"):]
stays = [file for before, file in zip([None, *route], route) if file != before]
print(json.dumps({
    "frames from `fishr train` to the matrix product": len(path),
    "files from `fishr train` to the matrix product": len({file for file, _ in path}),
    "stays of an experiment": len(stays),
    "returns of an experiment": len(stays) - len(set(stays)),
    "modules of ours that fishr.train loads": len(loaded),
    "path": [f"{Path(file).relative_to(root)}:{name}" for file, name in path],
    "stays": [str(Path(file).relative_to(root)) for file in stays],
    "loaded": loaded,
}))
"""

Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring(node: Node) -> ast.Expr | None:
    first = node.body[0] if node.body else None
    held = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return first if held else None


def span(node: ast.AST) -> set[int]:
    return set(range(node.lineno, node.end_lineno + 1))


def counts(text: str, tree: ast.Module) -> Counter[str]:
    docs, imports = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, Node) and (found := docstring(node)):
            docs |= span(found)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= span(node)
    lines = enumerate(text.splitlines(), 1)
    code = [n for n, line in lines if line.strip() and not line.strip().startswith("#") and n not in docs | imports]
    return Counter({"lines": text.count("\n"), "docstring lines": len(docs), "code lines": len(code), "files": 1})


def imported(tree: ast.Module, name: str, package: bool, modules: set[str]) -> set[str]:
    """Return the package's modules that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return found & modules


def exported(tree: ast.Module) -> set[str]:
    """Return what an ``__init__`` offers: names of ``__all__``, or names imported again."""
    return {
        (alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def long_docstrings(trees: dict[Path, ast.Module], offered: set[str]) -> dict[Path, list[str]]:
    """Return the functions and classes that no package exports and whose docstring is longer than a line."""
    found = defaultdict(list)

    def visit(node: ast.AST, path: Path, inside_offered: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            # The docstring of a command is its help.
            public = inside_offered or child.name in offered or ("commands" in path.parts and child.decorator_list)
            held = docstring(child)
            if held and held.end_lineno > held.lineno and (not public or child.name.startswith("_")):
                found[path].append(f"{child.lineno}: {child.name} ({held.end_lineno - held.lineno + 1} lines)")
            visit(child, path, public and isinstance(child, ast.ClassDef))

    for path, tree in trees.items():
        visit(tree, path, False)
    return found


def main() -> None:
    root = Path(next((a for a in sys.argv[1:] if not a.startswith("--")), ".")).resolve()
    files = {path: path.read_text() for path in sorted((root / "fishr").rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in files.items()}
    total = sum((counts(text, trees[path]) for path, text in files.items()), Counter())
    names = {path: ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files}
    importers = defaultdict(set)
    for path, tree in trees.items():
        for name in imported(tree, names[path], path.stem == "__init__", set(names.values())):
            if path.stem != "__init__":
                importers[name].add(names[path])
    faces = {path for path in files if path.stem == "__init__"}
    stubs = {path: ast.parse(path.read_text()) for path in (root / "fishr").rglob("*.pyi")}
    shown = {name for path in faces for name in imported(trees[path], names[path], True, set(names.values()))}
    single = [n for p, n in names.items() if p not in faces and len(importers[n]) == 1 and n not in shown]
    stems = defaultdict(list)
    for path in files:
        if path not in faces and not set(REPEATING) & set(path.parts):
            stems[path.stem].append(str(path.relative_to(root)))
    twice = {stem: where for stem, where in stems.items() if len(where) > 1}
    offered = {name for tree in [*(trees[p] for p in faces), *stubs.values()] for name in exported(tree)}
    long = long_docstrings(trees, offered)

    ran = subprocess.run([sys.executable, "-c", TRACED, str(root)], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    traced = json.loads(ran.stdout.splitlines()[-1])
    details = {key: traced.pop(key) for key in ("path", "stays", "loaded")}
    figures = {
        **{key: total[key] for key in ("files", "lines", "docstring lines", "code lines")},
        "internal docstrings of several lines": sum(map(len, long.values())),
        "modules with one importer": len(single),
        "basenames used twice": len(twice),
        **traced,
    }
    for name, value in figures.items():
        print(f"{value:8,}  {name}")
    if "--details" in sys.argv:
        print(json.dumps({"single": single, "twice": twice, **details}, indent=1))
    for path, found in long.items() if "--docstrings" in sys.argv else ():
        print(path.relative_to(root), *found, sep="\n  ")


if __name__ == "__main__":
    main()
