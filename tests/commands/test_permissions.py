"""Folders that may not be entered or written, and other refusals of the system: one line, exit code 2."""

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fishr.commands import main
from fishr.data import images

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SHORT = ("--set", "steps=2", "--set", "featurizer.widths=[4]")
SMALL = ("--size", "8")
PLAN = """
datasets = ["PACS"]
algorithms = ["ERM"]
settings.steps = 1
"""


def _reading(folder):
    """Commands that read something below a folder."""
    run, cache, sweep = f"{folder}/run", f"{folder}/f.h5", f"{folder}/sweep"
    toml, plan = f"{folder}/run.toml", f"{folder}/plan.toml"
    return [
        ["train", toml, "--out", "new"],
        ["train", "--resume", run],
        ["train", "--on-features", cache, "--out", "new"],
        ["train", "colored-mnist", "--data-dir", folder, "--out", "new"],
        ["evaluate", run],
        ["predict", run, "data/animals", "-o", "new.csv"],
        ["predict", "run", f"{folder}/animals", "-o", "new.csv"],
        ["export", run, "-o", "new.pt"],
        ["analyze", run],
        ["analyze", "run", run],
        ["analyze", cache],
        ["landscape", run, "--grid", "3"],
        ["landscape", cache, "--grid", "3"],
        ["landscape", "run", run, "--grid", "3"],
        ["explain", toml],
        ["explain", "colored-mnist", "--data-dir", folder],
        ["config", "show", toml],
        ["config", "validate", toml],
        ["cache", "features", run, "-o", "new.h5"],
        ["cache", "features", toml, "-o", "new.h5"],
        ["cache", "gradients", cache, "-o", "new.h5"],
        ["cache", "info", cache],
        ["cache", "verify", cache],
        ["cache", "merge", cache, cache, "-o", "new.h5"],
        ["cache", "images", f"{Path.cwd()}/{folder}/animals", "-o", "new.h5"],
        ["data", "verify", f"{folder}/animals"],
        ["data", "verify", f"{folder}/list.csv"],
        ["data", "verify", "mnist", "--data-dir", folder],
        ["data", "verify", "PACS", "--data-dir", folder],
        ["data", "download", "PACS", "--data-dir", "new", "--archive", f"{folder}/a.zip"],
        ["data", "download", "PACS", "--archive", "a.zip", "--duplicates", f"{folder}/list.txt"],
        ["bench", "data", f"{Path.cwd()}/{folder}/animals", "--rounds", "2"],
        ["sweep", "plan", plan],
        ["sweep", "run", plan, "--out", "new"],
        ["sweep", "resume", sweep],
        ["sweep", "status", sweep],
        ["sweep", "collect", sweep],
        ["sweep", "features", plan, "-o", "new.h5"],
    ]


def _writing(folder):
    """Commands that make something in a folder."""
    return [
        ["train", *SHORT, "--out", f"{folder}/new"],
        ["predict", "run", "data/animals", "-o", f"{folder}/new.csv"],
        ["export", "run", "-o", f"{folder}/new.pt"],
        ["analyze", "run", "-o", f"{folder}/new.h5"],
        ["analyze", "run", "--figures", f"{folder}/new"],
        ["landscape", "run", "--grid", "3", "-o", f"{folder}/new.h5"],
        ["reproduce", "colored-digits", "--out", f"{folder}/new", "--restarts", "1", "--methods", "erm"],
        ["cache", "features", "run", "-o", f"{folder}/new.h5"],
        ["cache", "gradients", "f.h5", "-o", f"{folder}/new.h5"],
        ["cache", "merge", "gray.h5", "reversed.h5", "-o", f"{folder}/new.h5"],
        ["cache", "images", "data/animals", "-o", f"{folder}/new.h5", *SMALL],
        ["data", "download", "PACS", "--data-dir", folder, "--archive", "pacs.zip"],
        ["sweep", "collect", "sweep", "--out", f"{folder}/new.md"],
        ["sweep", "collect", "sweep", "--figure", f"{folder}/new.png"],
    ]


