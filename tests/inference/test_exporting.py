"""Exported models, as the programs that they are for read them."""

import json
import re

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

from fishr.errors import InputError
from fishr.inference import export_model, load_model, named_weights
from fishr.models import MLPHead, ResNet, TimmBackbone
from fishr.training import Frozen

# torch deprecates torch.jit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
INPUTS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_torchvision_loads_a_resnet_strictly(experiment_of, train_in, photos, tmp_path):
    folder = train_in(experiment_of(ResNet(depth=18, weights="random")), tmp_path / "run", photos)
    model = load_model(folder)
    assert export_model(model, folder, tmp_path / "w.safetensors").owner == "torchvision"
    network = torchvision.models.resnet18(num_classes=3)
    network.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(INPUTS), model(INPUTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_timm_loads_its_networks_strictly(experiment_of, train_in, photos, tmp_path, name):
    featurizer = TimmBackbone(name, pretrained=False, dropout=0.2, freeze_norm=True)
    folder = train_in(experiment_of(featurizer, steps=1), tmp_path / "run", photos)
    model = load_model(folder)
    assert export_model(model, folder, tmp_path / "w.safetensors").owner == "timm"
    size = {"img_size": 32} if timm.models.get_pretrained_cfg(name).fixed_input_size else {}
    network = timm.create_model(name, num_classes=3, **size)
    network.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(INPUTS), model(INPUTS))


def test_frozen_layers_are_exported_as_they_started(experiment_of, train_in, photos, tmp_path):
    torch.manual_seed(5)
    first = timm.create_model("test_resnet").state_dict()
    renamed = {f"_{name}": tensor for name, tensor in first.items() if "num_batches" not in name}
    torch.save(renamed, tmp_path / "renamed.pth")
    layers = ("conv1", "bn1", "layer1", "layer4.0.bn1")
    settings = {"weights": str(tmp_path / "renamed.pth"), "match": "order", "frozen": layers}
    with pytest.warns(UserWarning, match="matched by order"):
        folder = train_in(experiment_of(TimmBackbone("test_resnet", **settings), steps=3), tmp_path / "run", photos)
    (tmp_path / "renamed.pth").unlink()
    assert export_model(load_model(folder), folder, tmp_path / "w.safetensors").owner == "timm"
    network = timm.create_model("test_resnet", num_classes=3)
    network.load_state_dict(load_file(tmp_path / "w.safetensors"))
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, first[name])}
    frozen = {name for name in first if name.startswith(tuple(f"{layer}." for layer in layers))}
    assert len(frozen) > 10
    assert moved == first.keys() - frozen


def test_a_frozen_network_has_its_own_names(experiment_of, train_in, photos, tmp_path):
    featurizer = Frozen(TimmBackbone("test_resnet", pretrained=False))
    folder = train_in(experiment_of(featurizer), tmp_path / "run", photos)
    model = load_model(folder)
    network = timm.create_model("test_resnet", num_classes=3)
    network.load_state_dict(named_weights(model).tensors, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(INPUTS), model(INPUTS))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "neither torchvision nor timm has a MNISTCNN"),
        (
            {"featurizer": TimmBackbone("test_resnet", pretrained=False), "head": MLPHead(widths=(4,))},
            "the head is not the linear layer that timm's network ends with",
        ),
    ],
)
def test_other_networks_have_our_names(experiment_of, train_in, photos, tmp_path, change, reason):
    folder = train_in(experiment_of(**change), tmp_path / "run", photos)
    model = load_model(folder)
    weights = export_model(model, folder, tmp_path / "w.safetensors")
    assert (weights.owner, weights.reason) == ("fishr", reason)
    again = load_model(folder)
    torch.nn.init.zeros_(next(again.head.parameters()))
    again.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    assert torch.equal(again(INPUTS), model(INPUTS))


def _with_another_layer(network):
    network.more = torch.nn.Linear(1, 1)


