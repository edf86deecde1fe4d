"""MTL: a head that reads each domain's mean features beside those of the sample."""

from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor, nn

from fishr.checks import number, one_of, whole
from fishr.errors import InputError
from fishr.methods.method import Method
from fishr.methods.ranges import Range, choice
from fishr.models.featurizers import Featurizer
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless
from fishr.training.objective import Objective


def _at_most_1(record: object, attribute: object, value: float) -> None:
    if value > 1:
        raise InputError(f"ema: got {value}, expected at most 1, at which only the newest mean counts")


@frozen
class MTL:
    """Featurizer of [z, m]: the features of a sample and the embedding of its domain, 2F features.

    In training, m_e ← γ · mean of z over the domain's samples in the batch + (1 − γ) · m_e, from m_e = 0; the gradient
    flows through the newest mean. In evaluation and prediction, m is the mean of z over the samples that the network is
    given at once, so that a prediction depends on them.

    Args:
        inner: The network.
        ema: γ, the share of the newest mean, 0 to 1.
        domains: K, the number of training domains, for ``form = "paper"``.
        form: ``"paper"`` as above. With ``"domainbed"``, m is standard normal noise, drawn anew for each sample, which
            overwrites the mean there; in evaluation it is drawn from one seed, so that scores are reproducible.

    Raises:
        InputError: γ outside 0 to 1, or ``form = "paper"`` without ``domains``. In training: a batch of another number
            of domains, several micro-batches or ranks.

    Example:
        >>> from fishr.models import MLP
        >>> mtl = MTL(MLP(widths=()), domains=2, form="paper")
        >>> module = mtl((1,), torch.Generator()).eval()
        >>> module(torch.tensor([[1.0], [3.0]])), mtl.features((1,))
        (tensor([[1., 2.],
                [3., 2.]]), 2)

    Source:
        Blanchard et al., Domain generalization by marginal transfer learning, JMLR 2021 (arXiv 1711.07910).
    """

    inner: Featurizer
    ema: float = field(default=0.99, validator=[number(), _at_most_1])
    domains: int | None = field(default=None, validator=optional(whole(1)))
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def __attrs_post_init__(self) -> None:
        if self.form == "paper" and self.domains is None:
            raise InputError('domains: got none with form = "paper", expected the number of training domains')

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, 2F]."""
        network = self.inner(shape, generator)
        if self.form == "domainbed":
            return _BesideNoise(network)
        means = torch.zeros(self.domains or 0, self.inner.features(shape), device=generator.device)
        return _BesideMean(network, means, self.ema)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return 2F, for F features of the network."""
        return 2 * self.inner.features(shape)


class _BesideMean(nn.Module):
    mixes_samples = True

    def __init__(self, network: nn.Module, means: Tensor, ema: float) -> None:
        super().__init__()
        self.network, self.ema = network, ema
        self.means: Tensor
        self.register_buffer("means", means)

    def forward(self, inputs: Tensor, sizes: tuple[int, ...] | None = None) -> Tensor:
        features = self.network(inputs)
        if sizes is None:
            return torch.cat([features, features.mean(0, keepdim=True).expand_as(features)], 1)
        if len(sizes) != len(self.means):
            raise InputError(f"MTL: got a batch of {len(sizes)} domains, expected {len(self.means)}; change domains")
        beside = list[Tensor]()
        for k, rows in enumerate(features.split(list(sizes))):
            if len(rows):
                mean = self.ema * rows.mean(0) + (1 - self.ema) * self.means[k]
                beside.append(mean.expand_as(rows))
                if self.training:
                    self.means[k] = mean.detach()
        return torch.cat([features, torch.cat(beside)], 1)


class _BesideNoise(nn.Module):
    # Noise depends on a sample's place in the batch.
    mixes_samples = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, sizes: tuple[int, ...] | None = None) -> Tensor:
        features = self.network(inputs)
        return torch.cat([features, noise_of(features, self.training)], 1)


def noise_of(features: Tensor, training: bool) -> Tensor:
    """Return standard normal numbers in the shape of features; outside training the same ones each time."""
    if training:
        return torch.randn_like(features)
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        raise InputError("MTL: a traced program would draw other noise in each call")
    draws = torch.Generator(features.device).manual_seed(0)
    return torch.randn(features.shape, generator=draws, dtype=features.dtype, device=features.device)


@frozen
class SumOfRisks(Memoryless):
    """Σ_e R_e, the sum of the mean losses of the domains present in the batch; a risk.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 0.0]), sizes=(1, 1))
        >>> seen = observe(nn.Identity(), nn.Identity(), batch, loss=lambda logits, labels: logits[:, 0])
        >>> SumOfRisks()(seen, (), 0)[0]
        tensor(3.)

    Source:
        MTL in DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the risk, 0-dim, in the loss's unit."""
        return seen.domain_losses.sum(), state


METHODS = {
    "MTL": Method(
        {"mtl_ema": Range(0.99, choice((0.5, 0.9, 0.99, 1.0)))},
        lambda h: Objective(risk=SumOfRisks()),
        featurizer=lambda inner, h: MTL(inner, h["mtl_ema"]),
        passes="domain",
    )
}
