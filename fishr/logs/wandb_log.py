"""A log in Weights & Biases."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.logs.logger import Row, require


@frozen
class WandB:
    """Log to Weights & Biases, with the settings as configuration and the run folder's name as that of the run.

    Project, server and mode are those of its environment variables: ``WANDB_PROJECT``, ``WANDB_MODE=offline``. Its own
    files are in the folder ``wandb`` of the run. Needs the extra ``wandb``.

    Raises:
        InputError: wandb is not installed.

    Example:
        >>> WandB()
        WandB()
    """

    def __attrs_post_init__(self) -> None:
        require("wandb")

    @contextmanager
    def __call__(self, folder: Path, key: str, settings: Mapping[str, Any]) -> Generator[Callable[[list[Row]], object]]:
        """Open the log of a run."""
        import wandb

        quiet = wandb.Settings(console="off", silent=True)
        # Jobs of a sweep may train together in one process.
        options: Any = {"id": key, "resume": "allow", "reinit": "create_new", "settings": quiet}
        run = wandb.init(dir=folder, name=folder.name, config=dict(settings), **options)

        def write(rows: list[Row]) -> None:
            for row in rows:
                values = {
                    name: wandb.Image(str(value)) if isinstance(value, Path) else value
                    for name, value in row.values.items()
                }
                run.log(values | {"_timestamp": row.time}, step=row.step)

        # Its own context manager prints a traceback of an interruption.
        try:
            yield write
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
