"""Rows a second and peak memory of streaming synthetic features into a cache, each in a fresh process."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Cell, Number, Table

_FEATURES, _CLASSES, _DOMAINS = 512, 7, 4
_MIB = 2**20


def table(quick: bool) -> Table:
    """Rows a second and MiB of files of two sizes: the peak is to be the same."""
    return Table(
        f"Streaming rows of {_FEATURES} float32 features into a cache, with hashes and checksums",
        ("rows", "file MiB", "rows/s", "MiB/s", "peak MiB", "before MiB"),
        tuple(_row(n) for n in ((1_000, 4_000) if quick else (100_000, 1_000_000))),
    )


def _row(rows: int) -> tuple[Cell, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.h5")
        command = [sys.executable, "-m", "benchmarks.caching", str(rows), str(path)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
        seconds, before, peak = map(float, done.stdout.split())
        size = path.stat().st_size / _MIB
    numbers = (size, rows / seconds, size / seconds, peak, before)
    return rows, *(Number(number, 0) for number in numbers)


def _measure(rows: int, path: Path) -> tuple[float, float, float]:
    """Seconds, and peak MiB before and after."""
    import numpy as np

    from fishr.data.caches import Section
    from fishr.data.caches.domain_writing import rows_a_part
    from fishr.data.caches.feature_cache import write_features

    generator = np.random.default_rng(0)
    sections = [Section(f"domain {i}", "training", rows // _DOMAINS) for i in range(_DOMAINS)]

    def compute(domain: int, start: int, stop: int) -> dict[str, np.ndarray]:
        n = stop - start
        return {
            "features": generator.random((n, _FEATURES), np.float32),
            "labels": generator.integers(0, _CLASSES, n),
            "logits": generator.random((n, _CLASSES), np.float32),
            "ids": np.arange(start, stop),
        }

    provenance = {"dtype": "float32", "domains": tuple(section.name for section in sections)}
    part_rows = rows_a_part(compute(0, 0, 1))
    before = _peak()
    begun = time.perf_counter()
    write_features(path, provenance, {"outputs": _CLASSES}, sections, compute, part_rows)
    return time.perf_counter() - begun, before, _peak()


def _peak() -> float:
    # KiB on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MIB if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(*_measure(int(sys.argv[1]), Path(sys.argv[2])))
