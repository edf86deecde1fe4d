"""The package's own names in files, and the four functions that read and write with them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fishr.configuration.structure import structure_with
from fishr.configuration.toml import load_with, toml_text
from fishr.configuration.unstructure import unstructure_with
from fishr.configuration.vocabulary import Family, Vocabulary
from fishr.models import MLP, MNISTCNN, FeatureDropout, Featurizer, ResNet, TimmBackbone, WideResNet
from fishr.penalties import (
    ERM,
    IRM,
    Constant,
    CosineSchedule,
    Fishr,
    Joined,
    LinearSchedule,
    Penalty,
    Scaled,
    Schedule,
    Stateless,
    StepSchedule,
    Total,
    VREx,
)
from fishr.training import Frozen

T = TypeVar("T")

KNOWN = Vocabulary(
    families=(
        Family(
            Penalty,
            (ERM, Fishr, IRM, VREx, Scaled, Total),
            from_function=Stateless,
            methods=("init", "__call__"),
        ),
        Family(Schedule, (Constant, StepSchedule, LinearSchedule, CosineSchedule, Joined), from_number=Constant),
        Family(
            Featurizer,
            (MLP, MNISTCNN, ResNet, WideResNet, TimmBackbone, FeatureDropout, Frozen),
            methods=("__call__", "features"),
        ),
    ),
    flattened=(Total,),
    implied=(MLP,),
)


def structure(table: Mapping[str, object], target: type[T], plugins: Iterable[str] = ()) -> T:
    """Return the object that a table describes; ``structure(unstructure(x), type(x)) == x``.

    Args:
        table: What a TOML file holds.
        target: The frozen attrs class to build.
        plugins: Modules whose penalties and functions a ``kind = "module:Name"`` may name; no other is imported.

    Returns:
        An object of the target.

    Raises:
        ConfigurationError: All problems of the table, each with its path.

    Example:
        >>> structure({"penalty": {"kind": "Fishr", "ema": 0.95}, "schedule": 1000}, Scaled).schedule
        Constant(value=1000.0)
        >>> structure({"penalty": {"kind": "Fisher"}, "schedule": "1000"}, Scaled)
        Traceback (most recent call last):
            ...
        fishr.configuration.problems.ConfigurationError: penalty.kind: got "Fisher" (a string), expected one of \
"ERM", "Fishr", "IRM", "VREx", "Scaled", "Total"; did you mean "Fishr"?; schedule: got "1000" (a string), \
expected a number or a table whose kind is one of "Constant", "StepSchedule", "LinearSchedule", \
"CosineSchedule", "Joined"
    """
    return structure_with(KNOWN, table, target, tuple(plugins))


def unstructure(obj: object) -> dict[str, Any]:
    """Return the table that describes an object.

    Args:
        obj: An object of a frozen attrs class.

    Returns:
        Tables, lists and scalars in the order of the fields; what is None is left out.

    Raises:
        ConfigurationError: All parts of the object that no file can hold, such as a lambda.

    Example:
        >>> unstructure(Total(rex=Scaled(VREx(form="pairwise"), 10.0)))
        {'rex': {'kind': 'Scaled', 'penalty': {'kind': 'VREx', 'form': 'pairwise'}, 'schedule': 10.0}}
    """
    return unstructure_with(KNOWN, obj)


def load(path: Path | str, target: type[T], overrides: Iterable[str] = (), plugins: Iterable[str] = ()) -> T:
    """Return the object that a TOML file describes.

    Args:
        path: The file.
        target: The frozen attrs class to build.
        overrides: Texts ``a.b.c=value``, applied in their order before the table is read.
        plugins: Modules whose penalties and functions the file may name.

    Returns:
        An object of the target.

    Raises:
        ConfigurationError: The file cannot be read, or all problems of what it says, after its name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "penalty.toml")
        ...     _ = file.write_text("ema = 0.9")
        ...     load(file, Fishr, overrides=["ema=0.95"]) == Fishr(ema=0.95)
        True
    """
    return load_with(KNOWN, path, target, overrides, plugins)


def dumps(obj: object) -> str:
    """Return an object as TOML; equal objects give equal texts.

    Args:
        obj: An object of a frozen attrs class.

    Returns:
        The text, scalars before tables.

    Raises:
        ConfigurationError: All parts of the object that no file can hold.

    Example:
        >>> print(dumps(Scaled(VREx(form="pairwise"), 10.0)), end="")
        schedule = 10.0
        <BLANKLINE>
        [penalty]
        kind = "VREx"
        form = "pairwise"
    """
    return toml_text(unstructure(obj))
