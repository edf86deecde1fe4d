"""The list of data sets, and what is known of each."""

from pathlib import Path

import pytest

from fishr.data import Entry, catalogue
from fishr.data.catalogue import details
from fishr.data.mnist import LABELS, PICTURES, TEST_LABELS, TEST_PICTURES
from fishr.errors import InputError


def ready(folder: Path) -> set[str]:
    return {entry.kind for entry in catalogue(folder) if entry.ready}


ALWAYS = {"ColoredDigits", "Arrays", "CachedFeatures", "ImageFolders", "ImageList"}


def test_domainbeds_digits_need_all_four_files(tmp_path: Path):
    assert ready(tmp_path) == ALWAYS
    for name in (PICTURES, LABELS):
        (tmp_path / name).touch()
    assert ready(tmp_path) == ALWAYS | {"ColoredMNIST"}
    for name in (TEST_PICTURES, TEST_LABELS):
        (tmp_path / f"{name}.gz").touch()
    assert ready(tmp_path) == ALWAYS | {"ColoredMNIST", "DomainBedColoredMNIST", "RotatedMNIST"}


def test_images_are_ready_when_every_environment_is_there(tmp_path: Path):
    for name in ("Art", "Clipart", "Product"):
        (tmp_path / "office_home" / name).mkdir(parents=True)
    assert ready(tmp_path) == ALWAYS
    (tmp_path / "office_home" / "RealWorld").mkdir()
    assert ready(tmp_path) == ALWAYS | {"OfficeHome"}


def test_kinds_are_those_of_the_configuration_or_the_benchmark():
    import fishr.data
    from fishr.data import benchmark_digits, images
    from fishr.protocols.domainbed.datasets import BENCHMARKS

    kinds = {entry.kind for entry in catalogue(Path("data"))}
    classes = {kind for kind in kinds if any(hasattr(each, kind) for each in (fishr.data, benchmark_digits, images))}
    assert kinds - classes == {name for name, each in BENCHMARKS.items() if each.folder}


def test_environments_are_called_as_the_data_set_calls_them():
    from fishr.data import ColoredDigits
    from fishr.data.benchmark_digits import ANGLES

    domains = ColoredDigits()(0, None)
    assert details("ColoredDigits", Path("data")).environments == tuple(
        domain.name for domain in (*domains.training, *domains.evaluation)
    )
    assert len(details("RotatedMNIST", Path("data")).environments) == len(ANGLES)


def test_details_have_what_the_list_has():
    for entry in catalogue(Path("some data")):
        found = details(entry.kind.upper(), Path("some data"))
        assert isinstance(found.entry, Entry)
        assert found.entry == entry
    assert details("mnist", Path("data")).entry.kind == "DomainBedColoredMNIST"
    assert details("pacs", Path("d")).folder == Path("d/PACS")
    with pytest.raises(InputError, match=r"xyz: no data set of that name; `fishr data list` shows all"):
        details("xyz", Path("data"))
