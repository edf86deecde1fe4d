"""Images in the columns of a table, in Parquet or Arrow files as data sets of the Hugging Face hub are."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from fishr.checks import near
from fishr.data.images.decoding import decode
from fishr.data.images.listed_images import Listed, checked_name, chosen_environments
from fishr.errors import InputError, reason
from fishr.extras import from_extra
from fishr.paths import DATA, in_data_folder

if TYPE_CHECKING:
    from PIL.Image import Image

HUB_FOLDER = "huggingface"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@frozen
class TableColumns:
    """Names of the columns; without one of domains, each split of the table is a domain."""

    image: str = "image"
    label: str = "label"
    domain: str | None = None


@frozen(eq=False)
class TableImages:
    """Some images of a table, encoded as in files."""

    where: Path  # of the table
    names: tuple[str, ...]  # split and row of each image
    table: Any  # one column, of the images of all splits
    rows: tuple[int, ...]  # of each image in ``table``

    def read(self, index: int) -> "Image":
        """Return an image, RGB."""
        return decode(self.where / self.names[index], self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """Return the bytes of an image's file."""
        (found,) = self.table[self.rows[index]].values()
        if found["bytes"] is not None:
            return found["bytes"]
        path = self.where.parent / found["path"]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({reason(error)}); {self.names[index]} has it as image") from None


def table_place(path: str, data_dir: Path | None) -> Path:
    """Return the path of a table: below the data folder, or where ``fishr data download hf:NAME`` puts it."""
    local, folder = in_data_folder(path, data_dir), DATA if data_dir is None else data_dir
    if local.exists():
        return local
    if not is_hub_name(path):
        raise InputError(f"{local}: no such file or folder; give Parquet or Arrow files, or the name of a hub data set")
    downloaded = folder / HUB_FOLDER / path
    if not downloaded.exists():
        raise InputError(
            f"{path}: neither {local} nor {downloaded} exists; run `fishr data download hf:{path} --data-dir {folder}` "
            "or put Parquet files there"
        )
    return downloaded


def is_hub_name(name: str) -> bool:
    """Return whether a text can be the name of a hub data set, OWNER/NAME."""
    return bool(_HUB_NAME.fullmatch(name)) and not {".", ".."} & set(name.split("/"))


def list_table(
    path: Path,
    columns: TableColumns,
    names: Sequence[str] | None = None,
    config: str | None = None,
    needed: Sequence[str] | None = None,
) -> tuple[Listed, ...]:
    """Return the images of a table by domain, of these names or of all; splits that are not needed may lack classes."""
    datasets = datasets_package()
    splits = open_table(path, config)
    wanted = [name for name in (columns.image, columns.label, columns.domain) if name is not None]
    places, parts = dict[str, list[tuple[str, int, str, str]]](), list[Any]()
    start = 0
    for split, table in splits.items():
        for name in wanted:
            if name not in table.column_names:
                raise InputError(
                    f"{path}: {split} has no column {name!r}{near(name, table.column_names)}; it has "
                    f"{', '.join(table.column_names) or 'none'}"
                )
        whole = needed is None or split in needed
        classes = _names(path, split, table, columns.label, whole)
        domains = [split] * len(table) if columns.domain is None else _names(path, split, table, columns.domain, whole)
        for row, (domain, class_name) in enumerate(zip(domains, classes, strict=True)):
            if domain is None or class_name is None:
                continue
            places.setdefault(domain, []).append((f"{split}/{row}", start + row, class_name, split))
        start += len(table)
        images = table.select_columns([columns.image])
        parts.append(_encoded(path, split, images, columns.image, datasets.Image(decode=False)))
    if not places:
        raise InputError(f"{path}: it has no image; give a table of at least one")
    together = datasets.concatenate_datasets(parts)
    listed = list[Listed]()
    for name in chosen_environments(path, list(places), names):
        images, rows, classes, splits_of = zip(*places[name], strict=True)
        listed.append(Listed(name, TableImages(path, images, together, rows), classes, splits=splits_of))
    return tuple(listed)


def open_table(path: Path, config: str | None = None) -> dict[str, Any]:
    """Return the splits of a folder or file, mapped into memory; Parquet becomes Arrow in the package's cache."""
    datasets = datasets_package()
    with _quiet(datasets):
        try:
            if any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
                found = datasets.load_from_disk(str(path))
            elif path.is_dir():
                found = datasets.load_dataset(str(path.absolute()), config)
            else:
                kind = "arrow" if path.suffix == ".arrow" else "parquet"
                found = datasets.load_dataset(kind, data_files={"train": str(path)})
        except Exception as error:  # the package and Arrow raise errors of many classes
            raise InputError(
                f"{path}: cannot be read as a table ({reason(error)}); give Parquet or Arrow files"
                + (f" with the configuration {config!r}" if config else "")
            ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def datasets_package() -> Any:
    """Return the package ``datasets`` of Hugging Face, which loads for a second and is an extra."""
    return from_extra("hf", "datasets", "tables of images")


def _names(path: Path, split: str, table: Any, column: str, whole: bool) -> list[str] | list[str | None]:
    """Return the values of a column of classes, texts or whole numbers, as texts; None only if not ``whole``."""
    feature = table.features[column]
    known = getattr(feature, "names", None)
    values = table.select_columns([column])[:][column]
    names = list[str | None]()
    for row, value in enumerate(values):
        if known is not None and isinstance(value, int) and 0 <= value < len(known):
            name = known[value]
        elif known is None and isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            name = str(value)
        elif not whole:
            names.append(None)
            continue
        else:
            raise InputError(
                f"{path}: {split} row {row} has {value!r} as {column}, expected a name or a whole number; leave such "
                "rows out, or name the other splits"
            )
        names.append(checked_name(path, name))
    return names


def _encoded(path: Path, split: str, table: Any, column: str, undecoded: Any) -> Any:
    """Return the column of images with their bytes undecoded; refuse rows without one."""
    try:
        found = table.cast_column(column, undecoded)
    except Exception as error:
        raise InputError(f"{path}: {split} has no images in {column!r} ({reason(error)})") from error
    row = 0
    for chunk in found.data.column(column).chunks:
        missing = [part.is_null().to_numpy(zero_copy_only=False) for part in chunk.flatten()]
        lost = missing[0] & missing[1]
        if lost.any():
            raise InputError(f"{path}: {split} row {row + int(lost.argmax())} has no image; leave such rows out")
        row += len(chunk)
    return found


@contextmanager
def _quiet(datasets: Any) -> Generator[None]:
    """Show no progress bars of the package meanwhile."""
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
