"""Models of run folders, without data and without published weights."""

import importlib
import shutil

import attrs
import numpy as np
import pytest
import torch
from torch import nn

import fishr
from fishr.configuration import dumps
from fishr.data import Arrays
from fishr.data.reading import tensor_of
from fishr.errors import InputError
from fishr.inference import export_model, load_model
from fishr.losses import BinaryCrossEntropy, SquaredError
from fishr.models import MLP, FeatureDropout, MLPHead, ResNet, TimmBackbone, WideResNet
from fishr.protocols import colored_digits
from fishr.training import Compute, Frozen, score_checkpoint


def logits_of_run(experiment, folder, data):
    """The logits that evaluation computes, with the data at hand."""
    from fishr.training.evaluation import open_run
    from fishr.training.model import evaluating, place

    model, state, domains = open_run(experiment, folder, data, torch.device("cpu"))
    place(model, state.parameters, state.buffers)
    inputs = tensor_of(domains.evaluation[0].inputs)[:5]
    with torch.no_grad(), evaluating(model):
        return inputs, model.head(model.featurizer(inputs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"featurizer": MLP(widths=(6,)), "head": MLPHead(widths=(5,))},
        {"featurizer": WideResNet(depth=10, width=1)},
        {"featurizer": ResNet(depth=18, weights="random")},
        {"featurizer": TimmBackbone("test_resnet", pretrained=False, dropout=0.1)},
        {"featurizer": Frozen(TimmBackbone("test_vit", pretrained=False))},
        {"compute": Compute(channels_last=True)},
    ],
    ids=lambda change: type(change.get("featurizer", change.get("compute"))).__name__,
)
def test_logits_are_those_of_evaluation(experiment_of, train_in, photos, tmp_path, change):
    experiment = experiment_of(**change)
    folder = train_in(experiment, tmp_path / "run", photos)
    inputs, expected = logits_of_run(experiment, folder, photos)
    model = load_model(folder)
    assert torch.equal(model(inputs), expected)
    assert not any(module.training for module in model.modules() if not isinstance(module, nn.BatchNorm2d))
    assert (model.shape, model.classes, model.class_names) == ((3, 32, 32), 3, ("cat", "dog", "elk"))
    assert model.preprocessing.size == 32
    assert (model.step, model.experiment) == (2, experiment)


def test_it_is_exported_by_the_package(photo_run):
    assert fishr.load_model is load_model


def test_one_output_tells_two_classes_apart(train_in, tmp_path):
    experiment = attrs.evolve(colored_digits(), steps=2)
    folder = train_in(experiment, tmp_path / "run")
    inputs, logits = logits_of_run(experiment, folder, None)
    model = load_model(str(folder))
    probabilities = model.probabilities(inputs)
    assert (model.shape, model.classes, model.class_names, model.preprocessing) == ((2, 8, 8), 2, None, None)
    assert torch.equal(model(inputs), logits)
    torch.testing.assert_close(probabilities[:, 1:], logits.sigmoid())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    assert model.label(1) == "1"


def test_probabilities_are_the_softmax(photo_run):
    model = load_model(photo_run)
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.probabilities(inputs), model(inputs).softmax(1))
    assert [model.label(index) for index in range(3)] == ["cat", "dog", "elk"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ResNet", "TimmBackbone", "Frozen"])
def test_files_of_first_weights_may_be_gone(experiment_of, train_in, photos, tmp_path, kind):
    bare = TimmBackbone("test_resnet", pretrained=False)
    network = ResNet(depth=18, weights="random") if kind == "ResNet" else bare
    module = network((3, 32, 32), torch.Generator().manual_seed(1))
    file = tmp_path / "first.pth"
    torch.save(module.state_dict() if kind == "ResNet" else module[0].state_dict(), file)
    given = attrs.evolve(network, weights=str(file), **({} if kind == "ResNet" else {"pretrained": True}))
    if kind == "Frozen":
        source = train_in(experiment_of(bare), tmp_path / "source", photos)
        given = Frozen(bare, weights=str(source))
    folder = train_in(experiment_of(given), tmp_path / "run", photos)
    before = load_model(folder)
    file.unlink()
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    inputs = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_model(folder)(inputs), before(inputs))


def test_the_model_of_a_killed_run_is_its_last_checkpoints(experiment_of, photos, tmp_path):
    from fishr.training import Stepped, run

    experiment = experiment_of(checkpoint_every=1)
    going = run(experiment, tmp_path / "run", experiment_text=dumps(experiment), data_dir=photos)
    state = next(event.state for event in going if isinstance(event, Stepped))
    going.close()
    model = load_model(tmp_path / "run")
    assert model.step == 1
    assert all(torch.equal(value, state.parameters[name]) for name, value in model.named_parameters())


