"""Charts of a sweep: accuracies by test domain, and every job as a point against a hyper-parameter of choice."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from fishr.protocols.domainbed.collection import averages_table
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import TITLES, Chosen
from fishr.protocols.domainbed.tables import Table, by_reference
from fishr.reports.charts import ZOOM, csv_data
from fishr.reports.page import Chart

_DECADE = 10.0
_AVERAGE, _ALL = "average", "all"


@frozen
class Job:
    """A job with one test environment: its key, its selected step, and its hyper-parameters."""

    key: JobKey
    chosen: Chosen
    drawn: Mapping[str, Any]


def domain_chart(dataset: str, tables: Sequence[Table]) -> Chart:
    """Return accuracies with standard errors by algorithm and selection, of the test domain that a select box names."""
    points = list[tuple[Any, ...]]()
    for table in tables:
        averages = {row.algorithm: row.cells[0] for row in averages_table([table]).rows}
        for row in table.rows:
            cells = [*zip(table.columns, row.cells, strict=True), (_AVERAGE, averages[row.algorithm])]
            for domain, cell in cells:
                if cell is not None and cell.mean is not None:
                    error = cell.standard_error or 0.0
                    ends = (cell.mean, cell.mean - error, cell.mean + error)
                    points.append((row.label, domain, TITLES[table.selection], *ends))
    names = ("algorithm", "domain", "selection", "mean", "low", "high")
    columns: dict[str, Sequence[Any]] = {name: [point[at] for point in points] for at, name in enumerate(names)}
    selections = list(dict.fromkeys(columns["selection"]))
    domains = [_AVERAGE, *dict.fromkeys(name for table in tables for name in table.columns)]
    accuracy = {"type": "quantitative", "title": "accuracy, %", "scale": {"zero": False}, "axis": {"tickCount": 6}}
    order = list(dict.fromkeys(columns["algorithm"]))
    encoding = {
        "y": {"field": "algorithm", "type": "nominal", "sort": order, "title": None},
        "yOffset": {"field": "selection", "sort": selections},
        "color": {"field": "selection", "type": "nominal", "scale": {"domain": selections}, "legend": {"title": None}},
        "tooltip": [
            {"field": "algorithm"},
            {"field": "selection"},
            {"field": "mean", "type": "quantitative", "format": ".2f"},
            {"field": "low", "type": "quantitative", "format": ".2f", "title": "mean − standard error"},
            {"field": "high", "type": "quantitative", "format": ".2f", "title": "mean + standard error"},
        ],
    }
    spec = {
        "width": "container",
        "height": max(120, (14 * len(selections) + 8) * len(order)),
        "data": csv_data(columns),
        "params": [_select("domain_shown", domains, "test domain ")],
        "transform": [{"filter": "datum.domain == domain_shown"}],
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "rule"}, "encoding": {"x": {"field": "low", **accuracy}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {"x": {"field": "mean", **accuracy}}},
        ],
    }
    said = [f"{a}, {s}: {mean:.1f}" for a, d, s, mean, *_ in points if d == _AVERAGE]
    return Chart(f"{dataset}: accuracy by test domain", spec, "; ".join(said) or "no whole average yet")


def job_chart(dataset: str, jobs: Sequence[Job], domains: Sequence[str]) -> Chart:
    """Return a point a job: an accuracy against a hyper-parameter, both chosen in select boxes."""
    numbers = _numbers(jobs)
    codes = {name: f"h{index}" for index, name in enumerate(numbers)}
    wide = [codes[name] for name, values in numbers.items() if _is_wide(values)]
    columns: dict[str, Sequence[object]] = {
        "algorithm": [job.key.algorithm for job in jobs],
        "domain": [domains[one] if (one := job.key.test_envs[0]) < len(domains) else str(one) for job in jobs],
        "draw": [job.key.hparams_seed for job in jobs],
        "trial": [job.key.trial_seed for job in jobs],
        "step": [job.chosen.step for job in jobs],
        "validation": [job.chosen.validation for job in jobs],
        "test": [job.chosen.test for job in jobs],
        **{codes[name]: values for name, values in numbers.items()},
    }
    algorithms = sorted({job.key.algorithm for job in jobs}, key=by_reference)
    x = {"labels": [*numbers, "validation accuracy"], "options": [*codes.values(), "validation"]}
    is_wide = f"indexof({wide}, horizontal) >= 0"
    label = (
        f"{is_wide} ? format(pow(10, datum.value), '.2~g') : "
        "horizontal == 'validation' ? format(datum.value, '.0%') : datum.label"
    )
    shares = {"type": "quantitative", "format": ".1%"}
    spec = {
        "width": "container",
        "height": 360,
        "data": csv_data(columns),
        "params": [
            _select("horizontal", x["options"], "across ", x["labels"]),
            _select("vertical", ["test", "validation"], "up ", ["test accuracy", "validation accuracy"]),
            _select("algorithm_shown", [_ALL, *algorithms], "algorithm "),
            _select("domain_shown", [_ALL, *domains], "test domain "),
            ZOOM,
        ],
        "transform": [
            {"filter": f"algorithm_shown == '{_ALL}' || datum.algorithm == algorithm_shown"},
            {"filter": f"domain_shown == '{_ALL}' || datum.domain == domain_shown"},
            {"calculate": "datum[horizontal]", "as": "value"},
            {"calculate": f"{is_wide} ? log(datum.value) / LN10 : datum.value", "as": "across"},
            {"calculate": "datum[vertical]", "as": "up"},
        ],
        "mark": {"type": "point", "filled": True, "opacity": 0.6, "size": 28, "clip": True},
        "encoding": {
            "x": {
                "field": "across",
                "type": "quantitative",
                "title": None,
                "scale": {"zero": False, "padding": 12},
                "axis": {"labelExpr": label, "tickCount": 8},
            },
            "y": {
                "field": "up",
                "type": "quantitative",
                "title": "accuracy",
                "scale": {"zero": False},
                "axis": {"format": "%"},
            },
            "color": {"field": "domain", "type": "nominal", "scale": {"domain": list(domains)}, "title": "test domain"},
            "tooltip": [
                *({"field": name, "type": "nominal"} for name in ("algorithm", "domain", "draw", "trial", "step")),
                {"field": "validation", "title": "validation accuracy", **shares},
                {"field": "test", "title": "test accuracy", **shares},
                {"field": "value", "title": "hyper-parameter", "type": "quantitative", "format": ".4~g"},
            ],
        },
    }
    best = max(jobs, key=lambda job: job.chosen.test)
    text = f"{len(jobs)} jobs; the highest test accuracy is {best.chosen.test:.1%}, of {best.key}"
    return Chart(f"{dataset}: every job", spec, text, many=True)


def _select(name: str, options: Sequence[str], label: str, labels: Sequence[str] | None = None) -> dict[str, Any]:
    bind = {"input": "select", "options": list(options), "name": label}
    return {"name": name, "value": options[0], "bind": bind if labels is None else bind | {"labels": list(labels)}}


def _numbers(jobs: Sequence[Job]) -> dict[str, list[float | None]]:
    """Return the hyper-parameters that are numbers and differ, those of most jobs and of the widest range first."""
    found = dict[str, list[float | None]]()
    for name in dict.fromkeys(name for job in jobs for name in job.drawn):
        drawn = [job.drawn.get(name) for job in jobs]
        values = [float(one) if isinstance(one, int | float) and not isinstance(one, bool) else None for one in drawn]
        if len({value for value in values if value is not None and math.isfinite(value)}) > 1:
            found[name] = values
    return dict(sorted(found.items(), key=lambda item: (item[1].count(None), not _is_wide(item[1]))))


def _is_wide(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return min(known) > 0 and max(known) >= _DECADE * min(known)
