"""Run a function in several processes that talk through gloo, as the ranks of one run."""

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forking import ForkedPopen, started_server

from fishr.ranks import Ranks

HERE = Path(__file__).parent


def on_ranks(count: int, function: Callable[..., Any], *args: Any, seconds: float = 300.0) -> list[Any]:
    """What a function returns on each rank.

    The processes are forked from one that has loaded what most tests import, and no test, so that they begin at
    once and without the threads of this process.

    Args:
        count: of ranks.
        function: at the top level of a file; called as ``function(ranks, *args)`` with gloo begun and one thread.
        args: pickled, like what it returns.
        seconds: after which those that have not ended are killed.

    Returns:
        In the order of ranks.

    Raises:
        AssertionError: a rank raised an error, ended without returning or was killed; with all their tracebacks.
    """
    popen = subprocess.Popen
    if sys.platform == "linux":
        popen, ForkedPopen.server = ForkedPopen, started_server()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    with tempfile.TemporaryDirectory() as folder:
        where = (function.__module__, function.__code__.co_filename, function.__qualname__)
        # Pickled here: as an argument of a process a tensor would be shared memory, not a copy.
        Path(folder, "call").write_bytes(pickle.dumps((count, where, pickle.dumps(args), seconds)))
        program = "import sys, ranks; ranks.be_rank(int(sys.argv[1]), sys.argv[2])"
        commands = [[sys.executable, "-c", program, str(number), folder] for number in range(count)]
        processes = [popen(command, env=environment) for command in commands]
        deadline, outcomes = time.monotonic() + seconds, list[Any]()
        for number, process in enumerate(processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            late = process.returncode is None
            process.kill()
            code = process.wait()
            ended = f"took longer than {seconds:g} s" if late else f"ended with exit code {code}"
            file = Path(folder, str(number))
            outcomes.append(pickle.loads(file.read_bytes()) if file.exists() else (None, f"{ended}, without returning"))
    failed = [f"rank {number}: {error}" for number, (_, error) in enumerate(outcomes) if error]
    assert not failed, "\n".join(failed)
    return [value for value, _ in outcomes]


def be_rank(number: int, folder: str) -> None:
    """Call the function on one rank and keep what it returns in the folder."""
    count, where, call, seconds = pickle.loads(Path(folder, "call").read_bytes())
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    torch.manual_seed(number)
    try:
        store = dist.FileStore(str(Path(folder, "store")), count)
        patience = timedelta(seconds=seconds)
        dist.init_process_group("gloo", store=store, rank=number, world_size=count, timeout=patience)
        function, args = _loaded(*where), pickle.loads(call)
        outcome = function(Ranks.of(), *args), None
    except Exception:
        outcome = None, traceback.format_exc()
    # Whole or absent: a rank may be killed at any moment.
    half = Path(folder, f"{number}.half")
    half.write_bytes(pickle.dumps(outcome))
    half.rename(Path(folder, str(number)))
    if dist.is_initialized():
        dist.destroy_process_group()


def _loaded(module: str, file: str, name: str) -> Callable[..., Any]:
    """A function of a test's file, which is loaded under the name that pickled objects know it by."""
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return getattr(sys.modules[module], name)
