"""What a file holds, and which of it is damaged."""

import numpy as np
import pytest

from fishr.data.caches import describe, verify
from fishr.data.caches.hdf5 import save_tree
from fishr.errors import InputError


@pytest.fixture
def file(tmp_path, tree):
    path = tmp_path / "file.h5"
    save_tree(path, "fishr-analysis", tree | {"provenance": {"seed": 3}, "key": "0123"})
    return path


def test_a_file_is_described_without_its_arrays(file):
    found = describe(file)
    assert (found.header.kind, found.key, found.provenance, found.sections) == (
        "fishr-analysis",
        "0123",
        {"seed": 3},
        (),
    )
    assert found.bytes == file.stat().st_size
    elements = {element.name: (element.encoding, element.type, element.shape) for element in found.elements}
    assert elements["/array"] == ("array", "float32", (40, 7))
    assert elements["/nested/deeper/0.weight"] == ("array", "float64", (2,))
    assert elements["/text"][0] == "text"
    assert list(elements)[:2] == ["/array", "/half"]
    assert len(elements) == 17


def test_a_whole_file_has_no_problem(file, monkeypatch):
    assert verify(file) == ()
    monkeypatch.setattr("fishr.data.caches.description._BYTES", 100)
    calls = list[tuple[str, int, int]]()
    assert verify(file, lambda *call: calls.append(call)) == ()
    assert calls == [("bytes", done, len(calls)) for done in range(1, len(calls) + 1)]
    assert len(calls) > len(describe(file).elements)


@pytest.mark.parametrize("name", ["array", "half", "indices"])
def test_each_damaged_array_is_named(file, tree, name):
    content = bytearray(file.read_bytes())
    for damaged in {name, "array"}:
        content[content.index(tree[damaged].tobytes()) + 5] ^= 4
    file.write_bytes(content)
    assert [problem.split(":")[0] for problem in verify(file)] == sorted({"/array", f"/{name}"})


def test_a_damaged_number_is_named(file):
    content = file.read_bytes()
    place = content.index(np.float64(0.1).tobytes())
    file.write_bytes(content[:place] + b"\0" + content[place + 1 :])
    assert verify(file) == ("/nested/decimal: its bytes are not those that were written",)


def test_what_cannot_be_opened_is_refused(file):
    for look in (verify, describe):
        with pytest.raises(InputError, match="no such file; give the path of a file that fishr wrote"):
            look(file.with_name("none.h5"))
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut short or damaged"):
        verify(file)
