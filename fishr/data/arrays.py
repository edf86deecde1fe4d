"""Your own domains: tensors, NumPy arrays, or .npz files."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.errors import InputError, reason
from fishr.paths import in_data_folder
from fishr.row_checks import check_finite

Array = Tensor | NDArray[Any]
LARGEST_LABEL = 2**53


def from_arrays(
    training: Mapping[str, tuple[Array, Array]],
    evaluation: Mapping[str, tuple[Array, Array]] | None = None,
    classes: int | None = None,
) -> Domains:
    """Return domains of tensors or NumPy arrays, by name.

    Inputs become float32 (uint8 is taken as images and divided by 255), labels [N] int64, labels [N, C] float32.
    Float32 inputs and int64 labels are shared with the caller, not copied.

    Args:
        training: Name -> (inputs [N, ...] of any float type or uint8, labels). Labels are [N] whole numbers, the
            classes, below 0 for samples without one, or [N, C], several numbers a sample: soft labels for
            ``CrossEntropy``, several labels for ``BinaryCrossEntropy``, targets for ``SquaredError``.
        evaluation: The same for domains that only evaluate.
        classes: C; None: the largest label of all domains plus one, if the smallest is 0. 1: labels [N] are no classes
            but numbers, and become float32.

    Returns:
        Domains in the order of the mappings.

    Raises:
        InputError: A domain is no pair or empty, its inputs are not finite, its labels are not whole numbers, or
            lengths or shapes differ.

    Example:
        >>> photo = (np.zeros((3, 5), np.float64), np.array([0, 1, 2], np.int16))
        >>> sketch = (torch.full((2, 5), 255, dtype=torch.uint8), torch.tensor([1, 1]))
        >>> domains = from_arrays({"photo": photo}, evaluation={"sketch": sketch})
        >>> domains.classes, domains.evaluation[0].inputs.max().item()
        (3, 1.0)
    """
    numbers = classes == 1
    pairs = _of_pairs("training", training, numbers), _of_pairs("evaluation", evaluation or {}, numbers)
    return _domains(*pairs, classes)


@frozen
class Arrays:
    """Domains in .npz files, one file a domain, with the arrays ``inputs`` and ``labels`` of ``from_arrays``.

    The name of a domain is that of its file without .npz. Relative paths start at ``data_dir``, by default the folder
    ``data``.

    Args:
        training: Paths of the training domains.
        evaluation: Paths of the domains that only evaluate.
        classes: C; None: the largest label of all domains plus one, if the smallest is 0. 1: labels [N] are no classes
            but numbers.

    Raises:
        InputError: When called, a file that is missing, not an .npz, or refused by ``from_arrays``.

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
        """Return the domains of the files; ``seed`` is not used."""
        training, evaluation = (
            tuple(_read(in_data_folder(name, data_dir), self.classes == 1) for name in names)
            for names in (self.training, self.evaluation)
        )
        return _domains(training, evaluation, self.classes)


def _domains(training: tuple[Domain, ...], evaluation: tuple[Domain, ...], classes: int | None) -> Domains:
    labels = [domain.labels for domain in (*training, *evaluation)]
    if labels and labels[0].ndim == 2:
        return Domains(training, evaluation, classes or labels[0].shape[1])
    if classes is None and labels:
        classes = counted_classes(labels)
    return Domains(training, evaluation, 0 if classes is None else classes)


def counted_classes(labels: Sequence[Tensor]) -> int:
    """Return the largest label plus one; refuse labels that do not start at 0, and more classes than samples."""
    # Labels below 0 are no classes.
    every = torch.cat([each[each >= 0] for each in labels])
    lowest, samples = int(every.min()) if len(every) else 0, sum(map(len, labels))
    if lowest > 0:
        raise InputError(
            f"classes: the smallest label is {lowest}, expected 0; subtract {lowest} if classes are numbered from "
            f"{lowest}, or give their number as classes"
        )
    classes = 1 + int(every.max()) if len(every) else 0
    if classes > max(2, samples):
        raise InputError(
            f"classes: the largest label is {classes - 1} but there are {samples} samples; number the classes "
            "from 0, or give their number as classes"
        )
    return classes


