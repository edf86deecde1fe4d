"""Forked Python processes are as those that an interpreter starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forking import ForkedPopen, Run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="they are forked on Linux alone")]
SHOWN = """
import os, sys, warnings
import torch
print(__name__, sys.argv, sys.path, os.getcwd(), os.getppid(), os.getsid(0) == os.getpid(), os.environ.get("MINE"))
print(input(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.isatty(), sys.stdin.isatty())
print(torch.get_num_threads(), "error" in [f[0] for f in warnings.filters], sys.dont_write_bytecode)
print("caf\\udce9".encode(errors="surrogateescape"), file=sys.stderr)
sys.exit(3)
"""


# An interpreter that does not import torch begins at once.
LIGHT = SHOWN.replace("import torch\n", "").replace("torch.get_num_threads()", "1")


@pytest.mark.parametrize("command", [("own.py", "x"), ("-m", "own", "-m"), ("-c", LIGHT), ("-W", "error", "own.py")])
def test_they_are_what_an_interpreter_starts(command, tmp_path, monkeypatch, request):
    (tmp_path / "own.py").write_text(SHOWN if command[-1] == "x" else LIGHT)
    environment = {**os.environ, "MINE": "1", "PYTHONPATH": str(tmp_path.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    def found():
        options = {"cwd": tmp_path, "env": environment, "start_new_session": True, "input": "typed\n"}
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, **options)
        return done.returncode, done.stdout.split(), done.stderr

    fresh = found()
    request.getfixturevalue("forked")
    monkeypatch.delattr(subprocess, "_fork_exec")
    assert found() == fresh
    assert fresh[0] == 3


def test_one_that_leads_its_session_leads_it_when_its_pid_is_known(forked):
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
            assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid


def test_signals_and_errors_end_them(forked):
    def ended(text, number=None):
        with subprocess.Popen([sys.executable, "-c", text], stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout.readline() == "begun\n"
            if number:
                process.send_signal(number)
            errors = process.communicate()[1]
        return process.returncode, errors.strip().rpartition("\n")[2]

    waits = "import time; print('begun', flush=True); time.sleep(60)"
    assert ended(waits, signal.SIGKILL) == (-signal.SIGKILL, "")
    assert ended(waits, signal.SIGTERM) == (-signal.SIGTERM, "")
    assert ended(waits, signal.SIGINT) == (-signal.SIGINT, "KeyboardInterrupt")
    assert ended("print('begun', flush=True); 1 / 0") == (1, "ZeroDivisionError: division by zero")
    assert ended("import atexit; atexit.register(print, 'begun')") == (0, "")
    assert ended("print('begun'); exit('said')") == (1, "said")


RANK = """
import os, sys, torch
forked = "fishr.analysis.report" in sys.modules
print(os.environ["RANK"], os.environ["WORLD_SIZE"], sys.argv, os.getcwd(), sys.path[0], forked, os.getppid())
sys.exit(int(sys.argv[1]))
"""


def test_ranks_of_a_forked_torchrun_are_forked_too(forked, tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "rank.py"]

    def begun(code):
        with subprocess.Popen([*launch, code], cwd=tmp_path, stdout=-1, stderr=-1, text=True) as launcher:
            said, errors = launcher.communicate(timeout=120)
        lines = [f"{rank} 2 ['rank.py', '{code}'] {tmp_path} {tmp_path} True {launcher.pid}" for rank in (0, 1)]
        return launcher.returncode, sorted(said.splitlines()), lines, errors

    code, said, lines, errors = begun("0")
    assert (code, said, errors) == (0, lines, "")
    # The other rank may be ended before it says anything.
    code, said, lines, errors = begun("3")
    assert (code, {*said} <= {*lines}) == (1, True)
    assert "exitcode: 3" in errors or "exitcode  : 3" in errors


def test_what_an_interpreter_reads_at_its_start_is_left_to_one(forked):
    variables = {**os.environ, "OMP_NUM_THREADS": "2"}
    text = "import torch; print(torch.get_num_threads())"
    found = subprocess.run([sys.executable, "-c", text], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout == "2\n"
    assert Run.of([sys.executable, "-I", "own.py"]) is None
    assert Run.of([sys.executable, "-P", "-m", "own", "x"]) == Run("-m", "own", ["x"], safe_path=True, strict=False)
    assert Run.of(["sh", "-c", "true"]) is None
    assert subprocess.Popen is ForkedPopen
    assert subprocess.run(["sh", "-c", "exit 4"], cwd=Path("/")).returncode == 4
