"""Scores and metrics of a run's model, on domains of its own data and on files."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain, Split
from fishr.data.images.list_files import Columns
from fishr.errors import InputError
from fishr.inference.labelled_domains import labelled_domains
from fishr.inference.trained_model import load_model, probabilities_of
from fishr.losses import predictions_of
from fishr.metrics import Classification, classification, multilabel_classification, worst
from fishr.metrics.bootstrap import LEVEL
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore, open_run, score_domain, score_entries
from fishr.training.experiment import Experiment
from fishr.training.model import Model, evaluating, place


@frozen
class DomainResult:
    """Score and metrics of one domain; ``source`` is the file or folder that it is from, None: the run's own data."""

    score: DomainScore
    metrics: Classification | None  # None: samples have numbers, or the run diverged
    source: Path | None = None


@frozen
class Bootstrap:
    """Number of resamples for the intervals, 0 for none, and their seed."""

    resamples: int = 1000
    seed: int = 0


def score_run(
    experiment: Experiment,
    run: Path,
    on: Sequence[Path | str] = (),
    data_dir: Path | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    columns: Columns | None = None,
    bootstrap: Bootstrap = Bootstrap(),
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[int, tuple[DomainResult, ...]]:
    """Return the step of a run's last checkpoint, and the results of its model on domains.

    Inputs are read a batch at a time; logits alone are kept.

    Args:
        experiment: The experiment of the run.
        run: Its folder.
        on: Paths as for ``labelled_domains``, and names of domains or environments of the run's own data; empty: all of
            its own data.
        data_dir: Folder of the run's own data, and of the data of a .toml.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        plugins: Modules that the configuration of the run, or a .toml, names.
        columns: Names of the columns of lists.
        bootstrap: How intervals are computed.
        progress: Called with the number of samples done, and of all.

    Raises:
        InputError: No checkpoint, missing data, or a path or name that fits nothing.

    Example:
        >>> import tempfile
        >>> from fishr.configuration import dumps
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import run
        >>> experiment = attrs.evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent, "run")
        ...     _ = list(run(experiment, folder, experiment_text=dumps(experiment)))
        ...     step, (result,) = score_run(experiment, folder, ["gray"], bootstrap=Bootstrap(resamples=20))
        >>> step, result.score.samples, result.metrics.accuracy.value == result.score.accuracy
        (2, 497, True)
    """
    own, files = [one for one in on if isinstance(one, str)], [one for one in on if isinstance(one, Path)]
    where, step, subjects = resolve_device(device), 0, list[_Subject]()
    if own or not files:
        model, state, domains = open_run(experiment, run, data_dir, where)
        place(model, state.parameters, state.buffers)
        step, names = state.step, domains.class_names or tuple(map(str, range(domains.classes)))
        subjects += [_Subject(model, names, *one) for one in _chosen(run, domains.by_split, own)]
    if files:
        trained = load_model(run, device=device, plugins=plugins)
        model, step = Model(trained.featurizer, trained.head), trained.step
        names = tuple(trained.label(number) for number in range(trained.classes))
        subjects += [
            _Subject(model, names, domain.to(where), "evaluation", path)
            for path in files
            for domain in labelled_domains(path, trained, columns, data_dir, plugins)
        ]
    total, done = sum(len(one.domain.labeled(experiment.loss).labels) for one in subjects), 0

    def seen(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    return step, tuple(_result(one, experiment, bootstrap, seen) for one in subjects)


@frozen(eq=False)
class _Subject:
    """A domain, and the model that is scored on it."""

    model: Model
    names: tuple[str, ...]  # of the classes
    domain: Domain
    split: Split
    source: Path | None = None


def _result(
    subject: _Subject, experiment: Experiment, bootstrap: Bootstrap, progress: Callable[[int], object]
) -> DomainResult:
    parts, loss = list[Tensor](), experiment.loss
    domain = subject.domain.labeled(loss)

    def see(logits: Tensor) -> None:
        parts.append(logits.cpu())
        progress(len(logits))

    with torch.no_grad(), evaluating(subject.model):
        score = score_domain(subject.model, experiment, domain, subject.split, see=see)
    logits = torch.cat(parts)
    if math.isnan(score.accuracy) or not logits.isfinite().all():
        # Numbers have no classes, and a run that diverged no probabilities.
        return DomainResult(score, None, subject.source)
    labels, predicted = domain.labels, predictions_of(loss, logits)
    try:
        if score.accuracy_name is None:
            classes = labels.argmax(1) if labels.ndim == 2 else labels.round().long()
            found = probabilities_of(loss, logits.double()), classes, subject.names, predicted
            metrics = classification(*found, bootstrap.resamples, bootstrap.seed)
        else:
            found = logits.double().sigmoid(), labels.round(), subject.names, predicted
            metrics = multilabel_classification(*found, bootstrap.resamples, bootstrap.seed)
    except InputError as error:
        raise InputError(f"domain {domain.name!r}: {error}") from error
    return DomainResult(score, metrics, subject.source)


def titles(results: Sequence[DomainResult]) -> tuple[str, ...]:
    """Return a name for each result: its domain's, with the path before it where several have this name."""
    found = [one.score.title for one in results]
    counts = Counter(found)
    return tuple(
        name if counts[name] == 1 else f"{one.source or 'own data'}: {name}"
        for name, one in zip(found, results, strict=True)
    )


def result_object(run: Path, step: int, results: Sequence[DomainResult], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return results as plain values for JSON; what is undefined or not finite is null."""
    named = dict(zip(titles(results), results, strict=True))
    entries = [
        {
            **{"title": title, **score, "source": str(one.source) if one.source else None},
            **({} if one.metrics is None else attrs.asdict(one.metrics)),
        }
        for (title, one), score in zip(named.items(), score_entries([one.score for one in results]), strict=True)
    ]
    metrics = {title: one.metrics for title, one in named.items() if one.metrics is not None}
    lowest = {
        metric: {"domain": title, **attrs.asdict(metrics[title].metrics[metric])}
        for metric, title in worst(metrics).items()
    }
    return {
        "run": str(run),
        "step": step,
        "scores": score_entries([one.score for one in results]),
        "domains": entries,
        "worst": lowest,
        "bootstrap": {**attrs.asdict(bootstrap), "level": LEVEL},
    }


def _chosen(run: Path, domains: Sequence[tuple[Domain, Split]], names: Sequence[str]) -> list[tuple[Domain, Split]]:
    """Return the domains of some names or environments, or all."""
    for name in names:
        known = dict.fromkeys(known for one, _ in domains for known in (one.environment, one.name) if known)
        if name not in known:
            raise InputError(
                f"{name}: neither a file or folder, nor a domain of {run}; give a path, or one of {', '.join(known)}"
            )
    return [(one, split) for one, split in domains if not names or {one.name, one.environment} & set(names)]
