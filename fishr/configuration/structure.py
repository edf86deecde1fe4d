"""From tables to frozen objects, strictly: nothing is coerced, dropped or guessed, and every problem is told."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args, get_origin

import attrs
import cattrs

from fishr.configuration import scalars
from fishr.configuration.plugins import load_plugin
from fishr.configuration.problems import (
    ConfigurationError,
    Problem,
    flaw,
    listed,
    quoted,
    suggestion,
    unexpected,
)
from fishr.configuration.vocabulary import (
    KIND,
    Choice,
    Vocabulary,
    expected,
    is_mapping,
    is_optional,
    is_record,
    is_union,
    only_setting,
    settings,
)
from fishr.errors import one_line

T = TypeVar("T")
# Problems of one table or array that are listed: finding the nearest name of each takes time.
_MOST = 20


def structure_with(
    vocabulary: Vocabulary, table: Mapping[str, object], target: type[T], plugins: tuple[str, ...] = ()
) -> T:
    """Return the object that a table describes, with the names of any vocabulary.

    Args:
        vocabulary: Which classes the table may name.
        table: What a TOML file holds.
        target: The class to build.
        plugins: Modules whose classes and functions the table may name.

    Returns:
        An object of the target.

    Raises:
        ConfigurationError: All problems of the table.

    Example:
        >>> import attrs
        >>> @attrs.frozen
        ... class Minibatch:
        ...     size: int
        >>> structure_with(Vocabulary(), {"size": 32}, Minibatch)
        Minibatch(size=32)
    """
    try:
        return _Reader(vocabulary, tuple(plugins)).read(table, target)
    except RecursionError:
        raise flaw("tables are nested too deeply to be read") from None


class _Reader:
    """One cattrs converter whose every hook is strict and raises ConfigurationError."""

    def __init__(self, vocabulary: Vocabulary, plugins: tuple[str, ...]) -> None:
        self.vocabulary = vocabulary
        self.plugins = plugins
        self.convert = cattrs.Converter()
        shapes: list[tuple[Callable[[Any], bool], Callable[[Any, Any], object]]] = [
            (lambda declared: True, self.unsupported),  # cattrs' own hooks coerce: none of them is left
            (is_mapping, self.entries),
            (lambda declared: get_origin(declared) is tuple, self.array),
            (lambda declared: get_origin(declared) is Literal, _literal),
            (is_record, self.record),
            (is_union, self.choice),
            (lambda declared: vocabulary.family(declared) is not None, self.choice),
            (lambda declared: declared in vocabulary.flattened, self.flattened),
        ]
        for fits, hook in shapes:
            self.convert.register_structure_hook_func(fits, hook)
        plain: dict[type, Callable[[object], object]] = {
            int: scalars.whole_number,
            bool: scalars.boolean,
            float: scalars.number,
            str: scalars.text,
            Path: scalars.path,
        }
        for scalar, check in plain.items():
            self.convert.register_structure_hook(scalar, self.exactly(scalar, check))
        self.convert.register_structure_hook(bytes, self.unsupported)

    def read(self, value: object, declared: Any) -> Any:
        return self.convert.structure(value, declared)

    def exactly(self, scalar: type, check: Callable[[object], object]) -> Callable[[Any, Any], Any]:
        """Return a hook for a scalar alone: cattrs hands it subclasses, such as enumerations, too."""

        def hook(value: object, declared: Any) -> object:
            return check(value) if declared is scalar else self.unsupported(value, declared)

        return hook

    def unsupported(self, value: object, declared: Any) -> object:
        raise flaw(f"a field of type {one_line(str(declared))} cannot be written in a file")

    def record(self, value: object, cls: Any) -> object:
        """Read a table whose keys are the fields of one attrs class."""
        table = self.table(value, cls)
        fields = settings(cls)
        unknown = [key for key in table if key not in fields]
        problems = [_unknown(key, tuple(fields), cls) for key in unknown[:_MOST]]
        if len(unknown) > _MOST:
            problems.append(Problem("", f"{len(unknown) - _MOST:,} more unknown keys"))
        values: dict[str, Any] = {}
        for key, one in fields.items():
            try:
                if key in table:
                    values[key] = self.read(table[key], one.type)
                elif one.default is attrs.NOTHING:
                    values[key] = self.absent(one.type)
            except ConfigurationError as error:
                problems += error.under(key)
        if problems:
            raise ConfigurationError([*problems, *_complaints(cls, values)])
        try:
            return _built(cls, values)
        except ConfigurationError as error:
            raise ConfigurationError(_complaints(cls, values) or error.problems) from error

    def absent(self, declared: Any) -> None:
        # A file cannot write None: leaving the key out is how it says so.
        if not is_optional(declared):
            raise flaw(f"missing, expected {expected(declared, self.vocabulary)}")

    def flattened(self, value: object, cls: Any) -> object:
        """Read a table of named entries that a class is built from."""
        return _built(cls, self.entries(self.table(value, cls), only_setting(cls)[1].type))

    def entries(self, value: object, declared: Any) -> dict[str, Any]:
        """Read a table whose keys are free."""
        table = self.table(value, declared)
        read: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, one in table.items():
            if len(problems) >= _MOST:
                problems.append(Problem("", "the entries after these were not read"))
                break
            try:
                read[scalars.text(key)] = self.read(one, get_args(declared)[1])
            except ConfigurationError as error:
                problems += error.under(quoted(str(key)))
        if problems:
            raise ConfigurationError(problems)
        return read

    def array(self, value: object, declared: Any) -> tuple[Any, ...]:
        """Read an array, of any length or of the declared one."""
        if not isinstance(value, list | tuple):
            raise unexpected(value, expected(declared, self.vocabulary))
        items = cast(list[object], value)
        types = get_args(declared)
        if types[-1:] == (...,):
            types = types[:1] * len(items)
        if len(items) != len(types):
            raise flaw(f"got an array of length {len(items)}, expected one of length {len(types)}")
        read: list[Any] = []
        problems: list[Problem] = []
        for index, (item, one) in enumerate(zip(items, types, strict=True)):
            if len(problems) >= _MOST:
                problems.append(Problem("", "the entries after these were not read"))
                break
            try:
                read.append(self.read(item, one))
            except ConfigurationError as error:
                problems += error.under(f"[{index}]")
        if problems:
            raise ConfigurationError(problems)
        return tuple(read)

    def choice(self, value: object, declared: Any) -> object:
        """Read what stands where a union or a protocol is declared."""
        choice = Choice.of(declared, self.vocabulary)
        if _is_table(value) and choice.tagged:
            return self.tagged(value, choice)
        if _is_table(value) and choice.classes:
            return self.read(value, choice.classes[0])
        if len(choice.others) == 1 and not choice.tagged and not choice.classes:
            return self.read(value, choice.others[0])
        if choice.from_number is not None and isinstance(value, int | float) and not isinstance(value, bool):
            key, _ = only_setting(choice.from_number)
            return _built(choice.from_number, {key: scalars.number(value)})
        for other in choice.others:
            try:
                return self.read(value, other)
            except ConfigurationError:
                continue
        raise unexpected(value, expected(declared, self.vocabulary))

    def tagged(self, table: Mapping[str, object], choice: Choice) -> object:
        """Read a table that says its class by ``kind``."""
        kinds = choice.kinds
        names = scalars.one_of(tuple(kinds))
        if KIND not in table:
            for cls in kinds.values():
                if cls in self.vocabulary.implied:
                    return self.read(table, cls)
            raise flaw(f"missing, expected {names}", KIND)
        kind = table[KIND]
        found: Any = kinds.get(kind) if isinstance(kind, str) else None
        if found is None and isinstance(kind, str) and ":" in kind and choice.plugins is not None:
            try:
                found = load_plugin(kind, self.plugins, choice.plugins)
            except ConfigurationError as error:
                raise ConfigurationError(error.under(KIND)) from error
        if found is None:
            error = unexpected(kind, names + suggestion(kind, kinds))
            raise ConfigurationError(error.under(KIND))
        rest = {key: value for key, value in table.items() if key != KIND}
        if isinstance(found, type):
            return self.read(rest, found)
        return self.function(found, rest, choice)

    def function(self, found: Any, rest: dict[str, object], choice: Choice) -> object:
        """Wrap a plugin's function, whose table has no other key."""
        if rest:
            raise ConfigurationError(
                Problem(quoted(key), f"unknown key, the function {found.__qualname__} takes none")
                for key in list(rest)[:_MOST]
            )
        wrapper = cast(Any, choice.plugins).from_function
        key, _ = only_setting(wrapper)
        return _built(wrapper, {key: found})

    def table(self, value: object, declared: Any) -> Mapping[str, object]:
        if not _is_table(value):
            raise unexpected(value, expected(declared, self.vocabulary))
        return value


