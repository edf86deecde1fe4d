"""The greedy soup: runs are averaged as long as the accuracy on held-out data does not fall."""

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fishr.averages import average_weights
from fishr.data.domains import Domain
from fishr.errors import InputError
from fishr.inference.averaging import Averaged, Ingredient
from fishr.inference.compatible_runs import first_run, fitting_runs
from fishr.inference.trained_model import SavedRun, load_model, read_run
from fishr.training.evaluation import score_domain
from fishr.training.model import Model, evaluating, place


def greedy_soup(
    runs: Sequence[Path],
    data_dir: Path | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    progress: Callable[[int], object] = lambda models: None,
) -> Averaged:
    """Return the mean of those runs that do not lower the validation accuracy of the mean of the runs before them.

    Runs are tried from the most accurate one down. The accuracy is the mean over the held-out parts of the training
    environments, of the data of the runs, which must be the same for all. DiWA calls this the restricted selection.

    Args:
        runs: As for ``uniform_soup``.
        data_dir: Folder of the data files.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        plugins: Modules that the configurations of the runs name.
        progress: Called with 1 after each of the 2n − 1 evaluations.

    Raises:
        InputError: As for ``uniform_soup``; data without held-out parts of training environments; other held-out
            samples in one run than in another; a loss that predicts no class.

    Example:
        >>> greedy_soup([Path("runs/a")])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs: got 1, expected two or more run folders to average

    Source: Wortsman et al., Model soups, ICML 2022, recipe 1.
    """
    first = first_run(runs, plugins)
    held_out = _held_out(first, data_dir)
    module = load_model(first.run, device=device, plugins=plugins)
    model = Model(module.featurizer, module.head)
    held_out = tuple(domain.to(module.device) for domain in held_out)

    def accuracy(weights: dict[str, Tensor]) -> float:
        there = {name: weights[name].to(module.device) for name in first.weights}
        parts = ({name: there[name] for name in part} for part in (first.state.parameters, first.state.buffers))
        place(model, *parts)
        with torch.no_grad(), evaluating(model):
            scores = [score_domain(model, first.experiment, domain, "evaluation") for domain in held_out]
        progress(1)
        found = fmean(score.accuracy for score in scores)
        if isnan(found):
            name = type(first.experiment.loss).__name__
            raise InputError(f"loss: {name} predicts no class, whose accuracy selects the runs; take the uniform soup")
        return found

    alone = dict[Path, float]()
    for saved in fitting_runs(runs, plugins):
        _require_same(saved, _held_out(saved, data_dir), first, held_out)
        alone[saved.run] = accuracy(saved.weights)
    order = sorted(runs, key=lambda run: alone[run], reverse=True)
    chosen, best, mean = [order[0]], alone[order[0]], read_run(order[0], plugins).weights
    for run in order[1:]:
        # In float64 until it is evaluated, so that many runs do not round many times.
        wide = {name: w.double() if w.is_floating_point() else w for name, w in mean.items()}
        wider = average_weights((wide, read_run(run, plugins).weights), (len(chosen), 1))
        reached = accuracy({name: w.to(first.weights[name].dtype) for name, w in wider.items()})
        if reached >= best:
            chosen, best, mean = [*chosen, run], reached, wider
    mean = {name: w.to(first.weights[name].dtype) for name, w in mean.items()}
    shares = {run: 1 / len(chosen) if run in chosen else 0.0 for run in order}
    parts = tuple(Ingredient(run, shares[run], alone[run]) for run in order)
    return Averaged("greedy soup", read_run(order[0], plugins), mean, parts)


def _held_out(saved: SavedRun, data_dir: Path | None) -> tuple[Domain, ...]:
    domains = saved.experiment.data(saved.experiment.seed, data_dir).labeled(saved.experiment.loss)
    trained = {domain.environment for domain in domains.training} - {None}
    found = tuple(domain for domain in domains.evaluation if domain.environment in trained)
    if not found:
        raise InputError(
            f"{saved.run}: its data have no held-out part of a training environment, whose accuracy selects the runs; "
            "train on data of the kind HeldOut, or take the uniform soup"
        )
    return found


def _require_same(saved: SavedRun, own: tuple[Domain, ...], first: SavedRun, expected: tuple[Domain, ...]) -> None:
    """Refuse a run that may have been trained on what selects it."""
    for one, other in zip(own, expected, strict=False):
        inputs, theirs = one.inputs, other.inputs
        if isinstance(inputs, Tensor) and isinstance(theirs, Tensor):
            same = torch.equal(inputs, theirs.cpu())
        else:
            same = getattr(inputs, "rows", None) == getattr(theirs, "rows", None)
        same = same and one.name == other.name and torch.equal(one.labels, other.labels.cpu())
        if not same or len(own) != len(expected):
            raise InputError(
                f"{saved.run}: other samples are held out than in {first.run} ({one.title}), so that one of the runs "
                "was trained on samples that select it; give runs of one data set and trial; in a sweep of data "
                "that are drawn, settings.data_seed makes them the same"
            )
