"""``fishr sweep features``: a data set's features once, and a sweep of heads on them."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.testing import assert_close

from fishr.configuration import load
from fishr.data.caches import open_activations, open_features
from fishr.data.images import Preprocessing
from fishr.models import TimmBackbone
from fishr.training import Experiment, LayersAbove

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

PLAN = """
datasets = ["mine"]
algorithms = ["ERM", "Fishr"]
draws = 1
trials = 1
[settings]
steps = 3
evaluate_every = 2
hparams = {batch_size = 2}
image_size = 32
backbone = "resnet18"
weights = "random"
[settings.own.mine]
path = "pictures"
environments = ["north", "south", "west"]
"""


@pytest.fixture
def world(home):
    """A plan over a folder of images, in the working directory."""
    random = np.random.default_rng(0)
    for place in ("north", "south", "west"):
        for kind in ("ill", "well"):
            folder = home / "data" / "pictures" / place / kind
            folder.mkdir(parents=True)
            for index in range(5):
                Image.fromarray(random.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / f"{index}.png")
    (home / "plan.toml").write_text(PLAN)
    return home


def test_heads_are_swept_on_the_features(world, call):
    said = call("sweep", "features", "plan.toml", "-o", "data/features.h5", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("data/features.h5: 3 domains, 30 rows")
    found = open_features(world / "data" / "features.h5")
    assert [(section.name, section.rows) for section in found.sections] == [("north", 10), ("south", 10), ("west", 10)]
    again = call("sweep", "features", "plan.toml", "-o", "data/features.h5", "--device", "cpu", "--format", "json")
    assert json.loads(again.out)["written"] is False

    heads = PLAN.replace("[settings.own", '[settings.features]\nmine = "features.h5"\n[settings.own')
    (world / "heads.toml").write_text(heads)
    said = call("sweep", "run", "heads.toml", "--out", "sweep", "--workers", 1, "--device", "cpu")
    assert said.code == 0, said.err
    # The images are not needed any more: a head alone is trained, on a ResNet-18's 512 features.
    for config in (world / "sweep").glob("jobs/*/checkpoint.pt"):
        tree = torch.load(config, weights_only=True)
        assert {name: tuple(p.shape) for name, p in tree["parameters"].items()} == {
            "head.weight": (2, 512),
            "head.bias": (2,),
        }
    assert len(list((world / "sweep").glob("jobs/*/done"))) == 6


def test_the_layers_above_one_are_swept_on_its_outputs(world, call, refused):
    torch.save(timm.create_model("test_resnet").state_dict(), world / "weights.pth")
    plan = PLAN.replace('"resnet18"', '"test_resnet"').replace("[settings]", '[settings]\nfeatures_at = "layer3"')
    plan = plan.replace('weights = "random"', 'weights = "weights.pth"').replace("draws", 'keep = "weights"\ndraws')
    (world / "plan.toml").write_text(plan)
    said = call("sweep", "features", "plan.toml", "-o", "data/layer.h5", "--dtype", "float16", "--device", "cpu")
    assert said.code == 0, said.err
    assert open_activations(world / "data" / "layer.h5").at == "0.layer3"
    (world / "above.toml").write_text(
        plan.replace("[settings.own", '[settings.features]\nmine = "layer.h5"\n[settings.own')
    )
    shutil.move(world / "data" / "pictures", world / "pictures")
    said = call("sweep", "run", "above.toml", "--out", "sweep", "--workers", 1, "--device", "cpu")
    assert said.code == 0, said.err
    results = list((world / "sweep").glob("jobs/*/done"))
    assert len(results) == 6
    experiment = load(next((world / "sweep").glob("jobs/*/config.toml")), Experiment)
    assert isinstance(experiment.featurizer, LayersAbove)
    # A job and the layers below are one network of images.
    shutil.move(world / "pictures", world / "data" / "pictures")
    job = next((world / "sweep").glob("jobs/*/checkpoint.pt")).parent
    said = call("join", job, "--out", "whole")
    assert (said.code, said.out) == (0, "whole network: whole (inputs 3 × 32 × 32, 2 classes)\n"), said
    photo = next((world / "data" / "pictures").rglob("*.png"))
    refused(world, ["predict", job, photo, "-o", "none.csv"], "make it a network of images by fishr join")
    assert call("predict", "whole", photo, "-o", "found.csv").code == 0
    found = [float(cell) for cell in (world / "found.csv").read_text().splitlines()[1].split(",")[2:]]
    assert_close(sum(found), 1.0)
    said = call("export", "whole", "-o", "whole.safetensors")
    assert "names: timm's" in said.out, said
    # Outputs of another layer are refused, and those of other weights, which random ones are in each job.
    above = (world / "above.toml").read_text()
    for other, told in (
        (above.replace("layer3", "layer2"), "holds the outputs of '0.layer3', expected those of 'layer2'"),
        (above.replace("weights.pth", "random"), "its activations are of other weights"),
    ):
        (world / "other.toml").write_text(other)
        said = call("sweep", "run", "other.toml", "--out", "other", "--workers", 1, "--device", "cpu")
        assert said.code != 0
        assert told in said.err


def test_images_train_the_layers_above_to_the_same_bits(world, call, weights):
    """Of images, whose draws in a step do not depend on whether they are augmented."""
    images = "data={kind='HeldOut', test=[0], source={kind='ImageFolders', folder='pictures', size=32, augment=false}}"
    inner = "{kind='TimmBackbone', name='test_resnet', pretrained=false}"
    options = ("--set", images, "--set", "loss={kind='CrossEntropy'}", "--set", "batches={kind='Minibatch', size=3}")
    options = (*options, "--set", "steps=3", "--set", "evaluate_every=3", "--set", "compute.precision=fp32")
    network = ("--set", f"featurizer={inner}")
    for at, file in ((("--at", "layer3"), "layer.h5"), ((), "features.h5")):
        said = call("cache", "features", "colored-digits", *options, *network, *at, "-o", file)
        assert said.code == 0, said.err
        named = ", at='layer3'" if at else ""
        frozen = ("--set", f"featurizer={{kind='Frozen', inner={inner}{named}}}")
        for extra, out in ((frozen, f"frozen-{file}"), ((*network, "--on-features", file), f"cached-{file}")):
            said = call("train", *options, *extra, "--out", out)
            assert said.code == 0, said.err
        through, cached = (weights(world / f"{kind}-{file}") for kind in ("frozen", "cached"))
        assert cached == {name: value for name, value in through.items() if name in cached}
        assert any(name.startswith("featurizer.above") for name in cached) == bool(at)


def test_a_network_of_timm_trains_on_images_of_its_own_preprocessing(world, call):
    plan = PLAN.replace('"resnet18"', '"test_resnet"').replace(', "Fishr"', "")
    (world / "plan.toml").write_text(plan)
    said = call("sweep", "run", "plan.toml", "--out", "sweep", "--workers", 1, "--device", "cpu")
    assert said.code == 0, said.err
    assert "Warning" not in said.err
    experiments = [load(path, Experiment) for path in (world / "sweep").glob("jobs/*/config.toml")]
    assert len(experiments) == 3
    for experiment in experiments:
        assert experiment.data.source.preprocessing == Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
        assert isinstance(experiment.featurizer, TimmBackbone)


def test_features_are_those_of_the_plans_network_on_plain_images(world, call):
    from fishr.data.images import ImageFolders
    from fishr.protocols.domainbed.job import feature_experiment
    from fishr.protocols.domainbed.settings import OwnData, Settings
    from fishr.training.model import build_model

    call("sweep", "features", "plan.toml", "-o", "data/features.h5", "--device", "cpu")
    own = {"mine": OwnData("pictures", ("north", "south", "west"))}
    settings = Settings(image_size=32, backbone="resnet18", weights="random", own=own)
    experiment = feature_experiment("mine", settings)
    domains = experiment.data(experiment.seed, None)
    network = build_model(experiment, domains).featurizer.eval()
    plain = ImageFolders("pictures", size=32, augment=False)(0, None).domains[1].inputs
    with torch.no_grad():
        expected = network(plain.read(range(10)))
    kept = torch.from_numpy(open_features(world / "data" / "features.h5").domain(1)["features"])
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--dataset", "PACS"), "--dataset: got 'PACS', expected one of the plan's, mine"),
        (("--data-dir", "nowhere"), "nowhere/pictures: no such folder"),
    ],
)
def test_refused(world, refused, arguments, part):
    refused(world, ["sweep", "features", "plan.toml", "-o", "data/features.h5", *arguments], part)


def test_one_data_set_has_to_be_named(world, refused):
    (world / "two.toml").write_text(PLAN.replace('["mine"]', '["mine", "PACS"]'))
    refused(world, ["sweep", "features", "two.toml", "-o", "f.h5"], "--dataset: two.toml has mine, PACS; name one")
