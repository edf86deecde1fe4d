"""Landscapes of subjects: which weights move, along what, and what a kill leaves."""

from itertools import islice

import pytest
import torch
from analysis.subjects import part
from attrs import evolve
from torch import nn

from fishr.analysis import Network, Snapshot, Subject
from fishr.analysis.landscape_evaluation import evaluate_plan, gathered, is_finished, summary_of, training_inconsistency
from fishr.analysis.landscape_options import Options
from fishr.analysis.landscape_plan import plan_landscape
from fishr.data import Domain
from fishr.data.caches.unfinished import Parts
from fishr.diagnostics import barrier, inconsistency
from fishr.errors import InputError
from fishr.landscape import load_surface
from fishr.landscape.surface_file import KIND
from fishr.losses import CrossEntropy

NAMES, SPLITS = ("photo", "sketch", "art"), ("training", "training", "evaluation")


def _subject(name="mine", head=None, featurizer=None, checkpoints=4):
    """A subject whose kept checkpoints end in its own weights."""
    torch.manual_seed(sum(map(ord, name)))
    network = featurizer or nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    network, head = network.double().eval(), (head or nn.Linear(3, 3)).double().eval()
    inputs = tuple(torch.randn(n, 4, dtype=torch.float64) for n in (7, 5, 4))
    with torch.no_grad():
        domains = tuple(
            Domain(name, network(rows), torch.randint(3, (len(rows),)))
            for name, rows in zip(NAMES, inputs, strict=True)
        )
    both = nn.Sequential()
    both.add_module("featurizer", network)
    both.add_module("head", head)
    last = {name: value.detach().clone() for name, value in both.named_parameters()}
    noise = [{name: torch.randn_like(value) for name, value in last.items()} for _ in range(checkpoints - 1)]
    earlier = [{name: value + 0.5 * drawn[name] for name, value in last.items()} for drawn in noise]
    kept = tuple(Snapshot(10 * i, weights) for i, weights in enumerate([*earlier, last]))
    source = {"path": name, "kind": "run", "key": name, "step": str(10 * (checkpoints - 1))}
    rest = {"network": Network(network, inputs), "trajectory": kept, "source": source}
    return Subject.from_domains(name, head, CrossEntropy(), domains, SPLITS, **rest)


def _made(subject, options, path, second=None):
    plan = plan_landscape(subject, options, second)
    list(evaluate_plan(plan, path))
    return load_surface(path)


def _risks(subject, weights, inputs=None):
    """Of each domain, the weights named as in a training state; the head alone on the subject's features, or all."""
    found = []
    for index, (features, labels) in enumerate(subject.seen.domain_samples):
        head = {name.removeprefix("head."): value for name, value in weights.items() if name.startswith("head.")}
        if inputs is not None:
            rest = {n.removeprefix("featurizer."): v for n, v in weights.items() if n.startswith("featurizer.")}
            features = torch.func.functional_call(subject.network.featurizer, rest, (inputs[index],))
        logits = torch.func.functional_call(subject.seen.head, head, (features,))
        found.append(CrossEntropy()(logits, labels).mean())
    return torch.stack(found).detach()


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["head", "all"])
@pytest.mark.parametrize("kind", ["random", "pca", "checkpoints", "eigen", "gradients", "line"])
def test_every_point_is_the_risk_of_its_weights(tmp_path, kind, parameters):
    subject = _subject()
    surface = _made(
        subject, Options(kind, (5,) if kind == "line" else (5, 4), parameters=parameters), tmp_path / "a.h5"
    )
    assert (surface.domains, surface.splits) == (NAMES, SPLITS)
    prefix, last = ("head." if parameters == "head" else ""), subject.trajectory[-1].parameters
    assert surface.parameters == tuple(name.removeprefix(prefix) for name in last if name.startswith(prefix))
    inputs = subject.network.inputs if parameters == "all" else None
    torch.testing.assert_close(
        surface.scores.losses[(slice(None), *surface.center)].reshape(3, -1)[:, 0], _risks(subject, last, inputs)
    )
    i, j = (0, 1) if surface.plane else (1, 3)
    steps = (float(surface.axes[0][i]), float(surface.axes[1][j])) if surface.plane else (float(surface.axes[0][i]),)
    chosen = surface.directions.vectors if surface.plane else surface.directions.vectors[j : j + 1]
    moved = dict(last)
    for step, vector in zip(steps, chosen, strict=True):
        moved |= {prefix + name: moved[prefix + name] + step * value for name, value in vector.items()}
    torch.testing.assert_close(surface.scores.losses[:, i, j], _risks(subject, moved, inputs))
    expected = "affine logits of the linear head" if parameters == "head" else "torch.func.functional_call"
    assert surface.route == expected


