"""Several methods as one."""

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, TypeVar

from fishr.errors import InputError
from fishr.methods.method import Hparams, Method
from fishr.methods.ranges import Range
from fishr.penalties.combinators import Total
from fishr.penalties.erm import ERM
from fishr.training.objective import Objective

T = TypeVar("T")


def combined(methods: Mapping[str, Method]) -> Method:
    """Return the method that is several methods at once, by name: the sum of their penalties, with all their parts.

    The optimizer is reset where any of them resets it. A method that replaces the risk, or sets a field such as the
    descent, is combined with those that do not.

    Raises:
        InputError: Two of them draw a hyper-parameter of one name, or set the same part; when they are built.

    Example:
        >>> from fishr.methods.every_method import METHODS
        >>> both = combined({name: METHODS[name] for name in ("Fishr", "Mixup")})
        >>> sorted(both.ranges), sorted(both.changes({"mixup_alpha": 0.2}))
        (['ema', 'lambda', 'mixup_alpha', 'penalty_anneal_iters'], ['transform'])
    """
    each = methods.items()

    def changes(h: Hparams) -> dict[str, Any]:
        return _merged("set", ((name, one.changes(h)) for name, one in each))

    def ranges_of(dataset: str) -> dict[str, Range]:
        return _merged("draw", ((name, one.ranges_of(dataset)) for name, one in each))

    return Method(
        _merged("draw", ((name, one.ranges) for name, one in each)),
        lambda h: _sum({name: one.objective(h) for name, one in each}),
        changes,
        ranges_of,
        lambda featurizer, h: reduce(lambda found, one: one.featurizer(found, h), methods.values(), featurizer),
        next((one.passes for one in methods.values() if one.passes), None),
    )


def _sum(objectives: Mapping[str, Objective]) -> Objective:
    each = objectives.items()
    terms = _merged("have the penalty", ((name, one.penalty.terms) for name, one in each))
    risks = _merged("set", ((name, {} if one.risk == ERM() else {"risk": one.risk}) for name, one in each))
    resets = set[int]()
    for one in objectives.values():
        at = one.fresh_optimizer_at
        resets |= set(at) if isinstance(at, tuple) else set() if at is None else {at}
    fresh = None if not resets else min(resets) if len(resets) == 1 else tuple(sorted(resets))
    return Objective(
        risk=risks.get("risk", ERM()),
        penalty=Total(**terms),
        l2=sum(one.l2 for one in objectives.values()),
        rescale=any(one.rescale for one in objectives.values()),
        fresh_optimizer_at=fresh,
    )


def _merged(verb: str, found: Iterable[tuple[str, Mapping[str, T]]]) -> dict[str, T]:
    """Return the union of mappings; refuse a key of two."""
    merged, owners = dict[str, T](), dict[str, str]()
    for owner, own in found:
        for key in own:
            if key in owners:
                raise InputError(f"{owners[key]} and {owner} both {verb} {key}; combine methods that differ in it")
            owners[key] = owner
        merged |= own
    return merged
