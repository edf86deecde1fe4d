import os

import pytest

from fishr.data.images import unreadable
from fishr.data.images.unreadable import check_readable, find_unreadable
from fishr.errors import InputError


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded while a test looks."""
    seen, decode = [], unreadable.decode

    def note(path):
        seen.append(path.name)
        return decode(path)

    monkeypatch.setattr(unreadable, "decode", note)
    return seen


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "ppm"])
@pytest.mark.parametrize("full", [False, True])
def test_whole_files_pass_and_cut_ones_do_not(tmp_path, draw, suffix, full):
    path = draw(tmp_path / f"whole.{suffix}", width=120, height=90)
    assert find_unreadable([path], full=full) == ()
    content = path.read_bytes()
    for name, length in (("half", len(content) // 2), ("almost", len(content) - 60), ("header", 20), ("empty", 0)):
        (tmp_path / f"{name}.{suffix}").write_bytes(content[:length])
    cut = [tmp_path / f"{name}.{suffix}" for name in ("half", "header", "empty", "almost")]
    found = find_unreadable([path, *cut], full=full)
    # A TIFF's or WebP's last bytes may be no pixels, so that it is whole without them.
    assert [each.path for each in found][:3] == cut[:3]
    assert suffix in ("tif", "webp") or [each.path for each in found] == cut
    assert found[2].reason == "empty file"
    assert all(each.reason and "\n" not in each.reason for each in found)


def test_jpeg_and_png_are_not_decoded_when_they_end_well(tmp_path, draw, decoded):
    paths = [draw(tmp_path / name) for name in ("a.jpg", "b.png", "c.bmp")]
    padded = tmp_path / "d.jpg"
    padded.write_bytes(paths[0].read_bytes() + b"\0\0")
    assert find_unreadable([*paths, padded]) == ()
    assert sorted(decoded) == ["c.bmp", "d.jpg"]


def test_only_the_full_check_finds_damage_inside(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=200, height=200)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    assert find_unreadable([path]) == ()
    assert [each.path for each in find_unreadable([path], full=True)] == [path]


def test_a_file_that_passed_is_looked_at_again_only_when_it_changed(tmp_path, draw, decoded):
    path = draw(tmp_path / "a.bmp")
    check_readable([path])
    check_readable([path])
    assert decoded == ["a.bmp"]
    os.utime(path, ns=(1, 1))
    check_readable([path])
    assert decoded == ["a.bmp"] * 2
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="1 of 1 images"):
        check_readable([path])
    find_unreadable([draw(path)], full=True)
    find_unreadable([path], full=True)
    assert len(decoded) == 5


def test_progress_and_order_over_many_files(tmp_path, draw):
    path, told = draw(tmp_path / "a.jpg"), []
    paths = [path] * 300 + [tmp_path / "b.jpg"] + [path] * 300
    found = find_unreadable(paths, progress=told.append)
    assert [each.path.name for each in found] == ["b.jpg"]
    assert sum(told) == len(paths)
    assert len(told) > 1
    assert find_unreadable([]) == ()


def test_one_line_names_some_and_counts_the_rest(tmp_path, draw):
    good = draw(tmp_path / "good.jpg")
    bad = [tmp_path / f"{number:02d}.jpg" for number in range(13)]
    with pytest.raises(InputError) as caught:
        check_readable([good, *bad])
    reason = str(caught.value)
    assert reason.startswith("13 of 14 images cannot be read: ")
    assert reason.count("No such file or directory") == 10
    assert reason.endswith(", … and 3 more; delete or replace them, or run `fishr data verify`")
    (tmp_path / "folder.jpg").mkdir()
    assert find_unreadable([tmp_path / "folder.jpg"])[0].reason == "Is a directory"
