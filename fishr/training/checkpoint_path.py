"""Where a run folder's checkpoint is, and why it is missing."""

import json
from pathlib import Path
from typing import Any

from fishr.errors import InputError
from fishr.files import present

CHECKPOINT, RESULT = "checkpoint.pt", "result.json"
JOB = "job.toml"  # in a folder that is a job of a sweep


def checkpoint_of(folder: Path) -> Path:
    """Return the path of a run folder's checkpoint, which is there.

    Args:
        folder: of a run.

    Raises:
        InputError: there is none; the message says whether a sweep dropped it.

    Example:
        >>> checkpoint_of(Path("run"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: run: no checkpoint.pt yet; go on with the run until it has made one
    """
    path = folder / CHECKPOINT
    if present(path):
        return path
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
        failed = f", and its run failed ({result['message']})" if result["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: no {CHECKPOINT} yet; go on with the run until it has made one") from None
    if not (folder / JOB).is_file():
        raise InputError(f"{folder}: no {CHECKPOINT}, though its run has ended; put it back, or train again elsewhere")
    raise InputError(
        f'{folder}: its weights were not kept{failed}; set keep = "weights" in the plan of its sweep, '
        "remove this folder and run the sweep again"
    )
