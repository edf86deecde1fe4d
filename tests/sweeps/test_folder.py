import attrs
import pytest

from fishr import locks
from fishr.configuration import dumps
from fishr.errors import InputError
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.sweeps.folder import (
    begun_jobs,
    check_plan,
    is_worked_on,
    job_folder,
    planned_keys,
    read_plan,
    sweep_folder,
)
from fishr.sweeps.plan import Part


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.0)


def test_a_folder_keeps_its_plan(tmp_path, plan):
    folder = tmp_path / "deep" / "sweep"
    with sweep_folder(folder, plan):
        assert is_worked_on(folder)
    assert not is_worked_on(folder)
    assert read_plan(folder) == plan
    before = (folder / "plan.toml").stat().st_mtime_ns
    with sweep_folder(folder, plan):
        pass
    assert (folder / "plan.toml").stat().st_mtime_ns == before


def test_another_plan_is_refused_or_replaces_it(tmp_path, plan):
    folder, fewer = tmp_path / "sweep", attrs.evolve(plan, draws=1)
    with sweep_folder(folder, plan):
        for job in plan.jobs():
            job_folder(folder, job).mkdir()
            (job_folder(folder, job) / "done").write_text(job.name)
    for refused in (lambda: check_plan(folder, fewer), lambda: sweep_folder(folder, fewer).__enter__()):
        with pytest.raises(InputError, match=r"draws: the folder has 2, the plan given has 1.*--replace-plan"):
            refused()
    kept = {job.name for job in fewer.jobs()}
    with sweep_folder(folder, fewer, replace=True):
        assert read_plan(folder) == fewer
        assert {path.name for path in (folder / "jobs").iterdir()} == kept
        assert len(list((folder / "replaced").iterdir())) == len(plan.jobs()) - len(kept)
    with sweep_folder(folder, plan, replace=True):
        assert all((job_folder(folder, job) / "done").read_text() == job.name for job in plan.jobs())
        assert list((folder / "replaced").iterdir()) == []


def test_a_job_that_is_there_twice_is_not_overwritten(tmp_path, plan):
    folder, job = tmp_path / "sweep", plan.jobs()[0]
    with sweep_folder(folder, plan):
        pass
    for name in ("jobs", "replaced"):
        (folder / name / job.name).mkdir(parents=True)
        (folder / name / job.name / "done").write_text(name)
    with sweep_folder(folder, plan):
        assert (folder / "jobs" / job.name / "done").read_text() == "jobs"
        assert (folder / "replaced" / job.name / "done").read_text() == "replaced"


def test_one_whole_or_several_parts_at_once(tmp_path, plan):
    folder = tmp_path / "sweep"
    with sweep_folder(folder, plan):
        with pytest.raises(InputError, match="another process works on this sweep"), sweep_folder(folder, plan):
            pass
        with pytest.raises(InputError, match="another process"), sweep_folder(folder, plan, Part(0, 2)):
            pass
    with sweep_folder(folder, plan, Part(0, 2)), sweep_folder(folder, plan, Part(1, 2)):
        assert is_worked_on(folder)
        with pytest.raises(InputError, match=r"part 1/2"), sweep_folder(folder, plan, Part(1, 2)):
            pass
        with pytest.raises(InputError, match="another process works on this sweep"), sweep_folder(folder, plan):
            pass


@pytest.mark.parametrize("kind", ["file", "strangers", "a plan of somebody's own"])
def test_what_is_no_sweep_is_left_alone(tmp_path, plan, kind):
    folder = tmp_path / "sweep"
    if kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        (folder / ("thesis.tex" if kind == "strangers" else "plan.toml")).touch()
    before = sorted(tmp_path.rglob("*"))
    for refused in (lambda: check_plan(folder, plan), lambda: sweep_folder(folder, plan).__enter__()):
        with pytest.raises(InputError, match="is no sweep"):
            refused()
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(InputError, match="no sweep is there"):
        read_plan(folder)


def test_a_folder_that_was_killed_before_its_plan_goes_on(tmp_path, plan):
    folder = tmp_path / "sweep"
    (folder / "jobs").mkdir(parents=True)
    (folder / ".fishr-lock").touch()
    (folder / ".plan.toml.0123456789abcdef.fishr-partial").touch()
    with sweep_folder(folder, plan):
        assert read_plan(folder) == plan
    assert not list(folder.glob("*.fishr-partial"))


def test_a_plan_that_was_edited_by_hand_keeps_its_text(tmp_path, plan):
    folder = tmp_path / "sweep"
    with sweep_folder(folder, plan):
        pass
    text = (folder / "plan.toml").read_text().replace("threads = 1\n", "# one thread is enough\n")
    (folder / "plan.toml").write_text(text)
    check_plan(folder, plan)
    with sweep_folder(folder, plan):
        assert (folder / "plan.toml").read_text() == text


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
    assert planned_keys(folder) == tuple(job.key for job in plan.jobs())
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


def test_data_sets_and_methods_may_be_called_as_keys_are(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "plan.toml").write_text(OWN.replace("Hospitals", "data").replace("Mine", "penalty"))
    keys = planned_keys(tmp_path)
    assert len(keys) == (4 + 2) * 2 * 2
    assert {(key.dataset, key.algorithm) for key in keys} >= {("data", "penalty"), ("PACS", "ERM")}


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
