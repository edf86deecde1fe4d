"""ADRMX: features of the label from which those of the domain are subtracted."""

from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fishr.checks import number, one_of
from fishr.errors import InputError
from fishr.methods.adversary import Adversary, Form
from fishr.methods.method import Hparams, Method, head_logits, require_classes
from fishr.methods.ranges import Range, choice, fixed
from fishr.methods.ranges import whole as whole_of
from fishr.mixed_samples import refuse_mixed_samples
from fishr.models.featurizers import Featurizer
from fishr.models.heads import LabelHead, nonlinear_classifier
from fishr.observation import Observation
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam, Optimizer
from fishr.training.owned import Owned, applied, template
from fishr.types import Problem

_TEMPERATURE, _TINY = 0.07, 1e-5


@frozen
class LabelAndDomain:
    """Featurizer of [l, d], 2F features: those of two networks of one kind, for the label and for the domain.

    Args:
        inner: the networks.

    Raises:
        InputError: when called, networks whose features depend on the other samples.

    Example:
        >>> from fishr.models import MLP
        >>> two = LabelAndDomain(MLP(widths=(5,)))
        >>> two((3,), torch.Generator())(torch.ones(4, 3)).shape, two.features((3,))
        (torch.Size([4, 10]), 10)
    """

    inner: Featurizer

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, 2F], with weights drawn from the generator."""
        label, domain = self.inner(shape, generator), self.inner(shape, generator)
        refuse_mixed_samples(label, "inner", "take another network")
        return _Beside(label, domain)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return 2F, for F features of each network."""
        return 2 * self.inner.features(shape)


class _Beside(nn.Module):
    def __init__(self, label: nn.Module, domain: nn.Module) -> None:
        super().__init__()
        self.label, self.domain = label, domain

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.label(inputs), self.domain(inputs)], 1)


