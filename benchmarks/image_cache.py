"""Images a second of batches from a folder and from its image cache: ``python -m benchmarks.image_cache FOLDER``."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.machine import describe, interleaved
from benchmarks.ways import Disagreement
from fishr.data.environments import Environments
from fishr.data.images import ImageFolders, cache_images

_ROWS_A_TASK = 8


def table(quick: bool) -> str:
    """Of a folder of noise, JPEG of 1024 × 768 pixels, as camera traps have them.

    Raises:
        Disagreement: files and cache do not give the same bits to be evaluated.
    """
    width, height, size, count = (96, 72, 32, 8) if quick else (1024, 768, 224, 64)
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder, "images"), width, height, count)
        title = f"Batches of {size}² from JPEG of {width} × {height}, and from their cache"
        return measured(Path(folder, "images"), title, size, batch=8 if quick else 32, rounds=2 if quick else 7)


def measured(folder: Path, title: str, size: int, batch: int, rounds: int, workers: int | None = None) -> str:
    """A table of images a second, with the same threads.

    Args:
        folder: of ENVIRONMENT/CLASS/IMAGE.
        title: of the table.
        size: side of the inputs, pixels.
        batch: images of each environment.
        rounds: turns of each way.
        workers: threads; None: one a processor.

    Raises:
        Disagreement: files and cache do not give the same bits to be evaluated.
    """
    threads = workers or os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(threads) as pool:
        cache = Path(place, "images.h5")
        cache_images(folder, cache, size, threads)
        source = str(folder.resolve())
        files = ImageFolders(source, size=size)(0, None)
        cached = ImageFolders(source, size=size, cache=str(cache))(0, None)
        if not torch.equal(_batch(files, batch, pool)(), _batch(cached, batch, pool)()):
            raise Disagreement("files and cache gave different inputs to be evaluated")
        ways = {
            f"{name}, {what}": _batch(environments, batch, pool, seeded=what == "augmented")
            for what in ("augmented", "plain")
            for name, environments in (("files", files), ("cache", cached))
        }
        times, images = interleaved(ways, rounds), batch * len(files.domains)
    rows = list[list[str]]()
    for what in ("augmented", "plain"):
        middle, low, high = times.ratio(f"files, {what}", f"cache, {what}")
        speeds = [f"{images / times.median(f'{name}, {what}'):,.0f}" for name in ("files", "cache")]
        rows.append([what, *speeds, f"{middle:.2f} ({low:.2f} to {high:.2f})"])
    header = ("inputs", "files, images/s", "cache, images/s", "times faster")
    return f"{title}; {threads} threads\n{tabulate(rows, header, disable_numparse=True)}"


def _batch(
    environments: Environments, batch: int, pool: ThreadPoolExecutor, seeded: bool = False
) -> Callable[[], Tensor]:
    """Reads the same rows of each environment whenever it is called."""
    generator = np.random.default_rng(0)
    tasks = list[tuple[Callable[[Sequence[int], Sequence[int] | None], Tensor], list[int], list[int] | None]]()
    for domain in environments.domains:
        rows = generator.integers(len(domain.labels), size=batch).tolist()
        parts = [rows[start : start + _ROWS_A_TASK] for start in range(0, batch, _ROWS_A_TASK)]
        tasks += [(domain.inputs.read, part, part if seeded else None) for part in parts]
    return lambda: torch.cat(list(pool.map(lambda task: task[0](task[1], task[2]), tasks)))


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
    parser.add_argument("--workers", type=int, help="threads (default: one a processor)")
    given = parser.parse_args()
    title = f"Batches of {given.size}² from {given.folder}, and from its cache"
    print(describe())
    # One image is one thread's work; torch's own threads would compete with them.
    torch.set_num_threads(1)
    print(measured(given.folder, title, given.size, given.batch, given.rounds, given.workers))


if __name__ == "__main__":
    main()
