"""Classes of a file are matched with those of the model by their names."""

import numpy as np
import pytest
import torch
from torch import nn

from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features
from fishr.errors import InputError
from fishr.inference import TrainedModel
from fishr.inference.labelled_domains import labelled_domains
from fishr.protocols import colored_digits
from fishr.training.signature import Signature

LABELS = np.array([0, 1, 1])


def _file(path, names):
    rows = {"features": np.eye(3), "labels": LABELS, "logits": np.zeros((3, 2)), "ids": np.arange(3)}
    named = {} if names is None else {"class_names": names}
    head = {"outputs": 2, "features": 3, **named}
    section = Section("env0_out", "training", 3, "north wing")
    write_features(path, {"dtype": "float32"}, head, [section], lambda *_: rows, part_rows=3)
    return path


def _model(names):
    return TrainedModel(nn.Flatten(), nn.Linear(3, 2), colored_digits(), Signature((3,), 2, names), step=0)


@pytest.mark.parametrize(
    ("stored", "known", "expected"),
    [
        (("no", "yes"), ("no", "yes"), LABELS),
        (("yes", "no"), ("no", "yes"), 1 - LABELS),
        # Files and runs of earlier versions have no names.
        (None, ("no", "yes"), LABELS),
        (("yes", "no"), None, LABELS),
    ],
)
def test_features_have_the_numbers_of_the_model(tmp_path, stored, known, expected):
    (domain,) = labelled_domains(_file(tmp_path / "a.h5", stored), _model(known))
    assert torch.equal(domain.labels, torch.from_numpy(expected))
    assert domain.title == "env0_out (north wing)"


def test_features_of_other_classes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"got the class 'maybe', which the run does not know"):
        labelled_domains(_file(tmp_path / "a.h5", ("maybe", "yes")), _model(("no", "yes")))


def test_names_that_do_not_fit_the_classes_are_damage(tmp_path):
    with pytest.raises(InputError, match="head/class_names"):
        labelled_domains(_file(tmp_path / "a.h5", ("no", "yes", "maybe")), _model(("no", "yes")))