def _read(path: Path, numbers: bool) -> Domain:
    """Read a domain from a file; nothing is unpickled."""
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
    except Exception as error:  # damaged bytes raise whatever zipfile, zlib and NumPy raise
        pickled = "allow_pickle" in str(error)
        problem = "it holds pickled objects, which are never loaded" if pickled else f"damaged ({reason(error)})"
        raise InputError(f"{path}: {problem}; {how} of plain numbers") from None
    return _domain(str(path), path.stem, found["inputs"], found["labels"], numbers=numbers)


def _of_pairs(role: str, domains: Any, numbers: bool) -> tuple[Domain, ...]:
    if not isinstance(domains, Mapping):
        raise InputError(f"{role}: got {_kind(domains)}, expected a dict from each domain's name to (inputs, labels)")
    found = list[Domain]()
    for name, pair in cast(Mapping[str, Any], domains).items():
        if not isinstance(pair, tuple | list) or len(cast(Sequence[object], pair)) != 2:
            raise InputError(f"domain {name!r}: got a {type(pair).__qualname__}, expected (inputs, labels), two arrays")
        found.append(_domain(f"domain {name!r}", name, *cast(Sequence[object], pair), numbers=numbers))
    return tuple(found)


def _domain(where: str, name: str, inputs: object, labels: object, *, numbers: bool) -> Domain:
    try:
        return Domain(name, float_inputs(where, inputs), _labels(where, labels, numbers))
    except InputError as error:
        # Domain knows only its name; errors show the path of its file.
        raise InputError(str(error).replace(f"domain {name!r}", where)) from None


def float_inputs(where: str, inputs: object) -> Tensor:
    """Return finite float32 values; uint8 is divided by 255."""
    values = _numbers(inputs)
    if values is None or not (values.dtype == torch.uint8 or values.is_floating_point()):
        raise InputError(f"{where}: inputs are {_kind(inputs)}, expected an array of floats, or uint8 images")
    if values.dtype == torch.uint8:
        return values.float().div_(255)
    values = values.float()
    check_finite(where, "an input", values, "clean or drop such samples")
    return values


def _labels(where: str, labels: object, numbers: bool) -> Tensor:
    """Return [N] int64 classes, or float32 values if they are [N, C] or ``numbers``."""
    values = _numbers(labels)
    if values is None or not (values.ndim == 2 or (numbers and values.ndim == 1)):
        return whole_labels(where, labels)
    values = values.float()
    check_finite(where, "a label", values, "clean or drop such samples")
    return values


def whole_labels(where: str, labels: object) -> Tensor:
    """Return int64 values, whole numbers; those below 0 are no classes."""
    values = _numbers(labels)
    if values is None:
        raise InputError(f"{where}: labels are {_kind(labels)}, expected an array of whole numbers")
    # Unsigned 64-bit numbers above int64 would wrap to negative ones; as float64 they stay too large.
    whole = not (values.is_floating_point() or values.dtype == torch.uint64)
    values = values.to(torch.int64 if whole else torch.float64)
    # Beyond 2**53 float64 skips whole numbers, and no class has such a number.
    wrong = (values != values.trunc()) | (values.abs() > LARGEST_LABEL)
    if wrong.any():
        raise InputError(
            f"{where}: got label {values[wrong].flatten()[0].item()}, expected whole numbers from 0; "
            "number the classes from 0, or give classes = 1 for labels that are no classes"
        )
    return values.long()


def _numbers(value: object) -> Tensor | None:
    """Return a tensor of the numbers of a tensor or array, shared where possible; None for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        native = np.float64 if value.dtype.itemsize > 8 else value.dtype.newbyteorder("=")
        value = torch.as_tensor(np.require(value, native, ["C", "W"]))
    return value.detach() if isinstance(value, Tensor) and not value.is_complex() else None


def _kind(value: object) -> str:
    return str(getattr(value, "dtype", None) or f"a {type(value).__name__}")
