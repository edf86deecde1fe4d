"""Where a relative path starts: typed, at the working directory; configured, at the data folder."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fishr.data import Arrays
from fishr.data.cached_features import CachedFeatures, FeatureEnvironments
from fishr.data.images import ImageFolders, ImageList
from fishr.errors import InputError
from fishr.paths import access_message, in_data_folder, typed_path

ARRAYS = ("--set", "data={kind='Arrays', training=['one.npz', 'two.npz'], classes=2}", "--set", "steps=2")


@pytest.fixture
def world(home, animals, call, finished):
    """Images, a list of them, arrays, and caches of images and of features, all in the data folder."""
    data = home / "data"
    lines = [f"{path.parts[-3]},{path.parts[-2]},{path.relative_to(data)}" for path in sorted(animals.rglob("*.png"))]
    (data / "list.csv").write_text("\n".join(["environment,class,path", *lines]))
    for name in ("one", "two"):
        np.savez(data / f"{name}.npz", inputs=np.random.default_rng(0).normal(size=(8, 3)), labels=[0, 1] * 4)
    assert call("cache", "images", "data/animals", "-o", "data/images.h5", "--size", 8).code == 0
    assert call("cache", "features", finished, "-o", "data/features.h5").code == 0
    return home


CONFIGURED = {
    "arrays": Arrays(("one.npz", "two.npz")),
    "features": CachedFeatures("features.h5"),
    "environments of features": FeatureEnvironments("features.h5"),
    "images": ImageFolders("animals", size=8),
    "a list": ImageList("list.csv", size=8),
    "a cache of images": ImageFolders("none", size=8, cache="images.h5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configured_path_starts_at_the_data_folder(world, name, monkeypatch):
    source = CONFIGURED[name]
    source(0, None)
    (world / "data").rename(world / "elsewhere")
    source(0, Path("elsewhere"))
    with pytest.raises(InputError, match="data"):
        source(0, None)
    # In the working directory it is not taken, but seen.
    monkeypatch.chdir(world / "elsewhere")
    with pytest.raises(InputError, match="is in the working directory; a path in a configuration"):
        source(0, None)
    source(0, Path())


@pytest.mark.slow
def test_commands_take_typed_paths_from_the_working_directory(world, call):
    (world / "data" / "here").mkdir()
    os.chdir(world / "data" / "here")
    for arguments in (
        ("evaluate", "../../finished"),
        ("cache", "info", "../features.h5"),
        ("cache", "verify", "../images.h5"),
        ("cache", "images", "../animals", "-o", "new.h5", "--size", 8),
        ("cache", "images", "../list.csv", "-o", "listed.h5", "--size", 8),
        ("data", "verify", "../animals"),
        ("data", "verify", "../list.csv"),
        ("train", "../../finished/config.toml", "--out", "run"),
        ("train", "colored-digits-erm", *ARRAYS, "--data-dir", "..", "--out", "arrays"),
    ):
        said = call(*arguments)
        assert said.code == 0, (arguments, said)
    assert {"new.h5", "listed.h5", "run", "arrays"} <= {path.name for path in Path.cwd().iterdir()}


def test_a_name_of_a_data_set_is_looked_for_in_the_data_folder(world, call):
    shutil.copytree("data/animals", "data/PACS")
    assert call("cache", "images", "PACS", "-o", "new.h5", "--size", 8).code == 0
    said = call("cache", "images", "pacs", "-o", "other.h5", "--data-dir", "nowhere")
    assert (said.code, "nowhere/PACS: no such folder" in said.err) == (2, True)


def test_a_typed_path_that_only_the_data_folder_has(world, call):
    for arguments in (("cache", "images", "animals", "-o", "new.h5"), ("bench", "data", "list.csv")):
        said = call(*arguments)
        assert said.code == 2
        assert "is there" not in said.err.splitlines()[1:]
        assert "starts at the working directory, so give data/" in said.err


def test_home_is_expanded(world, call, monkeypatch):
    monkeypatch.setenv("HOME", str(world / "data"))
    assert call("cache", "info", "~/features.h5").code == 0
    assert CachedFeatures("~/features.h5")(0, Path("elsewhere")).training
    assert typed_path("~no-such-user/a") == Path("~no-such-user/a")


def test_absolute_paths_are_as_they_are(world):
    path = str(world / "data" / "features.h5")
    assert CachedFeatures(path)(0, Path("elsewhere")).training
    assert in_data_folder(path, Path("elsewhere")) == Path(path)


@pytest.mark.parametrize("text", ["", "a\0b", "\udcff\ud800"])
def test_texts_that_name_no_path_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"got .*, expected a path"):
        typed_path(text)


def test_what_the_system_refuses_is_said_with_path_reason_and_remedy() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "closed/run")
    assert access_message(error) == "closed/run: Permission denied; ask for access, or choose another place"
