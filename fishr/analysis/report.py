"""All diagnostics of a subject's head, and on request of its network, as one frozen record."""

import copy
import zlib
from collections.abc import Callable

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor, nn

import fishr
from fishr.analysis.subject import Subject
from fishr.checks import number, whole
from fishr.data.domains import Split
from fishr.data.reading import tensor_of
from fishr.diagnostics.expectation import by_products, expected_seconds
from fishr.diagnostics.measurement import measure, measure_network
from fishr.diagnostics.uncertainty import Estimation, Quantity
from fishr.errors import InputError
from fishr.types import Layout

# A module, what it reads, labels, and samples of each domain.
Measured = tuple[nn.Module, Tensor, Tensor, tuple[int, ...]]
# Eigenvalues of each Hessian by default, and where it is known by its products alone.
_RANK, _FEW = 20, 5


@frozen
class Settings:
    """Settings of an analysis.

    Raises:
        InputError: fewer than two samples, a negative seed, or a tolerance that is not between 0 and 1.
    """

    samples: int | None = field(default=None, validator=optional(whole(2)))  # of each domain, at most; None: all
    seed: int = field(default=0, validator=whole(0, most=2**63 - 1))  # of samples and estimates
    network: bool = False  # measure the whole network as well
    rank: int | None = field(default=None, validator=optional(whole(1)))  # eigenvalues of each Hessian; None: 20 or 5
    tolerance: float = field(default=1e-3, validator=number(below=1.0))  # of their residuals, see ``Estimation``

    @property
    def estimation(self) -> Estimation:
        """Effort and seed of what is estimated."""
        return Estimation(seed=self.seed, tolerance=self.tolerance)


@frozen(eq=False)
class Analysis:
    """Measured quantities of a subject."""

    name: str
    source: dict[str, str]  # of the subject: path, kind, key and step
    loss: str  # name of its class
    settings: Settings
    domains: tuple[str, ...]  # titles; training domains first
    splits: tuple[Split, ...]  # "training" or "evaluation"
    rows: tuple[int, ...]  # samples of each domain
    samples: tuple[int, ...]  # that were measured
    layout: Layout  # of the columns of a [K, P] quantity
    quantities: dict[str, Quantity]  # of the head; without the axis "domain", of all training domains
    network: dict[str, Quantity]  # of all parameters; empty unless asked for
    library: str = fishr.__version__

    @property
    def training(self) -> tuple[str, ...]:
        """Titles of the training domains."""
        return tuple(name for name, split in zip(self.domains, self.splits, strict=True) if split == "training")


def analyze(
    subject: Subject,
    settings: Settings = Settings(),
    progress: Callable[[str], object] = lambda name: None,
    announce: Callable[[float], object] | None = None,
) -> Analysis:
    """Measure a subject in float64: each domain, each pair of domains, and the training domains together.

    Args:
        progress: called with the name of a quantity when its turn comes and, for large heads, after each pass.
        announce: called at the beginning with about how many seconds it will take, if that is more than some.

    Raises:
        InputError: the subject has no training domain, or no network where one is asked for.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat, hilly = (Domain(n, torch.randn(8, 3), torch.arange(8) % 2) for n in ("flat", "hilly"))
        >>> head, splits = nn.Linear(3, 2), ("training", "evaluation")
        >>> found = analyze(Subject.from_domains("mine", head, CrossEntropy(), (flat, hilly), splits), Settings(6))
        >>> found.rows, found.samples, found.quantities["variance_distances"].axes
        ((8, 8), (6, 6), ('domain', 'domain'))
    """
    _check(subject, settings)
    seen = subject.seen
    picked = [pick(name, rows, settings) for name, rows in zip(subject.domains, seen.sizes, strict=True)]
    head, network = _head(subject, picked), _network(subject, picked) if settings.network else None
    rank, few = settings.rank or (_FEW if by_products(*head[:2]) else _RANK), settings.rank or _FEW
    if announce is not None:
        seconds = expected_seconds("head", *head, seen.loss, rank)
        announce(seconds if network is None else seconds + expected_seconds("network", *network, seen.loss, few))
    return Analysis(
        name=subject.name,
        source=subject.source,
        loss=getattr(seen.loss, "__name__", type(seen.loss).__name__),
        settings=settings,
        domains=subject.titles,
        splits=subject.splits,
        rows=seen.sizes,
        samples=tuple(map(len, picked)),
        layout=seen.layout,
        quantities=measure(
            *head,
            seen.loss,
            training=subject.splits.count("training"),
            rank=rank,
            seed=settings.seed,
            tolerance=settings.tolerance,
            progress=progress,
        ),
        network={}
        if network is None
        else measure_network(*network, seen.loss, rank=few, estimation=settings.estimation, progress=progress),
    )


analyse = analyze  # its name until 0.2


def pick(domain: str, rows: int, settings: Settings) -> Tensor:
    """Return which rows of a domain are measured, ascending: by settings, name and rows alone, not by other domains."""
    if settings.samples is None or settings.samples >= rows:
        return torch.arange(rows)
    draw = np.random.default_rng([settings.seed, zlib.crc32(domain.encode())])
    return torch.from_numpy(np.sort(draw.choice(rows, settings.samples, replace=False)))


def _check(subject: Subject, settings: Settings) -> None:
    if "training" not in subject.splits:
        got = ", ".join(subject.domains)
        raise InputError(f"{subject.name}: got no training domain among {got}, expected at least one to analyze")
    if settings.network and subject.network is None:
        raise InputError(
            f"{subject.name}: got a cache, which holds features alone, expected a run for the whole network; "
            "analyze the run folder, or leave the network out"
        )


def _head(subject: Subject, picked: list[Tensor]) -> Measured:
    # In float64: what Fishr makes equal differs by less than float32 can tell.
    seen, chosen = subject.seen, list(zip(subject.seen.domain_samples, picked, strict=True))
    features = torch.cat([features[rows].double() for (features, _), rows in chosen])
    labels = torch.cat([labels[rows] for (_, labels), rows in chosen])
    return copy.deepcopy(seen.head).double(), features, labels, tuple(map(len, picked))


def _network(subject: Subject, picked: list[Tensor]) -> Measured:
    # In its own type: estimates here are off by more than rounding, and float64 takes twice as long.
    network, seen = subject.network, subject.seen
    assert network is not None
    labels = torch.cat([part[rows] for part, rows in zip(seen.per_domain(seen.labels), picked, strict=True)])
    inputs = torch.cat([tensor_of(one, rows.tolist()) for one, rows in zip(network.inputs, picked, strict=True)])
    whole = nn.Sequential(network.featurizer, seen.head)
    return whole, inputs.to(labels.device), labels, tuple(map(len, picked))
