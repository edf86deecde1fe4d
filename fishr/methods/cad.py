"""CAD and CondCAD: a contrastive bottleneck that makes a sample's nearest neighbors come from all domains."""

from typing import ClassVar, Literal

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn.functional import normalize

from fishr.checks import number, one_of
from fishr.errors import InputError
from fishr.methods.method import Hparams, Method, require_classes
from fishr.methods.ranges import Range, choice, fixed
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless, require_present
from fishr.training.objective import Objective

_BASE_TEMPERATURE = 0.07


@frozen
class CAD(Memoryless):
    """−(τ/0.07) · mean_i log Σ_{j of another domain} p_ij, with p_ij ∝ exp(z_i·z_j/τ) over the other samples j ≠ i.

    With ``flipped=False`` it is +(τ/0.07) · mean_i log Σ_{j of the same domain} p_ij. Anchors i are the samples with
    another one of their class in the batch. With ``conditional`` (CondCAD), j are samples of the class of i, and
    anchors those with such a j of another domain (of the same one if not flipped). Terms that are not finite are left
    out.

    Args:
        temperature: τ, in features squared.
        conditional: compare samples of one class.
        flipped: maximize the probability of other domains instead of minimizing that of the same one.
        normalized: features of norm 1.
        form: with neither ``flipped`` nor ``conditional``, ``"domainbed"`` counts the anchor itself among the samples
            of its domain, with z_i·z_i replaced by 0; ``"paper"`` does not.

    Raises:
        InputError: a temperature that is not positive; when called, fewer than 2 domains or labels that are no class
            indices.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.zeros(3, 1), torch.tensor([0, 0, 0]), sizes=(1, 2))
        >>> seen = observe(torch.nn.Identity(), torch.nn.Linear(1, 2), batch)
        >>> CAD(temperature=0.07)(seen, (), 0)[0]  # −(log 1 + 2 log ½) / 3
        tensor(0.4621)

    Source:
        Ruan, Dubois and Maddison 2022 (arXiv 2201.00057).
    """

    temperature: float = field(default=0.1, validator=number(above=True))
    conditional: bool = False
    flipped: bool = True
    normalized: bool = False
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))
    least_domains: ClassVar[int] = 2

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in nats."""
        require_present(seen, "CAD", self.least_domains)
        require_classes(seen, "CAD")
        features = seen.features.flatten(1)
        features = normalize(features) if self.normalized else features
        others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
        same_class = (seen.labels.unsqueeze(1) == seen.labels) & others
        same_domain = seen.domain_ids.unsqueeze(1) == seen.domain_ids
        compared = same_class if self.conditional else others
        wanted = ~same_domain if self.flipped else same_domain
        itself = self.form == "domainbed" and not self.conditional
        wanted = wanted & (compared | torch.eye(len(features), dtype=torch.bool, device=features.device) & itself)
        similarity = (features @ features.T / self.temperature).where(others, 0.0)
        log_sums = _log_sum(similarity, wanted) - _log_sum(similarity, compared)
        anchors = (same_class & wanted if self.conditional else same_class).any(1)
        finite = anchors & log_sums.isfinite()
        mean = log_sums.where(finite, 0.0).sum() / finite.sum().clamp(min=1)
        return (-1 if self.flipped else 1) * self.temperature / _BASE_TEMPERATURE * mean, state


def _log_sum(similarity: Tensor, chosen: Tensor) -> Tensor:
    """Return log Σ exp over the chosen columns of each row; −∞ where none is chosen."""
    return similarity.masked_fill(~chosen, -torch.inf).logsumexp(1)


def _objective(h: Hparams, conditional: bool) -> Objective:
    if h["is_project"]:
        raise InputError("is_project: got true, expected false; no network that projects features is implemented")
    penalty = CAD(h["temperature"], conditional, h["is_flipped"], h["is_normalized"])
    return Objective(penalty=Total(cad=Scaled(penalty, h["lmbda"])))


_RANGES = {
    "lmbda": Range(1e-1, choice((1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2))),
    "temperature": Range(0.1, choice((0.05, 0.1))),
    "is_normalized": fixed(False),
    "is_project": fixed(False),
    "is_flipped": fixed(True),
}
METHODS = {
    "CAD": Method(_RANGES, lambda h: _objective(h, conditional=False)),
    "CondCAD": Method(_RANGES, lambda h: _objective(h, conditional=True)),
}
