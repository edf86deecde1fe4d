"""Every family takes a user's classes and functions, written and read by one mechanism."""

import tomllib
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
import torch
from attrs import frozen
from hypothesis import given, settings

from fishr.averages import EMA, SMA
from fishr.configuration import ConfigurationError, dumps, structure, unstructure
from fishr.configuration.families import FAMILIES
from fishr.data import (
    AllEnvironments,
    Arrays,
    CachedFeatures,
    ColoredDigits,
    Domains,
    Environments,
    FullBatch,
    FunctionBatches,
    HeldOut,
    ImageFolders,
    Minibatch,
    RotatedMNIST,
)
from fishr.data.images import NoAugmentation, Preprocessing, RandAugment, TrivialAugment
from fishr.descents import SAM
from fishr.losses import CrossEntropy
from fishr.models import MLP, MNISTCNN, FunctionFeaturizer, LinearHead, MLPHead
from fishr.penalties import ERM, Constant, Fishr, Joined, LinearSchedule, Scaled, Stateless, Total, VREx
from fishr.protocols import colored_digits
from fishr.training import SGD, Adam, Experiment, Frozen
from fishr.transforms import Mixup


def data(seed: int, data_dir: Path | None) -> Domains:
    raise NotImplementedError


def environments(seed: int, data_dir: Path | None) -> Environments:
    raise NotImplementedError


def featurizer(shape: tuple[int, ...], generator: torch.Generator) -> Any:
    raise NotImplementedError


def head(features: int, outputs: int, generator: torch.Generator) -> Any:
    raise NotImplementedError


def loss(logits: Any, labels: Any) -> Any:
    raise NotImplementedError


def penalty(seen: Any) -> Any:
    raise NotImplementedError


def schedule(step: int) -> float:
    return 0.5


def batches(domains: Any, generator: Any) -> Any:
    raise NotImplementedError


def augmentation(image: Any, seed: int, preprocessing: Any) -> Any:
    raise NotImplementedError


def shuffled(batch: Any, generator: Any, outputs: int) -> Any:
    raise NotImplementedError


def six(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    raise NotImplementedError


@frozen
class Data:
    samples: int = 3

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        raise NotImplementedError


@frozen
class Source:
    name: str = "mine"

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        raise NotImplementedError


@frozen
class Network:
    widths: tuple[int, ...] = (3,)

    def __call__(self, shape: Any, generator: Any) -> Any:
        raise NotImplementedError

    def features(self, shape: Any) -> int:
        return 1


@frozen
class Top:
    bias: bool = True

    def __call__(self, features: int, outputs: int, generator: Any) -> Any:
        raise NotImplementedError


@frozen
class Smoothed:
    by: float = 0.1

    def __call__(self, logits: Any, labels: Any) -> Any:
        raise NotImplementedError


@frozen
class Gap:
    inner: Any = attrs.field(default=None, init=False)
    power: int = 2

    def init(self, problem: Any) -> Any:
        return ()

    def __call__(self, seen: Any, state: Any, step: int) -> Any:
        raise NotImplementedError


@frozen
class Ramp:
    slope: float = 1.0

    def __call__(self, step: int) -> float:
        return self.slope * step


@frozen
class Lion:
    lr: float

    def init(self, parameters: Any) -> Any:
        return ()

    def update(self, gradients: Any, state: Any, parameters: Any) -> Any:
        raise NotImplementedError


@frozen
class Halves:
    first: bool = True

    def draw(self, domains: Any, generator: Any, ranks: Any) -> Any:
        raise NotImplementedError


@frozen
class Backwards:
    length: float = 1.0

    def init(self, weights: Any) -> Any:
        return ()

    def __call__(self, gradients: Any, optimizer: Any, weights: Any, memory: Any, state: Any) -> Any:
        raise NotImplementedError


@frozen
class Shuffled:
    times: int = 1

    def __call__(self, batch: Any, generator: Any, outputs: int) -> Any:
        raise NotImplementedError


@frozen
class Running:
    window: int = 5

    def init(self, weights: Any) -> Any:
        return ()

    def update(self, weights: Any, state: Any, step: int) -> Any:
        raise NotImplementedError

    def weights(self, state: Any, weights: Any) -> Any:
        raise NotImplementedError


@frozen
class Blur:
    radius: float = 1.0

    def __call__(self, image: Any, seed: int, preprocessing: Any) -> Any:
        raise NotImplementedError


@frozen
class Empty:
    """No member of any family."""


augmentations = st.sampled_from(
    [True, NoAugmentation(), RandAugment(3, crop=False), TrivialAugment(), augmentation, Blur(), Blur(2.0)]
)
preprocessings = st.sampled_from([None, Preprocessing(64, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), "bicubic", False)])
sources = st.sampled_from([RotatedMNIST(samples=5), environments, Source(), Source("other")])
sources |= st.builds(ImageFolders, st.just("PACS"), augment=augmentations, preprocessing=preprocessings)
schedules = st.sampled_from([Constant(2.0), LinearSchedule(0.0, 1.0, 5), schedule, Ramp(), Ramp(0.5)])
joined = st.tuples(schedules, schedules).map(lambda pair: Joined(pair, (7,)))
penalties: st.SearchStrategy[Any] = st.sampled_from([ERM(), VREx(), Fishr(ema=0.5), Stateless(penalty), Gap(), Gap(3)])
scaled = st.builds(Scaled, penalties, schedules | joined)
parts: dict[str, st.SearchStrategy[Any]] = {
    "data": st.sampled_from([ColoredDigits(), Arrays(("a.npz",), classes=2), CachedFeatures("f.h5"), data, Data(5)])
    | st.builds(HeldOut, sources, st.just((0,)))
    | st.builds(AllEnvironments, sources),
    "featurizer": st.sampled_from(
        [MLP((3,)), MNISTCNN(), FunctionFeaturizer(featurizer), Network(), Frozen(Network((1,)))]
    ),
    "head": st.sampled_from([LinearHead(), MLPHead((3,)), head, Top(), Top(False)]),
    "loss": st.sampled_from([CrossEntropy(), loss, Smoothed(), Smoothed(0.3)]),
    "optimizer": st.sampled_from([Adam(0.1), SGD(0.1), Lion(0.1)]),
    "descent": st.sampled_from([None, SAM(0.5), Backwards(), Backwards(2.0)]),
    "transform": st.sampled_from([None, Mixup(0.5), shuffled, Shuffled(), Shuffled(2)]),
    "average": st.sampled_from([None, EMA(0.5), SMA(3), Running(), Running(2)]),
    "batches": st.sampled_from([FullBatch(), Minibatch(3), FunctionBatches(batches), Halves(), Halves(False)]),
}


