"""Mixup between domains, and transforms of batches in a run."""

from typing import Any

import attrs
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.data import Minibatch
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import observe
from fishr.penalties import ERM
from fishr.protocols import colored_digits
from fishr.ranks import Ranks
from fishr.training import SGD, Experiment, explain_objective, train
from fishr.transforms import Mixup, mix_domains
from fishr.types import DomainBatch

FLOAT64 = torch.float64


def batch(*sizes: int) -> DomainBatch:
    return DomainBatch(torch.randn(sum(sizes), 4, dtype=FLOAT64), torch.randint(3, (sum(sizes),)), sizes)


def test_the_risk_is_that_of_both_labels_by_their_shares() -> None:
    """A slow loop over pairs of rows, of domains of unequal sizes and without the missing one."""
    given, head = batch(5, 0, 3, 4), nn.Linear(4, 3).to(FLOAT64)
    order, shares = (3, 0, 2), (0.25, 0.9, 0.0)
    mixed = mix_domains(given, order, shares, outputs=3)
    assert mixed.sizes == (3, 0, 3, 4)
    starts, risks = {0: 0, 2: 5, 3: 8}, list[Tensor]()
    for first, second, share in ((0, 2, 0.9), (2, 3, 0.0), (3, 0, 0.25)):
        losses = list[Tensor]()
        for row in range(min(given.sizes[first], given.sizes[second])):
            one, other = starts[first] + row, starts[second] + row
            logits = head(share * given.inputs[one] + (1 - share) * given.inputs[other])
            by_label = -logits.log_softmax(0)
            losses.append(share * by_label[given.labels[one]] + (1 - share) * by_label[given.labels[other]])
        risks.append(torch.stack(losses).mean())
    seen = observe(nn.Identity(), head, mixed)
    assert_close(ERM()(seen, (), 0)[0], torch.stack(risks).mean(), atol=1e-10, rtol=1e-10)


def test_shares_are_drawn_from_beta() -> None:
    """Of the first of two domains; the mean of Beta(α, α) is 1/2 and its variance 1/(4(2α + 1))."""
    given = DomainBatch(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), (1, 1))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([Mixup(alpha=2.0)(given, generator, 2).labels[0, 0] for _ in range(2000)])
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / 20, abs=0.005)
    orders = {tuple(Mixup()(batch(1, 1, 1), generator, 3).labels.argmax(1).tolist()) for _ in range(20)}
    assert len(orders) > 1


def test_one_domain_alone_stays_as_it_is() -> None:
    given = batch(0, 4)
    mixed = Mixup()(given, torch.Generator(), 3)
    assert_close(mixed.inputs, given.inputs)
    assert torch.equal(mixed.labels.argmax(1), given.labels)


def test_numbers_and_probabilities_are_mixed_as_they_are() -> None:
    halves = DomainBatch(torch.eye(2), torch.tensor([1.0, 2.0]), (1, 1))
    assert mix_domains(halves, (0, 1), (0.5, 0.5), outputs=1).labels.tolist() == [1.5, 1.5]
    classes = DomainBatch(torch.eye(2), torch.tensor([0, 1]), (1, 1))
    assert mix_domains(classes, (0, 1), (0.25, 0.5), outputs=1).labels.tolist() == [0.75, 0.5]
    soft = DomainBatch(torch.eye(2), torch.eye(2), (1, 1))
    assert mix_domains(soft, (0, 1), (0.25, 0.5), outputs=2).labels.tolist() == [[0.25, 0.75], [0.5, 0.5]]


def mixed_pair(inputs: Any, labels: list[int]) -> DomainBatch:
    return Mixup()(DomainBatch(inputs, torch.tensor(labels), (1, 1)), torch.Generator(), 3)


@pytest.mark.parametrize(("mixed", "message"), [
    (lambda: Mixup(alpha=0.0), "alpha: got 0.0"),
    (lambda: mix_domains(batch(2, 2), (0,), (0.5,), 3), r"order \(0,\) and 1 shares, expected each .* \(0, 1\)"),
    (lambda: mix_domains(batch(2, 2), (0, 1), (0.5,), 3), "and 1 shares"),
    (lambda: mix_domains(batch(2, 2), (1, 1), (0.5, 0.5), 3), r"got the order \(1, 1\)"),
    (lambda: mixed_pair(torch.eye(2), [0, -100]), "from -100 to 0"),
    (lambda: mixed_pair(torch.ones(2, 2).long(), [0, 1]), "int64"),
    (lambda: mixed_pair({"x": torch.eye(2)}, [0, 1]), "a dict"),
])  # fmt: skip
def test_what_cannot_be_mixed_is_refused(mixed: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixed()


def experiment(transform: Any = Mixup(alpha=1.0), **changes: Any) -> Experiment:  # noqa: B008 (immutable)
    parts: dict[str, Any] = {"loss": CrossEntropy(), "batches": Minibatch(12), "transform": transform, "steps": 3}
    return attrs.evolve(colored_digits(), **parts | changes)


def test_a_resumed_run_draws_the_same() -> None:
    events: list[Any] = [event for event in train(experiment()) if hasattr(event, "record")]
    again: list[Any] = [event for event in train(experiment(), state=events[0].state) if hasattr(event, "record")]
    assert [event.record for event in again] == [event.record for event in events[1:]]
    plain: list[Any] = [event for event in train(experiment(None)) if hasattr(event, "record")]
    assert plain[0].record.risk != events[0].record.risk
    assert torch.equal(plain[0].state.generator, events[0].state.generator)


def test_a_fixed_batch_is_transformed_anew_at_each_step() -> None:
    seen: list[list[float]] = []

    def noisy(batch: DomainBatch, generator: torch.Generator, outputs: int) -> DomainBatch:
        seen.append([*torch.rand(2, generator=generator).tolist(), outputs])
        return batch

    list(train(attrs.evolve(colored_digits(), transform=noisy, steps=2)))
    assert seen[0][:2] != seen[1][:2]
    assert [draws[2] for draws in seen] == [1, 1]


def test_a_transform_returns_a_batch() -> None:
    with pytest.raises(InputError, match="transform: got a int from its call, expected a DomainBatch"):
        list(train(experiment(lambda batch, generator, outputs: 3)))


def test_explain_names_the_transform_and_applies_it() -> None:
    assert "\ntransform: Mixup(alpha=1.0)\n" in str(explain_objective(experiment()))


@pytest.mark.slow
def test_ranks_mix_as_one_process() -> None:
    for ours in on_ranks(2, records):
        for one, other in zip(ours, records(Ranks()), strict=True):
            assert one.risk == pytest.approx(other.risk, rel=1e-5)
            assert one.domain_losses == pytest.approx(other.domain_losses, rel=1e-5)


def records(ranks: Ranks) -> Any:
    events: Any = train(experiment(optimizer=SGD(0.1)), ranks=ranks)
    return [event.record for event in events if hasattr(event, "record")]
