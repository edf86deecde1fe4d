"""Records of runs, whole and in the middle of being written."""

import attrs

from fishr.configuration import dumps
from fishr.protocols import colored_digits
from fishr.reports.run_record import read_run
from fishr.training import run


def test_metrics_that_end_anywhere_are_the_steps_so_far(tmp_path):
    """A process may be writing its last line, or died while it did."""
    experiment = attrs.evolve(colored_digits(), steps=2, evaluate_every=1)
    list(run(experiment, tmp_path / "run", experiment_text=dumps(experiment)))
    metrics = tmp_path / "run" / "metrics.jsonl"
    whole = metrics.read_bytes()
    for end in range(len(whole) + 1):
        metrics.write_bytes(whole[:end])
        record = read_run(tmp_path / "run", experiment)
        assert len(record.steps) + len(record.evaluations) == whole[:end].count(b"\n")
