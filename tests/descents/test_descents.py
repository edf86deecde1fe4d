"""Descents in a step: oracles in float64, the plain step as a law, batch normalization, ranks and resuming."""

from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import frozen
from cut_runs import resumed
from naming import stable_name
from ranks import on_ranks
from slow_steps import EXACT, Network, experiment, trained
from torch import Tensor
from torch.testing import assert_close

from fishr.data import Minibatch
from fishr.descents import GGAL, IGA, MLDG, SAGM, SAM, ANDMask, Descended, Fish, PCGrad, SANDMask
from fishr.errors import InputError
from fishr.methods import EQRM
from fishr.penalties import Fishr, Scaled, Total, VREx
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks
from fishr.training import SGD, Adam, Compute, Experiment, Objective, explain_objective, run, train


@frozen
class Plain:
    """The plain step, written as a descent that counts its calls."""

    def init(self, weights: Any) -> Any:
        return (0,)

    def __call__(self, gradients: Any, optimizer: Any, weights: Any, memory: Any, state: Any) -> Descended:
        measured = gradients(weights)
        moved, memory = optimizer.update(measured.gradients, memory, weights)
        return Descended(moved, memory, (state[0] + 1,), measured)


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


SPREAD = Objective(penalty=Total(rex=VREx()))


class Alone(Plain):
    """Of one's own, which forgets the penalties that compare domains."""

    def __call__(self, gradients: Any, optimizer: Any, weights: Any, memory: Any, state: Any) -> Descended:
        return Descended(weights, memory, state, gradients(weights, (0, 1, 2)))


def digits(descent: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {"batches": Minibatch(20), "steps": 4, "checkpoint_every": 2, "descent": descent}
    return attrs.evolve(colored_digits("erm"), **parts | changes)


@pytest.mark.slow
@pytest.mark.parametrize("descent", [SAM(), Fish(), MLDG(test_domains=1), IGA(0.1), GGAL(), Plain()], ids=stable_name)
def test_a_run_resumes_to_the_same_bits(descent: Any, tmp_path: Path, same: Any) -> None:
    made = digits(descent)
    *_, whole = run(made, tmp_path / "whole", experiment_text="")
    last = resumed(made, tmp_path / "cut", "")
    assert same(last.state, whole.state)  # type: ignore[union-attr]
    assert last.state.descent == whole.state.descent  # type: ignore[union-attr]


@pytest.mark.parametrize(("made", "message"), [
    (lambda: digits(SAM(), compute=Compute(precision="fp16")), "descent: got SAM in fp16, whose one loss scale"),
    (lambda: experiment(Fish(), objective=Objective(risk=VREx())), "got Fish, .* with the risk VREx, which compares"),
    (lambda: experiment(IGA(), objective=Objective(risk=EQRM())), "got IGA, .* with the risk EQRM, which compares"),
    (lambda: list(train(digits(IGA(), compute=Compute(micro_batches=2)))), "got IGA, .* with 2 micro-batches"),
    (lambda: trained(experiment(MLDG(test_domains=3, form="paper"))), "got 3 domains .* and 3 test domains"),
    (lambda: trained(experiment(Alone(), objective=SPREAD)), "got Alone, which does not measure the penalty rex"),
    (lambda: ANDMask(1.5), "tau: got 1.5, expected at most 1"),
    (lambda: SANDMask(1.5), "tau: got 1.5, expected at most 1"),
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
        assert_close(ours, alone, atol=1e-6, rtol=1e-5)


def after(ranks: Ranks) -> list[dict[str, Tensor]]:
    found, spread = list[dict[str, Tensor]](), Objective(penalty=Total(fishr=Scaled(Fishr(ema=0.9), 0.1)))
    alone = [SAM(), SAGM(), PCGrad(), GGAL(), *(MLDG(0.5, 1, form=form) for form in ("domainbed", "paper"))]
    compared = [ANDMask(0.5), SANDMask(0.5), Fish(), IGA(0.1)]
    for descent in (*alone, *compared):
        changes: dict[str, Any] = {"objective": spread} if descent in compared else {}
        made = digits(descent, optimizer=SGD(0.1), batches=Minibatch(21), **changes)
        *_, finished = train(made, ranks=ranks)
        found.append(finished.state.parameters)  # type: ignore[union-attr]
    return found


@frozen
class Counting:
    """A penalty of each domain that counts its calls."""

    def init(self, problem: Any) -> Any:
        return {"calls": 0}

    def __call__(self, seen: Any, state: Any, step: int) -> tuple[Tensor, Any]:
        return seen.logits.square().mean(), {"calls": state["calls"] + 1}


@pytest.mark.parametrize(("descent", "calls"), [(SAM(), 1), (ANDMask(0.5), 3), (Fish(), 3), (IGA(0.1), 3)], ids=str)
def test_states_of_penalties_go_on_beside_one_that_compares_domains(descent: Any, calls: int) -> None:
    penalty = Total(counting=Counting(), fishr=Fishr(ema=0.9))
    state, _ = trained(experiment(descent, objective=Objective(penalty=penalty)), 2)
    assert state.penalty["counting"] == {"calls": 2 * calls}
    assert state.penalty["fishr"].updates == (6 if isinstance(descent, Fish) else 2)
