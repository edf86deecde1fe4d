"""Learning rates by step and by layer: torch's groups and schedulers to the bit, and resumed runs to the bit."""

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import torch
from naming import stable_name
from ranks import on_ranks

from fishr.configuration import structure, unstructure
from fishr.data.batches import Minibatch
from fishr.errors import InputError
from fishr.models.featurizers import MLP
from fishr.penalties import CosineSchedule, Joined, LinearSchedule, StepSchedule
from fishr.plots.run import save_run_figure
from fishr.ranks import Ranks
from fishr.training.checkpoints import load, save
from fishr.training.compute import Compute
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import StepOptimizer, by_layer
from fishr.training.loop import Started, Stepped, train
from fishr.training.optimizers import Adam, AdamW, OptimizerState
from fishr.training.runs import run
from fishr.training.sgd import SGD
from fishr.training.state import initial_state

OPTIMIZERS = [
    (Adam(lr=0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    (AdamW(lr=0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
    (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (
        SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    ),
]
WARM_COSINE = Joined((LinearSchedule(0.0, 1.0, steps=5), CosineSchedule(1.0, 0.0, steps=12)), boundaries=(5,))
FACTORS = {"featurizer": 0.1, "featurizer.2": 0.3, "head.bias": 0.0, "head": StepSchedule(at=7, before=0.0, after=2.0)}
SHAPES = {
    "featurizer.0.weight": (4, 3),
    "featurizer.0.bias": (4,),
    "featurizer.2.weight": (2, 4),
    "featurizer.21.weight": (2, 4),
    "head.weight": (3, 2),
    "head.bias": (3,),
}


def _weights():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def _gradients(step):
    """Some steps leave one parameter out, as an unused one is."""
    generator = torch.Generator().manual_seed(100 + step)
    drawn = {name: torch.randn(shape, generator=generator) * 10 ** (step % 5 - 2) for name, shape in SHAPES.items()}
    return {name: None if index == step % 7 else g for index, (name, g) in enumerate(drawn.items())}


def _torch_groups(experiment, parameters, make):
    """The groups of torch's optimizer and its schedulers, one factor a group."""
    layers = {"featurizer.0": ("featurizer", 0.1), "featurizer.21": ("featurizer", 0.1)}
    layers |= {"featurizer.2": ("featurizer.2", 0.3), "head.bias": ("head.bias", 0.0), "head.weight": ("head", 1.0)}
    groups, factors = [], []
    for prefix, (layer, factor) in layers.items() if experiment.lr_factors else [("", ("", 1.0))]:
        chosen = [p for name, p in parameters.items() if f"{name}.".startswith(f"{prefix}.") or not prefix]
        groups.append({"params": chosen, "lr": experiment.optimizer.lr * factor})
        own = (lambda step: 2.0 * (step >= 7)) if layer == "head" else (lambda step: 1.0)
        whole = experiment.lr_schedule or (lambda step: 1.0)
        factors.append(lambda step, own=own, whole=whole: own(step) * whole(step))
    theirs = make(groups)
    return theirs, torch.optim.lr_scheduler.LambdaLR(theirs, factors)


@pytest.mark.parametrize("factors", [None, FACTORS], ids=["whole model", "layers"])
@pytest.mark.parametrize("schedule", [None, WARM_COSINE], ids=["constant", "warm cosine"])
@pytest.mark.parametrize(("optimizer", "make"), OPTIMIZERS, ids=stable_name)
def test_twenty_steps_are_those_of_torchs_groups_and_scheduler(plain, optimizer, make, schedule, factors):
    experiment = attrs.evolve(plain, optimizer=optimizer, lr_schedule=schedule, lr_factors=factors)
    weights = _weights()
    parameters = {name: torch.nn.Parameter(w.clone()) for name, w in weights.items()}
    theirs, scheduler = _torch_groups(experiment, parameters, make)
    memory = StepOptimizer(experiment, 0).init(weights)
    for step in range(20):
        gradients = _gradients(step)
        for name, parameter in parameters.items():
            parameter.grad = None if gradients[name] is None else gradients[name].clone()
        assert {group["lr"] for group in theirs.param_groups} <= {
            *(experiment.learning_rates(step).values() or [optimizer.lr])
        }
        theirs.step()
        scheduler.step()
        weights, memory = StepOptimizer(experiment, step).update(gradients, memory, weights)
        for name, parameter in parameters.items():
            assert torch.equal(weights[name], parameter.detach()), (step, name)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (CosineSchedule(1.0, 0.1, steps=20), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.03)),
        (LinearSchedule(0.25, 1.0, steps=9), lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, 9)),
        (
            Joined((StepSchedule(at=4, before=1.0, after=0.1), StepSchedule(at=0, before=0.0, after=0.01)), (12,)),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [4, 12], gamma=0.1),
        ),
        (
            Joined((LinearSchedule(0.1, 1.0, steps=5), CosineSchedule(1.0, 0.0, steps=15)), (5,)),
            lambda o: torch.optim.lr_scheduler.SequentialLR(
                o,
                [torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 5), torch.optim.lr_scheduler.CosineAnnealingLR(o, 15)],
                [5],
            ),
        ),
    ],
    ids=["cosine", "linear", "steps", "warm-up, then cosine"],
)
def test_rates_are_those_of_torchs_schedulers_but_for_rounding(plain, schedule, make):
    """torch multiplies the rate of the step before; a factor of the first rate rounds once."""
    experiment = attrs.evolve(plain, optimizer=SGD(lr=0.3), lr_schedule=schedule)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(theirs)
    for step in range(20):
        expected = theirs.param_groups[0]["lr"]
        assert experiment.learning_rates(step)["model"] == pytest.approx(expected, rel=1e-12, abs=1e-15), step
        theirs.step()
        scheduler.step()


