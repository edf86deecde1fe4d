"""Tables of an analysis for people, and its JSON."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from torch import Tensor

    from fishr.analysis import Analysis, History
    from fishr.diagnostics import Quantity

# More pairs than these do not fit beside each other: their range is shown.
_PAIRS = 6
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
    blocks = [_heading(analysis), _domain_block(analysis.quantities, analysis, routes)]
    if len(analysis.training) > 1:
        blocks.append(_pair_block(analysis, routes))
    rows = [
        (name, *_cells(q.value.reshape(1), q.error), q.unit, routes.mark(q.route))
        for name, q in analysis.quantities.items()
        if q.axes == ()
    ]
    blocks.append(_table(rows, ("training domains together", "value", "unit", "route")))
    if analysis.network:
        blocks.append("whole network\n" + _domain_block(analysis.network, analysis, routes))
    rows = [(h.title, _cell(h.value, h.error), h.unit, routes.mark(h.route)) for h in headlines(analysis).values()]
    blocks.append(_table(rows, ("headline, training domains", "value", "unit", "route")))
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
            rows.append((h.title, *cells, "–" if math.isnan(times) else f"{times:.3g}×", h.unit, routes.mark(h.route)))
    head = ("headline, training domains", *names, f"{names[0]} / {names[1]}", "unit", "route")
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


def history_object(history: "History") -> dict[str, Any]:
    """Return recorded statistics, for JSON."""
    from fishr.analysis.history import CURVES

    return {
        "name": history.name,
        "finished": history.finished,
        "steps": history.steps.tolist(),
        "risks": history.risks.tolist(),
        "penalties": {term: values.tolist() for term, values in history.penalties.items()},
        **{name: getattr(history, name).tolist() for name in CURVES},
    }


def _objects(quantities: "dict[str, Quantity]") -> dict[str, Any]:
    return {
        name: {
            "value": quantity.value.tolist(),
            "error": None if quantity.error is None else quantity.error.expand_as(quantity.value).tolist(),
            "axes": quantity.axes,
            "unit": quantity.unit,
            "route": quantity.route,
        }
        for name, quantity in quantities.items()
        if "parameter" not in quantity.axes
    }


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


def _domain_block(quantities: "dict[str, Quantity]", analysis: "Analysis", routes: Routes) -> str:
    rows = [
        (name, *_cells(q.value, q.error), q.unit, routes.mark(q.route))
        for name, q in quantities.items()
        if q.axes == ("domain",)
    ]
    splits = zip(analysis.domains, analysis.splits, strict=True)
    columns = [f"{name}{'' if split == 'training' else ' (eval)'}" for name, split in splits]
    return _table(rows, ("each domain", *columns, "unit", "route"))


def _pair_block(analysis: "Analysis", routes: Routes) -> str:
    pairs = list(combinations(range(len(analysis.training)), 2))
    many = len(pairs) > _PAIRS
    rows = list[tuple[str, ...]]()
    for name, quantity in analysis.quantities.items():
        if quantity.axes != ("domain", "domain"):
            continue
        if many:
            both = [float(quantity.value[pair]) for a, b in pairs for pair in ((a, b), (b, a))]
            cells = [_cell(number) for number in (min(both), sum(both) / len(both), max(both))]
        else:
            symmetric = all(_same(float(quantity.value[a, b]), float(quantity.value[b, a])) for a, b in pairs)
            cells = [_pair(quantity, a, b, symmetric) for a, b in pairs]
        rows.append((name, *cells, quantity.unit, routes.mark(quantity.route)))
    if many:
        return _table(rows, (f"{len(pairs)} pairs of training domains", "least", "mean", "most", "unit", "route"))
    names = [f"{analysis.domains[a]} | {analysis.domains[b]}" for a, b in pairs]
    return _table(rows, ("pair A | B", *names, "unit", "route"))


def _pair(quantity: "Quantity", a: int, b: int, symmetric: bool) -> str:
    errors = None if quantity.error is None else quantity.error.expand_as(quantity.value)
    cells = [_cell(float(quantity.value[p]), None if errors is None else float(errors[p])) for p in ((a, b), (b, a))]
    return cells[0] if symmetric else f"A→B {cells[0]}, B→A {cells[1]}"


def _same(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=1e-6) or (math.isnan(one) and math.isnan(other))


def _scores_block(analyses: "Sequence[Analysis]", names: Sequence[str]) -> str:
    shown = ("risk", "accuracy", "variance_hessian_cosine")
    rows = list[tuple[str, ...]]()
    for domain, split in zip(analyses[0].domains, analyses[0].splits, strict=True):
        if all(domain in analysis.domains for analysis in analyses):
            at = [analysis.domains.index(domain) for analysis in analyses]
            cells = [_cell(float(a.quantities[n].value[i])) for n in shown for a, i in zip(analyses, at, strict=True)]
            rows.append((domain, split, *cells))
    return _table(rows, ("domain", "split", *(f"{quantity}, {name}" for quantity in shown for name in names)))


def _cells(value: "Tensor", error: "Tensor | None") -> list[str]:
    errors = [None] * len(value) if error is None else error.expand_as(value).tolist()
    return [_cell(number, one) for number, one in zip(value.tolist(), errors, strict=True)]


def _cell(value: float, error: float | None = None) -> str:
    if math.isnan(value):
        return "–"
    # An error at the level of rounding says no more than that the number is exact.
    exact = error is None or error <= 1e-9 * abs(value)
    return f"{value:.4g}" if exact else f"{value:.4g} ± {error:.1g}"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, disable_numparse=True)
