"""Whether the domains' gradients agree: row 15 of what is looked at."""

import torch

from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity

_MEANS = "mean gradient of each domain"


@of_head
def gradient_cosines(seen: Inspection) -> Quantity:
    """cos(g_A, g_B) for every pair of domains; NaN where a gradient is exactly zero.

    Returns:
        [K, K], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> gradient_cosines(head, *data).value.shape
        torch.Size([2, 2])
    """
    units = seen.moments.mean / torch.linalg.vector_norm(seen.moments.mean, dim=1, keepdim=True)
    return Quantity("gradient_cosines", units @ units.T, ("domain", "domain"), "1", _MEANS)


@of_head
def gradient_products(seen: Inspection) -> Quantity:
    """g_A·g_B for every pair of domains, which Fish maximises.

    Returns:
        [K, K], (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> gradient_products(head, *data).value.shape
        torch.Size([2, 2])

    Source:
        Shi et al. 2021 (arXiv 2104.09937).
    """
    value = seen.moments.mean @ seen.moments.mean.T
    return Quantity("gradient_products", value, ("domain", "domain"), "(loss/parameter)²", _MEANS)


@of_head
def gradient_spread(seen: Inspection) -> Quantity:
    """Σ_e ‖g_e − ḡ‖², the IGA penalty.

    Returns:
        0-dim, (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> gradient_spread(head, *data).axes
        ()

    Source:
        Koyama and Yamaguchi 2020 (arXiv 2008.01883).
    """
    means = seen.moments.mean
    value = (means - means.mean(0)).square().sum()
    return Quantity("gradient_spread", value, (), "(loss/parameter)²", _MEANS)


@of_head
def sign_agreement(seen: Inspection) -> Quantity:
    """Share of parameters on whose direction all domains agree, sign(g_e) equal and not zero: the AND-mask's share.

    Returns:
        0-dim, 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool(0 <= sign_agreement(head, *data).value <= 1)
        True

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329).
    """
    agreed = seen.moments.mean.sign().sum(0).abs() == seen.domains
    return Quantity("sign_agreement", agreed.to(seen.risks.dtype).mean(), (), "1", _MEANS)
