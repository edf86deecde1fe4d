"""Kinds of the form ``module:Name``: what a person's own module defines, and the name of what it defined."""

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any, cast

import attrs

from fishr.configuration.problems import flaw, suggestion, text_value
from fishr.configuration.vocabulary import Family
from fishr.errors import one_line


def load_plugin(kind: str, plugins: tuple[str, ...], family: Family) -> Any:
    """Return the class or the function that a kind names, and import its module only when a person named it.

    Args:
        kind: ``module:Name``.
        plugins: The modules that the person named.
        family: What the class must be one of.

    Returns:
        A frozen attrs class, or a plain function.

    Raises:
        ConfigurationError: The module was not named or cannot be imported, has no such name, or the name is
            not what the family needs.
    """
    module, _, name = kind.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise flaw(f'got {text_value(kind)}, expected "module:Name"')
    if module not in plugins:
        named = f" (got --plugin {one_line(', '.join(plugins))})" if plugins else ""
        raise flaw(
            f"{text_value(kind)} needs code of the module {module}, and a file alone never runs code; "
            f"if you trust it, pass --plugin {module}{named}"
        )
    found: Any = _imported(module)
    for part in name.split("."):
        if not hasattr(found, part):
            names: list[str] = dir(found)
            raise flaw(f"the module {module} has no {name}{_hidden(module) or suggestion(name, names)}")
        found = getattr(found, part)
    check_member(found, kind, family)
    own = f"{found.__module__}:{found.__qualname__}"
    if own != kind:
        raise flaw(
            f"{text_value(kind)} is defined elsewhere; name it where it is defined, "
            f"kind = {text_value(own)}, and pass --plugin {found.__module__}"
        )
    return found


def plugin_name(found: object) -> str:
    """Return the kind that names a class or a function from outside the library.

    Args:
        found: A class or a plain function.

    Returns:
        ``module:Name``.

    Raises:
        ConfigurationError: Nothing can be imported under that name, so that no file could name it.
    """
    is_code = isinstance(found, type) or inspect.isfunction(found)
    if not is_code:
        raise flaw(f"an object of class {type(found).__qualname__} is no plain function, so no file can name it")
    module, name = cast(str, cast(Any, found).__module__), cast(str, cast(Any, found).__qualname__)
    reached: Any = sys.modules.get(module)
    for part in name.split("."):
        reached = getattr(reached, part, None)
    if reached is not found or module == "__main__":
        raise flaw(f"{name} cannot be imported by name; define it at the top of a module of its own")
    return f"{module}:{name}"


def _imported(module: str) -> Any:
    """Import a module, also from the working directory, which comes last and is on the path meanwhile only."""
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


def check_member(found: Any, kind: str, family: Family) -> None:
    """Refuse what is neither a frozen attrs class with the family's methods nor a function the family wraps.

    Args:
        found: What the kind names.
        kind: ``module:Name``.
        family: What it must be one of.

    Raises:
        ConfigurationError: It is not.
    """
    if inspect.isfunction(found) and family.from_function is not None:
        return
    name = family.protocol.__name__
    wanted = f"expected a frozen attrs class with {' and '.join(family.methods)}"
    if family.from_function is not None:
        wanted += ", or a plain function"
    if not isinstance(found, type) or not attrs.has(found) or not _is_frozen(found):
        raise flaw(f"{text_value(kind)} is no {name}: {wanted}")
    # Every class can be called, so a method counts only when the class or a base of it defines it.
    missing = [m for m in family.methods if not any(m in vars(base) for base in found.__mro__)]
    if missing:
        raise flaw(f"{text_value(kind)} is no {name}, it lacks {' and '.join(missing)}: {wanted}")


def _is_frozen(cls: type[Any]) -> bool:
    try:
        object.__new__(cls).kind = None
    except attrs.exceptions.FrozenInstanceError:
        return True
    except (AttributeError, TypeError):
        return False
    return False
