"""Predictions of images in files, a batch at a time."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
from attrs import frozen
from PIL.Image import Image
from torch import Tensor

from fishr.data.images.decoding import cause, pixels
from fishr.data.images.folder_listing import files_below, is_image
from fishr.data.images.list_files import LIST_EXTENSIONS, listed_paths
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.unreadable import Unreadable
from fishr.errors import InputError
from fishr.inference.trained_model import TrainedModel, probabilities_of
from fishr.losses import predictions_of

BATCH = 64
_BATCHES_AHEAD = 2
_Read = tuple[Path, Future["Image | InputError"]]


@frozen(eq=False)
class Predictions:
    """Predictions of a few images.

    Args:
        paths: Of the n images that could be read.
        classes: Index of the predicted class, [n].
        probabilities: Of each class, [n, C] float32 on the CPU.
        unreadable: Files that could not be read.
    """

    paths: tuple[Path, ...]
    classes: Tensor
    probabilities: Tensor
    unreadable: tuple[Unreadable, ...] = ()


def image_files(sources: Sequence[Path], column: str = "path") -> Iterator[Path]:
    """Yield the given files, the images of lists, and those below the given folders, sorted by name.

    Hidden files and those of other programs are skipped; links are followed, but no folder is read twice.

    Args:
        sources: Images, folders, and lists as .csv, .json or .jsonl.
        column: Column of the path in lists, or a text with columns in braces, such as "train/{filename}".

    Raises:
        InputError: A path does not exist, a folder cannot be read, or a list is malformed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.jpg", "a.png", "notes.txt"):
        ...         _ = Path(folder, name).write_bytes(b"")
        ...     [path.name for path in image_files([Path(folder)])]
        ['a.png', 'b.jpg']
    """
    for source in sources:
        if not source.is_dir():
            if not source.exists():
                raise InputError(f"{source}: no such file or folder; give images, folders or lists of images")
            yield from listed_paths(source, column) if source.suffix.lower() in LIST_EXTENSIONS else (source,)
            continue
        for inner, files in files_below(str(source), {}):
            yield from (Path(f"{source}{inner}", file) for file in sorted(filter(is_image, files)))


def predict(model: TrainedModel, paths: Iterable[Path], batch: int = BATCH) -> Iterator[Predictions]:
    """Yield the predictions of images of any size, ``batch`` at a time, while threads read the next ones.

    Memory does not grow with the number of images. A file that cannot be read is reported beside the others.

    Args:
        model: A model of images, on its device.
        paths: Image files.
        batch: Largest number of images that pass through the network at once.

    Raises:
        InputError: The model was not trained on images in files.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.signature import Signature
        >>> signature = Signature((3, 1, 1), 2, ("dark", "bright"), Preprocessing(size=1))
        >>> head = torch.nn.Linear(3, 1)
        >>> _ = torch.nn.init.ones_(head.weight), torch.nn.init.zeros_(head.bias)
        >>> model = TrainedModel(torch.nn.Flatten(), head, colored_digits(), signature, step=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (30, 20), "white").save(Path(folder, "snow.png"))
        ...     (found,) = predict(model, image_files([Path(folder)]))
        >>> found.paths[0].name, model.label(int(found.classes[0])), found.probabilities.shape
        ('snow.png', 'bright', torch.Size([1, 2]))
    """
    if model.preprocessing is None:
        raise InputError(
            f"{model.experiment.name}: its data were no images in files, so the preprocessing of one is not known; "
            f"call the model of fishr.load_model on tensors of {' × '.join(map(str, model.shape))} numbers, or, where "
            "they are cached outputs of images, make it a network of images by fishr join"
        )
    remaining, ahead = iter(paths), deque[list[_Read]]()
    with ThreadPoolExecutor(torch.get_num_threads(), "fishr-images") as pool:
        while True:
            while len(ahead) < _BATCHES_AHEAD and (some := list(islice(remaining, batch))):
                ahead.append([(path, pool.submit(_read, path, model.preprocessing)) for path in some])
            if not ahead:
                return
            yield _predicted(model, model.preprocessing, ahead.popleft())


def _read(path: Path, preprocessing: Preprocessing) -> "Image | InputError":
    try:
        return preprocessing.resized(path)
    except InputError as error:
        return error


def _predicted(model: TrainedModel, preprocessing: Preprocessing, reads: list[_Read]) -> Predictions:
    found = [(path, read.result()) for path, read in reads]
    images = [(path, image) for path, image in found if not isinstance(image, InputError)]
    failed = tuple(Unreadable(p, cause(one.__cause__ or one)) for p, one in found if isinstance(one, InputError))
    if not images:
        return Predictions((), torch.empty(0, dtype=torch.int64), torch.empty(0, model.classes), failed)
    inputs = preprocessing.normalized(pixels([image for _, image in images], preprocessing.size).to(model.device))
    with torch.no_grad(), model.experiment.compute.products():
        logits = model(inputs)
    loss = model.experiment.loss
    classes, probabilities = predictions_of(loss, logits), probabilities_of(loss, logits)
    return Predictions(tuple(path for path, _ in images), classes.cpu(), probabilities.float().cpu(), failed)
