"""A short run, and small subjects made by hand."""

import attrs
import pytest
import torch
from torch import nn

from fishr.analysis import Subject
from fishr.configuration import dumps
from fishr.data import ColoredDigits, Domain
from fishr.losses import CrossEntropy
from fishr.models.featurizers import MLP
from fishr.protocols import colored_digits
from fishr.training import run
from fishr.training.artifacts import Artifacts


@pytest.fixture(scope="session")
def experiment():
    data, featurizer = ColoredDigits(training_images=200), MLP(widths=(7, 6))
    return attrs.evolve(colored_digits(), data=data, featurizer=featurizer, steps=5, checkpoint_every=2, seed=3)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, experiment):
    """A finished run that kept its checkpoints, for reading only."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    for _ in run(experiment, folder, experiment_text=dumps(experiment), keep=Artifacts(checkpoints=True)):
        pass
    return folder


def _domain(name, rows, generator):
    inputs = torch.randn(rows, 4, generator=generator) + torch.randn(4, generator=generator)
    return Domain(name, inputs, torch.randint(3, (rows,), generator=generator))


@pytest.fixture(scope="session")
def subject():
    """A linear head on two training domains and one for evaluation."""
    generator = torch.Generator().manual_seed(1)
    domains = tuple(_domain(name, rows, generator) for name, rows in (("photo", 9), ("sketch", 12), ("clip art", 7)))
    head = nn.Linear(4, 3)
    source = {"path": "nowhere", "kind": "run", "key": "0123", "step": "5"}
    splits = ("training", "training", "evaluation")
    return Subject.from_domains("mine", head, CrossEntropy(), domains, splits, source=source)
