"""Gradient caches: factors of a head's per-sample gradients, or the gradients themselves, and their moments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen

from fishr.data.caches.domain_rows import (
    Section,
    check_columns,
    check_moments,
    read_columns,
    read_mapping,
    read_origin,
    read_sections,
    whole_number,
)
from fishr.data.caches.encoding import Array, layout_of, read_element
from fishr.data.caches.hdf5 import opened
from fishr.errors import InputError
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.linear_heads import linear_moments
from fishr.statistics.merge import merge_moments
from fishr.types import Layout

KIND = "fishr-gradients"
FORMS = ("factors", "moments", "per-sample")
_ROWS = 8192


@frozen(eq=False)
class GradientCache:
    """A file of gradients, read on demand and open only while something is read.

    Args:
        key: Hash of everything that decides its rows.
        head: The head's description, its number of outputs and its parameters.
        form: "factors" (features z and δ = ∂ℓ/∂logits of a linear head, whose per-sample gradients are δ ⊗ z and
            δ), "moments" (means and variances alone), or "per-sample" (moments, and the gradients themselves).
        layout: Which column of a statistic is which parameter.
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    head: dict[str, Any]
    form: str
    layout: Layout
    sections: tuple[Section, ...]

    def domain(self, index: int, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return rows of a domain, from ``start`` to ``stop``.

        Factors: features [n, F], deltas [n, C], labels [n] and ids [n]. Per-sample gradients: gradients [n, P], labels
        and ids. Moments have no rows.

        Raises:
            InputError: No such domain, a value is not finite, or the file is damaged or was replaced.
        """
        return read_columns(self.path, KIND, self.key, index, tuple(_columns(self.form, self.layout)), start, stop)

    def moments(self) -> GradientMoments:
        """Return the moments of each domain's per-sample gradients, float64: as stored, or of factors in closed form.

        Raises:
            InputError: A value is not finite, or the file is damaged or was replaced.
        """
        rows = [merge_moments(*self._moments(index)) for index in range(len(self.sections))]
        mean, variance = (torch.cat([getattr(row, name) for row in rows]) for name in ("mean", "variance"))
        return GradientMoments(tuple(row.count[0] for row in rows), mean, variance, self.layout)

    def _moments(self, index: int) -> Iterator[GradientMoments]:
        if self.form == "factors":
            for start in range(0, self.sections[index].rows, _ROWS):
                rows = self.domain(index, start, start + _ROWS)
                deltas, features = (torch.from_numpy(rows[name].astype(np.float64)) for name in ("deltas", "features"))
                yield linear_moments(deltas, features, (len(deltas),), bias=len(self.layout.names) == 2)
            return
        stored = read_columns(self.path, KIND, self.key, index, ("mean", "variance"))
        check_moments(self.path, self.sections[index].name, stored, self.layout.size)
        mean, variance = (torch.from_numpy(stored[name]).unsqueeze(0) for name in ("mean", "variance"))
        yield GradientMoments((self.sections[index].rows,), mean, variance, self.layout)


def open_gradients(path: Path) -> GradientCache:
    """Open a file of ``fishr cache gradients``; its rows are read on demand.

    Raises:
        InputError: The file is absent, of another program or kind, newer, incomplete or damaged, or a label is no
            class.
    """
    with opened(path, KIND) as file:
        (provenance, key), head, form = read_origin(file), read_mapping(file, "head"), read_element(file, "form")
        if form not in FORMS:
            raise InputError(f"{path}: got gradients of form {form!r}, expected one of {', '.join(FORMS)}")
        layout, sections = layout_of(read_element(file, "layout")), read_sections(file)
        # A single output tells two classes apart.
        check_columns(path, file, sections, _columns(form, layout), max(2, whole_number(head, "outputs", "head")))
        return GradientCache(path, key, provenance, head, form, layout, sections)


def _columns(form: str, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return the shape of a row of each column; moments have none."""
    if form == "factors":
        outputs, features = layout.shapes[0]
        return {"features": (features,), "deltas": (outputs,), "labels": (), "ids": ()}
    return {"gradients": (layout.size,), "labels": (), "ids": ()} if form == "per-sample" else {}
