"""Packages of extras, imported where they are used."""

from importlib import import_module
from typing import Any

from fishr.errors import InputError


def from_extra(extra: str, module: str, use: str, otherwise: str = "") -> Any:
    """Return a module that an extra installs; without it, the refusal names its use and the way to do without."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f"{use}: {package} is not installed; run pip install -e '.[{extra}]' in your checkout of fishr{otherwise}"
        ) from error
