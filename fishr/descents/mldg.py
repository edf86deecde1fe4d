"""MLDG: a gradient that also lowers the loss of other domains after a step on some."""

from typing import Literal

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import number, one_of, whole
from fishr.descents.descent import Gradients, Measured, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, plus
from fishr.errors import InputError


@frozen
class MLDG(OneUpdate):
    """Update by the gradient of the loss on some domains, plus β times that on others after a step on the first.

    In each step, a random order of the K domains in the batch makes the first K − ``test_domains`` of them training
    domains, the others test domains. g_d is the gradient of the objective on domain d alone.

    - ``form = "domainbed"``: (1/K) Σ (g_i(w) + β g_j(w_i)) over pairs of a training domain i and the next test
      domain j, with w_i after one update of a fresh optimizer by g_i. There are K − ``test_domains`` pairs; with none,
      as of two domains by default, weight decay alone moves the weights. Batch normalization never moves, since
      DomainBed measures on copies of the network.
    - ``form = "paper"``: g(w) + β ∂L(w − α g(w))/∂w = g(w) + β (1 − α H) g'(w − α g(w)), where g and H are of the mean
      over all training domains, g' of that over all test domains. Batch normalization moves by the pass at w.

    Args:
        beta: β.
        test_domains: Number of test domains, at least 1.
        form: ``"domainbed"`` or ``"paper"``.
        inner_lr: α of ``form = "paper"``.

    Raises:
        InputError: A number outside its range, or another form; in a step with ``form = "paper"``, no training domain.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=MLDG(test_domains=1)).descent
        MLDG(beta=1.0, test_domains=1, form='domainbed', inner_lr=0.001)

    Source: Li et al., Learning to generalize: meta-learning for domain generalization, AAAI 2018 (arXiv 1710.03463).
    """

    beta: float = field(default=1.0, validator=number())
    test_domains: int = field(default=2, validator=whole(1))
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))
    inner_lr: float = field(default=1e-3, validator=number())

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the gradients before and after inner updates, by name, and what was measured."""
        order = random_order(gradients)
        cut = max(0, len(order) - self.test_domains)
        split = order[:cut], order[cut:]
        if self.form == "domainbed":
            total, measured = self._of_pairs(gradients, optimizer, weights, *split)
        else:
            total, measured = self._of_groups(gradients, weights, *split)
        return total, measured

    def _of_pairs(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, training: list[int], test: list[int]
    ) -> tuple[dict[str, Tensor | None], Measured]:
        total: dict[str, Tensor | None] = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        # Without a pair, for the record and for penalties with a memory.
        measured = None if training else gradients(weights, gradients.domains)
        for index, domain in enumerate(training):
            here = gradients(weights, (domain,), measured and evolve(measured, buffers=gradients.buffers))
            moved, _ = optimizer.update(here.gradients, optimizer.init(weights), weights)
            measured = gradients(moved, (test[index % len(test)],), here)
            both = plus(here.gradients, measured.gradients, self.beta)
            total = plus(total, both, 1 / len(gradients.domains))
        assert measured is not None
        return total, evolve(measured, buffers=gradients.buffers)

    def _of_groups(
        self, gradients: Gradients, weights: Weights, training: list[int], test: list[int]
    ) -> tuple[dict[str, Tensor | None], Measured]:
        if not training:
            raise InputError(
                f"MLDG: got {len(test)} domains in the batch and {self.test_domains} test domains, expected fewer test "
                'domains; set test_domains lower, or form = "domainbed"'
            )
        first = tuple(sorted(training))
        here = gradients(weights, first, twice=True)
        inner: Weights = {
            name: weight if (given := here.gradients[name]) is None else weight - self.inner_lr * given
            for name, weight in weights.items()
        }
        there = gradients(inner, tuple(sorted(test)), here)
        assert here.hessian_product is not None
        products = here.hessian_product(there.gradients)
        total = plus(plus(here.gradients, there.gradients, self.beta), products, -self.beta * self.inner_lr)
        return total, evolve(there, buffers=here.buffers)


def random_order(gradients: Gradients) -> list[int]:
    """Return the domains of the batch in random order."""
    order = torch.randperm(len(gradients.domains), generator=gradients.generator("MLDG"))
    return [gradients.domains[index] for index in order.tolist()]
