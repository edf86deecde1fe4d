"""Locks between processes, which die with their process and never touch a file of the user."""

import os
import subprocess
import sys
import threading

import pytest

from fishr import locks
from fishr.errors import InputError
from fishr.locks import LOCK, beside, is_locked, locked, open_own

HOLD = """
import sys
from pathlib import Path
from fishr.locks import locked
with locked(Path(sys.argv[1]), Path("work"), "busy"):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    return tmp_path / LOCK


def test_a_lock_of_another_process_dies_with_it(lock):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert is_locked(lock)
        with pytest.raises(InputError, match="work: somebody has it"), locked(lock, "work", "somebody has it"):
            pass
    finally:
        process.kill()
        process.communicate()
    assert lock.exists()
    assert not is_locked(lock)
    with locked(lock, "work", "somebody has it"):
        assert is_locked(lock)
    assert not lock.exists()


def test_a_lock_that_is_only_asked_for_is_waited_for(lock, monkeypatch):
    """A process that asks whether a lock is held holds it for a moment."""
    monkeypatch.setattr(locks, "_PATIENCE", 600.0)
    asked, waited = threading.Event(), threading.Event()
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: waited.set())

    def ask():
        with locked(lock, "work", "busy"):
            asked.set()
            waited.wait()

    asking = threading.Thread(target=ask)
    asking.start()
    asked.wait()
    with locked(lock, "work", "somebody has it"):
        pass
    asking.join()


def test_a_place_without_a_folder_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="work: cannot be written there"),
        locked(tmp_path / "absent" / LOCK, "work", "busy"),
    ):
        pass


@pytest.mark.parametrize("target", ["absent", "there", LOCK])
def test_a_link_with_the_name_of_a_lock_is_refused(tmp_path, lock, target):
    (tmp_path / "there").touch()
    lock.symlink_to(target)
    with pytest.raises(InputError, match="is a link, expected a regular file"), locked(lock, "work", "busy"):
        pass
    assert not is_locked(lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LOCK, "there"])
    assert lock.is_symlink()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_with_the_name_of_a_lock_is_refused(lock, make):
    make(lock)
    with pytest.raises(InputError, match=r"is not a regular file|Is a directory"), locked(lock, "work", "busy"):
        pass
    with pytest.raises(OSError):  # noqa: PT011 (whichever the system has for it)
        open_own(lock, os.O_RDWR)
    assert lock.exists()


def test_a_file_with_content_is_not_removed(lock):
    lock.write_text("mine")
    with locked(lock, "work", "busy"):
        assert is_locked(lock)
    assert lock.read_text() == "mine"


def test_a_file_system_without_locks_is_refused(lock, monkeypatch):
    def without(handle):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "try_lock", without)
    with pytest.raises(InputError, match="No locks available"), locked(lock, "work", "busy"):
        pass
    assert not is_locked(lock)


def test_the_lock_of_a_path_is_beside_it(tmp_path):
    assert beside(tmp_path / "a.h5") == tmp_path / ".a.h5.fishr-lock"


IMPORTS = """
import sys, pkgutil, importlib
sys.modules["fcntl"] = None
import fishr
assert fishr.train
for module in pkgutil.walk_packages(fishr.__path__, "fishr."):
    importlib.import_module(module.name)
"""


@pytest.mark.slow
def test_every_module_is_imported_where_the_system_has_no_fcntl():
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
