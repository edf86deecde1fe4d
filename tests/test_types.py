"""The shared records: what they refuse, and how columns belong to parameters."""

from collections import OrderedDict

import pytest
import torch
from cases import FLOAT64
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.types import DomainBatch, Layout, Problem


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_a_batch_knows_its_domains(sizes: list[int]) -> None:
    batch = DomainBatch(torch.zeros(sum(sizes), 2), torch.zeros(sum(sizes)), sizes)
    assert (batch.domains, batch.sizes) == (len(sizes), tuple(sizes))


@pytest.mark.parametrize("sizes", [(), (0, 0), (-1, 6), (2, 2), (2, 4), (2.5, 2.5)])
def test_sizes_that_do_not_cut_the_rows_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="sizes: got") as raised:
        DomainBatch(torch.zeros(5, 2), torch.zeros(5), sizes)
    assert "\n" not in str(raised.value)


def test_sizes_may_be_any_whole_numbers() -> None:
    assert DomainBatch(torch.zeros(5, 2), torch.zeros(5), torch.tensor([2, 3])).sizes == (2, 3)


def test_a_domain_may_be_missing() -> None:
    batch = DomainBatch(torch.zeros(5, 2), torch.zeros(5), (0, 5, 0))
    assert (batch.domains, batch.sizes) == (3, (0, 5, 0))
    with pytest.raises(InputError, match=r"sizes: got \(0, 0\), expected none below 0, and at least one sample"):
        DomainBatch(torch.zeros(0, 2), torch.zeros(0), (0, 0))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(4, 6))
def test_samples_in_any_order_are_sorted_by_domain_and_keep_their_order_in_it(ids: list[int], number: int) -> None:
    places = torch.arange(len(ids))
    inputs = {"x": places[:, None].double(), "more": (places + 10, [places])}
    for domains in (ids, torch.tensor(ids), torch.tensor(ids, dtype=torch.uint8)):
        batch = DomainBatch.of(inputs, places, domains, number)
        order = [n for k in range(number) for n in range(len(ids)) if ids[n] == k]
        assert batch.sizes == tuple(ids.count(k) for k in range(number))
        assert batch.labels.tolist() == order
        assert batch.inputs["x"].flatten().tolist() == order
        assert (batch.inputs["more"][0] - 10).tolist() == batch.inputs["more"][1][0].tolist() == order
    assert DomainBatch.of(inputs, places, ids).domains == max(ids) + 1


