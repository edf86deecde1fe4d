"""What a step down one domain's gradient does to the others: row 16 of what is looked at."""

import torch

from fishr.diagnostics.displacement import risks_at
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity

_PAIRS = ("domain", "domain")


@of_head
def transfer(seen: Inspection, *, eta: float = 0.1) -> Quantity:
    """R_B(θ − η g_A) − R_B(θ): below zero where A's step helps B.

    Args:
        seen: the head and its data.
        eta: η, parameter²/loss.

    Returns:
        [K, K], loss; row A, whose step is taken, column B, whose risk is looked at.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((transfer(head, *data, eta=0.01).value.diagonal() < 0).all())
        True
    """
    with torch.no_grad():
        value = torch.stack([risks_at(seen, -eta * gradient) - seen.risks for gradient in seen.moments.mean])
    return Quantity("transfer", value, _PAIRS, "loss", f"risks after the step, η={eta:g}")


@of_head
def transfer_second_order(seen: Inspection, *, eta: float = 0.1) -> Quantity:
    """−η g_A·g_B + ½η² g_AᵀH_B g_A, what ``transfer`` is to second order in η.

    Args:
        seen: the head and its data.
        eta: η, parameter²/loss.

    Returns:
        [K, K], loss; row A, column B.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> close = transfer_second_order(head, *data, eta=0.01).value - transfer(head, *data, eta=0.01).value
        >>> bool(close.abs().max() < 1e-4)
        True
    """
    means = seen.moments.mean
    curved = [(means.T * hessian.apply(means.T)).sum(0) for hessian in seen.hessians]
    value = -eta * (means @ means.T) + eta**2 / 2 * torch.stack(curved, 1)
    return Quantity("transfer_second_order", value, _PAIRS, "loss", f"gradients and Hessian products, η={eta:g}")
