"""Packages of extras, imported where they are used."""

from importlib import import_module
from typing import Any

from fishr.errors import InputError


def from_extra(extra: str, module: str, use: str, otherwise: str = "") -> Any:
    """Return a module that an extra installs; without it, the refusal names its use and the way to do without."""
    try:
        return import_module(module)
    except ImportError as error:
        raise not_installed(extra, module.partition(".")[0], use, otherwise) from error


def not_installed(extra: str, package: str, use: str, otherwise: str = "") -> InputError:
    """Return the refusal of a use whose package is missing."""
    return InputError(
        f"{use}: {package} is not installed; run pip install -e '.[{extra}]' in your checkout of fishr{otherwise}"
    )
