"""Write caches of features and of head gradients, part by part, from a run, a recipe or a feature cache."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from fishr.analysis.cache_source import cache_source
from fishr.analysis.cached_heads import head_of
from fishr.configuration import unstructure
from fishr.configuration.toml import toml_text
from fishr.data.caches.domain_rows import Section
from fishr.data.caches.domain_writing import rows_a_part, write_domains
from fishr.data.caches.encoding import Tree, layout_tree
from fishr.data.caches.feature_cache import open_features, write_features
from fishr.losses import Loss, loss_deltas, outputs_of
from fishr.models.frozen import in_blocks
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.functional_moments import per_sample_gradients
from fishr.statistics.linear_heads import is_plain_linear
from fishr.statistics.merge import merge_moments
from fishr.statistics.moments import gradient_moments
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import domain_features
from fishr.types import Layout

Rows = dict[str, NDArray[Any]]
_GRADIENT_BYTES = 1 << 26
_MOMENT_ROWS = 4096


@frozen(eq=False)
class Featured:
    """Domains with features that exist, or are computed part by part, and the head on top."""

    provenance: dict[str, Any]  # everything that decides the features
    description: Tree  # of the head: "text", "outputs", "features", "parameters"
    head: nn.Module  # in eval mode
    loss: Loss
    sections: tuple[Section, ...]
    # (domain, start, stop) to features [n, F], logits [n, C], labels [n], ids [n]
    rows: Callable[[int, int, int], Rows]


def featured_experiment(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    domains: tuple[str, ...] = (),
    chunk: int = 8192,
) -> Featured:
    """Return domains of an experiment's data through its featurizer, with a run's last or the first weights."""
    source = cache_source(experiment, folder, data_dir, device, domains)
    model, state, table = source.model, source.state, unstructure(experiment)
    block = -(-chunk // 64) * 64

    def rows(index: int, start: int, stop: int) -> Rows:
        part = source.part(index, start, stop)
        pairs = list(domain_features(model, experiment, state, part, block))
        features, logits = (torch.cat(found).to(torch.float32).numpy(force=True) for found in zip(*pairs, strict=True))
        labels = part.labels.numpy(force=True)
        return {"features": features, "labels": labels, "logits": logits, "ids": np.arange(start, start + len(labels))}

    parameters: Tree = {name: tensor.numpy(force=True) for name, tensor in model.head.state_dict().items()}
    return Featured(
        provenance=source.provenance,
        description={
            "text": toml_text({name: table[name] for name in ("head", "loss")}),
            "outputs": outputs_of(experiment.loss, source.data.classes),
            "features": experiment.featurizer.features(source.data.shape),
            "parameters": parameters,
            **source.class_names,
        },
        head=model.head.eval(),
        loss=experiment.loss,
        sections=source.sections,
        rows=rows,
    )


def featured_cache(path: Path, device: str = "cpu", plugins: tuple[str, ...] = ()) -> Featured:
    """Return the domains of a feature cache, its head on the device."""
    cache = open_features(path)
    head, loss = head_of(cache, plugins)
    head = head.to(resolve_device(device))
    return Featured(cache.provenance, cache.head, head, loss, cache.sections, cache.domain)


def cache_features(
    featured: Featured,
    path: Path,
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write a feature cache and return True; return False if it exists already. A killed run resumes."""
    provenance, part_rows = featured.provenance | {"dtype": dtype}, rows_a_part(featured.rows(0, 0, 1))
    return write_features(path, provenance, featured.description, featured.sections, featured.rows, part_rows, progress)


def cache_gradients(
    featured: Featured,
    path: Path,
    per_sample: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write a gradient cache and return True; return False if it exists already. A killed run resumes."""
    layout = Layout.of(featured.head)
    if per_sample:
        form, columns, compute, summary = "per-sample", ("gradients", "labels", "ids"), _gradients, _merged
        part_rows = rows_a_part({"gradients": np.zeros((1, layout.size), np.float32)})
    elif is_plain_linear(featured.head):
        form, columns, compute, summary = "factors", ("features", "deltas", "labels", "ids"), _factors, None
        part_rows = rows_a_part(featured.rows(0, 0, 1))
    else:
        form, columns, compute, summary, part_rows = "moments", (), _moments, _merged, _MOMENT_ROWS
    return write_domains(
        path,
        kind="fishr-gradients",
        provenance={"form": form} | featured.provenance,
        head=featured.description,
        sections=featured.sections,
        compute=lambda domain, start, stop: compute(featured, featured.rows(domain, start, stop)),
        columns=columns,
        part_rows=part_rows,
        progress=progress,
        summary=summary,
        more={"form": form, "layout": layout_tree(layout)},
    )


def _factors(featured: Featured, rows: Rows) -> Mapping[str, Any]:
    features, labels = _tensors(featured, rows)
    with torch.no_grad():
        deltas = loss_deltas(featured.loss, in_blocks(featured.head, features), labels)
    return {name: rows[name] for name in ("features", "labels", "ids")} | {"deltas": deltas.numpy(force=True)}


def _moments(featured: Featured, rows: Rows) -> Mapping[str, Any]:
    with torch.no_grad():
        found = [
            gradient_moments(featured.head, z, y, (len(y),), featured.loss, accumulate=torch.float64)
            for z, y in _bounded_parts(featured, rows)
        ]
    return _as_tree(merge_moments(*found))


def _gradients(featured: Featured, rows: Rows) -> Mapping[str, Any]:
    with torch.no_grad():
        found = [per_sample_gradients(featured.head, z, y, featured.loss) for z, y in _bounded_parts(featured, rows)]
    gradients = torch.cat(found)
    wide = gradients.double()
    mean, variance = (part.numpy(force=True) for part in (wide.mean(0), wide.var(0, correction=0)))
    moments = {"count": len(wide), "mean": mean, "variance": variance}
    return moments | {"gradients": gradients.numpy(force=True), "labels": rows["labels"], "ids": rows["ids"]}


def _merged(parts: Iterator[Tree]) -> Mapping[str, Any]:
    """Merge the moments of a domain's parts, one after the other."""
    together: GradientMoments | None = None
    for part in parts:
        tree = cast(dict[str, Any], part)
        mean, variance = (torch.from_numpy(tree[name]).unsqueeze(0) for name in ("mean", "variance"))
        found = GradientMoments((tree["count"],), mean, variance, Layout(("all",), ((mean.shape[1],),)))
        together = found if together is None else merge_moments(together, found)
    assert together is not None
    return _as_tree(together)


def _as_tree(moments: GradientMoments) -> dict[str, Any]:
    mean, variance = (part[0].numpy(force=True) for part in (moments.mean, moments.variance))
    return {"count": moments.count[0], "mean": mean, "variance": variance}


def _bounded_parts(featured: Featured, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Split features and labels so that the gradients of each stay within bounds."""
    size = max(1, _GRADIENT_BYTES // (4 * Layout.of(featured.head).size))
    features, labels = _tensors(featured, rows)
    return zip(features.split(size), labels.split(size), strict=True)


def _tensors(featured: Featured, rows: Rows) -> tuple[Tensor, Tensor]:
    device = next(featured.head.parameters()).device
    features, labels = (torch.from_numpy(np.require(rows[name], None, ["C", "W"])) for name in ("features", "labels"))
    return features.to(device), labels.to(device)
