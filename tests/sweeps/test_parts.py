import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.sweeps.parts import Part, parse_part


@given(jobs=st.integers(0, 20), of=st.integers(1, 9))
def test_the_parts_are_the_whole(jobs, of):
    everything = tuple(range(jobs))
    parts = [Part(index, of).share(everything) for index in range(of)]
    assert sorted(job for part in parts for job in part) == list(everything)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "0", "/", "1/", "/3", "3/3", "-1/3", "a/b", "0/0", "1.0/3"])
def test_what_names_no_part_is_refused(text):
    with pytest.raises(InputError, match=r"part: got .*expected I/N"):
        parse_part(text)
