"""What DomainBed calls a run: its seed and the name of its folder."""

import json
from collections.abc import Mapping, Sequence
from hashlib import md5

from fishr.data.splits import seed_hash


def run_seed(dataset: str, algorithm: str, test_envs: Sequence[int], hparams_seed: int, trial_seed: int) -> int:
    """The seed of one run of a sweep.

    Args:
        dataset: by DomainBed's name.
        algorithm: by DomainBed's name.
        test_envs: indices of the environments that are tested.
        hparams_seed: of the hyper-parameter draw.
        trial_seed: of the splits.

    Returns:
        From 0 to 2³¹ − 1.

    Example:
        >>> run_seed("ColoredMNIST", "Fishr", [2], 0, 0), run_seed("ColoredMNIST", "Fishr", [2], 1, 0)
        (1295264072, 968270702)

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    return seed_hash(dataset, algorithm, list(test_envs), hparams_seed, trial_seed)


def run_folder_name(arguments: Mapping[str, object]) -> str:
    """The name of the folder that DomainBed's own launcher gives a run.

    Args:
        arguments: of its training script: algorithm, data_dir, dataset, holdout_fraction, hparams_seed, seed, task,
            test_envs, trial_seed.

    Returns:
        32 hexadecimal digits: the MD5 of the sorted JSON.

    Example:
        >>> run_folder_name({"dataset": "PACS", "test_envs": [0]})
        '35d4043ee3ff3517a442b7364bb11a61'

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    return md5(json.dumps(dict(arguments), sort_keys=True).encode(), usedforsecurity=False).hexdigest()
