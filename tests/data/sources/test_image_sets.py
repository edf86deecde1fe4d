"""The table of image data sets."""

import pytest

from fishr.data.sources import IMAGE_SETS, find_image_set
from fishr.errors import InputError
from fishr.protocols.domainbed.datasets import BENCHMARKS

TITLES = {
    "VLCS": ("VLCS", "C L S V", 5),
    "PACS": ("PACS", "A C P S", 7),
    "OfficeHome": ("office_home", "A C P R", 65),
    "TerraIncognita": ("terra_incognita", "L100 L38 L43 L46", 10),
    "DomainNet": ("domain_net", "clip info paint quick real sketch", 345),
    "SVIRO": ("sviro", "aclass escape hilux i3 lexus tesla tiguan tucson x5 zoe", 7),
    **{
        f"Spawrious{size}_{level}": (f"spawrious224/{size.lower()}_{level}", "Test SC_group_1 SC_group_2", 4)
        for size in ("O2O", "M2M")
        for level in ("easy", "medium", "hard")
    },
}


def test_folders_titles_and_classes_are_domainbeds():
    found = {s.name: (s.folder, " ".join(e.title for e in s.environments), s.classes) for s in IMAGE_SETS.values()}
    assert found == TITLES
    assert list(BENCHMARKS)[2:] == list(TITLES)
    assert {name for name, each in BENCHMARKS.items() if each.tested} == {name for name in TITLES if "Spaw" in name}


@pytest.mark.parametrize("name", [name for name in IMAGE_SETS if not name.startswith("Spawrious")])
def test_folders_sort_into_the_order_of_indices(name):
    """DomainBed numbers environments by their sorted folders; Spawrious is built otherwise there."""
    folders = [environment.folder for environment in IMAGE_SETS[name].environments]
    assert folders == sorted(folders)


@pytest.mark.parametrize("image_set", IMAGE_SETS.values(), ids=lambda image_set: image_set.name)
def test_classes_and_archives_are_consistent(image_set):
    assert not image_set.class_names or len(image_set.class_names) == image_set.classes
    folders = [environment.folder for environment in image_set.environments]
    for environment in image_set.environments:
        assert [name for name in folders if environment.is_called(name)] == [environment.folder]


def test_names_in_any_case():
    assert find_image_set("spawriouso2o_EASY") is IMAGE_SETS["SpawriousO2O_easy"]
    with pytest.raises(InputError, match="did you mean OfficeHome"):
        find_image_set("office_home")
    with pytest.raises(InputError, match="expected one of VLCS, PACS"):
        find_image_set("xyz")


def test_mirrors_have_files_of_the_same_names():
    """LILA's folders on Microsoft's cloud are those on Google's."""
    for image_set in IMAGE_SETS.values():
        assert image_set.mirrors.keys() <= image_set.archives.keys()
        assert all(address.endswith(f"/{name}") for name, address in image_set.mirrors.items())
    assert IMAGE_SETS["TerraIncognita"].mirrors.keys() == IMAGE_SETS["TerraIncognita"].archives.keys()


def test_archives_lie_where_their_publishers_say():
    """DomainNet: ai.bu.edu/M3SDA, its cleaned version; TerraIncognita: lila.science; the others: DomainBed's links."""
    bu, lila = "http://csr.bu.edu/ftp/visda/2019/multi-source", "https://storage.googleapis.com/public-datasets-lila"
    drive = "https://drive.google.com/uc?id="
    assert [address for name in IMAGE_SETS for address in IMAGE_SETS[name].archives.values()] == [
        f"{drive}1skwblH1_okBwxWxmRsp9_qi15hyPpxg8",
        f"{drive}1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd",
        f"{drive}1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC",
        f"{lila}/caltechcameratraps/eccv_18_all_images_sm.tar.gz",
        f"{lila}/caltechcameratraps/eccv_18_annotations.tar.gz",
        f"{bu}/groundtruth/clipart.zip",
        f"{bu}/infograph.zip",
        f"{bu}/groundtruth/painting.zip",
        f"{bu}/quickdraw.zip",
        f"{bu}/real.zip",
        f"{bu}/sketch.zip",
    ]
