"""SHA256SUMS: what came first is what is expected from then on."""

import subprocess
from pathlib import Path

import pytest

from fishr.data.sources.installing import check_and_record, read_sums
from fishr.errors import InputError, RunFailed
from fishr.files import digest_of

# FIPS 180-2, appendix B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_published_example(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a") == ABC


def test_sums_are_recorded_as_sha256sum_reads_them(tmp_path: Path):
    for name in ("b c.zip", "a.zip"):
        (tmp_path / name).write_bytes(name.encode())
        check_and_record(tmp_path / name, name)
    assert list(read_sums(tmp_path)) == ["a.zip", "b c.zip"]
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done


def test_another_sum_than_recorded_is_refused_and_the_record_kept(tmp_path: Path):
    (tmp_path / "SHA256SUMS").write_text(f"{ABC} *a.zip\n")
    part = tmp_path / "a.zip.part"
    part.write_bytes(b"abd")
    with pytest.raises(RunFailed, match=rf"a.zip.part: its SHA-256 is .*, expected {ABC} as .*SHA256SUMS records"):
        check_and_record(part, "a.zip")
    assert part.read_bytes() == b"abd"
    assert (tmp_path / "SHA256SUMS").read_text() == f"{ABC} *a.zip\n"
    part.write_bytes(b"abc")
    assert check_and_record(part, "a.zip") == ABC


def test_a_record_of_another_form_is_refused(tmp_path: Path):
    (tmp_path / "SHA256SUMS").write_text(f"{ABC}  a.zip\nnonsense\n")
    with pytest.raises(InputError, match=r"SHA256SUMS: line 2 is not a SHA-256 sum"):
        read_sums(tmp_path)
