"""The page of a file of features: its data and network, counts, and the features' principal components."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishr.configuration import structure
from fishr.configuration.toml import parse_toml
from fishr.data.caches import describe, open_features
from fishr.data.caches.domain_rows import read_columns
from fishr.data.caches.feature_cache import KIND, FeatureCache
from fishr.errors import InputError
from fishr.reports.charts import ZOOM, csv_data, legend
from fishr.reports.page import Block, Cell, Chart, Facts, Listing, Page, Section, Table, Text
from fishr.reports.sample_pictures import sample_pictures
from fishr.training.experiment import Experiment

# Points of the scatter in all. A domain of more rows than the second is read in slices, since rows of a class often
# follow each other; a smaller one is read at once, since each reading checks the file again.
_POINTS, _SMALL, _SLICES = 1500, 4000, 25
# More classes make no column each.
_COLUMNS = 12


def features_page(
    path: Path, data_dir: Path | None = None, *, pictures: bool = True, plugins: Sequence[str] = ()
) -> Page:
    """Return the page of a file of ``fishr cache features``.

    Args:
        path: The file.
        data_dir: Folder of the data that the features were computed from.
        pictures: Show samples of that data.
        plugins: Modules of its kinds.

    Raises:
        InputError: No such file, or one of another kind or damaged.

    Example:
        >>> features_page(Path("features.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: features.h5: no such file...
    """
    cache = open_features(path)
    names = [section.name for section in cache.sections]
    labels = [read_columns(path, KIND, cache.key, index, ("labels",))["labels"] for index in range(len(names))]
    text = cache.provenance.get("experiment")
    sections = [_content_section(path, cache), _domain_section(cache, labels), _scatter_section(cache)]
    if isinstance(text, str):
        if pictures:
            sections.append(Section("Samples", _pictures(text, data_dir, plugins)))
        sections.append(Section("Origin", [Listing(text, "experiment")]))
    rows = sum(map(len, labels))
    return Page(path.stem, f"features of {rows:,} samples in {len(names)} domains", sections)


def _content_section(path: Path, cache: FeatureCache) -> Section:
    features, said = cache.domain(0, stop=1)["features"].shape[1], cache.provenance
    facts = {
        "samples": f"{sum(section.rows for section in cache.sections):,}",
        "features of a sample": f"{features:,}",
        "classes": f"{cache.classes:,}",
        "numbers": str(said.get("dtype", "float32")),
        "size of the file": f"{describe(path).bytes / 1e6:,.1f} MB",
    }
    facts |= {name: str(said[name]) for name in ("step", "seed", "mode", "transform") if name in said}
    facts |= {"weights, SHA-256": str(said["weights_sha256"])[:12]} if "weights_sha256" in said else {}
    parts = {"featurizer": "model and its preprocessing", "data": "data and its preprocessing"}
    listings: list[Block] = [Listing(str(said[name]), title) for name, title in parts.items() if name in said]
    return Section("Content", [Facts(facts), *listings])


def _domain_section(cache: FeatureCache, labels: Sequence[Any]) -> Section:
    each, names = cache.classes <= _COLUMNS, cache.class_names or [f"class {k}" for k in range(cache.classes)]
    head = ["domain", "split", "samples", *(names if each else ("classes", "fewest of one", "most of one"))]
    rows = list[list[Cell]]()
    for section, found in zip(cache.sections, labels, strict=True):
        counts = np.bincount(found[found >= 0], minlength=cache.classes)
        present = counts[counts > 0]
        summary = [len(present), *(map(int, (present.min(), present.max())) if len(present) else (0, 0))]
        rows.append([section.title, section.split, section.rows, *(counts.tolist() if each else summary)])
    return Section("Domains", [Table(head, rows, ["", "", *[",d"] * (len(head) - 2)], "Samples of each domain.")])


def _scatter_section(cache: FeatureCache) -> Section:
    domains, classes, features = _drawn(cache)
    if len(features) < 2:
        return Section("Principal components", [Text("Fewer than two samples have no principal components.")])
    points, shares = principal_components(features)
    names = cache.class_names or tuple(map(str, range(cache.classes)))
    said = (
        f"The two directions of largest variance over {len(features):,} samples, equally many of each domain, hold "
        f"{shares[0]:.1%} and {shares[1]:.1%} of it. Domains that fall apart here differ in style; classes that do are "
        "easy to tell. The boxes choose a class or a domain."
    )
    columns: dict[str, Sequence[object]] = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "domain": domains,
        "class": [str(label) if label < 0 else names[label] for label in classes],
    }
    charts = [
        _scatter_chart("By domain", columns, "domain", "class", said),
        _scatter_chart("By class", columns, "class", "domain", said),
    ]
    return Section("Principal components", [Text(said), *charts])


def principal_components(features: Tensor) -> tuple[Tensor, list[float]]:
    """Return the first two principal components [n, 2] of features [n, F], and their shares of the variance."""
    centered = features.double() - features.double().mean(0)
    left, values, _ = torch.linalg.svd(centered, full_matrices=False)
    points, total = left[:, :2] * values[:2], float(values.square().sum())
    # The sign of a component is arbitrary; its largest entry is positive.
    signs = points.gather(0, points.abs().argmax(0, keepdim=True)).sign()
    points = torch.nn.functional.pad(points * signs, (0, 2 - points.shape[1]))
    return points, [float(value) ** 2 / total if total else 0.0 for value in [*values[:2].tolist(), 0.0][:2]]


def _drawn(cache: FeatureCache) -> tuple[list[str], list[int], Tensor]:
    """Return domain, class and features of samples spread evenly over each domain, without reading the others."""
    domains, classes, parts = list[str](), list[int](), list[Tensor]()
    for index, section in enumerate(cache.sections):
        wanted = min(section.rows, max(_SLICES, _POINTS // len(cache.sections)))
        if section.rows <= _SMALL:
            chosen, whole = np.linspace(0, section.rows - 1, wanted).astype(int), cache.domain(index)
            read = [{name: whole[name][chosen] for name in ("labels", "features")}]
        else:
            length = -(-wanted // _SLICES)
            starts = np.linspace(0, section.rows - length, _SLICES).astype(int)
            read = [cache.domain(index, start, start + length) for start in starts.tolist()]
        for rows in read:
            classes += rows["labels"].tolist()
            parts.append(torch.from_numpy(rows["features"]))
        domains += [section.title] * sum(len(rows["labels"]) for rows in read)
    return domains, classes, torch.cat(parts) if parts else torch.zeros(0, 1)


def _scatter_chart(title: str, columns: dict[str, Sequence[object]], color: str, other: str, text: str) -> Chart:
    """Return the points in colors by one column, of all or one of the values of the other."""
    # Domains in the order of the file, so that they have the colors of the run's other charts.
    orders = {"domain": list(dict.fromkeys(map(str, columns["domain"])))}
    orders["class"] = sorted({str(value) for value in columns["class"]}, key=_natural)
    values, others = orders[color], orders[other]
    axis = {"type": "quantitative", "scale": {"zero": False}}
    spec = {
        "width": "container",
        "height": 320,
        "data": csv_data(columns),
        "params": [
            {
                "name": "shown",
                "value": "all",
                "bind": {"input": "select", "options": ["all", *others], "name": f"{other} "},
            },
            ZOOM,
        ],
        "transform": [{"filter": f"shown == 'all' || datum['{other}'] == shown"}],
        "mark": {"type": "point", "filled": True, "opacity": 0.55, "size": 18, "clip": True},
        "encoding": {
            "x": {"field": "x", "title": "first component", **axis},
            "y": {"field": "y", "title": "second component", **axis},
            "color": {"field": color, "type": "nominal", "scale": {"domain": values}, "legend": legend(values)},
            "tooltip": [{"field": "domain"}, {"field": "class"}],
        },
    }
    return Chart(title, spec, text, many=True)


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)


def _pictures(text: str, data_dir: Path | None, plugins: Sequence[str]) -> list[Block]:
    try:
        experiment = structure(parse_toml(text), Experiment, plugins)
        return list(sample_pictures(experiment.data(experiment.seed, data_dir))) or [Text("The inputs are no images.")]
    except InputError as error:
        return [Text(f"Samples are not shown: {error}.")]
