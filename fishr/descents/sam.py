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
        there = gradients(_shifted(weights, here.gradients, self.rho))
        moved, memory = optimizer.update(there.gradients, memory, weights)
        return Descended(moved, memory, state, here)


def _shifted(weights: Weights, gradients: dict[str, Tensor | None], distance: float) -> Weights:
    """Return the weights at a distance along the gradient; a gradient of 0 leaves them where they are."""
    given = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    factor = distance / (get_total_norm(given.values()) + 1e-12)
    return weights | {name: weights[name] + factor * gradient for name, gradient in given.items()}
