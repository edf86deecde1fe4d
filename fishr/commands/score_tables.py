"""Tables of a model's scores on domains, and of its classes on each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from fishr.inference.scoring import Bootstrap, DomainResult
    from fishr.metrics import Metric

_HEADS = ("accuracy", "balanced acc.", "macro-F1", "AUROC", "calibration error")
# More columns than these are no table for people.
_CONFUSED = 20


def result_table(results: "Sequence[DomainResult]", bootstrap: "Bootstrap") -> str:
    """Return the metrics of each domain and the worst of each, in percent, with intervals."""
    from fishr.inference.scoring import titles
    from fishr.metrics import METRICS, worst

    named = dict(zip(titles(results), results, strict=True))
    rows = [
        (
            title,
            one.score.split,
            one.score.samples,
            *(_cell(one.metrics.metrics[metric]) for metric in METRICS),
            f"{one.score.loss:.4f}",
        )
        for title, one in named.items()
    ]
    if len(named) > 1:
        lowest = worst({title: one.metrics for title, one in named.items()})
        cells = [_percent(named[lowest[m]].metrics.metrics[m].value) if m in lowest else "–" for m in METRICS]
        rows.append(("worst", "", sum(one.score.samples for one in results), *cells, ""))
    table = tabulate(rows, ("domain", "split", "samples", *_HEADS, "loss"), disable_numparse=True)
    notes = [f"In percent; in brackets 95 % intervals over {bootstrap.resamples} resamples of each domain's samples."]
    if not bootstrap.resamples:
        notes = ["In percent."]
    notes += [
        f"AUROC is undefined on {title}: {one.metrics.auroc.reason}."
        for title, one in named.items()
        if one.metrics.auroc.reason
    ]
    return "\n".join([table, "", *notes])


def class_tables(results: "Sequence[DomainResult]") -> list[str]:
    """Return a table a domain: the metrics of each class in percent, and its samples by predicted class."""
    from fishr.inference.scoring import titles

    blocks, confused = list[str](), len(results[0].metrics.classes) <= _CONFUSED
    for title, one in zip(titles(results), results, strict=True):
        classes, rows = one.metrics.classes, list[tuple[str | int, ...]]()
        for each, counts in zip(classes, one.metrics.confusion, strict=True):
            rates = map(_percent, (each.precision, each.recall, each.f1, each.auroc))
            rows.append((each.name, each.samples, *rates, *(counts if confused else ())))
        heads = ["class", "samples", "precision", "recall", "F1", "AUROC"]
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
