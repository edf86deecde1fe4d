"""Files that are whole or absent, and what is removed: only what this package made."""

import os

import pytest

from fishr import files
from fishr.errors import RunFailed
from fishr.files import (
    copy_atomically,
    digest_of,
    fill_atomically,
    json_text,
    partial_folder,
    present,
    put_folder,
    whole_name,
    write_atomically,
)
from fishr.locks import try_lock

LEFT = ".a.0123456789abcdef.fishr-partial"
ALIKE = (
    "a.tmp-1",
    "a.tmp-mine",
    ".a.tmp-mine",
    "a.fishr-partial",
    ".a.fishr-partial",
    ".a.mine.fishr-partial",
    ".a.0123456789abcde.fishr-partial",
    ".a.0123456789abcdef0.fishr-partial",
    ".a.0123456789ABCDEF.fishr-partial",
    ".a.0123456789abcdef.fishr-partial.mine",
    ".a.0123456789abcdef.fishr-partial\n",
    "a.0123456789abcdef.fishr-partial",
    ".b.0123456789abcdef.fishr-partial",
    ".aa.0123456789abcdef.fishr-partial",
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def _make(path):
    """A folder that is put in its place, as the writers of folders do."""
    with partial_folder(path) as partial:
        (partial / "content").touch()
        put_folder(partial, path)


WRITERS = {
    "bytes": lambda path: write_atomically(path, b"new"),
    "callback": lambda path: fill_atomically(path, lambda file: file.write(b"new")),
    "copy": lambda path: copy_atomically(path.parent / "source", path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_leftovers_of_killed_writers_go_and_names_that_look_alike_stay(tmp_path, write):
    (tmp_path / "source").write_bytes(b"new")
    for name in (LEFT, *ALIKE):
        (tmp_path / name).write_bytes(b"half")
    write(tmp_path / "a")
    assert names(tmp_path) == sorted(["a", "source", *ALIKE])
    assert (tmp_path / "a").read_bytes() == b"new"


def test_leftover_folders_go_and_names_that_look_alike_stay(tmp_path):
    for name in (LEFT, *ALIKE):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").touch()
    _make(tmp_path / "a")
    assert names(tmp_path) == sorted(["a", *ALIKE])


@pytest.mark.parametrize("write", [*WRITERS.values(), _make], ids=[*WRITERS, "folder"])
def test_links_with_the_name_of_a_leftover_stay_and_are_not_followed(tmp_path, write):
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / LEFT).symlink_to("mine")
    (tmp_path / LEFT.replace("0123", "4567")).symlink_to("source")
    before = names(tmp_path)
    write(tmp_path / "a")
    assert names(tmp_path) == sorted([*before, "a"])
    assert names(tmp_path / "mine") == ["file"]


def test_the_partial_file_of_a_living_writer_stays(tmp_path):
    def fill(file):
        (tmp_path / "a").write_bytes(b"old")
        inside = [name for name in names(tmp_path) if whole_name(name) == "a"]
        write_atomically(tmp_path / "a", b"between")
        assert [name for name in names(tmp_path) if whole_name(name) == "a"] == inside
        file.write(b"last")

    fill_atomically(tmp_path / "a", fill)
    assert (tmp_path / "a").read_bytes() == b"last"
    assert names(tmp_path) == ["a"]


def test_a_partial_file_that_was_removed_before_its_lock_is_made_again(tmp_path, monkeypatch):
    """Another process may look for leftovers between the creation of the file and its locking."""
    races = [True]

    def racing(handle):
        if races and races.pop():
            for path in tmp_path.iterdir():
                path.unlink()
        return try_lock(handle)

    monkeypatch.setattr(files, "try_lock", racing)
    write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def without(handle):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files, "try_lock", without)
    (tmp_path / LEFT).write_bytes(b"perhaps a living writer's")
    write_atomically(tmp_path / "a", b"content")
    assert names(tmp_path) == [LEFT, "a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("mine")])
@pytest.mark.parametrize("part", ["fill", "check"])
def test_an_error_keeps_the_previous_file(tmp_path, error, part):
    def fail(argument):
        raise error

    callbacks = {"fill": lambda file: file.write(b"new"), "check": lambda partial: None, part: fail}
    (tmp_path / "a").write_bytes(b"old")
    kind = RunFailed if isinstance(error, OSError) else type(error)
    with pytest.raises(kind):
        fill_atomically(tmp_path / "a", **callbacks)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["a" * 300, "no-folder/a", "file/a"])
def test_a_path_that_cannot_be_is_told(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match=r"could not be written .*; nothing was left behind"):
        write_atomically(tmp_path / name, b"content")


def test_what_is_checked_is_complete(tmp_path):
    seen = []
    fill_atomically(tmp_path / "a", lambda file: file.write(b"new"), lambda partial: seen.append(partial.read_bytes()))
    assert seen == [b"new"]


def test_a_folder_that_gets_no_name_is_removed(tmp_path):
    with partial_folder(tmp_path / "a") as partial:
        (partial / "content").touch()
    assert names(tmp_path) == []


def test_a_copy_on_a_file_system_without_links(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", without)
    write_atomically(tmp_path / "a", b"content")
    copy_atomically(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert names(tmp_path) == ["a", "b"]


def test_a_link_counts_as_present_wherever_it_leads(tmp_path):
    (tmp_path / "nowhere").symlink_to("absent")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    assert all(present(tmp_path / name) for name in ("nowhere", "circle", "file", "."))
    assert not present(tmp_path / "absent")
    assert not present(tmp_path / "file" / "below")


def test_checksums_are_those_of_the_standard(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_json_has_null_for_numbers_that_it_lacks():
    value = {"b": [1.5, float("nan")], "a": (float("inf"), 2, None, "text"), "c": {"d": float("-inf")}}
    assert json_text(value) == '{"a": [null, 2, null, "text"], "b": [1.5, null], "c": {"d": null}}'
