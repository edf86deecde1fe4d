"""Domains of one's own: tensors or NumPy arrays, or one .npz file a domain."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.data.value_checks import check_finite
from fishr.errors import InputError
from fishr.paths import in_data_folder

Array = Tensor | NDArray[Any]
LARGEST_LABEL = 2**53


def from_arrays(
    training: Mapping[str, tuple[Array, Array]],
    evaluation: Mapping[str, tuple[Array, Array]] | None = None,
    classes: int | None = None,
) -> Domains:
    """Domains from tensors or NumPy arrays, by name.

    Inputs become float32 (bytes are taken as pictures and divided by 255), labels int64. Float32 inputs and
    int64 labels are shared with the caller rather than copied.

    Args:
        training: name -> (inputs [N, ...] of any float type or uint8, labels [N] of whole numbers from 0).
        evaluation: the same for domains that are never trained on.
        classes: C; None takes the largest label of all domains plus one, where the smallest is 0.

    Returns:
        Domains in the mappings' order.

    Raises:
        InputError: a domain is no pair, it is empty, its inputs are not finite, its labels are no whole numbers from
            0, or lengths and shapes do not fit together.

    Example:
        >>> photo = (np.zeros((3, 5), np.float64), np.array([0, 1, 2], np.int16))
        >>> sketch = (torch.full((2, 5), 255, dtype=torch.uint8), torch.tensor([1, 1]))
        >>> domains = from_arrays({"photo": photo}, evaluation={"sketch": sketch})
        >>> domains.classes, domains.evaluation[0].inputs.max().item()
        (3, 1.0)
    """
    return _together(_of_pairs("training", training), _of_pairs("evaluation", evaluation or {}), classes)


@frozen
class Arrays:
    """Domains from .npz files, one a domain, each with the arrays ``inputs`` and ``labels``.

    A domain is called as its file without .npz. Relative paths start at ``data_dir``, or at the folder
    ``data`` where none is given. What the arrays may hold: see ``from_arrays``.

    Args:
        training: paths of the domains to train on.
        evaluation: paths of the domains that only evaluate.
        classes: C; None takes the largest label of all domains plus one, where the smallest is 0.

    Raises:
        InputError: when called, a file that is missing, not an .npz, or refused by ``from_arrays``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "photo.npz"), inputs=np.zeros((4, 3)), labels=[0, 1, 1, 0])
        ...     domains = Arrays(training=("photo.npz",))(seed=0, data_dir=Path(folder))
        >>> domains.training[0].name, domains.shape, domains.classes
        ('photo', (3,), 2)
    """

    training: tuple[str, ...]
    evaluation: tuple[str, ...] = ()
    classes: int | None = None

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Read the files; there is nothing to draw, so ``seed`` is not used."""
        return _together(
            tuple(_read(in_data_folder(name, data_dir)) for name in self.training),
            tuple(_read(in_data_folder(name, data_dir)) for name in self.evaluation),
            self.classes,
        )


def _together(training: tuple[Domain, ...], evaluation: tuple[Domain, ...], classes: int | None) -> Domains:
    everything = (*training, *evaluation)
    if classes is None and everything:
        lowest = min(int(domain.labels.min()) for domain in everything)
        if lowest > 0:
            raise InputError(
                f"classes: the smallest label is {lowest}, expected 0; subtract {lowest} if classes are numbered from "
                f"{lowest}, or give their number as classes"
            )
        classes = 1 + max(int(domain.labels.max()) for domain in everything)
        rows = sum(len(domain.labels) for domain in everything)
        if classes > max(2, rows):
            raise InputError(
                f"classes: the largest label is {classes - 1} but there are {rows} rows; number the classes "
                "from 0, or give their number as classes"
            )
    return Domains(training, evaluation, 0 if classes is None else classes)


