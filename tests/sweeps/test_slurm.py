import subprocess

import pytest

from fishr.errors import InputError
from fishr.sweeps.slurm import array_script, parse_options, write_script


@pytest.fixture(autouse=True)
def submitit():
    return pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")


def test_each_task_works_on_its_part(tmp_path, monkeypatch):
    """The script's last command, run by a shell as Slurm would, calls resume for each part."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my sweep"
    folder.mkdir()
    options = parse_options("partition=gpu, time=60,cpus_per_task=4,gpus_per_node=1,mem=16GB,array_parallelism=2")
    script = write_script(folder, array_script(folder, 3, options, ["--workers", "4", "--data-dir", "/my data"]))
    assert script == folder / "slurm" / "array.sh"
    text = script.read_text()
    wanted = {"partition=gpu", "time=60", "cpus-per-task=4", "gpus-per-node=1", "mem=16GB", "array=0-2%2"}
    assert wanted <= {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    command = next(line for line in text.splitlines() if "sweep resume" in line)
    shown = text.replace(command, f"printf '%s\\n' {command}")
    said = subprocess.run(["bash", "-c", shown], env={"SLURM_ARRAY_TASK_ID": "1"}, capture_output=True, text=True)
    words = said.stdout.splitlines()
    start = words.index("sweep")
    assert words[start:] == [
        *("sweep", "resume", str(folder), "--part", "1/3", "--workers", "4", "--data-dir", "/my data"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitions=gpu", "--slurm: got 'partitions', expected some of account, "),
        ("setup=module", "--slurm: got 'setup', expected some of"),
        ("map_count=3", "--slurm: got 'map_count', expected some of"),
        ("gpu", "--slurm: got 'gpu', expected KEY=VALUE"),
        ("time=", "--slurm: got 'time=', expected KEY=VALUE"),
        ("array_parallelism=few", "--slurm: a value is of another kind"),
    ],
)
def test_wrong_options_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        array_script(tmp_path, 3, parse_options(text))
    assert "\n" not in str(caught.value)


def test_without_submitit_its_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "submitit.slurm.slurm", None)
    with pytest.raises(InputError, match=r"run pip install -e '\.\[slurm\]' in your checkout"):
        array_script(tmp_path, 3, {})
