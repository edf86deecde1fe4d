"""Domains of files that a run was not trained on, with the labels by the run's classes."""

from collections.abc import Iterable
from pathlib import Path

import torch
from attrs import evolve

from fishr.configuration import load as load_configuration
from fishr.data.arrays import Arrays
from fishr.data.cached_features import CachedFeatures
from fishr.data.domains import Domain
from fishr.data.environments import Environments, HeldOut
from fishr.data.images.folder_listing import has_class_folders, list_class_folders, list_folder
from fishr.data.images.image_environments import list_cache
from fishr.data.images.image_inputs import ImageInputs
from fishr.data.images.list_files import LIST_EXTENSIONS, Columns, columns_in, list_file
from fishr.data.images.listed_images import Listed
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.unreadable import check_readable
from fishr.errors import InputError
from fishr.inference.trained_model import TrainedModel
from fishr.losses import check_labels
from fishr.row_checks import check_classes
from fishr.training.experiment import Experiment

CACHE_EXTENSIONS = (".h5", ".hdf5")
EXTENSIONS = (*LIST_EXTENSIONS, *CACHE_EXTENSIONS, ".npz", ".toml")


def labelled_domains(
    path: Path,
    model: TrainedModel,
    columns: Columns | None = None,
    data_dir: Path | None = None,
    plugins: Iterable[str] = (),
) -> tuple[Domain, ...]:
    """Return the domains of a file or folder, unread, with labels by the numbers of the model's classes.

    Args:
        path: A folder CLASS/IMAGE, one domain of the folder's name; a folder DOMAIN/CLASS/IMAGE; a .csv, .json or
            .jsonl of images; a file of ``fishr cache images`` or ``fishr cache features``; a domain of ``Arrays``; or
            the .toml of an experiment, whose data are taken, of ``HeldOut`` the whole environments.
        model: The model that is evaluated.
        columns: Names of a list's columns; None: "path", "label" or "class", and "domain" or "environment" if it has
            one of them.
        data_dir: Folder of the data of a .toml.
        plugins: Modules that a .toml names.

    Raises:
        InputError: Nothing is there, it cannot be read, the model takes other inputs, or it has a class that the model
            does not know.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from torch import nn
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.signature import Signature
        >>> model = TrainedModel(nn.Flatten(), nn.Linear(4, 1), colored_digits(), Signature((4,), classes=2), step=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "clinic.npz"), inputs=np.zeros((3, 4)), labels=[1, 0, 1])
        ...     (domain,) = labelled_domains(Path(folder, "clinic.npz"), model)
        >>> domain.name, domain.labels
        ('clinic', tensor([1, 0, 1]))
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a folder of images, a list, a cache or an .npz")
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix == ".npz":
        return _fitting(path, Arrays((str(path.absolute()),), classes=model.classes)(0, None).training, model)
    if suffix == ".toml":
        return _of_experiment(path, model, data_dir, plugins)
    if suffix in CACHE_EXTENSIONS:
        # HDF5 takes long to load.
        from fishr.data.caches.hdf5 import read_header

        if read_header(path).kind == "fishr-features":
            cached = CachedFeatures(str(path.absolute()))(0, None)
            names = None if model.class_names is None else cached.class_names
            return _fitting(path, _renumbered(path, (*cached.training, *cached.evaluation), names, model), model)
    preprocessing = _preprocessing(path, model)
    listed = list_cache(path, preprocessing) if suffix in CACHE_EXTENSIONS else _listed(path, columns, model)
    numbers = _class_numbers(path, {name for each in listed for name in each.classes}, model)
    check_readable([image for each in listed for image in each.paths()])
    return tuple(
        Domain(
            each.name,
            ImageInputs(each.images, preprocessing, augment=False),
            torch.tensor([numbers[name] for name in each.classes]),
        )
        for each in listed
    )


def _preprocessing(path: Path, model: TrainedModel) -> Preprocessing:
    if model.preprocessing is None:
        shape = " × ".join(map(str, model.shape))
        raise InputError(
            f"{path}: got images, but the run's data were none in files, so their preprocessing is not known; give a "
            f"cache of features or an .npz with inputs of {shape} numbers, or, where they are cached outputs of "
            "images, make it a network of images by fishr join"
        )
    return model.preprocessing


def _of_experiment(
    path: Path, model: TrainedModel, data_dir: Path | None, plugins: Iterable[str]
) -> tuple[Domain, ...]:
    """Return the domains of an experiment's data; its images go through the preprocessing of the model."""
    experiment = load_configuration(path, Experiment, (), tuple(plugins))
    whole = experiment.data.source if isinstance(experiment.data, HeldOut) else experiment.data
    found = whole(experiment.seed, data_dir)
    domains = found.domains if isinstance(found, Environments) else (*found.training, *found.evaluation)
    chosen = list[Domain]()
    for domain in _renumbered(path, domains, found.class_names, model):
        inputs = domain.inputs
        if isinstance(inputs, ImageInputs):
            inputs = ImageInputs(inputs.images, _preprocessing(path, model), augment=False, rows=inputs.rows)
        chosen.append(evolve(domain, inputs=inputs))
    return _fitting(path, tuple(chosen), model)


