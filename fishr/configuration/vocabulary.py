"""Which classes a file may name, and what the declared type of a field allows to stand there."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import frozen

from fishr.configuration.problems import flaw
from fishr.configuration.scalars import one_of
from fishr.errors import one_line

KIND = "kind"
_SCALARS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path (a string)",
}


@frozen
class Family:
    """The classes that may stand where a field is declared by a protocol.

    Args:
        protocol: The declared type: a protocol, or a callable type.
        classes: Frozen attrs classes of the library, which a file names by ``kind``.
        from_number: The class of one field for which a plain number may stand.
        from_function: The class of one field that wraps a plain function of a plugin.
        methods: What a plugin's class needs to be one of the family; empty when plugins have no place here.
    """

    protocol: Any
    classes: tuple[type[Any], ...]
    from_number: type[Any] | None = None
    from_function: type[Any] | None = None
    methods: tuple[str, ...] = ()


@frozen
class Vocabulary:
    """Everything a file may name beyond what the declared types themselves say.

    Args:
        families: One for each protocol.
        flattened: Classes built from named entries, ``cls(**entries)``, and kept in their only field:
            their table holds the entries themselves.
        implied: Classes that a table without ``kind`` is read as where they are declared beside others, and
            that are written without it; at most one stands in a union.
    """

    families: tuple[Family, ...] = ()
    flattened: tuple[type[Any], ...] = ()
    implied: tuple[type[Any], ...] = ()

    def family(self, declared: object) -> Family | None:
        """Return the family of a protocol.

        Args:
            declared: The declared type of a field.

        Returns:
            The family, or None when the type is not one of the protocols.
        """
        return next((family for family in self.families if family.protocol == declared), None)


@frozen
class Choice:
    """What may stand where several types are declared.

    Args:
        classes: Classes that a table's ``kind`` names.
        families: Families, whose classes a table's ``kind`` names too.
        others: Everything else: scalars, arrays.
        tagged: Whether a table says its class by ``kind``; a single possible class needs none.
    """

    classes: tuple[type[Any], ...]
    families: tuple[Family, ...]
    others: tuple[Any, ...]
    tagged: bool

    @property
    def kinds(self) -> dict[str, type[Any]]:
        """Every class by the name that a file gives it."""
        known = [*self.classes, *(cls for family in self.families for cls in family.classes)]
        return {cls.__name__: cls for cls in known}

    @property
    def from_number(self) -> type[Any] | None:
        """The class for which a plain number stands, unless a number stands for itself."""
        if int in self.others or float in self.others:
            return None
        return next((f.from_number for f in self.families if f.from_number is not None), None)

    @property
    def plugins(self) -> Family | None:
        """The family that a plugin's kind would belong to."""
        return next((family for family in self.families if family.methods), None)

    @classmethod
    def of(cls, declared: object, vocabulary: Vocabulary) -> "Choice":
        """Return what a declared type allows.

        Args:
            declared: A union, a protocol of the vocabulary, or any other type.
            vocabulary: The families.

        Returns:
            The possibilities, without None.

        Example:
            >>> Choice.of(int | tuple[int, ...] | None, Vocabulary()).others
            (<class 'int'>, tuple[int, ...])
        """
        members = alternatives(declared)
        families = tuple(f for member in members if (f := vocabulary.family(member)) is not None)
        rest = [member for member in members if vocabulary.family(member) is None]
        classes = tuple(member for member in rest if is_record(member))
        others = tuple(member for member in rest if not is_record(member))
        return cls(classes, families, others, tagged=bool(families) or len(classes) > 1)


def alternatives(declared: object) -> tuple[Any, ...]:
    """Return the members of a union without None, or the type alone when it is no union.

    Args:
        declared: A type.

    Returns:
        Its members.

    Example:
        >>> alternatives(int | str | None)
        (<class 'int'>, <class 'str'>)
    """
    if not is_union(declared):
        return (declared,)
    return tuple(member for member in get_args(declared) if member is not type(None))


def is_union(declared: object) -> bool:
    """Return whether a type is a union, ``X | None`` included.

    Args:
        declared: A type.

    Returns:
        True or False.
    """
    return get_origin(declared) in (Union, types.UnionType)


def is_optional(declared: object) -> bool:
    """Return whether None may stand there.

    Args:
        declared: A type.

    Returns:
        True or False.
    """
    return is_union(declared) and type(None) in get_args(declared)


def is_record(declared: object) -> bool:
    """Return whether a type is one attrs class.

    Args:
        declared: A type.

    Returns:
        True or False.
    """
    return isinstance(declared, type) and get_origin(declared) is None and attrs.has(declared)


def is_mapping(declared: object) -> bool:
    """Return whether a type is a table of free keys, such as ``dict[str, int]``.

    Args:
        declared: A type.

    Returns:
        True or False.

    Example:
        >>> is_mapping(dict[str, int]), is_mapping(tuple[int, ...])
        (True, False)
    """
    origin = get_origin(declared)
    return isinstance(origin, type) and issubclass(origin, Mapping) and get_args(declared)[0] is str


def settings(cls: type[Any]) -> dict[str, "attrs.Attribute[Any]"]:
    """Return the fields that building an attrs class takes, by the keys of its table.

    Args:
        cls: An attrs class.

    Returns:
        The fields, with their types resolved.

    Raises:
        ConfigurationError: A type is written as a string that means nothing.

    Example:
        >>> {key: one.type for key, one in settings(Family).items() if key == "methods"}
        {'methods': tuple[str, ...]}
    """
    try:
        resolved = attrs.resolve_types(cls)
    # Types written as strings are code of the class's module, which may lack a name they use.
    except Exception as error:
        raise flaw(f"a type of a field of {cls.__name__} cannot be resolved: {one_line(str(error))}") from error
    return {str(one.alias): one for one in attrs.fields(resolved) if one.init}


def only_setting(cls: type[Any]) -> tuple[str, "attrs.Attribute[Any]"]:
    """Return the one field of a class that stands for a number, wraps a function or holds named entries.

    Args:
        cls: An attrs class of one field.

    Returns:
        The key and the field.

    Raises:
        TypeError: The class has more fields or none; a vocabulary must not name it so.
    """
    fields = settings(cls)
    if len(fields) != 1:
        raise TypeError(f"{cls.__name__}: got the fields {list(fields)}, expected exactly one")
    return next(iter(fields.items()))


def expected(declared: object, vocabulary: Vocabulary) -> str:
    """Return in words what a file should hold where a type is declared.

    Args:
        declared: A type.
        vocabulary: The families.

    Returns:
        A phrase to put after "expected".

    Example:
        >>> expected(tuple[int, ...] | str | None, Vocabulary())
        'an array or a string'
    """
    choice = Choice.of(declared, vocabulary)
    words = [_words(other) for other in choice.others]
    if choice.from_number is not None:
        words.append("a number")
    if choice.tagged:
        words.append(f"a table whose kind is {one_of(tuple(choice.kinds))}")
    elif choice.classes:
        words.append("a table")
    # The long phrases go last.
    return " or ".join(sorted(dict.fromkeys(words), key=len))


def _words(declared: object) -> str:
    if isinstance(declared, type) and declared in _SCALARS:
        return _SCALARS[declared]
    if get_origin(declared) is Literal:
        return one_of(get_args(declared))
    if get_origin(declared) is tuple:
        items = get_args(declared)
        return "an array" if items[-1:] == (...,) else f"an array of length {len(items)}"
    return "a table"
