"""A cache is the run it was made of, but for its network."""

import pytest
import torch

from fishr.analysis import open_subject
from fishr.analysis.cache_writing import cache_features, cache_gradients, featured_experiment
from fishr.data.caches.hdf5 import save_tree
from fishr.errors import InputError


@pytest.fixture(scope="session")
def featured(run_folder, experiment):
    return featured_experiment(experiment, run_folder)


@pytest.fixture(scope="session", params=["features", "gradients"])
def cache(request, tmp_path_factory, featured):
    path = tmp_path_factory.mktemp("caches") / f"my-{request.param}.h5"
    {"features": cache_features, "gradients": cache_gradients}[request.param](featured, path)
    return path


@pytest.mark.slow
def test_the_run_and_its_cache_are_the_same(cache, run_folder):
    one, other = open_subject(run_folder), open_subject(cache)
    assert (other.name, other.source["kind"], other.source["step"]) == (cache.stem, cache.stem[3:], "5")
    assert other.source["path"] == str(cache)
    assert (other.network, other.trajectory) == (None, ())
    assert other.splits == one.splits
    assert other.seen.loss == one.seen.loss
    assert (other.domains, other.seen.sizes) == (one.domains, one.seen.sizes)
    assert torch.equal(one.seen.features, other.seen.features)
    assert torch.equal(one.seen.labels, other.seen.labels)
    weights = other.seen.head.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in one.seen.head.state_dict().items())
    assert not other.seen.head.training
    assert all(parameter.requires_grad for parameter in other.seen.head.parameters())


@pytest.mark.slow
def test_some_domains(cache):
    some = open_subject(cache, domains=("gray", "flip 0.1"))
    assert some.domains == ("flip 0.1", "gray")
    assert some.splits == ("training", "evaluation")
    assert torch.equal(some.seen.domain_samples[1][0], open_subject(cache).seen.domain_samples[3][0])
    with pytest.raises(InputError, match=r"got domain 'grey', expected some of: flip 0.2, flip 0.1, reversed, gray"):
        open_subject(cache, domains=("grey",))


@pytest.mark.slow
def test_half_precision_is_widened(featured, tmp_path, run_folder):
    cache_features(featured, tmp_path / "half.h5", "float16")
    one, other = open_subject(run_folder).seen.features, open_subject(tmp_path / "half.h5").seen.features
    assert other.dtype == torch.float32
    assert torch.equal(one.half().float(), other)


@pytest.mark.slow
def test_gradients_without_features(featured, tmp_path):
    cache_gradients(featured, tmp_path / "wide.h5", per_sample=True)
    with pytest.raises(InputError, match=r"wide.h5: got gradients as per-sample, without the features they are of, ex"):
        open_subject(tmp_path / "wide.h5")


def test_another_kind_of_file(tmp_path):
    save_tree(tmp_path / "a.h5", "fishr-surface", {})
    with pytest.raises(InputError, match=r"a.h5: got a file of kind fishr-surface, expected a run or a cache of"):
        open_subject(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("notes")
    with pytest.raises(InputError, match=r"b.h5"):
        open_subject(tmp_path / "b.h5")
