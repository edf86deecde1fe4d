"""SAGM: sharpness-aware gradient matching."""

from attrs import field, frozen

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.descents.sam import norm_of, shifted


@frozen
class SAGM:
    """Update the weights w by ½ g(w) + ½ g(w + e), with e = (ρ/‖g‖ − α) g and g = g(w).

    This lowers the loss, its value at the perturbed weights, and the angle between the gradients at both. The norm is
    over all trained parameters. Batch normalization and penalties with a memory go on from the pass at w, whose losses
    are recorded.

    Args:
        rho: ρ, the distance of SAM, in the unit of the parameters.
        alpha: α, the step of the gradient that is taken back, parameter²/loss.

    Raises:
        InputError: A number is negative.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits(), descent=SAGM()).descent
        SAGM(rho=0.05, alpha=0.001)

    Source: Wang et al., Sharpness-aware gradient matching for domain generalization, CVPR 2023 (arXiv 2303.10353).
    """

    rho: float = field(default=0.05, validator=number())
    alpha: float = field(default=0.001, validator=number())

    def init(self, weights: Weights) -> tuple[()]:
        """Return no state."""
        return ()

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of two gradients and one update."""
        here = gradients(weights)
        there = gradients(shifted(weights, here.gradients, self.rho / norm_of(here.gradients) - self.alpha))
        halves = {
            name: None if one is None or (other := there.gradients[name]) is None else (one + other) / 2
            for name, one in here.gradients.items()
        }
        moved, memory = optimizer.update(halves, memory, weights)
        return Descended(moved, memory, state, here)
