import attrs
import pytest

from fishr.configuration import dumps, structure, unstructure
from fishr.configuration.toml import parse_toml
from fishr.data import ColoredDigits, Minibatch, NumPyData
from fishr.data.cached_features import FeatureEnvironments
from fishr.data.images import Columns, NoAugmentation, Preprocessing, RandAugment, TrivialAugment
from fishr.data.images.image_data import ImageFolders, ImageList
from fishr.data.mnist import RotatedMNIST
from fishr.errors import InputError
from fishr.methods import METHODS
from fishr.models import MNISTCNN, FeatureDropout, LinearHead, ResNet, TimmBackbone
from fishr.penalties import IRM, Constant, Fishr, LinearSchedule, Stateless, VREx
from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.job import Job, feature_experiment
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.protocols.domainbed.settings import OwnData, Settings
from fishr.training import Adam, Experiment

JOB = Job("ColoredMNIST", "Fishr", (2,), hparams_seed=1, trial_seed=0)


def test_run_seeds_are_domainbeds():
    # Printed by facebookresearch/DomainBed at b93c22a: sweep.make_args_list.
    assert attrs.evolve(JOB, hparams_seed=0).run_seed == 1295264072
    assert JOB.run_seed == 968270702


def test_names_are_stable():
    """Folders of sweeps that were begun bear them: a change here orphans finished jobs."""
    assert JOB.name == "35f56a038f3acfcc234c93bc41195000"


def test_a_setting_at_its_default_changes_no_name():
    assert attrs.evolve(JOB, settings=Settings(protocol="domainbed-2021", validation="clean")).name == JOB.name


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "RotatedMNIST"},
        {"algorithm": "ERM"},
        {"test_envs": (1,)},
        {"hparams_seed": 2},
        {"trial_seed": 1},
        {"settings": Settings(steps=7)},
        {"settings": Settings(hparams={"lr": 0.1})},
        {"settings": Settings(own={"x": OwnData("x", ("a", "b"))})},
        {"settings": Settings(methods={"Mine": OwnMethod(VREx())})},
        {"settings": Settings(methods={"Mine": OwnMethod(IRM())})},
    ],
)
def test_every_part_has_a_name_of_its_own(change):
    others = {attrs.evolve(JOB, settings=Settings(methods={"Mine": OwnMethod(Fishr())})).name, JOB.name}
    assert attrs.evolve(JOB, **change).name not in others


def _disagreement(seen):
    return seen.moments.mean.square().sum()


def _spread(seen):
    return seen.domain_losses.var()


def test_functions_of_ones_own_have_names_too():
    names = {
        attrs.evolve(JOB, settings=Settings(methods={"Mine": OwnMethod(Stateless(function))})).name
        for function in (_disagreement, _spread)
    }
    assert len(names) == 2


def test_an_experiment_is_domainbeds():
    made = JOB.experiment()
    assert made.seed == 968270702
    assert made.optimizer == Adam(lr=0.00011906162909279594, weight_decay=0.0)
    assert made.batches == Minibatch(372, replace=True)
    assert (made.steps, made.evaluate_every, made.evaluate_from) == (5001, 100, 1)
    assert (made.featurizer, made.head) == (MNISTCNN(), LinearHead(init="torch"))
    assert made.objective.fresh_optimizer_at == 4072
    assert made.objective.penalty.terms["fishr"].penalty.ema == 0.9129082782560279
    assert (made.data.test, made.data.trial_seed, made.data.holdout_fraction) == ((2,), 0, 0.2)


@pytest.mark.parametrize(("steps", "every"), [(5001, 300), (5001, 100), (5, 2), (6, 2), (1, 3)])
def test_records_are_as_many_as_evaluations(steps, every):
    job = Job("PACS", "ERM", (0,), 0, 0, Settings(steps=steps, evaluate_every=every))
    experiment = job.experiment()
    upstream = [step for step in range(steps) if step % every == 0 or step == steps - 1]
    ours = [step - 1 for step in range(steps + 1) if experiment.evaluates(step)]
    assert ours == upstream
    assert job.evaluations == len(upstream)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", METHODS)
@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_experiments_can_be_written_and_read(dataset, algorithm):
    made = Job(dataset, algorithm, (0,), 4, 1).experiment()
    assert structure(parse_toml(dumps(made)), Experiment) == made


def test_networks_of_the_protocols():
    assert Settings().network("PACS", 0.1) == ResNet(50, "imagenet", freeze_norm=True, dropout=0.1)
    later = Settings(protocol="domainbed-2024")
    assert later.network("PACS", 0.0) == TimmBackbone("resnet50.ram_in1k", pretrained=True, freeze_norm=False)
    small = Settings(protocol="domainbed-2024", backbone="resnet18", weights="random")
    assert small.network("PACS", 0.0) == ResNet(18, "random", freeze_norm=False)
    assert Settings(backbone="resnet18").network("PACS", 0.0) == ResNet(18, "imagenet")
    assert Settings(features={"PACS": "f.h5"}).network("PACS", 0.5) == FeatureDropout(0.5)