def test_known_points_have_the_risk_of_their_checkpoints(tmp_path):
    """The plane through three checkpoints, read off where the first and the second lie."""
    subject = _subject(checkpoints=5)
    plan = plan_landscape(subject, Options("checkpoints", (3, 3), parameters="all"))
    assert plan.surface.directions.labels == ("step 0", "step 20", "step 40")
    for index, kept in ((0, 0), (1, 2), (2, 4)):
        x, y = plan.surface.directions.points[index].unsqueeze(1)
        found = plan.grids[0](x, y).losses[:, 0, 0]
        torch.testing.assert_close(found, _risks(subject, subject.trajectory[kept].parameters, subject.network.inputs))


def test_weights_that_no_checkpoint_kept_come_last():
    subject = _subject()
    cut = evolve(subject, trajectory=subject.trajectory[:-1])
    directions = plan_landscape(cut, Options("pca", (3, 3))).surface.directions
    assert directions.labels == ("step 0", "step 10", "step 20", "step 30")
    assert directions.labels == plan_landscape(subject, Options("pca", (3, 3))).surface.directions.labels


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["head", "all"])
def test_frames_are_the_same_plane_around_each_checkpoint(tmp_path, parameters):
    """Of a head alone, on the features that the featurizer of that time computed."""
    subject = _subject()
    surface = _made(subject, Options("random", (3, 3), parameters=parameters, animate=True), tmp_path / "a.h5")
    assert surface.frames.steps == (0, 10, 20, 30)
    for sheet, snapshot in zip(surface.frames.scores.losses, subject.trajectory, strict=True):
        torch.testing.assert_close(sheet[:, 1, 1], _risks(subject, snapshot.parameters, subject.network.inputs))
    torch.testing.assert_close(surface.frames.scores.losses[-1], surface.scores.losses)
    assert not torch.allclose(surface.frames.scores.losses[0], surface.scores.losses)


def test_a_long_run_is_a_short_film(monkeypatch):
    monkeypatch.setattr("fishr.analysis.landscape_plan._MOST_FRAMES", 3)
    plan = plan_landscape(_subject(checkpoints=8), Options("random", (3, 3), animate=True))
    assert plan.surface.frames.steps == (0, 40, 70)


def test_an_interpolation_ends_in_the_second_run(tmp_path):
    one, other = _subject("one"), _subject("other")
    surface = _made(one, Options("interpolation", (5,), parameters="all"), tmp_path / "a.h5", other)
    losses = surface.scores.losses[..., 0]
    torch.testing.assert_close(losses[:, 0], _risks(one, one.trajectory[-1].parameters, one.network.inputs))
    torch.testing.assert_close(losses[:, -1], _risks(one, other.trajectory[-1].parameters, one.network.inputs))
    assert summary_of(surface)["barrier"] == barrier(losses).value.tolist()
    assert surface.source["second"] == "other"


