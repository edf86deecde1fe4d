"""Parts of an experiment that a user supplies: what they return is checked, and all of them train."""

import math
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.data import Domain, Domains, FunctionBatches
from fishr.errors import InputError
from fishr.losses import per_sample_losses
from fishr.models import MLP, FunctionFeaturizer
from fishr.penalties import ERM, Scaled, Stateless, Total, VREx
from fishr.protocols import colored_digits
from fishr.ranks import ALONE
from fishr.training import Experiment, train
from fishr.training.step import step_entry
from fishr.types import DomainBatch


def small(seed: int, data_dir: object) -> Domains:
    """Return two domains whose labels are numbers for a regression."""
    generator = torch.Generator().manual_seed(seed)
    parts = [Domain(name, torch.randn(6, 3, generator=generator), torch.arange(6) % 3) for name in ("one", "two")]
    return Domains(tuple(parts), (), classes=3)


def network(shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(shape[0], affine=False))


def head(features: int, outputs: int, generator: torch.Generator) -> nn.Module:
    made = nn.Linear(features, outputs)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made


def squares(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - nn.functional.one_hot(labels, 3)).square().sum(1)


def first_half(domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
    inputs = [domain.inputs[:4] for domain in domains]  # type: ignore[index]
    return DomainBatch(torch.cat(inputs), torch.cat([domain.labels[:4] for domain in domains]), (4,) * len(domains))


@frozen
class Momentum:
    """Risk with a memory: the mean of this step's and the last one's loss."""

    def init(self, problem: object) -> Any:
        return {"last": torch.zeros(())}

    def __call__(self, seen: Any, state: Any, step: int) -> tuple[Tensor, Any]:
        now = seen.domain_losses.mean()
        return (now + state["last"]) / 2, {"last": now.detach()}


@frozen
class Halving:
    def init(self, parameters: tuple[Tensor, ...]) -> Any:
        return (0,)

    def update(self, gradients: Any, state: Any, parameters: tuple[Tensor, ...]) -> Any:
        with torch.no_grad():
            return tuple(w - g / 2 for w, g in zip(parameters, gradients, strict=True)), (state[0] + 1,)


def own(**changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "data": small,
        "featurizer": FunctionFeaturizer(network),
        "head": head,
        "loss": squares,
        "batches": FunctionBatches(first_half),
        "optimizer": Halving(),
        "steps": 3,
    }
    terms = Total(rex=Scaled(VREx(), step_weight))
    parts["objective"] = attrs.evolve(colored_digits().objective, risk=Momentum(), penalty=terms)
    return attrs.evolve(colored_digits(), **parts | changes)


def step_weight(step: int) -> float:
    return 0.1 * step


def test_every_part_can_be_a_users():
    *_, finished = train(own())
    state: Any = finished.state
    assert state.optimizer == (3,)
    assert list(state.penalty) == ["rex", "risk"]
    assert state.penalty["risk"]["last"] > 0
    assert [score.name for score in finished.scores] == ["one", "two"]  # type: ignore[union-attr]


def test_a_run_with_a_risk_of_ones_own_goes_on_from_any_step():
    events = [event for event in train(own()) if hasattr(event, "record")]
    state: Any = events[0].state
    again = [event for event in train(own(), state=state) if hasattr(event, "record")]
    assert [event.record for event in again] == [event.record for event in events[1:]]  # type: ignore[union-attr]


def test_a_risk_that_draws_is_the_same_in_a_resumed_run_and_another_at_each_step():
    drawn: list[float] = []

    def noisy(seen: Any) -> Tensor:
        drawn.append(float(torch.rand((), generator=seen.generator("noisy"))))
        return seen.domain_losses.mean() * drawn[-1]

    made = own(objective=attrs.evolve(own().objective, risk=Stateless(noisy)))
    events: list[Any] = [event for event in train(made) if hasattr(event, "record")]
    again: list[Any] = [event for event in train(made, state=events[0].state) if hasattr(event, "record")]
    assert [event.record for event in again] == [event.record for event in events[1:]]
    assert drawn[3:] == drawn[1:3]
    assert len(set(drawn)) == 3


def test_a_risk_without_memory_has_no_part_in_the_state():
    objective = attrs.evolve(own().objective, risk=Stateless(lambda seen: seen.domain_losses.amax()))
    *_, finished = train(own(objective=objective))
    assert finished.state.penalty == {"rex": ()}
    assert attrs.evolve(objective, risk=ERM()).init(problem()) == {"rex": ()}


def problem() -> Any:
    from fishr.types import Problem

    return Problem.of(nn.Linear(3, 3), domains=2)


@frozen
class Broken:
    """An optimizer whose update returns a given value."""

    given: Any

    def init(self, parameters: object) -> Any:
        return ()

    def update(self, gradients: object, state: object, parameters: Any) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": lambda seed, data_dir: [seed]}, "data: got a list from its call, expected a Domains"),
        (
            {"featurizer": FunctionFeaturizer(lambda shape, generator: nn.Flatten)},  # type: ignore[arg-type,return-value]
            "featurizer: got a type from its call, expected a Module",
        ),
        ({"head": lambda features, outputs, generator: 3}, "head: got a int from its call, expected a Module"),
        ({"loss": lambda logits, labels: 3}, "loss: got a int from <lambda>, expected a tensor of one number a sample"),
        ({"loss": lambda logits, labels: logits.sum()}, r"loss: got shape \(\) from <lambda>, expected \(8,\)"),
        ({"batches": FunctionBatches(lambda domains, generator: 3)}, "batches: got a int .* expected a DomainBatch"),  # type: ignore[arg-type,return-value]
        ({"optimizer": Broken(3)}, "Broken: got 0 parameters from update, expected a pair: new parameters"),
        ({"optimizer": Broken(((torch.zeros(2),), ()))}, "Broken: got 1 parameters from update"),
    ],
)
def test_what_a_part_returns_is_checked(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        list(train(own(**changes)))


def test_a_batch_may_lack_a_domain() -> None:
    def one_or_both(domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
        batch = first_half(domains, generator)
        if torch.rand(1, generator=generator) < 0.5:
            return batch
        return DomainBatch(batch.inputs[4:], batch.labels[4:], (0, 4))

    objective = attrs.evolve(colored_digits().objective, risk=ERM(), penalty=Total(), l2=0.0)
    events = list(train(own(batches=FunctionBatches(one_or_both), objective=objective, steps=12)))
    records: list[Any] = [event.record for event in events if hasattr(event, "record")]
    assert {len(record.domain_losses) for record in records} == {2}
    lacking = [record for record in records if math.isnan(record.domain_losses[0])]
    assert 0 < len(lacking) < 12
    for record in records:
        found = step_entry(record, ("one", "two"))["domain_losses"]
        assert list(found) == (["two"] if record in lacking else ["one", "two"])
        assert record.risk == pytest.approx(sum(found.values()) / len(found), rel=1e-6)


def test_inputs_of_a_batch_in_training_are_one_tensor() -> None:
    def structured(domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
        batch = first_half(domains, generator)
        return DomainBatch({"x": batch.inputs}, batch.labels, batch.sizes)

    with pytest.raises(InputError, match="inputs of batches: got a dict from its call, expected a Tensor"):
        list(train(own(batches=FunctionBatches(structured))))


def test_a_state_that_no_checkpoint_holds_is_refused():
    weights = (torch.zeros(3, 3), torch.zeros(3))
    with pytest.raises(InputError, match="optimizer state: got a set, expected a tree"):
        list(train(own(optimizer=Broken((weights, {1})))))


def test_a_batch_of_a_function_is_shared_by_ranks():
    class Second:
        alone, count = False, 2

        def share(self, rows: Any) -> Any:
            return rows[len(rows) // 2 :]

    domains = small(0, None).training
    whole = FunctionBatches(first_half).draw(domains, torch.Generator(), ALONE)
    part = FunctionBatches(first_half).draw(domains, torch.Generator(), Second())  # type: ignore[arg-type]
    assert (whole.sizes, part.sizes) == ((4, 4), (2, 2))
    assert torch.equal(part.inputs, torch.cat([whole.inputs[2:4], whole.inputs[6:8]]))
    assert torch.equal(part.labels, torch.cat([whole.labels[2:4], whole.labels[6:8]]))


def test_the_features_of_a_function_are_counted_without_a_trace():
    before = torch.get_rng_state()
    assert FunctionFeaturizer(network).features((5,)) == 5
    assert torch.equal(before, torch.get_rng_state())


def test_labels_that_a_loss_does_not_check_are_taken():
    losses = per_sample_losses(squares, torch.zeros(2, 3), torch.tensor([0, 2]))
    assert losses.tolist() == [1, 1]
    assert own(featurizer=MLP(())).loss is squares