@frozen
class ADRMX:
    """R(l) + R₂(z) + δ R_d(d) + ρ R(remix) + κ (S(l) + S(z)) − α D(z), of features [l, d] with z = l − d; a risk.

    R is the mean loss of the head; R₂ the mean cross-entropy of a second classifier of labels, R_d that of a classifier
    of domains, and D that of a discriminator of domains, all of the features in brackets. The two classifiers learn
    with the network; the discriminator minimizes D in turns of its own, in which the network rests and the value is D.
    R(remix) has, for each class, the cross-entropy of the head on z_i + d_j, of two samples drawn from it, divided by
    the number of all classes. S(x) = −Σ_i mean_{j alike} log(e_ij / (Σ_{k≠i} e_ik + 1e-5) + 1e-5) / (n + 1), with
    e_ij = exp(cos(x_i, x_j) / 0.07) / 2, over the n samples i with others of their class. Use it with the featurizer
    ``LabelAndDomain`` and the head ``LabelHead``.

    Args:
        domain: δ.
        remix: ρ.
        contrast: κ.
        adversarial: α.
        adversary: the discriminator.
        optimizer: of the two classifiers.
        form: ``"domainbed"`` takes the places of the two samples within their class for those in the batch, so that
            it mixes samples of any class, with the label of i; ``"paper"`` takes two samples of the class from
            different domains, and none where it has one domain.

    Raises:
        InputError: a weight below 0 or another form; in ``init``, an odd or unknown number of features; when called,
            labels that are no class indices.

    Example:
        >>> problem = Problem.of(LabelHead()(16, 3, torch.Generator()), domains=2, features=16, outputs=3)
        >>> sorted(ADRMX().init(problem))
        ['discriminator', 'domain_classifier', 'label_classifier']

    Source:
        Demirel et al., ADRMX, 2023 (arXiv 2308.06624).
    """

    domain: float = field(default=1.0, validator=number())
    remix: float = field(default=1.0, validator=number())
    contrast: float = field(default=1.0, validator=number())
    adversarial: float = field(default=0.75, validator=number())
    adversary: Adversary = Adversary(depth=9, steps=2)  # noqa: RUF009 (immutable)
    optimizer: Optimizer = Adam(lr=3e-5, betas=(0.5, 0.9))  # noqa: RUF009 (immutable)
    form: Form = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def init(self, problem: Problem) -> dict[str, Owned]:
        """Return the first discriminator and classifiers."""
        both, classes = problem.widths("ADRMX")
        if both % 2:
            raise InputError(f"ADRMX: got {both} features, expected an even number; use the featurizer LabelAndDomain")
        sizes = (both // 2, classes, problem.domains)
        of = {"discriminator": self.adversary.optimizer}
        builds = self._builds(*sizes).items()
        return {name: Owned.of(build, of.get(name, self.optimizer), problem, name) for name, build in builds}

    def __call__(self, seen: Observation, state: dict[str, Owned], step: int) -> tuple[Tensor, dict[str, Owned]]:
        """Return the risk, 0-dim, in the loss's unit, and the three networks after the step."""
        require_classes(seen, "ADRMX")
        label, domain = seen.features.chunk(2, 1)
        free, domains, leaves = label - domain, seen.domain_ids, {name: own.leaves() for name, own in state.items()}
        builds = self._builds(label.shape[1], seen.logits.shape[1], seen.batch.domains)

        def loss(name: str, features: Tensor, targets: Tensor) -> Tensor:
            logits = applied(template(builds[name]), leaves[name], features, generator=seen.generator(f"ADRMX {name}"))
            return cross_entropy(logits, targets)

        def trained(name: str, value: Tensor, optimizer: Optimizer) -> dict[str, Owned]:
            return {name: state[name].trained(value, leaves[name], optimizer, seen)}

        adversarial = loss("discriminator", free, domains)
        if self.adversary.learns(step):
            return adversarial.detach(), state | trained("discriminator", adversarial, self.adversary.optimizer)
        value = (
            seen.losses.mean()
            + loss("label_classifier", free, seen.labels)
            + self.domain * loss("domain_classifier", domain, domains)
            + self.remix * self._remixed(seen, free, domain)
            + self.contrast * (contrast(label, seen.labels) + contrast(free, seen.labels))
            - self.adversarial * adversarial
        )
        classifiers = [trained(name, value, self.optimizer) for name in ("label_classifier", "domain_classifier")]
        return value, state | classifiers[0] | classifiers[1]

    def _builds(self, features: int, classes: int, domains: int) -> dict[str, Any]:
        return {
            "discriminator": partial(self.adversary.network, features, domains),
            "label_classifier": partial(nonlinear_classifier, features, classes),
            "domain_classifier": partial(nonlinear_classifier, features, domains),
        }

    def _remixed(self, seen: Observation, free: Tensor, domain: Tensor) -> Tensor:
        pairs = [self._pair(seen, label, order) for label, order in enumerate(permutations_of(seen))]
        one, other = zip(*[pair for pair in pairs if pair], strict=True) if any(pairs) else ((), ())
        if not one:
            return free.new_zeros(())
        mixed = free[list(one)] + domain[list(other)]
        # The head reads the first half alone.
        logits = head_logits(seen, torch.cat([mixed, torch.zeros_like(mixed)], 1))
        return cross_entropy(logits, seen.labels[list(one)], reduction="sum") / seen.logits.shape[1]

    def _pair(self, seen: Observation, label: int, order: Tensor) -> tuple[int, int] | None:
        if self.form == "domainbed":
            return (int(order[0]), int(order[1])) if len(order) > 1 else None
        rows = (seen.labels == label).nonzero().squeeze(1)[order.to(seen.labels.device)]
        elsewhere = rows[seen.domain_ids[rows] != seen.domain_ids[rows[:1]]]
        return (int(rows[0]), int(elsewhere[0])) if len(elsewhere) else None


def permutations_of(seen: Observation) -> list[Tensor]:
    """Return a random permutation of the samples of each class, the same on all ranks."""
    generator, counts = seen.generator("ADRMX"), seen.labels.bincount(minlength=seen.logits.shape[1])
    return [torch.randperm(count, generator=generator) for count in counts.tolist()]


def contrast(features: Tensor, labels: Tensor) -> Tensor:
    """Return S of features [N, F], 0-dim: how little samples of one class are alike."""
    unit = normalize(features, dim=1)
    similar = (unit @ unit.T / _TEMPERATURE).exp() / 2
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    alike = (labels[:, None] == labels) & others
    logs = (similar / ((similar * others).sum(1, keepdim=True) + _TINY) + _TINY).log()
    anchors = alike.any(1)
    means = (logs * alike).sum(1)[anchors] / alike.sum(1)[anchors]
    return -means.sum() / (len(means) + 1)


def _adam(h: Hparams) -> Adam:
    return Adam(lr=h["lr"], betas=(h["beta1"], 0.9))


def _objective(h: Hparams) -> Objective:
    shape = (h["mlp_width"], h["mlp_depth"], h["mlp_dropout"], h["d_steps_per_g_step"])
    weights = (h["dclf_lambda"], h["rmxd_lambda"], h["cnt_lambda"], h["disc_lambda"])
    return Objective(risk=ADRMX(*weights, Adversary(*shape, optimizer=_adam(h)), _adam(h)))


def _rates_on(dataset: str) -> dict[str, Range]:
    small = dataset in ("RotatedMNIST", "ColoredMNIST")
    own = (3e-3, 5e-4, 1e-3, 2e-3, 3e-3) if small else (3e-5, 2e-5, 3e-5, 4e-5, 5e-5)
    return {"lr": Range(own[0], choice(own[1:]))}


METHODS = {
    "ADRMX": Method(
        {
            "cnt_lambda": fixed(1.0),
            "dclf_lambda": fixed(1.0),
            "disc_lambda": fixed(0.75),
            "rmxd_lambda": fixed(1.0),
            "d_steps_per_g_step": fixed(2),
            "beta1": fixed(0.5),
            "mlp_width": fixed(256),
            "mlp_depth": Range(9, whole_of(choice((8, 9, 10)))),
            "mlp_dropout": Range(0.0, lambda generator: 0),
        },
        _objective,
        lambda h: {"optimizer": _adam(h), "head": LabelHead()},
        _rates_on,
        featurizer=lambda inner, h: LabelAndDomain(inner),
    )
}
