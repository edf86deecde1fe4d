"""DomainBed's three ways to choose a draw of hyper-parameters and a step."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from attrs import frozen

from fishr.protocols.domainbed.records import Record


@frozen
class Chosen:
    """What a selection chose.

    Args:
        validation: the accuracy that it chose by, 0 to 1.
        test: accuracy on the test environment's in split there, 0 to 1.
        hparams_seed: of the draw.
        step: of the record.

    Example:
        >>> Chosen(validation=0.9, test=0.5, hparams_seed=3, step=300).test
        0.5
    """

    validation: float
    test: float
    hparams_seed: int
    step: int


@frozen(order=True)
class Group:
    """What a selection chooses one draw for.

    Example:
        >>> Group("PACS", "ERM", test_env=0, trial_seed=2).test_env
        0
    """

    dataset: str
    algorithm: str
    test_env: int
    trial_seed: int


def grouped(records: Iterable[Record]) -> dict[Group, list[Record]]:
    """Records by data set, algorithm, test environment and trial; one of several test environments joins each.

    Args:
        records: of a sweep.

    Returns:
        The groups in ascending order, each with its records in the order given.

    Example:
        >>> from fishr.protocols.domainbed.records import JobKey
        >>> pair = Record(JobKey("PACS", "ERM", (0, 2), 0, 0), 0, {})
        >>> [group.test_env for group in grouped([pair])]
        [0, 2]

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    groups = dict[Group, list[Record]]()
    for record in records:
        for test_env in record.key.test_envs:
            group = Group(record.key.dataset, record.key.algorithm, test_env, record.key.trial_seed)
            groups.setdefault(group, []).append(record)
    return dict(sorted(groups.items()))


def training_domain_validation(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by the mean accuracy on the out splits of the training environments, over draws and steps.

    Among equal steps of a draw the first is chosen, among equal draws the highest. NaN counts as less than anything.
    (DomainBed lets a NaN of a draw's first record stand, whatever follows; here it loses.)

    Args:
        records: of one group; those of several test environments do not count.
        test_env: index of the group's test environment.

    Returns:
        The choice; None without a record that counts.

    Example:
        >>> from fishr.protocols.domainbed.records import JobKey
        >>> def at(step, out0, in1):
        ...     accuracies = {"env0_in": 1.0, "env0_out": out0, "env1_in": in1, "env1_out": 0.0}
        ...     return Record(JobKey("PACS", "ERM", (1,), 0, 0), step, accuracies)
        >>> training_domain_validation([at(0, 0.5, 0.3), at(300, 0.8, 0.4), at(600, 0.8, 0.9)], test_env=1)
        Chosen(validation=0.8, test=0.4, hparams_seed=0, step=300)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    def chosen(record: Record) -> Chosen:
        others = [record.accuracies[f"env{index}_out"] for index in _others(record, test_env)]
        return _chosen(record, test_env, float(np.mean(others)))

    draws = _alone(records, test_env).values()
    return _best_draw(_first_best([chosen(record) for record in draw]) for draw in draws)


def leave_one_domain_out(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by the mean accuracy on each training environment of the run that did not see it either.

    For the training environment v that is the accuracy on v's in split of the run with test environments
    ``test_env`` and v, of the same draw at the same step. A step counts if every such run has it. Ties and NaN as in
    ``training_domain_validation``.

    Args:
        records: of one group.
        test_env: index of the group's test environment.

    Returns:
        The choice; None where no step of a draw has all its runs.

    Example:
        >>> from fishr.protocols.domainbed.records import JobKey
        >>> accuracies = {"env0_in": 0.6, "env0_out": 0.5, "env1_in": 0.3, "env1_out": 0.2}
        >>> alone, both = (Record(JobKey("PACS", "ERM", envs, 0, 0), 0, accuracies) for envs in ((1,), (0, 1)))
        >>> leave_one_domain_out([alone, both], test_env=1)
        Chosen(validation=0.6, test=0.3, hparams_seed=0, step=0)
        >>> leave_one_domain_out([alone], test_env=1)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    pairs = {
        (record.key.hparams_seed, record.key.test_envs, record.step): record
        for record in records
        if len(record.key.test_envs) == 2 and test_env in record.key.test_envs
    }

    def chosen(record: Record) -> Chosen | None:
        left_out = [
            partner.accuracies[f"env{index}_in"]
            for index in _others(record, test_env)
            if (partner := pairs.get((record.key.hparams_seed, _pair(index, test_env), record.step)))
        ]
        complete = len(left_out) == record.environments - 1
        return _chosen(record, test_env, float(np.mean(left_out))) if complete else None

    draws = [_steps_once(draw) for draw in _alone(records, test_env).values()]
    return _best_draw(_first_best([one for record in draw if (one := chosen(record))]) for draw in draws)


def oracle(records: Sequence[Record], test_env: int) -> Chosen | None:
    """Choose by the accuracy on the test environment's own out split, at each draw's last step.

    Args:
        records: of one group; those of several test environments do not count.
        test_env: index of the group's test environment.

    Returns:
        The choice, the highest of equal draws; None without a record that counts.

    Example:
        >>> from fishr.protocols.domainbed.records import JobKey
        >>> accuracies = {"env0_in": 0.6, "env0_out": 0.5, "env1_in": 0.3, "env1_out": 0.2}
        >>> oracle([Record(JobKey("PACS", "ERM", (1,), 4, 0), step, accuracies) for step in (0, 300)], test_env=1)
        Chosen(validation=0.2, test=0.3, hparams_seed=4, step=300)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    # The sort is stable: of several records of the last step, the last one written.
    last = [sorted(draw, key=lambda record: record.step)[-1] for draw in _alone(records, test_env).values()]
    return _best_draw(_chosen(record, test_env, record.accuracies[f"env{test_env}_out"]) for record in last)


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


def _pair(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


def _chosen(record: Record, test_env: int, validation: float) -> Chosen:
    return Chosen(validation, record.accuracies[f"env{test_env}_in"], record.key.hparams_seed, record.step)


def _alone(records: Iterable[Record], test_env: int) -> dict[int, list[Record]]:
    """By draw, the records of runs that are tested on this environment alone."""
    draws = dict[int, list[Record]]()
    for record in records:
        if record.key.test_envs == (test_env,):
            draws.setdefault(record.key.hparams_seed, []).append(record)
    return draws


def _steps_once(draw: Iterable[Record]) -> list[Record]:
    """In the order of steps, without those that a run recorded twice: DomainBed passes over them."""
    steps = dict[int, list[Record]]()
    for record in draw:
        steps.setdefault(record.step, []).append(record)
    return [found[0] for _, found in sorted(steps.items()) if len(found) == 1]


def _value(chosen: Chosen) -> float:
    return -math.inf if math.isnan(chosen.validation) else chosen.validation


def _first_best(steps: Sequence[Chosen]) -> Chosen | None:
    return max(steps, key=_value, default=None)


def _best_draw(draws: Iterable[Chosen | None]) -> Chosen | None:
    there = [draw for draw in draws if draw is not None]
    return max(there, key=lambda draw: (_value(draw), draw.hparams_seed), default=None)
