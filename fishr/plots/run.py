"""The figure of a run: its risks, penalties and every domain's accuracy over the steps."""

import json
import math
import tomllib
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.errors import InputError
from fishr.plots.style import color_of, heading, legend, line_of, literal, logarithmic, quiet, save, with_split
from fishr.training.evaluation import DomainScore, score_of
from fishr.training.run_folder import METRICS, read_metrics

FIGURE = "figure.png"


def save_run_figure(folder: Path) -> Path:
    """Draw a run folder's metrics into its figure.png.

    Panels: the risk of each training domain; each penalty that was computed, without its weight; the accuracy on every
    domain. Training domains are dashed. A risk that is not the mean of the domains' risks is black.

    Raises:
        InputError: the metrics are damaged.
        RunFailed: the figure could not be written.
    """
    lines = read_metrics(folder)
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "scores" in line]
    if not evaluations:
        raise InputError(f"{folder / METRICS}: got no evaluation of a finished run; put back the file, or train again")
    name = json.loads((folder / "result.json").read_text())["name"]
    averaged = "average" in tomllib.loads((folder / "config.toml").read_bytes().decode())
    # A domain has one color in all panels; penalties take the colors after the domains'.
    scores = [score_of(score) for score in evaluations[0]["scores"]]
    penalties = _penalties(steps)
    figure = Figure(figsize=(11, 4))
    first, *middle, last = figure.subplots(1, 3 if penalties else 2, sharex=True)
    _risks(first, steps, {score.name: score.title for score in scores if score.split == "training"})
    for axes in middle:
        for index, (label, curve) in enumerate(penalties.items()):
            axes.plot(*zip(*curve, strict=True), label=label, **_style(len(scores) + index, steps))
        _scaled(axes, [value for curve in penalties.values() for _, value in curve])
        quiet(axes, "penalties without their weights", "step", "")
    _accuracies(last, evaluations, scores, " of the averaged weights" if averaged else "")
    heading(figure, literal(name))
    # Margins for the labels that these panels have: to fit them takes longer than all else of the drawing.
    below = 0.55 + 0.22 * legend(figure, fitted=False)
    figure.set_figheight(3.4 + below)
    figure.subplots_adjust(
        left=0.07, right=0.99, bottom=below / (3.4 + below), top=1 - 0.52 / (3.4 + below), wspace=0.2
    )
    return save(figure, folder / FIGURE)


def _penalties(steps: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values of each penalty where its weight, which may change a thousandfold, is not zero."""
    terms = {name: [(line["step"], line["terms"][name]) for line in steps] for name in steps[0]["terms"]}
    curves = {
        literal(name): [(step, term["value"] / term["weight"]) for step, term in found if term["weight"]]
        for name, found in terms.items()
    }
    return {label: curve for label, curve in curves.items() if curve}


def _risks(axes: Axes, steps: list[dict[str, Any]], titles: dict[str, str]) -> None:
    at = [line["step"] for line in steps]
    for index, (name, title) in enumerate(titles.items()):
        # A domain may be missing from a step's batch.
        curve = [line["domain_losses"].get(name, math.nan) for line in steps]
        axes.plot(at, curve, line_of("training"), label=with_split(title, "training"), **_style(index, steps))
    # Such as GroupDRO's, which is no mean of the domains' risks.
    risks = [(line["risk"], _mean(line["domain_losses"])) for line in steps]
    if any(abs(risk - mean) > 1e-3 * abs(risk) for risk, mean in risks):
        axes.plot(at, [risk for risk, _ in risks], label="risk, minimized", **_style(0, steps, "black"))
    _scaled(axes, [risk for risk, _ in risks])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet(axes, "risk on the batches", "step", "loss")


def _style(index: int, steps: list[dict[str, Any]], color: str | None = None) -> dict[str, Any]:
    return {"color": color or color_of(index), "linewidth": 1.4} | ({} if len(steps) > 1 else {"marker": "o"})


def _scaled(axes: Axes, values: list[float]) -> None:
    # A risk with an adversary, and IRM's product of half batches may be negative.
    if min(values) < 0:
        axes.set_yscale("symlog", linthresh=1e-4)
    elif max(values) > 0:
        logarithmic(axes)


def _mean(losses: dict[str, float | None]) -> float:
    return fmean(loss for loss in losses.values() if loss is not None)


def _accuracies(axes: Axes, evaluations: list[dict[str, Any]], domains: list[DomainScore], of: str) -> None:
    at = [line["step"] for line in evaluations]
    for index, domain in enumerate(domains):
        shares = [line["scores"][index]["accuracy"] for line in evaluations]
        curve = [math.nan if share is None else 100 * share for share in shares]
        label, color = with_split(domain.title, domain.split), color_of(index)
        axes.plot(at, curve, line_of(domain.split), label=label, color=color, marker="o", markersize=2.5, linewidth=1.4)
    axes.set_ylim(0, 100)
    quiet(axes, evaluations[-1]["scores"][0].get("accuracy_name", "accuracy") + of, "step", "%")
