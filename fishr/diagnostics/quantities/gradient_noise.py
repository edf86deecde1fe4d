"""Risk, gradient and gradient noise of each domain."""

import torch

from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate
from fishr.losses import shares_correct
from fishr.observation import Observation

_MOMENTS = "moments of the per-sample gradients"


@diagnostic("loss", ("domain",), section="gradients")
def risk(seen: Observation) -> Estimate:
    """R_e, the mean loss of each domain.

    Meaning: mean loss of the model in each domain. Large: the model fits this domain badly.

    Route: one forward pass. Exact: always.
    """
    return Estimate(seen.domain_losses, "mean over samples")


@diagnostic("1", ("domain",), section="gradients")
def accuracy(seen: Observation) -> Estimate:
    """Share of right predictions in each domain; NaN where the loss predicts no class.

    Meaning: share of samples that the model predicts correctly. Large: the model fits this domain well.

    The class of soft labels is the most likely one; of several labels a sample, each output counts on its own.

    Route: one forward pass. Exact: always.
    """
    shares = seen.domain_means(shares_correct(seen.loss, seen.logits, seen.labels))
    undefined = bool(shares.isnan().any())
    return Estimate(shares, "not computed: the loss predicts no class" if undefined else "mean over samples")


@diagnostic("loss/parameter", ("domain",), section="gradients")
def gradient_norm(seen: Observation) -> Estimate:
    """‖g_e‖, g_e = ∇R_e.

    Meaning: length of the gradient of each domain's risk. Large: the weights are not a minimum of this domain's
    risk; a step for it alone would lower it.

    Where the pooled risk is least, the domains' gradients cancel and need not vanish.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.
    """
    return Estimate(torch.linalg.vector_norm(seen.moments.mean, dim=1), _MOMENTS)


@diagnostic("(loss/parameter)²", ("domain", "parameter"), section="gradients")
def gradient_variance(seen: Observation) -> Estimate:
    """v_e = diag C_e, C_e the covariance of the per-sample gradients, divided by n.

    Meaning: spread of the per-sample gradients of each parameter, which Fishr matches across domains. Large:
    samples of the domain disagree on this parameter.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 3.
    """
    return Estimate(seen.moments.variance, _MOMENTS)


@diagnostic("(loss/parameter)²", ("domain",), section="gradients")
def total_noise(seen: Observation) -> Estimate:
    """tr C_e = mean ‖g_n‖² − ‖g_e‖².

    Meaning: gradient variance summed over all parameters. Large: samples of the domain pull in different
    directions; it grows with the scale of loss and features.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.
    """
    return Estimate(seen.moments.variance.sum(1), _MOMENTS)


@diagnostic("1", ("domain", "parameter"), section="gradients")
def signal_to_noise(seen: Observation) -> Estimate:
    """g_e²/v_e of each parameter; infinite where the gradient does not vary, NaN where it is zero as well.

    Meaning: squared mean of each parameter's gradient against its variance. Large: samples agree on this parameter,
    so a small batch finds its gradient.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.
    """
    # Rounding leaves variances a little below zero, whose ratio would have the wrong sign.
    return Estimate(seen.moments.mean.square() / seen.moments.variance.clamp(min=0), _MOMENTS)


@diagnostic("samples", ("domain",), section="gradients")
def noise_scale(seen: Observation) -> Estimate:
    """tr C_e/‖g_e‖², the simple noise scale: the batch size at which noise and signal are equal.

    Meaning: batch size from which larger batches stop paying off. Large: the gradient is mostly noise and needs
    large batches, as near a minimum.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.

    Source:
        McCandlish et al. 2018 (arXiv 1812.06162).
    """
    return Estimate(seen.moments.variance.sum(1) / seen.moments.mean.square().sum(1), _MOMENTS)


@diagnostic("(loss/parameter)²", ("domain", "parameter"), section="gradients")
def empirical_fisher_diagonal(seen: Observation) -> Estimate:
    """Diagonal of the empirical Fisher, mean g_n² with the data's labels.

    Meaning: mean squared per-sample gradient of each parameter, which is variance plus squared mean. Large: the
    loss of single samples depends strongly on this parameter.

    It is the Fisher's diagonal only if the labels look drawn from the model.

    Route: moments of the per-sample gradients: closed form (linear), BackPACK, ``torch.func``. Exact: always.

    Source:
        Kunstner et al. 2019 (arXiv 1905.12558), on its distance from the Fisher.
    """
    return Estimate(seen.moments.second_moment, _MOMENTS)
