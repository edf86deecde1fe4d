"""Records shared by all layers, and checks of their tensors.

Axes, in the whole package: N sample, K domain, P head parameter, C class (head output), F feature.
"""

from collections import OrderedDict
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import accumulate
from math import prod
from operator import index
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fishr.errors import InputError


def whole_numbers(values: Iterable[int]) -> tuple[int, ...]:
    """Return domain sizes as a tuple of whole numbers."""
    try:
        return tuple(index(value) for value in values)
    except TypeError as error:
        got = " ".join(repr(values).split())
        raise InputError(f"sizes: got {got}, expected a whole number for each domain") from error


def check_sizes(sizes: Iterable[int], rows: int) -> tuple[int, ...]:
    """Return domain sizes as a tuple if they split ``rows`` rows into non-empty domains."""
    sizes = whole_numbers(sizes)
    if not sizes or min(sizes) < 1:
        raise InputError(f"sizes: got {sizes}, expected at least one sample in each of at least one domain")
    if sum(sizes) != rows:
        raise InputError(f"sizes: got {sizes}, which sum to {sum(sizes)}, expected the {rows} rows of the batch")
    return sizes


def check_batch(inputs: Tensor, labels: Tensor, sizes: Iterable[int], name: str = "features") -> tuple[int, ...]:
    """Return domain sizes as a tuple if they fit inputs and labels, tensors with as many rows."""
    check_rows(inputs, labels, name)
    return check_sizes(sizes, len(inputs))


def check_rows(inputs: Tensor, labels: Tensor, name: str = "features") -> None:
    """Refuse inputs and labels that are not tensors with as many rows."""
    _check_tensor(name, inputs)
    _check_tensor("labels", labels)
    if len(labels) != len(inputs):
        raise InputError(f"labels: got {len(labels)} rows, expected {len(inputs)} as in the {name}")


def _check_tensor(name: str, rows: Any) -> None:
    if not isinstance(rows, Tensor):
        raise InputError(
            f"{name}: got {_kind(rows)}, expected a torch.Tensor with a row for each sample; use torch.as_tensor"
        )
    if not rows.ndim:
        raise InputError(f"{name}: got a single number, expected a row for each sample")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


@frozen(eq=False)
class DomainBatch:
    """Samples of several domains in one tensor, ordered by domain.

    Args:
        inputs: [N, ...] inputs of the featurizer.
        labels: [N] or [N, C] targets of the loss.
        sizes: samples of each domain; the first ``sizes[0]`` rows are domain 0, and so on.

    Raises:
        InputError: the sizes do not split the rows into non-empty domains, inputs or labels are not tensors, or they
            differ in rows.

    Example:
        >>> batch = DomainBatch(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long), sizes=(2, 3))
        >>> batch.domains
        2
    """

    inputs: Tensor
    labels: Tensor
    sizes: tuple[int, ...] = field(converter=whole_numbers)

    def __attrs_post_init__(self) -> None:
        check_batch(self.inputs, self.labels, self.sizes, "inputs")

    @property
    def domains(self) -> int:
        """K, the number of domains."""
        return len(self.sizes)


HEAD = ("head",)


def check_module(module: Any) -> None:
    """Refuse a head that is not a module, or has parameters without a shape."""
    if not isinstance(module, nn.Module):
        raise InputError(f"head: got {_kind(module)}, expected a torch.nn.Module")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise InputError(
                f"head: parameter {name!r} of {type(module).__name__} has no shape yet, expected a module whose lazy "
                "layers are initialized; call it once on a batch"
            )


def chained(featurizer: nn.Module, head: nn.Module) -> nn.Module:
    """Return featurizer and head as one module, whose layers are named "featurizer.…" and "head.…"."""
    return nn.Sequential(OrderedDict(featurizer=featurizer, head=head))


