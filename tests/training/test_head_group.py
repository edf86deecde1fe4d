"""Runs that are trained together, against each trained alone."""

import attrs
import pytest
import torch

from fishr.averages import EMA, SWAD
from fishr.data.batches import Minibatch
from fishr.data.domains import Domain
from fishr.data.environments import Environments, HeldOut
from fishr.data.shared_rows import in_one_table
from fishr.losses import CrossEntropy
from fishr.methods import METHODS
from fishr.models import MLP, FeatureDropout, LinearHead, MLPHead
from fishr.penalties import ERM, Fishr, Scaled, Stateless, Total, VREx
from fishr.penalties.schedules import StepSchedule
from fishr.training import SGD, Adam, Experiment, Finished, NotFinite, Objective, Stepped, head_program, train
from fishr.training.head_group import HeadGroup, shared_settings
from fishr.training.head_program import numbers, with_numbers
from fishr.transforms import Mixup

LINEAR, NETWORK = LinearHead(), MLPHead(widths=(8,))
# Of fishr.methods: those that change more than an objective of features, on heads that they are not defined for, ...
ELSEWHERE = (
    *("ANDMask", "ARM", "ERMPlusPlus", "Fish", "GGA_L", "IGA", "LP_FT", "MIRO", "MLDG", "PCGrad", "SAGM", "SAM"),
    *("SANDMask", "SMA", "SagNet", "Transfer"),
)
OF_LINEAR_HEADS = ("CMA", "HGP", "Hutchinson")
# ... and those whose objective draws, or trains parameters of its own: with full weights they are no program.
ALONE = ("ADRMX", "CDANN", "DANN", "SelfReg", "MTL", "URM", "CausIRL_CORAL", "CausIRL_MMD", "RDM")


def environments():
    # With a multiple of 8 features, the products of a head do not depend on the other heads of its group.
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(30, 8, generator=generator) + index for index in range(4)]
    domains = [Domain(name, x, torch.arange(30) % 3, name) for name, x in zip("ACPS", inputs, strict=True)]
    whole = Environments(tuple(domains), 3)
    return whole, in_one_table(whole, torch.device("cpu"))


PLAIN, SHARED = environments()


def run_of(index, **changes):
    """Run 0, 1 or 2 of a group: other seeds, test environments and numbers of the optimizer."""
    experiment = Experiment(
        name=f"run {index}",
        data=HeldOut(lambda seed, data_dir: PLAIN, (index,), trial_seed=index),
        featurizer=MLP(widths=()),
        head=LINEAR,
        loss=CrossEntropy(),
        objective=Objective(),
        optimizer=Adam(lr=0.01 * (1 + index), weight_decay=0.001 * index),
        batches=Minibatch(8, replace=True),
        steps=5,
        evaluate_every=3,
        seed=index,
    )
    return attrs.evolve(experiment, **changes)


def run_of_method(name, index, head=LINEAR):
    """The run with a method, whose penalties begin at another step and weight in each run."""
    method = METHODS[name]
    hparams = {key: one.default for key, one in method.ranges_on("PACS").items()}
    hparams |= {key: 2 for key in hparams if key.endswith(("anneal_iters", "burnin_iters"))}
    hparams |= {"lr": 0.01, "weight_decay": 0.0, "batch_size": 8}
    objective = method.objective_for(hparams, 3)
    objective = with_numbers(objective, [number * (1 - 0.1 * index) for number in numbers(objective)])
    schedule = StepSchedule(at=1 + index, before=0.0, after=1.0 + index)
    terms = {
        key: Scaled(term.penalty, schedule) if isinstance(term, Scaled) else term
        for key, term in objective.penalty.terms.items()
    }
    if terms and not objective.rescale:
        objective = attrs.evolve(objective, penalty=Total(**terms), fresh_optimizer_at=1 + index)
    featurizer = method.featurizer(MLP(widths=()), hparams)
    changes = {"head": head, "featurizer": featurizer, "objective": objective}
    return run_of(index, **(changes | method.changes(hparams)))


