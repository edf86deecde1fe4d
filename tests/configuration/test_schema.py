"""JSON schemas accept every recipe and example, and find planted errors as the strict reader does."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fishr.configuration import ConfigurationError, apply_overrides, schema, structure, unstructure
from fishr.configuration.families import FAMILIES
from fishr.protocols import colored_digits, recipes
from fishr.sweeps.plan import Plan
from fishr.training import Experiment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


@pytest.fixture(scope="module")
def validators() -> dict[type[Any], Draft202012Validator]:
    made = {cls: schema(cls) for cls in (Experiment, Plan)}
    for one in made.values():
        Draft202012Validator.check_schema(one)
    return {cls: Draft202012Validator(one) for cls, one in made.items()}


def problems(validator: Draft202012Validator, table: dict[str, Any]) -> list[str]:
    return [str(error.message) for error in validator.iter_errors(table)]  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("name", recipes())
def test_recipes_are_valid(validators: dict[type[Any], Draft202012Validator], name: str):
    assert problems(validators[Experiment], unstructure(recipes()[name]())) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(validators: dict[type[Any], Draft202012Validator], path: Path):
    table = tomllib.loads(path.read_text())
    assert problems(validators[Plan if "datasets" in table else Experiment], table) == []


FISHR = "objective.penalty.fishr"


@pytest.mark.parametrize(
    "override",
    [
        "stepz=1",
        "steps=many",
        "steps=1.5",
        "optimizer.kind=Sgd",
        "optimizer.lr=fast",
        "lr_schedule.kind=Ramp",
        "average.kind=Ema",
        "descent.kind=sam",
        "transform.kind=mixup",
        "lr_factors.head=fast",
        "optimizer.betas=[0.9]",
        "data.flip=[0.1, 0.2]",
        "data.kind=module",
        "featurizer.width=[3]",
        "featurizer.kind=Mlp",
        "objective.risk.over=domain",
        f"{FISHR}.penalty.statistic=varianse",
        f"{FISHR}.penalty.unbiased=0",
        f"{FISHR}.schedule=high",
        f"{FISHR}.schedule.aftr=3",
        f"{FISHR}.kind=Constant",
        "layers=[1]",
        "route=magic",
    ],
)
def test_planted_errors_are_found(validators: dict[type[Any], Draft202012Validator], override: str):
    table = apply_overrides(unstructure(colored_digits()), [override])
    assert problems(validators[Experiment], table)
    with pytest.raises(ConfigurationError):
        structure(table, Experiment)


@pytest.mark.parametrize(
    "override",
    [
        "data={kind='mine:Rings', samples=3}",
        "featurizer={kind='mine:network'}",
        "head.kind=mine:Head",
        "loss.kind=mine.losses:smoothed",
        "objective.risk.kind=mine:risk",
        f"{FISHR}.penalty={{kind='mine:Gap', power=2}}",
        f"{FISHR}.schedule={{kind='mine:ramp'}}",
        f"{FISHR}.schedule=3",
        "optimizer={kind='mine:Lion', lr=0.1}",
        "batches.kind=mine:draw",
        "lr_schedule={kind='mine:ramp'}",
        "lr_schedule=0.5",
        "average={kind='EMA', decay=0.9}",
        "descent={kind='SAM', rho=0.1}",
        "transform={kind='Mixup', alpha=1}",
        "average={kind='mine:Average'}",
        "lr_factors={'featurizer.0' = 0.1, head = {kind = 'StepSchedule', at = 1, before = 0, after = 1}}",
        "objective.risk={over='samples'}",
        "objective.risk={kind='VREx'}",
        "data={kind='HeldOut', test=[0], source={kind='ImageFolders', folder='PACS', augment=false}}",
        "data={kind='HeldOut', test=[0], source={kind='ImageList', path='a.csv', augment={kind='RandAugment'}}}",
    ],
)
def test_kinds_of_plugins_and_short_forms_are_valid(validators: dict[type[Any], Draft202012Validator], override: str):
    assert problems(validators[Experiment], apply_overrides(unstructure(colored_digits()), [override])) == []


def test_missing_keys_are_found(validators: dict[type[Any], Draft202012Validator]):
    for key in ("data", "optimizer", "steps"):
        table = copy.deepcopy(unstructure(colored_digits()))
        del table[key]
        assert problems(validators[Experiment], table) == [f"{key!r} is a required property"]


def test_a_plan_has_errors_too(validators: dict[type[Any], Draft202012Validator]):
    sound: dict[str, Any] = {"datasets": ["PACS"], "algorithms": ["ERM"], "test_envs": [[0], [1]]}
    assert problems(validators[Plan], sound) == []
    assert problems(validators[Plan], sound | {"test_envs": "twice"})
    assert problems(validators[Plan], sound | {"settings": {"protocol": "domainbed"}})


def test_every_kind_has_a_definition():
    definitions = schema(Experiment)["$defs"]
    for family in FAMILIES:
        kinds = [part.get("properties", {}).get("kind", {}) for part in definitions[family.protocol.__name__]["anyOf"]]
        assert [kind["const"] for kind in kinds if "const" in kind] == list(family.kinds)
