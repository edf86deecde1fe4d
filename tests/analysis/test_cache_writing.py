"""Caches of a run are what its network computes; caches of gradients are what its head's gradients are."""

import attrs
import numpy as np
import pytest
import torch
from cases import oracle_gradients

from fishr.analysis.cache_writing import cache_features, cache_gradients, featured_cache, featured_experiment, head_of
from fishr.configuration import dumps
from fishr.data import ColoredDigits
from fishr.data.caches import open_features, open_gradients
from fishr.errors import InputError
from fishr.models.heads import LinearHead, MLPHead
from fishr.training import Compute, score_checkpoint

HEADS = {"linear": LinearHead(), "two layers": MLPHead(widths=(5,))}


@pytest.fixture(params=HEADS)
def small(request, experiment):
    """Less data than the run's; a head of either kind; a minibatch of steps is not needed."""
    data = ColoredDigits(training_images=70)
    return attrs.evolve(experiment, data=data, head=HEADS[request.param], seed=5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.h5"


def _network(experiment, folder, tmp_path):
    """Features and logits of each domain by plain modules, with the weights of a run's checkpoint."""
    from fishr.training.model import build_model

    data = experiment.data(experiment.seed, None)
    model = build_model(experiment, data)
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["parameters"]
    model.both().load_state_dict(weights)
    for domain in (*data.training, *data.evaluation):
        with torch.no_grad():
            features = model.featurizer.eval()(domain.inputs)
            yield domain, features, model.head.eval()(features)


@pytest.mark.slow
def test_features_of_a_run_are_its_networks(run_folder, experiment, path):
    assert cache_features(featured_experiment(experiment, run_folder), path)
    cache = open_features(path)
    assert [section.split for section in cache.sections] == ["training"] * 2 + ["evaluation"] * 2
    for index, (domain, features, logits) in enumerate(_network(experiment, run_folder, path.parent)):
        found = cache.domain(index)
        assert cache.sections[index].name == domain.name
        torch.testing.assert_close(torch.from_numpy(found["features"]), features, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(found["logits"]), logits, atol=1e-6, rtol=1e-5)
        assert np.array_equal(found["labels"], domain.labels)
        assert np.array_equal(found["ids"], np.arange(len(domain.labels)))
    assert cache.provenance["step"] == experiment.steps
    assert cache.provenance["experiment"] == (run_folder / "config.toml").read_text()


@pytest.mark.slow
def test_the_head_of_a_cache_scores_as_the_run_does(run_folder, experiment, path):
    cache_features(featured_experiment(experiment, run_folder), path)
    cache = open_features(path)
    head, loss = head_of(cache)
    _, scores = score_checkpoint(experiment, run_folder)
    for index, score in enumerate(scores):
        rows = cache.domain(index)
        logits, labels = head(torch.from_numpy(rows["features"])).detach(), torch.from_numpy(rows["labels"])
        assert float(loss(logits, labels).mean()) == pytest.approx(score.loss, rel=1e-5)
        assert float((loss.predictions(logits) == labels).float().mean()) == pytest.approx(score.accuracy)


@pytest.mark.slow
def test_neither_chunks_nor_parts_change_a_bit(run_folder, experiment, path, monkeypatch):
    experiment = attrs.evolve(experiment, data=ColoredDigits(training_images=100))
    cache_features(featured_experiment(experiment, run_folder), path)
    whole = open_features(path)
    # The smallest parts there are.
    monkeypatch.setattr("fishr.data.caches.domain_writing.PART_BYTES", 1)
    other = path.with_name("other.h5")
    cache_features(featured_experiment(experiment, run_folder, chunk=7), other)
    for index in range(4):
        one, two = whole.domain(index), open_features(other).domain(index)
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert open_features(other).key == whole.key


@pytest.mark.slow
def test_a_recipe_has_the_first_weights_of_its_seed(small, path):
    cache_features(featured_experiment(small), path)
    cache = open_features(path)
    from fishr.training.model import build_model

    model = build_model(small, small.data(small.seed, None))
    assert {n: p.shape for n, p in model.head.named_parameters()} == {
        n: p.shape for n, p in head_of(cache)[0].named_parameters()
    }
    for name, parameter in model.head.named_parameters():
        assert np.array_equal(cache.head["parameters"][name], parameter.detach())
    assert (cache.provenance["step"], cache.provenance["experiment"]) == (0, dumps(small))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 6}, "seed = 5, expected 6"),
        ({"data": ColoredDigits(training_images=71)}, "data.training_images = 70, expected 71"),
        ({"featurizer": "wider"}, r"featurizer.featurizer.widths = \[7, 6\], expected \[7, 8\]"),
        ({"steps": 9}, "experiment.steps = 5, expected 9"),
        ({"compute": Compute(precision="bf16")}, "featurizer.precision = fp32, expected bf16"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_its_field(experiment, path, change, field):
    from fishr.models.featurizers import MLP

    base = attrs.evolve(experiment, data=ColoredDigits(training_images=70), seed=5)
    cache_features(featured_experiment(base), path)
    before = path.read_bytes()
    change = {"featurizer": MLP(widths=(7, 8))} if "featurizer" in change else change
    with pytest.raises(InputError, match=field):
        cache_features(featured_experiment(attrs.evolve(base, **change)), path)
    assert path.read_bytes() == before


def test_other_weights_are_refused_by_their_hash(experiment, run_folder, path):
    cache_features(featured_experiment(experiment, run_folder), path)
    with pytest.raises(InputError, match=r"weights_sha256 = [0-9a-f]{12}…, expected [0-9a-f]{12}…"):
        cache_features(featured_experiment(experiment), path)


def test_other_data_through_the_weights_of_a_run(experiment, run_folder, path):
    other = attrs.evolve(experiment, data=ColoredDigits(training_images=70))
    cache_features(featured_experiment(other, run_folder, domains=("gray",)), path)
    cache = open_features(path)
    assert "training_images = 70" in cache.provenance["data"]
    assert cache.provenance["experiment"] == dumps(other)
    assert [section.name for section in cache.sections] == ["gray"]


def test_a_domain_that_is_not_there(experiment):
    with pytest.raises(InputError, match=r"got 'grey', expected one of 'flip 0\.2', 'flip 0\.1', 'reversed', 'gray'"):
        featured_experiment(experiment, domains=("grey",))


@pytest.mark.slow
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("of", ["run", "file"])
def test_gradients_are_those_of_one_sample_after_the_other(small, path, tmp_path, per_sample, of, monkeypatch):
    featured = featured_experiment(small, domains=("flip 0.2", "flip 0.1"))
    if of == "file":
        cache_features(featured, tmp_path / "features.h5")
        featured = featured_cache(tmp_path / "features.h5")
    # Several parts, and several passes within each.
    monkeypatch.setattr("fishr.analysis.cache_writing._MOMENT_ROWS", 20)
    monkeypatch.setattr("fishr.analysis.cache_writing._GRADIENT_BYTES", 4000)
    monkeypatch.setattr("fishr.data.caches.domain_writing.PART_BYTES", 1)
    assert cache_gradients(featured, path, per_sample)
    assert not cache_gradients(featured, path, per_sample)
    cache = open_gradients(path)
    linear = isinstance(small.head, LinearHead)
    assert cache.form == ("per-sample" if per_sample else "factors" if linear else "moments")
    found = cache.moments()
    assert found.count == tuple(section.rows for section in featured.sections)
    for index, section in enumerate(featured.sections):
        rows = featured.rows(index, 0, section.rows)
        z, y = torch.from_numpy(rows["features"]).double(), torch.from_numpy(rows["labels"])
        gradients = oracle_gradients(featured.head.double(), z, y, featured.loss).detach()
        featured.head.float()
        torch.testing.assert_close(found.mean[index], gradients.mean(0), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found.variance[index], gradients.var(0, correction=0), atol=1e-6, rtol=1e-4)
        if per_sample:
            kept = torch.from_numpy(cache.domain(index)["gradients"])
            torch.testing.assert_close(kept.double(), gradients, atol=1e-5, rtol=1e-4)
            assert np.array_equal(cache.domain(index)["labels"], rows["labels"])


@pytest.mark.slow
def test_factors_from_a_run_and_from_its_features_are_one_file(run_folder, experiment, path, tmp_path):
    cache_features(featured_experiment(experiment, run_folder), tmp_path / "features.h5")
    cache_gradients(featured_experiment(experiment, run_folder), path)
    before = open_gradients(path)
    assert not cache_gradients(featured_cache(tmp_path / "features.h5"), path)
    other = tmp_path / "other.h5"
    cache_gradients(featured_cache(tmp_path / "features.h5"), other)
    for index in range(4):
        one, two = before.domain(index), open_gradients(other).domain(index)
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.mark.slow
def test_another_form_at_the_same_place_is_refused(experiment, path):
    featured = featured_experiment(attrs.evolve(experiment, data=ColoredDigits(training_images=70)))
    cache_gradients(featured, path)
    with pytest.raises(InputError, match="made with form = factors, expected per-sample"):
        cache_gradients(featured, path, per_sample=True)


@pytest.mark.slow
def test_parameters_that_are_not_the_heads_are_refused(small, path):
    cache_features(featured_experiment(small), path)
    cache = open_features(path)
    del cache.head["parameters"][next(iter(cache.head["parameters"]))]
    with pytest.raises(InputError, match="the head's parameters are not those of"):
        head_of(cache)
