"""The figure of a run: its losses and every domain's accuracy over the steps."""

import json
import math
import tomllib
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.plots.style import color_of, heading, legend, line_of, literal, quiet, save, with_split

FIGURE = "figure.png"


def save_run_figure(folder: Path) -> Path:
    """Draw a run folder's metrics into its figure.png.

    Left: the risk of each training domain and each penalty term that was computed, logarithmic. Right: the accuracy on
    every domain, training dashed, evaluation solid. A risk that is not the mean of the domains' risks is black.

    Raises:
        RunFailed: the figure could not be written.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "scores" in line]
    name = json.loads((folder / "result.json").read_text())["name"]
    # Margins for the labels that these panels have: to fit them takes longer than all else of the drawing.
    figure = Figure(figsize=(10, 4))
    margins = {"left": 0.09, "right": 0.99, "bottom": 0.12, "top": 0.87, "wspace": 0.15}
    left, right = figure.subplots(1, 2, sharex=True, gridspec_kw=margins)
    # A domain has one color in both panels; penalties take the colors after the domains'.
    names = [(score["name"], score["split"]) for score in evaluations[0]["scores"]]
    _losses(left, steps, [name for name, split in names if split == "training"], first=len(names))
    averaged = "average" in tomllib.loads((folder / "config.toml").read_bytes().decode())
    _accuracies(right, evaluations, names, " of the averaged weights" if averaged else "")
    heading(figure, literal(name))
    return save(figure, folder / FIGURE)


def _losses(axes: Axes, steps: list[dict[str, Any]], domains: list[str], first: int) -> None:
    at = [line["step"] for line in steps]
    marker = "-" if len(steps) > 1 else "o"
    for index, name in enumerate(domains):
        # A domain may be missing from a step's batch.
        curve = [line["domain_losses"].get(name, math.nan) for line in steps]
        axes.plot(at, curve, marker, label=f"risk, {literal(name)}", color=color_of(index), linewidth=1.4)
    # Such as GroupDRO's, which is no mean of the domains' risks.
    risks = [(line["step"], line["risk"], _mean(line["domain_losses"])) for line in steps]
    if any(abs(risk - mean) > 1e-3 * abs(risk) for _, risk, mean in risks):
        axes.plot(at, [risk for _, risk, _ in risks], marker, label="risk, minimized", color="black", linewidth=1.4)
    negative = min(risk for _, risk, _ in risks) < 0
    for index, name in enumerate(steps[0]["terms"]):
        # Without the weight, which changes a thousandfold at the end of a warm-up.
        terms = [(line["step"], line["terms"][name]) for line in steps]
        points = [(step, term["value"] / term["weight"]) for step, term in terms if term["weight"]]
        if points:
            label = literal(f"{name}, unweighted")
            axes.plot(*zip(*points, strict=True), marker, label=label, color=color_of(first + index), linewidth=1.4)
            negative = negative or min(value for _, value in points) < 0
    # A risk with an adversary, and IRM's product of half batches may be negative.
    axes.set_yscale("symlog", linthresh=1e-4) if negative else axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet(axes, "losses", "step", "value")
    legend(axes)


def _mean(losses: dict[str, float | None]) -> float:
    return fmean(loss for loss in losses.values() if loss is not None)


def _accuracies(axes: Axes, evaluations: list[dict[str, Any]], names: list[tuple[str, str]], of: str) -> None:
    at = [line["step"] for line in evaluations]
    for index, (name, split) in enumerate(names):
        shares = [line["scores"][index]["accuracy"] for line in evaluations]
        curve = [math.nan if share is None else 100 * share for share in shares]
        label, color = with_split(name, split), color_of(index)
        axes.plot(at, curve, line_of(split), label=label, color=color, marker="o", markersize=2.5, linewidth=1.4)
    axes.set_ylim(0, 100)
    quiet(axes, evaluations[-1]["scores"][0].get("accuracy_name", "accuracy") + of, "step", "%")
    legend(axes)
