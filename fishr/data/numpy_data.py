"""Environments in NumPy files: one array of inputs, with the label and the domain of each sample."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from attrs.validators import optional
from numpy.typing import NDArray
from torch import Tensor

from fishr.checks import distinct_names, near, whole
from fishr.data.arrays import counted_classes, float_inputs, whole_labels
from fishr.data.domains import Domain
from fishr.data.environments import Environments
from fishr.errors import InputError, reason
from fishr.paths import in_data_folder
from fishr.row_checks import check_classes, check_finite

Array = NDArray[Any]
_ROWS_A_CHECK = 4096


@frozen
class NumPyData:
    """Environments in one .npz, or in a folder of .npy files, which are mapped and read when a batch needs them.

    Inputs are images [N, H, W, C] or [N, H, W] uint8, which become [N, C, H, W] float32 from 0 to 1, or floats [N, F]
    (or of any shape), which become float32. Labels [N] are whole numbers from 0, or texts, which are sorted. Domains
    [N] are whole numbers or texts. Each domain is an environment, whose samples keep their order.

    Args:
        path: The .npz or the folder; relative to ``data_dir``, or to the folder "data" if that is None.
        inputs, labels, domains: Name of the array; in a folder, of the file without .npy.
        environments: Names of the domains to use, in this order; None: all, numbers by value, texts sorted.
        samples: Largest number of samples of each environment, the first ones; None: all.
        classes: C, if labels are numbers; None: the largest label plus one, if the smallest is 0.
        groups: Name of an array [N] of whole numbers or texts, such as patients, whose samples in a domain ``HeldOut``
            keeps together; None: none.

    Raises:
        InputError: A setting is out of range. When called: a file or array is missing, damaged or of another type or
            length, an input is not finite, or there is no such domain.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, values in {
        ...         "inputs": np.full((4, 8, 6, 3), 255, np.uint8),
        ...         "labels": np.array(["cat", "dog", "dog", "cat"]),
        ...         "domains": np.array([2, 10, 2, 10]),
        ...     }.items():
        ...         np.save(Path(folder, name), values)
        ...     found = NumPyData(folder)(seed=0, data_dir=None)
        >>> [(domain.name, domain.labels.tolist()) for domain in found.domains], found.class_names
        ([('2', [0, 1]), ('10', [1, 0])], ('cat', 'dog'))
        >>> found.domains[0].inputs.shape
        torch.Size([2, 3, 8, 6])
    """

    path: str
    inputs: str = "inputs"
    labels: str = "labels"
    domains: str = "domains"
    environments: tuple[str, ...] | None = field(default=None, validator=distinct_names)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    classes: int | None = field(default=None, validator=optional(whole(2)))
    groups: str | None = None

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Open the arrays and check them; nothing is random, so ``seed`` is not used."""
        path = in_data_folder(self.path, data_dir)
        named = (self.labels, self.domains, *([] if self.groups is None else [self.groups]))
        inputs, *others = _arrays(path, (self.inputs, *named))
        for name, found in zip(named, others, strict=True):
            if found.shape != (len(inputs),):
                raise InputError(
                    f"{path}: {name} has shape {list(found.shape)}, expected [{len(inputs)}], one for each input"
                )
        if not len(inputs):
            raise InputError(f"{path}: {self.inputs} has no samples; give at least one of each domain")
        labels, domains, *groups = others
        members = None
        if groups:
            _names(f"{path}: {self.groups}", groups[0])
            members = torch.from_numpy(np.unique(groups[0], return_inverse=True)[1])
        numbers, class_names = self._numbered(path, labels)
        names = _names(f"{path}: {self.domains}", domains)
        rows = {name: np.flatnonzero(domains == value)[: self.samples] for name, value in names.items()}
        for name in self.environments or ():
            if name not in rows:
                raise InputError(f"{path}: {self.domains} has no {name!r}{near(name, rows)}; it has {', '.join(rows)}")
        where, mapped = f"{path}: {self.inputs}", path.is_dir()
        values = _mapped(where, inputs) if mapped else _in_memory(where, inputs)
        found = tuple(
            Domain(
                name,
                values.select(rows[name].tolist()) if isinstance(values, MappedInputs) else values[rows[name]],
                numbers[rows[name]],
                groups=None if members is None else members[rows[name]],
            )
            for name in self.environments or rows
        )
        classes = self.classes or (len(class_names) if class_names else counted_classes([numbers]))
        check_classes(f"{path}: {self.labels}", numbers, classes)
        return Environments(found, classes, class_names)

    def _numbered(self, path: Path, labels: Array) -> tuple[Tensor, tuple[str, ...] | None]:
        """Return labels as numbers, and the names of the classes if they are texts."""
        if labels.dtype.kind != "U":
            return whole_labels(f"{path}: {self.labels}", labels), None
        names, numbers = np.unique(labels, return_inverse=True)
        if len(names) < 2:
            raise InputError(f"{path}: {self.labels} has the class {str(names[0])!r} alone, expected at least 2")
        return torch.from_numpy(numbers.reshape(-1)).long(), tuple(map(str, names))


