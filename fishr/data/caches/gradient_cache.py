"""Gradient caches: what the per-sample gradients of a head follow from, or they themselves, and their moments."""

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
    check_rows,
    classes_of,
    read_columns,
    read_mapping,
    read_origin,
    read_sections,
    whole_number,
)
from fishr.data.caches.encoding import Array, read_element
from fishr.data.caches.hdf5 import opened
from fishr.errors import InputError
from fishr.statistics.linear_head import linear_moments
from fishr.statistics.merge import merge_moments
from fishr.types import GradientMoments, Layout

KIND = "fishr-gradients"
# Rows of each domain, by form; moments have none.
COLUMNS = {
    "factors": ("features", "deltas", "labels", "ids"),
    "moments": (),
    "per-sample": ("gradients", "labels", "ids"),
}
_ROWS = 8192


@frozen(eq=False)
class GradientCache:
    """A file of gradients, read on demand; it is open only while something is read.

    Args:
        path: of the file.
        key: hash of everything that decides its rows.
        provenance: what that is.
        head: the head's description, its number of outputs and its parameters.
        form: "factors" (features z and δ = ∂ℓ/∂logits of a linear head, whose per-sample gradients are δ ⊗ z and
            δ), "moments" (means and variances alone), or "per-sample" (moments, and the gradients themselves).
        layout: which column of a statistic is which parameter.
        sections: the domains.

    Example:
        >>> cache = GradientCache(Path("nowhere.h5"), "0123", {}, {}, "moments", Layout(("weight",), ((2,),)), ())
        >>> cache.layout.size
        2
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    head: dict[str, Any]
    form: str
    layout: Layout
    sections: tuple[Section, ...]

    def domain(self, index: int, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Rows of a domain.

        Of factors: features [n, F], deltas [n, C], labels [n] and ids [n]; of per-sample gradients: gradients [n, P],
        labels and ids; of moments there are none.

        Args:
            index: of the domain in ``sections``.
            start: the first row.
            stop: the row after the last one; None: to the end.

        Raises:
            InputError: no such domain, a value that is not finite, or the file is damaged or another one by now.
        """
        rows = read_columns(self.path, KIND, self.key, index, COLUMNS[self.form], start, stop)
        check_rows(self.path, self.sections[index].name, rows, start)
        return rows

    def moments(self) -> GradientMoments:
        """Moments of the per-sample gradients in each domain, float64: those stored, or of factors the closed form.

        Raises:
            InputError: the file is damaged or another one by now, or values are not finite.
        """
        rows = [_together(list(self._moments(index))) for index in range(len(self.sections))]
        counts = tuple(row.count[0] for row in rows)
        mean, variance = (torch.cat([getattr(row, name) for row in rows]) for name in ("mean", "variance"))
        return GradientMoments(counts, mean, variance, self.layout)

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
    """A file that ``fishr cache gradients`` wrote, its rows still unread.

    Args:
        path: of the file.

    Raises:
        InputError: absent, another program's, of another kind, newer, incomplete or damaged, or with labels that are
            no classes.

    Example:
        >>> open_gradients(Path("nowhere.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    with opened(path, KIND) as file:
        (provenance, key), head, form = read_origin(file), read_mapping(file, "head"), read_element(file, "form")
        if form not in COLUMNS:
            raise InputError(f"{path}: got gradients of form {form!r}, expected one of {', '.join(COLUMNS)}")
        stored = read_element(file, "layout")
        shapes = tuple(tuple(int(n) for n in stored["shapes"][name]) for name in stored["names"])
        layout, sections = Layout(stored["names"], shapes), read_sections(file)
        classes = classes_of(whole_number(head, "outputs", "head"))
        check_columns(path, file, sections, _columns(form, layout), classes)
        return GradientCache(path, key, provenance, head, form, layout, sections)


def _columns(form: str, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Shapes of a row of each column."""
    if form == "factors":
        outputs, features = layout.shapes[0]
        return {"features": (features,), "deltas": (outputs,), "labels": (), "ids": ()}
    return {"gradients": (layout.size,), "labels": (), "ids": ()} if form == "per-sample" else {}


def _together(parts: list[GradientMoments]) -> GradientMoments:
    return merge_moments(*parts) if len(parts) > 1 else parts[0]
