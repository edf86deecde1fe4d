"""The disk and memory that `sweep plan` estimates are those that a sweep takes."""

import attrs
import pytest

from fishr.sweeps import execution
from fishr.sweeps.calibration import measured
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.footprint import peak_memory
from fishr.sweeps.memory import Memory
from fishr.training import Stepped


def on_disk(folder):
    """Bytes of a folder in blocks of 4096, as most file systems have them."""
    return sum(-path.stat().st_size // 4096 * -4096 for path in (folder, *folder.rglob("*")))


@pytest.mark.parametrize("keep", ["results", "weights"])
def test_the_disk_is_what_a_job_takes(plan, tmp_path, monkeypatch, keep):
    """At once: on a network large enough to count."""
    job = attrs.evolve(plan, algorithms=("Fishr",), settings=attrs.evolve(plan.settings, steps=200)).jobs()[0]
    checkpoints, real = [], execution.run

    def watched(*arguments, **options):
        for event in real(*arguments, **options):
            if isinstance(event, Stepped) and (path := job_folder(tmp_path, job) / "checkpoint.pt").exists():
                checkpoints.append(path.stat().st_size)
            yield event

    monkeypatch.setattr(execution, "run", watched)
    (estimate,) = measured([job], keep=keep)
    assert attempt(job, Conditions(tmp_path, keep=keep), Memory()).done
    assert estimate.footprint.kept == pytest.approx(on_disk(job_folder(tmp_path, job)), rel=0.15)
    assert estimate.footprint.checkpoint == pytest.approx(max(checkpoints), rel=0.4)


def test_the_memory_is_that_of_this_process(plan):
    held = peak_memory()
    if held is None:
        pytest.skip("this system does not say what a process held")
    assert held > 50e6
    estimate, *_ = measured(plan.jobs()[:1])
    assert estimate.footprint.memory >= held + estimate.footprint.checkpoint
    assert estimate.footprint.gpu_memory is None
