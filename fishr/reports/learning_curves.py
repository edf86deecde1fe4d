"""The learning curves of a run, or of two in the same charts."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from attrs import evolve

from fishr.reports.charts import Curve, Scale, aligned, curve_chart
from fishr.reports.page import Block, Section, Text
from fishr.reports.run_record import RunRecord

# Steps, and curves over them.
Curves = tuple[list[int], list[Curve]]


def curve_section(records: Sequence[RunRecord]) -> Section:
    """Return scores, risks and penalties over the steps; dashes tell splits apart, or of two records the runs."""
    names = list(dict.fromkeys(score.title for record in records for score in record.scores))
    metric = records[0].metric

    def of(curves: Callable[[RunRecord], Curves]) -> Curves:
        return aligned([_styled(curves(record), record.name if len(records) > 1 else None) for record in records])

    blocks = list[Block]()
    at, shares = of(lambda record: _scores(record, "accuracy"))
    if any(value is not None and not math.isnan(value) for curve in shares for value in curve.values):
        blocks.append(curve_chart(metric[:1].upper() + metric[1:], at, shares, names=names, percent=True))
    for title, curves, colors in (
        ("Loss of whole domains", lambda record: _scores(record, "loss"), names),
        ("Risk of each batch", _risks, names),
        ("Penalties, without their weights", _terms, ()),
    ):
        at, found = of(curves)
        if found:
            blocks.append(curve_chart(title, at, found, names=colors, scale=_scale(found)))
    hint = "Point at a chart for its values. Drag to move it, Ctrl and the wheel to zoom, double-click to reset it."
    return Section("Learning curves", [*blocks, Text(hint)] if blocks else [])


def _styled(curves: Curves, style: str | None) -> Curves:
    return curves if style is None else (curves[0], [evolve(curve, style=style) for curve in curves[1]])


def _scores(record: RunRecord, name: str) -> Curves:
    columns = zip(*(scores for _, scores in record.evaluations), strict=True)
    curves = [Curve(c[0].title, [getattr(score, name) for score in c], c[0].split) for c in columns]
    return [step for step, _ in record.evaluations], curves


def _risks(record: RunRecord) -> Curves:
    """Return the risk of each training domain, and the minimized one where it is not their mean."""
    drawn = {name for line in record.steps for name in line["domain_losses"]}
    # In the order of the scores; a run that has not evaluated has names alone.
    titles = {s.name: s.title for s in record.scores if s.name in drawn} or {name: name for name in sorted(drawn)}
    curves = [Curve(title, [line["domain_losses"].get(n) for line in record.steps]) for n, title in titles.items()]
    risks = [(line["risk"], fmean(line["domain_losses"].values())) for line in record.steps]
    # Such as GroupDRO's.
    if any(abs(risk - mean) > 1e-3 * abs(risk) for risk, mean in risks):
        curves.append(Curve("minimized risk", [risk for risk, _ in risks]))
    return [line["step"] for line in record.steps], curves


def _terms(record: RunRecord) -> Curves:
    """Return each penalty without its weight, which a schedule may change a thousandfold."""

    def values(name: str) -> list[float | None]:
        terms: list[dict[str, Any]] = [line["terms"][name] for line in record.steps]
        return [term["value"] / term["weight"] if term["weight"] else None for term in terms]

    curves = [Curve(name, values(name)) for name in (record.steps[0]["terms"] if record.steps else ())]
    return [line["step"] for line in record.steps], [c for c in curves if any(v is not None for v in c.values)]


def _scale(curves: list[Curve]) -> Scale:
    values = [value for curve in curves for value in curve.values if value is not None and math.isfinite(value)]
    if min(values, default=0.0) < 0:
        return "symlog"
    return "log" if max(values, default=0.0) > 20 * min(values, default=0.0) else "linear"
