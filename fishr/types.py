"""Records shared by all layers.

Axes, in the whole package: N sample, K domain, P head parameter, C class (head output), F feature.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fishr.checks import nearest_layers
from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.row_checks import check_domains, check_inputs, check_sizes, kind, whole_numbers
from fishr.seeding import named_generator
from fishr.tensor_trees import each_tensor, to_device


@traceable
@frozen(eq=False)
class DomainBatch:
    """Samples of several domains, ordered by domain; ``DomainBatch.of`` takes them in any order.

    Args:
        inputs: of the featurizer: a tensor [N, ...], or dicts, tuples and lists of such tensors.
        labels: [N] or [N, C] targets of the loss.
        sizes: samples of each of K domains; the first ``sizes[0]`` rows are domain 0, and so on. A domain of 0 samples
            is missing from this batch: quantities of domains have no row for it, penalties compare those present, and
            its moving average stays as it is.

    Raises:
        InputError: the sizes do not split the rows, there is no sample, inputs or labels are not tensors, or they
            differ in rows.

    Example:
        >>> batch = DomainBatch(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long), sizes=(2, 3))
        >>> batch.domains
        2
    """

    inputs: Any
    labels: Tensor
    sizes: tuple[int, ...] = field(converter=whole_numbers)

    def __attrs_post_init__(self) -> None:
        check_inputs(self.inputs, self.labels)
        check_sizes(self.sizes, len(self.labels), least=0)

    @classmethod
    def of(
        cls, inputs: Any, labels: Tensor, domains: Tensor | Sequence[int], number: int | None = None
    ) -> "DomainBatch":
        """Return samples that come in any order as a batch.

        Rows are those of ``torch.argsort(domains, stable=True)``: they keep their order within a domain. Quantities of
        a batch are therefore bit-identical however the domains are interleaved; another order within a domain changes
        sums by rounding alone (1e-12 in float64), except for ``IRM("half_batches")``, which pairs neighbors.

        Args:
            inputs: a tensor [N, ...], or dicts, tuples and lists of such tensors.
            labels: [N] or [N, C].
            domains: [N] whole numbers from 0 to K − 1, the domain of each sample.
            number: K; needed where the last domains may be missing from a batch. None: the largest of ``domains`` + 1.

        Raises:
            InputError: domains that are no whole numbers from 0 to K − 1, or another number of them than samples.

        Example:
            >>> batch = DomainBatch.of(torch.tensor([[3.0], [1.0], [4.0]]), torch.zeros(3), domains=[2, 0, 2], number=4)
            >>> batch.sizes, batch.inputs.flatten()
            ((1, 0, 2, 0), tensor([1., 3., 4.]))
        """
        check_inputs(inputs, labels)
        ids = check_domains(domains, len(labels), number)
        order = ids.argsort(stable=True)
        inputs, labels = each_tensor(lambda tensor: tensor[order.to(tensor.device)], (inputs, labels))
        return cls(inputs, labels, ids.bincount(minlength=number or 0).tolist())

    @property
    def domains(self) -> int:
        """K, the number of domains, those without a sample in this batch included."""
        return len(self.sizes)

    def to(self, device: torch.device | str) -> "DomainBatch":
        """Return the batch with inputs and labels on a device."""
        return evolve(self, inputs=to_device(self.inputs, device), labels=self.labels.to(device))


HEAD = ("head",)


def check_module(module: Any) -> None:
    """Refuse a head that is not a module, or has parameters without a shape."""
    if not isinstance(module, nn.Module):
        raise InputError(f"head: got {kind(module)}, expected a torch.nn.Module")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise InputError(
                f"head: parameter {name!r} of {type(module).__name__} has no shape yet, expected a module whose lazy "
                "layers are initialized; call it once on a batch"
            )


def chained(featurizer: nn.Module, head: nn.Module) -> nn.Module:
    """Return featurizer and head as one module, whose layers are named "featurizer.…" and "head.…"."""
    return nn.Sequential(OrderedDict(featurizer=featurizer, head=head))


@traceable
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
        near = nearest_layers(missing, [name for name, _ in every])
        raise InputError(
            f"layers: got {missing!r}, which no trainable parameter of {type(head).__name__} has in its name; "
            f"expected the name of a layer or a parameter, such as {near}"
        )
    return set[int]().union(*found.values())


@traceable
@frozen
class Problem:
    """The shapes, the types and the seed that a penalty's first state depends on.

    Args:
        layout: the parameters that gradient statistics are taken by.
        domains: K.
        dtype: of the first state.
        device: of the first state.
        features: F of the head's inputs; None: not known.
        outputs: C; None: not known.
        seed: of ``generator``; the same on all ranks.

    Example:
        >>> problem = Problem.of(nn.Linear(3, 2), domains=3)
        >>> problem.zeros().shape, problem.widths("mine")
        (torch.Size([3, 8]), (3, 2))
    """

    layout: Layout
    domains: int
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    features: int | None = None
    outputs: int | None = None
    seed: int = 0

    @classmethod
    def of(
        cls,
        head: nn.Module,
        domains: int,
        layers: tuple[str, ...] | None = None,
        features: int | None = None,
        outputs: int | None = None,
        seed: int = 0,
    ) -> "Problem":
        """Return the problem of a head trained on K domains; statistics are float32 or wider.

        Args:
            layers: names of its layers or parameters, as for ``Layout.of``; None: all.
            features: F; None: read off a head that is one ``nn.Linear``.
            outputs: C; None: likewise.
            seed: of the first weights of penalties that train some of their own.
        """
        if isinstance(domains, bool) or not isinstance(domains, int) or domains < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"domains: got {domains!r}, expected the number of training domains")
        layout = Layout.of(head, layers)
        first = next(p for p in head.parameters() if p.requires_grad)
        dtype = torch.promote_types(first.dtype, torch.float32)
        if isinstance(head, nn.Linear):
            features, outputs = features or head.in_features, outputs or head.out_features
        return cls(layout, domains, dtype, first.device, features, outputs, seed)

    def widths(self, name: str) -> tuple[int, int]:
        """Return F and C for a penalty that has a network of its own.

        Raises:
            InputError: they are not known.
        """
        if self.features is None or self.outputs is None:
            raise InputError(
                f"{name}: got a problem of unknown width, expected the number of features and of outputs; give both: "
                "Problem.of(head, domains, features=..., outputs=...)"
            )
        return self.features, self.outputs

    def generator(self, name: str) -> torch.Generator:
        """Return a generator on the CPU for the first values of a penalty's state, by the seed and a name alone."""
        return named_generator(self.seed, f"first {name}")

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
