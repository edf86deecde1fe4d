"""From a run, a recipe or a feature cache to a cache of its head's gradients, a part of a domain at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fishr.analysis.feature_caching import Featured, Rows, head_tree
from fishr.data.caches import Content, Tree, rows_a_part, write_domains
from fishr.losses import loss_deltas
from fishr.models.frozen import in_blocks
from fishr.statistics.functional_moments import per_sample_gradients
from fishr.statistics.linear_head import is_plain_linear
from fishr.statistics.merge import merge_moments
from fishr.statistics.moments import gradient_moments
from fishr.types import GradientMoments, Layout

_GRADIENT_BYTES = 1 << 26
_MOMENT_ROWS = 4096


def cache_gradients(
    featured: Featured, path: Path, per_sample: bool = False, progress: Callable[[int], object] = lambda rows: None
) -> bool:
    """Write a gradient cache: of a linear head its factors, of another one moments and, if wanted, the gradients.

    Args:
        featured: the domains and the head.
        path: where.
        per_sample: keep the per-sample gradients [n, P] themselves.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: something else is there, another process is writing it, or the head has no such gradients.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> from fishr.analysis.feature_caching import featured_experiment
        >>> from fishr.data.caches import open_gradients
        >>> from fishr.protocols import colored_digits
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "gradients.h5")
        ...     written = cache_gradients(featured_experiment(colored_digits()), path)
        ...     open_gradients(path).form, open_gradients(path).moments().variance.shape
        ('factors', torch.Size([4, 391]))
    """
    layout = Layout.of(featured.head)
    row = featured.rows(0, 0, 1)
    if per_sample:
        form, columns, compute = "per-sample", ("gradients", "labels", "ids"), _gradients
        width = {"gradients": np.zeros((1, layout.size), np.float32)}
        part_rows, summary = rows_a_part(width), _merged
    elif is_plain_linear(featured.head):
        form, columns, compute = "factors", ("features", "deltas", "labels", "ids"), _factors
        part_rows, summary = rows_a_part(row), None
    else:
        form, columns, compute = "moments", (), _moments
        part_rows, summary = _MOMENT_ROWS, _merged
    shapes = {name: np.array(shape, np.int64) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    content = Content(
        kind="fishr-gradients",
        provenance={"form": form} | featured.provenance,
        head=head_tree(featured, row),
        sections=featured.sections,
        compute=lambda domain, start, stop: compute(featured, featured.rows(domain, start, stop)),
        columns=columns,
        summary=summary,
        more={"form": form, "layout": {"names": layout.names, "shapes": shapes}},
    )
    return write_domains(path, content, part_rows, progress)


def _factors(featured: Featured, rows: Rows) -> Rows:
    features, labels = _tensors_of(featured, rows)
    with torch.no_grad():
        deltas = loss_deltas(featured.loss, in_blocks(featured.head, features), labels)
    return {name: rows[name] for name in ("features", "labels", "ids")} | {"deltas": deltas.numpy(force=True)}


def _moments(featured: Featured, rows: Rows) -> Tree:
    """Moments of the rows, so many at a time that their gradients stay within bounds."""
    features, labels = _tensors_of(featured, rows)
    size = _rows_at_once(featured)
    with torch.no_grad():
        found = [
            gradient_moments(featured.head, z, y, (len(y),), featured.loss, accumulate=torch.float64)
            for z, y in zip(features.split(size), labels.split(size), strict=True)
        ]
    together = merge_moments(*found)
    mean, variance = (part[0].numpy(force=True) for part in (together.mean, together.variance))
    return {"count": together.count[0], "mean": mean, "variance": variance}


def _gradients(featured: Featured, rows: Rows) -> Tree:
    features, labels = _tensors_of(featured, rows)
    size = _rows_at_once(featured)
    parts = zip(features.split(size), labels.split(size), strict=True)
    with torch.no_grad():
        found = torch.cat([per_sample_gradients(featured.head, z, y, featured.loss) for z, y in parts])
    wide = found.double()
    moments: Tree = {
        "count": len(found),
        "mean": wide.mean(0).numpy(force=True),
        "variance": wide.var(0, correction=0).numpy(force=True),
    }
    return moments | {"gradients": found.numpy(force=True), "labels": rows["labels"], "ids": rows["ids"]}


def _merged(parts: Iterator[Tree]) -> Tree:
    """Moments of a domain from those of its parts."""
    together: GradientMoments | None = None
    for part in parts:
        tree = cast(dict[str, Any], part)
        mean, variance = (torch.from_numpy(tree[name]).unsqueeze(0) for name in ("mean", "variance"))
        layout = Layout(("all",), ((mean.shape[1],),))
        found = GradientMoments((tree["count"],), mean, variance, layout)
        together = found if together is None else merge_moments(together, found)
    assert together is not None
    return {"count": together.count[0], "mean": together.mean[0].numpy(), "variance": together.variance[0].numpy()}


def _rows_at_once(featured: Featured) -> int:
    return max(1, _GRADIENT_BYTES // (4 * Layout.of(featured.head).size))


def _tensors_of(featured: Featured, rows: Rows) -> tuple[Tensor, Tensor]:
    device = next(featured.head.parameters()).device
    features, labels = (torch.from_numpy(np.require(rows[name], None, ["C", "W"])) for name in ("features", "labels"))
    return features.to(device), labels.to(device)
