"""How an analysis looks: tables for people, and what JSON says of it."""

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
    """Numbers for the routes of a table, in the order in which they are first named, and the legend below it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def mark(self, route: str) -> str:
        """The number of a route in brackets."""
        return f"[{self._known.setdefault(route, len(self._known) + 1)}]"

    def legend(self) -> str:
        """A line a route."""
        return "\n".join(f"[{number}] {route}" for route, number in self._known.items())


def analysis_text(analysis: "Analysis", histories: "Sequence[History]" = ()) -> str:
    """One analysis: a block of domains, one of pairs, one of the training domains together, the headlines."""
    from fishr.analysis import headlines

    routes = Routes()
    blocks = [_heading(analysis), _domain_block(analysis.quantities, analysis, routes)]
    if len(analysis.training) > 1:
        blocks.append(_pair_block(analysis, routes))
    blocks.append(_together_block(analysis.quantities, "training domains together", routes))
    if analysis.network:
        blocks.append("whole network\n" + _domain_block(analysis.network, analysis, routes))
    rows = [(h.title, _cell(h.value, h.error), h.unit, routes.mark(h.route)) for h in headlines(analysis).values()]
    blocks.append(_table(rows, ("headline, training domains", "value", "unit", "route")))
    recorded = [_history_block(histories)] if histories else []
    return "\n\n".join([*blocks, *recorded, "routes\n" + routes.legend(), "\n".join(_CAPTIONS)])


def comparison_text(first: "Analysis", second: "Analysis", histories: "Sequence[History]" = ()) -> str:
    """Two analyses: each domain's risk and accuracy side by side, then the headlines and their ratio."""
    from fishr.analysis import headlines, ratio

    routes = Routes()
    one, two = headlines(first), headlines(second)
    names = (first.name, second.name) if first.name != second.name else (f"{first.name} (1)", f"{second.name} (2)")
    rows = [
        (
            h.title,
            _cell(h.value, h.error),
            _cell(two[name].value, two[name].error),
            _times(ratio(h, two[name])),
            h.unit,
            routes.mark(h.route),
        )
        for name, h in one.items()
        if name in two
    ]
    head = ("headline, training domains", *names, f"{names[0]} / {names[1]}", "unit", "route")
    blocks = [_heading(first), _heading(second), _scores_block((first, second), names), _table(rows, head)]
    recorded = [_history_block(histories)] if histories else []
    return "\n\n".join([*blocks, *recorded, "routes\n" + routes.legend(), "\n".join(_CAPTIONS)])


def _history_block(histories: "Sequence[History]") -> str:
    """What runs recorded: first and last record of each run, side by side for several."""
    from fishr.analysis import CURVES

    columns = [(history, index) for history in histories for index in (0, -1)]
    rows = [
        (title, *(_cell(float(getattr(history, name)[index].mean())) for history, index in columns))
        for name, title in CURVES.items()
    ]
    heads = [f"{history.name}, step {int(history.steps[index])}" for history, index in columns]
    return _table(rows, ("recorded while training", *heads))


def analysis_object(analysis: "Analysis") -> dict[str, Any]:
    """What JSON says of an analysis: everything but the quantities with a column a parameter."""
    import attrs

    from fishr.analysis import headlines

    looked_at = zip(analysis.domains, analysis.splits, analysis.rows, analysis.samples, strict=True)
    return {
        "name": analysis.name,
        "source": analysis.source,
        "loss": analysis.loss,
        "settings": attrs.asdict(analysis.settings),
        "domains": [{"name": n, "split": s, "rows": rows, "samples": used} for n, s, rows, used in looked_at],
        "parameters": analysis.layout.size,
        "headlines": {name: finite(attrs.asdict(headline)) for name, headline in headlines(analysis).items()},
        "quantities": _objects(analysis.quantities),
        "network": _objects(analysis.network),
    }