def _is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _literal(value: object, declared: Any) -> object:
    return scalars.choice(value, get_args(declared))


def _unknown(key: object, known: tuple[str, ...], cls: type[Any]) -> Problem:
    hint = suggestion(key, known)
    if key == KIND and not hint:
        hint = f", this table is always a {cls.__name__}"
    elif not hint:
        hint = f", {cls.__name__} takes {listed(known)}" if known else f", {cls.__name__} takes none"
    return Problem(quoted(str(key)), f"unknown key{hint}")


def _built(cls: type[Any], values: dict[str, Any]) -> object:
    """Build an object; its own refusal becomes a problem."""
    try:
        return cls(**values)
    except _refusals(cls) as error:
        raise ConfigurationError([_complaint(cls, error)]) from error


def _complaints(cls: type[Any], values: dict[str, Any]) -> list[Problem]:
    """Return what every validator says, where building the object would stop at the first.

    A validator may read other fields: those that are themselves at fault are absent, and then it is silent.
    """
    partial = object.__new__(cls)
    fields: dict[str, Any] = {key: one for key, one in settings(cls).items() if key in values}
    fields = {key: one for key, one in fields.items() if one.converter is None}
    for key, one in fields.items():
        object.__setattr__(partial, one.name, values[key])
    problems: list[Problem] = []
    for key, one in fields.items():
        try:
            if one.validator is not None:
                one.validator(partial, one, values[key])
        except AttributeError:
            continue
        except _refusals(cls) as error:
            problems.append(_complaint(cls, error))
    return problems


def _refusals(cls: type[Any]) -> tuple[type[Exception], ...]:
    """Return what a class raises for bad values: whatever a plugin's raises is not a fault of the library."""
    return (ValueError, TypeError) if cls.__module__.startswith("fishr.") else (Exception,)


def _complaint(cls: type[Any], error: Exception) -> Problem:
    """Return the problem that an exception tells of; some validators put objects behind their message."""
    told = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    message = one_line(told) or type(error).__name__
    name, colon, rest = message.partition(": ")
    if colon and name in {one.name for one in attrs.fields(cls)}:
        return Problem(name, rest)
    return Problem("", message)
