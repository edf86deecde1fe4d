"""Tables to frozen objects and back on cattrs, strictly: nothing is coerced, dropped or guessed."""

import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, BaseValidationError, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory, override

from fishr.configuration.families import FAMILIES, Family, plugin_name
from fishr.configuration.problems import (
    ConfigurationError,
    Problem,
    described,
    flaw,
    listed,
    one_of,
    quoted,
    suggestion,
    unexpected,
)
from fishr.errors import one_line

T = TypeVar("T")
KIND = "kind"
# Problems of one table or array that are listed: finding the nearest name of each takes time.
_MOST = 20


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

    Returns:
        An object of the target.

    Raises:
        ConfigurationError: All problems of the table, each with its path.

    Example:
        >>> from fishr.penalties import Scaled
        >>> structure({"penalty": {"kind": "Fishr", "ema": 0.95}, "schedule": 1000}, Scaled).schedule
        Constant(value=1000.0)
        >>> structure({"penalty": {"kind": "Fisher"}, "schedule": "1000"}, Scaled)
        Traceback (most recent call last):
            ...
        fishr.configuration.problems.ConfigurationError: penalty.kind: got "Fisher" (a string), expected one of \
"ERM", "IRM", "Fishr", "Scaled", "Total", "VREx"; did you mean "Fishr"?; schedule: got "1000" (a string), \
expected a number or a table whose kind is one of "Constant", "CosineSchedule", "Joined", "LinearSchedule", \
"StepSchedule"
    """
    try:
        return _converter(families, None if plugins is None else tuple(plugins)).structure(table, target)
    except Exception as error:
        try:
            raise ConfigurationError(_problems(error, target)) from error
        except RecursionError:
            raise flaw("tables are nested too deeply to be read") from None


def unstructure(obj: object, families: tuple[Family, ...] = FAMILIES) -> dict[str, Any]:
    """Return the table that describes an object.

    Args:
        obj: An object of a frozen attrs class.
        families: The protocols that declared types name, and their kinds.

    Returns:
        Tables, lists and scalars in the order of the fields; fields that are None are left out.

    Raises:
        ConfigurationError: All parts of the object that no file can hold, such as a lambda.

    Example:
        >>> from fishr.penalties import Scaled, Total, VREx
        >>> unstructure(Total(rex=Scaled(VREx(form="pairwise"), 10.0)))
        {'rex': {'kind': 'Scaled', 'penalty': {'kind': 'VREx', 'form': 'pairwise'}, 'schedule': 10.0}}
    """
    if not is_record(type(obj)):
        raise unexpected(obj, "an object of a frozen attrs class")
    table = _converter(families, None).unstructure(obj)
    # Reading the table back finds, with its path, whatever a file cannot hold.
    found = structure(table, type(obj), None, families)
    problems = list(_differences(obj, found))
    if problems:
        raise ConfigurationError(problems)
    return table


@lru_cache(maxsize=64)
def _converter(families: tuple[Family, ...], plugins: tuple[str, ...] | None) -> cattrs.Converter:
    """Return a converter whose every hook is strict: cattrs' own make 5 of "5" and True of "false"."""
    convert = cattrs.Converter(forbid_extra_keys=True, use_alias=True)
    hooks = _Hooks(convert, families, plugins, convert.get_structure_hook(tuple[int, ...]))
    # Later predicates come first.
    convert.register_structure_hook_func(lambda declared: True, _unsupported)
    convert.register_structure_hook_func(lambda declared: get_origin(declared) is Literal, _literal)
    convert.register_structure_hook_func(lambda declared: get_origin(declared) is tuple, hooks.read_array)
    convert.register_structure_hook_func(is_union, hooks.read_union)
    convert.register_structure_hook_factory(is_mapping, hooks.entries_reader)
    convert.register_structure_hook_factory(is_record, hooks.record_reader)
    convert.register_structure_hook_func(hooks.is_family, hooks.read_member)
    convert.register_structure_hook(bytes, _unsupported)
    for scalar, (check, _) in SCALARS.items():
        # cattrs hands a class's hook its subclasses, such as enumerations, too.
        convert.register_structure_hook(
            scalar,
            lambda value, declared, scalar=scalar, check=check: (
                check(value) if declared is scalar else _unsupported(value, declared)
            ),
        )
    convert.register_unstructure_hook_func(lambda declared: True, lambda value: value)
    convert.register_unstructure_hook(float, lambda value: float(value) if type(value) is int else value)
    convert.register_unstructure_hook(Path, lambda value: value.as_posix() if isinstance(value, Path) else value)
    writers: list[tuple[Callable[[Any], bool], Callable[[Any, Any], object]]] = [
        (lambda declared: get_origin(declared) is tuple, hooks.write_array),
        (is_union, hooks.write_union),
        (is_mapping, hooks.write_entries),
        (is_record, hooks.write_record),
        (hooks.is_family, hooks.write_member),
    ]
    for fits, write in writers:
        convert.register_unstructure_hook_factory(fits, lambda declared, write=write: partial(write, declared))
    return convert


