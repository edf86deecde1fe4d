"""DomainBed's hyper-parameters: defaults and random draws, to the bit."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import frozen
from numpy.random import RandomState

from fishr.data.splits import seed_hash

Value = float | int | bool
Draw = Callable[[RandomState], Value]
SMALL = ("RotatedMNIST", "ColoredMNIST")


@frozen
class Range:
    """A hyper-parameter: its default and the rule of its random draws.

    Args:
        default: of hparams_seed 0.
        draw: a value from a generator of its own.

    Example:
        >>> Range(0.5, lambda generator: generator.uniform(0, 1)).default
        0.5
    """

    default: Value
    draw: Draw


def hyperparameters(
    dataset: str, algorithm: str, hparams_seed: int, trial_seed: int, own: Mapping[str, Range] | None = None
) -> dict[str, Value]:
    """The hyper-parameters of one run.

    Each name has a generator of its own, RandomState(seed_hash(seed_hash(hparams_seed, trial_seed), name)), and is
    its first draw.

    Args:
        dataset: by DomainBed's name; any other has the ranges of image data sets.
        algorithm: by DomainBed's name.
        hparams_seed: 0 for the defaults.
        trial_seed: of the splits.
        own: what an algorithm that DomainBed has not got has beside the shared ones.

    Returns:
        By DomainBed's names, plain Python numbers.

    Example:
        >>> drawn = hyperparameters("ColoredMNIST", "Fishr", hparams_seed=1, trial_seed=0)
        >>> drawn["lambda"], drawn["penalty_anneal_iters"], drawn["batch_size"]
        (809.251247284292, 4072, 372)

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    ranges = ranges_of(dataset, algorithm) | dict(own or {})
    if hparams_seed == 0:
        return {name: one.default for name, one in ranges.items()}
    seed = seed_hash(hparams_seed, trial_seed)
    return {name: _plain(one.draw(RandomState(seed_hash(seed, name)))) for name, one in ranges.items()}


def ranges_of(dataset: str, algorithm: str) -> dict[str, Range]:
    """All hyper-parameters of an algorithm on a data set.

    Example:
        >>> sorted(set(ranges_of("PACS", "VREx")) - set(ranges_of("PACS", "ERM")))
        ['vrex_lambda', 'vrex_penalty_anneal_iters']
    """
    shared = _small() if dataset in SMALL else _pictures(dataset)
    fixed = {
        "data_augmentation": _always(True),
        "class_balanced": _always(False),
        "nonlinear_classifier": _always(False),
        "resnet_dropout": Range(0.0, _choice(0.0, 0.1, 0.5)),
    }
    return fixed | shared | OWN.get(algorithm, {})


def power_of_ten(low: float, high: float) -> Draw:
    """Draws 10^U(low, high).

    Example:
        >>> 10 <= power_of_ten(1, 4)(RandomState(0)) <= 10_000
        True
    """
    return _power(10, low, high)


def whole_power_of_ten(low: float, high: float) -> Draw:
    """Draws int(10^U(low, high)).

    Example:
        >>> whole_power_of_ten(0, 0)(RandomState(0))
        1
    """
    return _whole(_power(10, low, high))


def _uniform(low: float, high: float) -> Draw:
    return lambda generator: generator.uniform(low, high)


def _power(base: float, low: float, high: float) -> Draw:
    return lambda generator: base ** generator.uniform(low, high)


def _whole(draw: Draw) -> Draw:
    return lambda generator: int(draw(generator))


def _choice(*values: float) -> Draw:
    return lambda generator: generator.choice(values)


def _always(value: Value) -> Range:
    return Range(value, lambda generator: value)


def _small() -> dict[str, Range]:
    return {
        "lr": Range(1e-3, power_of_ten(-4.5, -2.5)),
        "batch_size": Range(64, _whole(_power(2, 3, 9))),
        "weight_decay": _always(0.0),
    }


def _pictures(dataset: str) -> dict[str, Range]:
    return {
        "lr": Range(5e-5, power_of_ten(-5, -3.5)),
        "batch_size": Range(32, _whole(_power(2, 3, 5 if dataset == "DomainNet" else 5.5))),
        "weight_decay": Range(0.0, power_of_ten(-6, -2)),
    }


OWN: Mapping[str, dict[str, Range]] = MappingProxyType(
    {
        "Fishr": {
            "lambda": Range(1000.0, power_of_ten(1, 4)),
            "penalty_anneal_iters": Range(1500, _whole(_uniform(0, 5000))),
            "ema": Range(0.95, _uniform(0.90, 0.99)),
        },
        "IRM": {
            "irm_lambda": Range(1e2, power_of_ten(-1, 5)),
            "irm_penalty_anneal_iters": Range(500, whole_power_of_ten(0, 4)),
        },
        "VREx": {
            "vrex_lambda": Range(1e1, power_of_ten(-1, 5)),
            "vrex_penalty_anneal_iters": Range(500, whole_power_of_ten(0, 4)),
        },
    }
)
"""What each algorithm has beside the shared ones."""


def _plain(value: Value) -> Value:
    """The Python number of a NumPy scalar, whose repr would give another seed."""
    item = getattr(value, "item", None)
    return value if item is None else item()
