"""DANN: a risk against a discriminator that tells domains apart by their features."""

from functools import partial

from attrs import field, frozen
from torch import Tensor
from torch.nn.functional import cross_entropy

from fishr.checks import number, one_of
from fishr.methods.adversary import RANGES, Adversary, Form, adversary_of, changes_of, rates_on, with_graph
from fishr.methods.method import Method
from fishr.observation import Observation
from fishr.training.objective import Objective
from fishr.training.owned import Owned, applied, template
from fishr.types import Problem


@frozen
class DANN:
    """R̄ − λ D, where D is the mean cross-entropy of a discriminator of domains, which minimizes D; a risk.

    D = mean_i ℓ_i + ρ · mean_i ‖∂ Σ_j ℓ_j / ∂z_i‖², with the discriminator's losses ℓ_i = −log p(domain of i | z_i). R̄
    is the mean loss of all samples and z the features. The state is the discriminator, see ``Owned``.

    Args:
        weight: λ.
        adversary: the discriminator.
        form: ``"domainbed"``: network and discriminator take turns, one step of the network after ``adversary.steps``
            of the discriminator, and the value of a discriminator's step is D; ``"paper"``: both learn in every step,
            as by a layer that reverses gradients.

    Raises:
        InputError: a weight below 0 or another form; in ``init``, a problem of unknown width.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head, risk = torch.nn.Linear(3, 2), DANN(weight=0.5)
        >>> batch = DomainBatch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> state = risk.init(Problem.of(head, domains=2))
        >>> value, state = risk(observe(torch.nn.Identity(), head, batch, seed=0), state, step=1)
        >>> value.requires_grad, state.memory.steps[0]  # the discriminator's turn
        (False, 1)

    Source:
        Ganin et al., Domain-adversarial training of neural networks, JMLR 2016 (arXiv 1505.07818); the gradient
        penalty and the turns are DomainBed's.
    """

    weight: float = field(default=1.0, validator=number())
    adversary: Adversary = Adversary()  # noqa: RUF009 (immutable)
    form: Form = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def init(self, problem: Problem) -> Owned:
        """Return the first discriminator."""
        build = partial(self.adversary.network, problem.widths("DANN")[0], problem.domains)
        return Owned.of(build, self.adversary.optimizer, problem, "discriminator")

    def __call__(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        """Return the risk, 0-dim, in the loss's unit, and the discriminator after the step."""
        features, leaves = with_graph(seen.features), state.leaves()
        network = template(partial(self.adversary.network, features.shape[1], seen.batch.domains))
        logits = applied(network, leaves, features, generator=seen.generator("DANN"))
        losses = cross_entropy(logits, seen.domain_ids, reduction="none")
        value = self.adversary.penalized(losses.mean(), losses, features)

        def risk() -> Tensor:
            return seen.losses.mean() - self.weight * value

        return self.adversary.contested(value, risk, leaves, state, step, seen, self.form == "paper")


METHODS = {
    "DANN": Method(
        RANGES,
        lambda h: Objective(risk=DANN(h["lambda"], adversary_of(h))),
        changes_of,
        rates_on,
    )
}
