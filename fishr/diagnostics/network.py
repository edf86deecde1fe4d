"""Curvature of a whole network, or of any module, over all its trainable parameters."""

from functools import partial

from torch import Tensor, nn

from fishr.diagnostics.curvature import effective_rank, hessian_diagonal, hessian_trace, top_eigenvalues
from fishr.diagnostics.density import spectral_density
from fishr.diagnostics.inspection import Inspection
from fishr.diagnostics.operators import Estimation
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.takeuchi import takeuchi
from fishr.grad_mode import outside_inference_mode
from fishr.losses import CrossEntropy, Loss


@outside_inference_mode()
def measure_network(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    *,
    rank: int = 5,
    ridge: float = 1e-3,
    estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
) -> dict[str, Quantity]:
    """Trace, diagonal, top eigenvalues, spectral density, effective rank and Takeuchi criterion of each domain's risk.

    Up to 2048 parameters exact; beyond, estimates of curvlinops with their standard errors, eigenvalues of scipy with
    their residuals, and chains of layers that BackPACK knows with its exact diagonal.

    Args:
        module: from inputs to logits, in eval mode; all trainable parameters of one type.
        inputs: [N, ...] ordered by domain.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample, unscaled.
        rank: eigenvalues of each domain.
        ridge: of the Takeuchi criterion, as a share of the largest eigenvalue.
        estimation: how much is spent on what is estimated, and from which seed.

    Returns:
        Quantities by name.

    Raises:
        InputError: sizes that do not fit, or layers in train mode that mix samples or draw at random.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> found = measure_network(network, torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), (2, 4), rank=2)
        >>> found["top_eigenvalues"].value.shape
        torch.Size([2, 2])
    """
    seen = Inspection(module, inputs, labels, sizes, loss, estimation)
    calls = {
        "hessian_diagonal": hessian_diagonal.of,
        "hessian_trace": hessian_trace.of,
        "top_eigenvalues": partial(top_eigenvalues.of, rank=rank),
        "spectral_density": spectral_density.of,
        "effective_rank": effective_rank.of,
        "takeuchi": partial(takeuchi.of, ridge=ridge),
    }
    return {name: call(seen) for name, call in calls.items()}
