"""Mean and variance of per-sample gradients in each domain."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.types import Layout


@traceable
@frozen(eq=False)
class GradientMoments:
    """Mean and variance of the head's per-sample gradients in each domain.

    With g_i the gradient of the unscaled loss of sample i by the head's parameters, and n the domain's size:
    mean = (1/n) Σ g_i and variance = (1/n) Σ (g_i − mean)².

    Args:
        count: samples of each domain (K numbers).
        mean: [K, P], loss/parameter.
        variance: [K, P], population variance, (loss/parameter)²; never clamped.
        layout: the parameter of each column.

    Raises:
        InputError: when ``unbiased_variance`` is read, a domain with a single sample.

    Example:
        >>> layout = Layout(("weight",), ((2,),))
        >>> moments = GradientMoments((4,), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]), layout)
        >>> moments.second_moment
        tensor([[4., 9.]])
        >>> moments.unbiased_variance
        tensor([[4.0000, 6.6667]])
    """

    count: tuple[int, ...]
    mean: Tensor
    variance: Tensor
    layout: Layout

    @property
    def second_moment(self) -> Tensor:
        """[K, P], (1/n) Σ g_i², the diagonal of the empirical Fisher, (loss/parameter)²."""
        return torch.addcmul(self.variance, self.mean, self.mean)

    @property
    def unbiased_variance(self) -> Tensor:
        """[K, P], (1/(n−1)) Σ (g_i − mean)².

        Raises:
            InputError: a domain has a single sample.
        """
        if min(self.count) < 2:
            raise InputError(
                f"sizes: got {self.count}, expected at least 2 samples in every domain for the unbiased variance; draw "
                "more samples of each, or divide by n (unbiased=False)"
            )
        factors = [n / (n - 1) for n in self.count]
        return self.variance * self.variance.new_tensor(factors).unsqueeze(1)

    def detach(self) -> "GradientMoments":
        """Return the moments without a graph."""
        return GradientMoments(self.count, self.mean.detach(), self.variance.detach(), self.layout)
