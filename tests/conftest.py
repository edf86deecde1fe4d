"""What several tests share."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forking import ForkedPopen, started_server
from hypothesis import HealthCheck, settings

# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which the superuser passes over permissions.
PASSING = 1 << 1 | 1 << 2
# From prctl.h and securebits.h.
GET_SECUREBITS, SET_SECUREBITS, NO_SETUID_FIXUP = 27, 28, 1 << 2

# No test depends on the machine's speed.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Hand out files in the order of their names: the many quick doctests come last and leave no process idle."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    # A third of the time of collecting would be spent on looking for garbage.
    gc.disable()


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over all modules and tests from now on."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores with ``-n auto``, since many tests wait for processes that they start."""
    return len(os.sched_getaffinity(0)) + 1 if sys.platform == "linux" else (os.cpu_count() or 1) + 1


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by its bytes' length: parallel processes must agree on names, and packed bytes hold the time."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder with MNIST/raw in torchvision's layout; without one the test is skipped."""
    return folder_with("MNIST/raw")


@pytest.fixture(scope="session")
def pacs() -> Path:
    """A folder with PACS-mini; without one the test is skipped."""
    return folder_with("PACS-mini")


def folder_with(name: str) -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FISHR_DATA_DIR", beside))
    if not (folder / name).is_dir():
        pytest.skip(f"no {name} in {folder}: set FISHR_DATA_DIR to a folder that has it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def signals() -> None:
    """Processes that tests start take signals as one of a terminal does, whatever this one was started with.

    A shell has its background processes ignore SIGINT, nohup has them ignore SIGHUP, and both are inherited.
    """
    # Python's own handler becomes the default one in a process that is started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


@pytest.fixture(scope="session", autouse=True)
def width() -> None:
    """Texts are broken as on 80 columns, however wide the terminal is."""
    os.environ["COLUMNS"] = "80"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bits depend on the number of threads; processes that tests start have one as well."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python processes that the test starts are forked from one that has imported torch: `forking` says how."""
    if sys.platform == "linux":
        monkeypatch.setattr(ForkedPopen, "server", started_server(), raising=False)
        monkeypatch.setattr(subprocess, "Popen", ForkedPopen)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same global draws in every test, whatever runs before it."""
    torch.manual_seed(0)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """File permissions hold for this thread and those that it starts, for the superuser too."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("this superuser cannot give up the right to pass over permissions")
    # From capability.h: version 3, this thread; effective, permitted and inheritable capabilities, in two halves.
    libc, header, words = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    bits, held = libc.prctl(GET_SECUREBITS), libc.capget(header, words) or words[0]
    # Without the first, access(2) would look at the permitted capabilities in place of the effective ones.
    words[0] = held & ~PASSING
    if libc.prctl(SET_SECUREBITS, bits | NO_SETUID_FIXUP) or libc.capset(header, words):
        pytest.skip("this superuser cannot give up the right to pass over permissions")
    yield
    words[0] = held
    assert libc.capset(header, words) == libc.prctl(SET_SECUREBITS, bits) == 0
