"""Tables of an analysis for people, and its JSON."""

import math
from collections.abc import Sequence
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from fishr.analysis import Analysis, History
    from fishr.diagnostics import Quantity

# More pairs than these do not fit beside each other: their range is shown.
_PAIRS = 6
_BARS = "▁▂▃▄▅▆▇█"
_SIZE = "size: a bar a domain, against the row's largest; fishr analyze --explain ROW says what a large value means"
_CAPTIONS = (
    "That variances stand in for the Hessian is an empirical matter: read their distance beside the cosine of the two.",
    "Sharpness is a description, not a score: it often fails to predict the risk on other domains, or predicts it "
    "inversely.",
    "Where the pooled risk is least, the domains' gradients cancel and need not vanish: see gradient_norm.",
)


class Routes:
    """Numbers for the routes of a table, in order of appearance, and the legend below it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def mark(self, route: str) -> str:
        return f"[{self._known.setdefault(route, len(self._known) + 1)}]"

    def legend(self) -> str:
        return "routes\n" + "\n".join(f"[{number}] {route}" for route, number in self._known.items())


def analysis_text(analysis: "Analysis", histories: "Sequence[History]" = ()) -> str:
    """Return tables of the domains, of pairs, of the training domains together, and of the headlines."""
    from fishr.analysis.headlines import headlines

    routes = Routes()
    splits = zip(analysis.domains, analysis.splits, strict=True)
    domains = ("each domain", *(name if split == "training" else f"{name} (eval)" for name, split in splits))
    blocks = [_heading(analysis), _block(domains, analysis.quantities, ("domain",), routes)]
    if len(analysis.domains) > 1:
        blocks.append(_SIZE)
    if len(analysis.training) > 1:
        blocks.append(_pair_block(analysis, routes))
    blocks.append(_block(("training domains together", "value"), analysis.quantities, (), routes))
    if analysis.network:
        blocks.append("whole network\n" + _block(domains, analysis.network, ("domain",), routes))
    rows = [
        (h.title, _cell(h.value, h.error), h.unit, routes.mark(h.route), _large(name))
        for name, h in headlines(analysis).items()
    ]
    blocks.append(_table(rows, ("headline, training domains", "value", "unit", "route", "a large value means")))
    return _joined(blocks, histories, routes)


def comparison_text(first: "Analysis", second: "Analysis", histories: "Sequence[History]" = ()) -> str:
    """Return each domain's risk and accuracy of two analyses side by side, then the headlines and their ratios."""
    from fishr.analysis.headlines import headlines, ratio

    routes, one, two = Routes(), headlines(first), headlines(second)
    names = (first.name, second.name) if first.name != second.name else (f"{first.name} (1)", f"{second.name} (2)")
    rows = list[tuple[str, ...]]()
    for name, h in one.items():
        if other := two.get(name):
            times = ratio(h, other)
            cells = (_cell(h.value, h.error), _cell(other.value, other.error))
            times_text = "–" if math.isnan(times) else f"{times:.3g}×"
            rows.append((h.title, *cells, times_text, h.unit, routes.mark(h.route), _large(name)))
    head = ("headline, training domains", *names, f"{names[0]} / {names[1]}", "unit", "route", "a large value means")
    blocks = [_heading(first), _heading(second), _scores_block((first, second), names), _table(rows, head)]
    return _joined(blocks, histories, routes)


def analysis_object(analysis: "Analysis") -> dict[str, Any]:
    """Return everything but the quantities with a column a parameter, for JSON."""
    import attrs

    from fishr.analysis.headlines import headlines

    used = zip(analysis.domains, analysis.splits, analysis.rows, analysis.samples, strict=True)
    return {
        "name": analysis.name,
        "source": analysis.source,
        "loss": analysis.loss,
        "settings": attrs.asdict(analysis.settings),
        "domains": [{"name": n, "split": s, "rows": rows, "samples": samples} for n, s, rows, samples in used],
        "parameters": analysis.layout.size,
        "headlines": {name: attrs.asdict(headline) for name, headline in headlines(analysis).items()},
        "quantities": _objects(analysis.quantities),
        "network": _objects(analysis.network),
    }


def _objects(quantities: "dict[str, Quantity]") -> dict[str, Any]:
    import attrs

    def plain(quantity: "Quantity") -> dict[str, Any]:
        error = None if quantity.error is None else quantity.error.expand_as(quantity.value)
        found = record_object(attrs.evolve(quantity, error=error))
        del found["name"]
        return found

    return {name: plain(quantity) for name, quantity in quantities.items() if "parameter" not in quantity.axes}


def record_object(record: Any) -> dict[str, Any]:
    """Return a record for JSON, its tensors as lists."""
    import attrs

    return attrs.asdict(record, value_serializer=lambda _, __, value: getattr(value, "tolist", lambda: value)())


