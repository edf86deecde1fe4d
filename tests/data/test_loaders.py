"""Batches of one loader a domain: any lengths, any inputs, and errors that name the loader."""

from collections import UserDict, namedtuple
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fishr
from fishr.errors import InputError


def numbered(domain: int, samples: int) -> TensorDataset:
    """Inputs [domain, place], so that each sample is known again."""
    places = torch.arange(samples, dtype=torch.float32)
    return TensorDataset(torch.stack([torch.full_like(places, domain), places], 1), torch.full((samples,), domain))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3), st.integers(1, 12))
def test_each_domain_goes_round_by_itself(shapes: list[tuple[int, int]], steps: int) -> None:
    loaders = [DataLoader(numbered(k, n), batch_size=size) for k, (n, size) in enumerate(shapes)]
    rounds: list[list[Tensor]] = [[] for _ in shapes]
    for batch in islice(fishr.batches(loaders), steps):
        assert batch.domains == len(shapes)
        for k, (inputs, labels) in enumerate(
            zip(batch.inputs.split(batch.sizes), batch.labels.split(batch.sizes), strict=True)
        ):
            assert (inputs[:, 0] == k).all()
            assert (labels == k).all()
            rounds[k].append(inputs[:, 1])
    for (n, size), parts in zip(shapes, rounds, strict=True):
        places = [torch.arange(n)[start : start + size] for start in range(0, n, size)]
        expected = [places[step % len(places)] for step in range(steps)]
        assert all(torch.equal(part, place.float()) for part, place in zip(parts, expected, strict=True))


def test_shuffled_loaders_shuffle_again() -> None:
    loader = DataLoader(numbered(0, 64), batch_size=64, shuffle=True)
    first, second = islice(fishr.batches([loader]), 2)
    assert not torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.inputs[:, 1].sort().values, second.inputs[:, 1].sort().values)


Views = namedtuple("Views", "weak strong")


class Structured(Dataset[Any]):
    """Samples as dicts with labels, or as pairs whose inputs are a dict, a tuple or a named tuple."""

    def __init__(self, kind: str, samples: int) -> None:
        self.kind, self.samples = kind, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Any:
        ids, mask, label = torch.tensor([index, 1.0]), torch.ones(2), torch.tensor(index % 2)
        return {
            "dict with labels": {"input_ids": ids, "mask": mask, "labels": label},
            "dict": ({"input_ids": ids, "mask": mask}, label),
            "tuple": ((ids, mask), label),
            "named tuple": (Views(ids, mask), label),
        }[self.kind]


def parts(inputs: Any) -> tuple[Tensor, Tensor]:
    """The two tensors of any of these."""
    ids, mask = inputs.values() if isinstance(inputs, dict) else inputs
    return ids, mask


@pytest.mark.parametrize("kind", ["dict with labels", "dict", "tuple", "named tuple"])
def test_inputs_may_be_structures_of_tensors(kind: str) -> None:
    loaders = {
        "art": DataLoader(Structured(kind, 5), batch_size=3),
        "photo": DataLoader(Structured(kind, 4), batch_size=4),
    }
    batch = next(fishr.batches(loaders))
    assert batch.sizes == (3, 4)
    assert parts(batch.inputs)[0][:, 0].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert isinstance(batch.inputs, Views) is (kind == "named tuple")
    layer, head, penalty = nn.Linear(2, 3), nn.Linear(3, 2), fishr.Fishr()
    structured = fishr.observe(lambda inputs: layer(parts(inputs)[0] * parts(inputs)[1]), head, batch)
    plain = fishr.observe(layer, head, fishr.DomainBatch(parts(batch.inputs)[0], batch.labels, batch.sizes))
    assert torch.equal(penalty(structured, (), 0)[0], penalty(plain, (), 0)[0])
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in (*parts(moved.inputs), moved.labels)} == {"meta"}


def test_a_tokenizers_batch_is_a_dict_too() -> None:
    batch = UserDict({"input_ids": torch.ones(2, 3), "labels": torch.zeros(2)})
    assert next(fishr.batches([[batch], [batch]])).inputs["input_ids"].shape == (4, 3)


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(shape), torch.zeros(shape[0])


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ([], "^batches: got a builtins.list of none, expected a list or dict of loaders"),
        (DataLoader(numbered(0, 3)), "^batches: got a .*DataLoader, expected a list or dict of loaders, one for each"),
        ({"art": [pair(1, 2)], "photo": []}, "^loader photo: got no batch, expected at least one in every pass"),
        ([[pair(1, 2)], iter([pair(1, 2)])], "^loader 1: got no batch"),
        ([DataLoader(numbered(0, 3), batch_size=4, drop_last=True)], "^loader 0: got no batch.*drop_last"),
        ([[torch.zeros(3, 2)]], '^loader 0: got a torch.Tensor, expected a pair .* or a dict with "labels"'),
        ([[{"x": torch.zeros(2)}]], "^loader 0: got a builtins.dict with the entries x, expected a pair"),
        ([[(torch.zeros(2), [0, 1])]], "^loader 0: got a builtins.tuple, expected .*labels are a torch.Tensor"),
        ([[pair(1, 2)], [pair(1, 3)]], "^batches: got parts of 0, 1 that do not fit together .*pad or resize"),
        ([[({"a": torch.zeros(1)}, torch.zeros(1))], [pair(1, 2)]], "^batches: got parts .*the entries a and a tensor"),
        ([[(["a"], torch.zeros(1))]], "^batches: got parts of 0 that do not fit"),
        ([[(torch.zeros(3, 2), torch.zeros(2))]], "^labels: got 2 rows, expected 3 as in the inputs"),
    ],
)
def test_what_is_no_loader_of_pairs_is_refused_by_name(loaders: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        list(islice(fishr.batches(loaders), 3))
    assert "\n" not in str(raised.value)
