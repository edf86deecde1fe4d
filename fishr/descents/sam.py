"""SAM: sharpness-aware minimization."""

from attrs import field, frozen
from torch import Tensor
from torch.nn.utils import get_total_norm

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights


@frozen
class SAM:
    """Update the weights w by the gradient at w + ρ g/‖g‖, where g is the gradient at w.

    The norm is over all trained parameters. Both gradients have the same samples and draws. Batch normalization and
    penalties with a memory go on from the pass at w, whose losses are recorded.

    Args:
        rho: ρ, the distance at which the gradient is taken, in the unit of the parameters.

    Raises:
        InputError: ``rho`` is negative.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits(), descent=SAM(rho=0.1)).descent
        SAM(rho=0.1)

    Source: Foret et al., Sharpness-aware minimization, ICLR 2021 (arXiv 2010.01412), algorithm 1.
    """

    rho: float = field(default=0.05, validator=number())

    def init(self, weights: Weights) -> tuple[()]:
        """Return no state."""
        return ()

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of two gradients and one update."""
        here = gradients(weights)
        there = gradients(shifted(weights, here.gradients, self.rho / norm_of(here.gradients)))
        moved, memory = optimizer.update(there.gradients, memory, weights)
        return Descended(moved, memory, state, here)


def norm_of(gradients: dict[str, Tensor | None]) -> Tensor:
    """Return the norm over all parameters, plus 1e-12, so that a gradient of 0 moves no weights."""
    return get_total_norm([gradient for gradient in gradients.values() if gradient is not None]) + 1e-12


def shifted(weights: Weights, gradients: dict[str, Tensor | None], factor: Tensor) -> Weights:
    """Return the weights plus a factor times the gradient."""
    given = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    return weights | {name: weights[name] + factor * gradient for name, gradient in given.items()}
