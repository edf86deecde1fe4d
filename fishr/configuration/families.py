"""Families of classes that a file names by ``kind``: built-in ones by name, a user's own as ``module:Name``."""

import importlib
import inspect
import os
import sys
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeGuard, cast

import attrs
from attrs import frozen
from attrs.exceptions import NotAnAttrsClassError

from fishr.averages.weight_average import WeightAverage
from fishr.configuration.problems import ConfigurationError, flaw, one_of, suggestion, text_value, unexpected
from fishr.data.batches import Batches
from fishr.data.domains import DataSet
from fishr.data.environments import EnvironmentSource
from fishr.data.images.augmentation import Augmentation
from fishr.descents.descent import Descent
from fishr.errors import InputError, one_line
from fishr.logs.logger import Logger
from fishr.losses import Loss
from fishr.models.featurizers import Featurizer
from fishr.models.heads import Head
from fishr.penalties.penalty import Penalty, Risk
from fishr.penalties.schedules import Schedule
from fishr.training.optimizers import Optimizer
from fishr.transforms.batch_transform import BatchTransform

KIND = "kind"


@frozen(slots=False)
class Family:
    """Protocol and kinds: the frozen classes that ``modules`` export and whose methods take its arguments."""

    protocol: type[Any]
    modules: tuple[str, ...]
    implied: str | None = None  # kind of a table that names none
    number: str = ""  # kind of a plain number
    wrapper: str = ""  # class of one field that makes a member of a plain function
    arguments: tuple[str, ...] = ()  # of that function
    switch: tuple[str, ...] = ()  # kinds of false and true

    @cached_property
    def methods(self) -> dict[str, tuple[str, ...]]:
        """Arguments by method; the call is last."""
        names = [name for name in dir(self.protocol) if name == "__call__" or not name.startswith("_")]
        return {name: _arguments(getattr(self.protocol, name))[1:] for name in sorted(names, key="__call__".__eq__)}

    @property
    def function(self) -> tuple[str, ...] | None:
        """Arguments of a plain function that a file may name as a member; None: no function."""
        return self.arguments or (self.methods["__call__"] if [*self.methods] == ["__call__"] else None)

    @property
    def kinds(self) -> dict[str, type[Any]]:
        names = [name for module in self.modules for name in _exports(module)]
        return {name: found for name in names if (found := self.builtin(name)) is not None}

    def exported(self, name: str) -> Any:
        """Return what one of the modules exports under a name; of a lazy package nothing else is imported."""
        module = next((module for module in self.modules if name in _exports(module)), None)
        return None if module is None else getattr(importlib.import_module(module), name)

    def builtin(self, name: str) -> type[Any] | None:
        return _builtin(self, name)

    def find(self, kind: object, plugins: tuple[str, ...] | None) -> Any:
        """Return the class or function that a kind names; ``plugins`` None: of any module that is imported already."""
        try:
            if isinstance(kind, str) and ":" in kind:
                return _plugin(kind, plugins, self)
            found = self.builtin(kind) if isinstance(kind, str) else None
            if found is None:
                raise unexpected(kind, one_of(self.kinds) + suggestion(kind, self.kinds))
        except ConfigurationError as error:
            raise ConfigurationError(error.under(KIND)) from error
        return found

    def check(self, found: Any, kind: str) -> None:
        """Refuse what is neither a frozen attrs class with the protocol's methods nor a function that can be one."""
        reason = self.misfit(found)
        if reason is not None:
            wanted = "a frozen attrs class with " + " and ".join(_call(*method) for method in self.methods.items())
            wanted += "" if self.function is None else f", or a plain function {_call('f', self.function)}"
            raise flaw(f"{text_value(kind)} is no {self.protocol.__name__}{reason}: expected {wanted}")

    def misfit(self, found: Any) -> str | None:
        """Return why something is no member, None if it is one."""
        if inspect.isfunction(found) and self.function is not None:
            return None if _takes(found, self.function) else f", it takes {_call('', _arguments(found))}"
        if not _is_frozen(found):
            return ""
        for name, arguments in self.methods.items():
            # Every class can be called, so a method counts only when the class or a base of it defines it.
            method = next((vars(base)[name] for base in found.__mro__ if name in vars(base)), None)
            if method is None:
                return f", it lacks {name}"
            if inspect.isfunction(method) and not _takes(method, ("self", *arguments)):
                return f", its {_call(name, _arguments(method)[1:])} differs"
        return None