@frozen
class Layout:
    """The head parameter of each column of a [K, P] statistic.

    Args:
        names: chosen parameters that require grad, in the order of ``head.named_parameters()``.
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
    def of(cls, head: nn.Module, layers: tuple[str, ...] | None = None) -> "Layout":
        """Return the layout of a head's trainable parameters, or of those in some of its layers.

        Args:
            head: a module, up to a whole network.
            layers: names of modules or parameters, such as ``"layer4"`` or ``"layer4.0.conv1.weight"``; each stands
                for all parameters below it. None: all.

        Raises:
            InputError: no parameter of the head requires grad, or none below one of the names, or a parameter of a
                lazy layer has no shape yet.

        Example:
            >>> head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> Layout.of(head, ("2", "0.bias")).names
            ('0.bias', '2.weight', '2.bias')
        """
        check_module(head)
        trainable = [(name, tuple(p.shape)) for name, p in head.named_parameters() if p.requires_grad]
        if not trainable:
            raise InputError(
                f"head: {type(head).__name__} has no parameter that requires grad, expected at least one; "
                "gradient statistics are taken with respect to the head's parameters"
            )
        if layers is not None:
            chosen = _chosen(head, layers)
            trainable = [(name, shape) for name, shape in trainable if id(head.get_parameter(name)) in chosen]
        return cls(tuple(name for name, _ in trainable), tuple(shape for _, shape in trainable))

    @property
    def size(self) -> int:
        """P, the number of columns."""
        return sum(map(prod, self.shapes))

    def split(self, statistic: Tensor) -> dict[str, Tensor]:
        """Return views of a [..., P] tensor by parameter name, each [..., *shape]."""
        widths = [prod(shape) for shape in self.shapes]
        ends = list(accumulate(widths))
        return {
            name: statistic[..., end - width : end].reshape((*statistic.shape[:-1], *shape))
            for name, shape, width, end in zip(self.names, self.shapes, widths, ends, strict=True)
        }


def _chosen(head: nn.Module, layers: tuple[str, ...]) -> set[int]:
    """Return the ids of the parameters below the names; a tied one is below each of its names."""
    if isinstance(layers, str) or not layers:
        raise InputError(f"layers: got {layers!r}, expected a tuple of names, or None for all parameters")
    every = [(name, p) for name, p in head.named_parameters(remove_duplicate=False) if p.requires_grad]
    found = {layer: {id(p) for name, p in every if f"{name}.".startswith(f"{layer}.")} for layer in layers}
    missing = next((layer for layer, below in found.items() if not below), None)
    if missing is not None:
        parts = [name.split(".") for name, _ in every]
        known = dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1))
        close = get_close_matches(missing, known) or list(dict.fromkeys(part[0] for part in parts))
        raise InputError(
            f"layers: got {missing!r}, which no trainable parameter of {type(head).__name__} has in its name; "
            f"expected the name of a layer or a parameter, such as {', '.join(map(repr, close))}"
        )
    return set[int]().union(*found.values())


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
                f"sizes: got {self.count}, expected at least 2 samples in every domain for the unbiased variance"
            )
        factors = [n / (n - 1) for n in self.count]
        return self.variance * self.variance.new_tensor(factors).unsqueeze(1)

    def detach(self) -> "GradientMoments":
        """Return the moments without a graph."""
        return GradientMoments(self.count, self.mean.detach(), self.variance.detach(), self.layout)


@frozen
class Problem:
    """The shapes and types that a penalty's first state depends on.

    Example:
        >>> Problem.of(nn.Linear(3, 2), domains=3).zeros().shape
        torch.Size([3, 8])
    """

    layout: Layout
    domains: int
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    @classmethod
    def of(cls, head: nn.Module, domains: int, layers: tuple[str, ...] | None = None) -> "Problem":
        """Return the problem of a head trained on K domains; statistics are float32 or wider.

        Args:
            layers: names of its layers or parameters, as for ``Layout.of``; None: all.
        """
        layout = Layout.of(head, layers)
        first = next(p for p in head.parameters() if p.requires_grad)
        return cls(layout, domains, torch.promote_types(first.dtype, torch.float32), first.device)

    def require_domains(self, name: str, least: int) -> None:
        """Refuse fewer training domains than a penalty compares; without this, it would silently stay zero.

        Raises:
            InputError: there are fewer.
        """
        if self.domains < least:
            domains = "domain" if self.domains == 1 else "domains"
            raise InputError(
                f"{name}: got {self.domains} training {domains}, expected at least {least} to compare; "
                "train on more domains, or without the penalty"
            )

    def zeros(self) -> Tensor:
        """Return zeros [K, P], the first state of a running statistic."""
        return torch.zeros(self.domains, self.layout.size, dtype=self.dtype, device=self.device)