def _read(path: Path) -> Domain:
    """One domain from one file; never unpickles."""
    unreadable = (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        MemoryError,
    )
    how = "save one with numpy.savez(path, inputs=..., labels=...)"
    if not path.exists():
        raise InputError(f"{path}: there is no such file; expected an .npz, {how}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz file; {how}")
    found: dict[str, NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in ("inputs", "labels"):
                if key not in archive.files:
                    listed = ", ".join(archive.files) or "nothing"
                    raise InputError(f"{path}: it has no array {key!r} but {listed}; {how}")
                found[key] = archive[key]
    except InputError:
        raise
    except unreadable as error:
        pickled = "allow_pickle" in str(error)
        reason = "it holds pickled objects, which are never loaded" if pickled else f"damaged ({_line(error)})"
        raise InputError(f"{path}: {reason}; {how} of plain numbers") from None
    return _domain(str(path), path.stem, found["inputs"], found["labels"])


def _of_pairs(role: str, domains: Any) -> tuple[Domain, ...]:
    if not isinstance(domains, Mapping):
        raise InputError(f"{role}: got {_kind(domains)}, expected a dict from each domain's name to (inputs, labels)")
    found = list[Domain]()
    for name, pair in cast(Mapping[str, Any], domains).items():
        if not isinstance(pair, tuple | list) or len(cast(Sequence[object], pair)) != 2:
            raise InputError(
                f"domain {name!r}: got a {type(pair).__qualname__}, expected (inputs, labels), two tensors or arrays"
            )
        found.append(_domain(f"domain {name!r}", name, *cast(Sequence[object], pair)))
    return tuple(found)


def _domain(where: str, name: str, inputs: object, labels: object) -> Domain:
    try:
        return Domain(name, _inputs(where, inputs), _labels(where, labels))
    except InputError as error:
        # Domain knows its name only; a file's path leads people to it.
        raise InputError(str(error).replace(f"domain {name!r}", where)) from None


def _inputs(where: str, inputs: object) -> Tensor:
    """Float32 and finite; bytes become 0 to 1."""
    match inputs:
        case Tensor() if inputs.dtype == torch.uint8 or inputs.dtype.is_floating_point:
            picture = inputs.dtype == torch.uint8
            values = inputs.detach().float()
        case np.ndarray() if inputs.dtype == np.uint8 or inputs.dtype.kind == "f":
            picture = inputs.dtype == np.uint8
            with np.errstate(over="ignore"):
                values = torch.as_tensor(np.require(inputs, np.float32, ["C", "W"]))
        case _:
            raise InputError(f"{where}: inputs are {_kind(inputs)}, expected an array of floats, or uint8 pictures")
    if picture:
        return values.div_(255)
    check_finite(where, "an input", values, "clean or drop such rows")
    return values


def _labels(where: str, labels: object) -> Tensor:
    """Int64, whole numbers from 0."""
    # Unsigned 64-bit numbers above int64 would wrap to negative ones; as float64 they stay too large.
    match labels:
        case Tensor() if not labels.dtype.is_complex:
            whole = not (labels.dtype.is_floating_point or labels.dtype == torch.uint64)
            values = labels.detach().to(torch.int64 if whole else torch.float64)
        case np.ndarray() if labels.dtype.kind in "biuf":
            whole = labels.dtype.kind != "f" and labels.dtype.newbyteorder("=") != np.uint64
            values = torch.as_tensor(np.require(labels, np.int64 if whole else np.float64, ["C", "W"]))
        case _:
            raise InputError(f"{where}: labels are {_kind(labels)}, expected an array of whole numbers")
    # Beyond 2**53 float64 skips whole numbers, and no class has such a number.
    wrong = (values != values.trunc()) | (values < 0) | (values > LARGEST_LABEL)
    if wrong.any():
        raise InputError(
            f"{where}: got label {values[wrong].flatten()[0].item()}, expected whole numbers from 0; "
            "number the classes from 0, and leave out rows that have none"
        )
    return values.long()


def _kind(value: object) -> str:
    return str(getattr(value, "dtype", None) or f"a {type(value).__name__}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
