"""The meaning of each key of a class, from its docstring and its comments."""

import ast
import inspect
import re
import tokenize
from io import StringIO
from typing import Any

import attrs


def meanings(cls: Any) -> dict[str, str]:
    """Return the meaning of each key: from the section Args of the docstring, else from the comment at the field."""
    found = dict[str, str]()
    for base in reversed([one for one in cls.__mro__ if attrs.has(one)]):
        found |= _commented(base)
        arguments = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.getdoc(base) or "", re.MULTILINE)
        entry = re.compile(r"^    ([a-z_][\w, ]*): (.*\n?(?:     .*\n?)*)", re.MULTILINE)
        for names, text in entry.findall(arguments[1] if arguments else ""):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    # A symbol stays as it is: "w" is not "W".
    return {name: re.sub(r"^[a-z](?=[a-z])", lambda first: first[0].upper(), text) for name, text in found.items()}


def _commented(cls: Any) -> dict[str, str]:
    """Return the comments of fields: those above a field and those within its lines."""
    lines = inspect.cleandoc("\n" + inspect.getsource(cls)).splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO("\n".join(lines)).readline)
        if token.type == tokenize.COMMENT
    }
    found = dict[str, str]()
    for node in ast.parse("\n".join(lines)).body[0].body:
        if isinstance(node, ast.AnnAssign):
            first = node.lineno
            while lines[first - 2].lstrip().startswith("#"):
                first -= 1
            found[node.target.id] = " ".join(
                comments[row] for row in range(first, node.end_lineno + 1) if row in comments
            )
    return {name: text for name, text in found.items() if text}
