"""From frozen objects to tables that read back as equal objects; what no file can hold is refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import attrs
import cattrs

from fishr.configuration import scalars
from fishr.configuration.plugins import check_member, plugin_name
from fishr.configuration.problems import ConfigurationError, Problem, flaw, quoted, unexpected
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


def unstructure_with(vocabulary: Vocabulary, obj: object) -> dict[str, Any]:
    """Return the table that describes an object, with the names of any vocabulary.

    Args:
        vocabulary: Which classes the table may name.
        obj: An object of a frozen attrs class.

    Returns:
        Tables, lists and scalars, in the order of the fields; what is None is left out.

    Raises:
        ConfigurationError: All parts of the object that no file can hold.

    Example:
        >>> import attrs
        >>> @attrs.frozen
        ... class Minibatch:
        ...     size: int
        >>> unstructure_with(Vocabulary(), Minibatch(32))
        {'size': 32}
    """
    if not is_record(type(obj)):
        raise unexpected(obj, "an object of a frozen attrs class")
    return _Writer(vocabulary).write(obj, type(obj))


class _Writer:
    """One cattrs converter whose every hook checks what it writes as strictly as it will be read."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.convert = cattrs.Converter()
        shapes: list[tuple[Callable[[Any], bool], Callable[[Any, Any], object]]] = [
            (lambda declared: True, self.unsupported),
            (is_mapping, self.entries),
            (lambda declared: get_origin(declared) is tuple, self.array),
            (lambda declared: get_origin(declared) is Literal, _literal),
            (is_record, self.record),
            (is_union, self.choice),
            (lambda declared: vocabulary.family(declared) is not None, self.choice),
            (lambda declared: declared in vocabulary.flattened, self.flattened),
        ]
        for fits, hook in shapes:
            self.convert.register_unstructure_hook_factory(fits, _of_declared(hook))
        plain: dict[type, Callable[[object], object]] = {
            int: scalars.whole_number,
            bool: scalars.boolean,
            float: scalars.number,
            str: scalars.text,
            Path: _path,
        }
        for scalar, check in plain.items():
            self.convert.register_unstructure_hook(scalar, check)

    def write(self, value: object, declared: Any) -> Any:
        return self.convert.unstructure(value, unstructure_as=declared)

    def unsupported(self, value: object, declared: Any) -> object:
        raise flaw(f"a field of type {one_line(str(declared))} cannot be written in a file")

    def record(self, value: object, cls: Any) -> dict[str, Any]:
        """Write the fields of an object of exactly the declared class."""
        if type(value) is not cls:
            raise unexpected(value, f"an object of class {cls.__name__}")
        table: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, one in settings(cls).items():
            held = getattr(value, one.name)
            try:
                if held is not None or not is_optional(one.type):
                    table[key] = self.write(held, one.type)
                elif one.default not in (None, attrs.NOTHING):
                    raise flaw("None cannot be written, for a key that is left out means the default")
            except ConfigurationError as error:
                problems += error.under(key)
        if problems:
            raise ConfigurationError(problems)
        return table

    def flattened(self, value: object, cls: Any) -> dict[str, Any]:
        """Write the named entries that an object is built from."""
        if type(value) is not cls:
            raise unexpected(value, f"an object of class {cls.__name__}")
        _, one = only_setting(cls)
        return self.entries(getattr(value, one.name), one.type)

    def entries(self, value: object, declared: Any) -> dict[str, Any]:
        """Write a mapping whose keys are free."""
        if not isinstance(value, Mapping):
            raise unexpected(value, "a mapping")
        table: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, one in cast(Mapping[object, object], value).items():
            try:
                table[scalars.text(key)] = self.write(one, get_args(declared)[1])
            except ConfigurationError as error:
                problems += error.under(quoted(str(key)))
        if problems:
            raise ConfigurationError(problems)
        return table

    def array(self, value: object, declared: Any) -> list[Any]:
        """Write a tuple."""
        if not isinstance(value, tuple):
            raise unexpected(value, "a tuple")
        items = cast(tuple[object, ...], value)
        types = get_args(declared)
        if types[-1:] == (...,):
            types = types[:1] * len(items)
        if len(items) != len(types):
            raise flaw(f"got a tuple of length {len(items)}, expected one of length {len(types)}")
        written: list[Any] = []
        problems: list[Problem] = []
        for index, (item, one) in enumerate(zip(items, types, strict=True)):
            try:
                written.append(self.write(item, one))
            except ConfigurationError as error:
                problems += error.under(f"[{index}]")
        if problems:
            raise ConfigurationError(problems)
        return written

    def choice(self, value: object, declared: Any) -> object:
        """Write what stands where a union or a protocol is declared."""
        choice = Choice.of(declared, self.vocabulary)
        cls = type(value)
        if choice.from_number is not None and cls is choice.from_number:
            return scalars.number(getattr(value, only_setting(cls)[1].name))
        if cls in choice.kinds.values():
            named = choice.tagged and cls not in self.vocabulary.implied
            return self.tagged(cls.__name__, value, cls) if named else self.write(value, cls)
        for other in choice.others:
            try:
                return self.write(value, other)
            except ConfigurationError:
                continue
        family = choice.plugins
        if family is None or not (attrs.has(cls) or callable(value)):
            raise unexpected(value, expected(declared, self.vocabulary))
        if family.from_function is not None and cls is family.from_function:
            return {KIND: plugin_name(getattr(value, only_setting(cls)[1].name))}
        kind = plugin_name(cls)
        check_member(cls, kind, family)
        return self.tagged(kind, value, cls)

    def tagged(self, kind: str, value: object, cls: type[Any]) -> dict[str, Any]:
        """Write an object with the name of its class."""
        table = self.write(value, cls)
        if KIND in table:
            raise flaw(f"the key {KIND} names the class, so nothing else can be called {KIND}")
        return {KIND: kind, **table}


def _of_declared(hook: Callable[[Any, Any], object]) -> Callable[[Any], Callable[[Any], object]]:
    """Return a cattrs factory that tells a hook the declared type too."""

    def factory(declared: Any) -> Callable[[Any], object]:
        return lambda value: hook(value, declared)

    return factory


def _literal(value: object, declared: Any) -> object:
    return scalars.choice(value, get_args(declared))


def _path(value: object) -> str:
    if not isinstance(value, Path):
        raise unexpected(value, "a Path")
    return scalars.text(value.as_posix())
