"""Rows read by threads: the same as read by hand, in order, with their seeds, and errors that come through."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.batches import FullBatch, Minibatch
from fishr.data.domains import Domain, LazyInputs
from fishr.data.reading import begin_reading, chunks, tensor_of
from fishr.errors import InputError


@frozen(eq=False)
class Numbers:
    """Input i is (its number, the seed it was read with or -1); a bad one cannot be read."""

    numbers: tuple[int, ...]
    width: int = 2
    bad: int = -5
    threads: set = field(factory=set)
    dtype: torch.dtype = torch.float32

    @property
    def shape(self):
        return torch.Size((len(self.numbers), self.width))

    def __len__(self):
        return len(self.numbers)

    def select(self, rows):
        return evolve(self, numbers=tuple(self.numbers[row] for row in rows))

    def plain(self):
        return self

    def to(self, device):
        return self

    def finish(self, read, rows, seeds=None, out=None):
        return read if out is None else out.copy_(read)

    def read(self, rows, seeds=None):
        self.threads.add(threading.current_thread().name)
        made = torch.zeros(len(rows), self.width)
        for place, row in enumerate(rows):
            if self.numbers[row] == self.bad:
                raise InputError(f"{self.bad}.jpg: cannot be read")
            made[place, 0] = self.numbers[row]
            made[place, 1] = -1 if seeds is None else seeds[place] % 1000
        return made


def _domain(count, **options):
    return Domain("lazy", Numbers(tuple(range(count)), **options), torch.arange(count) % 3)


def test_the_protocol_is_met():
    assert isinstance(Numbers((1,)), LazyInputs)


@given(st.lists(st.integers(0, 29), min_size=1, max_size=40))
def test_rows_come_in_their_order(rows):
    found = begin_reading(Numbers(tuple(range(30))), rows, seeds=[row * 7 for row in rows]).result()
    assert found.tolist() == [[row, row * 7] for row in rows]


def test_other_threads_read():
    numbers = Numbers(tuple(range(30)))
    begin_reading(numbers, range(30)).result()
    assert all(name.startswith("fishr-reading") for name in numbers.threads)


@pytest.mark.parametrize("most", [1, 7, 64, 1000])
@pytest.mark.parametrize("start", [0, 5])
def test_chunks_of_files_are_those_of_the_tensor(most, start):
    lazy = _domain(150)
    held = evolve(lazy, inputs=tensor_of(lazy.inputs))
    pairs = list(zip(chunks(lazy, most, start), chunks(held, most, start), strict=True))
    for (inputs, labels), (expected, expected_labels) in pairs:
        assert torch.equal(inputs, expected)
        assert torch.equal(labels, expected_labels)
    assert torch.cat([labels for (_, labels), _ in pairs]).tolist() == lazy.labels[start:].tolist()


def test_large_inputs_come_in_fewer_rows():
    domain = _domain(200, width=1 << 18)  # a mebibyte each
    assert [len(labels) for _, labels in chunks(domain, most=8192)] == [64, 64, 64, 8]


def test_tensors_and_chosen_rows():
    numbers = Numbers((5, 6, 7))
    assert tensor_of(numbers)[:, 0].tolist() == [5, 6, 7]
    assert tensor_of(numbers, [2, 0])[:, 0].tolist() == [7, 5]
    assert tensor_of(torch.eye(2), [1]).tolist() == [[0.0, 1.0]]


def test_what_cannot_be_read_is_told():
    with pytest.raises(InputError, match=r"17\.jpg: cannot be read"):
        list(chunks(_domain(30, bad=17), most=4))


def test_batches_of_files_are_those_of_the_tensor_but_for_seeds():
    lazy, generator, other = _domain(40), torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    batch = Minibatch(5).draw((lazy,), generator)
    held = Minibatch(5).draw((evolve(lazy, inputs=tensor_of(lazy.inputs)),), other)
    assert torch.equal(batch.inputs[:, 0], held.inputs[:, 0])
    assert torch.equal(batch.labels, held.labels)
    # Each row has an augmentation of its own, drawn from the generator.
    assert len(set(batch.inputs[:, 1].tolist())) > 1
    again = Minibatch(5).draw((lazy,), torch.Generator().manual_seed(1))
    assert torch.equal(batch.inputs, again.inputs)


def test_no_batch_holds_all_files():
    with pytest.raises(InputError, match="got FullBatch of images that are read from files, expected Minibatch"):
        FullBatch().draw((_domain(4),), torch.Generator())


def test_parts_of_lazy_domains():
    part = _domain(10).part([4, 2], "env0_in")
    assert (part.name, part.inputs.numbers, part.labels.tolist()) == ("env0_in", (4, 2), [1, 2])


THREADS = """
import sys, threading, torch
from fishr.data.reading import _pool

def threads():
    return torch.get_num_threads()

print(threads(), {_pool().submit(threads).result() for _ in range(9)}, threads())
later = threading.Thread(target=lambda: print(threads()))
later.start()
later.join()
print(sys.getswitchinterval())
"""


@pytest.mark.slow
def test_threads_that_read_compute_by_themselves_and_others_as_before():
    # In a process of its own, as this one may have been told to take one thread.
    command = [sys.executable, "-c", THREADS]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == ["2 {1} 2", "2", "0.001"]


def test_a_batch_is_made_in_its_output_buffer():
    out = torch.full((7, 2), -1.0)
    made = begin_reading(Numbers(tuple(range(30))), range(5), out=out[1:6]).result()
    assert made.data_ptr() == out[1:6].data_ptr()
    assert torch.equal(out[1:6], begin_reading(Numbers(tuple(range(30))), range(5)).result())
    assert (out[[0, 6]] == -1).all()
