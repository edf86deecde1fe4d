import re
import sys
from io import StringIO
from pathlib import Path

import attrs
import pytest

from fishr.commands.sweep_tables import duration, estimate_table, failure_text, follow, progress_object, progress_table
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.estimates import Estimate, Footprint
from fishr.sweeps.job_events import JobDone, JobFailed, JobRetried
from fishr.sweeps.job_files import Failure, Outcome
from fishr.sweeps.progress import FailedJob, Progress, Row

JOBS = [Job("PACS", "ERM", (0, 2), draw, 1) for draw in range(3)]
EVENTS = [
    JobDone(JOBS[0], Outcome(seconds=75.0, validation=0.8125)),
    JobRetried(JOBS[1], "its process died of SIGKILL"),
    JobFailed(JOBS[1], Failure("its process died of SIGKILL", tries=2)),
    JobDone(JOBS[2], Outcome(seconds=0.25, validation=1.0, diverged=3)),
]


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    """Progress without waiting, in place of some seconds."""
    monkeypatch.setattr("fishr.commands.progress._DELAY", 0.0)
    monkeypatch.setattr("fishr.commands.progress._LINE", 0.0)


WRONG = [
    "5/7  PACS ERM test 0+2 draw 1 trial 1  continues in another process: its process died of SIGKILL",
    "6/7  PACS ERM test 0+2 draw 1 trial 1  failed: its process died of SIGKILL",
    "7/7  PACS ERM test 0+2 draw 2 trial 1  done in 0.2 s, validation 100.0%, diverged at step 3",
]


def test_a_pipe_gets_what_went_wrong_and_nothing_else_in_a_short_sweep(monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    follow(EVENTS, "interrupted", done=4, jobs=7)
    assert sys.stderr.getvalue().splitlines() == WRONG


@pytest.mark.usefixtures("at_once")
def test_a_pipe_gets_lines_of_progress(monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    follow(EVENTS, "interrupted", done=4, jobs=7)
    shown = [line for line in sys.stderr.getvalue().splitlines() if line not in WRONG]
    found = [
        re.fullmatch(r"(\d)/7 \[\d\d:\d\d<([\d:]+|\?), +[\d.?]*(job/s|s/job)(, failed=1)?\]", line) for line in shown
    ]
    assert [(one[1], bool(one[4])) for one in found] == [("4", False), ("5", False), ("6", True), ("7", True)]


@pytest.mark.usefixtures("at_once")
def test_a_terminal_gets_a_bar_and_what_went_wrong(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    follow(EVENTS, "interrupted", done=4, jobs=7)
    shown = sys.stderr.getvalue()
    assert re.search(r"57%\|[^|]*\| 4/7 ", shown)
    assert re.search(r"100%\|[^|]*\| 7/7 .*failed=1", shown)
    assert all(f"{line}\n" in shown for line in WRONG)
    assert "done in 1 min" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.0, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")),
        *((86399, "23 h 59 min"), (86400, "1 d 0 h"), (10 * 86400 + 7200, "10 d 2 h")),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_time_is_shared_by_the_workers():
    found = (
        Estimate("PACS", "ERM", 2, 1000, 10, 60.0, Footprint(kept=4_000_000, checkpoint=3_000_000, memory=10**9)),
        Estimate("PACS", "Fishr", 1, 500, 5, 120.0, Footprint(kept=1_000_000, checkpoint=5_000_000, memory=2 * 10**9)),
    )
    text = estimate_table(found, workers=2)
    # A checkpoint stays until the next one is whole; a single job has a single worker.
    assert re.search(r"PACS +ERM +2 +1,000 +10 +30\.0 s +16\.0 MB +2\.0 GB\n", text)
    assert re.search(r"PACS +Fishr +1 +500 +5 +1 min 0 s +11\.0 MB +2\.0 GB\n", text)
    assert re.search(r"total +3 +1,500 +15 +1 min 30 s +25\.0 MB +4\.0 GB\n", text)
    assert "at most while they run; 5.0 MB stay\n" in text
    gpu = attrs.evolve(found[0], footprint=attrs.evolve(found[0].footprint, memory=None, gpu_memory=3 * 10**9))
    assert "GPU memory: estimated, 3.0 GB a worker at most" in estimate_table((gpu,), workers=2)
    assert "time" not in estimate_table((Estimate("PACS", "ERM", 2, 1000, 10),), None)


def test_time_left_is_shared_by_those_at_work():
    row = Row("PACS", "ERM", done=1, running=2, failed=1, waiting=3, best=0.875, seconds=100.0)
    failure = Failure("risk is nan", tries=2, log=("first", "last"))
    found = Progress((row,), row, (FailedJob(JOBS[0].key, JOBS[0].name, failure),))
    assert progress_table(found).endswith("1 of 7 jobs done; about 50.0 s left with 2 at work")
    assert re.search(r"PACS +ERM +7 +1 +2 +1 +3 +87\.5%", progress_table(found))
    text = failure_text(Path("sweep"), found)
    place = Path("sweep", "jobs", JOBS[0].name)
    assert text == (f"\n\nPACS ERM test 0+2 draw 0 trial 1  ({place}, tried 2×)\n  risk is nan\n  | first\n  | last")
    told = progress_object(found)
    assert told["seconds_left"] == 50.0
    assert told["failures"] == [
        {"job": "PACS ERM test 0+2 draw 0 trial 1", "folder": JOBS[0].name, "message": "risk is nan", "tries": 2}
        | {"log": ("first", "last")}
    ]
