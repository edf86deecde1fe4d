"""``fishr average``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.progress import progress_bar
from fishr.commands.shared import PATH, SEED, about, choice_option, given_options, loading, run_options
from fishr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fishr.inference import Averaged


@click.command(**about("Average the weights of several runs.", "average runs/a runs/b runs/c --out runs/soup"))
@click.argument("runs", type=PATH, metavar="RUN_OR_SWEEP...", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, metavar="FOLDER", help="New folder of the mean.")
@choice_option(
    "--soup", words=["uniform", "greedy"], help="Mean of all runs, or of those that do not lower validation accuracy."
)
@click.option(
    "--alpha", type=float, metavar="A", help="WiSE-FT: (1 - A) first + A last weights, of RUN or between two runs."
)
@click.option("--dataset", metavar="NAME", help="Only jobs of a sweep on this data set.")
@click.option("--algorithm", "algorithms", multiple=True, metavar="NAME", help="Only jobs with it; repeatable.")
@click.option("--test-env", "test_envs", type=SEED, multiple=True, metavar="N", help="Only jobs with it; repeatable.")
@click.option("--trial-seed", type=SEED, metavar="N", help="Only jobs with it.")
@run_options
def average(
    runs: tuple[Path, ...],
    out: Path,
    soup: str,
    alpha: float | None,
    dataset: str | None,
    algorithms: tuple[str, ...],
    test_envs: tuple[int, ...],
    trial_seed: int | None,
    data_dir: Path | None,
    device: str,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Average the last weights of runs of one architecture that began at the same weights.

    evaluate, predict, export, analyze and the featurizer Frozen accept FOLDER like that of a run. The greedy soup tries
    the runs from the most accurate one down, and keeps those that do not lower the accuracy on the held-out parts of
    the training environments; only it reads data.

    With a sweep that keeps weights, all finished jobs are averaged, or those that the options select.
    """
    with loading():
        import attrs

        from fishr.files import json_text
        from fishr.inference import greedy_soup, uniform_soup, wise_ft, write_average
        from fishr.inference.prediction_files import check_new
        from fishr.sweeps.folder import is_sweep

    check_new(out)
    found, given = list[Path](), given_options("dataset", "algorithms", "test_envs", "trial_seed")
    if given and not any(map(is_sweep, runs)):
        raise InputError(f"{given[0]}: got it without a sweep, expected the folder of one; drop {given[0]}")
    for run in runs:
        found += _jobs(run, dataset, algorithms, test_envs, trial_seed) if is_sweep(run) else [run]
    if alpha is not None:
        if len(found) > 2 or soup == "greedy":
            raise InputError(f"--alpha: got {len(found)} runs and a {soup} soup, expected RUN or START END alone")
        made = wise_ft(found[-1], alpha, found[0] if len(found) == 2 else None, plugins)
    else:
        uniform = soup == "uniform"
        total = len(found) if uniform else 2 * len(found) - 1
        with progress_bar(f"{out}: interrupted; nothing was written", total=total, unit="model") as bar:
            if uniform:
                made = uniform_soup(found, plugins, bar.update)
            else:
                made = greedy_soup(found, data_dir, device, plugins, bar.update)
    write_average(made, out)
    entries = [{**attrs.asdict(one), "run": str(one.run)} for one in made.ingredients]
    click.echo(json_text({"form": made.form, "folder": str(out), "runs": entries}) if style == "json" else _table(made))
    if style != "json":
        click.echo(f"\n{made.form}: {out}")


def _table(made: "Averaged") -> str:
    from tabulate import tabulate

    wise = any(one.weights == "first" for one in made.ingredients)
    validated = any(one.validation is not None for one in made.ingredients)
    rows = [
        [
            str(one.run),
            *([one.weights] if wise else []),
            f"{one.share:.4g}",
            *([f"{one.validation:.1%}"] if one.validation is not None else []),
        ]
        for one in made.ingredients
    ]
    headers = ("run", *(["weights"] if wise else []), "share", *(["validation"] if validated else []))
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _jobs(
    sweep: Path, dataset: str | None, algorithms: "Sequence[str]", test_envs: "Sequence[int]", trial_seed: int | None
) -> list[Path]:
    """Return the folders of a sweep's jobs with finite losses that the options name, in the order of their keys."""
    from fishr.sweeps.folder import finished_jobs

    wanted = tuple(sorted(test_envs))
    found = dict[tuple[str, tuple[int, ...]], list[Path]]()
    for key, job in finished_jobs(sweep).items():
        named = dataset in (None, key.dataset) and (not algorithms or key.algorithm in algorithms)
        if job is not None and named and wanted in ((), key.test_envs) and trial_seed in (None, key.trial_seed):
            found.setdefault((key.dataset, key.test_envs), []).append(job)
    if not found:
        raise InputError(f"{sweep}: no job that is done has these options; see fishr sweep status {sweep}")
    if len(found) > 1:
        several = ", ".join(f"{name} test {'+'.join(map(str, envs))}" for name, envs in list(found)[:3])
        raise InputError(
            f"{sweep}: has jobs that were trained on different environments ({several}, …); choose those of one model "
            "with --dataset and --test-env"
        )
    return next(iter(found.values()))