def together(experiments, states=(None,) * 3, group=None, device="cpu"):
    """The events of each run, its failure as the last one; the runs that are behind go first."""
    group, table = group or HeadGroup(), SHARED if device == "cpu" else in_one_table(PLAIN, torch.device(device))
    runs, found, steps = {}, {}, {}
    for index, experiment in enumerate(experiments):
        shared = attrs.evolve(experiment, data=attrs.evolve(experiment.data, source=lambda seed, data_dir: table))
        runs[index] = train(shared, device=device, state=states[index], by=group.functions(index))
        started = next(runs[index])
        group.enter(index, started)
        found[index], steps[index] = [], started.state.step
    while runs:
        for index in [index for index in runs if steps[index] == min(steps[other] for other in runs)]:
            try:
                found[index].append(next(runs[index]))
            except NotFinite as failure:
                found[index].append(failure)
            if isinstance(found[index][-1], Finished | NotFinite):
                del runs[index]
                group.leave(index)
            elif isinstance(found[index][-1], Stepped):
                steps[index] += 1
    return list(found.values())


def alone(experiment, state=None):
    return list(train(experiment, state=state))[1:]


def check(events, expected, tolerance=1e-6):
    assert [type(event) for event in events] == [type(event) for event in expected]
    for got, wanted in zip(events, expected, strict=True):
        if isinstance(got, Stepped):
            assert torch.equal(got.state.generator, wanted.state.generator)
            assert got.state.optimizer.steps == wanted.state.optimizer.steps
            for name, weight in wanted.state.parameters.items():
                assert (got.state.parameters[name] - weight).abs().max() <= tolerance
            assert numbers_of(got.record) == pytest.approx(numbers_of(wanted.record), rel=1e-4, abs=1e-6)
            assert got.record.lr == wanted.record.lr
            assert [term.weight for term in got.record.terms.values()] == [
                term.weight for term in wanted.record.terms.values()
            ]
        else:
            for score, other in zip(got.scores, wanted.scores, strict=True):
                assert attrs.evolve(score, loss=0.0) == attrs.evolve(other, loss=0.0)
                assert score.loss == pytest.approx(other.loss, rel=1e-5)


def numbers_of(record):
    terms = {f"term {name}": term.value for name, term in record.terms.items()}
    losses = {f"loss {index}": loss for index, loss in enumerate(record.domain_losses)}
    return {"step": record.step, "loss": record.loss, "risk": record.risk, "l2": record.l2} | terms | losses


def programs(group):
    """The kinds of programs that a group made: which weights are 0."""
    return {zero for zero, program in group._programs.items() if program is not None}


QUICK = [
    ("ERM", LINEAR),
    ("Fishr", LINEAR),
    ("Fishr", NETWORK),
    ("IRM", NETWORK),
    ("GroupDRO", NETWORK),
    ("Mixup", LINEAR),
]
SLOW = [(name, head) for name in METHODS for head in (LINEAR, NETWORK) if (name, head) not in QUICK]


@pytest.mark.parametrize(("name", "head"), [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)])
def test_each_method_trains_as_alone(name, head, capsys):
    if name in ELSEWHERE or (name in OF_LINEAR_HEADS and head is NETWORK):
        if name != "ARM":
            assert name in OF_LINEAR_HEADS or shared_settings(run_of_method(name, 0, head)) is None
        return
    experiments, group = [run_of_method(name, index, head) for index in range(3)], HeadGroup()
    for events, experiment in zip(together(experiments, group=group), experiments, strict=True):
        check(events, alone(experiment))
    assert (capsys.readouterr().err != "") == (name in ALONE)
    full = (False,) * len(experiments[0].objective.penalty.terms)
    assert (full in programs(group)) == (name not in ALONE)


def test_each_run_drops_and_mixes_features_by_its_own_rate_and_draws():
    parts = [{"featurizer": FeatureDropout(0.25 * index), "transform": Mixup(0.5 + index)} for index in range(3)]
    experiments, group = [run_of(index, **own) for index, own in enumerate(parts)], HeadGroup()
    for events, experiment in zip(together(experiments, group=group), experiments, strict=True):
        check(events, alone(experiment))
    assert programs(group) == {()}
    assert len({repr(shared_settings(experiment)) for experiment in experiments}) == 1


