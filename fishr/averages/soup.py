"""The mean of several models' weights."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fishr.errors import InputError


def average_weights(
    weights: Iterable[Mapping[str, Tensor]], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Return w̄ = Σ s_i w_i / Σ s_i of models of one architecture, by name.

    The sum is in float64, so that the mean of equal weights is these weights, and their order changes it by rounding
    alone. Means have the type and the unit of the first weights. Running statistics of batch normalization are averaged
    like the weights; tensors of whole numbers, such as counters of batches, are those of the first.

    Args:
        weights: State dicts, or parameters by name; read one at a time.
        shares: s_i ≥ 0 of each, not all 0; None: equal ones.

    Raises:
        InputError: No weights, other names or shapes than the first have, or shares that do not fit.

    Example:
        >>> ends = [{"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([2.0, 7.0])}]
        >>> average_weights(ends), average_weights(ends, shares=(0.75, 0.25))
        ({'w': tensor([1.5000, 5.0000])}, {'w': tensor([1.2500, 4.0000])})

    Source: Wortsman et al., Model soups, ICML 2022 (arXiv 2203.05482); Ramé et al., DiWA, NeurIPS 2022
    (arXiv 2205.09739); with two models, Wortsman et al., WiSE-FT, CVPR 2022 (arXiv 2109.01903).
    """
    first, total = dict[str, Tensor](), dict[str, Tensor]()
    given = None if shares is None else list(shares)
    if given is not None and not (all(0 <= share < math.inf for share in given) and sum(given) > 0):
        raise InputError(f"shares: got {given}, expected finite numbers of at least 0, not all 0")
    count = 0
    for count, own in enumerate(weights, 1):
        if given is not None and count > len(given):
            raise InputError(f"shares: got {len(given)}, expected one for each of the weights; give as many of both")
        share = 1.0 if given is None else given[count - 1]
        if count == 1:
            first = dict(own)
            total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in own.items() if w.is_floating_point()}
        _check_fit(own, first, count)
        for name in total:
            total[name] += share * own[name].detach().double()
    if not count:
        raise InputError("weights: got none, expected those of one or more models")
    if given is not None and count < len(given):
        raise InputError(f"shares: got {len(given)} for {count} weights, expected one for each; give as many of both")
    whole = count if given is None else sum(given)
    means = {name: (sum_ / whole).to(first[name].dtype) for name, sum_ in total.items()}
    return {name: means[name] if name in means else value.detach().clone() for name, value in first.items()}


def _check_fit(own: Mapping[str, Tensor], first: Mapping[str, Tensor], number: int) -> None:
    for name in dict.fromkeys([*first, *own]):
        got, expected = (tuple(part[name].shape) if name in part else "none" for part in (own, first))
        if got != expected:
            raise InputError(
                f"weights {number}: got shape {got} for {name}, expected {expected} as in the first; average models of "
                "one architecture"
            )
