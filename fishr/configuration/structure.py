"""Tables to frozen objects, strictly: nothing is coerced, dropped or guessed."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, TypeVar, cast, get_args

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory, override

from fishr.configuration.cattrs_problems import MOST, complaint, problems_of
from fishr.configuration.declared_types import (
    SCALARS,
    alternatives,
    expected,
    family_of,
    is_array,
    is_flat,
    is_mapping,
    is_optional,
    is_record,
    is_union,
    settings,
)
from fishr.configuration.families import FAMILIES, KIND, Family
from fishr.configuration.problems import (
    ConfigurationError,
    Problem,
    flaw,
    listed,
    one_of,
    quoted,
    unexpected,
)
from fishr.configuration.scalars import read_scalar, unsupported

T = TypeVar("T")
# Keys from which a table without any known one is taken for another object's.
_FOREIGN = 3


def structure(
    table: Mapping[str, object],
    target: type[T],
    plugins: Iterable[str] | None = (),
    families: tuple[Family, ...] = FAMILIES,
) -> T:
    """Return the object that a table describes; ``structure(unstructure(x), type(x)) == x``.

    Args:
        table: Tables, lists and scalars, as TOML holds them.
        target: The frozen attrs class to build.
        plugins: Modules whose classes and functions a ``kind = "module:Name"`` may name; no other is imported. None:
            all modules that are imported already.
        families: The protocols that declared types name, and their kinds.

    Raises:
        ConfigurationError: All problems of the table, each with its path.

    Example:
        >>> from fishr.penalties import Scaled
        >>> structure({"penalty": {"kind": "Fishr", "ema": 0.95}, "schedule": 1000}, Scaled).schedule
        Constant(value=1000.0)
    """
    if attrs.has(target) and isinstance(table, Mapping) and _FOREIGN <= len(table) <= MOST:  # pyright: ignore[reportUnnecessaryIsInstance]
        known = settings(target)
        if not table.keys() & known.keys():
            raise flaw(
                f"got {listed(table)}, which are the keys of something else; {target.__name__} takes {listed(known)}"
            )
    try:
        return _converter(families, None if plugins is None else tuple(plugins)).structure(table, target)
    except Exception as error:
        try:
            raise ConfigurationError(problems_of(error, target)) from error
        except RecursionError:
            raise flaw("tables are nested too deeply to be read") from None


@lru_cache(maxsize=64)
def _converter(families: tuple[Family, ...], plugins: tuple[str, ...] | None) -> cattrs.Converter:
    """Return a converter with strict hooks; cattrs' own read "5" as 5 and "false" as True."""
    convert = cattrs.Converter(forbid_extra_keys=True, use_alias=True)
    hooks = _Hooks(convert, families, plugins, convert.get_structure_hook(tuple[int, ...]))
    # Later predicates come first; cattrs' own hooks of these classes take their subclasses too.
    for scalar in (*SCALARS, bytes):
        convert.register_structure_hook(scalar, read_scalar)
    convert.register_structure_hook_func(lambda declared: True, read_scalar)
    convert.register_structure_hook_func(is_array, hooks.array)
    convert.register_structure_hook_func(is_union, hooks.union)
    convert.register_structure_hook_factory(is_mapping, hooks.entries)
    convert.register_structure_hook_factory(is_record, hooks.record)
    convert.register_structure_hook_func(lambda declared: family_of(declared, families) is not None, hooks.member)
    return convert


