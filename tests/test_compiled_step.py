"""A step of one's own loop under ``torch.compile``: the same numbers as without, in graphs that steps do not add to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.testing import assert_close

import fishr
from fishr.compilation import lazy, uncompiled
from fishr.penalties import CosineSchedule, Joined, LinearSchedule, Penalty, Stateless, StepSchedule

pytestmark = [
    pytest.mark.slow,
    # Of the compiler itself, which hides it unless warnings are errors.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
STEPS = 6

Made = tuple[Tensor, Tensor, Any]
Step = Callable[..., Any]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what other tests compiled."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def linear() -> nn.Module:
    return nn.Linear(5, 3)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def normalized() -> nn.Module:
    """A head with buffers."""
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)).eval()


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss without derivatives in closed form."""
    return (logits - nn.functional.one_hot(labels, 3)).square().sum(1)


def trained(
    penalty: Penalty,
    head: Callable[[], nn.Module] = linear,
    compiled: Callable[[Step], Step] = lambda step: step,
    sizes_of: Callable[[int], tuple[int, ...]] = lambda step: (6, 10),
    featurized: Callable[[nn.Module], nn.Module] = lambda featurizer: featurizer,
    **observed: Any,
) -> tuple[list[list[Tensor]], list[int]]:
    """Return loss, value, gradients and memory of each step, and how many graphs there were after it."""
    torch.manual_seed(0)
    featurizer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    module, features_of = head().double(), featurized(featurizer)
    parameters = [*featurizer.parameters(), *module.parameters()]
    state = penalty.init(fishr.Problem.of(module, domains=len(sizes_of(0))))

    def step_of(batch: fishr.DomainBatch, state: Any, step: int) -> Made:
        seen = fishr.observe(features_of, module, batch, **observed)
        value, state = penalty(seen, state, step)
        return seen.domain_losses.mean() + value, value, state

    run, found, graphs = compiled(step_of), list[list[Tensor]](), list[int]()
    for step in range(STEPS):
        batch = fishr.DomainBatch(torch.randn(16, 6, dtype=torch.float64), torch.randint(3, (16,)), sizes_of(step))
        loss, value, state = run(batch, state, step)
        gradients = torch.autograd.grad(loss, parameters)
        found.append([loss.detach(), value.detach(), *gradients, *tensors_of(state)])
        graphs.append(counters["stats"]["unique_graphs"])
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
    return found, graphs


def tensors_of(state: Any) -> list[Tensor]:
    match state:
        case fishr.Average():
            return [state.value, torch.tensor(state.updates)]
        case dict():
            return [tensor for part in state.values() for tensor in tensors_of(part)]
        case _:
            return []


def compiler(backend: str, whole: bool) -> Callable[[Step], Step]:
    return lambda step: torch.compile(step, backend=backend, fullgraph=whole)


# With the backward pass compiled too; "eager" runs the traced forward pass as it is, which takes less time.
whole, in_parts = compiler("aot_eager", True), compiler("aot_eager", False)
traced, traced_in_parts = compiler("eager", True), compiler("eager", False)

FISHR = fishr.Fishr(ema=0.9)
STATELESS = fishr.Total(
    irm=fishr.IRM(), rex=fishr.VREx(), fishr=fishr.Fishr(), own=Stateless(lambda seen: seen.moments.mean.square().sum())
)
TOTAL = fishr.Total(
    fishr=fishr.Scaled(FISHR, LinearSchedule(0.0, 10.0, steps=4)),
    debiased=fishr.Fishr(ema=0.9, gain="debiased", unbiased=True),
    irm=fishr.Scaled(fishr.IRM(), 2.0),
    rex=fishr.Scaled(fishr.VREx(), CosineSchedule(0.0, 1.0, steps=4)),
)
SWITCHED = fishr.Total(
    fishr=fishr.Scaled(FISHR, StepSchedule(at=3, before=0.0, after=10.0)),
    irm=fishr.Scaled(fishr.IRM(), Joined((fishr.Constant(0.0), LinearSchedule(0.0, 1.0, 4)), (2,))),
)


@pytest.mark.parametrize(
    ("penalty", "most", "compiled"),
    [
        # One graph for step 0 and one for all others, if step or state is read at all; one more for each branch.
        (STATELESS, 1, traced),
        (TOTAL, 2, whole),
        (SWITCHED, 5, traced),
    ],
)
def test_a_step_with_a_linear_head_is_one_graph(penalty: Penalty, most: int, compiled: Callable[[Step], Step]) -> None:
    expected, _ = trained(penalty)
    found, graphs = trained(penalty, compiled=compiled)
    assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert graphs[-1] <= most
    assert not counters["graph_break"]


