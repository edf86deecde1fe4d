"""The lazy view of a batch: what is computed when, and once."""

import copy
from collections.abc import Callable

import pytest
import torch
from attrs import evolve
from cases import EXACT, FLOAT64, HEADS, Featurizer, Tracking, derivatives, oracle_gradients, oracle_moments
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import Observation, observe
from fishr.penalties import Fishr
from fishr.ranks import ALONE, Ranks
from fishr.statistics.domain_moments import GradientMoments
from fishr.types import HEAD, DomainBatch

QUANTITIES = ("features", "logits", "losses", "domain_losses", "deltas", "moments", "gram")


class Counted(nn.Module):
    """Counts the forward passes of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.module(inputs)


class CountedLoss:
    """Counts its calls, and those of its deltas."""

    def __init__(self) -> None:
        self.calls = 0
        self.delta_calls = 0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return CrossEntropy()(logits, labels)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.delta_calls += 1
        return CrossEntropy().deltas(logits, labels)


def batch() -> DomainBatch:
    return DomainBatch(torch.randn(7, 3, dtype=FLOAT64), torch.randint(2, (7,)), (3, 4))


def linear() -> nn.Module:
    return nn.Linear(3, 2).to(FLOAT64)


def test_nothing_is_computed_before_it_is_read_and_nothing_twice() -> None:
    featurizer, loss = Counted(Featurizer((3,))), CountedLoss()
    seen = observe(featurizer, linear(), batch(), loss)
    assert (seen.domains, seen.sizes, len(seen.labels)) == (2, (3, 4), 7)
    assert (featurizer.calls, loss.calls, loss.delta_calls) == (0, 0, 0)
    first = {name: getattr(seen, name) for name in QUANTITIES}
    assert all(getattr(seen, name) is first[name] for name in QUANTITIES)
    seen.detached().detached().moments  # noqa: B018
    assert featurizer.calls == 1
    assert loss.calls == 1
    assert loss.delta_calls == 2  # its own, and the Gram matrix's


def test_moments_of_a_linear_head_cost_no_second_forward_of_the_head() -> None:
    head = linear()
    calls = []
    forward = head.forward
    head.forward = lambda z: (calls.append(1), forward(z))[1]  # type: ignore[method-assign]
    seen = observe(nn.Identity(), head, batch())
    seen.moments, seen.losses, seen.deltas  # noqa: B018
    assert len(calls) == 1


@pytest.mark.parametrize("head", [linear(), nn.Sequential(linear(), nn.Tanh(), nn.Linear(2, 2).to(FLOAT64))])
def test_every_quantity_is_its_definition(head: nn.Module) -> None:
    data, featurizer = batch(), Featurizer((3,))
    seen = observe(featurizer, head, data)
    features = featurizer(data.inputs)
    losses = nn.functional.cross_entropy(head(features), data.labels, reduction="none")
    assert_close(seen.features, features)
    assert_close(seen.logits, head(features))
    assert_close(seen.losses, losses)
    assert_close(seen.domain_losses, torch.stack([losses[:3].mean(), losses[3:].mean()]))
    assert_close(seen.deltas, head(features).softmax(1) - nn.functional.one_hot(data.labels, 2))
    expected = oracle_moments(head, features, data.labels, data.sizes, CrossEntropy())
    assert_close(seen.moments.variance, expected.variance, **EXACT)
    gradients = oracle_gradients(head, features, data.labels, CrossEntropy())
    assert_close(seen.gram, gradients @ gradients.T, **EXACT)


def test_the_detached_view_keeps_what_is_known_and_has_no_graph() -> None:
    featurizer = Counted(Featurizer((3,)))
    seen = observe(featurizer, linear(), batch())
    assert seen.losses.requires_grad
    view = seen.detached()
    assert isinstance(view, Observation)
    assert view is seen.detached()
    for name in ("features", "logits", "losses"):
        assert not getattr(view, name).requires_grad
        assert_close(getattr(view, name), getattr(seen, name).detach())
        assert getattr(seen, name).requires_grad
    for name in QUANTITIES:
        assert not value(getattr(view, name)).requires_grad
    assert view.detached() is view
    assert seen.moments.variance.requires_grad
    assert featurizer.calls == 1


ORDERS = (QUANTITIES, QUANTITIES[::-1], ("domain_losses", "moments", "gram"), ("gram", "features", "moments", "losses"))
WRITING = ("linear", "first layer in place", "functions in place", "attention", "spectral norm", "moving statistics")


def value(quantity: Tensor | GradientMoments) -> Tensor:
    return quantity.variance if isinstance(quantity, GradientMoments) else quantity


@pytest.mark.parametrize("layers", [HEAD, ("featurizer", "head")])
@pytest.mark.parametrize("name", WRITING)
def test_no_quantity_depends_on_reading_order_and_buffers_move_once(name: str, layers: tuple[str, ...]) -> None:
    """Whatever is written in place; the reference reads each quantity of an observation of its own."""
    case = HEADS[name]
    start, inputs, labels = case.head(3), case.inputs(7), torch.randint(3, (7,))
    # Writes into its inputs too, and its own buffers move.
    writing = nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(case.shape[-1], case.shape[-1]))
    featurizer = Featurizer(case.shape) if layers == HEAD else nn.Sequential(writing, Tracking(*case.shape)).to(FLOAT64)
    modules = nn.ModuleList([featurizer, start])

    def read(order: tuple[str, ...], view: Callable[[Observation], Observation]) -> tuple[dict[str, Tensor], nn.Module]:
        featurizer, head = copy.deepcopy(modules)
        seen = observe(featurizer, head, DomainBatch(inputs.clone(), labels, (4, 3)), layers=layers)
        found = {quantity: value(getattr(view(seen), quantity)) for quantity in order}
        assert torch.equal(seen.batch.inputs, inputs)
        if len(order) == 1:
            return found, modules
        loss = sum(part.square().sum() for part in found.values())
        found["gradient"] = torch.cat([g.flatten() for g in derivatives(loss, featurizer, head)])
        return found, nn.ModuleList([featurizer, head])

    plain = copy.deepcopy(modules)
    plain[1](plain[0](inputs.clone()).clone())
    expected = {quantity: read((quantity,), lambda seen: seen)[0][quantity] for quantity in QUANTITIES}
    gradient = read(QUANTITIES, lambda seen: seen)[0]["gradient"]
    for order in ORDERS:
        found, after = read(order, lambda seen: seen)
        for quantity in order:
            assert_close(found[quantity], expected[quantity], **EXACT)
        if set(order) == set(QUANTITIES):
            assert_close(found["gradient"], gradient, **EXACT)
        if "losses" in order or "domain_losses" in order:
            assert_close(dict(after.named_buffers()), dict(plain.named_buffers()))
    assert_close(read(("moments",), Observation.detached)[0]["moments"], expected["moments"], **EXACT)


def test_a_penalty_may_differentiate_logits_twice_through_attention() -> None:
    case = HEADS["attention"]
    head, inputs = case.head(3), case.inputs(7).requires_grad_()
    seen = observe(nn.Identity(), head, DomainBatch(inputs, torch.randint(3, (7,)), (4, 3)))
    (gradient,) = torch.autograd.grad(seen.domain_losses.sum(), [inputs], create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), [inputs])
    assert second.abs().max() > 0


@pytest.mark.parametrize("route", ["auto", "closed_form", "backpack", "functional"])
def test_the_route_is_the_one_asked_for(route: str) -> None:
    seen = observe(nn.Identity(), linear(), batch(), route=route)
    assert seen.closed_form is (route in ("auto", "closed_form"))
    assert_close(seen.moments.variance, observe(nn.Identity(), seen.head, seen.batch).moments.variance, **EXACT)


@pytest.mark.parametrize("features", [torch.bfloat16, torch.float32, FLOAT64])
@pytest.mark.parametrize("head", [torch.bfloat16, torch.float32, FLOAT64])
def test_features_come_in_the_heads_type_and_statistics_in_float32_at_least(
    features: torch.dtype, head: torch.dtype
) -> None:
    data = batch()
    seen = observe(lambda x: x.to(features), nn.Linear(3, 2).to(head), data)
    wide = FLOAT64 if head is FLOAT64 else torch.float32
    for name in ("features", "logits", "losses", "domain_losses", "deltas", "gram"):
        assert getattr(seen, name).dtype is wide
    assert seen.moments.variance.dtype is wide


def test_quantities_of_domains_have_a_row_for_each_present() -> None:
    inputs, labels = torch.randn(5, 3, dtype=FLOAT64), torch.randint(2, (5,))
    seen = observe(nn.Identity(), linear(), DomainBatch.of(inputs, labels, [3, 1, 3, 1, 3], number=5))
    assert (seen.present, seen.sizes, seen.own_sizes, seen.domains, seen.batch.domains) == (
        (1, 3),
        (2, 3),
        (2, 3),
        2,
        5,
    )
    assert seen.domain_ids.tolist() == [1, 1, 3, 3, 3]
    assert_close(torch.cat(seen.per_domain(seen.labels)), labels[[1, 3, 0, 2, 4]])
    assert [len(part) for part in seen.per_domain(seen.logits)] == [2, 3]
    expected = nn.functional.cross_entropy(seen.head(inputs), labels, reduction="none")
    assert_close(seen.domain_losses, torch.stack([expected[[1, 3]].mean(), expected[[0, 2, 4]].mean()]))
    assert seen.moments.count == (2, 3)
    with pytest.raises(InputError, match="per_domain: got 4 rows, expected 5, one for each sample"):
        seen.per_domain(labels[:4])


def test_inputs_may_be_structures_of_tensors_except_for_layers_of_the_featurizer() -> None:
    featurizer, head, rows = nn.Linear(3, 3).to(FLOAT64), linear(), torch.randn(4, 3, dtype=FLOAT64)
    batch = DomainBatch({"a": rows, "b": (rows,)}, torch.tensor([0, 1, 0, 1]), (2, 2))

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = featurizer

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.layer(inputs["a"] + inputs["b"][0])

    seen = observe(Sum(), head, batch)
    assert_close(
        seen.moments.variance, observe(featurizer, head, DomainBatch(2 * rows, batch.labels, (2, 2))).moments.variance
    )
    with pytest.raises(InputError, match=r"layers: got .* of inputs in a dict, expected one tensor; use the head's"):
        observe(Sum(), head, batch, layers=("featurizer", "head")).moments  # noqa: B018


def test_a_loss_over_the_batch_is_refused() -> None:
    with pytest.raises(InputError, match="one number a sample"):
        observe(nn.Identity(), linear(), batch(), nn.CrossEntropyLoss()).losses  # noqa: B018


def quantities(ranks: Ranks, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything there is to see of 13 rows of which each rank has a share, and how often the featurizer is called."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(13, 4, generator=generator, dtype=dtype), torch.tensor([0, 1, 2, 1] * 3 + [0])
    torch.manual_seed(0)
    layer, head, calls = nn.Linear(4, 3, dtype=dtype), nn.Linear(3, 3, dtype=dtype), list[int]()

    def featurizer(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return layer(rows).tanh()

    parts = [ranks.share(rows) for rows in inputs.split((8, 5))]
    batch = DomainBatch(
        torch.cat(parts), torch.cat([ranks.share(rows) for rows in labels.split((8, 5))]), tuple(map(len, parts))
    )
    seen = observe(featurizer, head, batch, ranks=ranks)
    found = dict[str, Tensor]()
    for view, name in ((seen, ""), (seen.detached(), "detached ")):
        for quantity in ("features", "logits", "losses", "domain_losses", "deltas", "labels", "gram"):
            found[name + quantity] = getattr(view, quantity)
        found[name + "mean"], found[name + "variance"] = view.moments.mean, view.moments.variance
        found[name + "sizes"] = torch.tensor(view.sizes)
    assert calls == [len(batch.inputs)]
    assert seen.own.sizes == batch.sizes
    features = [name for name, value in found.items() if name.startswith("detached ") and depends(value, layer)]
    assert features == []
    return {name: value.detach() for name, value in found.items()}


def depends(value: Tensor, layer: nn.Module) -> bool:
    if not value.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value.sum(), [layer.weight], allow_unused=True, retain_graph=True)
    return gradient is not None


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_ranks_see_what_one_process_sees(count: int) -> None:
    expected = quantities(ALONE, torch.float64)
    for found in on_ranks(count, quantities, torch.float64):
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_draws_depend_on_the_seed_of_the_step_and_the_name_alone() -> None:
    def draws(seed: int, name: str) -> list[float]:
        seen = observe(nn.Identity(), linear(), batch(), seed=seed)
        torch.rand(3, generator=seen.generator("another"))
        return torch.rand(4, generator=seen.detached().generator(name)).tolist()

    assert draws(3, "mine") == draws(3, "mine")
    assert len({tuple(draws(seed, name)) for seed in (3, 4, 34) for name in ("mine", "4 mine", "yours")}) == 9
    with pytest.raises(InputError, match=r"generator: got an observation without a seed.*observe\(\.\.\., seed=step\)"):
        observe(nn.Identity(), linear(), batch()).generator("mine")


def test_samples_of_weight_0_are_in_no_mean_and_no_moments() -> None:
    head, features, labels = (
        nn.Linear(3, 2).double(),
        torch.randn(6, 3, dtype=FLOAT64),
        torch.tensor([0, 1, 1, 0, 0, 1]),
    )
    stack = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    # Domains of one and three samples.
    weights, fewer = torch.tensor([2.0, 0.0, 4 / 3, 4 / 3, 4 / 3, 0.0], dtype=FLOAT64), [0, 2, 3, 4]
    seen = Observation(nn.Identity(), head, DomainBatch(features, labels, (2, 4)), weights=weights)
    expected = observe(nn.Identity(), head, DomainBatch(features[fewer], labels[fewer], (1, 3)))
    assert_close(seen.domain_losses, expected.domain_losses, **EXACT)
    assert_close(seen.moments.variance, expected.moments.variance, **EXACT)
    for of_weights, of_fewer in ((seen, expected), (evolve(seen, head=stack), evolve(expected, head=stack))):
        assert_close(Fishr()(of_weights, (), 0)[0], Fishr()(of_fewer, (), 0)[0], **EXACT)
    other = Observation(nn.Identity(), nn.Sequential(nn.Flatten(), head), seen.batch, weights=weights)
    with pytest.raises(InputError, match="weights of samples"):
        _ = other.moments
