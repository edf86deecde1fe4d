"""Named arrays, texts and numbers in one file: analyses, surfaces, statistics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fishr.data.caches.encoding import Tree, read_tree, write_tree
from fishr.data.caches.files import Header, header_of, opened, sole_writer, write_whole
from fishr.errors import InputError
from fishr.files import present


def save_tree(path: Path, kind: str, tree: Mapping[str, Any], *, version: int = 1, replace: bool = False) -> None:
    """Write a tree to a file that is whole or absent.

    Args:
        path: where; its folder exists.
        kind: what the file is, such as "fishr-analysis".
        tree: names to NumPy arrays, texts, numbers, tuples of texts, None, or trees of such.
        version: of the kind's layout.
        replace: whether a file that is there gives way, once the new one is whole.

    Raises:
        InputError: something is there and is not to be replaced, another process is writing it, or the tree holds
            what has no encoding.
        RunFailed: it could not be written; what was there is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tree(Path(folder, "a.h5"), "fishr-analysis", {"name": "mine", "nested": {"steps": 3}})
        ...     load_tree(Path(folder, "a.h5"), "fishr-analysis")
        {'name': 'mine', 'nested': {'steps': 3}}
    """
    with sole_writer(path):
        if not replace and present(path):
            raise InputError(f"{path}: exists already; choose another name, or remove it")
        write_whole(path, kind, version, lambda file: write_tree(file, tree))


def load_tree(path: Path, kind: str, *, version: int = 1) -> Tree:
    """Read a tree, every byte checked.

    Args:
        path: of the file.
        kind: that it must have.
        version: of the kind's layout.

    Returns:
        What was saved, arrays as NumPy arrays.

    Raises:
        InputError: absent, another program's, of another kind, newer, incomplete or damaged.

    Example:
        >>> load_tree(Path("nowhere.h5"), "fishr-analysis")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    with opened(path, kind, version) as file:
        return read_tree(file)


def read_header(path: Path) -> Header:
    """Kind, version and writer of any file of ours.

    Args:
        path: of the file.

    Raises:
        InputError: absent, another program's, newer, incomplete or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tree(Path(folder, "a.h5"), "fishr-analysis", {})
        ...     read_header(Path(folder, "a.h5")).kind
        'fishr-analysis'
    """
    with opened(path, None) as file:
        return header_of(file)
