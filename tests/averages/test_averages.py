"""Averages of weights: their laws, and that a run evaluates, exports, analyzes and resumes them."""

import copy
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
import slow_steps as steps
import torch
from attrs import frozen
from hypothesis import given
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.analysis.opening import open_subject
from fishr.averages import EMA, SMA, SWAD
from fishr.configuration import dumps
from fishr.data import ColoredDigits, DataSetEnvironments, HeldOut, Minibatch
from fishr.errors import InputError
from fishr.inference import load_model
from fishr.losses import CrossEntropy
from fishr.methods import GroupDRO
from fishr.models import MLP
from fishr.penalties import StepSchedule
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks
from fishr.training import Experiment, Frozen, Objective, explain_objective, run, train
from fishr.training.artifacts import Artifacts
from fishr.training.checkpoints import drop_optimizer, load, save
from fishr.training.evaluation import averaged, evaluate, score_checkpoint
from fishr.training.frozen_features import domain_features

values = st.floats(-1e6, 1e6, width=32)
AVERAGES = st.builds(EMA, st.floats(0, 1, exclude_max=True), st.integers(0, 4)) | st.builds(SMA, st.integers(0, 4))


@given(AVERAGES, st.lists(values, min_size=1, max_size=3), st.integers(1, 9))
def test_the_average_of_constant_weights_is_these_weights(average: Any, constant: list[float], steps: int) -> None:
    weights = {"w": torch.tensor(constant)}
    state = average.init(weights)
    for step in range(1, steps + 1):
        state = average.update({"w": torch.tensor(constant)}, state, step)
    assert torch.equal(average.weights(state, weights)["w"], weights["w"])


@given(st.integers(0, 5), st.lists(values, min_size=2, max_size=9), st.floats(0, 0.99))
def test_averages_are_their_formulas(start: int, path: list[float], decay: float) -> None:
    """After t updates: the mean of w_start … w_t; Σ (1 − γ) γ^(t − i) w_i from the weights after ``start`` updates."""

    def after(average: Any) -> Tensor:
        state = average.init({"w": points[0]})
        for step, point in enumerate(points[1:], 1):
            state = average.update({"w": point}, state, step)
        return average.weights(state, {"w": points[-1]})["w"]

    points = [torch.tensor(value, dtype=torch.float64) for value in path]
    counted = points[min(start, len(points) - 1) :]
    factors = [decay ** (len(counted) - 1), *((1 - decay) * decay**i for i in reversed(range(len(counted) - 1)))]
    expected = torch.stack([f * p for f, p in zip(factors, counted, strict=True)]).sum()
    assert_close(after(EMA(decay, start)), expected, rtol=1e-10, atol=1e-9)
    assert_close(after(SMA(start)), torch.stack(counted).mean(), rtol=1e-10, atol=1e-9)


@frozen
class Normalizing:
    """Batch normalization, whose running statistics are averaged too."""

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        inputs = shape[0] * shape[1] * shape[2]
        layer = nn.Linear(inputs, 3)
        nn.init.uniform_(layer.weight, -0.1, 0.1, generator=generator)
        nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), layer, nn.BatchNorm1d(3))

    def features(self, shape: tuple[int, ...]) -> int:
        return 3