@pytest.mark.parametrize(
    ("weights", "made"), [("imagenet", (True, None)), ("random", (False, None)), ("mine.pth", (True, "mine.pth"))]
)
def test_backbones_are_any_networks_of_timm(weights, made):
    for protocol, frozen in [("domainbed-2021", True), ("domainbed-2024", False)]:
        settings = Settings(protocol=protocol, backbone="convnext_atto.d2_in1k", weights=weights)
        network = settings.network("PACS", 0.1)
        assert (network.name, network.freeze_norm, network.dropout) == ("convnext_atto.d2_in1k", frozen, 0.1)
        assert (network.pretrained, network.weights) == made


def test_sources_of_the_settings():
    assert Settings(samples=9).environments("RotatedMNIST") == RotatedMNIST(9)
    assert Settings().environments("PACS") == ImageFolders("PACS")
    assert Settings(validation="augmented").environments("PACS") == ImageFolders("PACS", augment_evaluation=True)
    spawrious = Settings().environments("SpawriousO2O_easy")
    assert spawrious.environments == ("Test", "SC_group_1", "SC_group_2")
    trivial = Settings(validation="augmented", augment=TrivialAugment())
    assert trivial.environments("PACS") == ImageFolders("PACS", augment=TrivialAugment(), augment_evaluation=True)
    assert trivial.environments("PACS", augment=False) == ImageFolders("PACS", augment=False)
    assert "augment" not in unstructure(Settings())
    assert structure({"augment": {"kind": "TrivialAugment"}, "validation": "augmented"}, Settings) == trivial
    assert structure({"augment": False}, Settings).environments("PACS") == ImageFolders("PACS", augment=False)
    plain = Settings(validation="augmented").environments("PACS", augment=False)
    assert plain == ImageFolders("PACS", augment=False)
    assert Settings(images={"PACS": "i.h5"}, image_size=64).environments("PACS") == ImageFolders(
        "PACS", size=64, cache="i.h5"
    )
    assert Settings(features={"PACS": "f.h5"}).environments("PACS") == FeatureEnvironments("f.h5")
    for plain in (Settings(protocol="domainbed-2024"), Settings(backbone="resnet18")):
        assert plain.environments("PACS").preprocessing is None
    halves = Preprocessing(64, (0.5,) * 3, (0.5,) * 3)
    named = Settings(backbone="test_resnet", image_size=64)
    assert named.environments("PACS") == ImageFolders("PACS", preprocessing=halves)
    given = attrs.evolve(named, preprocessing=Preprocessing(64))
    assert given.environments("PACS") == ImageFolders("PACS", preprocessing=Preprocessing(64))
    assert Settings(preprocessing=halves).environments("PACS").size == 64
    own = Settings(own={"x": OwnData("x.csv", ("a", "b")), "y": OwnData("y", ("a", "b"))})
    assert own.environments("x") == ImageList("x.csv", environments=("a", "b"))
    assert own.environments("y") == ImageFolders("y", environments=("a", "b"))


def test_fixed_hyperparameters_reach_the_experiment():
    settings = Settings(hparams={"batch_size": 4, "data_augmentation": False, "lr": 1, "lambda": 3.0})
    made = Job("PACS", "ERM", (0,), 2, 0, settings).experiment()
    assert (made.batches.size, made.optimizer.lr, made.data.source.augment) == (4, 1.0, NoAugmentation())
    assert Job("PACS", "Fishr", (0,), 2, 0, settings).hparams["lambda"] == 3.0


def test_a_schedule_of_the_settings_multiplies_the_second_learning_rate_of_a_method():
    hparams = {"rdm_penalty_anneal_iters": 10, "lr": 1e-3, "rdm_lr": 5e-4}
    shared, own = LinearSchedule(1.0, 0.0, steps=20), Constant(3.0)
    methods = {"Mine": OwnMethod(combines=("RDM",)), "Steady": OwnMethod(Fishr(), lr_schedule=own)}
    settings = Settings(hparams=hparams, lr_schedule=shared, methods=methods)
    made = {name: Job("ColoredMNIST", name, (2,), 0, 0, settings).experiment() for name in ("RDM", "ERM", *methods)}
    assert (made["ERM"].lr_schedule, made["Steady"].lr_schedule) == (shared, own)
    for name in ("RDM", "Mine"):
        assert [made[name].lr_schedule(step) for step in (5, 10, 15)] == [0.75, 0.25, 0.125]
        assert structure(parse_toml(dumps(made[name])), Experiment) == made[name]


