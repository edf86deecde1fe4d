"""Tables of a model's scores on domains, and of its classes on each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from fishr.commands.rendering import score_table
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.inference.scoring import Bootstrap, DomainResult
    from fishr.metrics import Metric

_HEADS = ("balanced acc.", "macro-F1", "AUROC", "calibration error")
# More columns than these are no table for people.
_CONFUSED = 20


def result_table(results: "Sequence[DomainResult]", bootstrap: "Bootstrap") -> str:
    """Return the metrics of each domain and the worst of each, in percent, with intervals; scores without classes."""
    from fishr.inference.scoring import titles
    from fishr.metrics import METRICS, worst

    found = [one.metrics for one in results if one.metrics is not None]
    if len(found) < len(results):
        return score_table(one.score for one in results)
    named = dict(zip(titles(results), results, strict=True))
    metrics = dict(zip(named, found, strict=True))
    rows = [
        (
            title,
            one.score.split,
            one.score.samples,
            *(_cell(metrics[title].metrics[metric]) for metric in METRICS),
            f"{one.score.loss:.4f}",
        )
        for title, one in named.items()
    ]
    if len(named) > 1:
        lowest = worst(metrics)
        cells = [_percent(metrics[lowest[m]].metrics[m].value) if m in lowest else "–" for m in METRICS]
        rows.append(("worst", "", sum(one.score.samples for one in results), *cells, ""))
    first = results[0].score.accuracy_name or "accuracy"
    table = tabulate(rows, ("domain", "split", "samples", first, *_HEADS, "loss"), disable_numparse=True)
    notes = [f"In percent; in brackets 95 % intervals over {bootstrap.resamples} resamples of each domain's samples."]
    if not bootstrap.resamples:
        notes = ["In percent."]
    notes += [
        f"AUROC is undefined on {title}: {one.auroc.reason}." for title, one in metrics.items() if one.auroc.reason
    ]
    return "\n".join([table, "", *notes])


def class_tables(results: "Sequence[DomainResult]") -> list[str]:
    """Return a table a domain: the metrics of each class or label in percent, and samples by predicted class."""
    from fishr.inference.scoring import titles

    found = [one.metrics for one in results if one.metrics is not None]
    if len(found) < len(results):
        raise InputError("--per-class: got a run that predicts no class, expected one of classes or labels; drop it")
    blocks, confused = list[str](), 0 < len(found[0].confusion) <= _CONFUSED
    for title, metrics in zip(titles(results), found, strict=True):
        classes, rows = metrics.classes, list[tuple[str | int, ...]]()
        for number, each in enumerate(classes):
            rates = map(_percent, (each.precision, each.recall, each.f1, each.auroc))
            rows.append((each.name, each.samples, *rates, *(metrics.confusion[number] if confused else ())))
        heads = ["class" if metrics.confusion else "label", "samples", "precision", "recall", "F1", "AUROC"]
        heads += [f"→ {each.name}" for each in classes] if confused else []
        blocks.append(f"{title}\n" + tabulate(rows, heads, disable_numparse=True))
    note = "A column → NAME has the number of samples that are predicted to be of this class."
    return [*blocks, note] if confused else blocks


def _cell(metric: "Metric") -> str:
    if metric.low is None or metric.high is None:
        return _percent(metric.value)
    return f"{_percent(metric.value)} [{_percent(metric.low)}, {_percent(metric.high)}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
