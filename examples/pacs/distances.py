"""Do the domains' gradient variances and Hessians come together under Fishr, and does the accuracy follow?

Of a finished sweep that kept its weights (keep = "weights" in its plan), from the folder where it ran:

    python distances.py pacs-linear --data-dir data --methods FishrSmall FishrFree --out distances.png

Each point is one run of Fishr beside the run of ERM of the same draw, trial and test domain, at their last steps. The
distances are (1/K) Σ ‖v_e − v̄‖²/‖v̄‖² of the gradient variances v_e and of the diagonals of the Hessians, of the head
and on all samples of a part: they have no unit, so that runs of other losses may be compared.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from fishr.analysis import open_subject
from fishr.data.sources.image_sets import IMAGE_SETS
from fishr.diagnostics import hessian_diagonal_distance_scale_free, variance_distance_scale_free

DISTANCES = {"variances": variance_distance_scale_free, "Hessians": hessian_diagonal_distance_scale_free}
# Of each test domain, for color-blind readers too.
COLORS, MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), "os^D"
NAMES = [environment.folder.replace("_", " ") for environment in IMAGE_SETS["PACS"].environments]


def measured(job: Path, last: dict, data_dir: Path) -> dict[str, float]:
    """Return the distances of a job's head between its training domains, and between these and its test domain."""
    (test,) = last["args"]["test_envs"]
    names = [name.removesuffix("_acc") for name in last if name.endswith("_in_acc")]
    found = {"accuracy": last[f"env{test}_in_acc"]}
    # Its test domain is the last one.
    seen = open_subject(job, data_dir=data_dir, domains=tuple(names)).seen
    for whose, sizes in (("training", seen.sizes[:-1]), ("all", seen.sizes)):
        rows = slice(sum(sizes))
        for name, distance in DISTANCES.items():
            value = distance(seen.head, seen.features[rows], seen.labels[rows], sizes, seen.loss).value
            found[f"{name}, {whose} domains"] = float(value)
    return found


def main() -> None:
    """Measure the runs, print medians, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--methods", nargs="+", default=["FishrSmall", "FishrFree"])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("distances.png"))
    given = parser.parse_args()
    runs = {}
    for path in sorted(given.sweep.glob("jobs/*/results.jsonl")):
        last = json.loads(path.read_text().splitlines()[-1])
        key = (*last["args"]["test_envs"], last["args"]["hparams_seed"], last["args"]["trial_seed"])
        if last["args"]["algorithm"] in ("ERM", *given.methods) and (path.parent / "done").exists():
            runs[last["args"]["algorithm"], key] = last["hparams"], measured(path.parent, last, given.data_dir)
    titles = ["accuracy", *(f"{name}, {whose} domains" for name in DISTANCES for whose in ("training", "all"))]
    figure = Figure(figsize=(3.2 * len(titles), 3.2 * len(given.methods)), layout="constrained")
    grid = figure.subplots(len(given.methods), len(titles), squeeze=False, sharex="row")
    for row, method in zip(grid, given.methods, strict=True):
        keys = sorted(key for name, key in runs if name == method and ("ERM", key) in runs)
        print(f"{method}: {len(keys)} runs beside ERM's")
        for axes, title in zip(row, titles, strict=True):
            ratio = title != "accuracy"
            pairs = [(runs[method, key][1][title], runs["ERM", key][1][title]) for key in keys]
            change = [ours / theirs if ratio else 100 * (ours - theirs) for ours, theirs in pairs]
            lower = sum(ours < theirs for ours, theirs in pairs)
            print(f"  {title}: {'ratio' if ratio else 'difference'} {median(change):.3g} (median), lower in {lower}")
            # A method that combines others has its own penalty's weight under another name.
            weights = [drawn.get("lambda", drawn.get("own_lambda")) for drawn in (runs[method, key][0] for key in keys)]
            for test, name in enumerate(NAMES):
                chosen = [index for index, key in enumerate(keys) if key[0] == test]
                at = [weights[index] for index in chosen], [change[index] for index in chosen]
                label = name if axes is grid[0][0] else None
                axes.scatter(*at, c=COLORS[test], marker=MARKERS[test], s=16, alpha=0.8, label=label)
            axes.axhline(1.0 if ratio else 0.0, color="black", linewidth=0.8)
            axes.set_xscale("log")
            axes.spines[["top", "right"]].set_visible(False)
            if ratio:
                axes.set_ylim(min(0.6, *change), max(1.1, *change))
            whose = "on the test domain" if title == "accuracy" else f"of the {title}"
            axes.set_title(f"{'distance' if ratio else 'accuracy'} {whose}", fontsize=9, loc="left")
            axes.set_ylabel(f"{method} / ERM" if ratio else f"{method} − ERM, points")
            axes.set_xlabel(f"weight of {method}")
    figure.legend(title="test domain", loc="outside lower center", ncols=len(NAMES), frameon=False, fontsize=9)
    figure.savefig(given.out, dpi=130)


if __name__ == "__main__":
    main()
