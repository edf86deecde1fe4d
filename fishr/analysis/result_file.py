"""An analysis as an HDF5 file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import asdict

from fishr.analysis.report import Analysis, Settings
from fishr.data.caches import load_tree
from fishr.data.caches.encoding import Tree, layout_of, layout_tree
from fishr.data.caches.hdf5 import save_tree
from fishr.diagnostics.uncertainty import Quantity
from fishr.errors import InputError
from fishr.paths import check_file_writable

KIND = "fishr-analysis"


def save_analysis(path: Path, analysis: Analysis, *, replace: bool = False) -> None:
    """Write an analysis, over a file that is there if ``replace``.

    Raises:
        InputError: a file is there and is not to be replaced.
        RunFailed: it could not be written; the earlier file is kept.
    """
    save_tree(path, KIND, _tree(analysis), replace=replace)


def load_analysis(path: Path) -> Analysis:
    """Read an analysis that ``save_analysis`` wrote; the numbers have identical bits.

    Raises:
        InputError: no such file, or not a whole analysis of a known version.
    """
    tree: Any = load_tree(path, KIND)
    try:
        return _analysis(tree)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged analysis ({type(error).__name__}: {error}); analyze again") from error


def may_replace(path: Path, source: dict[str, str], settings: Settings, *, replace: bool = False) -> bool:
    """Return whether a result is there that the analysis of a source with some settings may replace.

    The same analysis may, as it finds the same numbers; another one needs ``replace``; any other file stays.

    Raises:
        InputError: another analysis or another file is there, or the folder does not exist.
    """
    check_file_writable(path)
    if not path.exists():
        return False
    try:
        there = load_analysis(path)
    except InputError as error:
        raise InputError(f"{error}; no analysis replaces it, choose another place with -o") from error
    if not replace and (there.source["key"], there.settings) != (source["key"], settings):
        raise InputError(
            f"{path}: holds another analysis, of {there.source['path']} at step {there.source['step']} with "
            f"{there.settings}; choose another place with -o, or give it up with --replace"
        )
    return True


def _tree(analysis: Analysis) -> Tree:
    return {
        "subject": {"name": analysis.name, "loss": analysis.loss, **analysis.source},
        "settings": asdict(analysis.settings),
        "domains": analysis.domains,
        "splits": analysis.splits,
        "rows": np.array(analysis.rows),
        "samples": np.array(analysis.samples),
        "layout": layout_tree(analysis.layout),
        "quantities": {name: _quantity_tree(quantity) for name, quantity in analysis.quantities.items()},
        "network": {name: _quantity_tree(quantity) for name, quantity in analysis.network.items()},
        "library": analysis.library,
    }


def _quantity_tree(quantity: Quantity) -> Tree:
    tree = asdict(quantity, filter=lambda attribute, _: attribute.name != "name", recurse=False)
    return tree | {k: v.numpy(force=True) for k, v in tree.items() if isinstance(v, torch.Tensor)}


def _analysis(tree: dict[str, Any]) -> Analysis:
    subject = dict[str, str](tree["subject"])
    return Analysis(
        name=subject.pop("name"),
        loss=subject.pop("loss"),
        source=subject,
        settings=Settings(**tree["settings"]),
        domains=tuple(tree["domains"]),
        splits=tuple(tree["splits"]),
        rows=tuple(map(int, tree["rows"])),
        samples=tuple(map(int, tree["samples"])),
        layout=layout_of(tree["layout"]),
        quantities={name: _quantity(name, part) for name, part in tree["quantities"].items()},
        network={name: _quantity(name, part) for name, part in tree["network"].items()},
        library=tree["library"],
    )


def _quantity(name: str, tree: dict[str, Any]) -> Quantity:
    error = None if tree["error"] is None else torch.from_numpy(tree["error"])
    return Quantity(name, torch.from_numpy(tree["value"]), tuple(tree["axes"]), tree["unit"], tree["route"], error)
