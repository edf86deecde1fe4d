"""Statistics over training time: how far the domains are apart, step by step."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.analysis.history import History
from fishr.plots.style import COLORS, literal, quiet


def history_figure(histories: Sequence[History]) -> Figure:
    """Draw the recorded statistics of runs, a colour a run.

    Both distances are divided by the squared norm of the domains' mean; they and the inconsistency are logarithmic.
    The cosine says how good a stand-in for the Hessian the variance is: a line for the domains' mean, a band from the
    lowest domain to the highest.

    Args:
        histories: one, or several to compare.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    (variance, hessian), (inconsistency, cosine) = figure.subplots(2, 2, sharex=True)
    for index, history in enumerate(histories):
        color = COLORS[index % len(COLORS)]
        _falling(variance, history, history.variance_distance, color)
        _falling(hessian, history, history.hessian_distance, color)
        _falling(inconsistency, history, history.inconsistency, color)
        low, high = torch.aminmax(history.cosine, dim=1)
        steps = history.steps.numpy()
        cosine.fill_between(steps, low.numpy(), high.numpy(), color=color, alpha=0.18, linewidth=0)
        cosine.plot(steps, history.cosine.mean(1).numpy(), _marker(history), color=color, label=literal(history.name))
    quiet(
        variance,
        "distance of gradient variances (Fishr), scale-free",
        "",
        r"mean $\|v_e - \bar{v}\|^2 \,/\, \|\bar{v}\|^2$",
    )
    quiet(hessian, "distance of diagonal Hessians, scale-free", "", r"mean $\|h_e - \bar{h}\|^2 \,/\, \|\bar{h}\|^2$")
    quiet(inconsistency, "inconsistency of the domains' landscapes", "step", "loss")
    quiet(cosine, "variance as a stand-in for the Hessian", "step", r"$\cos(v_e, \mathrm{diag}\, H_e)$")
    for axes in (inconsistency, cosine):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lowest = min(float(history.cosine.min()) for history in histories)
    cosine.set_ylim(min(0.0, 1.05 * lowest), 1.05)
    variance.legend(frameon=False, fontsize=10)
    return figure


def _falling(axes: Axes, history: History, curve: torch.Tensor, color: str) -> None:
    # A logarithmic axis has no place for zero, which domains that agree to the bit have.
    shown = curve.double().where(curve > 0, torch.nan)
    axes.plot(
        history.steps.numpy(), shown.numpy(), _marker(history), color=color, label=literal(history.name), linewidth=1.6
    )
    axes.set_yscale("log")


def _marker(history: History) -> str:
    return "-" if len(history.steps) > 1 else "o"
