"""Run seeds and folder names: DomainBed's own."""

import json
from hashlib import md5

from fishr.protocols.domainbed.seeds import run_folder_name, run_seed


def test_run_seeds_are_domainbeds():
    # Printed by facebookresearch/DomainBed at b93c22a: sweep.make_args_list.
    assert run_seed("ColoredMNIST", "Fishr", [2], 0, 0) == 1295264072
    assert run_seed("ColoredMNIST", "Fishr", (2,), 1, 0) == 968270702


def test_folder_names_are_those_of_the_launcher():
    arguments = {
        "algorithm": "Fishr",
        "data_dir": "data",
        "dataset": "ColoredMNIST",
        "holdout_fraction": 0.2,
        "hparams_seed": 0,
        "seed": 1295264072,
        "task": "domain_generalization",
        "test_envs": [2],
        "trial_seed": 0,
    }
    backwards = dict(reversed(arguments.items()))
    assert run_folder_name(backwards) == md5(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    assert run_folder_name(arguments | {"seed": 1}) != run_folder_name(arguments)
