"""Laws of combination: any penalty or risk trains with any descent, average and transform, or is refused."""

import itertools
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
import torch
from cases import slow_but
from hypothesis import given, settings
from slow_steps import EXACT, Network, batch_of, build, experiment, trained
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.averages.weight_average import WeightAverage
from fishr.configuration.families import FAMILIES
from fishr.descents import GGAL, IGA, SAGM, SAM, ANDMask, Descent, Fish, PCGrad, SANDMask
from fishr.errors import InputError
from fishr.methods import CORAL, RDM, SD, Anchored, LabelAndDomain
from fishr.penalties import ERM, IRM, Fishr, Penalty, Scaled, Total, VREx
from fishr.penalties.penalty import compares_domains
from fishr.tensor_trees import named_tensors
from fishr.training import Adam, Objective, advance
from fishr.training.checkpoints import load, save
from fishr.training.evaluation import averaged
from fishr.training.experiment import Experiment
from fishr.training.owned import owns
from fishr.training.state import first_state
from fishr.transforms.batch_transform import BatchTransform
from fishr.types import DomainBatch


def members(protocol: type[Any], **others: Any) -> dict[str, Any]:
    """Every built-in kind of a family by its defaults; those without defaults are given."""
    kinds = next(family for family in FAMILIES if family.protocol is protocol).kinds
    return {name: others[name] if name in others else kinds[name]() for name in sorted(kinds)}


# A moving average has a call of as many arguments as a penalty, but is none.
PENALTIES = members(Penalty, Scaled=Scaled(SD(), 2.0), Total=Total(sd=SD(), rdm=RDM()), MovingAverage=Fishr(ema=0.9))
# By default SANDMask trains nothing.
DESCENTS = {"None": None, **members(Descent, SANDMask=SANDMask(0.5))}
AVERAGES = members(WeightAverage)
TRANSFORMS = members(BatchTransform)
# What reads more than features has a featurizer of its own.
PLAIN = Network()
FEATURIZERS = {"ADRMX": LabelAndDomain(PLAIN), "MIRO": Anchored(PLAIN)}


@attrs.frozen
class Smooth:
    """Without batch normalization, so that domains may pass the network in any parts."""

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        return nn.Sequential(Network()(shape, generator)[0], nn.Tanh())

    def features(self, shape: tuple[int, ...]) -> int:
        return 5


def bits(tree: Any) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in named_tensors(tree)}


def refusal(made: Callable[[], Experiment], file: Path) -> str:
    """Train three steps, at once and resumed after two, and compare the bits; return the reason if it is refused."""
    reason = ""
    try:
        experiment = made()
        model = build(experiment)
        states = [first_state(experiment, model, 3)]
        for step in range(3):
            states.append(advance(model, experiment, states[-1], batch_of(step))[0])
    except InputError as error:
        reason = str(error)
    if reason:
        assert re.fullmatch("[^\\n]*got [^\\n]*(expected|; )[^\\n]*", reason)
        return reason
    save(file, states[2], "")
    after, _ = advance(model, experiment, load(file, states[0]).state, batch_of(2))
    assert bits(after) == bits(states[3])
    assert bits(states[3].parameters) != bits(states[0].parameters)
    return ""


def check(
    objective: Objective,
    file: Path,
    transform: Any = None,
    names: Iterable[str] = DESCENTS,
    featurizer: Any = PLAIN,
) -> str:
    """Descents, with an average each; return the reason for which the plain step is refused."""
    reasons = dict[str, str]()
    for name, average in zip(names, itertools.cycle([None, *AVERAGES.values()]), strict=False):
        descent = DESCENTS[name]
        changes = {"objective": objective, "average": average, "transform": transform, "optimizer": Adam(lr=0.01)}
        changes["featurizer"] = featurizer
        reasons[name] = refusal(partial(experiment, descent, **changes), file)
        if reasons[name] and not reasons["None"]:
            assert getattr(descent, "by_domain", False)
            assert compares_domains(objective.risk) or "trains parameters of its own" in reasons[name]
    return reasons["None"]


@pytest.mark.parametrize("name", slow_but("Fishr", PENALTIES))
def test_a_penalty_trains_with_every_descent_and_average(name: str, tmp_path: Path) -> None:
    objective = Objective(penalty=Total(own=Scaled(PENALTIES[name], 0.1)))
    assert not check(objective, tmp_path / "file", featurizer=FEATURIZERS.get(name, PLAIN))