ROWS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("inputs", "domains", "number", "message"),
    [
        (ROWS, [0, 1], None, r"domains: got shape \(2,\) and type torch.int64, expected \(3,\) whole numbers"),
        (ROWS, [0, 1, -1], None, "domains: got -1 to 1, expected whole numbers from 0; number the domains from 0"),
        (ROWS, [1, 2, 3], 3, "domains: got 1 to 3, expected 0 to 2 for number=3; number the domains from 0"),
        (ROWS, [0.0, 1.0, 1.0], None, "type torch.float32, expected"),
        (ROWS, [True, False, True], None, "type torch.bool, expected"),
        (ROWS, ["art", "photo", "art"], None, "domains: got a builtins.list that is no tensor of numbers"),
        (ROWS, None, None, "domains: got None that is no tensor of numbers"),
        (ROWS[:2], [0, 1, 1], None, "labels: got 3 rows, expected 2 as in the inputs"),
        ({"ids": ROWS, "mask": ROWS[:2]}, [0, 1, 1], None, "labels: got 3 rows, expected 2 as in the inputs mask"),
        (
            {"ids": ROWS, "text": "abc"},
            [0, 1, 1],
            None,
            "inputs: got a builtins.dict, .*; entry text is a builtins.str",
        ),
        ((ROWS, torch.tensor(1.0)), [0, 1, 1], None, "inputs 1: got a single number"),
        ({}, [0, 1, 1], None, "inputs: got no tensor"),
    ],
)
def test_samples_of_no_domain_are_refused(inputs: object, domains: object, number: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        DomainBatch.of(inputs, torch.zeros(3), domains, number)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_batch_moves_with_all_of_its_inputs() -> None:
    batch = DomainBatch({"a": torch.zeros(2, 2), "b": [torch.zeros(2)]}, torch.zeros(2), (1, 1)).to("meta")
    assert {t.device.type for t in (batch.inputs["a"], batch.inputs["b"][0], batch.labels)} == {"meta"}
    assert batch.sizes == (1, 1)


def test_labels_of_other_length_are_refused() -> None:
    with pytest.raises(InputError, match="labels: got 4 rows, expected 5"):
        DomainBatch(torch.zeros(5, 2), torch.zeros(4), (2, 3))


def test_layout_follows_named_parameters_and_splits_and_joins() -> None:
    head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 3, bias=False))
    head[1].bias.requires_grad_(False)
    layout = Layout.of(head)
    assert layout.names == ("0.weight", "0.bias", "1.weight", "2.weight")
    assert layout.size == 18 + 2 + 2 + 12
    columns = torch.arange(2 * layout.size).view(2, layout.size)
    parts = layout.split(columns)
    assert tuple(parts["0.weight"].shape) == (2, 2, 1, 3, 3)
    assert_close(torch.cat([part.flatten(1) for part in parts.values()], 1), columns)
    assert parts["1.weight"].data_ptr() == columns[:, 20:].data_ptr()  # a view


def test_layout_of_tied_parameters_has_each_once() -> None:
    head = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    head[1].weight = head[0].weight
    assert Layout.of(head).names == ("0.weight", "0.bias", "1.bias")


def network() -> nn.Module:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    layer[1].bias.requires_grad_(False)
    parts = OrderedDict(layer1=layer, layer10=nn.Linear(2, 2), head=nn.Linear(2, 1))
    return nn.Sequential(parts)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (("layer1",), ("layer1.0.weight", "layer1.0.bias", "layer1.1.weight")),  # not layer10, nothing frozen
        (("head", "layer1.1"), ("layer1.1.weight", "head.weight", "head.bias")),  # in the network's order
        (("layer1.0.bias",), ("layer1.0.bias",)),
        (("head", "head.bias", "head"), ("head.weight", "head.bias")),  # each once
    ],
)
def test_layout_of_layers_has_what_lies_below_them(layers: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert Layout.of(network(), layers).names == names


def test_a_tied_parameter_is_chosen_by_either_name() -> None:
    head = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    head[1].weight = head[0].weight
    assert Layout.of(head, ("1",)).names == ("0.weight", "1.bias")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("layer1", "hed"), r"layers: got 'hed', .* of Sequential .*, such as 'head'"),
        (
            ("layer1.1.bias",),
            r"layers: got 'layer1\.1\.bias', which no trainable parameter .* such as .*'layer1\.0\.bias'",
        ),
        (("xyz",), r"'xyz', .* such as 'layer1', 'layer10', 'head'"),
        (("layer",), r"layers: got 'layer', "),
        (("",), r"layers: got ''"),
        ((), r"layers: got \(\), expected a tuple of names"),
        ("head", r"layers: got 'head', expected a tuple of names"),
    ],
)
def test_names_that_are_no_trainable_layers_are_refused(layers: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Layout.of(network(), layers)
    assert "\n" not in str(raised.value)


def test_layout_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="ReLU has no parameter"):
        Layout.of(nn.ReLU())


@pytest.mark.parametrize(
    ("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (FLOAT64, FLOAT64)]
)
def test_a_problem_is_as_wide_as_its_head_and_float32_at_least(dtype: torch.dtype, wide: torch.dtype) -> None:
    problem = Problem.of(nn.Linear(3, 2).to(dtype), domains=4)
    assert problem.zeros().dtype is wide
    assert problem.zeros().shape == (4, 8)
