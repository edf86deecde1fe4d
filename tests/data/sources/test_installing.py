"""Data sets that come to their place in one step, from made archives."""

import shutil
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import attrs
import pytest

from fishr.data.sources import find_image_set, install, installing
from fishr.data.sources.installing import obtain, read_sums
from fishr.data.sources.layouts import Environment, is_arranged
from fishr.errors import InputError, RunFailed
from fishr.files import digest_of

PACS = attrs.evolve(find_image_set("PACS"), classes=2)
NAMES = [environment.folder for environment in PACS.environments]
FILES = [f"{name}/{class_}/{number}.jpg" for name in NAMES for class_ in ("cat", "dog") for number in range(2)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return packed(tmp_path / "mine.zip", [f"kfold/{name}" for name in FILES])


def packed(path: Path, names: list[str]) -> Path:
    """Each file has its name as its content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name.removeprefix("kfold/"))
    return path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def publisher(archive: Path):
    def fetch(wanted, path, check, progress):
        shutil.copy(archive, path)
        check(path)

    return fetch


def test_an_archive_of_ones_own(tmp_path: Path, archive: Path):
    told = []
    data = tmp_path / "data"
    installed = install(PACS, data, [archive], progress=lambda *what: told.append(what))
    assert installed.folder == data / "PACS"
    assert files(data / "PACS") == {name: name for name in FILES}
    assert [each.name for each in data.iterdir()] == ["PACS"]
    assert [path for path, _ in installed.sums] == [archive]
    total = sum(map(len, FILES))
    assert told[-1] == ("unpacking", total, total)


def test_a_published_archive_is_kept(tmp_path: Path, archive: Path):
    installed = install(PACS, tmp_path / "data", fetch=publisher(archive))
    assert files(tmp_path / "data" / "PACS") == {name: name for name in FILES}
    assert [path for path, _ in installed.sums] == [tmp_path / "data" / "archives" / "PACS.zip"]


def test_what_is_there_is_kept_and_nothing_fetched(tmp_path: Path, archive: Path):
    install(PACS, tmp_path, [archive])
    (tmp_path / "PACS" / "photo" / "mine.txt").touch()
    before = everything(tmp_path)
    assert install(PACS, tmp_path, fetch=lambda *_: pytest.fail("fetched")).sums == ()
    with pytest.raises(InputError, match=r"PACS: exists already and is kept"):
        install(PACS, tmp_path, [archive])
    assert everything(tmp_path) == before


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_something_else_in_its_place_is_left(tmp_path: Path, archive: Path, make):
    make(tmp_path / "PACS")
    with pytest.raises(InputError, match=r"PACS: exists already and is kept; move it away"):
        install(PACS, tmp_path, fetch=lambda *_: pytest.fail("fetched"))
    assert everything(tmp_path) == ["PACS", "mine.zip"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (FILES[4:], "no folder art_painting"),
        ([name for name in FILES if "cat" not in name], "not PACS, 1 classes, expected 2; see fishr data info PACS"),
        ([*FILES, "photo/bird/1.jpg"], "not PACS, 3 classes, expected 2"),
        ([name.replace(".jpg", ".txt") for name in FILES], "its content: it has no images"),
        (["../up.jpg", *FILES], "leaves its folder"),
    ],
)
def test_an_archive_of_something_else_leaves_nothing(tmp_path: Path, names, problem):
    path = packed(tmp_path / "mine.zip", names)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=problem) as caught:
        install(PACS, tmp_path / "data", [path])
    assert str(caught.value).startswith(f"{path}: ")
    assert "partial" not in str(caught.value)
    assert everything(tmp_path) == ["data", "mine.zip"]


def test_a_class_that_an_environment_lacks_is_told(tmp_path: Path):
    path = packed(tmp_path / "mine.zip", [name for name in FILES if not name.startswith("sketch/cat")])
    assert install(PACS, tmp_path, [path]).notes == ("sketch has no image of cat",)


def test_several_archives_make_one_data_set(tmp_path: Path):
    paths = [packed(tmp_path / f"{name}.zip", [f for f in FILES if f.startswith(name)]) for name in NAMES]
    install(PACS, tmp_path, paths)
    assert files(tmp_path / "PACS") == {name: name for name in FILES}


def test_duplicates_are_left_out(tmp_path: Path, archive: Path):
    listed = tmp_path / "duplicates.txt"
    listed.write_text("photo/cat/0.jpg\n\nphoto/cat/0.jpg\nphoto/cat/none.jpg\n")
    installed = install(PACS, tmp_path, [archive], listed)
    assert set(FILES) - files(tmp_path / "PACS").keys() == {"photo/cat/0.jpg"}
    assert installed.notes == (f"1 of the 2 images in {listed} were left out, the others do not exist",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("photo/cat/none.jpg", "none of its 1 paths exists"),
        ("photo/cat", "line 1 is 'photo/cat', expected ENVIRONMENT/CLASS/IMAGE"),
        ("photo/cat/1.jpg\n../../mine.zip", "line 2 is "),
        ("/photo/cat", "line 1 is "),
    ],
)
def test_a_list_that_cannot_be_meant(tmp_path: Path, archive: Path, text, problem):
    listed = tmp_path / "duplicates.txt"
    listed.write_text(text)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=problem):
        install(PACS, tmp_path, [archive], listed)
    assert everything(tmp_path) == before


def test_a_list_that_is_absent(tmp_path: Path, archive: Path):
    before = everything(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"duplicates\.txt"):
        install(PACS, tmp_path, [archive], tmp_path / "duplicates.txt")
    assert everything(tmp_path) == before


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, archive: Path):
    left = tmp_path / ".PACS.0123456789abcdef.fishr-partial" / "laid" / "photo"
    left.mkdir(parents=True)
    (left / "half.jpg").touch()
    install(PACS, tmp_path, [archive])
    assert files(tmp_path / "PACS") == {name: name for name in FILES}
    assert not (tmp_path / ".PACS.0123456789abcdef.fishr-partial").exists()


@pytest.mark.slow
def test_two_processes_do_not_unpack_the_same(tmp_path: Path, archive: Path):
    def again(what, done, total):
        if done < total:
            return
        with pytest.raises(InputError, match="PACS: another process is unpacking it"):
            install(PACS, tmp_path, [archive])

    install(PACS, tmp_path, [archive], progress=again)
    assert files(tmp_path / "PACS") == {name: name for name in FILES}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_end_on_the_way_leaves_nothing(tmp_path: Path, archive: Path, monkeypatch, error):
    def half(path, folder):
        (folder / "photo").mkdir()
        yield 1
        raise error

    monkeypatch.setattr(installing, "unpack", half)
    with pytest.raises((RunFailed, KeyboardInterrupt)) as caught:
        install(PACS, tmp_path / "data", [archive])
    assert isinstance(error, KeyboardInterrupt) or "PACS: cannot be written (No space left" in str(caught.value)
    assert everything(tmp_path / "data") == []


def test_a_data_set_below_a_folder_of_its_kind(tmp_path: Path):
    spawrious = find_image_set("SpawriousO2O_easy")
    names = [f"{e.folder}/{name}/1.png" for e in spawrious.environments for name in spawrious.class_names]
    path = tmp_path / "laid.tar.gz"
    packed(tmp_path / "a.zip", names)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, tarfile.open(path, "w:gz") as made:
        archive.extractall(tmp_path / "a")
        made.add(tmp_path / "a", "o2o")
    installed = install(spawrious, tmp_path / "data", [path])
    assert installed.folder == tmp_path / "data" / "spawrious224" / "o2o_easy"
    assert files(installed.folder).keys() == set(names)


def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"SVIRO: .* https://sviro.kl.dfki.de, lay it out as .*/sviro/ENV.*--archive"):
        install(find_image_set("SVIRO"), tmp_path)


def test_laid_means_every_environment(tmp_path: Path):
    two = (Environment("photo", "P"), Environment("Real World", "R"))
    (tmp_path / "photo").mkdir()
    (tmp_path / "Real World").touch()
    assert not is_arranged(tmp_path, two)
    (tmp_path / "Real_World").mkdir()
    assert is_arranged(tmp_path, two)


TWO = {"a.zip": ("http://host/a.zip",), "b.zip": ("https://drive.google.com/uc?id=0",)}


def zipped(text: str) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photo/dog/1.jpg"), text)
    return made.getvalue()


class Publisher:
    """Sends the same content for each archive, as ``download`` does: by way of a file that is checked."""

    def __init__(self, content: bytes):
        self.content = content
        self.asked: list[str] = []

    def __call__(self, address, path, check, progress):
        self.asked.append(address)
        part = path.with_name(f"{path.name}.fishr-part")
        part.write_bytes(self.content)
        check(part)
        part.replace(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_archives_come_with_their_sums(tmp_path: Path):
    publisher = Publisher(zipped("1"))
    found = obtain(TWO, tmp_path / "data", publisher)
    folder = tmp_path / "data" / "archives"
    assert publisher.asked == [address for (address,) in TWO.values()]
    assert [path for path, _ in found] == [folder / "a.zip", folder / "b.zip"]
    assert {path.name: digest for path, digest in found} == read_sums(folder)
    assert {digest for _, digest in found} == {digest_of(folder / "a.zip")}
    assert names(folder) == ["SHA256SUMS", "a.zip", "b.zip"]


def test_an_archive_that_exists_is_not_downloaded_again(tmp_path: Path):
    first = obtain(TWO, tmp_path, Publisher(zipped("1")))
    publisher = Publisher(zipped("2"))
    assert obtain(TWO, tmp_path, publisher) == first
    assert publisher.asked == []


def test_what_is_there_but_changed_is_refused(tmp_path: Path):
    obtain(TWO, tmp_path, Publisher(zipped("1")))
    (tmp_path / "archives" / "b.zip").write_bytes(zipped("2"))
    with pytest.raises(RunFailed, match=r"b.zip: its SHA-256 is .*SHA256SUMS records"):
        obtain(TWO, tmp_path, Publisher(zipped("1")))


def test_a_colleagues_sum_is_what_is_expected(tmp_path: Path):
    obtain(TWO, tmp_path / "theirs", Publisher(zipped("1")))
    mine = tmp_path / "mine" / "archives"
    mine.mkdir(parents=True)
    (mine / "SHA256SUMS").write_bytes((tmp_path / "theirs" / "archives" / "SHA256SUMS").read_bytes())
    with pytest.raises(RunFailed, match=r"a.zip.fishr-part: its SHA-256 is .*, expected "):
        obtain(TWO, tmp_path / "mine", Publisher(zipped("2")))
    assert names(mine) == ["SHA256SUMS", "a.zip.fishr-part"]
    assert obtain(TWO, tmp_path / "mine", Publisher(zipped("1")))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>", "a web page"),
        (b"\n <html>log in</html>", "a web page"),
        (b"", "neither a zip nor a tar archive"),
        (b"%PDF-1.5 ...", "neither a zip nor a tar archive"),
    ],
)
def test_what_is_no_archive_is_told_and_removed(tmp_path: Path, content, what):
    with pytest.raises(RunFailed, match=rf"^http://host/a.zip: the downloaded file is {what}.* --archive FILE$"):
        obtain(TWO, tmp_path, Publisher(content))
    assert names(tmp_path / "archives") == []


def test_a_mirror_serves_what_the_publisher_does_not(tmp_path: Path):
    lines: list[str] = []

    def fetch(address, path, check, progress):
        if "host" in address:
            raise RunFailed(f"{address}: not received (timed out)")
        Publisher(zipped("1"))(address, path, check, progress)

    found = obtain({"a.zip": ("http://host/a.zip", "http://mirror/a.zip")}, tmp_path, fetch, report=lines.append)
    assert [path.name for path, _ in found] == ["a.zip"]
    assert lines == [
        "a.zip: http://host/a.zip: not received (timed out); now from http://mirror/a.zip",
        "a.zip: from http://mirror/a.zip",
    ]
    # The sum of the first file holds for every source.
    (tmp_path / "archives" / "a.zip").unlink()
    with pytest.raises(RunFailed, match=r"expected .*SHA256SUMS records"):
        obtain({"a.zip": ("http://mirror/a.zip",)}, tmp_path, Publisher(zipped("2")))


def test_a_table_is_named_where_the_archives_fail(tmp_path: Path):
    def fetch(address, path, check, progress):
        raise RunFailed(f"{address}: not received (timed out)")

    with pytest.raises(
        RunFailed, match=r"timed out\); or take its images in a table, fishr data download hf:flwrlabs/pa"
    ):
        install(PACS, tmp_path, fetch=fetch)


def test_an_archives_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/archives: cannot be used .*; give a folder you can write to"):
        obtain(TWO, tmp_path / "file", Publisher(b""))
