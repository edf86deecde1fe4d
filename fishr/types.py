"""The records every layer shares.

Axes, everywhere in the package: N sample, K domain, P head parameter, C class (head output), F feature.
"""

from collections.abc import Iterable
from itertools import accumulate
from math import prod
from operator import index

import torch
from attrs import field, frozen
from torch import Tensor, nn

from fishr.errors import InputError


def _whole_numbers(values: Iterable[int]) -> tuple[int, ...]:
    try:
        return tuple(index(value) for value in values)
    except TypeError as error:
        raise InputError(f"sizes: got {values!r}, expected a whole number for each domain") from error


def check_sizes(sizes: tuple[int, ...], rows: int) -> None:
    """Refuse domain sizes that do not cut ``rows`` rows into non-empty domains.

    Args:
        sizes: samples of each domain, in the order of the rows.
        rows: N, how many rows there are.

    Raises:
        InputError: a domain is empty, or the sizes do not sum to ``rows``.

    Example:
        >>> check_sizes((2, 3), rows=5)
    """
    if not sizes or min(sizes) < 1:
        raise InputError(f"sizes: got {sizes}, expected at least one sample in each of at least one domain")
    if sum(sizes) != rows:
        raise InputError(f"sizes: got {sizes}, which sum to {sum(sizes)}, expected the {rows} rows of the batch")


@frozen(eq=False)
class DomainBatch:
    """Samples of several domains in one tensor, ordered by domain.

    Args:
        inputs: [N, ...] what the featurizer reads.
        labels: [N] or [N, C] what the loss reads.
        sizes: samples of each domain; the first ``sizes[0]`` rows are domain 0, and so on.

    Raises:
        InputError: the sizes do not cut the rows into non-empty domains, or inputs and labels differ in rows.

    Example:
        >>> batch = DomainBatch(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long), sizes=(2, 3))
        >>> batch.domains
        2
    """

    inputs: Tensor
    labels: Tensor
    sizes: tuple[int, ...] = field(converter=_whole_numbers)

    def __attrs_post_init__(self) -> None:
        check_sizes(self.sizes, len(self.inputs))
        if len(self.labels) != len(self.inputs):
            raise InputError(f"labels: got {len(self.labels)} rows, expected {len(self.inputs)} as in the inputs")

    @property
    def domains(self) -> int:
        """K, the number of domains."""
        return len(self.sizes)


@frozen
class Layout:
    """Which column of a [K, P] statistic belongs to which head parameter.

    Args:
        names: parameters in the order of ``head.named_parameters()``, those that require grad only.
        shapes: their shapes; each parameter takes as many columns as it has elements, in row-major order.

    Example:
        >>> layout = Layout.of(nn.Linear(3, 2))
        >>> layout.names, layout.size
        (('weight', 'bias'), 8)
        >>> {name: tuple(part.shape) for name, part in layout.split(torch.zeros(4, 8)).items()}
        {'weight': (4, 2, 3), 'bias': (4, 2)}
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, head: nn.Module) -> "Layout":
        """The layout of a head's trainable parameters.

        Raises:
            InputError: no parameter of the head requires grad.
        """
        trainable = [(name, tuple(p.shape)) for name, p in head.named_parameters() if p.requires_grad]
        if not trainable:
            raise InputError(
                f"head: {type(head).__name__} has no parameter that requires grad, expected at least one; "
                "gradient statistics are taken with respect to the head's parameters"
            )
        return cls(tuple(name for name, _ in trainable), tuple(shape for _, shape in trainable))

    @property
    def size(self) -> int:
        """P, the number of columns."""
        return sum(map(prod, self.shapes))

    def split(self, statistic: Tensor) -> dict[str, Tensor]:
        """Views of a [..., P] tensor by parameter name, each [..., *shape]."""
        widths = [prod(shape) for shape in self.shapes]
        ends = list(accumulate(widths))
        return {
            name: statistic[..., end - width : end].reshape(*statistic.shape[:-1], *shape)
            for name, shape, width, end in zip(self.names, self.shapes, widths, ends, strict=True)
        }


@frozen(eq=False)
class GradientMoments:
    """First and second moments of the head's per-sample gradients in each domain.

    With g_i the gradient of the unscaled loss of sample i with respect to the head's parameters and n
    the domain's size: mean = (1/n) Σ g_i and variance = (1/n) Σ (g_i − mean)².

    Args:
        count: samples of each domain (K numbers).
        mean: [K, P], loss/parameter.
        variance: [K, P], population variance, (loss/parameter)²; as computed, never clamped.
        layout: which column is which parameter.

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
            InputError: a domain has a single sample, for which it is not defined.
        """
        if min(self.count) < 2:
            raise InputError(
                f"sizes: got {self.count}, expected at least 2 samples in every domain for the unbiased variance"
            )
        factors = [n / (n - 1) for n in self.count]
        return self.variance * self.variance.new_tensor(factors).unsqueeze(1)

    def detach(self) -> "GradientMoments":
        """The same moments without a graph."""
        return GradientMoments(self.count, self.mean.detach(), self.variance.detach(), self.layout)


@frozen
class Problem:
    """What a penalty needs to know to make its first state.

    Args:
        layout: the head's parameters.
        domains: K, the number of training domains.
        dtype: of the statistics.
        device: of the statistics.

    Example:
        >>> Problem.of(nn.Linear(3, 2), domains=3).zeros().shape
        torch.Size([3, 8])
    """

    layout: Layout
    domains: int
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    @classmethod
    def of(cls, head: nn.Module, domains: int) -> "Problem":
        """The problem of a head trained on ``domains`` domains; statistics are float32 or wider."""
        layout = Layout.of(head)
        first = next(p for p in head.parameters() if p.requires_grad)
        return cls(layout, domains, torch.promote_types(first.dtype, torch.float32), first.device)

    def zeros(self) -> Tensor:
        """[K, P] zeros, the first state of a running statistic."""
        return torch.zeros(self.domains, self.layout.size, dtype=self.dtype, device=self.device)
