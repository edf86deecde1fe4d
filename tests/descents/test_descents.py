"""Descents in a step: oracles in float64, the plain step as a law, batch normalization, ranks and resuming."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.data import Minibatch
from fishr.descents import SAM, ANDMask, Descended, Fish
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.models import LinearHead
from fishr.penalties import ERM, Scaled, Total, VREx
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks
from fishr.training import SGD, Adam, Compute, Experiment, Objective, advance, explain_objective, run, train
from fishr.training.state import build_modules, first_state
from fishr.types import DomainBatch

FLOAT64 = torch.float64
EXACT = {"atol": 1e-11, "rtol": 1e-11}


@frozen
class Plain:
    """The plain step, written as a descent that counts its calls."""

    def init(self, weights: Any) -> Any:
        return (0,)

    def __call__(self, gradients: Any, optimizer: Any, weights: Any, memory: Any, state: Any) -> Descended:
        measured = gradients(weights)
        moved, memory = optimizer.update(measured.gradients, memory, weights)
        return Descended(moved, memory, (state[0] + 1,), measured)


@frozen
class Network:
    """A layer and batch normalization in float64."""

    dropout: float = 0.0

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        layer = nn.Linear(shape[0], 5)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
        return nn.Sequential(layer, nn.BatchNorm1d(5), nn.Dropout(self.dropout)).double()

    def features(self, shape: tuple[int, ...]) -> int:
        return 5


@frozen
class Top:
    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        return LinearHead()(features, outputs, generator).double()


def experiment(descent: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "featurizer": Network(),
        "head": Top(),
        "loss": CrossEntropy(),
        "objective": Objective(risk=ERM("domains"), l2=0.01),
        "optimizer": SGD(lr=0.3, momentum=0.9),
        "descent": descent,
    }
    return attrs.evolve(colored_digits(), **parts | changes)


def batch_of(step: int) -> DomainBatch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(15, 4, generator=generator, dtype=FLOAT64)
    return DomainBatch(inputs, torch.randint(3, (15,), generator=generator), (4, 5, 6))


def trained(made: Experiment, steps: int = 4) -> Any:
    model = build_modules(made, (4,), 3, torch.device("cpu"))
    state, found = first_state(made, model, 3), list[Any]()
    for step in range(steps):
        state, record = advance(model, made, state, batch_of(step))
        found.append(record)
    return state, found


class ByHand:
    """The same network, and a plain loop over it."""

    def __init__(self, made: Experiment) -> None:
        model = build_modules(made, (4,), 3, torch.device("cpu"))
        self.module = nn.ModuleDict({"featurizer": model.featurizer, "head": model.head})
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.3, momentum=0.9)

    def loss(self, batch: DomainBatch, domains: tuple[int, ...]) -> Tensor:
        starts = [sum(batch.sizes[:k]) for k in range(3)]
        rows = torch.cat([torch.arange(starts[k], starts[k] + batch.sizes[k]) for k in domains])
        logits = self.module["head"](self.module["featurizer"](batch.inputs[rows]))
        losses = nn.functional.cross_entropy(logits, batch.labels[rows], reduction="none")
        risk = torch.stack([part.mean() for part in losses.split([batch.sizes[k] for k in domains])]).mean()
        return risk + 0.01 * torch.stack([p.square().sum() for p in self.module.parameters()]).sum()

    def gradients(self, batch: DomainBatch, domains: tuple[int, ...]) -> list[Tensor]:
        return [*torch.autograd.grad(self.loss(batch, domains), list(self.module.parameters()))]

    def update(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def numbers(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}


def check(hand: ByHand, state: Any) -> None:
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, **EXACT)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), Adam(0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_plain_descent_is_the_plain_step_to_the_bit(optimizer: Any, clip: float | None, same: Any) -> None:
    changes: dict[str, Any] = {"featurizer": Network(0.5), "optimizer": optimizer, "clip_norm": clip}
    penalty = Total(rex=Scaled(VREx(), 0.5))
    changes["objective"] = Objective(penalty=penalty, l2=0.01, fresh_optimizer_at=2)
    ours, records = trained(experiment(Plain(), **changes))
    plain, expected = trained(experiment(None, **changes))
    assert same(attrs.evolve(ours, descent=None), plain)
    assert records == expected
    assert ours.descent == (4,)
    assert plain.descent is None


def test_sam_is_its_formula() -> None:
    made = experiment(SAM(rho=0.4))
    hand = ByHand(made)
    for step in range(4):
        batch, before = batch_of(step), [p.detach().clone() for p in hand.module.parameters()]
        first = hand.gradients(batch, (0, 1, 2))
        buffers = {name: value.clone() for name, value in hand.module.named_buffers()}
        norm = torch.stack([g.square().sum() for g in first]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(hand.module.parameters(), first, strict=True):
                parameter += 0.4 * gradient / norm
        second = hand.gradients(batch, (0, 1, 2))
        with torch.no_grad():
            for parameter, value in zip(hand.module.parameters(), before, strict=True):
                parameter.copy_(value)
            for name, buffer in hand.module.named_buffers():
                buffer.copy_(buffers[name])
        hand.update(second)
    state, _ = trained(made)
    check(hand, state)
    assert state.buffers["featurizer.1.num_batches_tracked"] == 4


def test_sam_at_distance_zero_and_at_a_flat_point_is_the_plain_step() -> None:
    for changes in ({}, {"objective": Objective(risk=_zero())}):
        descent = SAM(rho=0.0) if not changes else SAM(rho=1.0)
        ours, plain = trained(experiment(descent, **changes))[0], trained(experiment(None, **changes))[0]
        for name, value in plain.parameters.items():
            assert_close(ours.parameters[name], value, **EXACT)


@frozen
class _zero:  # noqa: N801 (a function with the methods of a risk)
    def init(self, problem: Any) -> Any:
        return ()

    def __call__(self, seen: Any, state: Any, step: int) -> Any:
        return 0 * seen.losses.mean(), state


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_and_mask_is_its_formula(tau: float) -> None:
    """Domains in their order, through the running statistics; signs counted entry by entry."""
    made = experiment(ANDMask(tau))
    hand = ByHand(made)
    for step in range(4):
        found = [hand.gradients(batch_of(step), (k,)) for k in range(3)]
        masked = list[Tensor]()
        for by_domain in zip(*found, strict=True):
            kept = torch.tensor([
                abs(sum(torch.sign(g.flatten()[i]).item() for g in by_domain)) >= 3 * tau
                for i in range(by_domain[0].numel())
            ])  # fmt: skip
            mean = sum(g.flatten() for g in by_domain) / 3
            masked.append((kept * mean * len(kept) / max(int(kept.sum()), 1)).view_as(by_domain[0]))
        hand.update(masked)
    state, records = trained(made)
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, atol=1e-7, rtol=1e-7)
    assert all(len(record.domain_losses) == 3 for record in records)
    assert records[0].risk == pytest.approx(sum(records[0].domain_losses) / 3)


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_fish_is_its_formula(epsilon: float) -> None:
    """One update for each domain in turn, then the way back to 1 − ε of it; buffers likewise."""
    made = experiment(Fish(epsilon))
    hand = ByHand(made)
    for step in range(4):
        before = hand.numbers()
        for k in range(3):
            hand.update(hand.gradients(batch_of(step), (k,)))
        with torch.no_grad():
            for name, value in hand.module.state_dict().items():
                if value.is_floating_point():
                    value.copy_((1 - epsilon) * before[name] + epsilon * value)
    state, records = trained(made)
    check(hand, state)
    assert all(len(record.domain_losses) == 3 for record in records)


def digits(descent: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {"batches": Minibatch(20), "steps": 4, "checkpoint_every": 2, "descent": descent}
    return attrs.evolve(colored_digits("erm"), **parts | changes)


@pytest.mark.parametrize("descent", [SAM(), ANDMask(0.5), Fish(), Plain()], ids=["sam", "and_mask", "fish", "own"])
def test_a_run_resumes_to_the_same_bits(descent: Any, tmp_path: Path, same: Any) -> None:
    made = digits(descent)
    *_, whole = run(made, tmp_path / "whole", experiment_text="")
    stopped = run(made, tmp_path / "cut", experiment_text="")
    for event in stopped:
        if getattr(getattr(event, "state", None), "step", None) == 3:
            break
    stopped.close()
    *_, resumed = run(made, tmp_path / "cut", experiment_text="", resume=True)
    assert same(resumed.state, whole.state)  # type: ignore[union-attr]
    assert resumed.state.descent == whole.state.descent  # type: ignore[union-attr]


@pytest.mark.parametrize(("made", "message"), [
    (lambda: digits(SAM(), compute=Compute(precision="fp16")), "descent: got SAM in fp16, whose one loss scale"),
    (lambda: attrs.evolve(colored_digits(), descent=ANDMask()), "got ANDMask, .* alone, with fishr"),
    (lambda: experiment(Fish(), objective=Objective(risk=VREx())), "got Fish, .* with risk, which compares domains"),
    (lambda: ANDMask(1.5), "tau: got 1.5, expected at most 1"),
    (lambda: SAM(-1.0), "rho: got -1.0"),
    (lambda: Fish(0.0), "epsilon: got 0.0"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()


def test_a_state_that_no_checkpoint_holds_is_refused() -> None:
    class Sets(Plain):
        def init(self, weights: Any) -> Any:
            return {1}

    with pytest.raises(InputError, match="descent state: got a set, expected a tree"):
        next(train(digits(Sets())))


def test_explain_names_the_descent() -> None:
    assert "\ndescent: SAM(rho=0.05)" in str(explain_objective(digits(SAM())))


@pytest.mark.slow
def test_ranks_descend_as_one_process() -> None:
    alone = after(ALONE)
    for ours in on_ranks(2, after):
        for one, other in zip(ours, alone, strict=True):
            for name, value in other.items():
                assert_close(one[name], value, atol=1e-6, rtol=1e-5)


def after(ranks: Ranks) -> list[dict[str, Tensor]]:
    found = list[dict[str, Tensor]]()
    for descent in (SAM(), ANDMask(0.5), Fish()):
        *_, finished = train(digits(descent, optimizer=SGD(0.1), batches=Minibatch(21)), ranks=ranks)
        found.append(finished.state.parameters)  # type: ignore[union-attr]
    return found
