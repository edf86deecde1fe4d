"""Images a second of each way from a folder to a model's inputs: ``python -m benchmarks.image_cache FOLDER``."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.checkout import use
from benchmarks.machine import describe, device, quartiles
from benchmarks.table import Cell, Spread, Table, Verdict
from benchmarks.ways import Disagreement
from fishr.commands.allocator import keep_freed_memory
from fishr.data.images import ImageFolders, cache_images
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.throughput import Speed, Way, measure, ways_of
from fishr.data.reading import tensor_of

TARGET = 5.0
_BATCHES = 5


def table(quick: bool, domainbed: Path | None = None) -> Table:
    """Of a folder of noise, JPEG of 1024 × 768 pixels, as camera traps have them.

    Raises:
        Disagreement: files and what was made of them do not give the same bits to be evaluated.
    """
    width, height, size, count = (96, 72, 32, 8) if quick else (1024, 768, 224, 64)
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder, "images"), width, height, count)
        title = f"Batches of {size}² from JPEG of {width} × {height}, and from what is decoded once"
        return measured(
            Path(folder, "images"), title, size, batch=8 if quick else 32, rounds=2 if quick else 7, domainbed=domainbed
        )


def measured(folder: Path, title: str, size: int, batch: int, rounds: int, domainbed: Path | None = None) -> Table:
    """A table of images a second, with the same threads.

    Args:
        folder: of ENVIRONMENT/CLASS/IMAGE.
        title: of the table.
        size: side of the inputs, pixels.
        batch: images of each environment.
        rounds: turns of each way.
        domainbed: a checkout, whose loaders are measured after the ways, with one worker for each environment.

    Raises:
        Disagreement: files and what was made of them do not give the same bits to be evaluated.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place, "images.h5")
        cache_images(folder, cache, Preprocessing(size), threads)
        ways = ways_of(ImageFolders(str(folder.resolve()), size=size), None, device(), str(cache))
        inputs = [tensor_of(domains[0].inputs, range(2)) for domains in ways.values()]
        if not all(torch.equal(inputs[0], other) for other in inputs):
            raise Disagreement("files and what was made of them gave different inputs to be evaluated")
        speeds = measure(ways, batch, rounds)
    rows = [row for augmented in (True, False) for row in _rows([s for s in speeds if s.way.augmented is augmented])]
    # DomainBed's images are of this size.
    if domainbed is not None and size == 224:
        base = next(speed for speed in speeds if speed.way == Way("files", "reader", augmented=True))
        rows.append(_of_domainbed(domainbed, folder, batch, base))
    header = ("images", "prepare", "inputs", "images/s", "times faster", "target")
    return Table(f"{title}; {threads} threads", header, tuple(rows))


def _rows(speeds: list[Speed]) -> list[tuple[Cell, ...]]:
    """Of augmented inputs or of plain ones; the target is that of the best way without decoding."""
    base = next(speed for speed in speeds if (speed.way.images, speed.way.prepare) == ("files", "reader"))
    best = max((speed for speed in speeds if speed.way.images != "files"), key=lambda speed: speed.quartiles[1])
    return [
        (
            *_named(speed.way),
            _spread(speed.quartiles, 0),
            _spread(speed.over(base), 2),
            Verdict(speed.over(base)[1], TARGET, at_least=True) if speed is best else None,
        )
        for speed in speeds
    ]


def _of_domainbed(checkout: Path, folder: Path, batch: int, base: Speed) -> tuple[Cell, ...]:
    """The row of DomainBed's own loaders; the target is that ours are as fast."""
    use(checkout)
    from domainbed.datasets import MultipleEnvironmentImageFolder  # pyright: ignore[reportMissingImports]
    from domainbed.lib.fast_data_loader import InfiniteDataLoader  # pyright: ignore[reportMissingImports]

    environments = MultipleEnvironmentImageFolder(str(folder), [], True, {}).datasets
    found = list[float]()
    for _ in base.per_second:
        loaders = [iter(InfiniteDataLoader(each, None, batch, 1)) for each in environments]
        # Without the start of the processes.
        _ = [next(loader) for loader in loaders]
        start = time.perf_counter()
        for _ in range(_BATCHES):
            _ = [next(loader) for loader in loaders]
        found.append(_BATCHES * batch * len(loaders) / (time.perf_counter() - start))
    times = quartiles([theirs / ours for theirs, ours in zip(found, base.per_second, strict=True)])
    named = ("files", "DomainBed, 1 worker each", "augmented")
    return *named, Spread(*quartiles(found), 0), Spread(*times), Verdict(times[0], 1.0, at_least=False)


def _named(way: Way) -> tuple[str, str, str]:
    return way.images, way.prepare, "augmented" if way.augmented else "plain"


def _spread(quartiles: list[float], digits: int) -> Spread:
    low, middle, high = quartiles
    return Spread(middle, low, high, digits)


def _draw(folder: Path, width: int, height: int, count: int) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        path = folder / ("day", "night")[number % 2] / ("cat", "dog")[number // 2 % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height)).save(path)


def main() -> None:
    """Print the table of a folder of one's own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_cache", description=__doc__)
    parser.add_argument("folder", type=Path, help="of ENVIRONMENT/CLASS/IMAGE")
    parser.add_argument("--size", type=int, default=224, help="side of the inputs, pixels (default: 224)")
    parser.add_argument("--batch", type=int, default=32, help="images of each environment (default: 32)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (default: 7)")
    parser.add_argument("--workers", type=int, help="threads (default: as torch has them)")
    parser.add_argument("--domainbed", type=Path, metavar="PATH", help="a checkout, whose loaders are measured too")
    given = parser.parse_args()
    # As the command line does, and as training does with it.
    keep_freed_memory()
    if given.workers is not None:
        torch.set_num_threads(given.workers)
    print(describe())
    title = f"Batches of {given.size}² from {given.folder}, and from what is decoded once"
    print(measured(given.folder, title, given.size, given.batch, given.rounds, given.domainbed))


if __name__ == "__main__":
    main()
