"""Time of the jobs of a sweep on cached features: each alone, and in a group that one tensor program trains."""

import json
import tempfile
from pathlib import Path

import attrs
import numpy as np

from benchmarks.machine import interleaved
from benchmarks.table import Cell, Spread, Table
from benchmarks.ways import Disagreement
from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features
from fishr.methods.ranges import Value
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.execution import Conditions
from fishr.sweeps.folder import job_folder
from fishr.sweeps.groups import attempt_together
from fishr.sweeps.plan import Plan

_ENVIRONMENTS, _CLASSES = "ACPS", 7
_FULL_WEIGHT: dict[str, Value] = {"irm_penalty_anneal_iters": 1, "penalty_anneal_iters": 1}


def table(quick: bool) -> Table:
    """Milliseconds a job of each way, and how many times faster a group is.

    Raises:
        Disagreement: losses differ by more than rounding.
    """
    rows, width, steps = (40, 16, 4) if quick else (1600, 1280, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "features.h5", rows, width)
        settings = Settings(features={"PACS": str(folder / "features.h5")}, steps=steps, hparams=_FULL_WEIGHT)
        methods = ("ERM", "IRM", "Fishr")
        found = tuple((method, *_row(folder / method, method, settings, quick)) for method in methods)
    return Table(
        f"A sweep's jobs of {steps} steps, linear heads on {4 * rows}×{width} features, {4 if quick else 12} jobs with "
        "penalties at full weight, one process; [quartiles]",
        ("method", "alone ms a job", "in a group ms a job", "alone / in a group"),
        found,
    )


def _row(folder: Path, method: str, settings: Settings, quick: bool) -> tuple[Cell, ...]:
    jobs = Plan(("PACS",), (method,), draws=1, trials=1 if quick else 3, settings=settings).jobs()
    turns = iter(range(1_000_000))

    def run(together: bool) -> Conditions:
        conditions = Conditions(folder / str(next(turns)), together=together)
        groups = [jobs] if together else [(job,) for job in jobs]
        ends = [end for group in groups for end in attempt_together(group, conditions)]
        assert all(outcome.done for _, outcome in ends), ends
        return conditions

    one, other = _losses(jobs, run(False)), _losses(jobs, run(True))
    if not np.allclose(one, other, rtol=1e-4):
        raise Disagreement(f"{method}: got losses {other} in a group, expected {one} as alone")
    times = interleaved({"alone": lambda: run(False), "together": lambda: run(True)}, rounds=3, quick=quick)
    each = attrs.evolve(times, seconds={way: tuple(s / len(jobs) for s in all) for way, all in times.seconds.items()})
    return *(each.milliseconds(way, 0) for way in times.seconds), Spread(*times.ratio("alone", "together"), 1)


def _losses(jobs: tuple[Job, ...], conditions: Conditions) -> list[float]:
    texts = [(job_folder(conditions.folder, job) / "results.jsonl").read_text() for job in jobs]
    return [json.loads(line)["loss"] for text in texts for line in text.splitlines()]


def _write(path: Path, rows: int, width: int) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(len(_ENVIRONMENTS), rows, width)).astype(np.float32)
    labels = generator.integers(_CLASSES, size=(len(_ENVIRONMENTS), rows))

    def compute(domain: int, start: int, stop: int) -> dict[str, np.ndarray]:
        return {
            "features": features[domain, start:stop],
            "labels": labels[domain, start:stop],
            "logits": np.zeros((stop - start, _CLASSES)),
            "ids": np.arange(start, stop),
        }

    head = {"text": "", "outputs": _CLASSES, "parameters": {}}
    sections = [Section(name, "training", rows) for name in _ENVIRONMENTS]
    write_features(path, {"dtype": "float32"}, head, sections, compute, part_rows=1024)
