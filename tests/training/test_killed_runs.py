"""A run whose process is killed in earnest."""

import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from fishr.training.checkpoints import load
from fishr.training.loop import Stepped
from fishr.training.runs import run

SCRIPT = """
import sys
from pathlib import Path
import attrs, torch
torch.set_num_threads(1)
from fishr.protocols import colored_digits
from fishr.models.featurizers import MLP
from fishr.training.runs import run
experiment = attrs.evolve(
    colored_digits(), featurizer=MLP(widths=(8,)), steps=4000, evaluate_every=7, checkpoint_every=3
)
for event in run(experiment, Path(sys.argv[1]), experiment_text="", resume=Path(sys.argv[1]).exists()):
    print("event", flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_folder_that_resumes(tmp_path, same, forked):
    """SIGKILL in earnest, twice, then the files against a run that was cut by hand at a later step."""
    folder = tmp_path / "run"
    root = Path(__file__).resolve().parents[2]
    positions = []
    for lines in (40, 90):
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
            for _ in range(lines):
                assert process.stdout.readline() == "event\n"
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        checkpoint = load(folder / "checkpoint.pt")
        positions.append(checkpoint.state.step)
    assert positions == sorted(positions)
    assert positions[0] > 0
    assert positions[-1] > 80

    from fishr.models.featurizers import MLP
    from fishr.protocols import colored_digits

    experiment = attrs.evolve(
        colored_digits(), featurizer=MLP(widths=(8,)), steps=4000, evaluate_every=7, checkpoint_every=3
    )
    whole = run(experiment, tmp_path / "whole", experiment_text="")
    for event in whole:
        if isinstance(event, Stepped) and event.state.step == positions[-1]:
            break
    whole.close()
    other = load(tmp_path / "whole" / "checkpoint.pt")
    assert same(other.state, checkpoint.state)
    assert other.position == checkpoint.position
    size = checkpoint.position
    assert (folder / "metrics.jsonl").read_bytes()[:size] == (tmp_path / "whole" / "metrics.jsonl").read_bytes()[:size]