def test_the_longest_name_of_whole_parts_counts(plain):
    experiment = attrs.evolve(plain, lr_factors={"featurizer": 0.1, "featurizer.2": 0.3, "head.bias": 0.5})
    assert by_layer(experiment.lr_factors, [*SHAPES]) == {
        "featurizer": ("featurizer.0.weight", "featurizer.0.bias", "featurizer.21.weight"),
        "featurizer.2": ("featurizer.2.weight",),
        "model": ("head.weight",),
        "head.bias": ("head.bias",),
    }


def _states(experiment, **options):
    return [event.state for event in train(experiment, **options) if isinstance(event, Started | Stepped)]


def test_factors_of_one_change_no_bit_of_the_weights(experiment, same):
    ones = attrs.evolve(experiment, lr_schedule=1, lr_factors={"head": 1.0, "featurizer": 1})
    assert same(_states(ones)[-1].parameters, _states(experiment)[-1].parameters)


def test_half_the_rate_is_half_the_rate(plain, same):
    doubled = attrs.evolve(plain, optimizer=attrs.evolve(plain.optimizer, lr=0.02), lr_schedule=0.5)
    assert same(_states(doubled)[-1], _states(plain)[-1])


def test_at_a_factor_of_zero_weights_stay_to_the_bit_while_the_optimizer_goes_on(everything, same):
    lively = attrs.evolve(everything, objective=attrs.evolve(everything.objective, fresh_optimizer_at=None))
    first, *_, last = _states(attrs.evolve(lively, lr_factors={"featurizer": 0.0}))
    for name, weight in last.parameters.items():
        assert torch.equal(weight, first.parameters[name]) is name.startswith("featurizer.")
    assert set(last.optimizer["featurizer"].steps) == {7}
    assert any(moment.any() for moment in last.optimizer["featurizer"].moments["first"])
    asleep = _states(attrs.evolve(lively, lr_schedule=0))
    assert same(asleep[0].parameters, asleep[-1].parameters)


