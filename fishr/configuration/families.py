"""Families of classes that a file names by ``kind``: built-in ones by name, a user's own as ``module:Name``."""

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import attrs
from attrs import frozen

from fishr.configuration.problems import flaw, one_of, suggestion, text_value, unexpected
from fishr.data.batches import Batches
from fishr.data.domains import DataSet
from fishr.data.environments import EnvironmentSource
from fishr.errors import one_line
from fishr.losses import Loss
from fishr.models.featurizers import Featurizer
from fishr.models.heads import Head
from fishr.penalties.penalty import Penalty, Risk
from fishr.penalties.schedules import Schedule
from fishr.training.optimizers import Optimizer

Methods = Mapping[str, tuple[str, ...]]


@frozen(slots=False)
class Family:
    """What may stand where a field is declared by a protocol.

    The built-in kinds are the frozen classes that ``modules`` export and whose methods take what the protocol's take.
    """

    protocol: type[Any]
    modules: tuple[str, ...]
    implied: str = ""  # kind of a table that names none
    number: str = ""  # kind of a plain number
    wrapper: str = ""  # class of one field that makes a member of a plain function
    arguments: tuple[str, ...] = ()  # of that function

    @cached_property
    def methods(self) -> Methods:
        names = [name for name in dir(self.protocol) if name == "__call__" or not name.startswith("_")]
        return {name: _parameters(getattr(self.protocol, name))[1:] for name in sorted(names, key="__call__".__eq__)}

    @property
    def function(self) -> tuple[str, ...] | None:
        """Arguments of a plain function that can stand for a member; None: no function can."""
        return self.arguments if self.wrapper else self.methods.get("__call__") if len(self.methods) == 1 else None

    @property
    def kinds(self) -> dict[str, type[Any]]:
        names = [name for module in self.modules for name in _exports(module)]
        return {name: found for name in names if (found := self.builtin(name)) is not None}

    def builtin(self, name: str) -> type[Any] | None:
        found = self.exported(name)
        if name == self.wrapper or not (isinstance(found, type) and attrs.has(found)):
            return None
        for method, parameters in self.methods.items():
            own: Any = getattr(found, method, None)
            if not inspect.isfunction(own) or _parameters(own)[1:] != parameters:
                return None
            if _returned(getattr(self.protocol, method)) not in (None, _returned(own)):
                return None
        return found

    def exported(self, name: str) -> Any:
        """Return what one of the modules exports under a name, importing nothing else of a lazy package."""
        module = next((module for module in self.modules if name in _exports(module)), None)
        return None if module is None else getattr(importlib.import_module(module), name)

    def find(self, kind: object, plugins: tuple[str, ...] | None) -> Any:
        """Return the class or function that a kind names; ``plugins`` None: of any module that is imported already."""
        if isinstance(kind, str) and ":" in kind:
            return _plugin(kind, plugins, self)
        found = self.builtin(kind) if isinstance(kind, str) else None
        if found is None:
            raise unexpected(kind, one_of(self.kinds) + suggestion(kind, self.kinds))
        return found

    def check(self, found: Any, kind: str) -> None:
        """Refuse what is neither a frozen attrs class with the protocol's methods nor a function that can be one."""
        wanted = "expected a frozen attrs class with " + " and ".join(_call(*method) for method in self.methods.items())
        if self.function is not None:
            wanted += f", or a plain function {_call('f', self.function)}"
        lacking = f"{text_value(kind)} is no {self.protocol.__name__}"
        if inspect.isfunction(found) and self.function is not None:
            if not _takes(found, self.function):
                raise flaw(f"{lacking}, it takes {_call('', _parameters(found))}: {wanted}")
            return
        if not isinstance(found, type) or not attrs.has(found) or not _is_frozen(found):
            raise flaw(f"{lacking}: {wanted}")
        # Every class can be called, so a method counts only when the class or a base of it defines it.
        missing = [name for name in self.methods if not any(name in vars(base) for base in found.__mro__)]
        if missing:
            raise flaw(f"{lacking}, it lacks {' and '.join(missing)}: {wanted}")
        for name, parameters in self.methods.items():
            method = getattr(found, name)
            if inspect.isfunction(method) and not _takes(method, ("self", *parameters)):
                raise flaw(f"{lacking}, its {_call(name, _parameters(method)[1:])} takes other arguments: {wanted}")