def test_running_means_are_interpolated_too(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    one, other = _subject("one", featurizer=build()), _subject("other", featurizer=build())
    other.network.featurizer[1].running_mean.fill_(2.0)
    surface = _made(one, Options("interpolation", (3,), parameters="all"), tmp_path / "a.h5", other)
    with torch.no_grad():
        logits = other.seen.head(other.network.featurizer(one.network.inputs[1]))
    expected = CrossEntropy()(logits, one.seen.domain_samples[1][1]).mean()
    torch.testing.assert_close(surface.scores.losses[1, -1, 0], expected)


def test_heads_on_equal_features_are_interpolated_alone(tmp_path):
    one = _subject("one")
    seen = evolve(one.seen, head=nn.Linear(3, 3).double())
    other = evolve(one, name="other", seen=seen, source=one.source | {"key": "other"})
    surface = _made(one, Options("interpolation", (2,)), tmp_path / "a.h5", other)
    with torch.no_grad():
        expected = CrossEntropy()(other.seen.head(one.seen.domain_samples[2][0]), one.seen.domain_samples[2][1]).mean()
    torch.testing.assert_close(surface.scores.losses[2, -1, 0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "line"])
def test_killed_anywhere_it_ends_as_it_would_have(tmp_path, kind):
    subject = _subject(head=nn.Sequential(nn.Linear(3, 3)))
    plan = plan_landscape(subject, Options(kind, (4,) if kind == "line" else (4, 3), animate=kind == "random"))
    whole = _made(
        subject, Options(kind, (4,) if kind == "line" else (4, 3), animate=kind == "random"), tmp_path / "w.h5"
    )
    path, going = tmp_path / "a.h5", evaluate_plan(plan, tmp_path / "a.h5")
    assert [done for done, _ in islice(going, 3)] == [0, 1, 2]
    going.close()
    assert not path.exists()
    half = gathered(plan, Parts(path, KIND, plan.key)).scores.losses
    evaluated = ~half.isnan()
    assert 0 < evaluated.sum() < half.numel()
    torch.testing.assert_close(half[evaluated], whole.scores.losses[evaluated])
    # It goes on where it was, to the same numbers.
    assert next(evaluate_plan(plan, path))[0] == 2
    list(evaluate_plan(plan, path))
    torch.testing.assert_close(load_surface(path).scores.losses, whole.scores.losses, rtol=0, atol=0)
    assert [file.name for file in tmp_path.iterdir() if "parts" in file.name] == []


def test_what_is_finished_is_not_evaluated_again(tmp_path):
    subject, options = _subject(), Options("random", (3, 3))
    _made(subject, options, tmp_path / "a.h5")
    before = (tmp_path / "a.h5").stat().st_mtime_ns
    plan = plan_landscape(subject, options)
    assert is_finished(tmp_path / "a.h5", plan)
    assert list(evaluate_plan(plan, tmp_path / "a.h5")) == []
    assert (tmp_path / "a.h5").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 1}, {"span": 0.5}, {"grid": (3, 4)}, {"parameters": "all"}])