FAMILIES = (
    Family(DataSet, ("fishr.data",)),
    Family(EnvironmentSource, ("fishr.data",)),
    Family(Augmentation, ("fishr.data.images",), switch=("NoAugmentation", "DomainBedAugmentation")),
    Family(
        Featurizer,
        ("fishr.models", "fishr.training", "fishr.methods"),
        "MLP",
        "",
        "FunctionFeaturizer",
        ("shape", "generator"),
    ),
    Family(Head, ("fishr.models",)),
    Family(Loss, ("fishr.losses",)),
    Family(Risk, ("fishr.penalties", "fishr.methods"), implied="ERM", wrapper="Stateless", arguments=("seen",)),
    Family(Penalty, ("fishr.penalties", "fishr.methods"), wrapper="Stateless", arguments=("seen",)),
    Family(Schedule, ("fishr.penalties",), number="Constant"),
    Family(Optimizer, ("fishr.training",)),
    Family(Descent, ("fishr.descents", "fishr.methods")),
    Family(BatchTransform, ("fishr.transforms",)),
    Family(WeightAverage, ("fishr.averages",)),
    Family(Batches, ("fishr.data",), wrapper="FunctionBatches", arguments=("domains", "generator")),
)

# No file names a logger: it is no part of an experiment.
LOGGERS = Family(Logger, ("fishr.logs",))


def find_logger(name: str, plugins: tuple[str, ...]) -> Logger:
    """Return the logger of a word, such as tensorboard, or of ``module:Name``."""
    words = {kind.lower(): kind for kind in LOGGERS.kinds}
    if ":" not in name and name not in words:
        known = f"{', '.join(words)} or module:Name"
        raise InputError(f"--log: got {one_line(name)!r}, expected {known}{suggestion(name, words)}")
    try:
        found = LOGGERS.find(words.get(name, name), plugins)
        return found() if isinstance(found, type) else found
    except ConfigurationError as error:
        raise InputError(f"--log: {error.problems[0].message}") from error
    except TypeError as error:
        raise InputError(f"--log: {name} has fields without a default ({error}); give them one") from error


@cache
def _builtin(family: Family, name: str) -> type[Any] | None:
    found = family.exported(name)
    if name == family.wrapper or not isinstance(found, type) or family.misfit(found) is not None:
        return None
    for method, arguments in family.methods.items():
        own, returned = getattr(found, method), _returned(getattr(family.protocol, method))
        # A moving average takes as many arguments as a penalty does, but others.
        if _arguments(own)[1 : len(arguments) + 1] != arguments or returned not in (None, _returned(own)):
            return None
    return found


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


def _arguments(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _returned(method: Any) -> Any:
    """Return the record that a method returns, by which data sets differ from environment sources; else None."""
    found = inspect.signature(method).return_annotation
    return found if isinstance(found, type) and attrs.has(cast(type[Any], found)) else None


def _is_frozen(found: Any) -> TypeGuard[type[Any]]:
    """Return whether something is a class decorated by ``attrs.frozen``."""
    with suppress(NotAnAttrsClassError):
        return isinstance(found, type) and attrs.inspect(found).is_frozen
    return False


def _takes(function: Any, arguments: tuple[str, ...]) -> bool:
    with suppress(TypeError):
        inspect.signature(function).bind(*arguments)
        return True
    return False


def _call(name: str, arguments: tuple[str, ...]) -> str:
    return f"{name}({', '.join(arguments)})"