def test_two_phases_are_those_of_two_torch_optimizers(plain):
    """ERM++ of DomainBed trains the head alone, by an optimizer and a rate of its own, and then everything."""
    phases = {"featurizer": StepSchedule(6, 0.0, 1.0), "head": StepSchedule(6, 0.5, 1.0)}
    experiment = attrs.evolve(plain, optimizer=Adam(lr=0.01), lr_factors=phases)
    weights = _weights()
    parameters = {name: torch.nn.Parameter(w.clone()) for name, w in weights.items()}
    head = torch.optim.Adam([p for name, p in parameters.items() if name.startswith("head")], lr=0.005)
    everything = torch.optim.Adam(parameters.values(), lr=0.01)
    for step in range(12):
        if step in (0, 6):
            memory = StepOptimizer(experiment, 0).init(weights)
        gradients = _gradients(step)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        (head if step < 6 else everything).step()
        weights, memory = StepOptimizer(experiment, step).update(gradients, memory, weights)
        assert all(torch.equal(weights[name], parameter.detach()) for name, parameter in parameters.items())


def test_the_optimizers_state_is_made_anew_for_all_layers(plain):
    fresh = attrs.evolve(plain, lr_factors=HALF, objective=attrs.evolve(plain.objective, fresh_optimizer_at=4))
    assert set(_states(fresh)[-1].optimizer["head"].steps) == {3}


HALF = {"head": 0.5, "featurizer.1.bias": 0.0}


@attrs.frozen
class Signs:
    """Steps by the sign of a moving average, also where a gradient is None."""

    lr: float = 0.01

    def init(self, parameters):
        return {"average": tuple(map(torch.zeros_like, parameters))}

    def update(self, gradients, state, parameters):
        pairs = zip(gradients, state["average"], strict=True)
        average = tuple(a if g is None else torch.lerp(g, a, 0.9) for g, a in pairs)
        return tuple(p - self.lr * a.sign() for p, a in zip(parameters, average, strict=True)), {"average": average}


def test_an_optimizer_of_ones_own_has_rates_too(plain):
    states = _states(attrs.evolve(plain, optimizer=Signs(), lr_schedule=LinearSchedule(1.0, 0.0, 7), lr_factors=HALF))
    for step, (before, after) in enumerate(pairwise(states)):
        for name, factor in {"featurizer.3.weight": 1.0, "head.weight": 0.5, "featurizer.1.bias": 0.0}.items():
            moved = (after.parameters[name] - before.parameters[name]).abs().max()
            assert float(moved) == pytest.approx(0.01 * factor * (1 - step / 7), rel=1e-3, abs=0)


def _scheduled(experiment):
    return attrs.evolve(
        experiment,
        lr_schedule=Joined((LinearSchedule(0.0, 1.0, 3), CosineSchedule(1.0, 0.0, 4)), (3,)),
        lr_factors={"featurizer": StepSchedule(at=2, before=0.0, after=0.5)},
    )


@pytest.mark.slow
def test_resumed_after_any_step_to_the_same_bits(experiment, same, tmp_path):
    experiment = _scheduled(experiment)
    states = _states(experiment)
    for state in states:
        save(tmp_path / "checkpoint.pt", state, "")
        held = load(tmp_path / "checkpoint.pt", initial_state(experiment, experiment.data(experiment.seed, None))).state
        assert all(isinstance(memory, OptimizerState) for memory in held.optimizer.values())
        assert same(_states(experiment, state=held)[-1], states[-1])


def test_a_checkpoint_of_other_layers_is_refused(plain, tmp_path):
    experiment = _scheduled(plain)
    domains = plain.data(plain.seed, None)
    save(tmp_path / "checkpoint.pt", initial_state(experiment, domains), "")
    other = attrs.evolve(experiment, lr_factors={"head": 0.5})
    with pytest.raises(InputError, match=r"optimizer: got the entries .*resume with the configuration"):
        load(tmp_path / "checkpoint.pt", initial_state(other, domains))


