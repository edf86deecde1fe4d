"""IGA: inter-environmental gradient alignment."""

from typing import ClassVar

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import of_each_domain, plus


@frozen
class IGA:
    """Minimize L̄ + λ Σ_e ‖g_e − ḡ‖², by its gradient ḡ + 2λ Σ_e H_e (g_e − ḡ).

    L̄ is the mean of the domains' objectives, g_e the gradient of one by all trained parameters, loss/parameter, ḡ
    their mean and H_e its Hessian. Each Hessian meets a vector, at the cost of one more forward and two more backward
    passes for each domain.

    Args:
        penalty: λ, parameter²/loss.

    Raises:
        InputError: ``penalty`` is negative; in a step, micro-batches.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=IGA(penalty=10.0)).descent
        IGA(penalty=10.0)

    Source: Koyama and Yamaguchi, When is invariance useful in an out-of-distribution generalization problem?, 2020
        (arXiv 2008.01883), with the sum over domains of DomainBed.
    """

    penalty: float = field(default=1000.0, validator=number())
    by_domain: ClassVar[bool] = True

    def init(self, weights: Weights) -> tuple[()]:
        """Return no state."""
        return ()

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of a gradient and a Hessian product of each domain, and one update."""
        found, measured = of_each_domain(gradients, weights)
        total: dict[str, Tensor | None] = {
            name: None if given is None else given.mean(0) for name, given in found.items()
        }
        for index, domain in enumerate(gradients.domains):
            apart = {name: None if given is None else given[index] - given.mean(0) for name, given in found.items()}
            products = gradients.hessian_product(weights, (domain,), apart)
            total = plus(total, products, 2 * self.penalty)
        total, measured = gradients.compared(total, weights, measured)
        moved, memory = optimizer.update(total, memory, weights)
        return Descended(moved, memory, state, measured)
