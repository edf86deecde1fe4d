"""Means of runs: against sums by hand, the greedy search against a slow one, and what is refused."""

import json
from statistics import fmean

import attrs
import pytest
import torch
from torch.testing import assert_close

from fishr.averages import EMA
from fishr.configuration import dumps
from fishr.data import Domain, Environments, HeldOut, Minibatch
from fishr.errors import InputError
from fishr.inference import (
    Bootstrap,
    export_model,
    greedy_soup,
    load_model,
    score_run,
    uniform_soup,
    wise_ft,
    write_average,
)
from fishr.inference.averaging import Averaged
from fishr.losses import CrossEntropy
from fishr.models import MLP, LinearHead, MLPHead
from fishr.protocols import colored_digits
from fishr.training import Adam, Artifacts, Frozen, evaluate, run, train
from fishr.training.evaluation import open_run
from fishr.training.model import build_model
from fishr.training.state import initial_state

SHIFTS = {"one": 0.0, "two": 0.5, "test": 1.5}


def source(seed, data_dir):
    generator = torch.Generator().manual_seed(0)

    def domain(name, shift):
        labels = torch.randint(3, (80,), generator=generator)
        inputs = torch.randn(80, 4, generator=generator) + shift
        inputs[torch.arange(80), labels] += 1.5
        return Domain(name, inputs, labels)

    return Environments(tuple(domain(*one) for one in SHIFTS.items()), classes=3)


def experiment(**changes):
    parts = {
        "data": HeldOut(source, test=(2,), holdout_fraction=0.4, data_seed=0),
        "featurizer": MLP((5,)),
        "head": LinearHead(),
        "loss": CrossEntropy(),
        "batches": Minibatch(8),
        "optimizer": Adam(lr=0.02),
    }
    return attrs.evolve(colored_digits("erm"), steps=12, evaluate_every=12, **parts | changes)


