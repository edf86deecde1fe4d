"""A log in files of TensorBoard."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from PIL import Image

from fishr.logs.logger import Row, flat, require


@frozen
class TensorBoard:
    """Log to the folder ``tensorboard`` of the run; ``tensorboard --logdir runs`` shows all runs below it.

    The settings are the run's hyper-parameters. Needs the extra ``tensorboard``.

    Raises:
        InputError: TensorBoard is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, TensorBoard()(Path(folder), "", {"steps": 1}) as write:
        ...     write([Row(step=0, time=1.8e9, values={"loss": 0.5})])
    """

    def __attrs_post_init__(self) -> None:
        require("tensorboard")

    @contextmanager
    def __call__(self, folder: Path, key: str, settings: Mapping[str, Any]) -> Generator[Callable[[list[Row]], object]]:
        """Open the log of a run."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        place = folder / "tensorboard"
        is_new = not place.exists()
        with closing(SummaryWriter(str(place))) as writer:
            if is_new and writer.file_writer is not None:
                for summary in hparams(flat(settings), {}):
                    writer.file_writer.add_summary(summary)

            def write(rows: list[Row]) -> None:
                for row in rows:
                    for name, value in row.values.items():
                        if isinstance(value, Path):
                            with Image.open(value) as image:
                                writer.add_image(name, np.asarray(image.convert("RGB")), row.step, row.time, "HWC")
                        else:
                            writer.add_scalar(name, value, row.step, row.time)
                writer.flush()

            yield write
