"""The list of data sets, and what is known of each."""

from pathlib import Path

import pytest
from attrs import frozen

from fishr.data import Entry, catalog
from fishr.data.data_catalog import entry_of
from fishr.data.mnist_files import IMAGES, LABELS, TEST_IMAGES, TEST_LABELS
from fishr.data.sources import IMAGE_SETS
from fishr.errors import InputError


def ready(folder: Path) -> set[str]:
    return {entry.kind for entry in catalog(folder) if entry.ready}


@pytest.fixture
def always(tmp_path: Path) -> set[str]:
    """Data sets that need no files in the data folder."""
    found = ready(tmp_path)
    assert found >= {"ColoredDigits", "Arrays", "CachedFeatures", "FeatureEnvironments", "ImageFolders", "ImageList"}
    assert not found & {"ColoredMNIST", "DomainBedColoredMNIST", "RotatedMNIST", *IMAGE_SETS}
    return found


def test_domainbeds_digits_need_all_four_files(tmp_path: Path, always):
    for name in (IMAGES, LABELS):
        (tmp_path / name).touch()
    assert ready(tmp_path) == always | {"ColoredMNIST"}
    for name in (TEST_IMAGES, TEST_LABELS):
        (tmp_path / f"{name}.gz").touch()
    assert ready(tmp_path) == always | {"ColoredMNIST", "DomainBedColoredMNIST", "RotatedMNIST"}


def test_images_are_ready_when_every_environment_exists(tmp_path: Path, always):
    for name in ("Art", "Clipart", "Product"):
        (tmp_path / "office_home" / name).mkdir(parents=True)
    assert ready(tmp_path) == always
    (tmp_path / "office_home" / "RealWorld").mkdir()
    assert ready(tmp_path) == always | {"OfficeHome"}


def test_kinds_are_those_of_the_configuration_or_the_benchmark():
    import fishr.data
    from fishr.data import images, mnist
    from fishr.protocols.domainbed.datasets import BENCHMARKS

    kinds = {entry.kind for entry in catalog(Path("data"))}
    classes = {kind for kind in kinds if any(hasattr(each, kind) for each in (fishr.data, mnist, images))}
    assert kinds - classes == {name for name, each in BENCHMARKS.items() if each.folder}


def test_an_exported_data_set_is_listed_by_its_docstring(monkeypatch):
    import fishr.data

    @frozen
    class Mine:
        """Noise in two domains.

        Second paragraph.
        """

        def __call__(self, seed: int, data_dir: Path | None) -> fishr.data.Domains: ...

    assert not {"HeldOut", "AllEnvironments", "DataSetEnvironments"} & {each.kind for each in catalog(Path("data"))}
    monkeypatch.setattr(fishr.data, "__all__", [*fishr.data.__all__, "Mine"])
    monkeypatch.setattr(fishr.data, "Mine", Mine, raising=False)
    assert catalog(Path("data"))[-1] == Entry("Mine", "Noise in two domains", "see help(fishr.data.Mine)")


def test_environments_are_called_as_the_data_set_calls_them():
    from fishr.data import ColoredDigits
    from fishr.data.mnist import ANGLES

    domains = ColoredDigits()(0, None)
    assert entry_of("ColoredDigits", Path("data")).environments == tuple(
        domain.name for domain in (*domains.training, *domains.evaluation)
    )
    assert len(entry_of("RotatedMNIST", Path("data")).environments) == len(ANGLES)


def test_an_entry_is_found_in_any_case():
    for entry in catalog(Path("some data")):
        found = entry_of(entry.kind.upper(), Path("some data"))
        assert isinstance(found, Entry)
        assert found == entry
    assert entry_of("mnist", Path("data")).kind == "DomainBedColoredMNIST"
    assert entry_of("pacs", Path("d")).folder == Path("d/PACS")
    with pytest.raises(InputError, match=r"xyz: no data set of that name; `fishr data list` shows all"):
        entry_of("xyz", Path("data"))
