"""Names of files as text: one form of each, whichever system wrote it."""

import unicodedata

from fishr.errors import InputError


def checked_name(where: object, name: str) -> str:
    """Return the name of an environment or class in Unicode's composed form (NFC); macOS writes the other one.

    Args:
        where: what has it, for the message.
        name: as the system gives it.

    Raises:
        InputError: it is no UTF-8.

    Example:
        >>> checked_name("data", "cafe\u0301") == "caf\u00e9"
        True
    """
    if portable(name) != name:
        raise InputError(f"{where}: got the name {portable(name)}, which is not UTF-8; rename it")
    return unicodedata.normalize("NFC", name)


def portable(name: str) -> str:
    """Return the name of a file as text that any program can store: bytes that are not UTF-8 become ``\\udcXX``.

    Example:
        >>> portable("caf" + chr(0xDCE9) + ".png")
        'caf\\\\udce9.png'
    """
    return name.encode(errors="backslashreplace").decode()


def folded(name: str) -> str:
    """Return what names have in common that differ in case or Unicode's form alone.

    Example:
        >>> folded("Caf\u00c9") == folded("cafe\u0301")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