def made(folder, **changes):
    found = experiment(**changes)
    list(run(found, folder, experiment_text=dumps(found)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five runs that began at the same weights, and learned at different rates."""
    folder = tmp_path_factory.mktemp("runs")
    rates = {"slow": 1e-4, "middle": 0.04, "fast": 0.05, "faster": 0.06, "wild": 3.0}
    return [made(folder / name, optimizer=Adam(lr=lr)) for name, lr in rates.items()]


def weights_of(folder):
    tree = torch.load(folder / "checkpoint.pt", weights_only=True)
    return tree["parameters"] | tree["buffers"]


OWN = (__name__,)


def test_a_uniform_soup_is_the_mean_of_all(runs, tmp_path):
    soup = uniform_soup(runs, OWN)
    parts = [weights_of(folder) for folder in runs]
    for name, value in soup.weights.items():
        assert_close(value, torch.stack([part[name] for part in parts]).mean(0))
    assert [one.share for one in soup.ingredients] == [0.2] * 5
    write_average(soup, tmp_path / "soup")
    assert sorted(path.name for path in (tmp_path / "soup").iterdir()) == [
        "average.json",
        "checkpoint.pt",
        "config.toml",
    ]
    listed = json.loads((tmp_path / "soup" / "average.json").read_text())
    assert listed["form"] == "uniform soup"
    assert [one["run"] for one in listed["runs"]] == [str(folder) for folder in runs]
    assert all(len(one["sha256"]) == 64 for one in listed["runs"])


@pytest.mark.slow
def test_the_folder_is_used_like_a_runs(runs, tmp_path):
    soup = uniform_soup(runs[:3], OWN)
    write_average(soup, tmp_path / "soup")
    model = load_model(tmp_path / "soup", plugins=OWN)
    for name, value in model.state_dict().items():
        assert torch.equal(value, soup.weights[name])
    step, results = score_run(experiment(), tmp_path / "soup", plugins=OWN, bootstrap=Bootstrap(0))
    plain, _, domains = open_run(experiment(), runs[0], None, torch.device("cpu"))
    state = attrs.evolve(initial_state(experiment(), domains), parameters=soup.weights)
    assert (step, tuple(one.score for one in results)) == (12, evaluate(plain, experiment(), state, domains))
    export_model(model, tmp_path / "soup", tmp_path / "soup.safetensors")
    card = (tmp_path / "soup.md").read_text()
    assert "The weights are a uniform soup of 3 runs: " in card
    assert "\nimport fishr\nnetwork = fishr.load_model(RUN)\n" in card
    start = next(train(experiment(featurizer=Frozen(MLP((5,)), str(tmp_path / "soup")))))
    assert torch.equal(start.state.parameters["featurizer.inner.1.weight"], soup.weights["featurizer.1.weight"])


def accuracy(weights):
    own = experiment()
    domains = own.data(own.seed, None)
    model = build_model(own, domains)
    state = attrs.evolve(initial_state(own, domains), parameters=weights)
    scores = evaluate(model, own, state, domains)
    return fmean(score.accuracy for score in scores if score.name in ("env0_out", "env1_out"))


def test_a_greedy_soup_is_that_of_a_slow_search(runs):
    def mean(chosen):
        return {name: torch.stack([weights_of(f)[name] for f in chosen]).mean(0) for name in weights_of(runs[0])}

    alone = {folder: accuracy(weights_of(folder)) for folder in runs}
    order = sorted(runs, key=lambda folder: -alone[folder])
    chosen = [order[0]]
    for folder in order[1:]:
        if accuracy(mean([*chosen, folder])) >= accuracy(mean(chosen)):
            chosen.append(folder)
    assert 1 < len(chosen) < 5, alone
    counted = []
    soup = greedy_soup(runs, plugins=OWN, progress=counted.append)
    assert sum(counted) == 9
    assert [one.run for one in soup.ingredients] == order
    assert [one.validation for one in soup.ingredients] == [alone[folder] for folder in order]
    assert [one.run for one in soup.ingredients if one.share] == chosen
    for name, value in mean(chosen).items():
        assert_close(soup.weights[name], value)
    assert accuracy(soup.weights) >= max(alone.values())
    assert soup.first.run == order[0]


@pytest.mark.parametrize("kept", [False, True])
def test_wise_ft_is_between_first_and_last_weights(kept, tmp_path):
    own = experiment()
    list(run(own, tmp_path / "run", experiment_text=dumps(own), keep=Artifacts(checkpoints=kept)))
    first = initial_state(own, own.data(own.seed, None)).parameters
    last = weights_of(tmp_path / "run")
    for alpha in (0.0, 0.3, 1.0):
        found = wise_ft(tmp_path / "run", alpha, plugins=OWN)
        for name, value in found.weights.items():
            assert_close(value, (1 - alpha) * first[name] + alpha * last[name])
        assert [(one.weights, one.share) for one in found.ingredients] == [("first", 1 - alpha), ("last", alpha)]


def test_wise_ft_of_two_runs_is_between_their_last_weights(runs):
    found = wise_ft(runs[2], 0.25, runs[0], OWN)
    first, last = weights_of(runs[0]), weights_of(runs[2])
    for name, value in found.weights.items():
        assert_close(value, 0.75 * first[name] + 0.25 * last[name])
    assert [one.run for one in found.ingredients] == [runs[0], runs[2]]


def test_averages_of_runs_are_averaged(runs, tmp_path):
    averaging = made(tmp_path / "run", average=EMA(decay=0.5))
    tree = torch.load(averaging / "checkpoint.pt", weights_only=True)
    soup = uniform_soup([averaging, runs[1]], OWN)
    expected = (tree["averaged"]["head.bias"] + weights_of(runs[1])["head.bias"]) / 2
    assert_close(soup.weights["head.bias"], expected)
    write_average(soup, tmp_path / "soup")
    assert "average" not in torch.load(tmp_path / "soup" / "checkpoint.pt", weights_only=True)
    assert torch.equal(load_model(tmp_path / "soup", plugins=OWN).head.bias, soup.weights["head.bias"])


def test_linear_heads_may_begin_anywhere(tmp_path):
    frozen = Frozen(MLP((5,)), None)
    one = made(tmp_path / "one")
    base = Frozen(MLP((5,)), str(one))
    heads = [made(tmp_path / f"head {seed}", featurizer=base, seed=seed) for seed in (1, 2)]
    soup = uniform_soup(heads, OWN)
    assert_close(soup.weights["head.bias"], (weights_of(heads[0])["head.bias"] + weights_of(heads[1])["head.bias"]) / 2)
    other = made(tmp_path / "other", featurizer=frozen, seed=1)
    with pytest.raises(InputError, match=r"other: its network began at other weights than that of .*first"):
        uniform_soup([made(tmp_path / "first", featurizer=frozen), other], OWN)


@pytest.mark.parametrize(("changes", "message"), [
    ({"featurizer": MLP((6,))}, r"other: featurizer.1.weight has shape \(6, 4\), in .*slow \(5, 4\); average"),
    ({"head": MLPHead((3,))}, r"other: head.weight has shape none, in .*slow \(3, 5\)"),
    ({"seed": 7}, r"other: its network began at other weights than that of .*slow \(featurizer.1.weight\)"),
    ({"data": HeldOut(source, test=(2,), holdout_fraction=0.4, data_seed=0, trial_seed=1)}, None),
])  # fmt: skip
def test_runs_that_have_no_mean_are_refused(runs, tmp_path, changes, message):
    other = made(tmp_path / "other", **changes)
    if message is not None:
        with pytest.raises(InputError, match=message):
            uniform_soup([runs[0], other], OWN)
        return
    assert uniform_soup([runs[0], other], OWN)
    with pytest.raises(InputError, match=r"other: other samples are held out than in .*slow \(env0_out"):
        greedy_soup([runs[0], other], plugins=OWN)


def test_images_of_another_split_are_refused(photos, experiment_of, train_in, tmp_path):
    plain = experiment_of(steps=1)
    runs = [train_in(plain, tmp_path / "one", photos)]
    runs += [train_in(attrs.evolve(plain, optimizer=Adam(lr=0.1)), tmp_path / "two", photos)]
    assert [one.share for one in greedy_soup(runs, photos).ingredients if one.share]
    split = attrs.evolve(plain, data=attrs.evolve(plain.data, trial_seed=1))
    runs += [train_in(split, tmp_path / "three", photos)]
    with pytest.raises(InputError, match=r"three: other samples are held out than in .*one \(env1_out"):
        greedy_soup(runs, photos)


def test_what_selects_nothing_is_refused(runs, tmp_path):
    plain = attrs.evolve(colored_digits("erm"), steps=1)
    for name in ("one", "two"):
        list(run(plain, tmp_path / name, experiment_text=dumps(plain)))
    pair = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(InputError, match="have no held-out part of a training environment"):
        greedy_soup(pair)
    with pytest.raises(InputError, match="got one twice"):
        uniform_soup([pair[0], pair[0]])
    with pytest.raises(InputError, match=r"two: its weights|nothing: not a run folder"):
        uniform_soup([pair[0], tmp_path / "nothing"])
    with pytest.raises(InputError, match="exists already; choose another name"):
        write_average(uniform_soup(pair), pair[0])


def test_first_weights_that_are_gone_are_not_compared(runs, tmp_path):
    base = made(tmp_path / "base")
    heads = [made(tmp_path / f"head {seed}", featurizer=Frozen(MLP((5,)), str(base)), seed=seed) for seed in (1, 2)]
    base.rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match=r"head 1: its first weights are not compared .*no such run folder"):
        soup = uniform_soup(heads, OWN)
    assert isinstance(soup, Averaged)
    with pytest.raises(InputError, match="no such run folder"):
        wise_ft(heads[0], 0.5, plugins=OWN)


def test_a_mean_does_not_train_on(runs, tmp_path):
    write_average(uniform_soup(runs[:2], OWN), tmp_path / "soup")
    text = (tmp_path / "soup" / "config.toml").read_text()
    with pytest.raises(InputError, match="has the mean weights of several runs, which cannot train on"):
        next(run(experiment(), tmp_path / "soup", experiment_text=text, resume=True))
