"""The package's own experiments and penalties: all names known, all recipes read back, all mistakes told."""

import tomllib
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fishr.averages import EMA
from fishr.configuration import ConfigurationError, apply_overrides, dumps, load, structure, unstructure
from fishr.configuration.families import FAMILIES
from fishr.data import Arrays, CachedFeatures, ColoredDigits, ColoredMNIST, Minibatch
from fishr.descents import SAM
from fishr.losses import CrossEntropy
from fishr.models import MLP, MLPHead
from fishr.penalties import (
    ERM,
    IRM,
    Constant,
    CosineSchedule,
    Fishr,
    Joined,
    LinearSchedule,
    Penalty,
    Scaled,
    Stateless,
    StepSchedule,
    Total,
    VREx,
)
from fishr.protocols import colored_digits, recipes
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import Frozen
from fishr.training.lars import LARS
from fishr.training.optimizers import AdamW
from fishr.training.sgd import SGD
from fishr.transforms import Mixup


@pytest.mark.parametrize("name", list(recipes()))
def test_a_recipe_reads_back_as_itself(name: str, tmp_path: Path):
    experiment = recipes()[name]()
    assert structure(unstructure(experiment), Experiment) == experiment
    file = tmp_path / "run.toml"
    file.write_text(dumps(experiment), encoding="utf-8")
    again = load(file, Experiment)
    assert again == experiment
    assert dumps(again) == dumps(experiment)


def test_a_featurizer_without_kind_is_an_mlp():
    """So were files written before there was a choice; and they stay byte for byte what they were."""
    table = unstructure(colored_digits())
    assert "kind" not in table["featurizer"]
    named = table | {"featurizer": {"kind": "MLP", **table["featurizer"]}}
    assert structure(named, Experiment) == structure(table, Experiment) == colored_digits()


def test_a_route_is_read_from_a_file_and_left_out_by_default():
    """So that folders of runs without one are resumed."""
    table = unstructure(colored_digits())
    assert "route" not in table
    assert structure(table | {"route": "functional"}, Experiment) == attrs.evolve(colored_digits(), route="functional")
    with pytest.raises(ConfigurationError, match=r'route: got "magic" .*expected one of .*"functional"'):
        structure(table | {"route": "magic"}, Experiment)


def test_learning_rates_are_written_only_where_they_are_set():
    table = unstructure(attrs.evolve(colored_digits(), optimizer=SGD(0.1)))
    assert not {"lr_schedule", "lr_factors"} & table.keys()
    assert "nesterov" not in table["optimizer"]
    ramp = LinearSchedule(0.0, 1.0, steps=9)
    experiment = attrs.evolve(colored_digits(), lr_schedule=ramp, lr_factors={"featurizer.1": 0.1, "head": ramp})
    table = unstructure(experiment)
    assert table["lr_factors"] == {"featurizer.1": 0.1, "head": table["lr_schedule"]}
    assert structure(table, Experiment) == experiment


def test_parts_of_the_step_are_written_only_where_they_are_set():
    assert not {"transform", "descent", "average"} & unstructure(colored_digits()).keys()
    experiment = attrs.evolve(colored_digits(), average=EMA(0.9), transform=Mixup(0.5), descent=SAM())
    assert unstructure(experiment)["descent"] == {"kind": "SAM", "rho": 0.05}
    assert unstructure(experiment)["transform"] == {"kind": "Mixup", "alpha": 0.5}
    assert unstructure(experiment)["average"] == {"kind": "EMA", "decay": 0.9, "start": 0}
    assert structure(tomllib.loads(dumps(experiment)), Experiment) == experiment


@pytest.mark.parametrize("weights", [None, "runs/base"])
def test_a_frozen_featurizer_reads_back(weights: str | None, tmp_path: Path):
    experiment = attrs.evolve(colored_digits(), featurizer=Frozen(MLP((8,)), weights))
    file = tmp_path / "run.toml"
    file.write_text(dumps(experiment), encoding="utf-8")
    assert load(file, Experiment) == experiment
    assert unstructure(experiment)["featurizer"]["kind"] == "Frozen"


