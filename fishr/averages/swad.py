"""SWAD: the mean of the weights over the valley of the validation loss."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeVar

import attrs
from attrs import field, frozen
from torch import Tensor

from fishr.averages.sma import Mean
from fishr.checks import number, whole
from fishr.data.domains import Domains
from fishr.errors import InputError

# A domain, or its score.
T = TypeVar("T", bound=Any)


@frozen
class SWAD:
    """Mean of the weights after all updates from the validation loss's lowest point to where it has risen again.

    The validation loss L is the mean of the losses of the weights themselves on the held-out parts of the training
    environments. The weights between two evaluations are one segment; L_i is the loss at the end of segment i.

    - The valley begins with the first segment s whose loss is the lowest of L_s, …, L_(s + converge − 1). Its threshold
      is (1 + ratio) times the mean of these losses.
    - It ends before the first segment e with L_e, …, L_(e + tolerance − 1) all above the threshold; at the end of a run
      with fewer.

    Before the valley begins, the mean of the last segment is evaluated.

    Args:
        converge: Evaluations that decide on the beginning, at least 1.
        tolerance: Evaluations that decide on the end, at least 1.
        ratio: Rise of the loss that belongs to the valley, at least 0; the authors use 0.2 on VLCS.

    Raises:
        InputError: A number outside its range; before the first step, data without a held-out part of a training
            environment.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits(), average=SWAD()).average
        SWAD(converge=3, tolerance=6, ratio=0.3)

    Source: Cha et al., SWAD, NeurIPS 2021 (arXiv 2102.08604), algorithm 1; segments as in the authors' code.
    """

    converge: int = field(default=3, validator=whole(1))
    tolerance: int = field(default=6, validator=whole(1))
    ratio: float = field(default=0.3, validator=number())

    def check(self, domains: Domains) -> None:
        """Refuse data without an evaluation domain that is a part of a training environment."""
        _require_held_out(domains.training, domains.evaluation)

    def init(self, weights: dict[str, Tensor]) -> dict[str, Any]:
        """Return an empty segment; ``pending`` are the segments that are not yet decided on."""
        return {"current": _plain(Mean(0, {})), "pending": (), "valley": None, "threshold": None, "ended": False}

    def update(self, weights: dict[str, Tensor], state: dict[str, Any], step: int) -> dict[str, Any]:
        """Return the state with these weights in the current segment."""
        if state["ended"]:
            return state
        return state | {"current": _plain(Mean(**state["current"]).including(weights))}

    def evaluated(self, state: dict[str, Any], scores: Sequence[Any], step: int) -> dict[str, Any]:
        """Return the state after the current segment, of the scores of the weights themselves."""
        if state["ended"] or not state["current"]["count"]:
            return state
        pending = (*state["pending"], state["current"] | {"loss": _validation_loss(scores)})
        threshold, valley, ended = state["threshold"], state["valley"], False
        if threshold is None:
            pending = pending[-self.converge :]
            losses = _losses(pending)
            if len(losses) == self.converge and losses[0] == min(losses) < math.inf:
                threshold = (1 + self.ratio) * sum(losses) / len(losses)
        while threshold is not None and not ended and len(pending) >= self.tolerance:
            ended = min(_losses(pending[: self.tolerance])) > threshold
            if not ended:
                valley, pending = _with(valley, pending[0]), pending[1:]
        return {
            "current": _plain(Mean(0, {})),
            "pending": () if ended else pending,
            "valley": valley,
            "threshold": threshold,
            "ended": ended,
        }

    def weights(self, state: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean over the valley as far as it is known."""
        valley, pending, threshold = state["valley"], state["pending"], state["threshold"]
        if threshold is None:
            return pending[-1]["weights"] if pending else weights
        while pending and min(_losses(pending[: self.tolerance])) <= threshold:
            valley, pending = _with(valley, pending[0]), pending[1:]
        return weights if valley is None else valley["weights"]


def _with(valley: dict[str, Any] | None, segment: dict[str, Any]) -> dict[str, Any]:
    before = Mean(0, {}) if valley is None else Mean(**valley)
    return _plain(before.including(segment["weights"], segment["count"]))


def _plain(mean: Mean) -> dict[str, Any]:
    """Return a mean as a dict, which a checkpoint that is read without a template has too."""
    return attrs.asdict(mean, recurse=False)


def _losses(segments: Sequence[dict[str, Any]]) -> list[float]:
    return [segment["loss"] for segment in segments]


def _validation_loss(scores: Sequence[Any]) -> float:
    """Return the mean loss of the evaluation domains that are parts of training environments; infinity for NaN."""
    parts = [[score for score in scores if score.split == split] for split in ("training", "evaluation")]
    mean = fmean(score.loss for score in _require_held_out(*parts))
    return math.inf if math.isnan(mean) else mean


def _require_held_out(training: Sequence[T], evaluation: Sequence[T]) -> list[T]:
    """Return those for evaluation that are parts of training environments; refuse that there is none."""
    trained = {one.environment for one in training} - {None}
    found = [one for one in evaluation if one.environment in trained]
    if not found:
        raise InputError(
            "average: got SWAD without an evaluation domain that is held out from a training environment, whose loss "
            'it reads; use data of the kind "HeldOut", or EMA'
        )
    return found