def test_metrics_hold_the_rates_where_they_change(plain, tmp_path):
    rates = {"featurizer": StepSchedule(4, 0.1, 1.0), "head": 2}
    scheduled = attrs.evolve(plain, optimizer=Adam(lr=0.5), lr_schedule=StepSchedule(6, 1.0, 0.5), lr_factors=rates)
    list(run(scheduled, tmp_path / "run", experiment_text=""))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["lr"] for line in lines if "lr" in line} == {
        0: {"model": 0.5, "featurizer": 0.05, "head": 1.0},
        4: {"model": 0.5, "featurizer": 0.5, "head": 1.0},
        6: {"model": 0.25, "featurizer": 0.25, "head": 0.5},
    }
    assert save_run_figure(tmp_path / "run").exists()


def test_a_skipped_update_of_16_bits_leaves_weights_and_the_schedule_goes_on(plain, monkeypatch):
    half = attrs.evolve(_scheduled(plain), compute=Compute(precision="fp16"))
    expected = _states(half)[-1].parameters
    assert all(torch.isfinite(weight).all() for weight in expected.values())
    from fishr.training import step

    monkeypatch.setattr(step, "_all_finite", lambda gradients: torch.tensor(False))
    first, *_, last = _states(half)
    assert all(torch.equal(weight, first.parameters[name]) for name, weight in last.parameters.items())


def test_micro_batches_change_rounding_only(plain):
    scheduled = _scheduled(plain)
    parts = _states(attrs.evolve(scheduled, compute=Compute(micro_batches=3)))[-1].parameters
    for name, weight in _states(scheduled)[-1].parameters.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_ranks_hold_the_same_bits(plain, same):
    experiment = attrs.evolve(_scheduled(plain), featurizer=MLP((5,)), batches=Minibatch(8))
    alone = _states(experiment)[-1]
    one, other = on_ranks(2, _last, experiment)
    assert same(one, other)
    for name, weight in alone.parameters.items():
        torch.testing.assert_close(one.parameters[name], weight, rtol=1e-3, atol=1e-4)


def _last(ranks: Ranks, experiment):
    return _states(experiment, ranks=ranks)[-1]


def test_the_pages_settings_are_read(plain):
    page = (Path(__file__).resolve().parents[2] / "docs" / "optimizers.md").read_text()
    fine_tuning, phases, *parts = map(tomllib.loads, re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    tuned = structure(unstructure(plain) | fine_tuning, Experiment)
    assert tuned.optimizer == AdamW(5e-5, weight_decay=0.01)
    rates = [tuned.learning_rates(step)["featurizer.layer4"] for step in (0, 250, 500, 5000)]
    assert rates == pytest.approx([0.0, 1.25e-5, 2.5e-5, 0.0])
    two = structure(unstructure(plain) | {"lr_factors": phases["lr_factors"]}, Experiment)
    assert two.learning_rates(500) == {"model": 0.01, "featurizer": 0.0, "head": 0.02}
    for part in parts:
        structure(unstructure(plain) | part, Experiment)


@attrs.frozen
class Rateless:
    def init(self, parameters):
        return ()

    def update(self, gradients, state, parameters):
        return parameters, state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_schedule": -0.1}, "lr_schedule: got -0.1 at step 0, expected a finite number of at least 0"),
        ({"lr_schedule": lambda step: "1"}, "lr_schedule: got '1' at step 0"),
        ({"lr_factors": {"head": float("inf")}}, "got inf, expected a finite number"),
        ({"lr_schedule": LinearSchedule(1.0, -1.0, 4)}, "lr_schedule: got -0.5 at step 3"),
        (
            {"lr_factors": {"heed": 0.1}},
            "lr_factors: got 'heed', which no trained parameter has in its name; expected the name of a layer or a "
            "parameter, such as 'head'",
        ),
        ({"lr_factors": {"featurizer.1.wei": 0.1}}, "such as 'featurizer.1.weight'"),
        ({"optimizer": Rateless(), "lr_schedule": 0.5}, "lr_schedule: got one for Rateless, which has no number lr"),
        ({"optimizer": Rateless(), "lr_factors": {"head": 0.5}}, "lr_factors: got one for Rateless"),
    ],
)
def test_what_cannot_be_a_rate_is_refused_in_one_line(plain, changes, message):
    with pytest.raises(InputError) as caught:
        list(train(attrs.evolve(plain, **changes)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