def test_factors_of_the_settings_are_refused_beside_those_of_a_method():
    settings = Settings(lr_factors={"head": Constant(2.0)})
    with pytest.raises(InputError, match=r"settings\.lr_factors: got it for all methods, but LP_FT has one of its own"):
        Job("ColoredMNIST", "LP_FT", (2,), 0, 0, settings).experiment()


def test_a_job_of_ones_own():
    settings = Settings(own={"mine": OwnData("m", ("a", "b", "c"))}, methods={"Mine": OwnMethod(VREx())})
    made = Job("mine", "Mine", (1,), 0, 0, settings).experiment()
    assert list(made.objective.penalty.terms) == ["penalty"]
    assert made.data.source == ImageFolders("m", environments=("a", "b", "c"))


def test_features_are_of_whole_plain_environments():
    made = feature_experiment("PACS", Settings(features={"PACS": "f.h5"}, backbone="resnet18"))
    assert made.data.source == ImageFolders("PACS", augment=False)
    assert made.featurizer == ResNet(18, "imagenet", freeze_norm=True, dropout=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Pacs", "ERM", (0,), 0, 0), "data set: got 'Pacs', expected one of ColoredMNIST, RotatedMNIST"),
        (("PACS", "Fisher", (0,), 0, 0), "algorithm: got 'Fisher', expected one of .*ERM, .*VREx"),
        (("PACS", "ERM", (4,), 0, 0), r"PACS: test environment: got 4, expected one of 0 \(A\)"),
        (("PACS", "ERM", (0, 0), 0, 0), "PACS: test: got"),
        (("PACS", "ERM", (0,), -1, 0), "hparams_seed: got -1"),
        (("PACS", "ERM", (0,), 0, -1), "trial_seed: got -1"),
    ],
)
def test_jobs_that_could_not_run(arguments, message):
    with pytest.raises(InputError, match=message):
        Job(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: got 0"),
        ({"protocol": "domainbed-2020"}, "protocol: got 'domainbed-2020'"),
        ({"samples": 1}, "samples: got 1"),
        ({"hparams": {"learning_rate": 1.0}}, "hparams: got 'learning_rate', expected some of batch_size"),
        ({"hparams": {"class_balanced": True}}, "hparams: got 'class_balanced'"),
        ({"hparams": {"batch_size": 2.5}}, "hparams: got batch_size = 2.5, expected a whole number"),
        ({"hparams": {"batch_size": True}}, "hparams: got batch_size = True"),
        ({"hparams": {"data_augmentation": 1}}, "hparams: got data_augmentation = 1, expected true or false"),
        ({"image_size": 32, "preprocessing": Preprocessing(64)}, "image_size: got 32 with a preprocessing of size 64"),
        ({"own": {"PACS": OwnData("x", ("a", "b"))}}, "one of your own called 'PACS'"),
        ({"own": {"mine": OwnData(data=ColoredDigits(), environments=("a", "b"))}}, "own.mine: got data without a net"),
        ({"methods": {"ERM": OwnMethod(VREx())}}, "one of your own called 'ERM'"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_a_sources_settings_are_replaced_by_those_of_the_sweep():
    source = ImageList("scans.csv", size=32, columns=Columns("file", "y", "site"), samples=9, augment=RandAugment())
    own = {"scans": OwnData(environments=("south", "north"), source=source)}
    settings = Settings(own=own, samples=5, images={"scans": "scans.h5"})
    jobs = [
        Job("scans", "ERM", (0,), 0, 0, attrs.evolve(settings, hparams=fixed))
        for fixed in ({}, {"data_augmentation": False})
    ]
    first, plain = (job.experiment().data.source for job in jobs)
    assert first == attrs.evolve(source, environments=("south", "north"), samples=5, cache="scans.h5")
    assert plain == attrs.evolve(first, augment=False)
    assert isinstance(jobs[0].experiment().featurizer, ResNet)
    with pytest.raises(InputError, match=r"own.scans: got data without a network, expected settings.featurizer"):
        Settings(own={"scans": OwnData(environments=("a", "b"), source=NumPyData("scans"))})


@pytest.mark.parametrize("given", [{}, {"path": "x", "data": ColoredDigits()}])
def test_data_of_ones_own_are_at_a_path_or_built(given):
    with pytest.raises(InputError, match="expected one of path, data and source"):
        OwnData(environments=("a", "b"), **given)


@pytest.mark.parametrize("environments", [("a",), ("b", "a"), ("a", "a")])
def test_environments_of_ones_own_are_in_order(environments):
    with pytest.raises(InputError, match=r"environments: got .*, expected (two or more names, once each|sorted names)"):
        OwnData("x", environments)