@attrs.frozen
class _Hooks:
    """Hooks of one converter, with what they share."""

    convert: cattrs.Converter
    families: tuple[Family, ...]
    plugins: tuple[str, ...] | None
    items: Callable[[Any, Any], object]

    def table(self, value: object, declared: Any) -> Mapping[Any, object]:
        if not isinstance(value, Mapping):
            raise unexpected(value, expected(declared, self.families))
        return cast(Mapping[Any, object], value)

    def array(self, value: object, declared: Any) -> object:
        if not isinstance(value, list | tuple):
            raise unexpected(value, expected(declared, self.families))
        length, items = len(cast(list[object], value)), get_args(declared)
        if items[-1] is not ... and length != len(items):
            raise flaw(f"got an array of length {length}, expected one of length {len(items)}")
        return self.items(value, declared)

    def union(self, value: object, declared: Any) -> object:
        members = alternatives(declared)
        if sum(map(is_record, members)) > 1:
            raise unsupported(declared)
        if len(members) == 1:
            return None if value is None else self.convert.structure(value, members[0])
        # Its own type first, since a whole number fits a float too.
        for one in sorted(members, key=lambda one: one is not type(value)):
            with suppress(Exception):
                return self.convert.structure(value, one)
        for one in filter(is_array, members):
            if isinstance(value, list):  # the problem of an item
                return self.convert.structure(value, one)
        raise unexpected(value, expected(declared, self.families))

    def entries(self, declared: Any) -> Callable[[Any, Any], object]:
        read: Any = mapping_structure_factory(declared, self.convert)
        return lambda value, _: read(self.table(value, declared), declared)

    def record(self, cls: Any) -> Callable[[Any, Any], object]:
        fields = settings(cls)
        if is_flat(cls):
            declared: Any = next(iter(fields.values())).type
            return lambda value, _: cls(**self.convert.structure(self.table(value, cls), declared))
        checked: Any = {one.name: override(struct_hook=partial(self.field, cls, one)) for one in fields.values()}
        read: Any = make_dict_structure_fn(cls, self.convert, **checked)
        absent = {key: attrs.NOTHING for key, one in fields.items() if one.default is attrs.NOTHING}
        # The names of an earlier version, which the files of earlier runs hold.
        formerly = {one.metadata["formerly"]: key for key, one in fields.items() if "formerly" in one.metadata}

        def hook(value: object, _: Any) -> object:
            table = self.table(value, cls)
            current = {key if formerly.get(key, key) in table else formerly[key]: one for key, one in table.items()}
            return read({**absent, **current}, cls)

        return hook

    def field(self, cls: type[Any], one: "attrs.Attribute[Any]", value: object, declared: Any) -> object:
        """Read a field and call its validator at once, so that a fault in one field does not hide another's."""
        if value is attrs.NOTHING and is_optional(declared):
            return None  # a file cannot write None: leaving the key out is how it says so
        if value is attrs.NOTHING:
            raise flaw(f"missing, expected {expected(declared, self.families)}")
        found = self.convert.structure(value, declared)
        if one.validator is not None and one.converter is None:
            alone = object.__new__(cls)
            object.__setattr__(alone, one.name, found)
            try:
                # One that reads other fields finds none, and is asked again when the object is built.
                with suppress(AttributeError):
                    one.validator(alone, one, found)
            except Exception as error:
                problem = complaint(cls, error)
                raise flaw(problem.message, "" if problem.path == one.name else problem.path) from error
        return found

    def member(self, value: object, declared: Any) -> object:
        family = cast(Family, family_of(declared, self.families))
        if isinstance(value, ConfigurationError):
            raise value
        if isinstance(value, int | float) and not isinstance(value, bool) and family.number:
            return family.exported(family.number)(read_scalar(value, float))
        if isinstance(value, bool) and family.switch:
            return family.exported(family.switch[value])()
        table = dict(self.table(value, declared))
        kind = table.pop(KIND, family.implied)
        if kind is None:
            raise flaw(f"missing, expected {one_of(family.kinds)}", KIND)
        found = family.find(kind, self.plugins)
        if isinstance(found, type):
            return self.convert.structure(table, found)
        if table:
            unknown = f"unknown key, the function {found.__qualname__} takes none"
            raise ConfigurationError(Problem(quoted(key), unknown) for key in list(table)[:MOST])
        return family.exported(family.wrapper)(found) if family.wrapper else found
