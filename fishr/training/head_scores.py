"""Scores of several heads on all rows of one table, by one product for all of them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fishr.data.domains import Domains
from fishr.data.shared_rows import rows_of
from fishr.losses import Loss, accuracy_name, per_sample_losses, shares_correct
from fishr.training.evaluation import DomainScore
from fishr.training.model import Model, evaluating

_CHUNK = 1 << 20  # numbers of a chunk of inputs and logits, which the caches of a core hold


def score_heads(
    model: Model, loss: Loss, weights: Sequence[dict[str, Tensor]], domains: Sequence[Domains]
) -> list[tuple[DomainScore, ...]]:
    """Return the scores of each head on its domains, with parameters by name, as ``evaluate`` does."""
    table, labels = _everything(domains[0])
    whole, heads = _Whole(model), len(weights)
    stacked = {name: torch.stack([each[name] for each in weights]) for name in weights[0]}
    measured = list[Tensor]()
    size = max(1, _CHUNK // (table[0].numel() + heads * model.outputs))
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(table), size):
            rows, targets = table[start : start + size], labels[start : start + size]
            logits = vmap(lambda own, inputs: functional_call(whole, own, (inputs,)), (0, None))(stacked, rows)
            logits, targets = logits.flatten(0, 1), targets.repeat(heads, *[1] * (labels.ndim - 1))
            found = torch.stack([per_sample_losses(loss, logits, targets), shares_correct(loss, logits, targets)])
            measured.append(found.view(2, heads, -1))
    of_rows = torch.cat(measured, 2).double()
    return [tuple(_scores(loss, own, of_rows[:, h])) for h, own in enumerate(domains)]


class _Whole(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.featurizer, self.head = model.featurizer, model.head

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.featurizer(inputs))


def _everything(domains: Domains) -> tuple[Tensor, Tensor]:
    """Return the table of some domains, and the labels of its rows; those of other rows are 0."""
    table, labels = rows_of(domains.training[0]).table, domains.training[0].labels
    every = labels.new_zeros(len(table), *labels.shape[1:])
    for domain, _ in domains.by_split:
        every[rows_of(domain).rows] = domain.labels
    return table, every


def _scores(loss: Loss, domains: Domains, of_rows: Tensor) -> Iterator[DomainScore]:
    """Yield the score of each domain, of losses and shares of right predictions [2, rows]."""
    for domain, split in domains.by_split:
        count, name = len(domain.labels), accuracy_name(loss, domain.labels)
        mean, accuracy = (of_rows[:, rows_of(domain).rows].sum(1) / count).tolist()
        named = None if name == "accuracy" else name
        yield DomainScore(domain.name, split, mean, accuracy, count, domain.environment, named)