@pytest.mark.parametrize(
    "features",
    [
        CachedFeatures("features.h5"),
        CachedFeatures(
            "/data/features.h5", key="ab", expected={"data": "a = 1\nb = 2", "seed": "0"}, training=("a", "b")
        ),
    ],
)
def test_cached_features_read_back(features: CachedFeatures, tmp_path: Path):
    experiment = attrs.evolve(colored_digits(), data=features, featurizer=MLP(()))
    file = tmp_path / "run.toml"
    file.write_text(dumps(experiment), encoding="utf-8")
    assert load(file, Experiment) == experiment


def test_every_frozen_class_that_a_package_exports_has_a_name_in_files():
    found = {family.protocol.__name__: set(family.kinds) for family in FAMILIES}
    expected = {
        "DataSet": {
            "AllEnvironments",
            "Arrays",
            "CachedFeatures",
            "ColoredDigits",
            "ColoredMNIST",
            "HeldOut",
            "PublishedSplits",
        },
        "EnvironmentSource": {
            "DomainBedColoredMNIST",
            "FeatureEnvironments",
            "HuggingFaceImages",
            "ImageFolders",
            "ImageList",
            "NumPyData",
            "RotatedMNIST",
        },
        "Augmentation": {"DomainBedAugmentation", "NoAugmentation", "RandAugment", "TrivialAugment"},
        "Featurizer": {"FeatureDropout", "Frozen", "MLP", "MNISTCNN", "ResNet", "TimmBackbone", "WideResNet"},
        "Head": {"LinearHead", "MLPHead"},
        "Loss": {"BinaryCrossEntropy", "CrossEntropy", "SquaredError"},
        "Risk": {"ERM", "Fishr", "IRM", "Scaled", "Total", "VREx"},
        "Penalty": {"ERM", "Fishr", "IRM", "Scaled", "Total", "VREx"},
        "Schedule": {"Constant", "CosineSchedule", "Joined", "LinearSchedule", "StepSchedule"},
        "Optimizer": {"Adam", "AdamW", "LARS", "SGD"},
        "Descent": {"ANDMask", "Fish", "SAM"},
        "BatchTransform": {"Mixup"},
        "WeightAverage": {"EMA", "SMA", "SWAD"},
        "Batches": {"FullBatch", "Minibatch"},
    }
    assert found.keys() == expected.keys()
    assert [name for name, kinds in expected.items() if not kinds <= found[name]] == []
    others = {"FunctionBatches", "FunctionFeaturizer", "MovingAverage", "Stateless"}
    assert not others & set.union(*found.values())