def _renumbered(
    path: Path, domains: tuple[Domain, ...], names: tuple[str, ...] | None, model: TrainedModel
) -> tuple[Domain, ...]:
    """Return the domains with the model's numbers of their classes, which are matched by name."""
    if names is None:
        return domains
    chosen = list[Domain]()
    for domain in domains:
        labels = domain.labels
        if labels.ndim == 2:
            # Soft labels, or several of a sample.
            numbers = _class_numbers(path, set(names), model)
            order = torch.tensor([numbers[name] for name in names])
            labels = labels.new_zeros(len(labels), model.classes).index_copy(1, order, labels)
        elif not labels.is_floating_point():
            numbers = _class_numbers(path, {names[label] for label in labels.unique() if label >= 0}, model)
            own = torch.tensor([numbers.get(name, -1) for name in names])
            labels = torch.where(labels < 0, labels, own[labels.clamp(min=0)])
        chosen.append(evolve(domain, labels=labels))
    return tuple(chosen)


def _listed(path: Path, columns: Columns | None, model: TrainedModel) -> tuple[Listed, ...]:
    if not path.is_dir():
        if columns is None and f"p_{model.label(0)}" in columns_in(path):
            raise InputError(
                f"{path}: got a file of predictions, whose class is no label; give a list with the labels, or name "
                "their column (--columns path,COLUMN)"
            )
        return list_file(path, columns=columns or Columns.of(path))
    return (list_class_folders(path),) if has_class_folders(path) else list_folder(path)


def _class_numbers(path: Path, found: set[str], model: TrainedModel) -> dict[str, int]:
    """Return the number of each class by its name."""
    known = model.class_names or tuple(map(str, range(model.classes)))
    if model.class_names is None and found - set(known):
        # Runs of images number the sorted names; early ones did not keep them.
        if len(found) != model.classes:
            raise InputError(
                f"{path}: got {len(found)} classes, but the run has {model.classes} and kept no names of them; give "
                f"images of all of them, or name classes by their numbers, 0 to {model.classes - 1}"
            )
        known = sorted(found)
    unknown = sorted(found - set(known))
    if unknown:
        named = ", ".join(map(repr, unknown[:3])) + (", …" if len(unknown) > 3 else "")
        raise InputError(
            f"{path}: got the {'class' if len(unknown) == 1 else 'classes'} {named}, which the run does not know, "
            f"expected some of: {', '.join(known)}; rename such folders or labels, or leave their images out"
        )
    return {name: number for number, name in enumerate(known)}


def _fitting(path: Path, domains: tuple[Domain, ...], model: TrainedModel) -> tuple[Domain, ...]:
    """Check that domains have inputs and labels of the model."""
    for domain in domains:
        shape = tuple(domain.inputs.shape[1:])
        if shape != model.shape:
            raise InputError(
                f"{path}: domain {domain.name!r} has inputs of shape {list(shape)}, expected {list(model.shape)} as in "
                "the run's data"
            )
        where, labels, columns = f"{path}: domain {domain.name!r}", domain.labels, model.label_columns
        if labels[:1].numel() != (columns or 1) or labels.is_floating_point() != (columns is not None):
            expected = "a whole number, its class" if columns is None else f"{columns} numbers"
            raise InputError(
                f"{where}: got labels of shape {list(labels.shape)} and type {labels.dtype}, expected {expected} for "
                "each sample, as in the run's data"
            )
        if columns is None:
            check_classes(where, domain.labeled(model.experiment.loss).labels, model.classes)
        else:
            check_labels(model.experiment.loss, labels, columns)
    return domains