@frozen
class Sparse:
    """Every other weights, with a record as its state."""

    @frozen(eq=False)
    class Memory:
        chosen: dict[str, Tensor]

    def init(self, weights: dict[str, Tensor]) -> Any:
        return self.Memory(weights)

    def update(self, weights: dict[str, Tensor], state: Any, step: int) -> Any:
        return state if step % 2 else self.Memory(weights)

    def weights(self, state: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return state.chosen


def experiment(average: Any = EMA(decay=0.5)) -> Experiment:  # noqa: B008 (immutable)
    parts: dict[str, Any] = {"featurizer": Normalizing(), "batches": Minibatch(40), "average": average}
    return attrs.evolve(colored_digits(), steps=5, evaluate_every=2, checkpoint_every=2, **parts)


@pytest.mark.parametrize("average", [EMA(decay=0.5), SMA(start=1), Sparse()], ids=["ema", "sma", "own"])
def test_a_run_is_that_without_an_average_but_for_what_it_evaluates(average: Any, same: Any) -> None:
    plain, events = list(train(experiment(None))), list(train(experiment(average)))
    started: Any = events[0]
    memory = average.init(_moving(started.state))
    scored = 0
    for event, other in zip(events[1:], plain[1:], strict=True):
        made: Any = event
        if hasattr(made, "record"):
            assert same(made.state.parameters, other.state.parameters)  # type: ignore[union-attr]
            assert made.record == other.record  # type: ignore[union-attr]
            memory, last = average.update(_moving(made.state), memory, made.state.step), made.state
        elif hasattr(made, "step"):
            found = average.weights(memory, _moving(last))
            expected = attrs.evolve(last, parameters=last.parameters | _own(found, last.parameters), average=None)
            expected = attrs.evolve(expected, buffers=last.buffers | _own(found, last.buffers))
            plain_experiment = experiment(None)
            assert made.scores == evaluate(started.model, plain_experiment, expected, started.domains)
            scored += made.scores != other.scores  # type: ignore[union-attr]
    assert scored


def _moving(state: Any) -> dict[str, Tensor]:
    """Return all parameters, and the running mean and variance."""
    return state.parameters | {name: value for name, value in state.buffers.items() if "running" in name}


def _own(found: dict[str, Tensor], names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: found[name] for name in names if name in found}


@pytest.mark.parametrize("average", [EMA(decay=0.5), SMA(start=1), SMA(1, own_statistics=True)], ids=str)
def test_a_run_folder_holds_the_average(average: Any, tmp_path: Path, same: Any) -> None:
    """A resumed run is bit-identical; the model, the analysis and the scores have the averaged weights."""
    made = experiment(average)
    events: list[Any] = list(run(made, tmp_path / "whole", experiment_text="", keep=Artifacts(checkpoints=True)))
    whole, started = events[-1], events[0]
    stopped = run(made, tmp_path / "cut", experiment_text="")
    for event in stopped:
        if getattr(event, "step", None) == 2:
            break
    stopped.close()
    *_, resumed = run(made, tmp_path / "cut", experiment_text="", resume=True)
    assert same(resumed.state, whole.state)
    assert resumed.scores == whole.scores
    state = load(tmp_path / "whole" / "checkpoint.pt").evaluated
    expected = averaged(started.model, made, whole.state)
    assert not same(expected.parameters, whole.state.parameters)
    assert same((state.parameters, state.buffers), (expected.parameters, expected.buffers))
    assert same(averaged(started.model, made, expected), expected)


def test_model_and_analysis_have_the_averaged_weights(tmp_path: Path) -> None:
    made = attrs.evolve(experiment(), featurizer=MLP((4,)))
    events: list[Any] = list(run(made, tmp_path / "run", experiment_text=dumps(made), keep=Artifacts(checkpoints=True)))
    started, finished = events[0], events[-1]
    expected = averaged(started.model, made, finished.state)
    model = load_model(tmp_path / "run")
    for name, value in model.named_parameters():
        assert torch.equal(value, expected.parameters[name])
    subject = open_subject(tmp_path / "run")
    rows = domain_features(started.model, made, expected, started.domains.training[0])
    assert torch.equal(subject.seen.domain_samples[0][0], torch.cat([features for features, _ in rows]))
    last = subject.trajectory[-1]
    assert last.step == 5
    assert torch.equal(last.parameters["head.weight"], expected.parameters["head.weight"])
    frozen_by = attrs.evolve(made, featurizer=Frozen(MLP((4,)), str(tmp_path / "run")), average=None)
    begun: Any = next(train(frozen_by))
    assert torch.equal(begun.state.parameters["featurizer.inner.1.weight"], expected.parameters["featurizer.1.weight"])


def test_what_a_sweep_keeps_of_a_run_is_its_average(tmp_path: Path, same: Any) -> None:
    made = attrs.evolve(experiment(), featurizer=MLP((4,)))
    list(run(made, tmp_path / "run", experiment_text=dumps(made)))
    path = tmp_path / "run" / "checkpoint.pt"
    before, scores = load(path).evaluated, score_checkpoint(made, tmp_path / "run")
    drop_optimizer(path)
    after = load(path)
    assert same(after.state.parameters, before.parameters)
    assert (after.state.average, after.averaged) == (None, None)
    assert score_checkpoint(made, tmp_path / "run") == scores


def test_a_checkpoint_without_the_averaged_weights_resumes_but_is_not_evaluated(tmp_path: Path) -> None:
    made = attrs.evolve(experiment(), featurizer=MLP((4,)))
    list(run(made, tmp_path / "run", experiment_text=dumps(made)))
    path = tmp_path / "run" / "checkpoint.pt"
    tree = torch.load(path, weights_only=True)
    del tree["averaged"]
    torch.save(tree, path)
    with pytest.raises(InputError, match="got no averaged weights"):
        load_model(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    assert list(run(made, tmp_path / "run", experiment_text=dumps(made), resume=True))


def test_a_checkpoint_without_an_average_is_as_before(tmp_path: Path) -> None:
    started: Any = next(train(experiment(None)))
    save(tmp_path / "checkpoint.pt", started.state, "")
    assert "average" not in torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert load(tmp_path / "checkpoint.pt", started.state).state.average is None


def test_explain_names_the_average() -> None:
    assert "\naverage: EMA(decay=0.5, start=0), evaluated in place of the weights\n" in str(
        explain_objective(experiment())
    )


@pytest.mark.parametrize(("average", "message"), [
    (lambda: EMA(decay=1.0), "decay: got 1.0"),
    (lambda: EMA(start=-1), "start: got -1"),
    (lambda: SMA(start=-1), "start: got -1"),
])  # fmt: skip
def test_numbers_outside_their_range_are_refused(average: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        average()


def test_a_state_that_no_checkpoint_holds_is_refused() -> None:
    class Sets(Sparse):
        def init(self, weights: dict[str, Tensor]) -> Any:
            return {1}

    with pytest.raises(InputError, match="average state: got a set, expected a tree"):
        next(train(experiment(Sets())))


def test_statistics_of_the_averaged_weights_themselves() -> None:
    """A copy of the network with the averaged weights, through which every batch runs."""
    made = steps.experiment(None, average=SMA(start=2, own_statistics=True))
    hand = steps.ByHand(made)
    other, kept = copy.deepcopy(hand.module), list[dict[str, Tensor]]()
    for step in range(5):
        hand.update(hand.gradients(steps.batch_of(step), (0, 1, 2)))
        current = {name: p.detach().clone() for name, p in hand.module.named_parameters()}
        kept = [*kept, current] if step >= 2 else [current]
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                parameter.copy_(torch.stack([weights[name] for weights in kept]).mean(0))
            other["head"](other["featurizer"](steps.batch_of(step).inputs))
    assert len(kept) == 4
    state, _ = steps.trained(made, 5)
    found = averaged(steps.build(made), made, state)
    for name, value in other.state_dict().items():
        if value.is_floating_point():
            assert_close((found.parameters | found.buffers)[name], value, **steps.EXACT)


def averages_on(ranks: Ranks) -> list[dict[str, Tensor]]:
    """The weights that are evaluated: of SWAD with a pass of each domain, and of a head that trains first alone."""
    data = HeldOut(DataSetEnvironments(ColoredDigits(training_images=300)), test=(2,))
    shared = {"data": data, "loss": CrossEntropy(), "batches": Minibatch(6), "featurizer": MLP(widths=(5,))}
    alone = {"featurizer": StepSchedule(at=2, before=0, after=1)}
    found = list[dict[str, Tensor]]()
    for own in (
        {"average": SWAD(converge=2, tolerance=1), "passes": "domain", "objective": Objective(risk=GroupDRO())},
        {"average": SMA(start=1), "lr_factors": alone, "objective": Objective(fresh_optimizer_at=2)},
    ):
        made = attrs.evolve(colored_digits(), steps=4, evaluate_every=1, **shared | own)
        *_, finished = train(made, ranks=ranks)
        average: Any = made.average
        found.append(average.weights(finished.state.average, finished.state.parameters))  # type: ignore[union-attr]
    return found


@pytest.mark.slow
def test_ranks_average_as_one_process() -> None:
    alone = averages_on(ALONE)
    for ours in on_ranks(2, averages_on):
        assert_close(ours, alone, atol=1e-5, rtol=1e-5)
