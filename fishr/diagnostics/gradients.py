"""Risk, gradient and gradient noise of each domain: rows 1 to 5 of what is looked at."""

import torch

from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity

_MOMENTS = "moments of the per-sample gradients"


@of_head
def risk(seen: Inspection) -> Quantity:
    """R_e, the mean loss of each domain.

    Returns:
        [K], loss.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> risk(head, *data).axes
        ('domain',)
    """
    return Quantity("risk", seen.risks, ("domain",), "loss", "mean over samples")


@of_head
def accuracy(seen: Inspection) -> Quantity:
    """Share of right predictions in each domain; NaN where the loss has no ``predictions``.

    Returns:
        [K], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool(0 <= accuracy(head, *data).value.min())
        True
    """
    predictions = getattr(seen.loss, "predictions", None)
    if predictions is None:
        value = torch.full_like(seen.risks, torch.nan)
        return Quantity("accuracy", value, ("domain",), "1", "not computed: the loss has no predictions")
    right = (predictions(seen.logits) == seen.labels).to(seen.risks.dtype)
    shares = torch.stack([part.mean() for part in right.split(list(seen.sizes))])
    return Quantity("accuracy", shares, ("domain",), "1", "mean over samples")


@of_head
def gradient_norm(seen: Inspection) -> Quantity:
    """‖g_e‖, g_e = ∇R_e. At the optimum of all domains together they cancel rather than vanish.

    Returns:
        [K], loss/parameter.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> gradient_norm(head, *data).value.shape
        torch.Size([2])
    """
    value = torch.linalg.vector_norm(seen.moments.mean, dim=1)
    return Quantity("gradient_norm", value, ("domain",), "loss/parameter", _MOMENTS)


@of_head
def gradient_variance(seen: Inspection) -> Quantity:
    """v_e = diag C_e, the variance of the per-sample gradients, divided by n.

    Returns:
        [K, P], (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> gradient_variance(head, *data).value.shape
        torch.Size([2, 8])

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 3.
    """
    return Quantity("gradient_variance", seen.moments.variance, ("domain", "parameter"), "(loss/parameter)²", _MOMENTS)


@of_head
def total_noise(seen: Inspection) -> Quantity:
    """tr C_e = mean ‖g_n‖² − ‖g_e‖².

    Returns:
        [K], (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> total_noise(head, *data).value.shape
        torch.Size([2])
    """
    return Quantity("total_noise", seen.moments.variance.sum(1), ("domain",), "(loss/parameter)²", _MOMENTS)


@of_head
def signal_to_noise(seen: Inspection) -> Quantity:
    """g_e²/v_e for each parameter; infinite where the gradient does not vary, NaN where it is zero as well.

    Returns:
        [K, P], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> signal_to_noise(head, *data).value.shape
        torch.Size([2, 8])
    """
    # Rounding leaves variances a little below zero, whose ratio would have the wrong sign.
    value = seen.moments.mean.square() / seen.moments.variance.clamp(min=0)
    return Quantity("signal_to_noise", value, ("domain", "parameter"), "1", _MOMENTS)


@of_head
def noise_scale(seen: Inspection) -> Quantity:
    """tr C_e/‖g_e‖², the simple noise scale: the batch size at which noise and signal are equal.

    Returns:
        [K], samples.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> noise_scale(head, *data).unit
        'samples'

    Source:
        McCandlish et al. 2018 (arXiv 1812.06162).
    """
    value = seen.moments.variance.sum(1) / seen.moments.mean.square().sum(1)
    return Quantity("noise_scale", value, ("domain",), "samples", _MOMENTS)


@of_head
def empirical_fisher_diagonal(seen: Inspection) -> Quantity:
    """diag F̃_e = mean of g_n², with the data's labels.

    It is the Fisher's diagonal only if the labels look drawn from the model.

    Returns:
        [K, P], (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> empirical_fisher_diagonal(head, *data).value.shape
        torch.Size([2, 8])

    Source:
        Kunstner et al. 2019 (arXiv 1905.12558) on how far it is from the Fisher.
    """
    value, axes = seen.moments.second_moment, ("domain", "parameter")
    return Quantity("empirical_fisher_diagonal", value, axes, "(loss/parameter)²", _MOMENTS)
