"""Archives that are refused before anything is written, and those that are unpacked."""

import io
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from fishr.data.sources.archives import check_members, check_space, is_archive, unpack
from fishr.errors import InputError

FILES = {"kfold/photo/dog/1.jpg": b"one", "kfold/photo/dog/2.jpg": b"two" * 9, "kfold/sketch/dog/1.jpg": b""}


def tar(path: Path, *infos: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info in infos:
            if isinstance(info, tarfile.TarInfo):
                archive.addfile(info)
            else:
                header = tarfile.TarInfo(info[0])
                header.size = len(info[1])
                archive.addfile(header, io.BytesIO(info[1]))
    return path


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def in_zip(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.zip", ""), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_every_kind_is_unpacked_as_it_was_packed(tmp_path: Path, name, mode):
    make = zipped if not mode else lambda path, *files: tar(path, *files, mode=mode)
    path = make(tmp_path / name, *FILES.items())
    assert is_archive(path)
    assert check_members(path) == sum(map(len, FILES.values()))
    target = tmp_path / "target"
    target.mkdir()
    assert list(unpack(path, target)) == [len(content) for content in FILES.values()]
    assert contents(target) == FILES


def test_the_content_says_what_an_archive_is_not_the_name(tmp_path: Path):
    # An uncompressed tar file that ends with a zip file looks like one from behind.
    inner = zipped(tmp_path / "inner", ("other", b"1")).read_bytes()
    path = tar(tmp_path / "a.zip", ("first", b"2"), ("inner.zip", inner))
    target = tmp_path / "target"
    assert list(unpack(path, target)) == [1, len(inner)]
    assert contents(target) == {"first": b"2", "inner.zip": inner}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "leaves its folder"),
        ("../passwd", "leaves its folder"),
        ("photo/../../passwd", "leaves its folder"),
        ("..\\passwd", "leaves its folder"),
        ("\\\\server\\share", "leaves its folder"),
        ("C:/passwd", "is not a portable path"),
        ("c:passwd", "is not a portable path"),
    ],
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name, problem):
    for path in (
        tar(tmp_path / "a.tar", ("photo/1.jpg", b"1"), (name, b"2")),
        zipped(tmp_path / "a.zip", (name, b"2")),
    ):
        with pytest.raises(InputError, match=problem) as caught:
            check_space([path], tmp_path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "nothing was unpacked" in str(caught.value)


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        (special("photo", tarfile.SYMTYPE, "/etc"), "a link"),
        (special("photo", tarfile.SYMTYPE, "sketch"), "a link"),
        (special("photo", tarfile.LNKTYPE, "../../passwd"), "a link"),
        (special("photo", tarfile.CHRTYPE), "a device"),
        (special("photo", tarfile.FIFOTYPE), "a device"),
    ],
)
def test_tar_members_that_are_no_files_are_refused(tmp_path: Path, info, kind):
    path = tar(tmp_path / "a.tar", info)
    with pytest.raises(InputError, match=rf"'photo' is {kind}"):
        check_members(path)


@pytest.mark.parametrize(
    ("mode", "kind"), [(stat.S_IFLNK | 0o777, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a device")]
)
def test_zip_members_that_are_no_files_are_refused(tmp_path: Path, mode, kind):
    path = zipped(tmp_path / "a.zip", (in_zip("photo", mode), b"/etc"))
    with pytest.raises(InputError, match=rf"'photo' is {kind}"):
        check_members(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("photo", b"1"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="'photo' is encrypted"):
        check_members(path)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["photo/1", "photo/1"], "'photo/1' is repeated"),
        (["photo/1", "./photo//1"], "'./photo//1' is repeated"),
        (["photo/1", "photo\\1"], "is repeated"),
        (["photo", "photo/1"], "'photo' is both a file and a folder"),
    ],
)
def test_names_that_come_twice_are_refused(tmp_path: Path, names, problem):
    path = tar(tmp_path / "a.tar", *((name, b"1") for name in names))
    with pytest.raises(InputError) as caught:
        check_members(path)
    assert problem in str(caught.value).replace("\\\\", "\\")


def say_size(path: Path, size: int, said: int) -> None:
    """Have a zip file claim another size of a member."""
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), said.to_bytes(4, "little")))


def test_more_than_the_disk_holds_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(3 * 2**29))
    paths = [zipped(tmp_path / name, ("photo", bytes(1000))) for name in ("a.zip", "b.zip")]
    for path in paths:
        say_size(path, 1000, 2**30)
    assert check_space(paths[:1], tmp_path) == 2**30
    with pytest.raises(InputError, match=r"a.zip, .*b.zip: unpacked 2.0 GiB, but only 1.5 GiB are free in") as caught:
        check_space(paths, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_zip_that_lies_about_its_sizes_writes_no_more_than_it_says(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("photo", bytes(1000)))
    say_size(path, 1000, 10)
    assert check_members(path) == 10
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InputError, match=r"a.zip: damaged"):
        list(unpack(path, target))
    assert (target / "photo").stat().st_size <= 10


def test_a_damaged_zip_is_one_line(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("photo", bytes(range(256)) * 40))
    flip(path)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InputError, match=r"a.zip: damaged \(.*\); download it again"):
        list(unpack(path, target))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_damaged_tar_is_noticed_before_it_is_unpacked(tmp_path: Path, mode):
    path = tar(tmp_path / "a.tgz", ("photo", bytes(range(256)) * 40), mode=mode)
    flip(path)
    with pytest.raises(InputError, match=r"a.tgz: (damaged|neither)"):
        check_members(path)


def flip(path: Path) -> None:
    """Change a byte in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


def test_a_truncated_archive_is_one_line(tmp_path: Path):
    path = tar(tmp_path / "a.tgz", *FILES.items(), ("noise", bytes(range(256)) * 99), mode="w:gz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged"):
        check_members(path)


def test_what_is_no_archive(tmp_path: Path):
    page = tmp_path / "PACS.zip"
    page.write_text("<html>log in</html>")
    with pytest.raises(InputError, match=r"PACS.zip: neither a zip nor a tar archive"):
        check_members(page)
    with pytest.raises(InputError, match=r"none.zip: no such file"):
        check_members(tmp_path / "none.zip")
    with pytest.raises(InputError, match=r"no such file"):
        check_members(tmp_path)
