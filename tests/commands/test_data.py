"""``data list|info|download|verify``, without a network."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from fishr.commands import main
from fishr.data.mnist_files import MD5

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Opening any address fails as it does on a plane."""

    def refuse(*arguments, **settings):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_list(call, home):
    said = call("data", "list")
    assert (said.code, said.err) == (0, "")
    rows = {line.split()[0]: line.split()[-1] for line in said.out.splitlines()[2:]}
    ready = {"ColoredDigits", "Arrays", "CachedFeatures", "FeatureEnvironments", "ImageFolders", "ImageList"}
    assert {name for name, word in rows.items() if word == "yes"} >= ready
    assert {"ColoredMNIST", "RotatedMNIST", "VLCS", "DomainNet", "SpawriousM2M_hard"} < rows.keys()
    assert set(rows.values()) == {"yes", "no"}
    assert list(home.iterdir()) == []


def test_list_as_json_sees_mnist(call, home):
    raw = home / "my data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"):
        (raw / name).touch()
    entries = json.loads(call("data", "list", "--data-dir", "my data", "--format", "json").out)
    assert {entry["kind"]: entry["ready"] for entry in entries}["ColoredMNIST"] is True
    assert entries[1].keys() == {"kind", "description", "needs", "ready"}


class Answer(io.BytesIO):
    headers = {}  # noqa: RUF012


def test_a_download_without_network_is_one_line(call, home):
    said = call("data", "download", "mnist")
    assert (said.code, said.out.count("\n"), said.err.count("\n")) == (1, 1, 1)
    assert said.out.startswith("note: train-images-idx3-ubyte.gz: https://")
    assert "; now from http://yann.lecun.com/exdb/mnist/\n" in said.out
    assert said.err.startswith("Error: https://")
    assert "not received (Name or service not known); the same command resumes at byte 0, or copy torch" in said.err
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_other_bytes_than_expected(call, home, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: Answer(b"<html>log in</html>"))
    said = call("data", "download", "mnist", "--data-dir", "d")
    assert said.code == 1
    assert "the download has MD5" in said.err
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_download_prints_its_files(call, home, monkeypatch):
    """What is there and right is kept, and the network is not asked for it."""
    from hashlib import md5

    content = {name: name.encode() for name in MD5}
    sums = {name: md5(data, usedforsecurity=False).hexdigest() for name, data in content.items()}
    monkeypatch.setattr("fishr.data.mnist_files.MD5", sums)
    raw = home / "d" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MD5:
        (raw / name).write_bytes(content[name])
    said = call("data", "download", "mnist", "--data-dir", "d")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [f"d/MNIST/raw/{name}" for name in MD5]


def test_a_wrong_file_of_that_name_stays(call, home, snapshot):
    raw = home / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / next(iter(MD5))).write_bytes(b"mine")
    before = snapshot(home)
    said = call("data", "download", "mnist")
    assert said.code == 2
    assert "move it away and try again" in said.err
    assert snapshot(home) == before


ENVIRONMENTS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


@pytest.fixture
def archive(home):
    """PACS in small: two images of each class in each environment."""
    picture = io.BytesIO()
    Image.effect_noise((16, 16), 50).save(picture, "JPEG")
    path = home / "mine.zip"
    with zipfile.ZipFile(path, "w") as made:
        for environment in ENVIRONMENTS:
            for class_ in CLASSES:
                for number in range(2):
                    made.writestr(f"kfold/{environment}/{class_}/{number}.jpg", picture.getvalue())
    return path


@pytest.fixture
def pacs(call, archive, home):
    said = call("data", "download", "pacs", "--archive", archive)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [f"{sha256(archive.read_bytes()).hexdigest()}  {archive}", "data/PACS"]
    return home / "data" / "PACS"


def test_an_archive_becomes_a_data_set_that_is_ready(call, pacs, snapshot):
    entries = json.loads(call("data", "list", "--format", "json").out)
    assert {entry["kind"]: entry["ready"] for entry in entries}["PACS"] is True
    before = snapshot(pacs)
    said = call("data", "download", "PACS")
    assert (said.code, said.out) == (0, "data/PACS: exists already\n")
    assert snapshot(pacs) == before