@attrs.frozen
class _Hooks:
    """What the hooks of one converter share."""

    convert: cattrs.Converter
    families: tuple[Family, ...]
    plugins: tuple[str, ...] | None
    read_tuple: Callable[[Any, Any], object]

    def is_family(self, declared: Any) -> bool:
        return family_of(declared, self.families) is not None

    def table(self, value: object, declared: Any) -> Mapping[Any, object]:
        if not isinstance(value, Mapping):
            raise unexpected(value, expected(declared, self.families))
        return cast(Mapping[Any, object], value)

    def read_array(self, value: object, declared: Any) -> object:
        if not isinstance(value, list | tuple):
            raise unexpected(value, expected(declared, self.families))
        length, items = len(cast(list[object], value)), get_args(declared)
        if items[-1:] != (...,) and length != len(items):
            raise flaw(f"got an array of length {length}, expected one of length {len(items)}")
        return self.read_tuple(value, declared)

    def read_union(self, value: object, declared: Any) -> object:
        if value is None and is_optional(declared):
            return None
        if sum(map(is_record, alternatives(declared))) > 1:
            _unsupported(value, declared)
        for one in alternatives(declared):
            try:
                return self.convert.structure(value, one)
            except Exception:
                if len(alternatives(declared)) == 1:
                    raise
        raise unexpected(value, expected(declared, self.families))

    def entries_reader(self, declared: Any) -> Callable[[Any, Any], object]:
        read: Any = mapping_structure_factory(declared, self.convert)

        def hook(value: object, _: Any) -> object:
            for key in self.table(value, declared):
                if not isinstance(key, str):
                    raise ConfigurationError(unexpected(key, "a string").under(str(key)))
            return read(value, declared)

        return hook

    def record_reader(self, cls: Any) -> Callable[[Any, Any], object]:
        fields = settings(cls)
        if is_flat(cls):
            (one,) = fields.values()
            declared: Any = one.type
            return lambda value, _: cls(**self.convert.structure(self.table(value, cls), declared))
        checked: Any = {one.name: override(struct_hook=partial(self.read_field, cls, one)) for one in fields.values()}
        read: Any = make_dict_structure_fn(cls, self.convert, **checked)
        absent = {key: attrs.NOTHING for key, one in fields.items() if one.default is attrs.NOTHING}
        # The names of an earlier version, which the files of earlier runs hold.
        formerly = {one.metadata["formerly"]: key for key, one in fields.items() if "formerly" in one.metadata}

        def hook(value: object, _: Any) -> object:
            table = self.table(value, cls)
            current = {key if formerly.get(key, key) in table else formerly[key]: one for key, one in table.items()}
            return read({**absent, **current}, cls)

        return hook

    def read_field(self, cls: type[Any], one: "attrs.Attribute[Any]", value: object, declared: Any) -> object:
        """Read a field and ask its validator at once, so that a fault in one field does not hide another's."""
        if value is attrs.NOTHING and is_optional(declared):
            return None  # a file cannot write None: leaving the key out is how it says so
        if value is attrs.NOTHING:
            raise flaw(f"missing, expected {expected(declared, self.families)}")
        found = self.convert.structure(value, declared)
        if one.validator is not None and one.converter is None:
            alone = object.__new__(cls)
            object.__setattr__(alone, one.name, found)
            try:
                one.validator(alone, one, found)
            except AttributeError:
                pass  # it reads other fields, and is asked again when the object is built
            except Exception as error:
                problem = _complaint(cls, error)
                raise flaw(problem.message, "" if problem.path == one.name else problem.path) from error
        return found

    def read_member(self, value: object, declared: Any) -> object:
        family = cast(Family, family_of(declared, self.families))
        if isinstance(value, ConfigurationError):
            raise value
        if isinstance(value, int | float) and not isinstance(value, bool) and family.number:
            return family.exported(family.number)(number(value))
        table = dict(self.table(value, declared))
        kind = table.pop(KIND, family.implied)
        if not kind:
            raise flaw(f"missing, expected {one_of(family.kinds)}", KIND)
        try:
            found = family.find(kind, self.plugins)
        except ConfigurationError as error:
            raise ConfigurationError(error.under(KIND)) from error
        if isinstance(found, type):
            return self.convert.structure(table, found)
        if table:
            unknown = f"unknown key, the function {found.__qualname__} takes none"
            raise ConfigurationError(Problem(quoted(key), unknown) for key in list(table)[:_MOST])
        return family.exported(family.wrapper)(found) if family.wrapper else found

    def write(self, value: object, declared: Any) -> Any:
        return self.convert.unstructure(value, unstructure_as=declared)

    def write_array(self, declared: Any, value: Any) -> object:
        if not isinstance(value, tuple):
            return value
        items = get_args(declared)
        items = items[:1] * len(value) if items[-1:] == (...,) else items
        return [self.write(one, item) for one, item in zip_longest(value, items[: len(value)])]

    def write_union(self, declared: Any, value: object) -> object:
        for one in alternatives(declared) if value is not None else ():
            written = self.write(value, one)
            try:
                self.convert.structure(written, one)
            except Exception:
                continue
            return written
        return value

    def write_entries(self, declared: Any, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {key: self.write(one, get_args(declared)[1]) for key, one in cast(Mapping[str, object], value).items()}

    def write_record(self, cls: Any, value: object) -> object:
        if type(value) is not cls:
            return value
        held = {key: (getattr(value, one.name), one.type) for key, one in settings(cls).items()}
        if is_flat(cls):
            ((entries, declared),) = held.values()
            return self.write(entries, declared)
        return {key: self.write(*one) for key, one in held.items() if one[0] is not None}

    def write_member(self, declared: Any, value: Any) -> object:
        """Write a member with its kind; a refusal stands in the table, to be raised where it is read back."""
        family, cls = cast(Family, family_of(declared, self.families)), cast(type[Any], type(value))
        named: Any = cls
        if cls is family.exported(family.wrapper):
            ((one,),) = (attrs.fields(cls),)
            named = getattr(value, one.name)
        elif inspect.isfunction(value) and not family.wrapper:
            named = value
        elif not is_record(cls):
            return value
        try:
            if cls is family.exported(family.number):
                return number(*attrs.astuple(value))
            kind = cls.__name__ if family.builtin(cls.__name__) is cls else plugin_name(named)
            if ":" in kind:
                family.check(named, kind)
        except ConfigurationError as error:
            return error
        table = self.write(value, cls) if named is cls else {}
        if KIND in table:
            return flaw(f"the key {KIND} names the class, so nothing else can be called {KIND}")
        return table if kind == family.implied else {KIND: kind, **table}


def _problems(error: Exception, cls: Any) -> list[Problem]:
    """Return the problems that an exception of cattrs reports, each with its path."""
    if isinstance(error, ConfigurationError):
        return list(error.problems)
    if isinstance(error, ForbiddenExtraKeysError):
        keys = sorted(error.extra_fields, key=lambda key: (len(str(key)), str(key)))
        more = [Problem("", f"{len(keys) - _MOST:,} more unknown keys")] if len(keys) > _MOST else []
        return [*(_unknown(key, error.cl) for key in keys[:_MOST]), *more]
    if not isinstance(error, BaseValidationError):
        return [_complaint(cls, error)]
    parts = sorted(error.exceptions, key=lambda part: not isinstance(part, ForbiddenExtraKeysError))
    found = [problem for part in parts[:_MOST] for problem in _located(part, error.cl)]
    return found + ([Problem("", "the entries after these are not listed")] if len(parts) > _MOST else [])


def _located(error: Exception, cls: Any) -> list[Problem]:
    """Return the problems of a part of a table under its key or index."""
    found = _problems(error, cls)
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return [problem.under(str(attrs.fields_dict(cls)[note.name].alias)) for problem in found]
        if isinstance(note, IterableValidationNote):
            step = f"[{note.index}]" if isinstance(note.index, int) else quoted(note.index)
            return [problem.under(step) for problem in found]
    return found


def _unknown(key: object, cls: type[Any]) -> Problem:
    known = tuple(settings(cls))
    hint = suggestion(key, known)
    if key == KIND and not hint:
        hint = f", this table is always a {cls.__name__}"
    elif not hint:
        hint = f", {cls.__name__} takes {listed(known) or 'none'}"
    return Problem(quoted(str(key)), f"unknown key{hint}")


def _complaint(cls: Any, error: Exception) -> Problem:
    """Return the problem of a refusal by a class; anything else that a class of the library raises is a fault of it."""
    ours = getattr(cls, "__module__", "").startswith("fishr.") and not isinstance(error, ValueError | TypeError)
    if isinstance(error, RecursionError) or ours:
        raise error
    # Some validators put objects behind their message.
    message = one_line(error.args[0] if error.args and isinstance(error.args[0], str) else str(error))
    name, colon, rest = message.partition(": ")
    if colon and attrs.has(cls) and name in attrs.fields_dict(cls):
        return Problem(name, rest)
    return Problem("", message or type(error).__name__)


def _differences(given: Any, read: Any, path: str = "") -> Iterator[Problem]:
    """Find the parts of an object that are read back as something else."""
    below: list[tuple[str, Any, Any]] = []
    if type(given) is type(read) and is_record(type(given)):
        below = [(key, *(getattr(x, one.name) for x in (given, read))) for key, one in settings(type(given)).items()]
    elif isinstance(given, tuple) and isinstance(read, tuple):
        below = [(f"[{index}]", *pair) for index, pair in enumerate(zip(given, read, strict=True))]
    elif isinstance(given, Mapping) and isinstance(read, Mapping):
        below = [(quoted(key), given[key], read[key]) for key in given]
    elif given is None and read is not None:
        yield Problem(path, "None cannot be written, for a key that is left out means the default")
    elif given != read or (type(given) is not type(read) and not isinstance(read, float)):
        yield Problem(path, f"got {described(given)}, expected a {type(read).__name__}: it is read back as one")
    for step, one, other in below:
        yield from (problem.under(step) for problem in _differences(one, other))


# Scalars: a value is what it is declared to be, and is never made into it.


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise unexpected(value, "true or false")
    return value


def whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise unexpected(value, "a whole number")
    if not -(2**63) <= value < 2**63:
        raise unexpected(value, "a whole number of at most 64 bits")
    return value


def number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unexpected(value, "a number")
    try:
        result = float(value)
    except OverflowError:
        raise unexpected(value, "a number that is at most about 1.8e308") from None
    if not math.isfinite(result):
        raise unexpected(value, "a finite number")
    return result


def text(value: object) -> str:
    if not isinstance(value, str):
        raise unexpected(value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise unexpected(value, "text that UTF-8 can encode") from None
    if "\0" in value:
        raise unexpected(value, "text without NUL characters")
    return value


def path(value: object) -> Path:
    if not isinstance(value, str) or not text(value):
        raise unexpected(value, "a path (a string)")
    return Path(value)


SCALARS: dict[type, tuple[Callable[[object], object], str]] = {
    bool: (boolean, "true or false"),
    int: (whole_number, "a whole number"),
    float: (number, "a number"),
    str: (text, "a string"),
    Path: (path, "a path (a string)"),
}


def _literal(value: object, declared: Any) -> object:
    choices = get_args(declared)
    for known in choices:
        if type(value) is type(known) and value == known:
            return known
    raise unexpected(value, one_of(choices) + suggestion(value, choices))


def _unsupported(value: object, declared: Any) -> object:
    raise flaw(f"a field of type {one_line(str(declared))} cannot be written in a file")


# Declared types.


def alternatives(declared: object) -> tuple[Any, ...]:
    """Return the members of a union without None, or the type alone when it is no union."""
    members = get_args(declared) if is_union(declared) else (declared,)
    return tuple(member for member in members if member is not type(None))


def is_union(declared: object) -> bool:
    return get_origin(declared) in (Union, types.UnionType)


def is_optional(declared: object) -> bool:
    return is_union(declared) and type(None) in get_args(declared)


def is_record(declared: object) -> bool:
    return isinstance(declared, type) and get_origin(declared) is None and attrs.has(declared)


def is_mapping(declared: object) -> bool:
    """Return whether a type is a table of free keys, such as ``dict[str, int]``."""
    origin = get_origin(declared)
    return isinstance(origin, type) and issubclass(origin, Mapping) and get_args(declared)[0] is str


def is_flat(cls: Any) -> bool:
    """Return whether a class is built from named entries, ``cls(**entries)``, which are its table."""
    kinds = [parameter.kind for parameter in inspect.signature(cls).parameters.values()]
    return kinds == [inspect.Parameter.VAR_KEYWORD]


def settings(cls: Any) -> dict[str, "attrs.Attribute[Any]"]:
    """Return the fields that building a class takes, by the keys of its table."""
    try:
        resolved = attrs.resolve_types(cls)
    # Types written as strings are code of the class's module, which may lack a name they use.
    except Exception as error:
        raise flaw(f"a type of a field of {cls.__name__} cannot be resolved: {one_line(str(error))}") from error
    return {str(one.alias): one for one in attrs.fields(resolved) if one.init}


def family_of(declared: Any, families: tuple[Family, ...]) -> Family | None:
    return next((family for family in families if family.protocol is declared), None)


def expected(declared: object, families: tuple[Family, ...]) -> str:
    """Return in words what a file should hold where a type is declared."""
    words: list[str] = []
    for one in alternatives(declared):
        family = family_of(one, families)
        if family is not None:
            words += ["a number"] if family.number else []
            words.append(f"a table whose kind is {one_of(family.kinds)}")
        elif one in SCALARS:
            words.append(SCALARS[one][1])
        elif get_origin(one) is Literal:
            words.append(one_of(get_args(one)))
        elif get_origin(one) is tuple:
            items = get_args(one)
            words.append("an array" if items[-1:] == (...,) else f"an array of length {len(items)}")
        else:
            words.append("a table")
    # The long phrases go last.
    return " or ".join(sorted(dict.fromkeys(words), key=len))
