"""Checkpoints: the training state in one file that is whole or absent."""

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor
from torch.serialization import get_crc32_options, set_crc32_options

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.training.optimizers import OptimizerState
from fishr.training.state import TrainingState, without_optimizer
from fishr.training.step import NotFinite
from fishr.training.stored import FORMAT, VERSION, read_checkpoint
from fishr.training.trees import plain, restored


@frozen(eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        state: the training state, on the CPU.
        experiment_text: the configuration it was made with, as TOML.
        position: bytes of the run's metrics file that belong to the state.
        seconds: spent training so far.

    Example:
        >>> [field.name for field in attrs.fields(Checkpoint)]
        ['state', 'experiment_text', 'position', 'seconds']
    """

    state: TrainingState
    experiment_text: str = ""
    position: int = 0
    seconds: float = 0.0


def save(path: Path, state: TrainingState, experiment_text: str, position: int = 0, seconds: float = 0.0) -> None:
    """Write a checkpoint; until it is whole, the previous one stays.

    The file is a dict of plain values that ``torch.load(path, weights_only=True)`` reads anywhere, with the
    weights under "parameters".

    Args:
        path: where; its folder exists. One process at a time writes it.
        state: what to save.
        experiment_text: the configuration, as TOML.
        position: bytes of the run's metrics file that belong to the state.
        seconds: spent training so far.

    Raises:
        NotFinite: a parameter is infinite or not a number; the previous file is kept.
        RunFailed: the file could not be written; the previous one is kept.

    Example:
        >>> import tempfile
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.loop import train
        >>> state = next(train(colored_digits())).state
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "checkpoint.pt", state, 'name = "digits"')
        ...     torch.load(Path(folder) / "checkpoint.pt", weights_only=True)["step"]
        0
    """
    for name, total in _not_finite(state.parameters):
        raise NotFinite(state.step, f"parameter {name}", total)
    head = {"format": FORMAT, "version": VERSION}
    rest = {"experiment_text": experiment_text, "position": position, "seconds": seconds}
    buffer = io.BytesIO()
    # Without the CRC of each entry, which a process can switch off, damage would not be noticed.
    before = get_crc32_options()
    set_crc32_options(True)
    try:
        torch.save(head | plain(state) | rest, buffer)
    finally:
        set_crc32_options(before)
    write_atomically(path, buffer.getvalue())


def load(path: Path, template: TrainingState | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a file that ``save`` wrote.
        template: a state of the same experiment, such as its initial one, in whose types the state comes
            back; without it the penalties' records come back as dicts, which serve to look but not to go on.

    Returns:
        What was saved, on the CPU.

    Raises:
        InputError: no such file, one that is damaged or of another program or version, or a state that does
            not fit the template.

    Example:
        >>> load(Path("nowhere.pt"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.pt: no such checkpoint; give the path of a checkpoint.pt in a run folder
    """
    tree = read_checkpoint(path)
    names = [attribute.name for attribute in attrs.fields(TrainingState)]
    rest = [attribute.name for attribute in attrs.fields(Checkpoint) if attribute.name != "state"]
    fields: dict[str, Any] = {name: tree[name] for name in names}
    if template is None:
        fields["optimizer"] = OptimizerState(**fields["optimizer"])
    else:
        if (fields["scale"] is None) is not (template.scale is None):
            raise InputError(f"{path}: scale: made in another precision than the configuration's; resume with its own")
        fields = {name: restored(fields[name], getattr(template, name), f"{path}: {name}") for name in names}
    state = TrainingState(**fields)
    for name, total in _not_finite(state.parameters):
        raise InputError(f"{path}: damaged, parameter {name} is {total}; use another checkpoint")
    return Checkpoint(state, **{name: tree[name] for name in rest})


def drop_optimizer(path: Path) -> None:
    """Write a checkpoint again without the optimizer's memory: it can be evaluated, but no run goes on from it.

    Args:
        path: a file that ``save`` wrote.

    Raises:
        InputError: no such file, or one that is damaged.
        RunFailed: the file could not be written; the previous one is kept.

    Example:
        >>> import tempfile
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.loop import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "checkpoint.pt"
        ...     save(path, next(train(colored_digits())).state, "")
        ...     drop_optimizer(path)
        ...     load(path).state.optimizer
        OptimizerState(steps=(), moments={})
    """
    made = load(path)
    save(path, without_optimizer(made.state), made.experiment_text, made.position, made.seconds)


def check_experiment(path: Path, checkpoint: Checkpoint, experiment_text: str) -> None:
    """Refuse a checkpoint of another experiment, whose weights may fit all the same.

    Args:
        path: of the checkpoint.
        checkpoint: what it holds.
        experiment_text: the configuration it is to have been made with, as TOML.

    Raises:
        InputError: it was made with another one.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.loop import train
        >>> state = next(train(colored_digits())).state
        >>> check_experiment(Path("checkpoint.pt"), Checkpoint(state, "seed = 0"), "seed = 0")
    """
    if checkpoint.experiment_text != experiment_text:
        raise InputError(
            f"{path}: was made with another configuration than the config.toml beside it; "
            "put back the files that belong together, or start anew under another name"
        )


def _not_finite(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    for name, parameter in parameters.items():
        total = float(parameter.detach().sum(dtype=torch.float64))
        if not math.isfinite(total):
            yield name, total
