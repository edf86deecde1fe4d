"""Measure images a second for each way from files to a model's inputs."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from statistics import quantiles

import torch
from attrs import evolve, frozen

from fishr.data.batches import Drawn, Minibatch
from fishr.data.domains import Domain
from fishr.data.images.huggingface_images import HuggingFaceImages
from fishr.data.images.image_data import ImageFolders, ImageList
from fishr.data.images.image_inputs import Prepare

AHEAD = 3
_TURN_SECONDS = 0.5
_MOST_BATCHES = 100


@frozen
class Way:
    """How images become inputs: from "files", "cache" or "device_cache", prepared by whom, augmented or plain."""

    images: str
    prepare: Prepare
    augmented: bool


@frozen
class Speed:
    """Images a second of one way, one number a round."""

    way: Way
    per_second: tuple[float, ...]

    @property
    def quartiles(self) -> list[float]:
        """Lower quartile, median and upper quartile of images a second."""
        return quantiles(self.per_second, n=4, method="inclusive")

    def over(self, base: "Speed") -> list[float]:
        """Return the quartiles of the speedup over another way, compared round by round."""
        times = [own / other for own, other in zip(self.per_second, base.per_second, strict=True)]
        return quantiles(times, n=4, method="inclusive")


def ways_of(
    source: ImageFolders | ImageList | HuggingFaceImages,
    data_dir: Path | None,
    device: torch.device,
    cache: str | None = None,
) -> dict[Way, tuple[Domain, ...]]:
    """Return a data set's domains on the device for each way to read them, the two of files and "reader" first."""
    pairs: tuple[tuple[str, Prepare], ...] = (("files", "reader"), ("files", "device"))
    if cache is not None:
        pairs = (*pairs, ("cache", "reader"), ("cache", "device"))
    pairs = (*pairs, ("device_cache", "device_cache"))
    ways = dict[Way, tuple[Domain, ...]]()
    for images, prepare in pairs:
        # A device cache is filled from the fastest source; the pixels are equal.
        own = cache if images != "files" else None
        made = evolve(source, cache=own, prepare=prepare, augment=True)(0, data_dir).domains
        domains = tuple(evolve(each, inputs=each.inputs.to(device), labels=each.labels.to(device)) for each in made)
        ways[Way(images, prepare, augmented=True)] = domains
        ways[Way(images, prepare, augmented=False)] = tuple(_plain(domain) for domain in domains)
    return ways


def measure(
    ways: Mapping[Way, tuple[Domain, ...]],
    batch: int,
    rounds: int,
    progress: Callable[[int], object] = lambda turns: None,
) -> tuple[Speed, ...]:
    """Measure each way in turns, A B C A B C …, after one to begin with, with batches read ahead as in training."""
    counts = dict[Way, int]()
    for way, domains in ways.items():
        seconds = [_turn(domains, batch, 1, seed=0) for _ in range(2)][1]
        # At least as many as are read ahead, so that a turn is more than its start.
        counts[way] = min(_MOST_BATCHES, max(AHEAD, ceil(_TURN_SECONDS / seconds)))
        progress(1)
    found: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, domains in ways.items():
            images = counts[way] * batch * len(domains)
            found[way].append(images / _turn(domains, batch, counts[way], seed=number))
            progress(1)
    return tuple(Speed(way, tuple(values)) for way, values in found.items())


def _turn(domains: tuple[Domain, ...], batch: int, count: int, seed: int) -> float:
    """Return the seconds that this many batches take."""
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