@pytest.mark.parametrize("name", slow_but("GroupDRO", PENALTIES))
def test_a_risk_trains_with_every_descent_and_average(name: str, tmp_path: Path) -> None:
    assert not check(Objective(risk=PENALTIES[name]), tmp_path / "file", featurizer=FEATURIZERS.get(name, PLAIN))


@pytest.mark.parametrize("transform", slow_but("", TRANSFORMS))
def test_a_transform_trains_with_every_penalty_and_descent(transform: str, tmp_path: Path) -> None:
    """Mixed labels are no classes, which some penalties read."""
    for name, penalty in PENALTIES.items():
        featurizer = FEATURIZERS.get(name, PLAIN)
        objective = Objective(penalty=Total(own=Scaled(penalty, 0.1)))
        reason = check(
            objective, tmp_path / "file", TRANSFORMS[transform], ("None", "SAM", "ANDMask", "IGA"), featurizer
        )
        assert not reason or "expected class indices" in reason


TERMS: dict[str, Penalty] = {"fishr": Fishr(ema=0.9), "vrex": VREx(), "sd": SD(), "coral": CORAL(), "irm": IRM()}


@settings(max_examples=6)
@given(st.permutations(list(TERMS)), st.sampled_from([None, SAM(), ANDMask(0.5), IGA(0.1)]))
def test_the_order_of_terms_is_nothing_but_rounding(order: list[str], descent: Any) -> None:
    def after(names: list[str]) -> dict[str, Tensor]:
        penalty = Total(**{name: Scaled(TERMS[name], 0.3) for name in names})
        return trained(experiment(descent, objective=Objective(penalty=penalty)), 2)[0].parameters

    for (name, value), expected in zip(after(order).items(), after(list(TERMS)).values(), strict=True):
        assert_close(value, expected, msg=name, **EXACT)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_term_of_weight_zero_is_none_to_the_bit(name: str) -> None:
    """Also one with a state that goes on; those that train parameters are refused by descents that measure domains."""
    both = Total(vrex=VREx(), zero=Scaled(PENALTIES[name], 0.0))
    made = experiment(None, objective=Objective(penalty=both), featurizer=FEATURIZERS.get(name, PLAIN))
    first = first_state(made, build(made), 3)
    for descent in (None, SAM()) if owns(first.penalty) else (None, SAM(), ANDMask(0.5), Fish()):
        (one, _), (other, _) = (
            trained(attrs.evolve(made, descent=descent, objective=Objective(penalty=penalty)), 2)
            for penalty in (both, Total(vrex=VREx()))
        )
        assert bits((one.parameters, one.buffers)) == bits((other.parameters, other.buffers))


# Means over domains, or comparisons of them: on domains of unequal sizes, SD's mean over samples is neither.
OF_DOMAINS = sorted(TERMS.keys() - {"sd"})
IDENTITIES = [SAM(0.0), SAGM(0.0, 0.0), ANDMask(0.0), GGAL(0.0), IGA(0.0)]


@settings(max_examples=12)
@given(st.sampled_from(IDENTITIES), st.sampled_from([*OF_DOMAINS, None]), st.booleans())
def test_a_descent_without_its_own_part_is_the_plain_step(descent: Any, term: str | None, rescale: bool) -> None:
    penalty = Total(**{term: Scaled(TERMS[term], 2.0)} if term else {})
    objective = Objective(risk=ERM("domains"), penalty=penalty, l2=0.01, rescale=rescale)
    ours, plain = (trained(experiment(one, objective=objective, featurizer=Smooth()))[0] for one in (descent, None))
    for name, value in plain.parameters.items():
        assert_close(ours.parameters[name], value, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("descent", [PCGrad(), ANDMask(), Fish(1.0), GGAL(0.1)], ids=str)
def test_a_descent_by_domain_of_a_single_domain_is_the_plain_step(descent: Any) -> None:
    def after(one: Any) -> dict[str, Tensor]:
        made = experiment(one)
        model = build(made)
        state = first_state(made, model, 3)
        for step in range(3):
            batch = batch_of(step)
            batch = DomainBatch(batch.inputs[:4], batch.labels[:4], (4, 0, 0))
            state, _ = advance(model, made, state, batch)
        return state.parameters

    for value, expected in zip(after(descent).values(), after(None).values(), strict=True):
        assert_close(value, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", AVERAGES)
def test_the_average_of_weights_that_rest_is_these_weights(name: str) -> None:
    made = experiment(None, average=AVERAGES[name], lr_schedule=0.0)
    state, _ = trained(made)
    found = averaged(build(made), made, state)
    assert bits(found.parameters) == bits(state.parameters)
