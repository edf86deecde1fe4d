"""Refusals before the first job of a sweep."""

import attrs
import pytest

from fishr.data.cached_features import FeatureEnvironments
from fishr.errors import InputError
from fishr.sweeps.preflight import check_input


def test_each_data_set_is_built_once(plan, monkeypatch):
    reads, read = [], FeatureEnvironments.__call__
    monkeypatch.setattr(FeatureEnvironments, "__call__", lambda *given: reads.append(given[0]) or read(*given))
    check_input(plan.jobs())
    assert len(reads) == 1
    check_input([])
    assert len(reads) == 1


def with_file(plan, path):
    return attrs.evolve(plan, settings=attrs.evolve(plan.settings, features={"PACS": str(path)}))


@pytest.mark.slow
def test_other_environments_than_the_benchmarks_are_refused(plan, feature_file, tmp_path):
    for names, count in (("ACP", 3), ("ACPSX", 5)):
        jobs = with_file(plan, feature_file(tmp_path / f"{names}.h5", names)).jobs()
        with pytest.raises(InputError, match=f"PACS: got {count} environments in the data, expected 4: A, C, P, S"):
            check_input(jobs)


def test_missing_data_and_devices_are_refused(plan, tmp_path):
    with pytest.raises(InputError, match=r"PACS: .*no such file"):
        check_input(with_file(plan, tmp_path / "absent.h5").jobs())
    with pytest.raises(InputError, match="device: got 'tpu'"):
        check_input(plan.jobs(), device="tpu")
