"""Batches of several domains from one loader a domain."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.row_checks import kind
from fishr.tensor_trees import joined_rows
from fishr.types import DomainBatch


def batches(loaders: Sequence[Iterable[Any]] | Mapping[str, Iterable[Any]]) -> Iterator[DomainBatch]:
    """Yield batches of all domains without end, each of one batch of every loader, in the order of ``loaders``.

    A loader that ends starts again by itself, whatever the others do, so that domains may differ in length; take
    ``itertools.islice(batches(loaders), steps)`` for a number of steps. A loader's batch is a pair of inputs and
    labels, or a dict with the entry "labels" whose other entries are the inputs, as of Hugging Face. Inputs are
    tensors, or dicts, tuples and lists of them. ``batch.to(device)`` moves a batch.

    Args:
        loaders: of each domain, such as a ``torch.utils.data.DataLoader``; a dict's keys appear in errors.

    Raises:
        InputError: no loader, one without a batch or with another kind of batch, or inputs that do not fit together.

    Example:
        >>> pairs = [(torch.tensor([[1.0], [2.0]]), torch.zeros(2)), (torch.tensor([[3.0]]), torch.zeros(1))]
        >>> both = batches({"art": pairs, "photo": pairs[:1]})
        >>> [next(both).sizes for _ in range(3)]
        [(2, 2), (1, 2), (2, 2)]
    """
    given: Any = loaders
    if not isinstance(given, Mapping | Sequence) or not given:
        got = f"{kind(given)} of none" if isinstance(given, Mapping | Sequence) else kind(given)
        raise InputError(f"batches: got {got}, expected a list or dict of loaders, one for each domain")
    named = dict(loaders) if isinstance(loaders, Mapping) else {str(k): loader for k, loader in enumerate(loaders)}
    return _joined(named)


def _joined(loaders: dict[str, Iterable[Any]]) -> Iterator[DomainBatch]:
    for parts in zip(*(_endless(name, loader) for name, loader in loaders.items()), strict=True):
        inputs, labels = zip(*parts, strict=True)
        try:
            together = joined_rows(inputs), torch.cat(labels)
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"batches: got parts of {', '.join(loaders)} that do not fit together ({str(error).splitlines()[0]}), "
                "expected the same entries, types and shapes of a sample from every loader; pad or resize them alike"
            ) from error
        yield DomainBatch(*together, sizes=map(len, labels))


def _endless(name: str, loader: Iterable[Any]) -> Iterator[tuple[Any, Tensor]]:
    while True:
        empty = True
        for part in loader:
            empty = False
            yield _split(name, part)
        if empty:
            raise InputError(
                f"loader {name}: got no batch, expected at least one in every pass; give a DataLoader, not an iterator "
                "that has ended, of a data set with samples (drop_last=True drops a batch that is not full)"
            )


def _split(name: str, part: Any) -> tuple[Any, Tensor]:
    """Return inputs and labels of a loader's batch."""
    match part:
        case {"labels": Tensor() as labels, **inputs}:
            return inputs, labels
        case [inputs, Tensor() as labels]:
            return inputs, labels
        case _:
            entries = isinstance(part, Mapping) and f" with the entries {', '.join(map(str, cast(Any, part)))}"
            raise InputError(
                f"loader {name}: got {kind(part)}{entries or ''}, expected a pair of inputs and labels, or a dict with "
                '"labels"; labels are a torch.Tensor'
            )
