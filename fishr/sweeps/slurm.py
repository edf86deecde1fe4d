"""The sbatch script of a sweep: an array of tasks, each of which works on one part of it."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fishr.errors import InputError
from fishr.extras import from_extra
from fishr.files import write_atomically

FOLDER, SCRIPT = "slurm", "array.sh"
# Fixed by the script, or no plain value.
_OURS = ("additional_parameters", "setup", "teardown", "srun_args", "use_srun", "stderr_to_stdout", "signal_delay_s")

Value = str | int | bool


def parse_options(text: str) -> dict[str, Value]:
    """Return the sbatch options of a text such as "partition=gpu,time=60": names with underscores, time in minutes."""
    found = dict[str, Value]()
    for part in filter(None, (one.strip() for one in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise InputError(f"--slurm: got {part!r}, expected KEY=VALUE, such as partition=gpu,time=60")
        found[key] = int(value) if value.isdecimal() else {"true": True}.get(value, value)
    return found


def array_script(folder: Path, tasks: int, options: Mapping[str, Value], arguments: Sequence[str] = ()) -> str:
    """Return the script of an array of tasks, each of which works on one part of a sweep."""
    given = shlex.join([*_program(), "sweep", "resume", str(folder.absolute())])
    command = f'{given} --part "$SLURM_ARRAY_TASK_ID"/{tasks} {shlex.join(arguments)}'.rstrip()
    slurm = from_extra("slurm", "submitit.slurm.slurm", "--slurm")

    class Writer(slurm.SlurmExecutor):
        """Writes scripts on machines without Slurm, too."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    writer: Any = Writer((folder / FOLDER).absolute())
    known = sorted(writer._valid_parameters() - set(_OURS))
    for key in options:
        if key not in known:
            raise InputError(f"--slurm: got {key!r}, expected some of {', '.join(known)}")
    fixed = {"use_srun": False, "stderr_to_stdout": True, "additional_parameters": {"chdir": str(Path.cwd())}}
    try:
        writer.update_parameters(**{"job_name": "fishr-sweep", **options, **fixed})
        writer.parameters["map_count"] = tasks
        return str(writer._make_submission_file_text(command, uid=""))
    except (TypeError, ValueError) as error:
        raise InputError(f"--slurm: a value is of another kind than its key needs ({error})") from error


def write_script(folder: Path, text: str) -> Path:
    """Write the script into the sweep's folder, with its logs; nothing is submitted."""
    (folder / FOLDER).mkdir(exist_ok=True)
    write_atomically(folder / FOLDER / SCRIPT, text.encode())
    return folder / FOLDER / SCRIPT


def _program() -> tuple[str, ...]:
    """Return the command of the installed script beside this interpreter, or of the same code without it."""
    script = Path(sys.executable).with_name("fishr")
    if script.exists():
        return (str(script),)
    # -P: no file in the working directory stands in for a module.
    return (sys.executable, "-P", "-c", "from fishr.commands import main; main()")
