"""Parts: each whole or absent, of one key, for one process at a time."""

import numpy as np
import pytest

from fishr.data.caches.hdf5 import save_tree, sole_writer
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError, RunFailed

KIND = "fishr-surface"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "surface.h5"


def test_parts_come_back_in_their_order(path):
    with Parts(path, KIND, "key") as parts:
        assert parts.done == ()
        for number in (999_999, 2, 1_000_000):
            parts.write(number, {"row": np.full(3, number), "name": str(number)})
        assert parts.done == (2, 999_999, 1_000_000)
        assert parts.read(999_999)["name"] == "999999"
        assert np.array_equal(parts.read(1_000_000)["row"], [1_000_000] * 3)
        parts.write(2, {"name": "again"})
        assert parts.read(2) == {"name": "again"}
    assert sorted(each.name for each in path.parent.iterdir()) == ["surface.h5.parts"]
    with Parts(path, KIND, "key") as parts:
        assert parts.done == (2, 999_999, 1_000_000)
        parts.remove()
    assert list(path.parent.iterdir()) == []


def test_nothing_is_made_before_the_first_part(path):
    with Parts(path, KIND, "key") as parts:
        assert sorted(each.name for each in path.parent.iterdir()) == [".surface.h5.fishr-lock"]
        parts.remove()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("kind", "key"), [(KIND, "other"), ("fishr-features", "key")])
def test_parts_of_something_else_are_refused(path, kind, key):
    with Parts(path, KIND, "key") as parts:
        parts.write(0, {"a": 1})
    with pytest.raises(InputError, match=r"other settings|got a file of kind") as caught, Parts(path, kind, key):
        pass
    assert "\n" not in str(caught.value)
    # The refusal let go of the lock.
    with Parts(path, KIND, "key") as parts:
        assert parts.done == (0,)


def test_a_part_of_another_key_among_them_is_refused(path):
    with Parts(path, KIND, "key") as parts, Parts(path.with_name("b.h5"), KIND, "other") as others:
        parts.write(0, {})
        others.write(0, {})
        (path.parent / "b.h5.parts" / "000000.h5").rename(path.parent / "surface.h5.parts" / "000001.h5")
        parts.read(0)
        with pytest.raises(InputError, match="holds unfinished work with other settings"):
            parts.read(1)


@pytest.mark.slow
def test_a_second_process_is_told(path):
    with Parts(path, KIND, "key") as parts:
        with pytest.raises(InputError, match="another process is writing it"), Parts(path, KIND, "key"):
            pass
        with pytest.raises(InputError, match="another process is writing it"):
            save_tree(path, KIND, {})
        parts.write(0, {"a": 1})
    with sole_writer(path), pytest.raises(InputError, match="another process is writing it"), Parts(path, KIND, "key"):
        pass


def test_unfinished_work_is_looked_at_without_a_lock(path):
    assert Parts.existing(path) is None
    with Parts(path, KIND, "key") as parts:
        parts.write(4, {"a": 1})
        seen = Parts.existing(path)
        assert seen.done == (4,)
        assert seen.read(4) == {"a": 1}


def test_what_killed_writers_left_counts_for_nothing(path):
    with Parts(path, KIND, "key") as parts:
        parts.write(0, {"a": 1})
        folder = path.parent / "surface.h5.parts"
        (folder / ".000001.h5.0123456789abcdef.fishr-partial").write_bytes(b"half")
        assert parts.done == (0,)
        parts.write(1, {"a": 2})
        (folder / ".000002.h5.0123456789abcdef.fishr-partial").write_bytes(b"half")
        parts.remove()
    assert list(path.parent.iterdir()) == []


def test_a_damaged_part_is_told(path):
    with Parts(path, KIND, "key") as parts:
        parts.write(3, {"a": np.ones(100)})
        file = path.parent / "surface.h5.parts" / "000003.h5"
        content = bytearray(file.read_bytes())
        content[content.index(np.ones(100).tobytes()) + 9] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"000003\.h5: .*damaged"):
            parts.read(3)
        with pytest.raises(InputError, match=r"000005\.h5: no such file"):
            parts.read(5)


def test_a_folder_with_files_of_others_is_not_emptied(path):
    with Parts(path, KIND, "key") as parts:
        parts.write(0, {})
        (path.parent / "surface.h5.parts" / "mine.txt").write_text("mine")
        (path.parent / "surface.h5.parts" / "000007.h5").symlink_to("mine.txt")
        with pytest.raises(RunFailed, match="could not be removed"):
            parts.remove()
    assert (path.parent / "surface.h5.parts" / "000007.h5").read_text() == "mine"