def _with_another_activation(network):
    network.act1 = torch.nn.Tanh()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_with_another_layer, "timm's network has other layers than the features and one linear layer"),
        (_with_another_activation, "timm's network computes more than one linear layer on the features"),
    ],
)
def test_a_network_that_differs_from_the_model_gives_no_names(
    experiment_of, train_in, photos, tmp_path, monkeypatch, change, reason
):
    folder = train_in(experiment_of(TimmBackbone("test_resnet", pretrained=False)), tmp_path / "run", photos)
    model, create = load_model(folder), timm.create_model

    def changed(*arguments, **options):
        network = create(*arguments, **options)
        change(network)
        return network

    monkeypatch.setattr(timm, "create_model", changed)
    assert (named_weights(model).owner, named_weights(model).reason) == ("fishr", reason)


def test_safetensors_hold_shape_and_classes(photo_run, tmp_path):
    export_model(load_model(photo_run), photo_run, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts["format"] == "pt"
    assert json.loads(facts["classes"]) == ["cat", "dog", "elk"]
    assert (json.loads(facts["shape"]), json.loads(facts["step"])) == ([3, 32, 32], 2)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.PT"])
def test_the_suffix_says_what_is_written(photo_run, tmp_path, name):
    model = load_model(photo_run)
    export_model(model, photo_run, tmp_path / name)
    export_model(model, photo_run, tmp_path / "same.safetensors")
    found, expected = torch.load(tmp_path / name), load_file(tmp_path / "same.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_pt2_is_a_program(photo_run, tmp_path):
    model = load_model(photo_run)
    export_model(model, photo_run, tmp_path / "w.pt2")
    with torch.no_grad():
        program = torch.export.load(tmp_path / "w.pt2").module()
        torch.testing.assert_close(program(INPUTS), model(INPUTS), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "export"])
@pytest.mark.parametrize(
    "featurizer",
    [None, Frozen(TimmBackbone("test_resnet", pretrained=False, freeze_norm=True))],
    ids=["MNISTCNN", "Frozen"],
)
def test_programs_take_any_number_of_images(experiment_of, train_in, photos, tmp_path, form, featurizer):
    folder = train_in(experiment_of(featurizer, steps=1), tmp_path / "run", photos)
    model, path = load_model(folder), tmp_path / "w.pt"
    assert export_model(model, folder, path, form) is None
    program = torch.jit.load(path) if form == "torchscript" else torch.export.load(path).module()
    for rows in (1, 3):
        with torch.no_grad():
            torch.testing.assert_close(program(INPUTS[:rows]), model(INPUTS[:rows]), rtol=1e-4, atol=1e-4)


class Counting(torch.nn.Module):
    """Depends on the batch in a way that neither compiler can write down."""

    def forward(self, inputs):
        flat = inputs.flatten(1)[:, :4]
        return flat * (2.0 if len(flat) == 2 else 1.0) if float(flat.sum()) else flat


@pytest.mark.parametrize("form", ["torchscript", "export"])
def test_a_network_that_is_no_program_is_refused(photo_run, tmp_path, form):
    model = load_model(photo_run)
    model.featurizer, model.head = Counting(), torch.nn.Linear(4, 3)
    with pytest.raises(InputError, match=rf"^{form}: .*MNISTCNN .*; export its weights as safetensors$"):
        export_model(model, photo_run, tmp_path / "w.pt", form)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_stay(photo_run, tmp_path):
    model = load_model(photo_run)
    (tmp_path / "w.md").write_text("mine")
    with pytest.raises(InputError, match=r"w\.md: exists already"):
        export_model(model, photo_run, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.md: got a name that ends in \.md"):
        export_model(model, photo_run, tmp_path / "w.md")
    (tmp_path / "w.md").rename(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors: exists already"):
        export_model(model, photo_run, tmp_path / "w.safetensors")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("w.safetensors", "mine")]


def blocks(text):
    return re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["safetensors", "pt", "torchscript", "export"])
def test_the_code_of_a_card_runs(experiment_of, train_in, photos, tmp_path, form, monkeypatch):
    featurizer = TimmBackbone("test_resnet", pretrained=False)
    folder = train_in(experiment_of(featurizer), tmp_path / "run", photos)
    export_model(load_model(folder), folder, tmp_path / "model.bin", form)
    (code,) = blocks((tmp_path / "model.md").read_text())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 3)
