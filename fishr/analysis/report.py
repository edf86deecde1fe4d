"""All diagnostics of a subject's head, and on request of its network, as one frozen record."""

import copy
import zlib

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor, nn

import fishr
from fishr.analysis.subject import Subject
from fishr.checks import whole
from fishr.data.domains import Split
from fishr.data.reading import tensor_of
from fishr.diagnostics.measurement import measure, measure_network
from fishr.diagnostics.uncertainty import Estimation, Quantity
from fishr.errors import InputError
from fishr.types import Layout


@frozen
class Settings:
    """Settings of an analysis.

    Raises:
        InputError: fewer than two samples, or a negative seed.
    """

    samples: int | None = field(default=None, validator=optional(whole(2)))  # of each domain, at most; None: all
    seed: int = field(default=0, validator=whole(0, most=2**63 - 1))  # of samples and estimates
    network: bool = False  # measure the whole network as well
    rank: int = field(default=20, validator=whole(1))  # eigenvalues of each Hessian


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


def analyze(subject: Subject, settings: Settings = Settings()) -> Analysis:
    """Measure a subject in float64: each domain, each pair of domains, and the training domains together.

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
        quantities=_of_head(subject, picked, settings),
        network=_of_network(subject, picked, settings) if settings.network else {},
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


def _of_head(subject: Subject, picked: list[Tensor], settings: Settings) -> dict[str, Quantity]:
    # In float64: what Fishr makes equal differs by less than float32 can tell.
    head, seen = copy.deepcopy(subject.seen.head).double(), subject.seen
    chosen = zip(seen.domain_samples, picked, strict=True)
    parts = [(features[rows].double(), labels[rows]) for (features, labels), rows in chosen]

    def measured(parts: list[tuple[Tensor, Tensor]], names: list[str] | None = None) -> dict[str, Quantity]:
        features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        sizes = tuple(len(part) for _, part in parts)
        return measure(head, features, labels, sizes, seen.loss, names=names, rank=settings.rank, seed=settings.seed)

    found = measured(parts)
    if "evaluation" not in subject.splits:
        return found
    together = [name for name, quantity in found.items() if "domain" not in quantity.axes]
    return found | measured(parts[: subject.splits.count("training")], together)


def _of_network(subject: Subject, picked: list[Tensor], settings: Settings) -> dict[str, Quantity]:
    # In its own type: estimates here are off by more than rounding, and float64 takes twice as long.
    network, seen = subject.network, subject.seen
    assert network is not None
    labels = torch.cat([part[rows] for part, rows in zip(seen.per_domain(seen.labels), picked, strict=True)])
    inputs = torch.cat([tensor_of(one, rows.tolist()) for one, rows in zip(network.inputs, picked, strict=True)])
    whole, sizes = nn.Sequential(network.featurizer, seen.head), tuple(map(len, picked))
    estimation = Estimation(seed=settings.seed)
    return measure_network(whole, inputs.to(labels.device), labels, sizes, seen.loss, estimation=estimation)
