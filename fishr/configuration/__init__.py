"""Configurations: TOML to frozen objects and back, strictly; no class here mirrors another."""

from fishr.configuration.known import dumps, load, structure, unstructure
from fishr.configuration.overrides import apply_overrides
from fishr.configuration.problems import ConfigurationError, Problem

__all__ = ["ConfigurationError", "Problem", "apply_overrides", "dumps", "load", "structure", "unstructure"]