@pytest.mark.slow
@given(st.fixed_dictionaries(parts), penalties, st.dictionaries(st.sampled_from("abc"), scaled | penalties, max_size=2))
@settings(max_examples=60)
def test_any_member_of_any_family_reads_back_as_itself(chosen: dict[str, Any], risk: Any, terms: dict[str, Any]):
    first = colored_digits()
    objective = attrs.evolve(first.objective, risk=risk, penalty=Total(**terms))
    experiment = attrs.evolve(first, objective=objective, **chosen)
    text = dumps(experiment)
    again = structure(tomllib.loads(text), Experiment, [__name__])
    assert again == experiment
    assert dumps(again) == text


PLACES = {
    "DataSet": ("data", data, Data()),
    "EnvironmentSource": ("data.source", environments, Source()),
    "Augmentation": ("data.source.augment", augmentation, Blur()),
    "Featurizer": ("featurizer", FunctionFeaturizer(featurizer), Network()),
    "Head": ("head", head, Top()),
    "Loss": ("loss", loss, Smoothed()),
    "Risk": ("objective.risk", Stateless(penalty), Gap()),
    "Penalty": ("objective.penalty.mine", Stateless(penalty), Gap()),
    "Schedule": ("objective.penalty.fishr.schedule", schedule, Ramp()),
    "Optimizer": ("optimizer", None, Lion(0.1)),
    "Descent": ("descent", None, Backwards()),
    "BatchTransform": ("transform", shuffled, Shuffled()),
    "WeightAverage": ("average", None, Running()),
    "Batches": ("batches", FunctionBatches(batches), Halves()),
}


def test_every_family_is_tested_here():
    assert set(PLACES) == {family.protocol.__name__ for family in FAMILIES}


def placed(path: str, kind: str) -> dict[str, Any]:
    """Return a recipe's table with a member of this module at a place."""
    table = unstructure(colored_digits())
    if path.startswith("data.source"):
        table["data"] = {"kind": "HeldOut", "test": [0], "source": {"kind": "ImageFolders", "folder": "PACS"}}
    *above, key = path.split(".")
    inner = table
    for step in above:
        inner = inner[step]
    inner[key] = {"kind": f"{__name__}:{kind}"}
    return table


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("wrong", ["Empty", "six"])
def test_what_is_no_member_is_refused_with_what_the_protocol_expects(family: str, wrong: str):
    path, function, _ = PLACES[family]
    with pytest.raises(ConfigurationError) as caught:
        structure(placed(path, wrong), Experiment, [__name__])
    (problem,) = caught.value.problems
    assert problem.path == f"{path}.kind"
    (found,) = (one for one in FAMILIES if one.protocol.__name__ == family)
    methods = " and ".join(f"{name}({', '.join(arguments)})" for name, arguments in found.methods.items())
    assert f'{wrong}" is no {family}' in problem.message
    assert f"expected a frozen attrs class with {methods}" in problem.message
    assert ("or a plain function f(" in problem.message) is (function is not None)


@pytest.mark.parametrize("family", PLACES)
def test_a_file_alone_runs_no_code_in_any_family(family: str):
    path, *_ = PLACES[family]
    with pytest.raises(ConfigurationError, match=rf"^{path}\.kind: .*a file alone never runs code; .* pass --plugin "):
        structure(placed(path, "Empty"), Experiment)
