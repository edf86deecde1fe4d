"""The head protocol, and the heads: LinearHead, MLPHead and LabelHead."""

from typing import Literal, Protocol

import torch
from attrs import field, frozen
from attrs.validators import deep_iterable
from torch import Tensor, nn

from fishr.checks import one_of, whole
from fishr.errors import InputError
from fishr.models.initialization import hidden_layers, seeded_by, xavier_linear


class Head(Protocol):
    """Frozen settings whose call builds the module from features to the logits that the loss takes.

    Any frozen attrs class with this method is a head; it inherits nothing.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class Unbiased:
        ...     def __call__(self, features, outputs, generator):
        ...         head = nn.Linear(features, outputs, bias=False, device=generator.device)
        ...         nn.init.zeros_(head.weight)
        ...         return head
        >>> own: Head = Unbiased()
        >>> own(4, 2, torch.Generator())(torch.ones(3, 4)).shape
        torch.Size([3, 2])
    """

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Return the module from features [N, F] to logits [N, outputs], on the generator's device."""
        ...


@frozen
class LinearHead:
    """One linear layer; its per-domain statistics have a closed form.

    Args:
        init: First weights. ``"xavier"``: uniform on ±√(6 / (features + outputs)), biases 0.
            ``"torch"``: all uniform on ±1/√features, the default of ``nn.Linear`` and of DomainBed.

    Raises:
        InputError: Another ``init``.

    Example:
        >>> LinearHead()(4, 2, torch.Generator().manual_seed(0))
        Linear(in_features=4, out_features=2, bias=True)
        >>> LinearHead(init="torch")(4, 2, torch.Generator().manual_seed(0)).bias.count_nonzero()
        tensor(2)
    """

    init: Literal["xavier", "torch"] = field(default="xavier", validator=one_of("xavier", "torch"))

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Return the module from features [N, F] to logits [N, outputs], with weights drawn from the generator."""
        if self.init == "xavier":
            return xavier_linear(features, outputs, generator)
        with seeded_by(generator):
            return nn.Linear(features, outputs).to(generator.device)


@frozen
class MLPHead:
    """Linear and ReLU layers, then a linear layer.

    Args:
        widths: Features after each hidden layer, at least one layer.

    Raises:
        InputError: There is no hidden layer, or a width is below 1.

    Example:
        >>> head = MLPHead(widths=(3,))(4, 2, torch.Generator().manual_seed(0))
        >>> head(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """

    widths: tuple[int, ...] = field(default=(390,), validator=deep_iterable(whole(1)))

    def __attrs_post_init__(self) -> None:
        if not self.widths:
            raise InputError("widths: got none, expected at least one hidden layer; use LinearHead for none")

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Return the module from features [N, F] to logits [N, outputs], with weights drawn from the generator."""
        hidden = hidden_layers(features, self.widths, generator)
        return nn.Sequential(*hidden, xavier_linear(self.widths[-1], outputs, generator))


@frozen
class LabelHead:
    """Head that reads the first half of the features, l of [l, d], by three linear layers with ReLU between them.

    The hidden layers have F/2 and F/4 outputs, rounded down, for F features in l.

    Example:
        >>> head = LabelHead()(16, 3, torch.Generator())
        >>> torch.equal(head(torch.ones(1, 16)), head(torch.tensor([[1.0] * 8 + [5.0] * 8])))
        True

    Source:
        DomainBed's nonlinear classifier.
    """

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Return the module from features [N, 2F] to logits [N, outputs], with weights drawn from the generator."""
        with seeded_by(generator):
            return nn.Sequential(_FirstHalf(), nonlinear_classifier(features // 2, outputs)).to(generator.device)


class _FirstHalf(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.chunk(2, 1)[0]


def nonlinear_classifier(features: int, outputs: int) -> nn.Module:
    """Return linear layers to F/2, F/4 and the outputs, with ReLU between them, drawn by torch's global generator."""
    first, second = features // 2, features // 4
    hidden = nn.Linear(features, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(second, outputs))
