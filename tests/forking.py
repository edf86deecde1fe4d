"""Python processes that begin at once: forked from one that has imported torch and the commands already.

An interpreter that imports torch needs two seconds before its first line. Where a test is about what a process does,
not about how an interpreter starts, the fixture ``forked`` has ``subprocess.Popen`` fork it instead: a child of the
test's process, with pid, streams, signals and exit code as of any other. The ranks that a forked torchrun starts are
forked too.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import inspect
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from attrs import astuple, frozen

# What tests of ranks import too. The last is loaded by torch's first gradient, with all of sympy.
LOADED = (
    *("fishr.analysis.report", "fishr.commands", "fishr.data.digits", "fishr.plots.run", "fishr.statistics.fused_gap"),
    *("fishr.sweeps.execution", "fishr.training.runs", "hypothesis", "pytest", "sklearn.datasets"),
    "torch.fx.experimental.symbolic_shapes",
)
# From prctl.h: orphans below become children of this process.
SUBREAPER = 36
# What a forked process sets by itself; an interpreter reads other variables of its own before it can be told.
SET_LATER = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "OMP_", "MKL_", "MALLOC_")
MOST = 2**20
# Modules whose own Python processes are forked too.
LAUNCHERS = ("torch.distributed.run", "benchmarks")
# A descriptor above those of all streams.
HIGH = 100


class ForkedPopen(subprocess.Popen[Any]):
    """A process as of ``subprocess.Popen``, forked if it is a Python that differs in nothing that its start reads."""

    server: ClassVar["Server"]

    def _execute_child(self, *values: Any) -> None:
        start = super()._execute_child  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        given = inspect.signature(start).bind(*values).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        run = Run.of([os.fsdecode(part) for part in given["args"]] if isinstance(given["args"], list | tuple) else [])
        plain = not any(given[name] for name in ("shell", "executable", "preexec_fn", "pass_fds"))
        if run is None or not plain or _read_at_start(environment) != _read_at_start(dict(os.environ)):
            start(*values)
            return
        where = os.fsdecode(given["cwd"] or Path.cwd())
        pipes = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [own if fd == -1 else fd for own, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = self.server.fork((astuple(run), where, environment, given["start_new_session"]), streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # pyright: ignore[reportAttributeAccessIssue]


def _read_at_start(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(READ_AT_START) and k not in SET_LATER}


@frozen
class Run:
    """What a Python runs: a module, a text or a script; without its folder on the path, and with -W error, or not."""

    kind: str
    subject: str
    arguments: list[str]
    safe_path: bool
    strict: bool

    @staticmethod
    def of(command: list[str]) -> "Run | None":
        """The command's, unless it starts something else, or Python with other options."""
        if command[:1] != [sys.executable]:
            return None
        # Unbuffered, as torchrun starts its ranks; one that is killed would lose lines that it has printed.
        rest = command[2:] if command[1:2] == ["-u"] else command[1:]
        safe, strict = rest[:1] == ["-P"], rest[:2] == ["-W", "error"]
        match rest[safe + 2 * strict :]:
            case [("-m" | "-c") as kind, subject, *arguments]:
                return Run(kind, subject, arguments, safe, strict)
            case [script, *arguments] if script.endswith(".py"):
                return Run("", script, arguments, safe, strict)
            case _:
                return None


class Server:
    """The process that the others are forked from, by its socket; it ends when no process has the socket."""

    def __init__(self, control: socket.socket) -> None:
        self.socket = control

    def fork(self, request: object, streams: list[int]) -> int:
        """Begin a process with these streams; its parent is this process, whatever forked it."""
        libc = ctypes.CDLL(None)
        libc.prctl(SUBREAPER, 1, 0, 0, 0)
        socket.send_fds(self.socket, [pickle.dumps(request)], streams)
        pid = int(self.socket.recv(MOST))
        libc.prctl(SUBREAPER, 0, 0, 0, 0)
        return pid


class StartedServer(Server):
    """One in an interpreter of its own, for the tests' process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()

    def close(self) -> None:
        self.socket.close()
        self.process.wait()


@cache
def started_server() -> StartedServer:
    """One for all processes of the tests' process."""
    server = StartedServer()
    atexit.register(server.close)
    return server


def serve(control: socket.socket) -> tuple[Any, list[int]]:
    """Fork whenever a message says so, and return it in the forked process."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, MOST, 3)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            middle, pid = os.getpid(), os.fork()
            if pid == 0:
                while os.getppid() == middle:
                    time.sleep(0.001)
                *request, new_session = pickle.loads(message)
                if new_session:
                    os.setsid()
                # Not before: who starts a process may ask for its group at once, and interrupt the group later.
                os.write(writing, str(os.getpid()).encode())
                for fd in (reading, writing, control.detach()):
                    os.close(fd)
                return request, fds
            os._exit(0)
        # Its child belongs to the test's process from now on.
        os.waitpid(middle, 0)
        control.send(os.read(reading, 100))
        for fd in (reading, writing, *fds):
            os.close(fd)


def become(run: Run, where: str, environment: dict[str, str], streams: list[int]) -> None:
    """Be a Python that was started with this command, in this folder, with these variables and streams."""
    for own, fd in enumerate(streams):
        os.dup2(fd, own)
    os.closerange(3, max(streams) + 1)
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environment)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        # Buffered by lines on a terminal alone, which the server's streams need not be.
        first, buffering = getattr(sys, name), 1 if name == "stderr" else -1
        stream = open(fd, first.mode, buffering, encoding=first.encoding, errors=first.errors)  # noqa: SIM115, PTH123
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = {"-c": "", "-m": where}.get(run.kind, str(Path(run.subject).resolve().parent))
    sys.path[:] = [*([] if run.safe_path else [first]), *paths, *(path for path in sys.path if path not in paths)]
    torch.seed()
    if run.strict:
        warnings.simplefilter("error")
    sys.argv = [run.kind or run.subject, *run.arguments]


def execute(run: Run) -> None:
    if run.kind == "-m":
        runpy.run_module(run.subject, run_name="__main__", alter_sys=True)
    elif run.kind == "-c":
        exec(compile(run.subject, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        runpy.run_path(run.subject, run_name="__main__")


def end(run: Run) -> NoReturn:
    """Execute and exit as an interpreter does, except that it does not take its modules apart."""
    code: object = 0
    try:
        execute(run)
    except SystemExit as exit_:
        code = exit_.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(int(code or 0))


def forked_server(streams: list[int]) -> Server:
    """A server forked from this process, for what this process goes on to start."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        for fd in streams:
            os.close(fd)
        serve_and_run(theirs)
    theirs.close()
    kept = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    ours.close()
    return Server(socket.socket(fileno=kept))


def serve_and_run(control: socket.socket) -> NoReturn:
    """Fork processes, and in each of them be what was asked for."""
    (parts, *how), fds = serve(control)
    run = Run(*parts)
    if run.subject in LAUNCHERS:
        ForkedPopen.server = forked_server(fds)
        subprocess.Popen = ForkedPopen
    become(run, *how, fds)
    end(run)


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve_and_run(socket.socket(fileno=int(sys.argv[1])))
