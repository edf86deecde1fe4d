"""Plans whose methods are combinations: the example's rows, what they train, and what is refused."""

import shutil
from functools import reduce
from operator import or_
from pathlib import Path

import attrs
import pytest

from fishr.averages import EMA, SMA, SWAD
from fishr.configuration import dumps, load
from fishr.descents import SAM, ANDMask
from fishr.errors import InputError
from fishr.methods import CORAL, METHODS, GroupDRO
from fishr.methods.combination import combined
from fishr.penalties import ERM, VREx
from fishr.protocols.domainbed.collection import dataset_tables
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.protocols.domainbed.records import read_records
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import planned_keys, sweep_folder
from fishr.sweeps.plan import Plan
from fishr.sweeps.preflight import check_input
from fishr.training import Experiment
from fishr.transforms import Mixup

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLUGINS = ("own_penalty",)


def job(algorithm, settings, draw=0, dataset="PACS"):
    return Job(dataset, algorithm, (0,), draw, 0, settings)


@pytest.fixture
def example(tmp_path, monkeypatch):
    for name in ("combinations.toml", "own_penalty.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return load("combinations.toml", Plan, plugins=PLUGINS)


@pytest.fixture
def tiny(example, features):
    """The example's methods on a file of features, in two jobs of a few steps each."""
    fixed = {"batch_size": 8, "penalty_anneal_iters": 3, "own_penalty_anneal_iters": 3, "vrex_penalty_anneal_iters": 3}
    settings = attrs.evolve(
        example.settings, features={"PACS": str(features)}, steps=8, evaluate_every=2, hparams=fixed
    )
    return attrs.evolve(example, draws=1, trials=1, test_envs=((0,),), settings=settings)


@pytest.mark.slow
def test_the_example_runs_on_features_and_is_tabled_without_its_code(tiny, tmp_path):
    folder = tmp_path / "sweep"
    check_input(tiny.jobs())
    with sweep_folder(folder, tiny, plugins=PLUGINS):
        outcomes = [attempt(one, Conditions(folder)) for one in tiny.jobs()]
    assert all(one.done and one.diverged is None for one in outcomes), outcomes
    text = (folder / "plan.toml").read_text()
    (folder / "plan.toml").write_text(text.replace("own_penalty:MeanGradientGap", "no_such_module:Gap"))
    assert [key.algorithm for key in planned_keys(folder)] == list(tiny.algorithms)
    (folder / "plan.toml").write_text(text.replace('"EMA"', '"no_such_module:Mean"'))
    assert [key.algorithm for key in planned_keys(folder)] == list(tiny.algorithms)
    (table,) = dataset_tables(read_records(folder), "training", planned_keys(folder))
    assert sorted(row.algorithm for row in table.rows) == sorted(tiny.algorithms)
    assert all(row.cells[0].mean is not None for row in table.rows)


def test_its_experiments_have_the_parts_of_each_method(example, tmp_path):
    (tmp_path / "again.toml").write_text(dumps(example))
    assert load("again.toml", Plan, plugins=PLUGINS) == example
    for draw in (0, 3):
        made = {name: job(name, example.settings, draw) for name in example.algorithms}
        found = {name: one.experiment() for name, one in made.items()}
        # The seed of a draw is the hyper-parameter's name, so that the draws are those of the method alone.
        assert found["Fishr + SWAD"].objective == found["Fishr"].objective
        assert found["Fishr + SWAD"].average == SWAD(ratio=0.3)
        assert found["CORAL + moving average"].average == EMA(decay=0.999)
        assert isinstance(found["CORAL + moving average"].objective.penalty.terms["coral"].penalty, CORAL)
        mixed = found["gap + Mixup"]
        assert mixed.transform == Mixup(made["gap + Mixup"].hparams["mixup_alpha"])
        weight = made["gap + Mixup"].hparams["own_lambda"]
        assert mixed.objective.penalty.terms["penalty"].schedule(10_000) == weight == (10.0 if draw == 0 else weight)
        assert 1 <= weight <= 100
        assert (found["V-REx + SAM"].descent, found["ERM"].descent) == (SAM(rho=0.02), None)
        assert len({one.name for one in made.values()}) == len(made)


def test_settings_for_all_methods_leave_their_own_alone(tmp_path):
    settings = Settings(transform=Mixup(0.5), descent=SAM(0.1), average=SMA(3), methods={"Mine": OwnMethod(VREx())})
    for name in ("ERM", "Fishr", "GroupDRO", "Mine"):
        made = job(name, settings).experiment()
        assert (made.transform, made.descent, made.average) == (Mixup(0.5), SAM(0.1), SMA(3))
        (tmp_path / "run.toml").write_text(dumps(made))
        assert load(tmp_path / "run.toml", Experiment) == made
    plain = job("ERM", Settings())
    assert job("ERM", Settings(average=SMA(3))).name != plain.name
    assert plain.experiment().average is None
    for name, part, settings in (
        ("SWAD", "average", Settings(average=EMA())),
        ("Mine", "transform", Settings(transform=Mixup(), methods={"Mine": OwnMethod(transform=Mixup(0.3))})),
    ):
        with pytest.raises(InputError, match=f"settings.{part}: got .* for all methods, but {name} has one of its own"):
            Plan(("PACS",), (name,), settings=settings)


@pytest.mark.parametrize(("fields", "message"), [
    ({"combines": ("Fisher",)}, r"combines: got \['Fisher'\], expected some of .*Fishr"),
    ({"combines": ("Fishr", "Fishr")}, r"combines: got \['Fishr', 'Fishr'\]"),
    ({"combines": ("CORAL", "MMD")}, "CORAL and MMD both draw mmd_gamma; combine methods that differ in it"),
    ({"combines": ("GroupDRO", "RSC")}, "GroupDRO and RSC both set risk"),
    ({"combines": ("SAM", "Fish")}, "SAM and Fish both set descent"),
    ({"combines": ("Mixup",), "transform": Mixup()}, "Mixup and the plan both set transform"),
])  # fmt: skip
def test_what_cannot_be_combined_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        OwnMethod(**fields)


def test_a_plan_whose_parts_do_not_fit_is_refused_before_it_runs(tiny):
    methods = tiny.settings.methods | {"both": OwnMethod(combines=("GroupDRO",), descent=ANDMask())}
    plan = attrs.evolve(tiny, algorithms=("ERM", "both"), settings=attrs.evolve(tiny.settings, methods=methods))
    with pytest.raises(InputError, match=r"PACS, both: descent: got ANDMask, .*GroupDRO, which compares domains"):
        check_input(plan.jobs())


def test_a_combination_is_the_sum_of_its_methods():
    names = ("IRM", "SD", "GroupDRO", "RDM")
    both = combined({name: METHODS[name] for name in names})
    drawn = {name: one.default for name, one in both.ranges_on("PACS").items()} | {"lr": 1e-3}
    parts = [METHODS[name] for name in names]
    alone = [part.objective(drawn) for part in parts]
    found = both.objective(drawn)
    assert [*found.penalty.terms] == [name for one in alone for name in one.penalty.terms]
    assert found.risk == GroupDRO(drawn["groupdro_eta"])
    assert found.fresh_optimizer_at == (500, 1500)
    for draw in (0, 1):
        one, *others = (hyperparameters("PACS", method.ranges_on("PACS"), draw, 0) for method in parts)
        assert hyperparameters("PACS", both.ranges_on("PACS"), draw, 0) == reduce(or_, others, one)
    assert both.changes(drawn) == METHODS["RDM"].changes(drawn)
    assert combined({"ERM": METHODS["ERM"]}).objective({}).risk == ERM()
    assert combined({"IRM": METHODS["IRM"]}).objective(drawn) == alone[0]
