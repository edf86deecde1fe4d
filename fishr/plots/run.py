"""A run at a glance: its losses and every domain's accuracy over the steps."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishr.plots.style import COLORS, quiet, save

FIGURE = "figure.png"


def save_run_figure(folder: Path) -> Path:
    """Draw a run folder's metrics into its figure.png.

    Left: the risk of each training domain and each penalty term that was ever computed, logarithmic. Right:
    accuracy on every domain, training dashed, evaluation solid.

    Args:
        folder: of the run, with metrics.jsonl.

    Returns:
        The picture's path.

    Raises:
        RunFailed: it could not be written.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "scores" in line]
    name = json.loads((folder / "result.json").read_text())["name"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _losses(left, steps)
    _accuracies(right, evaluations)
    figure.suptitle(name, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return save(figure, folder / FIGURE)


def _losses(axes: Axes, steps: list[dict[str, Any]]) -> None:
    at = [line["step"] for line in steps]
    curves = {f"risk, {name}": [line["domain_losses"][name] for line in steps] for name in steps[0]["domain_losses"]}
    for name in steps[0]["terms"]:
        # Weights change a thousandfold at the end of a warm-up; the term itself is what people follow.
        values = [line["terms"][name] for line in steps]
        curves[f"{name}, unweighted"] = [v["value"] / v["weight"] if v["weight"] else float("nan") for v in values]
    for (label, curve), color in zip(curves.items(), _cycle(len(curves)), strict=True):
        axes.plot(at, curve, label=label, color=color, linewidth=1.4)
    axes.set_yscale("log")
    quiet(axes, "losses", "step", "value")
    axes.legend(frameon=False, fontsize=9)


def _accuracies(axes: Axes, evaluations: list[dict[str, Any]]) -> None:
    at = [line["step"] for line in evaluations]
    names = [(score["name"], score["split"]) for score in evaluations[0]["scores"]]
    for index, ((name, split), color) in enumerate(zip(names, _cycle(len(names)), strict=True)):
        curve = [100 * line["scores"][index]["accuracy"] for line in evaluations]
        style = "--" if split == "training" else "-"
        axes.plot(at, curve, style, label=f"{name} ({split})", color=color, marker="o", markersize=2.5, linewidth=1.4)
    axes.set_ylim(0, 100)
    quiet(axes, "accuracy", "step", "%")
    axes.legend(frameon=False, fontsize=9)


def _cycle(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]
