"""Means of the weights of several runs, as a folder that is used like a run's: uniform soups, DiWA and WiSE-FT."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import attrs
from attrs import evolve, frozen
from torch import Tensor

from fishr.averages import average_weights
from fishr.configuration import dumps
from fishr.errors import InputError
from fishr.files import digest_of, json_text, write_atomically
from fishr.inference.compatible_runs import first_run, first_weights, fitting, fitting_runs
from fishr.inference.prediction_files import check_new
from fishr.inference.trained_model import SavedRun, read_run
from fishr.training.checkpoints import save
from fishr.training.run_folder import AVERAGE, CHECKPOINT, checkpoint_of, new_folder
from fishr.training.state import with_weights, without_optimizer


@frozen
class Ingredient:
    """A run of a mean: its share, and its accuracy on held-out data where that was measured."""

    run: Path
    share: float  # of the mean, 0 to 1
    validation: float | None = None  # mean over held-out parts of training environments, 0 to 1
    weights: Literal["first", "last"] = "last"  # of the run


@frozen(eq=False)
class Averaged:
    """Mean weights of runs; settings and classes are those of the first."""

    form: str  # "uniform soup", "greedy soup" or "WiSE-FT"
    first: SavedRun
    weights: dict[str, Tensor]  # parameters and buffers, on the CPU
    ingredients: tuple[Ingredient, ...]  # in the order in which they were considered


def uniform_soup(
    runs: Sequence[Path], plugins: Sequence[str] = (), progress: Callable[[int], object] = lambda models: None
) -> Averaged:
    """Return the mean of the last weights of runs, as uniform soups and DiWA take it; no data are read.

    Args:
        runs: Two or more run folders of one architecture whose networks began at the same weights. Heads that are one
            linear layer may begin at different ones. Of a run that averages its weights, the averaged ones count.
        plugins: Modules that the configurations of the runs name.
        progress: Called with 1 after each run.

    Raises:
        InputError: Fewer runs than two, one twice, other names or shapes of weights, other inputs or classes, or other
            first weights. Where the first weights cannot be made again, a warning says so.

    Example:
        >>> uniform_soup([Path("runs/a")])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs: got 1, expected two or more run folders to average

    Source: Wortsman et al., Model soups, ICML 2022; Ramé et al., DiWA, NeurIPS 2022.
    """

    def weights() -> Iterator[dict[str, Tensor]]:
        for saved in fitting_runs(runs, plugins):
            yield saved.weights
            progress(1)

    first, mean = first_run(runs, plugins), average_weights(weights())
    return Averaged("uniform soup", first, mean, tuple(Ingredient(run, 1 / len(runs)) for run in runs))


def wise_ft(run: Path, alpha: float, start: Path | None = None, plugins: Sequence[str] = ()) -> Averaged:
    """Return (1 − α) · w₀ + α · w of the first and the last weights of a run.

    Args:
        run: A run folder, of the last weights w.
        alpha: α from 0 to 1.
        start: Run folder whose last weights are w₀, such as the run of the head alone before fine-tuning; None: the
            first weights of ``run``, with its random head.
        plugins: Modules that the configurations of the runs name.

    Raises:
        InputError: α outside its range, runs of different architectures, or first weights that cannot be made again.

    Example:
        >>> wise_ft(Path("runs/a"), alpha=1.5)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: alpha: got 1.5, expected a number from 0 to 1

    Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (arXiv 2109.01903).
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha: got {alpha}, expected a number from 0 to 1")
    last = read_run(run, plugins)
    first = first_weights(last) if start is None else fitting(last, read_run(start, plugins)).weights
    mean = average_weights((last.weights, first), (alpha, 1 - alpha))
    other = Ingredient(run, 1 - alpha, weights="first") if start is None else Ingredient(start, 1 - alpha)
    return Averaged("WiSE-FT", last, mean, (other, Ingredient(run, alpha)))


def write_average(averaged: Averaged, out: Path) -> None:
    """Write mean weights as a folder that everything takes which takes a finished run, but no run resumes from.

    It has config.toml, of the first run without its average; checkpoint.pt; and average.json, with the runs, their
    shares and the SHA-256 of their checkpoints.

    Raises:
        InputError: Something is there already, or it cannot be written.

    Example:
        >>> write_average(uniform_soup([Path("runs/a")]), Path("runs/soup"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs: got 1, expected two or more run folders to average
    """
    check_new(out)
    first = averaged.first
    text = dumps(evolve(first.experiment, average=None))
    state = with_weights(without_optimizer(first.state), averaged.weights)
    entries = [
        {**attrs.asdict(one), "run": str(one.run), "sha256": digest_of(checkpoint_of(one.run))}
        for one in averaged.ingredients
    ]

    def fill(folder: Path) -> None:
        save(folder / CHECKPOINT, state, text, signature=first.signature)
        content = json_text({"form": averaged.form, "runs": entries}, indent=2)
        write_atomically(folder / AVERAGE, f"{content}\n".encode())

    with new_folder(out, text, fill):
        pass
