"""The registry of diagnostics: each is one function of a view, declared once with its unit and axes."""

import re
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import getdoc, signature
from pkgutil import iter_modules
from typing import Any, Concatenate, Literal, ParamSpec, Protocol

from attrs import frozen
from torch import Tensor, nn

from fishr.diagnostics import quantities
from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.uncertainty import Estimate, Estimation, Quantity
from fishr.errors import InputError
from fishr.grad_mode import outside_inference_mode
from fishr.losses import CrossEntropy, Loss
from fishr.observation import Observation

P = ParamSpec("P")
Scope = Literal["head", "network", "grid"]

# The order of tables, and the headings of docs/diagnostics.md; a section of another name comes last.
SECTIONS = {
    "gradients": "Risk, gradients and their noise",
    "curvature": "Curvature",
    "sharpness": "Sharpness",
    "distances": "Distances between domains",
    "agreement": "Agreement of gradients",
    "inconsistency": "Inconsistency to second order",
    "overlap": "Overlap of Hessians",
    "landscape": "Risks on a landscape grid",
}


class Diagnostic(Protocol[P]):
    """A diagnostic: called with a head and its data, or by ``of`` with a view that several diagnostics share."""

    def __call__(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        sizes: tuple[int, ...],
        loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
        estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Quantity:
        """Measure a head."""
        ...

    def of(self, view: Observation | Curvature, /, *args: P.args, **kwargs: P.kwargs) -> Quantity:
        """Measure what a view shows."""
        ...


@frozen(eq=False)
class Entry:
    """A registered diagnostic.

    Args:
        function: the diagnostic.
        unit: of its value; "1" for a pure number.
        axes: of its value.
        section: key of ``SECTIONS``.
        scopes: "head" for ``measure``, "network" for ``measure_network``, "grid" for risks on a landscape.
        headline: title among the headlines of an analysis, which average it over domains or pairs; None: it is none.
    """

    function: Any
    unit: str
    axes: tuple[str, ...]
    section: str
    scopes: tuple[Scope, ...]
    headline: str | None

    @property
    def options(self) -> set[str]:
        """Names of the options that it takes by keyword."""
        return {each.name for each in signature(self.function).parameters.values() if each.kind is each.KEYWORD_ONLY}

    @property
    def explanation(self) -> dict[str, str]:
        """Parts of its entry in the documentation by their names, those that it has."""
        text = getdoc(self.function) or ""
        said = re.search(r"Meaning:\s(.*?)\.\sLarge:\s(.*?)\.(?:\n\n|$)", text, re.DOTALL)
        route = re.search(r"Route:\s(.*?)\.\sExact:\s(.*?)\.(?:\n\n|$)", text, re.DOTALL)
        source = re.search(r"Source:\n    (.*?)\.?(?:\n\n|$)", text, re.DOTALL)
        found = {"meaning": said and said[1], "formula": text.partition("\n\n")[0].rstrip("."), "unit": self.unit}
        found |= {"axes": " × ".join(self.axes), "large": said and said[2], "route": route and route[1]}
        found |= {"exact": route and route[2], "source": source and source[1]}
        return {name: " ".join(part.split()) for name, part in found.items() if part}

    @property
    def place(self) -> tuple[str, int]:
        """Module and line, by which the diagnostics of a section are ordered."""
        return self.function.__module__, self.function.__wrapped__.__code__.co_firstlineno


_ENTRIES = dict[str, Entry]()


def diagnostic(
    unit: str,
    axes: tuple[str, ...] = (),
    *,
    section: str,
    scopes: tuple[Scope, ...] = ("head",),
    headline: str | None = None,
) -> Callable[
    [Callable[Concatenate[Observation, P], Estimate] | Callable[Concatenate[Curvature, P], Estimate]], Diagnostic[P]
]:
    """Register a function of an ``Observation``, or of the ``Curvature`` on one, as a diagnostic.

    Its options are keyword arguments with defaults; ``measure`` passes those that it knows by name. Its docstring is
    its entry in the documentation: the first line is the formula, "Meaning: … . Large: … ." what it is in words and
    what a large value means, "Route: … . Exact: … ." how it is computed, fastest first, and when it is exact up to
    rounding. The arguments are those of ``Entry``.

    Raises:
        InputError: another diagnostic has the name.

    Example:
        >>> import torch
        >>> @diagnostic("1", ("domain",), section="gradients")
        ... def samples(seen: Observation) -> Estimate:
        ...     return Estimate(torch.tensor(seen.sizes), "counted")
        >>> samples(nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3)).value
        tensor([2, 3])
        >>> del _ENTRIES["samples"]
    """

    def register(function: Callable[..., Estimate]) -> Any:
        first = next(iter(signature(function).parameters.values()))

        def of(view: Observation | Curvature, /, **options: Any) -> Quantity:
            curvature = view if isinstance(view, Curvature) else Curvature(view)
            found = function(curvature.seen if first.annotation is Observation else curvature, **options)
            return Quantity(function.__name__, found.value, axes, unit, found.route, found.error)

        @wraps(function)
        @outside_inference_mode()
        def measured(*data: Any, **given: Any) -> Quantity:
            options = {name: given.pop(name) for name in entry.options & given.keys()}
            return of(Curvature.of(*data, **given), **options)

        vars(measured)["of"] = of
        entry = _added(Entry(measured, unit, axes, section, scopes, headline))
        return measured

    return register


def grid_diagnostic(
    unit: str, axes: tuple[str, ...], *, section: str
) -> Callable[[Callable[P, Estimate]], Callable[P, Quantity]]:
    """Register a function of risks on a grid."""

    def register(function: Callable[P, Estimate]) -> Callable[P, Quantity]:
        @wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> Quantity:
            found = function(*args, **kwargs)
            return Quantity(function.__name__, found.value, axes, unit, found.route, found.error)

        _added(Entry(measured, unit, axes, section, ("grid",), None))
        return measured

    return register


def diagnostics(scope: Scope | None = None) -> dict[str, Entry]:
    """Return all diagnostics by name, or those of one scope, in the order of tables.

    Args:
        scope: ``"head"``, ``"network"``, or ``"grid"``, the risks on a landscape; None: all.

    Example:
        >>> list(diagnostics("grid"))
        ['barrier', 'inconsistency', 'inconsistency_pairs']
    """
    for module in iter_modules(quantities.__path__):
        import_module(f"{quantities.__name__}.{module.name}")
    sections = list(SECTIONS)

    def order(item: tuple[str, Entry]) -> tuple[int, tuple[str, int]]:
        section = item[1].section
        return sections.index(section) if section in sections else len(sections), item[1].place

    found = dict(sorted(_ENTRIES.items(), key=order))
    return {name: entry for name, entry in found.items() if scope is None or scope in entry.scopes}


def _added(entry: Entry) -> Entry:
    name = entry.function.__name__
    if (other := _ENTRIES.get(name, entry)).place[0] != entry.place[0]:
        raise InputError(f"diagnostic {name!r}: {other.place[0]} has one of this name; choose another name")
    _ENTRIES[name] = entry
    return entry
