"""Recorded statistics: the finished file and the parts of an unfinished run say the same."""

import numpy as np
import pytest
import torch

from fishr.analysis import load_history
from fishr.data.caches.hdf5 import save_tree
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError

STEPS = (0, 10, 17)


def _moments():
    generator = np.random.default_rng(0)
    return [
        {
            "risks": generator.random(2),
            "accuracies": generator.random(2),
            "mean": generator.random((2, 5), dtype=np.float32),
            "variance": generator.random((2, 5), dtype=np.float32),
            "hessian_diagonal": generator.random((2, 5), dtype=np.float32),
            "weights": generator.random(5, dtype=np.float32),
            "penalties": {"fishr": np.array(generator.random()), "rex": np.array(generator.random())},
            "inconsistency": np.array(generator.random()),
            "variance_distance_scale_free": np.array(generator.random()),
            "hessian_distance_scale_free": np.array(generator.random()),
        }
        for _ in STEPS
    ]


def _stack(moments):
    first = moments[0]
    return {
        key: _stack([moment[key] for moment in moments])
        if isinstance(first[key], dict)
        else np.stack([moment[key] for moment in moments])
        for key in first
    }


def _finish(folder, moments):
    folder.mkdir()
    save_tree(folder / "statistics.h5", "fishr-statistics", {"steps": np.array(STEPS), **_stack(moments)})
    return folder


def _begin(folder, moments):
    folder.mkdir()
    with Parts(folder / "statistics.h5", "fishr-statistics", "key") as parts:
        for step, moment in zip(STEPS, moments, strict=True):
            parts.write(step, moment)
    return folder


def test_what_was_recorded_is_read(tmp_path):
    moments = _moments()
    history = load_history(_finish(tmp_path / "erm", moments))
    assert (history.name, history.finished, history.steps.tolist()) == ("erm", True, list(STEPS))
    for index, moment in enumerate(moments):
        assert history.risks[index].tolist() == moment["risks"].tolist()
        assert history.variance_distance[index] == moment["variance_distance_scale_free"]
        assert history.hessian_distance[index] == moment["hessian_distance_scale_free"]
        assert history.inconsistency[index] == moment["inconsistency"]
        assert {term: curve[index] for term, curve in history.penalties.items()} == moment["penalties"]
        for domain in range(2):
            v, h = (moment[name][domain].astype(float) for name in ("variance", "hessian_diagonal"))
            assert history.cosine[index, domain] == pytest.approx(v @ h / np.sqrt((v @ v) * (h @ h)), rel=1e-12)


def test_an_unfinished_run_gives_what_there_is(tmp_path):
    moments = _moments()
    whole = load_history(_finish(tmp_path / "whole", moments))
    part = load_history(_begin(tmp_path / "part", moments))
    assert (part.name, part.finished) == ("part", False)
    for name in ("steps", "risks", "variance_distance", "hessian_distance", "cosine", "inconsistency"):
        assert torch.equal(getattr(whole, name), getattr(part, name)), name
    assert part.penalties.keys() == whole.penalties.keys()
    assert torch.equal(part.penalties["rex"], whole.penalties["rex"])


def test_nothing_recorded(tmp_path):
    assert load_history(tmp_path) is None


@pytest.mark.parametrize("key", ["variance", "steps", "inconsistency", "penalties"])
def test_a_file_that_lacks_something(tmp_path, key):
    tree = {"steps": np.array(STEPS), **_stack(_moments())}
    del tree[key]
    save_tree(tmp_path / "statistics.h5", "fishr-statistics", tree)
    with pytest.raises(InputError, match=rf"statistics.h5: damaged statistics \(KeyError: '{key}'\); train again"):
        load_history(tmp_path)


def test_a_file_of_another_kind(tmp_path):
    save_tree(tmp_path / "statistics.h5", "fishr-surface", {})
    with pytest.raises(InputError, match="fishr-surface"):
        load_history(tmp_path)


def test_vanished_gradients_have_no_direction(tmp_path):
    """Zero variance has no angle to anything: not a number, rather than a cosine of zero."""
    moments = _moments()
    moments[1]["variance"][0] = 0
    assert load_history(_finish(tmp_path / "run", moments)).cosine.isnan().tolist() == [
        [False, False],
        [True, False],
        [False, False],
    ]