def test_penalties_without_gradient_moments_take_one_graph_with_any_head() -> None:
    both = fishr.Total(irm=fishr.IRM(), rex=fishr.VREx())
    assert_close(trained(both, normalized, whole)[0], trained(both, normalized)[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("head", "penalty", "compiled", "observed"),
    [
        (mlp, FISHR, in_parts, {}),
        (mlp, FISHR, traced_in_parts, {"route": "functional"}),
        (normalized, FISHR, traced_in_parts, {}),
        (linear, fishr.Fishr(statistic="covariance"), traced_in_parts, {}),
    ],
)
def test_moments_of_other_heads_are_computed_between_graphs(
    head: Callable[[], nn.Module], penalty: Penalty, compiled: Callable[[Step], Step], observed: dict[str, Any]
) -> None:
    expected, _ = trained(penalty, head, **observed)
    found, graphs = trained(penalty, head, compiled, **observed)
    assert_close(found, expected, atol=1e-12, rtol=1e-12)
    # No step compiles anything once the schedule is through.
    assert graphs[-1] == graphs[-2]


def test_a_loss_of_ones_own_is_differentiated_in_the_graph() -> None:
    both = fishr.Total(fishr=FISHR, irm=fishr.IRM())
    expected, _ = trained(both, loss=squared)
    assert_close(trained(both, compiled=whole, loss=squared)[0], expected, atol=1e-12, rtol=1e-12)


def test_losses_are_in_the_graph_unless_they_leave_samples_out() -> None:
    for loss, compiled in (
        (fishr.CrossEntropy(label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5)), traced),
        (fishr.CrossEntropy(ignore_index=0), traced_in_parts),
    ):
        expected, _ = trained(FISHR, loss=loss)
        assert_close(trained(FISHR, compiled=compiled, loss=loss)[0], expected, atol=1e-12, rtol=1e-12)


def test_sizes_may_differ_in_each_step_and_domains_may_be_missing() -> None:
    def growing(step: int) -> tuple[int, ...]:
        return (4 + step, 12 - step)

    expected, _ = trained(FISHR, sizes_of=growing)
    found, graphs = trained(FISHR, compiled=traced, sizes_of=growing)
    assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert graphs[-1] == 2

    def missing(step: int) -> tuple[int, ...]:
        return [(4, 4, 8), (0, 9, 7)][step % 2]

    expected, _ = trained(fishr.Fishr(ema=0.9, gain="debiased"), sizes_of=missing)
    found, _ = trained(fishr.Fishr(ema=0.9, gain="debiased"), compiled=traced, sizes_of=missing)
    assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_micro_batches_run_between_graphs() -> None:
    def accumulated(featurizer: nn.Module) -> nn.Module:
        return fishr.accumulate(featurizer, 4)

    expected, _ = trained(FISHR, featurized=accumulated)
    found, _ = trained(FISHR, compiled=traced_in_parts, featurized=accumulated)
    assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_backward_and_optimizer_may_be_in_the_step_too_and_float32_agrees_to_rounding() -> None:
    def updated(wrap: Callable[[Step], Step]) -> list[Tensor]:
        torch.manual_seed(0)
        featurizer, head = nn.Linear(6, 5), nn.Linear(5, 3)
        optimizer = torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.1)
        state = FISHR.init(fishr.Problem.of(head, domains=2))

        def step_of(batch: fishr.DomainBatch, state: Any, step: int) -> Any:
            seen = fishr.observe(featurizer, head, batch)
            value, state = FISHR(seen, state, step)
            optimizer.zero_grad()
            (seen.domain_losses.mean() + value).backward()
            optimizer.step()
            return state

        run = wrap(step_of)
        for step in range(3):
            state = run(fishr.DomainBatch(torch.randn(16, 6), torch.randint(3, (16,)), sizes=(8, 8)), state, step)
        return [*featurizer.parameters(), *head.parameters(), *tensors_of(state)]

    assert_close(updated(in_parts), updated(lambda step: step), atol=1e-6, rtol=1e-6)


@fishr.traceable
@frozen
class Memory:
    """A record that a penalty of one's own makes in each step."""

    total: Tensor
    steps: int = 0


def test_records_of_ones_own_are_made_in_the_graph() -> None:
    def following(memory: Memory, x: Tensor) -> Memory:
        return Memory(memory.total + x, memory.steps + 1)

    memory = whole(following)(Memory(torch.zeros(2), steps=3), torch.ones(2))
    assert (memory.total.tolist(), memory.steps) == ([1.0, 1.0], 4)
    with pytest.raises(AttributeError):
        memory.steps = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_lazy_field_is_computed_once_in_the_graph() -> None:
    class Squares:
        def __init__(self, x: Tensor) -> None:
            self.x, self.computed = x, 0

        @lazy
        def squares(self) -> Tensor:
            """x²."""
            self.computed += 1
            return self.x.square()

    def twice(x: Tensor) -> tuple[Tensor, int]:
        seen = Squares(x)
        return seen.squares + seen.squares, seen.computed

    for run in (twice, whole(twice)):
        total, computed = run(torch.tensor([3.0]))
        assert (total.tolist(), computed) == ([18.0], 1)


def test_an_uncompiled_function_sees_no_compiler() -> None:
    @uncompiled
    def traced(x: Tensor) -> tuple[Tensor, bool]:
        return x + 1, torch.compiler.is_compiling()

    def run(x: Tensor) -> tuple[Tensor, bool]:
        return traced(x * 2)

    assert traced(torch.ones(1)) == (torch.tensor([2.0]), False)
    compiled = in_parts(run)
    for _ in range(3):
        assert compiled(torch.ones(1)) == (torch.tensor([3.0]), False)
    assert sum(counters["graph_break"].values()) > 0