FAMILIES = (
    Family(DataSet, ("fishr.data",)),
    Family(EnvironmentSource, ("fishr.data",)),
    Family(Featurizer, ("fishr.models", "fishr.training"), "MLP", "", "FunctionFeaturizer", ("shape", "generator")),
    Family(Head, ("fishr.models",)),
    Family(Loss, ("fishr.losses",)),
    Family(Risk, ("fishr.penalties",), implied="ERM", wrapper="Stateless", arguments=("seen",)),
    Family(Penalty, ("fishr.penalties",), wrapper="Stateless", arguments=("seen",)),
    Family(Schedule, ("fishr.penalties",), number="Constant"),
    Family(Optimizer, ("fishr.training",)),
    Family(Batches, ("fishr.data",), wrapper="FunctionBatches", arguments=("domains", "generator")),
)


def plugin_name(found: Any) -> str:
    """Return the kind ``module:Name`` of a user's class or function."""
    if not isinstance(found, type) and not inspect.isfunction(found):
        raise flaw(f"an object of class {type(found).__qualname__} is no plain function, so no file can name it")
    module, name = found.__module__, found.__qualname__
    reached: Any = sys.modules.get(module)
    for part in name.split("."):
        reached = getattr(reached, part, None)
    if reached is not found or module == "__main__":
        raise flaw(f"{name} cannot be imported by name; define it at the top of a module of its own")
    return f"{module}:{name}"


def _plugin(kind: str, plugins: tuple[str, ...] | None, family: Family) -> Any:
    module, _, name = kind.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise flaw(f'got {text_value(kind)}, expected "module:Name"')
    if module not in (sys.modules if plugins is None else plugins):
        named = f" (got --plugin {one_line(', '.join(plugins or ()))})" if plugins else ""
        raise flaw(
            f"{text_value(kind)} needs code of the module {module}, and a file alone never runs code; "
            f"if you trust it, pass --plugin {module}{named}"
        )
    found: Any = _imported(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise flaw(f"the module {module} has no {name}{_hidden(module) or suggestion(name, dir(found))}")
        found = getattr(found, part)
    family.check(found, kind)
    own = f"{found.__module__}:{found.__qualname__}"
    if own != kind:
        raise flaw(
            f"{text_value(kind)} is defined elsewhere; name it where it is defined, "
            f"kind = {text_value(own)}, and pass --plugin {found.__module__}"
        )
    return found


def _imported(module: str) -> Any:
    """Import a module, also from the working directory, which is last on the path and only meanwhile."""
    added: str | None = None
    try:
        # Last, so that no file in it stands in for an installed module.
        added = os.getcwd()  # noqa: PTH109 - sys.path holds strings
        sys.path.append(added)
        importlib.invalidate_caches()
        return importlib.import_module(module)
    # A module runs any code while it is imported: whatever it raises is a problem of the plugin.
    except (Exception, SystemExit) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise flaw(f"the plugin {module} could not be imported: {reason}{_hidden(module)}") from error
    finally:
        if added in sys.path:
            last = len(sys.path) - 1 - sys.path[::-1].index(added)
            del sys.path[last]


def _hidden(module: str) -> str:
    """Return a hint if an installed module hides one of the same name in the working directory."""
    top = module.partition(".")[0]
    found = sys.modules.get(top)
    if found is None or not (Path(f"{top}.py").exists() or Path(top).is_dir()):
        return ""
    file = getattr(found, "__file__", None) or "built in"
    if Path(file).is_relative_to(Path.cwd()):
        return ""
    return f"; an installed module has that name ({file}) and hides yours, so rename yours"


def _exports(module: str) -> list[str]:
    found = importlib.import_module(module)
    return getattr(found, "__all__", None) or [name for name in vars(found) if not name.startswith("_")]


def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _returned(method: Any) -> Any:
    """Return the record that a method returns, which tells data sets from sources of environments; else None."""
    found = inspect.signature(method).return_annotation
    return found if isinstance(found, type) and attrs.has(cast(type[Any], found)) else None


def _takes(function: Any, arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _call(name: str, parameters: tuple[str, ...]) -> str:
    return f"{name}({', '.join(parameters)})"


def _is_frozen(cls: type[Any]) -> bool:
    try:
        object.__new__(cls).kind = None
    except attrs.exceptions.FrozenInstanceError:
        return True
    except (AttributeError, TypeError):
        return False
    return False