ema = st.sampled_from([0.0, 0.9, 0.95])
numbers = st.floats(allow_nan=False, allow_infinity=False)
steps = st.integers(1, 10**6)
single = (
    st.builds(Constant, numbers)
    | st.builds(StepSchedule, steps, numbers, numbers)
    | st.builds(LinearSchedule, numbers, numbers, steps)
    | st.builds(CosineSchedule, numbers, numbers, steps)
)
positive = st.floats(0, 1e3)
rates = st.builds(Constant, positive) | st.builds(LinearSchedule, positive, positive, steps)
schedules = single | st.tuples(single, single, steps).map(lambda parts: Joined(parts[:2], parts[2:]))
plain: st.SearchStrategy[Any] = (
    st.builds(ERM, st.sampled_from(["domains", "samples"]))
    | st.builds(Fishr, ema=ema, over_parameters=st.sampled_from(["mean", "sum"]))
    | st.builds(IRM, st.sampled_from(["squared", "half_batches"]))
    | st.builds(VREx, st.sampled_from(["variance", "pairwise"]))
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(
    lambda name: name not in ("kind", "self")
)
penalties = st.recursive(
    plain,
    lambda inner: (
        st.builds(Scaled, inner, schedules)
        | st.dictionaries(names, inner, max_size=2).map(lambda terms: Total(**terms))
    ),
    max_leaves=3,
)
parts = names.filter(lambda name: name not in ("risk", "l2", "loss"))
totals = st.dictionaries(parts, penalties, max_size=3).map(lambda terms: Total(**terms))


@pytest.mark.slow
@given(
    totals,
    st.sampled_from([ColoredDigits(), ColoredMNIST(), Arrays(("a.npz", "b.npz"), classes=3)]),
    st.sampled_from([SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9, nesterov=True), AdamW(0.1), LARS(0.1)]),
    st.none() | st.integers(0, 9),
    st.none() | rates,
    st.none() | st.dictionaries(st.sampled_from(["head", "featurizer.0", "head.weight"]), rates, max_size=2),
)
@settings(max_examples=50)
def test_any_experiment_reads_back_as_itself_through_toml(
    total: Total, data: Any, optimizer: Any, fresh: int | None, schedule: Any, factors: Any
):
    first = colored_digits()
    experiment = attrs.evolve(
        first,
        data=data,
        head=MLPHead((4, 5)),
        loss=CrossEntropy(),
        optimizer=optimizer,
        batches=Minibatch(8),
        objective=attrs.evolve(first.objective, penalty=total, fresh_optimizer_at=fresh),
        lr_schedule=schedule,
        lr_factors=factors,
    )
    assert structure(tomllib.loads(dumps(experiment)), Experiment) == experiment


def changed(*overrides: str) -> Experiment:
    return structure(apply_overrides(unstructure(colored_digits()), overrides), Experiment)


