"""All methods by their names in tables; each file of the package has those that it defines in ``METHODS``."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType

from fishr.methods.method import Method


def _found() -> Iterator[tuple[str, Method]]:
    for module in iter_modules([str(Path(__file__).parent)]):
        if module.name != "every_method":
            own: Mapping[str, Method] = vars(import_module(f"fishr.methods.{module.name}")).get("METHODS", {})
            yield from own.items()


METHODS: Mapping[str, Method] = MappingProxyType(dict(sorted(_found())))
"""All methods of tables, by DomainBed's names where it has them.

Source: the conventions of Gulrajani and Lopez-Paz, ICLR 2021, and of Ramé et al., ICML 2022, section 6.
"""