def _joined(blocks: list[str], histories: "Sequence[History]", routes: Routes) -> str:
    from fishr.analysis.history import CURVES

    if histories:
        columns = [(history, index) for history in histories for index in (0, -1)]
        rows = [
            (title, *(_cell(float(getattr(history, name)[index].mean())) for history, index in columns))
            for name, title in CURVES.items()
        ]
        heads = [f"{history.name}, step {int(history.steps[index])}" for history, index in columns]
        blocks = [*blocks, _table(rows, ("recorded while training", *heads))]
    return "\n\n".join([*blocks, routes.legend(), "\n".join(_CAPTIONS)])


def _heading(analysis: "Analysis") -> str:
    source = analysis.source
    samples = [
        f"{name} {used} of {rows}" if used < rows else f"{name} {rows}"
        for name, used, rows in zip(analysis.domains, analysis.samples, analysis.rows, strict=True)
    ]
    drawn = f" (drawn with seed {analysis.settings.seed})" if analysis.samples != analysis.rows else ""
    return (
        f"{analysis.name}: {source['path']}, {source['kind']}, step {source['step']}\n"
        f"head of {analysis.layout.size} parameters, {analysis.loss}; samples: {', '.join(samples)}{drawn}"
    )


def _large(name: str) -> str:
    from fishr.diagnostics import diagnostics

    return diagnostics()[name].explanation.get("large", "")


def _block(heads: Sequence[str], quantities: "dict[str, Quantity]", axes: tuple[str, ...], routes: Routes) -> str:
    """Return the table of the quantities with these axes, a number a column; of several domains also as bars."""
    several = len(heads) > 2
    rows = [
        (name, *_cells(q), *([_bars(q.value.tolist())] if several else []), q.unit, routes.mark(q.route))
        for name, q in quantities.items()
        if q.axes == axes
    ]
    return _table(rows, (*heads, *(["size"] if several else []), "unit", "route"))


def _bars(values: Sequence[float]) -> str:
    """Return a bar a number, as high as its absolute value beside the largest one."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    most = max(finite, default=0.0) or 1.0
    return "".join(_BARS[round(abs(v) / most * (len(_BARS) - 1))] if math.isfinite(v) else " " for v in values)


def _pair_block(analysis: "Analysis", routes: Routes) -> str:
    trained, count = range(len(analysis.training)), len(analysis.domains)
    pairs = list(combinations(trained, 2))
    rows = list[tuple[str, ...]]()
    for name, quantity in analysis.quantities.items():
        if quantity.axes != ("domain", "domain"):
            continue
        if len(pairs) > _PAIRS:
            both = [float(quantity.value[pair]) for pair in permutations(trained, 2)]
            cells = [_cell(number) for number in (min(both), sum(both) / len(both), max(both))]
        else:
            cell = dict(zip(product(range(count), repeat=2), _cells(quantity), strict=True))
            value = quantity.value[: len(trained), : len(trained)]
            symmetric = value.isclose(value.T, rtol=1e-6, atol=0.0, equal_nan=True).all()
            cells = [cell[a, b] if symmetric else f"A→B {cell[a, b]}, B→A {cell[b, a]}" for a, b in pairs]
        rows.append((name, *cells, quantity.unit, routes.mark(quantity.route)))
    if len(pairs) > _PAIRS:
        heads = [f"{len(pairs)} pairs of training domains", "least", "mean", "most"]
    else:
        heads = ["pair A | B", *(f"{analysis.domains[a]} | {analysis.domains[b]}" for a, b in pairs)]
    return _table(rows, (*heads, "unit", "route"))


def _scores_block(analyses: "Sequence[Analysis]", names: Sequence[str]) -> str:
    shown = ("risk", "accuracy", "variance_hessian_cosine")
    rows = list[tuple[str, ...]]()
    for domain, split in zip(analyses[0].domains, analyses[0].splits, strict=True):
        if all(domain in analysis.domains for analysis in analyses):
            at = [analysis.domains.index(domain) for analysis in analyses]
            cells = [_cells(a.quantities[n])[i] for n in shown for a, i in zip(analyses, at, strict=True)]
            rows.append((domain, split, *cells))
    return _table(rows, ("domain", "split", *(f"{quantity}, {name}" for quantity in shown for name in names)))


def _cells(quantity: "Quantity") -> list[str]:
    """Return each number of a quantity, row by row."""
    from fishr.training.evaluation import percentage

    values = quantity.value.flatten().tolist()
    if quantity.name == "accuracy":
        return list(map(percentage, values))
    error = quantity.error
    errors = [None] * len(values) if error is None else error.expand_as(quantity.value).flatten().tolist()
    return list(map(_cell, values, errors))


def _cell(value: float, error: float | None = None) -> str:
    if math.isnan(value):
        return "–"
    # An error at the level of rounding says no more than that the number is exact.
    exact = error is None or error <= 1e-9 * abs(value)
    return f"{value:.4g}" if exact else f"{value:.4g} ± {error:.1g}"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, disable_numparse=True)
