"""Configurations: TOML to frozen objects and back, strictly; no class here mirrors another."""

from fishr.configuration.errors import ConfigurationError, Problem
from fishr.configuration.known import dumps, load, structure, unstructure
from fishr.configuration.overrides import apply_overrides

__all__ = ["ConfigurationError", "Problem", "apply_overrides", "dumps", "load", "structure", "unstructure"]
