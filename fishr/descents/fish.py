"""Fish: the direction in which one update for each domain leads."""

from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import EachDomain


@frozen
class Fish(EachDomain):
    """w ← w + ε (w̃ − w), where w̃ is w after one update of the optimizer for each domain in turn.

    To first order, this increases the inner products of the domains' gradients. The memory of the optimizer goes on
    through all of these updates, and from step to step. Buffers of floating point, such as the running statistics of
    batch normalization, are interpolated like the weights.

    Args:
        epsilon: ε, greater than 0; at 1 the updates are kept as they are.

    Raises:
        InputError: ``epsilon`` is not greater than 0.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=Fish(epsilon=0.1)).descent
        Fish(epsilon=0.1)

    Source: Shi et al., Gradient matching for domain generalization, ICLR 2022 (arXiv 2104.09937), algorithm 2.
    """

    epsilon: float = field(default=0.5, validator=number(above=True))

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of one gradient and one update for each domain."""
        moved, measured = weights, None
        for domain in gradients.domains:
            measured = gradients(moved, (domain,), measured)
            own, measured = gradients.compared(measured.gradients, moved, measured)
            moved, memory = optimizer.update(own, memory, moved)
        assert measured is not None
        buffers = measured.buffers | self._between(gradients.buffers, measured.buffers)
        return Descended(self._between(weights, moved), memory, state, evolve(measured, buffers=buffers))

    def _between(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value + self.epsilon * (after[name] - value)
            for name, value in before.items()
            if value.is_floating_point()
        }
