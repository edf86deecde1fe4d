"""Scores of several heads on all rows of one table, by one product for all of them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fishr.data.domains import Domains
from fishr.data.shared_rows import rows_of
from fishr.losses import Loss, accuracy_name, per_sample_losses, shares_correct
from fishr.matrix_products import linear, multiplied
from fishr.statistics.linear_heads import is_plain_linear
from fishr.training.evaluation import DomainScore
from fishr.training.model import Model, evaluating

_CHUNK = 1 << 20  # numbers of a chunk of inputs and logits, which the caches of a core hold
_CHUNK_ON_GPU = 1 << 23
_TOGETHER = 8  # heads of one product; always as many, so that no bit depends on the number of heads


def score_heads(
    model: Model, loss: Loss, weights: Sequence[dict[str, Tensor]], domains: Sequence[Domains], wide: bool = True
) -> list[tuple[DomainScore, ...]]:
    """Return the scores of each head on its domains, as ``evaluate`` does; ``wide``: linear heads in one product."""
    table, labels = _everything(domains[0])
    heads, stacked = len(weights), {name: torch.stack([each[name] for each in weights]) for name in weights[0]}
    wide &= is_plain_linear(model.head) and all(name.startswith("head.") for name in stacked)
    logits_of = _logits_of_linear_heads(model, stacked) if wide else _logits_of_heads(model, stacked)
    measured = list[Tensor]()
    chunk = _CHUNK if table.device.type == "cpu" else _CHUNK_ON_GPU
    size = max(1, chunk // (table[0].numel() + heads * model.outputs))
    with torch.no_grad(), evaluating(model):
        for rows, targets in zip(table.split(size), labels.split(size), strict=True):
            logits, targets = logits_of(rows).flatten(0, 1), targets.repeat(heads, *[1] * (labels.ndim - 1))
            found = torch.stack([per_sample_losses(loss, logits, targets), shares_correct(loss, logits, targets)])
            measured.append(found.view(2, heads, -1))
    of_rows = torch.cat(measured, 2).double()
    return [tuple(_scores(loss, own, of_rows[:, h])) for h, own in enumerate(domains)]


def _logits_of_heads(model: Model, stacked: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function from inputs [N, ...] to logits [H, N, C]."""
    whole = _Whole(model)
    run = vmap(lambda own, inputs: functional_call(whole, own, (inputs,)), (0, None))
    return lambda inputs: run(stacked, inputs)


def _logits_of_linear_heads(model: Model, stacked: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the same function of linear heads on features without weights of their own."""
    heads = len(stacked["head.weight"])
    parts = [stacked[f"head.{name}"] for name, _ in model.head.named_parameters()]
    more = -heads % _TOGETHER
    padded = [torch.cat([part, part.new_zeros(more, *part.shape[1:])]).split(_TOGETHER) for part in parts]
    blocks = [[part.flatten(0, 1) for part in block] for block in zip(*padded, strict=True)]

    def run(inputs: Tensor) -> Tensor:
        features = model.featurizer(inputs).to(parts[0].dtype)
        wide = [linear(features, *block).unflatten(1, (_TOGETHER, -1)) for block in blocks]
        return torch.cat(wide, 1)[:, :heads].transpose(0, 1)

    return run


class _Whole(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.featurizer, self.head = model.featurizer, multiplied(model.head, linear)

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
