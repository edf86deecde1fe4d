"""Everything the diagnostics say about a subject's head, and on request its network, as one frozen record."""

import copy
import zlib
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

import fishr
from fishr.analysis.subject import Network, Split, Subject
from fishr.data.reading import tensor_of
from fishr.diagnostics.measurement import measure, measure_network
from fishr.diagnostics.uncertainty import Estimation, Quantity
from fishr.errors import InputError
from fishr.training.checks import whole
from fishr.types import Layout


def _at_least_two(settings: object, attribute: Any, value: int | None) -> None:
    if value is not None:
        whole(2)(settings, attribute, value)


@frozen
class Settings:
    """What an analysis looks at.

    Args:
        samples: rows of each domain at most, drawn without replacement; None for all of them.
        seed: decides which rows, in each domain by itself, and the random vectors of estimates.
        network: whether the whole network is measured as well as the head.
        rank: eigenvalues of each domain's Hessian of the head.

    Raises:
        InputError: fewer than two samples, or a negative seed.

    Example:
        >>> Settings(samples=1)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: samples: got 1, expected a whole number of at least 2
    """

    samples: int | None = field(default=None, validator=_at_least_two)
    seed: int = field(default=0, validator=whole(0, most=2**63 - 1))
    network: bool = False
    rank: int = field(default=20, validator=whole(1))


@frozen(eq=False)
class Analysis:
    """What was found.

    Args:
        name: of the subject.
        source: of the subject: path, kind, key and step.
        loss: its class.
        settings: what was asked for.
        domains: names of the K domains; training domains first.
        splits: "training" or "evaluation" of each.
        rows: of each domain, how many there are.
        samples: of these, how many were looked at.
        layout: which column of a [K, P] quantity is which head parameter.
        quantities: of the head, by name. The axis "domain" runs over all domains; a quantity without that axis says
            something of the training domains together.
        network: of all parameters, in the same way; empty unless asked for.
        library: version of fishr.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat, hilly = (Domain(n, torch.randn(8, 3), torch.arange(8) % 2) for n in ("flat", "hilly"))
        >>> head, splits = torch.nn.Linear(3, 2), ("training", "evaluation")
        >>> subject = Subject.from_domains("mine", head, CrossEntropy(), (flat, hilly), splits)
        >>> found = analyse(subject, Settings(samples=6))
        >>> found.rows, found.samples, found.quantities["gradient_variance"].value.shape
        ((8, 8), (6, 6), torch.Size([2, 8]))
    """

    name: str
    source: dict[str, str]
    loss: str
    settings: Settings
    domains: tuple[str, ...]
    splits: tuple[Split, ...]
    rows: tuple[int, ...]
    samples: tuple[int, ...]
    layout: Layout
    quantities: dict[str, Quantity]
    network: dict[str, Quantity]
    library: str = fishr.__version__

    @property
    def training(self) -> tuple[str, ...]:
        """Names of the training domains."""
        return tuple(name for name, split in zip(self.domains, self.splits, strict=True) if split == "training")


def analyse(subject: Subject, settings: Settings = Settings()) -> Analysis:
    """Measure a subject: each domain, each pair of domains, and the training domains together.

    Args:
        subject: a head, domains of features, and for ``settings.network`` a network.
        settings: which rows, and whether the network too.

    Returns:
        All of ``fishr.diagnostics.measure``, computed in float64.

    Raises:
        InputError: the subject has no training domain, or no network where it is asked for.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> steep, hilly = (Domain(n, torch.randn(8, 3), torch.arange(8) % 2) for n in ("steep", "hilly"))
        >>> head, splits = torch.nn.Linear(3, 2), ("training", "training")
        >>> subject = Subject.from_domains("mine", head, CrossEntropy(), (steep, hilly), splits)
        >>> analyse(subject).quantities["variance_distances"].axes
        ('domain', 'domain')
    """
    _check(subject, settings)
    picked = [pick(name, rows, settings) for name, rows in zip(subject.domains, subject.seen.sizes, strict=True)]
    return Analysis(
        name=subject.name,
        source=subject.source,
        loss=getattr(subject.seen.loss, "__name__", type(subject.seen.loss).__name__),
        settings=settings,
        domains=subject.titles,
        splits=subject.splits,
        rows=subject.seen.sizes,
        samples=tuple(len(rows) for rows in picked),
        layout=subject.seen.layout,
        quantities=_of_head(subject, picked, settings),
        network=_of_network(subject.network, subject, picked, settings) if settings.network and subject.network else {},
    )


def pick(domain: str, rows: int, settings: Settings) -> Tensor:
    """Return which rows of a domain are measured, ascending: by settings, name and rows alone, not by other domains."""
    if settings.samples is None or settings.samples >= rows:
        return torch.arange(rows)
    draw = np.random.default_rng([settings.seed, zlib.crc32(domain.encode())])
    return torch.from_numpy(np.sort(draw.choice(rows, settings.samples, replace=False)))


def _check(subject: Subject, settings: Settings) -> None:
    if "training" not in subject.splits:
        got = ", ".join(subject.domains)
        raise InputError(f"{subject.name}: got no training domain among {got}, expected at least one to analyse")
    if settings.network and subject.network is None:
        raise InputError(
            f"{subject.name}: got a cache, which holds features alone, expected a run for the whole network; "
            "analyse the run folder, or leave the network out"
        )


def _of_head(subject: Subject, picked: list[Tensor], settings: Settings) -> dict[str, Quantity]:
    # In float64: what Fishr makes equal differs by less than float32 can tell.
    head = copy.deepcopy(subject.seen.head).double()
    parts = [
        (features[rows].double(), labels[rows])
        for (features, labels), rows in zip(subject.seen.domain_samples, picked, strict=True)
    ]
    found = _measured(head, parts, subject, settings)
    if "evaluation" not in subject.splits:
        return found
    trained_on = [part for part, split in zip(parts, subject.splits, strict=True) if split == "training"]
    together = [name for name, quantity in found.items() if "domain" not in quantity.axes]
    return found | _measured(head, trained_on, subject, settings, together)


def _measured(
    head: nn.Module,
    parts: list[tuple[Tensor, Tensor]],
    subject: Subject,
    settings: Settings,
    names: list[str] | None = None,
) -> dict[str, Quantity]:
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    sizes = tuple(len(part) for _, part in parts)
    return measure(
        head, features, labels, sizes, subject.seen.loss, names=names, rank=settings.rank, seed=settings.seed
    )


def _of_network(network: Network, subject: Subject, picked: list[Tensor], settings: Settings) -> dict[str, Quantity]:
    # In its own type: what is estimated here is off by more than rounding, and float64 takes twice as long.
    whole = nn.Sequential(network.featurizer, subject.seen.head)
    samples = zip(subject.seen.domain_samples, picked, strict=True)
    labels = torch.cat([labels[rows] for (_, labels), rows in samples])
    read = [tensor_of(one, rows.tolist()) for one, rows in zip(network.inputs, picked, strict=True)]
    inputs = torch.cat(read).to(labels.device)
    sizes = tuple(len(rows) for rows in picked)
    return measure_network(whole, inputs, labels, sizes, subject.seen.loss, estimation=Estimation(seed=settings.seed))
