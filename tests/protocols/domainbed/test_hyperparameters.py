"""Hyper-parameters: DomainBed's defaults, its own draws as golden numbers, and the ranges of many."""

import math

import pytest

from fishr.methods import METHODS
from fishr.protocols.domainbed.hyperparameters import hyperparameters

# Printed by facebookresearch/DomainBed at b93c22a: hparams_registry.random_hparams, Fishr on ColoredMNIST, trial 0.
GOLDEN = {
    1: {
        "lambda": 809.251247284292,
        "penalty_anneal_iters": 4072,
        "ema": 0.9129082782560279,
        "lr": 0.00011906162909279594,
        "batch_size": 372,
        "resnet_dropout": 0.5,
    },
    2: {
        "lambda": 1041.1361897826946,
        "penalty_anneal_iters": 1112,
        "ema": 0.9626854804302907,
        "lr": 0.0003207929136369226,
        "batch_size": 126,
        "resnet_dropout": 0.5,
    },
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_draws_are_domainbeds(seed):
    drawn = hyperparameters("ColoredMNIST", METHODS["Fishr"].ranges, seed, 0)
    assert {name: drawn[name] for name in GOLDEN[seed]} == GOLDEN[seed]


def test_defaults():
    fixed = {"data_augmentation": True, "class_balanced": False, "nonlinear_classifier": False, "resnet_dropout": 0.0}
    small = fixed | {"lr": 1e-3, "batch_size": 64, "weight_decay": 0.0}
    large = fixed | {"lr": 5e-5, "batch_size": 32, "weight_decay": 0.0}
    assert hyperparameters("RotatedMNIST", METHODS["ERM"].ranges, 0, 2) == small
    assert hyperparameters("PACS", METHODS["Fishr"].ranges, 0, 0) == large | {
        "lambda": 1000,
        "penalty_anneal_iters": 1500,
        "ema": 0.95,
    }
    assert hyperparameters("PACS", METHODS["IRM"].ranges, 0, 0) == large | {
        "irm_lambda": 100,
        "irm_penalty_anneal_iters": 500,
    }
    assert hyperparameters("VLCS", METHODS["VREx"].ranges, 0, 0) == large | {
        "vrex_lambda": 10,
        "vrex_penalty_anneal_iters": 500,
    }


# (lowest, highest) of each draw, and whether its logarithm is uniform.
RANGES = {
    ("ColoredMNIST", "Fishr"): {
        "lr": (10**-4.5, 10**-2.5, True),
        "batch_size": (8, 512, True),
        "lambda": (10, 1e4, True),
        "penalty_anneal_iters": (0, 5000, False),
        "ema": (0.90, 0.99, False),
    },
    ("PACS", "IRM"): {
        "lr": (1e-5, 10**-3.5, True),
        "batch_size": (8, 2**5.5, True),
        "weight_decay": (1e-6, 1e-2, True),
        "irm_lambda": (0.1, 1e5, True),
        "irm_penalty_anneal_iters": (1, 1e4, True),
    },
    ("DomainNet", "VREx"): {
        "batch_size": (8, 32, True),
        "vrex_lambda": (0.1, 1e5, True),
        "vrex_penalty_anneal_iters": (1, 1e4, True),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RANGES)
def test_draws_fill_their_ranges(case):
    dataset, method = case
    drawn = [
        hyperparameters(dataset, METHODS[method].ranges, seed, trial) for seed in range(1, 101) for trial in range(3)
    ]
    for name, (low, high, logarithmic) in RANGES[case].items():
        values = sorted(one[name] for one in drawn)
        assert low - 1 <= values[0] if isinstance(values[0], int) else low <= values[0]
        assert values[-1] <= high
        middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
        below = sum(value < middle for value in values) / len(values)
        assert 0.38 < below < 0.62, name
    assert {one["resnet_dropout"] for one in drawn} == {0.0, 0.1, 0.5}


def test_every_value_is_a_plain_number():
    for value in hyperparameters("PACS", METHODS["Fishr"].ranges, 3, 1).values():
        assert type(value) in (int, float, bool)


def test_weight_decay_of_small_pictures_is_never_drawn():
    assert {hyperparameters("RotatedMNIST", METHODS["ERM"].ranges, seed, 0)["weight_decay"] for seed in range(20)} == {
        0.0
    }
