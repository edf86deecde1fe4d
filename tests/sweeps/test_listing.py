"""What a sweep folder is to hold, read without the code of methods of one's own."""

import attrs
import pytest

from fishr.configuration import dumps
from fishr.errors import InputError
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.sweeps.folder import sweep_folder
from fishr.sweeps.listing import begun_jobs, expected_keys, planned_keys

OWN = """
datasets = ["PACS", "Hospitals"]
algorithms = ["ERM", "Mine"]
draws = 2
trials = 1

[settings.own.Hospitals]
path = "hospitals"
environments = ["north", "south"]

[settings.methods.Mine]
weight = 3.0

[settings.methods.Mine.penalty]
kind = "no_such_module:Penalty"
power = 3
"""


def test_keys_are_those_of_the_jobs(tmp_path, plan):
    folder = tmp_path / "sweep"
    with sweep_folder(folder, plan):
        pass
    assert planned_keys(folder) == expected_keys(folder) == tuple(job.key for job in plan.jobs())
    assert expected_keys(tmp_path) is None
    with pytest.raises(InputError, match="no sweep is there"):
        planned_keys(tmp_path)


def test_no_module_of_the_plan_is_imported(tmp_path, plan):
    """The same keys as with a penalty that is known."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "plan.toml").write_text(OWN)
    keys = planned_keys(tmp_path)
    assert len(keys) == (4 + 2) * 2 * 2
    assert {key.algorithm for key in keys} == {"ERM", "Mine"}
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"Mine"]', '"Yours"]'), "plan.toml: .*Yours"),
        (("[settings.methods.Mine.penalty]", "[settings.methods.Mine.punishment]"), "plan.toml: .*punishment"),
        (("weight = 3.0", "weight = 'much'"), "plan.toml: settings.methods.Mine.weight"),
        (("datasets", "data sets"), "plan.toml: line 2"),
        (("[settings.methods.Mine]", "[settings.methods]\nOther = 3\n[settings.methods.Mine]"), "methods.Other"),
    ],
)
def test_a_damaged_plan_is_named(tmp_path, change, message):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "plan.toml").write_text(OWN.replace(*change))
    with pytest.raises(InputError, match=message):
        planned_keys(tmp_path)


def test_jobs_of_a_method_of_ones_own_are_known_by_their_file(tmp_path, plan):
    from fishr.penalties import VREx

    settings = attrs.evolve(plan.settings, methods={"Mine": OwnMethod(VREx())})
    job = attrs.evolve(plan, algorithms=("Mine",), settings=settings).jobs()[1]
    place = tmp_path / "jobs" / job.name
    place.mkdir(parents=True)
    (place / "job.toml").write_text(dumps(job).replace('"VREx"', '"no_such_module:Penalty"'))
    assert begun_jobs(tmp_path, {}) == {job.key: job.name}
