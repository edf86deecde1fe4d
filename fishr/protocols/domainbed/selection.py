"""DomainBed's three ways to select a draw of hyper-parameters and a step.

Source: Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from attrs import frozen

from fishr.protocols.domainbed.records import Record


@frozen
class Chosen:
    """A selected draw and step, with the validation accuracy and the accuracy on the test environment, 0 to 1."""

    validation: float
    test: float
    hparams_seed: int
    step: int


# A data set, a method and a test environment.
Place = tuple[str, str, int]


def by_place_and_trial(records: Iterable[Record]) -> dict[Place, dict[int, list[Record]]]:
    """Return the records among which a selection chooses; one of several test environments joins each one's."""
    found = dict[Place, dict[int, list[Record]]]()
    for record in records:
        for test_env in record.key.test_envs:
            trials = found.setdefault((record.key.dataset, record.key.algorithm, test_env), {})
            trials.setdefault(record.key.trial_seed, []).append(record)
    return found


def training_domain_validation(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by mean accuracy on the training environments' out splits; first step, highest draw among equals."""

    # In DomainBed a NaN of a draw's first record stands, whatever follows; here it loses.
    def chosen(record: Record) -> Chosen:
        others = [record.accuracies[f"env{index}_out"] for index in _others(record, test_env)]
        return _chosen(record, test_env, float(np.mean(others)))

    return _best([chosen(record) for record in draw] for draw in _alone(records, test_env).values())


def leave_one_domain_out(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by mean accuracy on each training environment v of the run that holds out ``test_env`` and v."""
    at = {(record.key.hparams_seed, record.key.test_envs, record.step): record for record in records}

    def chosen(record: Record) -> Chosen | None:
        left_out = list[float]()
        for index in _others(record, test_env):
            partner = at.get((record.key.hparams_seed, tuple(sorted((index, test_env))), record.step))
            if partner is None:
                return None
            left_out.append(partner.accuracies[f"env{index}_in"])
        return _chosen(record, test_env, float(np.mean(left_out)))

    draws = [_steps_once(draw) for draw in _alone(records, test_env).values()]
    return _best([one for record in draw if (one := chosen(record))] for draw in draws)


def oracle(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by the accuracy on the test environment's own out split, at each draw's last step."""
    # The sort is stable: of several records of the last step, the last one written.
    last = [sorted(draw, key=lambda record: record.step)[-1] for draw in _alone(records, test_env).values()]
    return _best([_chosen(record, test_env, record.accuracies[f"env{test_env}_out"])] for record in last)


Select = Callable[[Sequence[Record], int], Chosen | None]
SELECTIONS: Mapping[str, Select] = MappingProxyType(
    {"training": training_domain_validation, "leave-one-out": leave_one_domain_out, "oracle": oracle}
)
"""By the names that the command line uses."""
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "training": "training-domain validation",
        "leave-one-out": "leave-one-domain-out validation",
        "oracle": "test-domain validation (oracle)",
    }
)
"""As papers call them."""


def _others(record: Record, test_env: int) -> list[int]:
    return [index for index in range(record.environments) if index != test_env]


def _chosen(record: Record, test_env: int, validation: float) -> Chosen:
    return Chosen(validation, record.accuracies[f"env{test_env}_in"], record.key.hparams_seed, record.step)


def _alone(records: Iterable[Record], test_env: int) -> dict[int, list[Record]]:
    """Return by draw the records of runs with this single test environment."""
    draws = dict[int, list[Record]]()
    for record in records:
        if record.key.test_envs == (test_env,):
            draws.setdefault(record.key.hparams_seed, []).append(record)
    return draws


def _steps_once(draw: Iterable[Record]) -> list[Record]:
    """Return records in the order of steps, without steps recorded twice, which DomainBed ignores."""
    steps = dict[int, list[Record]]()
    for record in draw:
        steps.setdefault(record.step, []).append(record)
    return [found[0] for _, found in sorted(steps.items()) if len(found) == 1]


def _value(chosen: Chosen) -> float:
    return -math.inf if math.isnan(chosen.validation) else chosen.validation


def _best(draws: Iterable[Sequence[Chosen]]) -> Chosen | None:
    """Return the best step: of equal ones the first in a draw, then that of the highest draw."""
    steps = [max(draw, key=_value) for draw in draws if draw]
    return max(steps, key=lambda step: (_value(step), step.hparams_seed), default=None)
