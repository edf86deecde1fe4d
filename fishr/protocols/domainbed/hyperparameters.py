"""DomainBed's hyper-parameters of a run: defaults and random draws, bit for bit."""

from collections.abc import Mapping

from numpy.random import RandomState

from fishr.data.environments import seed_hash
from fishr.methods.ranges import Range, Value, choice, fixed, power, whole


def hyperparameters(dataset: str, own: Mapping[str, Range], hparams_seed: int, trial_seed: int) -> dict[str, Value]:
    """Return the hyper-parameters of one run, each drawn first by a generator seeded with its name."""
    ranges = {**shared_ranges(dataset), **own}
    if hparams_seed == 0:
        return {name: one.default for name, one in ranges.items()}
    seed = seed_hash(hparams_seed, trial_seed)
    drawn = {name: one.draw(RandomState(seed_hash(seed, name))) for name, one in ranges.items()}
    # The repr of a NumPy scalar would give another run seed.
    return {name: getattr(value, "item", lambda value=value: value)() for name, value in drawn.items()}


def shared_ranges(dataset: str) -> dict[str, Range]:
    """Return the hyper-parameters that all methods have."""
    shared = {
        "data_augmentation": fixed(True),
        "class_balanced": fixed(False),
        "nonlinear_classifier": fixed(False),
        "resnet_dropout": Range(0.0, choice((0.0, 0.1, 0.5))),
    }
    if dataset in ("RotatedMNIST", "ColoredMNIST"):
        return shared | {
            "lr": Range(1e-3, power(-4.5, -2.5)),
            "batch_size": Range(64, whole(power(3, 9, base=2))),
            "weight_decay": fixed(0.0),
        }
    return shared | {
        "lr": Range(5e-5, power(-5, -3.5)),
        "batch_size": Range(32, whole(power(3, 5 if dataset == "DomainNet" else 5.5, base=2))),
        "weight_decay": Range(0.0, power(-6, -2)),
    }
