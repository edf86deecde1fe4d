"""Files of predictions: a row an image, as CSV or Parquet, whole or absent."""

import csv
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal

from attrs import frozen

from fishr.data.images.listed_images import portable
from fishr.data.images.unreadable import Unreadable
from fishr.errors import InputError
from fishr.extras import from_extra
from fishr.files import fill_atomically, present
from fishr.inference.prediction import Predictions, image_files, predict
from fishr.inference.trained_model import TrainedModel
from fishr.paths import check_file_writable, check_writable

Style = Literal["csv", "parquet"]
_LISTED = 10
_ROWS = 8192


@frozen
class Written:
    """Number of rows of a file of predictions, and the files that have no row."""

    images: int  # rows
    unreadable: int  # files without a row
    first: tuple[Unreadable, ...]  # of these


def write_predictions(
    model: TrainedModel,
    sources: Sequence[Path],
    path: Path,
    style: Style = "csv",
    progress: Callable[[int], object] = lambda images: None,
    column: str = "path",
) -> Written:
    """Write path, class and probabilities of each image: columns "path", "class" and "p_NAME" for each class.

    A class without a name has its number. Files that cannot be read have no row. Until the file is complete, nothing is
    under its name.

    Args:
        model: A model of images.
        sources: Images, and folders or lists of images.
        path: The file to write; it must not exist.
        style: "csv", with 6 significant digits, or "parquet", with float32 probabilities (extra ``parquet``).
        progress: Called with the number of files done since the last call.
        column: As for ``image_files``.

    Raises:
        InputError: The file exists, there is no image, none can be read, or pyarrow is not installed.
        RunFailed: The file could not be written.
    """
    check_new_file(path)
    write = {"csv": _write_csv, "parquet": _write_parquet}[style]
    first, counts = list[Unreadable](), {"images": 0, "unreadable": 0}

    def batches() -> Iterator[Predictions]:
        for one in predict(model, image_files(sources, column)):
            counts["images"] += len(one.paths)
            counts["unreadable"] += len(one.unreadable)
            first.extend(one.unreadable[: _LISTED - len(first)])
            progress(len(one.paths) + len(one.unreadable))
            yield one
        if not counts["images"]:
            some = f"; the first: {first[0].path} ({first[0].reason})" if first else ""
            named = ", ".join(map(str, sources))
            raise InputError(f"{named}: got no image that can be read{some}; give images, folders or lists of images")

    names = [f"p_{model.label(index)}" for index in range(model.classes)]
    fill_atomically(path, lambda file: write(file, model, names, batches()), lambda partial: check_new(path))
    return Written(counts["images"], counts["unreadable"], tuple(first))


def check_new(path: Path) -> None:
    """Refuse a path where something is, or that cannot be written."""
    if present(path):
        raise InputError(f"{path}: exists already; choose another name")
    check_writable(path)


def check_new_file(path: Path) -> None:
    """Refuse what ``check_new`` does, and a file whose folder does not exist."""
    check_new(path)
    check_file_writable(path)


def _write_csv(file: BinaryIO, model: TrainedModel, names: list[str], batches: Iterator[Predictions]) -> None:
    text = TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", *names])
    for one in batches:
        for path, index, row in zip(one.paths, one.classes.tolist(), one.probabilities.tolist(), strict=True):
            writer.writerow([portable(str(path)), model.label(index), *(f"{p:.6g}" for p in row)])
    text.detach()


def _write_parquet(file: BinaryIO, model: TrainedModel, names: list[str], batches: Iterator[Predictions]) -> None:
    packages = ("pyarrow", "pyarrow.parquet")
    arrow, parquet = (from_extra("parquet", package, "parquet", ", or write CSV") for package in packages)
    texts = [("path", arrow.string()), ("class", arrow.string())]
    schema = arrow.schema([*texts, *((name, arrow.float32()) for name in names)])
    with parquet.ParquetWriter(file, schema) as writer:
        pending, rows = list[Any](), 0
        for one in batches:
            columns = [[portable(str(path)) for path in one.paths], [model.label(i) for i in one.classes.tolist()]]
            arrays = [arrow.array(column, arrow.string()) for column in columns]
            arrays += [arrow.array(column.numpy()) for column in one.probabilities.T.contiguous()]
            pending.append(arrow.record_batch(arrays, schema=schema))
            rows += len(one.paths)
            if rows >= _ROWS:
                writer.write_table(arrow.Table.from_batches(pending))
                pending, rows = list[Any](), 0
        if pending:
            writer.write_table(arrow.Table.from_batches(pending))
