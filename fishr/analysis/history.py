"""Statistics that a run recorded while it trained: how far its domains were apart at each step."""

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fishr.data.caches import load_tree
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError

STATISTICS, KIND = "statistics.h5", "fishr-statistics"
# The curves of a history and their titles.
CURVES = {
    "variance_distance": "distance of gradient variances, scale-free (Fishr)",
    "hessian_distance": "distance of diagonal Hessians, scale-free",
    "inconsistency": "inconsistency on a plane of random directions, lower bound, loss",
    "cosine": "cosine of variance and diagonal Hessian, mean over domains",
}


@frozen(eq=False)
class History:
    """Recorded statistics of a run's training domains over its steps.

    Args:
        name: of the run.
        steps: [T], updates made before each record.
        risks: [T, K], loss.
        penalties: [T] of each term, without its weight.
        variance_distance: [T], (1/K) Σ ‖v_e − v̄‖² / ‖v̄‖², v_e the variance of the head's per-sample gradients.
        hessian_distance: [T], the same of the diagonal of the head's Hessian.
        cosine: [T, K], of v_e and diag H_e.
        inconsistency: [T], loss, of the head's landscape on a fixed plane; a lower bound.
        finished: whether the run has ended.

    Example:
        >>> zeros, ones = torch.zeros(2), torch.ones(2, 1)
        >>> History("erm", torch.tensor([0, 10]), ones, {}, zeros, zeros, ones, zeros, finished=True).steps
        tensor([ 0, 10])
    """

    name: str
    steps: Tensor
    risks: Tensor
    penalties: dict[str, Tensor]
    variance_distance: Tensor
    hessian_distance: Tensor
    cosine: Tensor
    inconsistency: Tensor
    finished: bool


def load_history(folder: Path) -> History | None:
    """Return the recorded statistics of a run folder, while it trains those so far; None if it recorded nothing.

    Raises:
        InputError: the records are damaged or another program's.

    Example:
        >>> load_history(Path("no-such-run")) is None
        True
    """
    path, name = folder / STATISTICS, folder.resolve().name
    if path.is_file():
        return _read(path, name, [load_tree(path, KIND)])
    parts = Parts.existing(path)
    if parts is None or not parts.done:
        return None
    # Each part is what one step recorded, and its number is the step.
    return _read(path, name, [{"steps": step, **parts.read(step)} for step in parts.done], finished=False)


def _read(path: Path, name: str, trees: Sequence[dict[str, Any]], finished: bool = True) -> History:
    def column(*keys: str) -> Tensor:
        found = [reduce(getitem, keys, cast(Any, tree)) for tree in trees]
        return torch.from_numpy(np.asarray(found[0] if finished else found))

    try:
        variance, hessian = column("variance").double(), column("hessian_diagonal").double()
        return History(
            name=name,
            steps=column("steps"),
            risks=column("risks"),
            penalties={term: column("penalties", term) for term in trees[0]["penalties"]},
            variance_distance=column("variance_distance_scale_free"),
            hessian_distance=column("hessian_distance_scale_free"),
            cosine=torch.nn.functional.cosine_similarity(variance, hessian, dim=-1, eps=0.0),
            inconsistency=column("inconsistency"),
            finished=finished,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged statistics ({type(error).__name__}: {error}); train again") from error
