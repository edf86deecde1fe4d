"""Configurations: TOML to frozen objects and back, with strict checks."""

from fishr.configuration.problems import ConfigurationError, Problem
from fishr.configuration.schema import schema
from fishr.configuration.structure import structure
from fishr.configuration.toml import apply_overrides, dumps, load
from fishr.configuration.unstructure import unstructure

__all__ = ["ConfigurationError", "Problem", "apply_overrides", "dumps", "load", "schema", "structure", "unstructure"]
