"""The plain content of a checkpoint's file, before anything is made of it."""

from pathlib import Path
from typing import Any, cast

import torch

from fishr.errors import InputError

FORMAT = "fishr checkpoint"
VERSION = 1


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a checkpoint's file holds; nothing in it is executed.

    Args:
        path: a file that ``save`` of ``fishr.training`` wrote.

    Returns:
        A dict of plain values and tensors on the CPU, the weights under "parameters" and "buffers".

    Raises:
        InputError: no such file, or one that is damaged or of another program or version.

    Example:
        >>> read_checkpoint(Path("nowhere.pt"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.pt: no such checkpoint; give the path of a checkpoint.pt in a run folder
    """
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a link that leads nowhere; put the checkpoint back, or remove the link")
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the path of a checkpoint.pt in a run folder")
    try:
        tree: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parts raise on bytes that are not its own
        raise InputError(
            f"{path}: not a readable checkpoint (cut short, or another program's file); use another one"
        ) from error
    if not isinstance(tree, dict) or cast(dict[str, Any], tree).get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of fishr; give the path of a checkpoint.pt in a run folder")
    found = cast(dict[str, Any], tree)
    if found.get("version") != VERSION:
        raise InputError(
            f"{path}: got a checkpoint of version {found.get('version')}, expected {VERSION}; "
            "use the version of fishr that wrote it"
        )
    return found