def told(*overrides: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        changed(*overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_schedule_of_a_recipe_is_set_from_the_command_line():
    scaled = changed("objective.penalty.fishr.schedule.after=300").objective.penalty.terms["fishr"]
    assert isinstance(scaled, Scaled)
    before = colored_digits().objective.penalty.terms["fishr"].schedule  # type: ignore[attr-defined]
    assert scaled.schedule == attrs.evolve(before, after=300.0)


def test_a_schedule_is_exchanged_for_a_number():
    scaled = changed("objective.penalty.fishr.schedule={kind='Constant', value=2}").objective.penalty.terms["fishr"]
    assert scaled == changed("objective.penalty.fishr.schedule=2").objective.penalty.terms["fishr"]
    assert scaled == Scaled(Fishr(ema=0.0, over_parameters="sum", over_domains="sum"), Constant(2.0))


def test_a_second_term_is_added():
    terms = changed('objective.penalty.rex={kind = "VREx", form = "pairwise"}').objective.penalty.terms
    assert list(terms) == ["fishr", "rex"]
    assert terms["rex"] == VREx(form="pairwise")


FISHR = "objective.penalty.fishr"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f'{FISHR}.schedule.at="190"', f'{FISHR}.schedule.at: got "190" (a string), expected a whole number'),
        (f"{FISHR}.schedule.aftr=3", f'{FISHR}.schedule.aftr: unknown key; did you mean "after"?'),
        (f"{FISHR}.penalty.emma=3", f'{FISHR}.penalty.emma: unknown key; did you mean "ema"?'),
        (f"{FISHR}.penalty.statistic=varianse", f'{FISHR}.penalty.statistic: got "varianse" (a string), expected'),
        (f"{FISHR}.penalty.statistic=varianse", 'did you mean "variance"?'),
        (f"{FISHR}.penalty.unbiased=0", f"{FISHR}.penalty.unbiased: got 0 (a whole number), expected true or false"),
        (f"{FISHR}.penalty.ema=2", f"{FISHR}.penalty"),
        (f"{FISHR}.schedule.kind=StepSchedul", 'did you mean "StepSchedule"?'),
        (f"{FISHR}.schedule.kind=Constant", f"{FISHR}.schedule.value: missing, expected a number"),
        (f"{FISHR}.kind=mine:Penalty", "a file alone never runs code"),
        ("optimizer.lr=0", "optimizer.lr: got 0.0, expected a number greater than 0.0"),
        ("optimizer.kind=Sgd", 'optimizer.kind: got "Sgd" (a string), expected one of "Adam", "AdamW", "LARS", "SGD"'),
        ("optimizer.kind=0", "optimizer.kind: got 0 (a whole number), expected one of"),
        ("optimizer.kind=''", 'optimizer.kind: got "" (a string), expected one of'),
        ("optimizer.betas=[0.9]", "optimizer.betas: got an array of length 1, expected one of length 2"),
        ("optimizer={kind='SGD', lr=1, nesterov=true}", "nesterov: got true without momentum"),
        ("lr_schedule.kind=Cosine", 'lr_schedule.kind: got "Cosine" (a string), expected one of'),
        ("lr_schedule=-1", "lr_schedule: got -1.0 at step 0, expected a finite number of at least 0"),
        ("lr_factors.head=fast", 'lr_factors.head: got "fast" (a string), expected a number or a table'),
        ("lr_factors=0.1", "lr_factors: got 0.1 (a decimal number), expected a table"),
        ("steps=0", "steps: got 0, expected a whole number of at least 1"),
        ("steps=1e3", "steps: got 1000.0 (a decimal number), expected a whole number"),
        ("compute.precision=float16", 'precision: got "float16" (a string), expected one of "fp32", "tf32", "bf16", '),
        ("featurizer.kind=Mlp", 'expected one of "FeatureDropout", "MLP", "MNISTCNN", '),
        ("featurizer.kind=Mlp", 'did you mean "MLP"?'),
        ("compute.kind=Compute", "compute.kind: unknown key, this table is always a Compute"),
        (
            "objective.risk.kind=Erm",
            'objective.risk.kind: got "Erm" (a string), expected one of "ERM", "Fishr", "IRM", ',
        ),
        ("data.kind=ColoredMnist", 'did you mean "ColoredMNIST"?'),
        ("objective.l2=nan", "objective.l2: got nan (a decimal number), expected a finite number"),
        ("objective.risk.over=domain", 'objective.risk.over: got "domain" (a string), expected one of'),
        ("seeed=1", 'seeed: unknown key; did you mean "seed"?'),
    ],
)
def test_a_mistake_in_an_experiment_is_told_on_one_line(override: str, message: str):
    assert message in told(override)


def test_all_mistakes_are_told_at_once():
    text = told("seeed=1", f"{FISHR}.schedule.at=1.5", "optimizer.lr=-1", "steps=true")
    for part in ("seeed: ", f"{FISHR}.schedule.at: ", "optimizer.lr: ", "steps: "):
        assert part in text


def test_a_function_of_a_module_is_named_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_penalties.py").write_text("def disagreement(seen):\n    return seen.logits.mean()\n")
    monkeypatch.chdir(tmp_path)
    table = {"mine": {"kind": "Scaled", "penalty": {"kind": "my_penalties:disagreement"}, "schedule": 0.1}}
    with pytest.raises(ConfigurationError, match=r"^mine\.penalty\.kind: .* pass --plugin my_penalties$"):
        structure(table, Total)
    total = structure(table, Total, plugins=["my_penalties"])
    scaled = total.terms["mine"]
    assert isinstance(scaled, Scaled)
    assert isinstance(scaled.penalty, Stateless)
    assert isinstance(scaled.penalty, Penalty)
    assert unstructure(total) == table


def test_a_lambda_is_not_written():
    total = Total(mine=Scaled(Stateless(lambda seen: seen.logits.mean()), 0.1))
    with pytest.raises(ConfigurationError, match=r"^mine\.penalty: .*<lambda> cannot be imported by name"):
        dumps(total)
