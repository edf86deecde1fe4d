"""The labeled samples of a batch, on one rank or several, by domain: what is known before the model runs."""

import torch
from torch import Tensor

from fishr.compilation import lazy
from fishr.errors import InputError
from fishr.losses import Loss, labeled_rows
from fishr.ranks import Ranks, counts_of_ranks, domains_of_ranks
from fishr.types import DomainBatch


class ObservedSamples:
    """The samples of an ``Observation``."""

    batch: DomainBatch
    loss: Loss
    ranks: Ranks

    @lazy
    def labels(self) -> Tensor:
        """[N] or [N, C]."""
        return self._together(self._labeled(self.batch.labels))

    @lazy
    def present(self) -> tuple[int, ...]:
        """The domains with samples in the batch, in increasing order; all but those that are missing."""
        return tuple(k for k, sizes in enumerate(zip(*self._sizes_of_ranks, strict=True)) if sum(sizes))

    @lazy
    def sizes(self) -> tuple[int, ...]:
        """Samples of each domain present."""
        return tuple(sum(sizes[k] for sizes in self._sizes_of_ranks) for k in self.present)

    @property
    def own_sizes(self) -> tuple[int, ...]:
        """This rank's samples of each domain present on any rank."""
        return tuple(self._labeled_rows[1][k] for k in self.present)

    @property
    def domains(self) -> int:
        """K, the number of domains present; ``batch.domains`` counts the missing ones too."""
        return len(self.present)

    @property
    def domain_ids(self) -> Tensor:
        """[N], the domain of each sample."""
        return torch.tensor(self.present).repeat_interleave(torch.tensor(self.sizes)).to(self.labels.device)

    def per_domain(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Split a tensor with a row for each sample, in the order of ``labels``, into those of each domain present."""
        if len(rows) != sum(self.sizes):
            raise InputError(f"per_domain: got {len(rows)} rows, expected {sum(self.sizes)}, one for each sample")
        return rows.split(list(self.sizes))

    by_domain = per_domain  # its earlier name

    def domain_means(self, values: Tensor) -> Tensor:
        """Return the mean over each domain's samples, [K]."""
        return torch.stack([part.mean() for part in self.per_domain(values)])

    @lazy
    def _labeled_rows(self) -> tuple[Tensor | None, tuple[int, ...]]:
        """This rank's samples that have a label, None for all, and their number in each domain of the batch."""
        return labeled_rows(self.loss, self.batch.labels, self.batch.sizes)

    def _labeled(self, rows: Tensor) -> Tensor:
        chosen, _ = self._labeled_rows
        return rows if chosen is None else rows[chosen]

    @lazy
    def _sizes_of_ranks(self) -> list[tuple[int, ...]]:
        sizes = counts_of_ranks(self._labeled_rows[1], self.ranks)
        if not all(map(any, sizes)):
            raise InputError("labels: got a batch without a label, expected one on each rank; draw more samples")
        return sizes

    def _together(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks by domain, each domain's in the order of ranks."""
        return rows if self.ranks.alone else domains_of_ranks(rows, self._sizes_of_ranks, self.ranks)