def history_object(history: "History") -> dict[str, Any]:
    """What JSON says of recorded statistics."""
    from fishr.analysis import CURVES

    return {
        "name": history.name,
        "finished": history.finished,
        "steps": history.steps.tolist(),
        "risks": finite(history.risks.tolist()),
        "penalties": {term: finite(values.tolist()) for term, values in history.penalties.items()},
        **{name: finite(getattr(history, name).tolist()) for name in CURVES},
    }


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for.

    Example:
        >>> finite({"a": [1.0, float("nan")]})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _objects(quantities: "dict[str, Quantity]") -> dict[str, Any]:
    return {
        name: {
            "value": finite(quantity.value.tolist()),
            "error": None if quantity.error is None else finite(quantity.error.expand_as(quantity.value).tolist()),
            "axes": list(quantity.axes),
            "unit": quantity.unit,
            "route": quantity.route,
        }
        for name, quantity in quantities.items()
        if "parameter" not in quantity.axes
    }


def _heading(analysis: "Analysis") -> str:
    source = analysis.source
    looked_at = [
        f"{name} {used} of {rows}" if used < rows else f"{name} {rows}"
        for name, used, rows in zip(analysis.domains, analysis.samples, analysis.rows, strict=True)
    ]
    drawn = f" (drawn with seed {analysis.settings.seed})" if analysis.samples != analysis.rows else ""
    return (
        f"{analysis.name}: {source['path']}, {source['kind']}, step {source['step']}\n"
        f"head of {analysis.layout.size} parameters, {analysis.loss}; samples: {', '.join(looked_at)}{drawn}"
    )


def _domain_block(quantities: "dict[str, Quantity]", analysis: "Analysis", routes: Routes) -> str:
    rows = [
        (name, *_cells(q.value, q.error), q.unit, routes.mark(q.route))
        for name, q in quantities.items()
        if q.axes == ("domain",)
    ]
    columns = [f"{name}{'' if split == 'training' else ' (eval)'}" for name, split in _splits(analysis)]
    return _table(rows, ("each domain", *columns, "unit", "route"))


def _splits(analysis: "Analysis") -> list[tuple[str, str]]:
    return list(zip(analysis.domains, analysis.splits, strict=True))


def _pair_block(analysis: "Analysis", routes: Routes) -> str:
    pairs = list(combinations(range(len(analysis.training)), 2))
    many = len(pairs) > _PAIRS
    rows = list[tuple[str, ...]]()
    for name, quantity in analysis.quantities.items():
        if quantity.axes != ("domain", "domain"):
            continue
        value = quantity.value
        symmetric = all(_same(float(value[a, b]), float(value[b, a])) for a, b in pairs)
        if many:
            both = [float(value[pair]) for a, b in pairs for pair in ((a, b), (b, a))]
            cells = [_cell(number) for number in (min(both), sum(both) / len(both), max(both))]
        else:
            cells = [_pair(quantity, a, b, symmetric) for a, b in pairs]
        rows.append((name, *cells, quantity.unit, routes.mark(quantity.route)))
    names = [f"{analysis.domains[a]} | {analysis.domains[b]}" for a, b in pairs]
    columns = ["least", "mean", "most"] if many else names
    return _table(
        rows, (f"{len(pairs)} pairs of training domains" if many else "pair A | B", *columns, "unit", "route")
    )


def _pair(quantity: "Quantity", a: int, b: int, symmetric: bool) -> str:
    errors = None if quantity.error is None else quantity.error.expand_as(quantity.value)
    cells = [_cell(float(quantity.value[p]), None if errors is None else float(errors[p])) for p in ((a, b), (b, a))]
    return cells[0] if symmetric else f"A→B {cells[0]}, B→A {cells[1]}"


def _together_block(quantities: "dict[str, Quantity]", title: str, routes: Routes) -> str:
    rows = [
        (
            name,
            *_cells(q.value.reshape(1), None if q.error is None else q.error.reshape(1)),
            q.unit,
            routes.mark(q.route),
        )
        for name, q in quantities.items()
        if q.axes == ()
    ]
    return _table(rows, (title, "value", "unit", "route"))


def _scores_block(analyses: "Sequence[Analysis]", names: Sequence[str]) -> str:
    shown = ("risk", "accuracy", "variance_hessian_cosine")
    rows = list[tuple[str, ...]]()
    for domain, split in _splits(analyses[0]):
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


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}×"


def _same(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=1e-6) or (math.isnan(one) and math.isnan(other))


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, disable_numparse=True)
