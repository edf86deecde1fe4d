"""The page of a run: its scores, data, objective and learning curves, and what was measured of it."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from fishr.reports.charts import Curve, Scale, curve_chart
from fishr.reports.page import Block, Cell, Facts, Listing, Page, Section, Table, Text
from fishr.reports.run_record import RunRecord, read_run
from fishr.training.evaluation import DomainScore
from fishr.training.experiment import Experiment
from fishr.training.explanation import run_outline


def run_page(folder: Path, experiment: Experiment) -> Page:
    """Return the page of a run folder.

    Args:
        folder: The run folder.
        experiment: Its experiment.

    Raises:
        InputError: Its records are damaged.

    Example:
        >>> import tempfile
        >>> import attrs
        >>> from fishr.configuration import dumps
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import run
        >>> experiment = attrs.evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent, "first")
        ...     _ = list(run(experiment, folder, experiment_text=dumps(experiment)))
        ...     page = run_page(folder, experiment)
        >>> page.title, [section.title for section in page.sections]
        ('first', ['Result', 'Learning curves', 'Objective and settings'])
    """
    record = read_run(folder, experiment)
    sections = [result_section(record), curve_section(record), setting_section(record)]
    return Page(record.name, _subtitle(record), [section for section in sections if section.blocks])


def result_section(record: RunRecord) -> Section:
    scores = record.scores
    if not scores:
        return Section("Result", [Text("The run has not evaluated its weights yet.")])
    blocks: list[Block] = [Text(record.result["message"])] if record.result.get("status") == "failed" else []
    worst = min(range(len(scores)), key=lambda index: _goodness(scores[index]))
    facts = {"worst domain": f"{scores[worst].title}: {_figure(scores[worst])}"}
    for split in ("training", "evaluation"):
        of = [score for score in scores if score.split == split and not math.isnan(score.accuracy)]
        if of:
            facts[f"mean {record.metric}, {split}"] = f"{fmean(score.accuracy for score in of):.1%}"
    rows: list[tuple[Cell, ...]] = [(s.title, s.split, s.samples, s.accuracy, s.loss) for s in scores]
    head = ("domain", "split", "samples", record.metric, "loss")
    caption = f"{_weights(record)} on each domain; the worst one stands out."
    return Section("Result", [*blocks, Facts(facts), Table(head, rows, ("", "", ",d", ".1%", ".4f"), caption, [worst])])


def curve_section(record: RunRecord) -> Section:
    blocks, names = list[Block](), domain_titles(record)
    if record.evaluations:
        at, found = zip(*record.evaluations, strict=True)
        columns = list(zip(*found, strict=True))
        shares = [Curve(c[0].title, [score.accuracy for score in c], c[0].split) for c in columns]
        if any(not math.isnan(value or 0) for curve in shares for value in curve.values):
            blocks.append(curve_chart(_first_upper(record.metric), at, shares, names=names, percent=True))
        losses = [Curve(c[0].title, [score.loss for score in c], c[0].split) for c in columns]
        blocks.append(curve_chart("Loss of whole domains", at, losses, names=names, scale=_scale(losses)))
    if record.steps:
        at = [line["step"] for line in record.steps]
        risks = _risks(record)
        blocks.append(curve_chart("Risk of each batch", at, risks, names=names, scale=_scale(risks)))
        terms = _terms(record)
        if terms:
            blocks.append(curve_chart("Penalties, without their weights", at, terms, scale=_scale(terms)))
    hint = "Point at a chart for its values. Drag to move it, Ctrl and the wheel to zoom, double-click to reset it."
    return Section("Learning curves", [*blocks, Text(hint)] if blocks else [])


def setting_section(record: RunRecord) -> Section:
    result, experiment = record.result, record.experiment
    facts = {"steps": f"{experiment.steps}", "seed": f"{experiment.seed}"}
    if result:
        facts |= {"device": str(result.get("device")), "time": f"{result.get('seconds', math.nan):.4g} s"}
        facts |= {name: str(value) for name, value in result.get("versions", {}).items()}
    return Section(
        "Objective and settings", [Listing(run_outline(experiment)), Facts(facts), Listing(record.text, "config.toml")]
    )


def domain_titles(record: RunRecord) -> list[str]:
    """Return the domains' titles in the order of their colors."""
    return [score.title for score in record.scores]


def _subtitle(record: RunRecord) -> str:
    status = str(record.result.get("status", "not finished"))
    done = record.steps[-1]["step"] + 1 if record.steps else record.experiment.steps
    return f"{record.experiment.name}: a run of {done} steps, {status}"


def _weights(record: RunRecord) -> str:
    return "The averaged weights" if record.experiment.average is not None else "The last weights"


def _goodness(score: DomainScore) -> float:
    return -score.loss if math.isnan(score.accuracy) else score.accuracy


def _figure(score: DomainScore) -> str:
    return f"loss {score.loss:.4g}" if math.isnan(score.accuracy) else score.percentage


def _risks(record: RunRecord) -> list[Curve]:
    """Return the risk of each training domain, and the minimized one where it is not their mean."""
    drawn = {name for line in record.steps for name in line["domain_losses"]}
    # In the order of the scores; a run that has not evaluated has names alone.
    titles = {s.name: s.title for s in record.scores if s.name in drawn} or {name: name for name in sorted(drawn)}
    curves = [
        Curve(title, [line["domain_losses"].get(name) for line in record.steps]) for name, title in titles.items()
    ]
    risks = [(line["risk"], fmean(line["domain_losses"].values())) for line in record.steps]
    # Such as GroupDRO's.
    if any(abs(risk - mean) > 1e-3 * abs(risk) for risk, mean in risks):
        curves.append(Curve("minimized risk", [risk for risk, _ in risks]))
    return curves


def _terms(record: RunRecord) -> list[Curve]:
    """Return each penalty without its weight, which a schedule may change a thousandfold."""

    def values(name: str) -> list[float | None]:
        terms: list[dict[str, Any]] = [line["terms"][name] for line in record.steps]
        return [term["value"] / term["weight"] if term["weight"] else None for term in terms]

    curves = [Curve(name, values(name)) for name in record.steps[0]["terms"]]
    return [curve for curve in curves if any(value is not None for value in curve.values)]


def _scale(curves: list[Curve]) -> Scale:
    values = [value for curve in curves for value in curve.values if value is not None and math.isfinite(value)]
    if min(values, default=0.0) < 0:
        return "symlog"
    return "log" if max(values, default=0.0) > 20 * min(values, default=0.0) else "linear"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