@pytest.fixture
def world(home, call, finished, animals):
    """What commands read, in the working directory and below a folder."""
    finished.rename("run")
    assert call("cache", "features", "run", "-o", "f.h5").code == 0
    for name in ("gray", "reversed"):
        assert call("cache", "features", "run", "--domain", name, "-o", f"{name}.h5").code == 0
    shutil.copy("run/config.toml", "run.toml")
    Path("list.csv").write_text("environment,class,path\nart,cat,1.png\n")
    with zipfile.ZipFile("pacs.zip", "w") as archive:
        for environment in ("art_painting", "cartoon", "photo", "sketch"):
            for name in ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"):
                archive.write(animals / "art" / "cat" / "0.png", f"PACS/{environment}/{name}/0.png")
    Path("plan.toml").write_text(PLAN)
    Path("sweep", "jobs").mkdir(parents=True)
    shutil.copy("plan.toml", "sweep")
    return home


@pytest.fixture
def closed(world):
    """A copy of everything in a folder that may not be entered."""
    names = ("run", "f.h5", "run.toml", "list.csv", "plan.toml", "sweep")
    for name in names:
        (shutil.copytree if Path(name).is_dir() else shutil.copy2)(name, _made("closed") / name)
    shutil.copytree("data/animals", "closed/animals")
    Path("closed").chmod(0)
    yield "closed"
    Path("closed").chmod(0o700)


def _made(name):
    Path(name).mkdir(exist_ok=True)
    return Path(name)


def _is_refusal(said):
    one = said.err.startswith("Error: ") and said.err.count("\n") == 1
    return said.code == 2 and one and not any(word in said.err for word in ("FISHR_TRACEBACK", "Errno", "Traceback"))


def test_a_folder_that_may_not_be_entered(closed, call, unprivileged):
    for arguments in [*_reading(closed), *_writing(closed)]:
        said = call(*arguments)
        assert _is_refusal(said), (arguments, said)
        assert "closed" in said.err, arguments


def test_a_folder_that_may_not_be_written(world, call, unprivileged):
    _made("closed").chmod(0o500)
    for arguments in _writing("closed"):
        said = call(*arguments)
        assert _is_refusal(said), (arguments, said)
        assert "closed" in said.err, arguments
    assert list(Path("closed").iterdir()) == []


@pytest.mark.parametrize("folder", ["run.toml", "z" * 300, "loop"])
def test_a_path_that_leads_nowhere(world, call, folder):
    """Below a file, of a name that is too long, and round in a circle."""
    Path("loop").symlink_to("loop")
    for arguments in [*_reading(folder), *_writing(folder)]:
        said = call(*arguments)
        assert _is_refusal(said), (arguments, said)


@pytest.mark.parametrize("kind", ["EACCES", "EPERM", "EROFS", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "ESTALE", "EMFILE"])
def test_whatever_the_system_refuses_is_one_line_with_the_path(call, monkeypatch, kind):
    number = getattr(errno, kind)

    def refuse(*_):
        raise OSError(number, os.strerror(number), "photo/dog.jpg")

    monkeypatch.setattr(images, "cache_images", refuse)
    said = call("cache", "images", "photo", "-o", "new.h5")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"Error: photo/dog.jpg: {os.strerror(number)}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_disk_that_fails_is_a_run_that_failed(call, monkeypatch, kind):
    number = getattr(errno, kind)

    def fail(*_):
        raise OSError(number, os.strerror(number), "new.h5")

    monkeypatch.setattr(images, "cache_images", fail)
    said = call("cache", "images", "photo", "-o", "new.h5")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"Error: new.h5: {os.strerror(number)}")


def _streams(home, command):
    return subprocess.run(["sh", "-c", command], cwd=home, capture_output=True, text=True, timeout=60, check=False)


FISHR = f"{sys.executable} {HERE.parents[1] / 'cli.py'}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_standard_output_that_is_full(home):
    done = _streams(home, f"{FISHR} config show > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "Error: standard output: No space left on device; make room, or choose another place\n"


def test_standard_streams_that_are_closed(home):
    """Exit codes stay, and no file takes the place of standard error."""
    done = _streams(home, f"{FISHR} train {' '.join(SHORT)} --out new 2>&- 0<&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(home, "new", "result.json").is_file()


def test_a_name_that_is_no_text_can_be_printed(world, forked):
    """A file name from another system, of bytes that are no UTF-8."""
    name = b"caf\xe9.h5"
    shutil.copy("f.h5", os.fsdecode(name))
    command = [*map(str.encode, FISHR.split()), b"cache", b"verify", name]
    done = subprocess.run(command, cwd=world, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"caf\xe9.h5: every byte")


def test_the_streams_of_a_host_stay_its_own(home):
    """A program that calls ``main`` with streams of its own keeps them."""
    before = sys.stdin, sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        main(["--version"])
    assert (sys.stdin, sys.stdout, sys.stderr) == before
