"""IGA: inter-environmental gradient alignment."""

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, of_each_domain, plus


@frozen
class IGA(OneUpdate):
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

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the means and the slopes of the variance, by name, and what was measured."""
        found, measured = of_each_domain(gradients, weights)
        total: dict[str, Tensor | None] = {
            name: None if given is None else given.mean(0) for name, given in found.items()
        }
        for index, domain in enumerate(gradients.domains):
            apart = {name: None if given is None else given[index] - given.mean(0) for name, given in found.items()}
            products = gradients.hessian_product(weights, (domain,), apart)
            total = plus(total, products, 2 * self.penalty)
        return total, measured