def test_info_counts_what_is_there(call, pacs):
    (pacs / "sketch" / "dog" / "1.jpg").unlink()
    said = call("data", "info", "Pacs")
    assert (said.code, said.err) == (0, "")
    assert "environments: art_painting, cartoon, photo, sketch\n" in said.out
    assert re.search(r"from: https://drive.google.com/", said.out)
    rows = {line.split()[0]: line.split()[1:] for line in said.out.split("\n\n")[1].splitlines()}
    assert rows["images"] == list(ENVIRONMENTS)
    assert rows["dog"] == ["2", "2", "2", "1"]
    assert rows["all"] == ["14", "14", "14", "13"]
    found = json.loads(call("data", "info", "Pacs", "--format", "json").out)
    assert found["images"]["sketch"] == {**dict.fromkeys(CLASSES, 2), "dog": 1}
    assert (found["kind"], found["ready"], found["folder"], found["problem"]) == ("PACS", True, "data/PACS", None)


@pytest.mark.parametrize("name", ["mnist", "ColoredDigits", "DomainNet", "svIRO", "SpawriousO2O_hard", "Arrays"])
def test_info_of_what_is_not_there(call, home, name):
    said = call("data", "info", name)
    assert (said.code, said.err) == (0, "")
    assert "images" not in said.out.split("\n\n")[-1].split()[:1]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("source", ["scans.csv", "data/animals"])
def test_info_counts_a_list_or_folder(call, home, animals, source):
    lines = [f"data/animals/{p.relative_to(animals)},{p.parent.name},{p.parts[-3]}" for p in animals.glob("*/*/*.png")]
    (home / "scans.csv").write_text("\n".join(["path,class,environment", *sorted(lines)]))
    said = call("data", "info", source)
    assert [line.split() for line in said.out.splitlines() if line.startswith("cat")] == [["cat", "2", "2"]]
    counts = {name: {"cat": 2, "dog": 2} for name in ("art", "photo")}
    assert json.loads(call("data", "info", source, "--format", "json").out) == {"source": source, "images": counts}


def test_info_tells_what_is_wrong(call, home):
    (home / "data" / "PACS").mkdir(parents=True)
    said = call("data", "info", "PACS")
    assert said.code == 0
    assert "problem: data/PACS: it has no images" in said.out


def test_whole_images_are_verified(call, pacs):
    for name in ("PACS", "data/PACS"):
        said = call("data", "verify", name)
        assert (said.code, said.err) == (0, "")
        table, end = said.out.split("\n\n")
        rows = [line.split() for line in table.splitlines()]
        assert rows[0] == ["images", *ENVIRONMENTS]
        assert rows[2:-2] == [[name, "2", "2", "2", "2"] for name in CLASSES]
        assert rows[-2:] == [["all", *["14"] * 4], ["passed", "over", *["0"] * 4]]
        assert end == "data/PACS: all 56 images can be read\n"


def test_a_folder_of_ones_own_needs_no_slash(call, pacs, home):
    pacs.rename(home / "mine")
    assert call("data", "verify", "mine").out.endswith("mine: all 56 images can be read\n")


def test_unreadable_images_are_listed(call, pacs, home):
    broken = [f"data/PACS/{name}/dog/0.jpg" for name in ENVIRONMENTS]
    for path in broken:
        (home / path).write_bytes(b"")
    said = call("data", "verify", "PACS")
    assert said.code == 2
    assert said.out.splitlines() == broken
    shown = ", ".join(f"{path} (empty file)" for path in broken[:3])
    assert said.err == f"Error: 4 of 56 images cannot be read: {shown}, …\n"
    (home / broken[3]).unlink()
    assert call("data", "verify", "PACS").err == f"Error: 3 of 55 images cannot be read: {shown}\n"


def test_what_an_environment_lacks_is_a_note(call, pacs):
    for path in (pacs / "photo" / "dog").iterdir():
        path.unlink()
    said = call("data", "verify", "PACS")
    assert said.code == 0
    assert "\n\nnote: photo has no image of dog\n" in said.out