def test_another_landscape_is_not_overwritten(tmp_path, change):
    subject, options = _subject(), Options("random", (3, 3))
    _made(subject, options, tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(InputError, match="holds another landscape"):
        _made(subject, evolve(options, **change), tmp_path / "a.h5")
    with pytest.raises(InputError, match="holds another landscape"):
        _made(evolve(subject, source=subject.source | {"key": "later"}), options, tmp_path / "a.h5")
    with pytest.raises(InputError, match="holds another landscape"):
        _made(part(subject, (0, 1)), options, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == before


def test_unfinished_parts_of_another_landscape_are_not_mixed_in(tmp_path):
    subject = _subject(head=nn.Sequential(nn.Linear(3, 3)))
    going = evaluate_plan(plan_landscape(subject, Options("random", (3, 3))), tmp_path / "a.h5")
    list(islice(going, 2))
    going.close()
    with pytest.raises(InputError, match="other settings"):
        _made(subject, Options("random", (3, 3), seed=1), tmp_path / "a.h5")


def test_parts_that_a_kill_left_beside_the_file_are_removed(tmp_path):
    subject, options = _subject(head=nn.Sequential(nn.Linear(3, 3))), Options("random", (3, 3))
    plan, path = plan_landscape(subject, options), tmp_path / "a.h5"
    going = evaluate_plan(plan, path)
    list(islice(going, 2))
    going.close()
    (tmp_path / "a.h5.parts").rename(tmp_path / "kept")
    list(evaluate_plan(plan, path))
    (tmp_path / "kept").rename(tmp_path / "a.h5.parts")
    list(evaluate_plan(plan, path))
    assert [file.name for file in tmp_path.iterdir() if "parts" in file.name] == []


def test_a_summary_is_read_off_the_grid(tmp_path):
    surface = _made(_subject(), Options("random", (5, 3), span=3.0), tmp_path / "a.h5")
    losses = surface.scores.losses
    assert summary_of(surface) == {
        "risk": losses[:, 2, 1].tolist(),
        "lowest": losses.amin((1, 2)).tolist(),
        "highest": losses.amax((1, 2)).tolist(),
        "accuracy": surface.scores.accuracies[:, 2, 1].tolist(),
    }
    found = training_inconsistency(surface, 0.3)
    assert found == float(inconsistency(losses[:2], (2, 1), 0.3).value)
    assert found != float(inconsistency(losses, (2, 1), 0.3).value)


def test_a_single_training_domain_is_consistent_with_nothing(tmp_path):
    subject = _subject()
    alone = evolve(part(subject, (1, 2)), network=evolve(subject.network, inputs=subject.network.inputs[1:]))
    assert training_inconsistency(_made(alone, Options("random", (3, 3)), tmp_path / "a.h5"), 0.1) is None


REFUSED = {
    "two runs for a plane": (
        lambda s: (s, Options("random", (3, 3)), s),
        "expected two runs for interpolation",
    ),
    "one run between two": (
        lambda s: (s, Options("interpolation", (3,)), None),
        "got interpolation with 1 runs",
    ),
    "no network": (
        lambda s: (evolve(s, network=None), Options("random", (3, 3), parameters="all"), None),
        "has features only",
    ),
    "unknown domain": (lambda s: (s, Options("eigen", (3, 3), of=("cartoon",)), None), "got domain 'cartoon'"),
    "two eigen domains": (
        lambda s: (s, Options("eigen", (3, 3), of=("photo", "art")), None),
        "got 2, expected one",
    ),
    "one gradient": (lambda s: (s, Options("gradients", (3, 3), of=("photo",)), None), "two for gradients"),
    "domain of a random plane": (lambda s: (s, Options("random", (3, 3), of=("photo",)), None), "got 1"),
    "film of a line": (lambda s: (s, Options("line", (3,), animate=True), None), "animate: got line"),
    "film of nothing": (
        lambda s: (evolve(s, trajectory=()), Options("random", (3, 3), animate=True), None),
        "train with --keep-checkpoints",
    ),
    "walk of nothing": (
        lambda s: (evolve(s, trajectory=()), Options("pca", (3, 3)), None),
        "got 1 checkpoints",
    ),
    "plane of two": (
        lambda s: (evolve(s, trajectory=s.trajectory[-2:]), Options("checkpoints", (3, 3)), None),
        "kept 2 checkpoints, expected at least 3",
    ),
    "other features": (
        lambda s: (s, Options("interpolation", (3,)), _subject("other")),
        "the features of domain 'photo' differ between mine and other",
    ),
    "other architecture": (
        lambda s: (s, Options("interpolation", (3,), parameters="all"), _subject("other", nn.Linear(3, 2))),
        "parameter head.weight: got shapes",
    ),
    "gradients of one domain": (
        lambda s: (part(s, (0,)), Options("gradients", (3, 3)), None),
        "got 1 domain, expected two",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    build, part = REFUSED[name]
    subject = _subject()
    with pytest.raises(InputError, match=part) as refusal:
        plan_landscape(*build(subject))
    assert "\n" not in str(refusal.value)


def test_a_film_of_a_head_behind_running_means_is_refused():
    subject = _subject(featurizer=nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    with pytest.raises(InputError, match="animate all parameters"):
        plan_landscape(subject, Options("random", (3, 3), animate=True))
    assert plan_landscape(subject, Options("random", (3, 3), parameters="all", animate=True)).surface.frames
