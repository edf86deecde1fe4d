"""A feature cache as a benchmark's environments: all of them, in the file's order, whole."""

import numpy as np
import pytest
import torch

from fishr.data.cached_features import FeatureEnvironments
from fishr.data.caches import Section, open_features
from fishr.data.caches.feature_cache import write_features
from fishr.data.environments import HeldOut
from fishr.errors import InputError

SECTIONS = (Section("sketch", "training", 12), Section("art", "evaluation", 10), Section("photo", "training", 15))


@pytest.fixture
def file(tmp_path):
    def compute(domain, start, stop):
        rows = np.arange(start, stop)
        features = np.stack([rows, np.full(len(rows), domain)], 1)
        return {"features": features, "labels": rows % 3, "logits": np.zeros((len(rows), 3)), "ids": rows}

    path = tmp_path / "features.h5"
    head = {"text": "", "outputs": 3, "parameters": {}}
    write_features(path, {"dtype": "float32", "domains": ("sketch", "art", "photo")}, head, SECTIONS, compute, 64)
    return path


def test_environments_are_the_files_in_its_order(file):
    found = FeatureEnvironments(str(file))(seed=0, data_dir=None)
    assert [(d.name, len(d.labels)) for d in found.domains] == [("sketch", 12), ("photo", 15), ("art", 10)]
    assert found.classes == 3
    for domain, number in zip(found.domains, (0, 2, 1), strict=True):
        assert torch.equal(domain.inputs[:, 1], torch.full((len(domain.labels),), float(number)))


def test_they_can_be_held_out(file):
    made = HeldOut(FeatureEnvironments(file.name), test=(1,))(seed=0, data_dir=file.parent)
    assert [d.name for d in made.training] == ["env0_in", "env2_in"]
    assert made.evaluation[0].inputs[:, 1].unique().tolist() == [2.0]  # photo


def test_a_file_of_another_key_is_refused(file):
    key = open_features(file).key
    FeatureEnvironments(str(file), key=key)(0, None)
    with pytest.raises(InputError, match="key"):
        FeatureEnvironments(str(file), key="0" * len(key))(0, None)