def test_it_can_train_on(photo_run):
    model = load_model(photo_run).train()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_runs_that_cannot_be_loaded_are_refused(photo_run, tmp_path):
    with pytest.raises(InputError, match=r"not a run folder, it has no config\.toml"):
        load_model(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(photo_run, folder)
    tree = torch.load(folder / "checkpoint.pt", weights_only=True)
    for change in (
        {"signature": tree["signature"] | {"classes": 0}},
        {"signature": tree["signature"] | {"class_names": ("cat",)}},
        {"signature": tree["signature"] | {"preprocessing": {"size": -1}}},
        {"signature": {"shape": (3, 32, 32)}},
        {"signature": [3]},
    ):
        torch.save(tree | change, folder / "checkpoint.pt")
        with pytest.raises(InputError, match=r"checkpoint\.pt: damaged, signature is not that of a model"):
            load_model(folder)
    torch.save(tree | {"parameters": tree["parameters"] | {"head.bias": torch.zeros(4)}}, folder / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt: parameter head\.bias: got shape \(4,\)"):
        load_model(folder)
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(InputError, match=r"no checkpoint\.pt, though its run has ended"):
        load_model(folder)


def old(folder, experiment, without_signature, inputs, expected):
    model = load_model(without_signature(folder))
    assert torch.equal(model(inputs), expected)
    assert model.class_names is None
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "featurizer",
    [None, MLP(widths=(6,)), MLP(widths=()), FeatureDropout(), TimmBackbone("test_vit", pretrained=False)],
    ids=["MNISTCNN", "MLP", "flat", "FeatureDropout", "ViT"],
)
def test_old_runs_of_images_load_by_their_settings(
    experiment_of, train_in, photos, tmp_path, without_signature, featurizer
):
    experiment = experiment_of(featurizer)
    folder = train_in(experiment, tmp_path / "run", photos)
    inputs, expected = logits_of_run(experiment, folder, photos)
    model = old(folder, experiment, without_signature, inputs, expected)
    assert (model.shape, model.classes, model.preprocessing.size) == ((3, 32, 32), 3, 32)


def test_old_runs_of_tensors_load_by_their_shapes(train_in, tmp_path, without_signature):
    experiment = attrs.evolve(colored_digits(), steps=2)
    folder = train_in(experiment, tmp_path / "run")
    inputs, expected = logits_of_run(experiment, folder, None)
    model = old(folder, experiment, without_signature, inputs, expected)
    assert (model.shape, model.classes, model.preprocessing) == ((128,), 2, None)


@pytest.mark.slow
def test_an_old_run_resumes_and_gets_its_signature(experiment_of, photos, tmp_path, without_signature):
    from fishr.training import Stepped, run

    experiment = experiment_of(checkpoint_every=1, steps=3)
    text = dumps(experiment)
    going = run(experiment, tmp_path / "run", experiment_text=text, data_dir=photos)
    next(event for event in going if isinstance(event, Stepped))
    going.close()
    without_signature(tmp_path / "run")
    list(run(experiment, tmp_path / "run", experiment_text=text, data_dir=photos, resume=True))
    list(run(experiment, tmp_path / "whole", experiment_text=text, data_dir=photos))
    one, other = (load_model(tmp_path / name) for name in ("run", "whole"))
    assert one.class_names == ("cat", "dog", "elk")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert score_checkpoint(experiment, tmp_path / "run", photos) == score_checkpoint(
        experiment, tmp_path / "whole", photos
    )


OWN = """
import torch
from attrs import frozen
from torch import nn


@frozen
class Edges:
    width: int = 3

    def __call__(self, shape, generator):
        return nn.Sequential(nn.Conv2d(shape[0], self.width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def features(self, shape):
        return self.width


@frozen
class Twice:
    def __call__(self, features, outputs, generator):
        return nn.Sequential(nn.Linear(features, 4), nn.Tanh(), nn.Linear(4, outputs))


def smooth(logits, labels):
    return nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
"""


def test_parts_of_plugins_load_with_their_modules(train_in, tmp_path, monkeypatch, without_signature):
    (tmp_path / "own_parts_of_a_model.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_parts_of_a_model")
    experiment = attrs.evolve(colored_digits(), steps=2, featurizer=own.Edges(), head=own.Twice(), loss=own.smooth)
    folder = train_in(experiment, tmp_path / "run")
    inputs, expected = logits_of_run(experiment, folder, None)
    assert torch.equal(load_model(folder, plugins=["own_parts_of_a_model"])(inputs), expected)
    without_signature(folder)
    assert torch.equal(load_model(folder, plugins=["own_parts_of_a_model"])(inputs), expected)
    with pytest.raises(InputError, match=r"config\.toml: featurizer"):
        load_model(folder)


def test_an_old_run_whose_weights_tell_nothing_is_refused(train_in, tmp_path, without_signature):
    experiment = attrs.evolve(colored_digits(), steps=2)
    folder = train_in(experiment, tmp_path / "run")
    tree = torch.load(without_signature(folder) / "checkpoint.pt", weights_only=True)
    tree["parameters"] = {name: value for name, value in tree["parameters"].items() if value.ndim == 1}
    torch.save(tree, folder / "checkpoint.pt")
    with pytest.raises(InputError, match="the shapes of its weights do not tell them; train again"):
        load_model(folder)


def test_several_labels_a_sample_have_outputs_of_their_own_and_no_probabilities_of_classes(train_in, tmp_path):
    """Two labels are two outputs, where two classes are one."""
    for name in "ab":
        inputs = np.random.default_rng(len(name)).normal(size=(6, 3))
        np.savez(tmp_path / f"{name}.npz", inputs=inputs, labels=inputs[:, :2] > 0)
    data = Arrays((str(tmp_path / "a.npz"), str(tmp_path / "b.npz")))
    for loss, reason in ((BinaryCrossEntropy(), "got several labels a sample"), (SquaredError(), "predicts no class")):
        experiment = attrs.evolve(colored_digits(), data=data, loss=loss, featurizer=MLP(widths=()), steps=2)
        folder = train_in(experiment, tmp_path / type(loss).__name__)
        model = load_model(folder)
        export_model(model, folder, tmp_path / f"{folder.name}.safetensors")
        assert "A sample of the data has 2 labels in floating point" in (tmp_path / f"{folder.name}.md").read_text()
        assert model(torch.zeros(4, 3)).shape == (4, 2)
        with pytest.raises(InputError, match=reason):
            model.probabilities(torch.zeros(4, 3))
