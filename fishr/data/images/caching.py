"""Write an image cache: decode and resize each image file once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np

import fishr
from fishr.data.caches import Section
from fishr.data.caches.image_cache import write_images
from fishr.data.images.decoding import as_image
from fishr.data.images.image_data import list_images
from fishr.data.images.image_environments import ImageSource
from fishr.data.images.image_stores import ImageFiles, Images
from fishr.data.images.image_tables import TableImages
from fishr.data.images.layout_warnings import warn_of_layout
from fishr.data.images.listed_images import Listed, class_names, portable
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.unreadable import check_readable
from fishr.files import digest_of

_FILES_A_TASK = 256


def cache_images(
    source: Path | ImageSource,
    out: Path,
    preprocessing: Preprocessing,
    workers: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
    data_dir: Path | None = None,
) -> bool:
    """Write all images of a folder or list into one file, resized; a killed run resumes where it stopped.

    Args:
        source: A folder of ENVIRONMENT/CLASS/IMAGE, or a .csv, .json or .jsonl as :class:`ImageList` reads it; or a
            data set of images, such as an ``ImageList`` with columns of its own or ``HuggingFaceImages``.
        preprocessing: Size and interpolation of the images; they are kept unnormalized.
        progress: Called with the number of images written, and of all.
        data_dir: Data folder of a data set.

    Returns:
        Whether it was written; False if the same file exists already.

    Raises:
        InputError: The source is refused, an image cannot be read, or ``out`` was made of something else.
        RunFailed: It could not be written; finished parts are kept.
    """
    import PIL

    if isinstance(source, Path):
        where, listed = source, list_images(source)
        warn_of_layout(source, listed)
    else:
        where, listed = source.listed(data_dir)
    classes = class_names(where, listed)
    check_readable([path for each in listed for path in each.paths()])
    numbers = {name: number for number, name in enumerate(classes)}
    with ThreadPoolExecutor(workers) as pool:

        def compute(domain: int, start: int, stop: int) -> np.ndarray:
            images = listed[domain].images

            def resized(row: int) -> np.ndarray:
                return np.asarray(preprocessing.resized(as_image(images.read(row))))

            return np.stack(list(pool.map(resized, range(start, stop))))

        return write_images(
            out,
            provenance={
                "size": preprocessing.size,
                "resize": preprocessing.resizing,
                "sixteen_bits": "high byte",
                "domains": tuple(each.name for each in listed),
                "classes": classes,
                "images_sha256": _content(listed, pool),
                "pillow": ".".join(PIL.__version__.split(".")[:2]),
                "library": fishr.__version__,
            },
            sections=[Section(each.name, "training", len(each.classes)) for each in listed],
            paths=[tuple(map(portable, each.images.names)) for each in listed],
            labels=[np.array([numbers[name] for name in each.classes]) for each in listed],
            compute=compute,
            progress=progress,
        )


def _content(listed: Sequence[Listed], pool: ThreadPoolExecutor) -> str:
    """Return the hash of the names, the classes and the bytes of all images, before they are decoded."""
    digest = sha256()
    for environment in listed:
        count = range(len(environment.classes))
        tasks = [count[start : start + _FILES_A_TASK] for start in range(0, len(count), _FILES_A_TASK)]
        images = environment.images
        hashes = chain.from_iterable(pool.map(lambda task, images=images: [_hash(images, row) for row in task], tasks))
        for name, group, found in zip(images.names, environment.classes, hashes, strict=True):
            line = f"{environment.name}\t{group}\t{name}\t{found}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _hash(images: Images, row: int) -> str:
    if isinstance(images, ImageFiles):
        return digest_of(images.path(row))
    if isinstance(images, TableImages):
        return sha256(images.encoded(row)).hexdigest()
    return sha256(np.asarray(images.read(row)).tobytes()).hexdigest()
