"""CDANN: a risk against a discriminator that tells domains apart by features and class."""

from functools import partial

from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fishr.checks import number, one_of
from fishr.methods.adversary import RANGES, Adversary, Form, adversary_of, changes_of, rates_on, with_graph
from fishr.methods.method import Method, require_classes
from fishr.observation import Observation
from fishr.training.objective import Objective
from fishr.training.owned import Owned, applied, template
from fishr.types import Problem


class _Conditional(nn.Module):
    """A discriminator of features plus an embedding of their class."""

    def __init__(self, adversary: Adversary, features: int, classes: int, domains: int) -> None:
        super().__init__()
        self.class_embeddings = nn.Embedding(classes, features)
        self.discriminator = adversary.network(features, domains)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.discriminator(features + self.class_embeddings(labels))


@frozen
class CDANN:
    """R̄ − λ D as ``DANN``, of a discriminator of z + e(y), with e an embedding of the classes; a risk.

    D = Σ_i w_i ℓ_i + ρ · mean_i ‖∂ Σ_j ℓ_j / ∂z_i‖², with the discriminator's losses ℓ_i = −log p(domain of i | z_i +
    e(y_i)). A sample of a class with n samples in the batch has w = 1/(n C), so that all classes have the same weight.
    The state is the discriminator with the embedding, which it trains.

    Args:
        weight: λ.
        adversary: the discriminator.
        form: ``"domainbed"``: C is the largest label of the batch plus 1, w is rounded to float32, and both take turns;
            ``"paper"``: C is the number of classes in the batch, and both learn in every step.

    Raises:
        InputError: a weight below 0 or another form; in ``init``, a problem of unknown width; when called, labels that
            are no class indices.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(3, 2)
        >>> sorted(CDANN().init(Problem.of(head, domains=2)).parameters)[0]
        'class_embeddings.weight'

    Source:
        Li et al., Deep domain generalization via conditional invariant adversarial networks, ECCV 2018, which has one
        discriminator for each class and one more of all; the embedding is DomainBed's.
    """

    weight: float = field(default=1.0, validator=number())
    adversary: Adversary = Adversary()  # noqa: RUF009 (immutable)
    form: Form = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def init(self, problem: Problem) -> Owned:
        """Return the first discriminator and embedding."""
        build = partial(_Conditional, self.adversary, *problem.widths("CDANN"), problem.domains)
        return Owned.of(build, self.adversary.optimizer, problem, "discriminator")

    def __call__(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        """Return the risk, 0-dim, in the loss's unit, and the discriminator after the step."""
        require_classes(seen, "CDANN")
        features, leaves = with_graph(seen.features), state.leaves()
        sizes = (features.shape[1], seen.logits.shape[1], seen.batch.domains)
        network = template(partial(_Conditional, self.adversary, *sizes))
        logits = applied(network, leaves, (features, seen.labels), generator=seen.generator("CDANN"))
        losses = cross_entropy(logits, seen.domain_ids, reduction="none")
        value = self.adversary.penalized(self._weights(seen.labels, losses) @ losses, losses, features)

        def risk() -> Tensor:
            return seen.losses.mean() - self.weight * value

        return self.adversary.contested(value, risk, leaves, state, step, seen, self.form == "paper")

    def _weights(self, labels: Tensor, losses: Tensor) -> Tensor:
        counts = labels.bincount()
        classes = len(counts) if self.form == "domainbed" else (counts > 0).sum()
        weights = 1 / (counts[labels] * classes).to(losses.dtype)
        return weights.float().to(losses.dtype) if self.form == "domainbed" else weights


METHODS = {
    "CDANN": Method(
        RANGES,
        lambda h: Objective(risk=CDANN(h["lambda"], adversary_of(h))),
        changes_of,
        rates_on,
    )
}
