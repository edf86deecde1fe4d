import subprocess
import sys

import pytest

from fishr.errors import InputError
from fishr.sweeps import locks
from fishr.sweeps.locks import is_locked, locked

HOLD = """
import sys
from pathlib import Path
from fishr.sweeps.locks import locked
with locked(Path(sys.argv[1]), 'busy', shared=sys.argv[2] == 'shared'):
    print('held', flush=True)
    input()
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A process that holds a lock until it is killed."""
    held = []

    def hold(path, kind):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        held.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in held:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("kind", "alone", "together"), [("own", False, False), ("shared", False, True)])
def test_a_lock_of_another_process(tmp_path, elsewhere, monkeypatch, kind, alone, together):
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    path = tmp_path / "lock"
    process = elsewhere(path, kind)
    assert is_locked(path)
    for shared, allowed in ((False, alone), (True, together)):
        if allowed:
            with locked(path, "somebody has it", shared):
                pass
        else:
            with pytest.raises(InputError, match="somebody has it"), locked(path, "somebody has it", shared):
                pass
    process.kill()
    process.wait()
    assert not is_locked(path)
    with locked(path, "somebody has it"):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_that_is_only_asked_for_is_waited_for(tmp_path, monkeypatch):
    """Who asks whether it is held has it for a moment, which must not refuse anybody."""
    import threading
    import time

    path = tmp_path / "lock"
    asked = threading.Event()

    def ask():
        with locked(path, "busy"):
            asked.set()
            time.sleep(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    asked.wait()
    with locked(path, "somebody has it"):
        pass
    asking.join()


def test_a_place_without_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="could not be made"), locked(tmp_path / "absent" / "lock", "busy"):
        pass
