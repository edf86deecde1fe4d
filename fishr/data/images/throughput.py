"""Images a second of each way from files to a model's inputs, measured in turns."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import quantiles

import torch
from attrs import evolve, frozen

from fishr.data.batches import Drawn, Minibatch
from fishr.data.domains import Domain
from fishr.data.images.image_data import ImageFolders, ImageList
from fishr.data.images.image_inputs import Prepare

AHEAD = 3
_TURN_SECONDS = 0.5
_MOST_BATCHES = 100


@frozen
class Way:
    """How images become inputs.

    Args:
        images: where they come from: "files", "cache" or "held".
        prepare: who makes inputs of them.
        augmented: whether they are augmented.

    Example:
        >>> Way("files", "reader", augmented=True).images
        'files'
    """

    images: str
    prepare: Prepare
    augmented: bool


@frozen
class Speed:
    """What was measured of one way.

    Args:
        way: which.
        per_second: images a second, one number a round.

    Example:
        >>> Speed(Way("files", "reader", augmented=True), (90.0, 110.0, 100.0)).quartiles
        (95.0, 100.0, 105.0)
    """

    way: Way
    per_second: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Images a second: lower quartile, median and upper quartile."""
        return _quartiles(self.per_second)

    def over(self, base: "Speed") -> tuple[float, float, float]:
        """How many times faster than another way, compared round by round: the same three."""
        return _quartiles([own / other for own, other in zip(self.per_second, base.per_second, strict=True)])


def ways_of(
    source: ImageFolders | ImageList, data_dir: Path | None, device: torch.device, cache: str | None = None
) -> dict[Way, tuple[Domain, ...]]:
    """The environments of a data set, by each way they can be read; those that are held are read here.

    Args:
        source: the data set; its own ``cache``, ``prepare`` and ``augment`` count for nothing.
        data_dir: where its relative paths start.
        device: where a model would compute.
        cache: path of its images in a file of ``fishr cache images``; None: there is none.

    Returns:
        Domains on the device; the first way, augmented and plain alike, is that of files and readers.

    Raises:
        InputError: the source or the cache cannot be read.

    Example:
        >>> ways_of(ImageFolders("PACS"), Path("nowhere"), torch.device("cpu"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere/PACS: no such folder; run `fishr data download`, or lay images there as \
ENVIRONMENT/CLASS/IMAGE
    """
    pairs: tuple[tuple[str, Prepare], ...] = (("files", "reader"), ("files", "device"))
    if cache is not None:
        pairs = (*pairs, ("cache", "reader"), ("cache", "device"))
    pairs = (*pairs, ("held", "held"))
    ways = dict[Way, tuple[Domain, ...]]()
    for images, prepare in pairs:
        # What is held comes from where it is read fastest; it is the same.
        own = cache if images != "files" else None
        made = evolve(source, cache=own, prepare=prepare, augment=True)(0, data_dir).domains
        domains = tuple(evolve(each, inputs=each.inputs.to(device), labels=each.labels.to(device)) for each in made)
        ways[Way(images, prepare, augmented=True)] = domains
        ways[Way(images, prepare, augmented=False)] = tuple(_plain(domain) for domain in domains)
    return ways


def measure(ways: Mapping[Way, Sequence[Domain]], batch: int, rounds: int) -> tuple[Speed, ...]:
    """Draw batches by each way in turns, A B C A B C …, each read ahead as in training.

    Args:
        ways: domains of images.
        batch: images of each domain in a batch.
        rounds: turns of each way, at least 2.

    Example:
        >>> from fishr.data.images.image_stores import HeldImages
        >>> from fishr.data.images.image_inputs import Pictures
        >>> images = HeldImages(("a.jpg", "b.jpg"), torch.zeros(2, 4, 4, 3, dtype=torch.uint8))
        >>> domain = Domain("photo", Pictures(images, size=4, prepare="held"), torch.tensor([0, 1]))
        >>> (speed,) = measure({Way("held", "held", augmented=True): [domain]}, batch=2, rounds=2)
        >>> len(speed.per_second), speed.per_second[0] > 0
        (2, True)
    """
    batches = {way: _batches_a_turn(tuple(domains), batch) for way, domains in ways.items()}
    found: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, domains in ways.items():
            seconds = _turn(tuple(domains), batch, batches[way], seed=number)
            found[way].append(batches[way] * batch * len(domains) / seconds)
    return tuple(Speed(way, tuple(values)) for way, values in found.items())


def _batches_a_turn(domains: tuple[Domain, ...], batch: int) -> int:
    _turn(domains, batch, 1, seed=0)
    # As many as are ahead at least, so that a turn is not its beginning alone.
    return min(_MOST_BATCHES, max(AHEAD, ceil(_TURN_SECONDS / _turn(domains, batch, 1, seed=0))))


def _turn(domains: tuple[Domain, ...], batch: int, count: int, seed: int) -> float:
    """Seconds of so many batches."""
    generator, draws = torch.Generator().manual_seed(seed), Minibatch(batch, replace=True)
    _wait(domains[0].labels.device)
    start = time.perf_counter()
    ahead = deque[Drawn]()
    for done in range(count):
        while len(ahead) < AHEAD and done + len(ahead) < count:
            ahead.append(draws.begin(domains, generator))
        ahead.popleft().result()
    _wait(domains[0].labels.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _plain(domain: Domain) -> Domain:
    return domain if isinstance(domain.inputs, torch.Tensor) else evolve(domain, inputs=domain.inputs.plain())


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high
