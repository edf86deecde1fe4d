"""Linear barrier between two heads: row 21 of what is looked at."""

import torch
from torch import Tensor

from fishr.diagnostics.quantity import Quantity
from fishr.errors import InputError


def barrier(risks: Tensor, positions: Tensor | None = None) -> Quantity:
    """max_α R_e(θ_α) − ((1 − α) R_e(θ_0) + α R_e(θ_1)) along θ_α = (1 − α) θ_0 + α θ_1.

    On given points it is a lower bound of the maximum over the line. For a convex risk it is zero.

    Args:
        risks: [K, T], loss, from α = 0 to α = 1; NaN where not evaluated.
        positions: [T], α of each point; evenly spaced by default.

    Returns:
        [K], loss; at least 0, which the ends attain.

    Raises:
        InputError: fewer than two points, positions that do not run from 0 to 1, or an end that was not evaluated.

    Example:
        >>> barrier(torch.tensor([[0.0, 1.0, 1.0]])).value
        tensor([0.5000])

    Source:
        Frankle et al. 2020 (arXiv 1912.05671), against the chord instead of the mean of the ends.
    """
    risks = risks.detach()
    if risks.ndim != 2 or risks.shape[1] < 2:
        raise InputError(f"barrier: got risks of shape {tuple(risks.shape)}, expected [K, T] with at least 2 points")
    alpha = torch.linspace(0, 1, risks.shape[1], dtype=risks.dtype, device=risks.device)
    alpha = alpha if positions is None else positions.to(alpha)
    if alpha.shape != risks.shape[1:] or alpha[0] != 0 or alpha[-1] != 1:
        raise InputError(
            f"barrier: got {tuple(alpha.shape)} positions from {alpha[0]:g} to {alpha[-1]:g}, expected one for each of "
            f"the {risks.shape[1]} points, from 0 to 1"
        )
    if risks[:, [0, -1]].isnan().any():
        raise InputError("barrier: got NaN at an end of the line, expected every domain's risk there")
    chord = (1 - alpha) * risks[:, :1] + alpha * risks[:, -1:]
    value = (risks - chord).nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(1)
    return Quantity("barrier", value, ("domain",), "loss", f"{risks.shape[1]} points of the line: a lower bound")