@frozen(eq=False)
class MappedInputs:
    """Inputs [N, ...] of a mapped array, read row by row; images become float32 from 0 to 1, channels first."""

    array: Array
    rows: Sequence[int]

    @property
    def shape(self) -> torch.Size:
        _, *one = self.array.shape
        if self._are_images:
            height, width, *channels = one
            one = [*(channels or [1]), height, width]
        return torch.Size((len(self.rows), *one))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def _are_images(self) -> bool:
        return self.array.dtype == np.uint8

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> "MappedInputs":
        return evolve(self, rows=tuple(self.rows[row] for row in rows))

    def plain(self) -> "MappedInputs":
        return self

    def to(self, device: torch.device) -> "MappedInputs":
        return self

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Return [n, ...] on the CPU: uint8 images, or float32."""
        found = np.stack([self.array[self.rows[row]] for row in rows])
        if not self._are_images:
            return torch.from_numpy(found.astype(np.float32, copy=False))
        return _channels_first(torch.from_numpy(found))

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        made = read.float() if out is None else out.copy_(read)
        return made.div_(255) if read.dtype == torch.uint8 else made


def _channels_first(images: Tensor) -> Tensor:
    return (images.unsqueeze(3) if images.ndim == 3 else images).permute(0, 3, 1, 2).contiguous()


def _in_memory(where: str, inputs: Array) -> Tensor:
    if inputs.dtype != np.uint8:
        return float_inputs(where, inputs)
    _check_images(where, inputs)
    return _channels_first(torch.from_numpy(inputs)).float().div_(255)


def _mapped(where: str, inputs: Array) -> MappedInputs:
    if inputs.dtype == np.uint8:
        _check_images(where, inputs)
    elif inputs.dtype.kind != "f":
        raise InputError(f"{where} is {inputs.dtype}, expected floats, or uint8 images; convert it")
    else:
        for start in range(0, len(inputs), _ROWS_A_CHECK):
            some = torch.from_numpy(inputs[start : start + _ROWS_A_CHECK].astype(np.float32))
            check_finite(where, "an input", some, "clean or drop such samples", start)
    return MappedInputs(inputs, range(len(inputs)))


def _check_images(where: str, images: Array) -> None:
    """Refuse uint8 of another number of axes, and channels that come first."""
    if images.ndim not in (3, 4):
        raise InputError(f"{where} has shape {list(images.shape)}, expected uint8 images [N, H, W, C] or [N, H, W]")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 2, 3, 4):
        raise InputError(
            f"{where} has shape {list(images.shape)}, expected uint8 images [N, H, W, C]; move the channels: "
            "inputs.transpose(0, 2, 3, 1)"
        )


def _names(where: str, domains: Array) -> dict[str, Any]:
    """Return the values of an array of domains by their names, in the order of the values."""
    if domains.dtype.kind not in "Uiu":
        raise InputError(f"{where} is {domains.dtype}, expected whole numbers or texts; save it with a plain dtype")
    return {str(value): value for value in np.unique(domains)}


def _arrays(path: Path, names: tuple[str, ...]) -> tuple[Array, ...]:
    """Return arrays of a file or a folder by their names; nothing is unpickled."""
    if path.is_dir():
        known = sorted(each.stem for each in path.glob("*.npy"))
        _check_known(path, names, known, "numpy.save(folder / NAME, array)")
        return tuple(_loaded(path / f"{name}.npy") for name in names)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an .npz, or a folder of .npy files")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: not an .npz file; save it with numpy.savez(path, inputs=..., labels=..., domains=...)"
        )
    with _loaded(path) as archive:
        _check_known(path, names, archive.files, "numpy.savez(path, NAME=array)")
        return tuple(_read(path, archive, name) for name in names)


def _check_known(path: Path, names: tuple[str, ...], known: Sequence[str], how: str) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "nothing"
            raise InputError(
                f"{path}: it has no array {name!r}{near(name, known)} but {listed}; save it with {how}, or "
                "give its name"
            )


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged bytes raise whatever zipfile and NumPy raise
        raise _unusable(path, error) from None


def _read(path: Path, archive: Any, name: str) -> Array:
    try:
        return archive[name]
    except Exception as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> InputError:
    pickled = "allow_pickle" in str(error) or "Python objects" in str(error)
    problem = "it holds pickled objects, which are never loaded" if pickled else f"damaged ({reason(error)})"
    return InputError(f"{path}: {problem}; save plain numbers or texts, such as numpy.asarray(names, str)")
