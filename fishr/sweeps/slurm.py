"""The sbatch script of a sweep: an array of tasks, each of which works on one part of it."""

import importlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fishr.errors import InputError
from fishr.files import write_atomically

FOLDER, SCRIPT = "slurm", "array.sh"
# What the script fixes itself, and what is no plain value.
_OURS = ("additional_parameters", "setup", "teardown", "srun_args", "use_srun", "stderr_to_stdout", "signal_delay_s")

Value = str | int | bool


def parse_options(text: str) -> dict[str, Value]:
    """What a text such as "partition=gpu,time=60" asks of Slurm.

    Args:
        text: options of sbatch with underscores, each with its value; time in minutes.

    Raises:
        InputError: a part that is no KEY=VALUE.

    Example:
        >>> parse_options("partition=gpu,time=60,exclusive=true")
        {'partition': 'gpu', 'time': 60, 'exclusive': True}
    """
    found = dict[str, Value]()
    for part in filter(None, (one.strip() for one in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise InputError(f"--slurm: got {part!r}, expected KEY=VALUE, such as partition=gpu,time=60")
        found[key] = int(value) if value.isdecimal() else {"true": True}.get(value, value)
    return found


def array_script(folder: Path, tasks: int, options: Mapping[str, Value], arguments: Sequence[str] = ()) -> str:
    """The script that works on a sweep in an array of tasks.

    Args:
        folder: of the sweep, which every node sees under the same path.
        tasks: of the array; task I works on part I of so many.
        options: of sbatch, by the names of submitit's SlurmExecutor.
        arguments: further ones of ``fishr sweep resume``.

    Raises:
        InputError: submitit is not installed, or there is no such option.

    Example:
        >>> text = array_script(Path("sweep"), 8, {"partition": "gpu", "time": 60})
        >>> [line for line in text.splitlines() if "array=" in line or "time=" in line]
        ['#SBATCH --array=0-7%8', '#SBATCH --time=60']
    """
    given = shlex.join([*_program(), "sweep", "resume", str(folder.absolute())])
    command = f'{given} --part "$SLURM_ARRAY_TASK_ID"/{tasks} {shlex.join(arguments)}'.rstrip()
    return _script((folder / FOLDER).absolute(), command, tasks, {"job_name": "fishr-sweep"} | dict(options))


def write_script(folder: Path, text: str) -> Path:
    """Keep the script in the sweep's folder, where its logs will be too; nothing is submitted.

    Args:
        folder: of the sweep.
        text: from ``array_script``.

    Returns:
        Its path, FOLDER/slurm/array.sh.

    Raises:
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_script(Path(folder), "#!/bin/bash").name
        'array.sh'
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    write_atomically(folder / FOLDER / SCRIPT, text.encode())
    return folder / FOLDER / SCRIPT


def _program() -> tuple[str, ...]:
    """The installed script beside this interpreter, or the same without it."""
    script = Path(sys.executable).with_name("fishr")
    # -P: no file in the working directory stands in for a module.
    return (
        (str(script),) if script.exists() else (sys.executable, "-P", "-c", "from fishr.commands import main; main()")
    )


def _script(folder: Path, command: str, tasks: int, options: Mapping[str, Value]) -> str:
    try:
        slurm: Any = importlib.import_module("submitit.slurm.slurm")
    except ImportError as error:
        raise InputError(
            "--slurm: submitit is not installed; run pip install -e '.[slurm]' in your checkout of fishr"
        ) from error

    class Writer(slurm.SlurmExecutor):
        """Writes scripts on machines that have no Slurm themselves."""

        @classmethod
        def affinity(cls) -> int:
            return 1

        def text(self) -> str:
            known = sorted(self._valid_parameters() - set(_OURS))
            for key in options:
                if key not in known:
                    raise InputError(f"--slurm: got {key!r}, expected some of {', '.join(known)}")
            here = {"chdir": str(Path.cwd())}
            try:
                self.update_parameters(**options, use_srun=False, stderr_to_stdout=True, additional_parameters=here)
                self.parameters["map_count"] = tasks
                return str(self._make_submission_file_text(command, uid=""))
            except (TypeError, ValueError) as error:
                raise InputError(f"--slurm: a value is of another kind than its key needs ({error})") from error

    return Writer(folder).text()