def test_what_may_not_be_meant_is_noted_and_counted(call, pacs):
    for name in ("a.gif", "b.gif", "c.txt"):
        (pacs / "photo" / "dog" / name).write_bytes(b"")
    said = call("data", "verify", "PACS")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"^passed over +0 +0 +3 +0$", said.out, re.MULTILINE)
    assert "note: images are skipped, of other formats or outside the class folders: 2 .gif\n" in said.out


@pytest.mark.slow
def test_names_that_are_no_utf8_are_printed_as_they_are(pacs, home):
    """By their bytes on standard output, escaped in errors."""
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        (pacs / "photo" / "dog" / name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    command = [sys.executable, str(ROOT / "cli.py"), "data", "verify", "PACS"]
    done = subprocess.run(command, capture_output=True, cwd=home, timeout=120)
    assert (done.returncode, done.stdout) == (2, b"data/PACS/photo/dog/caf\xe9.jpg\n")
    assert b"photo/dog/caf\\udce9.jpg (empty file)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("verify", "PACSS"), "PACSS: no data set of that name; did you mean PACS?"),
        (("verify", "nowhere/PACS"), "nowhere/PACS: no such folder"),
        (("verify", "nowhere.csv"), "nowhere.csv: no data set of that name"),
        (("verify", "PACS"), "data/PACS: no such folder"),
        (("verify", "ColoredDigits"), "it has no images to verify"),
        (("verify", "mnist"), "MNIST: found no train-images-idx3-ubyte"),
        (("info", "xyz"), "xyz: no data set of that name; `fishr data list` shows all"),
        (("download", "xyz"), "xyz: no data set of that name"),
        (("download", "Arrays"), "Arrays: there is nothing to download; it needs one .npz a domain"),
        (("download", "SVIRO"), "SVIRO: it cannot be downloaded from here; get it from https://sviro.kl.dfki.de"),
        (("download", "mnist", "--archive", "a.zip"), "--archive and --duplicates are for data sets of images"),
        (("download", "PACS", "--archive", "none.zip"), "none.zip: no such file"),
        (("download", "PACS", "--archive", "page.zip"), "page.zip: neither a zip nor a tar archive"),
    ],
)
def test_refusals(refused, home, arguments, part):
    (home / "page.zip").write_text("<html>log in</html>")
    refused(home, ("data", *arguments), part)


def test_a_published_archive_without_network_is_one_line(call, home):
    said = call("data", "download", "DomainNet")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert "clipart.zip: not received (Name or service not known); the same command resumes at byte 0" in said.err


def test_a_web_page_in_place_of_an_archive(call, home, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: Answer(b"<html>quota</html>"))
    said = call("data", "download", "TerraIncognita")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "the downloaded file is a web page" in said.err
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_an_interruption_says_how_to_go_on(call, home, monkeypatch):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("urllib.request.urlopen", interrupt)
    said = call("data", "download", "DomainNet")
    assert (said.code, said.err) == (1, "Error: DomainNet: interrupted; the same command resumes the download\n")


def test_mnist_is_verified_by_its_sums(call, home, mnist_dir):
    said = call("data", "verify", "mnist", "--data-dir", mnist_dir)
    assert (said.code, said.err) == (0, "")
    assert [line.split(": ")[1] for line in said.out.splitlines()] == ["as published"] * 4


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_bars(archive, pacs, monkeypatch):
    """What is worked on, and how far it is; elsewhere nothing is shown."""
    monkeypatch.setattr("fishr.commands.progress._DELAY", 0.0)
    shown = Terminal()
    for arguments in (["verify", "PACS"], ["download", "PACS", "--data-dir", "other", "--archive", str(archive)]):
        with redirect_stderr(shown), pytest.raises(SystemExit):
            main(["data", *arguments])
    assert re.search(r"reading: 100%.*56/56", shown.getvalue())
    assert re.search(r"unpacking: 100%", shown.getvalue())
