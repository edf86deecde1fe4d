"""SWAD against a slow search for the valley, and in runs, where it reads validation losses."""

from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from fishr.averages import SWAD
from fishr.configuration import dumps
from fishr.data import Domain, Environments, HeldOut, Minibatch
from fishr.errors import InputError
from fishr.inference import load_model
from fishr.losses import CrossEntropy
from fishr.models import MLP
from fishr.protocols import colored_digits
from fishr.training import Adam, DomainScore, Experiment, run, train
from fishr.training.evaluation import averaged


def scores(loss: float) -> list[DomainScore]:
    """Validation parts of environments a and b with this mean, and parts that do not count."""
    return [
        DomainScore("a_in", "training", 9.0, 0.5, 3, "a"),
        DomainScore("b_in", "training", 9.0, 0.5, 3, "b"),
        DomainScore("c_in", "evaluation", 9.0, 0.5, 3, "c"),
        DomainScore("a_out", "evaluation", loss - 1, 0.5, 3, "a"),
        DomainScore("b_out", "evaluation", loss + 1, 0.5, 3, "b"),
        DomainScore("other", "evaluation", 9.0, 0.5, 3),
    ]


def slow(losses: list[float], segments: list[list[float]], swad: SWAD) -> float:
    """Search all beginnings in order, and then all ends."""
    for start in range(len(losses) - swad.converge + 1):
        ahead = losses[start : start + swad.converge]
        if ahead[0] == min(ahead):
            threshold = (1 + swad.ratio) * sum(ahead) / swad.converge
            end = start
            while end < len(losses) and any(loss <= threshold for loss in losses[end : end + swad.tolerance]):
                end += 1
            chosen = [weight for segment in segments[start:end] for weight in segment]
            return sum(chosen) / len(chosen) if chosen else float("nan")
    return sum(segments[-1]) / len(segments[-1])


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.lists(st.floats(-5, 5), min_size=1, max_size=3)), min_size=1, max_size=14
    ),
    st.builds(SWAD, st.integers(1, 4), st.integers(1, 6), st.floats(0, 0.5)),
)
def test_the_valley_is_that_of_a_slow_search(path: list[tuple[int, list[float]]], swad: SWAD) -> None:
    losses, segments = [loss / 4 for loss, _ in path], [segment for _, segment in path]
    state, step = swad.init({"w": torch.zeros((), dtype=torch.float64)}), 0
    last = {"w": torch.zeros((), dtype=torch.float64)}
    for loss, segment in zip(losses, segments, strict=True):
        for weight in segment:
            step, last = step + 1, {"w": torch.tensor(weight, dtype=torch.float64)}
            state = swad.update(last, state, step)
        state = swad.evaluated(state, scores(loss), step)
        assert swad.evaluated(state, scores(loss), step) is state
    expected = torch.tensor(slow(losses, segments, swad), dtype=torch.float64)
    if not expected.isnan():
        assert_close(swad.weights(state, last)["w"], expected, atol=1e-9, rtol=1e-9)


def source(seed: int, data_dir: Path | None) -> Environments:
    generator = torch.Generator().manual_seed(seed)

    def domain(name: str) -> Domain:
        labels = torch.randint(2, (60,), generator=generator)
        return Domain(name, torch.randn(60, 3, generator=generator) + labels.unsqueeze(1), labels)

    return Environments(tuple(map(domain, ("one", "two", "test"))), classes=2)


def experiment(**changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "data": HeldOut(source, test=(2,), holdout_fraction=0.3),
        "featurizer": MLP((4,)),
        "loss": CrossEntropy(),
        "batches": Minibatch(8),
        "average": SWAD(converge=2, tolerance=2),
        "optimizer": Adam(lr=0.3),
    }
    return attrs.evolve(colored_digits("erm"), steps=12, evaluate_every=2, checkpoint_every=5, **parts | changes)


def moments(folder: Path, made: Experiment, **options: Any) -> Any:
    return run(made, folder, experiment_text=dumps(made), **options)


def test_a_run_resumes_to_the_same_bits_from_each_step(tmp_path: Path, same: Any) -> None:
    made = experiment()
    *_, whole = moments(tmp_path / "whole", made)
    assert whole.state.average["valley"] is not None
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for number in (3, 12, 19):
        folder = tmp_path / f"cut {number}"
        stopped = moments(folder, made)
        for _ in range(number):
            next(stopped)
        stopped.close()
        *_, resumed = moments(folder, made, resume=True)
        assert same(resumed.state, whole.state)
        assert resumed.scores == whole.scores
        assert (folder / "metrics.jsonl").read_bytes() == metrics


def test_the_model_has_the_weights_of_the_last_evaluation(tmp_path: Path) -> None:
    made = experiment()
    started, *_, finished = moments(tmp_path / "run", made)
    expected = averaged(started.model, made, finished.state).parameters
    model = load_model(tmp_path / "run", plugins=[__name__])
    for name, value in model.named_parameters():
        assert torch.equal(value, expected[name])
        assert not torch.equal(value, finished.state.parameters[name])


def test_data_without_a_held_out_part_are_refused_before_the_first_step(tmp_path: Path) -> None:
    made = attrs.evolve(colored_digits(), average=SWAD())
    message = "average: got SWAD without an evaluation domain that is held out"
    with pytest.raises(InputError, match=message):
        next(train(made))
    with pytest.raises(InputError, match=message):
        next(moments(tmp_path / "run", made))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=message):
        SWAD().evaluated(SWAD().update({}, SWAD().init({}), 1), [], 1)


@pytest.mark.parametrize(("average", "message"), [
    (lambda: SWAD(converge=0), "converge: got 0"),
    (lambda: SWAD(tolerance=0), "tolerance: got 0"),
    (lambda: SWAD(ratio=-1.0), "ratio: got -1"),
])  # fmt: skip
def test_numbers_outside_their_range_are_refused(average: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        average()


def test_a_loss_that_is_no_number_is_never_the_lowest() -> None:
    swad, weights = SWAD(converge=1, tolerance=1), {"w": torch.ones(1)}
    state = swad.evaluated(swad.update(weights, swad.init(weights), 1), scores(float("nan")), 1)
    assert state["threshold"] is None
    state = swad.evaluated(swad.update({"w": torch.full((1,), 3.0)}, state, 2), scores(1.0), 2)
    found: Tensor = swad.weights(state, weights)["w"]
    assert found.item() == 3