@pytest.mark.parametrize("average", [EMA(decay=0.5), SWAD(converge=1, tolerance=1)])
def test_averages_and_momentum_are_those_of_each_run(average):
    experiments = [run_of(0, average=average), run_of(1), run_of(2, average=average)]
    experiments = [attrs.evolve(one, optimizer=SGD(lr=0.1, momentum=0.9), evaluate_every=1) for one in experiments]
    for events, experiment in zip(together(experiments), experiments, strict=True):
        check(events, alone(experiment))


@pytest.mark.parametrize(("name", "head"), [("ERM", LINEAR), ("Fishr", LINEAR), ("IRM", NETWORK), ("free", LINEAR)])
def test_a_run_does_not_depend_on_the_others_to_the_bit(name, head):
    """Otherwise a sweep that is killed would go on to other results."""
    free = Objective(penalty=Total(fishr=Scaled(Fishr(ema=0.9, distance="scale_free"), 2.0)))
    experiments = [
        run_of(index, objective=free) if name == "free" else run_of_method(name, index, head) for index in range(3)
    ]
    three = together(experiments)
    for events, fewer in zip(three, together(experiments[:2]), strict=False):
        check(events, fewer, tolerance=0.0)
    check(three[0], *together(experiments[:1]), tolerance=0.0)


@pytest.mark.parametrize("optimizer", [Adam(lr=0.1, weight_decay=0.1), SGD(lr=0.1, momentum=0.9)])
def test_nor_does_its_update(optimizer):
    # Seven biases of three numbers are more than the processor's registers hold at once.
    experiments = [run_of(index % 4, seed=index, optimizer=optimizer) for index in range(7)]
    for events, experiment in zip(together(experiments, [None] * 7), experiments, strict=True):
        check(events, *together([experiment], [None]), tolerance=0.0)


def test_runs_that_resume_catch_up_and_end_in_the_same_bits():
    experiments, group = [run_of_method("Fishr", index) for index in range(3)], HeadGroup()
    whole = together(experiments)
    states = [[event.state for event in events if isinstance(event, Stepped)] for events in whole]
    after = together(experiments, [states[0][2], None, states[2][0]], group)
    for events, resumed, made in zip(whole, after, (3, 0, 1), strict=True):
        rest = [event for event in events if not isinstance(event, Stepped) or event.record.step >= made]
        first = next(index for index, event in enumerate(rest) if isinstance(event, Stepped))
        steps = [event for event in resumed if isinstance(event, Stepped)]
        assert [event.record for event in steps] == [
            event.record for event in rest[first:] if isinstance(event, Stepped)
        ]
        for name, weight in resumed[-1].state.parameters.items():
            assert torch.equal(weight, events[-1].state.parameters[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "head"), QUICK)
def test_a_gpu_trains_as_the_cpu_does(name, head):
    experiments, group = [run_of_method(name, index, head) for index in range(3)], HeadGroup()
    for events, expected in zip(together(experiments, group=group, device="cuda"), together(experiments), strict=True):
        for got, wanted in zip(events, expected, strict=True):
            if isinstance(got, Stepped):
                assert numbers_of(got.record) == pytest.approx(numbers_of(wanted.record), rel=1e-3, abs=1e-5)
    assert programs(group)


def test_a_run_that_diverges_leaves_the_others():
    experiments = [run_of(index, optimizer=SGD(lr=1e38 if index == 1 else 0.1), steps=4) for index in range(3)]
    first, second, third = together(experiments)
    assert isinstance(second[-1], NotFinite)
    with pytest.raises(NotFinite) as expected:
        alone(experiments[1])
    assert (second[-1].step, second[-1].term) == (expected.value.step, expected.value.term)
    check(first, alone(experiments[0]))
    check(third, alone(experiments[2]))


def test_what_is_no_program_is_computed_alone_to_the_bit_and_said_once(capsys):
    def floating(seen):
        return seen.losses.mean() * float(seen.losses.mean() > 0)

    objective = Objective(penalty=Total(own=Scaled(Stateless(floating), 1.0)))
    experiments, group = [run_of(index, objective=objective) for index in range(3)], HeadGroup()
    for events, experiment in zip(together(experiments, group=group), experiments, strict=True):
        check(events, alone(experiment), tolerance=0.0)
    assert programs(group) == set()
    assert capsys.readouterr().err.startswith("the steps of 3 heads are computed one by one (RuntimeError: ")


