"""The same landscape around each of a run's kept checkpoints: the frames of a film."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from fishr.analysis.landscape_wanted import Landscape, read_samples
from fishr.analysis.subject import Snapshot, Subject
from fishr.data.domains import Domain
from fishr.data.reading import chunks
from fishr.errors import InputError
from fishr.landscape import Samples
from fishr.landscape.network_surface import eval_twin
from fishr.statistics.pure_forward import pure_forward

_MOST_FRAMES = 48


def frames_of(subject: Subject) -> tuple[Snapshot, ...]:
    """The kept checkpoints, or so many of them, evenly spread, that a film stays short."""
    kept = subject.trajectory
    count = min(len(kept), _MOST_FRAMES)
    return tuple(kept[round(i * (len(kept) - 1) / (count - 1))] for i in range(count))


def samples_at(subject: Subject, wanted: Landscape, snapshot: Snapshot) -> Callable[[], Samples]:
    """What the module read of each domain at a checkpoint: a head, the features of that time's featurizer.

    Args:
        subject: with a network.
        wanted: the landscape.
        snapshot: the checkpoint.

    Returns:
        A function that computes them when first called, and keeps them.

    Raises:
        InputError: the features of that time are not known.
    """
    if wanted.parameters == "all":
        return lambda: read_samples(subject, wanted)
    _check_buffers(subject)
    return lru_cache(maxsize=1)(lambda: _features_at(subject, snapshot))


def _check_buffers(subject: Subject) -> None:
    if subject.network is None or any(b.is_floating_point() for b in subject.network.featurizer.buffers()):
        raise InputError(
            f"{subject.name}: its featurizer has buffers such as running means, which kept checkpoints lack, so the "
            "head's earlier features are not known; animate all parameters (--parameters all)"
        )


def _features_at(subject: Subject, snapshot: Snapshot) -> Samples:
    network = subject.network
    assert network is not None
    prefix = "featurizer."
    weights = {name.removeprefix(prefix): p for name, p in snapshot.parameters.items() if name.startswith(prefix)}
    twin = eval_twin(network.featurizer)
    moved = list[Tensor]()
    with torch.no_grad():
        for name, inputs, (_, labels) in zip(subject.domains, network.inputs, subject.seen.domain_samples, strict=True):
            read = Domain(name, inputs, labels)
            moved.append(torch.cat([pure_forward(twin, rows, weights) for rows, _ in chunks(read, 1024)]))
    return [(features, labels) for features, (_, labels) in zip(moved, subject.seen.domain_samples, strict=True)]
