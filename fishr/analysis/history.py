"""Statistics that a run recorded while it trained: how far its domains were apart at each step."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fishr.data.caches import load_tree
from fishr.data.caches.hdf5 import read_header
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError
from fishr.training.recorder import KIND, STATISTICS, stacked

CURVES = {
    "variance_distance": "distance of gradient variances, scale-free (Fishr)",
    "hessian_distance": "distance of diagonal Hessians, scale-free",
    "inconsistency": "inconsistency on a plane of random directions, lower bound, loss",
    "cosine": "cosine of variance and diagonal Hessian, mean over domains",
}
"""Titles of the curves of a history, by name."""


@frozen(eq=False)
class History:
    """Recorded statistics of a run's training domains over its steps."""

    name: str
    steps: Tensor  # [T], updates made before each record
    risks: Tensor  # [T, K], loss
    penalties: dict[str, Tensor]  # [T] of each term, without its weight
    variance_distance: Tensor  # [T], (1/K) Σ ‖v_e − v̄‖² / ‖v̄‖², of per-sample gradients of the head
    hessian_distance: Tensor  # [T], likewise of the diagonal of its Hessian
    cosine: Tensor  # [T, K], of v_e and diag H_e
    inconsistency: Tensor  # [T], loss, of the landscape on a fixed plane; a lower bound
    finished: bool


def is_statistics(path: Path) -> bool:
    """Return whether a path is a file of recorded statistics, such as the statistics.h5 of a run.

    Raises:
        InputError: it is a file of another program, or damaged.

    Example:
        >>> is_statistics(Path("runs/fishr"))
        False
    """
    return path.is_file() and read_header(path).kind == KIND


def load_history(source: Path) -> History | None:
    """Return the recorded statistics of a run folder, while it trains those so far; None if it recorded nothing.

    Args:
        source: a run folder, or the file of statistics itself; any other file has none.

    Raises:
        InputError: the records are damaged or another program's.
    """
    path = source if is_statistics(source) else source / STATISTICS
    if path.is_file():
        return _history(path, load_tree(path, KIND), finished=True)
    parts = Parts.existing(path)
    if parts is None or not parts.done:
        return None
    # Each part is what one step recorded, and its number is the step.
    return _history(path, stacked([{"steps": step, **parts.read(step)} for step in parts.done]), finished=False)


def _history(path: Path, tree: dict[str, Any], finished: bool) -> History:
    try:
        arrays = {name: torch.from_numpy(value) for name, value in tree.items() if isinstance(value, np.ndarray)}
        variance, hessian = arrays["variance"].double(), arrays["hessian_diagonal"].double()
        return History(
            name=path.resolve().parent.name if path.name == STATISTICS else path.stem,
            steps=arrays["steps"],
            risks=arrays["risks"],
            penalties={term: torch.from_numpy(values) for term, values in tree["penalties"].items()},
            variance_distance=arrays["variance_distance_scale_free"],
            hessian_distance=arrays["hessian_distance_scale_free"],
            cosine=torch.nn.functional.cosine_similarity(variance, hessian, dim=-1, eps=0.0),
            inconsistency=arrays["inconsistency"],
            finished=finished,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged statistics ({type(error).__name__}: {error}); train again") from error