def test_other_data_trains_alone():
    group = HeadGroup()
    run = train(run_of(0), by=group.functions(0))
    group.enter(0, next(run))
    assert group._heads == {}
    check(list(run), alone(run_of(0)), tolerance=0.0)


@pytest.mark.parametrize("name", ["Fishr", "CMA", "HGP", "Hutchinson", "EQRM", "GroupDRO"])
def test_a_group_has_all_but_what_each_run_has_of_its_own(name):
    common = shared_settings(run_of_method(name, 0))
    for index in range(3):
        assert shared_settings(run_of_method(name, index)) == attrs.evolve(common, data=None)


def test_other_settings_are_no_part_of_a_group():
    for changes in ({"clip_norm": 1.0}, {"batches": Minibatch(9)}, {"objective": Objective(risk=ERM("samples"))}):
        assert shared_settings(run_of(0, **changes)) != shared_settings(run_of(0))


@pytest.mark.parametrize("name", ["ERM", "Fishr", "VREx", "GroupDRO", "EQRM"])
@pytest.mark.parametrize("head", [LINEAR, NETWORK])
def test_batches_of_unequal_size_are_filled(name, head):
    experiments, group = [run_of_method(name, index, head) for index in range(3)], HeadGroup()
    sizes, rates = (9, 16, 12), (0.0, 0.5, 0.25)
    experiments = [
        attrs.evolve(one, batches=Minibatch(size, replace=True), featurizer=FeatureDropout(rate))
        for one, size, rate in zip(experiments, sizes, rates, strict=True)
    ]
    assert len({repr(shared_settings(experiment)) for experiment in experiments}) == 1
    three = together(experiments, group=group)
    for events, experiment in zip(three, experiments, strict=True):
        check(events, alone(experiment))
    assert (False,) * len(experiments[0].objective.penalty.terms) in programs(group)
    check(three[0], *together(experiments[:1]), tolerance=0.0)


@pytest.mark.parametrize("head", [LINEAR, NETWORK])
def test_each_head_has_its_moving_average(head, monkeypatch):
    decays = (0.9, 0.95, 0.99)
    experiments = [
        run_of(index, head=head, objective=Objective(penalty=Total(fishr=Scaled(Fishr(ema=decay), 2.0))))
        for index, decay in enumerate(decays)
    ]
    assert len({repr(shared_settings(experiment)) for experiment in experiments}) == 1
    group = HeadGroup()
    three = together(experiments, group=group)
    for events, experiment in zip(three, experiments, strict=True):
        check(events, alone(experiment))
    assert (False,) in programs(group)
    # Two heads, then the third: as many as the memory for moments holds.
    numbers = 3 * sum(weight.numel() for weight in three[0][-1].state.parameters.values())
    monkeypatch.setitem(head_program._MOMENTS, "cpu", 2 * numbers)
    for events, expected in zip(together(experiments), three, strict=True):
        check(events, expected, tolerance=0.0)
    none = run_of(0, head=head, objective=Objective(penalty=Total(fishr=Scaled(Fishr(), 2.0))))
    assert shared_settings(none) != shared_settings(experiments[0])


@pytest.mark.parametrize(("penalty", "grouped"), [(Fishr(), False), (VREx(), True)])
def test_large_heads_whose_moments_are_read_are_computed_alone_on_a_cpu(penalty, grouped, monkeypatch):
    objective = Objective(penalty=Total(term=Scaled(penalty, 2.0)))
    experiments = [run_of(index, head=NETWORK, objective=objective) for index in range(2)]
    monkeypatch.setattr(head_program, "_ALONE", 100)
    group = HeadGroup()
    for events, experiment in zip(together(experiments, group=group), experiments, strict=True):
        check(events, alone(experiment), tolerance=1e-6 if grouped else 0.0)
    assert bool(programs(group)) is grouped
