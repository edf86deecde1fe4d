"""What is opened is what was trained: features, labels, weights and kept checkpoints."""

import re
import shutil

import pytest
import torch

from fishr.analysis import Subject, open_subject
from fishr.configuration import dumps
from fishr.data import Domain
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.training import load, score_checkpoint


def test_a_run_gives_the_numbers_of_evaluate(run_folder, experiment):
    subject = open_subject(run_folder)
    step, scores = score_checkpoint(experiment, run_folder)
    assert list(zip(subject.domains, subject.splits, subject.seen.sizes, strict=True)) == [
        (score.name, score.split, score.samples) for score in scores
    ]
    for (features, labels), score in zip(subject.seen.domain_samples, scores, strict=True):
        logits = subject.seen.head(features)
        loss = subject.seen.loss(logits, labels).mean().item()
        accuracy = (subject.seen.loss.predictions(logits) == labels).double().mean().item()
        assert loss == pytest.approx(score.loss, rel=1e-6)
        assert accuracy == pytest.approx(score.accuracy)
    assert (subject.name, subject.source["kind"], subject.source["step"]) == ("short", "run", str(step))
    assert subject.source["path"] == str(run_folder)


def test_the_network_gives_the_features(run_folder):
    subject = open_subject(run_folder)
    assert len(subject.network.inputs) == len(subject.domains)
    for inputs, (features, _) in zip(subject.network.inputs, subject.seen.domain_samples, strict=True):
        torch.testing.assert_close(subject.network.featurizer(inputs), features)
        assert not features.requires_grad
    modules = [*subject.network.featurizer.modules(), *subject.seen.head.modules()]
    assert not any(module.training for module in modules)
    assert all(parameter.requires_grad for parameter in subject.seen.head.parameters())


def test_kept_checkpoints_are_the_trajectory(run_folder):
    subject = open_subject(run_folder)
    assert [snapshot.step for snapshot in subject.trajectory] == [0, 2, 4, 5]
    last = load(run_folder / "checkpoint.pt").state.parameters
    found = subject.trajectory[-1].parameters
    assert found.keys() == last.keys()
    assert all(torch.equal(found[name], last[name]) for name in last)
    assert torch.equal(found["head.weight"], subject.seen.head.weight)
    assert not torch.equal(subject.trajectory[0].parameters["head.weight"], found["head.weight"])


def test_some_domains_in_their_own_order(run_folder):
    everything = open_subject(run_folder)
    some = open_subject(run_folder, domains=("gray", "flip 0.1"))
    assert some.domains == ("flip 0.1", "gray")
    assert some.splits == ("training", "evaluation")
    assert torch.equal(some.seen.domain_samples[0][0], everything.seen.domain_samples[1][0])
    assert torch.equal(some.seen.domain_samples[1][1], everything.seen.domain_samples[3][1])
    assert torch.equal(some.network.inputs[1], everything.network.inputs[3])


@pytest.mark.slow
def test_another_checkpoint_is_another_key(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    assert open_subject(folder).source["key"] == open_subject(run_folder).source["key"]
    shutil.copyfile(folder / "checkpoints" / "000002.pt", folder / "checkpoint.pt")
    assert open_subject(folder).source["key"] != open_subject(run_folder).source["key"]


def _without_checkpoint(folder):
    (folder / "checkpoint.pt").unlink()


def _others_checkpoint(folder):
    (folder / "checkpoints" / "000002.pt").write_bytes(b"PK")


def _others_configuration(folder):
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("seed = 3", "seed = 4"))
    shutil.rmtree(folder / "checkpoints")


def _others_kept(folder):
    kept = torch.load(folder / "checkpoints" / "000002.pt", weights_only=True)
    torch.save(kept | {"experiment_text": "seed = 4"}, folder / "checkpoints" / "000002.pt")


def _no_run(folder):
    (folder / "config.toml").unlink()


REFUSED = {
    "no checkpoint": (_without_checkpoint, {}, "no checkpoint.pt, though its run has ended"),
    "damaged trajectory": (_others_checkpoint, {}, "000002.pt: not a readable checkpoint"),
    "other weights": (_others_configuration, {}, "checkpoint.pt: was made with another configuration"),
    "other weights on the way": (_others_kept, {}, "000002.pt: was made with another configuration"),
    "no run": (_no_run, {}, "not a run folder, it has no config.toml"),
    "unknown domain": (None, {"domains": ("grey",)}, "got domain 'grey', expected some of: flip 0.2, flip 0.1, rev"),
    "no domain": (None, {"domains": ()}, "got no domain, expected some of: flip 0.2"),
    "no device": (None, {"device": "tpu"}, "device: got 'tpu'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, run_folder, tmp_path):
    change, options, message = REFUSED[name]
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    if change:
        change(folder)
    with pytest.raises(InputError, match=re.escape(message)) as refusal:
        open_subject(folder, **options)
    assert "\n" not in str(refusal.value)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such run or file; give a run folder or a cache"):
        open_subject(tmp_path / "nowhere")


def test_a_plugin_must_be_named(run_folder, tmp_path, monkeypatch, experiment):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    (tmp_path / "my_penalty.py").write_text("def mine(seen):\n    return seen.losses.mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = dumps(experiment)
    kind = 'kind = "Fishr"'
    assert kind in text
    head, tail = text.split("[objective.penalty.fishr.penalty]")
    rest = tail[tail.index("[", 2) :] if "[" in tail[2:] else ""
    (folder / "config.toml").write_text(f'{head}[objective.penalty.fishr.penalty]\nkind = "my_penalty:mine"\n\n{rest}')
    with pytest.raises(InputError, match="a file alone never runs code"):
        open_subject(folder)
    with pytest.raises(InputError, match="another configuration"):
        # The plugin is read; the checkpoint, which is of another experiment, is what is wrong now.
        open_subject(folder, plugins=("my_penalty",))


def test_a_subject_has_a_split_a_domain():
    domain = Domain("photo", torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(InputError, match="mine: got 2 splits for 1 domains"):
        Subject.from_domains("mine", torch.nn.Linear(3, 2), CrossEntropy(), (domain,), ("training", "training"))
    with pytest.raises(InputError, match="mine: got no domain"):
        Subject.from_domains("mine", torch.nn.Linear(3, 2), CrossEntropy(), (), ())
