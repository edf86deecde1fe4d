"""results.jsonl as DomainBed and this package write it, whole, half-written or damaged."""

import json

import pytest

from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.records import JobKey, read_records
from fishr.sweeps.job_results import common_entries, dump_lines, result_lines

# A line as DomainBed's training script wrote it (shortened: hparams and args have more names).
UPSTREAM = (
    '{"args": {"algorithm": "ERM", "checkpoint_freq": null, "data_dir": "/data", "dataset": "RotatedMNIST", '
    '"holdout_fraction": 0.2, "hparams": null, "hparams_seed": 4, "output_dir": "out/8e1", "seed": 7, '
    '"skip_model_save": false, "steps": null, "task": "domain_generalization", "test_envs": [1], "trial_seed": 2, '
    '"uda_holdout_fraction": 0}, "env0_in_acc": 0.75, "env0_out_acc": 0.5, "env1_in_acc": 0.25, "env1_out_acc": 1.0, '
    '"env1_uda_acc": 0.1, "epoch": 0.0, "hparams": {"batch_size": 8, "lr": 0.001}, "loss": NaN, "mem_gb": 0.0, '
    '"step": 100, "step_time": 1.2}'
)


def line(step=0, envs=2, acc=0.5, own=None, **args):
    named = {"dataset": "PACS", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "trial_seed": 0}
    accuracies = {f"env{i}_{split}_acc": acc for i in range(envs) for split in ("in", "out")}
    return json.dumps({"step": step, "args": named | args, "hparams": {}} | accuracies | (own or {}), sort_keys=True)


@pytest.fixture
def run(tmp_path):
    """Write a run's results.jsonl into a sweep folder."""

    def write(name, *lines, done=True, end="\n"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text("\n".join(lines) + end)
        if done:
            (folder / "done").touch()
        return folder / "results.jsonl"

    return write


def test_a_line_of_domainbed(run, tmp_path):
    run("8e1", UPSTREAM)
    read = read_records(tmp_path)
    (record,) = read.records
    assert record.key == JobKey("RotatedMNIST", "ERM", (1,), hparams_seed=4, trial_seed=2)
    assert (record.step, record.environments) == (100, 2)
    assert list(record.accuracies) == ["env0_in", "env0_out", "env1_in", "env1_out"]
    assert record.accuracies["env0_in"] == 0.75
    assert record.accuracies["env1_in"] == 0.25
    assert (read.protocol, read.unfinished) == ("upstream", ())


def test_what_our_sweeps_write(tmp_path):
    """The writer's own lines, in the layout of our folders."""
    job = Job("ColoredMNIST", "Fishr", (0, 2), hparams_seed=1, trial_seed=0)
    names = [f"env{i}_{split}" for split in ("in", "out") for i in range(3)]
    scores = [{"name": name, "accuracy": index / 8, "samples": 64} for index, name in enumerate(names)]
    step = {"step": 0, "loss": 0.7, "risk": 0.7, "l2": 0.0, "terms": {}, "domain_losses": {"env1_in": 0.7}}
    metrics = [json.dumps(step), json.dumps({"step": 1, "scores": scores})]
    lines = result_lines(job, metrics, {0: 0.1}, common_entries(job, threads=1, mem_gb=0.0))
    folder = tmp_path / "jobs" / job.name
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_bytes(dump_lines(lines))
    (folder / "done").touch()
    read = read_records(tmp_path)
    (record,) = read.records
    assert (record.key, record.step) == (job.key, 0)
    assert dict(record.accuracies) == {name: index / 8 for index, name in enumerate(names)}
    assert (read.protocol, read.keys, read.unfinished) == ("domainbed-2021", (job.key,), ())
    assert read.settings["holdout_fraction"] == 0.2
    assert "threads" not in read.settings


def test_names_of_environments_of_ones_own(run, tmp_path):
    own = {"hospitals": {"path": "h", "environments": ["north", "south"]}}
    entry = json.loads(line(dataset="hospitals", protocol="domainbed-2021"))
    entry["args"]["own"] = own
    run("a", json.dumps(entry))
    assert read_records(tmp_path).environment_names == {"hospitals": ("north", "south")}


def test_runs_that_are_not_finished_count_and_are_told(run, tmp_path):
    run("a", line(0), line(300), done=False)
    run("b", line(0, hparams_seed=1))
    read = read_records(tmp_path)
    assert [(record.key.hparams_seed, record.step) for record in read.records] == [(0, 0), (0, 300), (1, 0)]
    assert read.unfinished == (JobKey("PACS", "ERM", (0,), 0, 0),)


@pytest.mark.parametrize("cut", [1, 40, -1])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_cut_last_line_of_a_run_at_work_is_left_out(run, tmp_path, cut, end):
    run("a", line(0), line(300)[:cut], done=False, end=end)
    assert [record.step for record in read_records(tmp_path).records] == [0]


def test_a_last_line_without_its_newline_counts(run, tmp_path):
    run("a", line(0), line(300), done=False, end="")
    assert [record.step for record in read_records(tmp_path).records] == [0, 300]


def test_a_run_that_has_only_half_a_line_has_no_record(run, tmp_path):
    run("a", line(0)[:30], done=False)
    run("b", line(0, hparams_seed=3))
    assert [key.hparams_seed for key in read_records(tmp_path).keys] == [3]
    (tmp_path / "b" / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="found no whole record yet"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("lines", "done", "number"),
    [
        ((line(0), line(300)[:50], line(600)), False, 2),
        ((line(0)[:50] + line(300), line(600)), False, 1),
        ((line(0), line(300)[:50]), True, 2),
        ((line(0), ""), True, 2),
    ],
)
def test_damage_elsewhere_is_refused_with_its_line(run, tmp_path, lines, done, number):
    path = run("a", *lines, done=done)
    with pytest.raises(InputError) as error:
        read_records(tmp_path)
    assert str(error.value).startswith(f"{path}, line {number}: cut or damaged, expected JSON")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("3", "not a record of DomainBed"),
        ("{}", "not a record of DomainBed"),
        (line(test_envs=["A"]), "not a record of DomainBed"),
        (line(test_envs=[True]), "not a record of DomainBed"),
        (line(hparams_seed=None), "not a record of DomainBed"),
        (line(test_envs=[2]), "got test_envs [2], expected some of 0 to 1"),
        (line(test_envs=[-1, 0]), "got test_envs [-1, 0]"),
        (line(test_envs=[]), "got test_envs []"),
        (line(test_envs=[0, 0]), "got test_envs [0, 0], expected each once"),
        (line(own={"env1_out_acc": "0.5"}), 'env1_out_acc: got "0.5", expected a number from 0 to 1'),
        (line(own={"env1_out_acc": None}), "env1_out_acc: got null, expected a number from 0 to 1"),
        (line(own={"env1_out_acc": True}), "env1_out_acc: got true, expected a number from 0 to 1"),
        (line(own={"env1_out_acc": 50.5}), "env1_out_acc: got 50.5, expected a number from 0 to 1"),
        (line(own={"env1_out_acc": 10**400}), "env1_out_acc: got 1000000000000"),
        (line(own={"env0_in_acc": -0.01}), "env0_in_acc: got -0.01, expected a number from 0 to 1"),
        (line(own={"env0_in_acc": float("nan")}), "env0_in_acc: got NaN, expected a number from 0 to 1"),
        (line(own={"env0_in_acc": float("inf")}), "env0_in_acc: got Infinity, expected a number from 0 to 1"),
        (line(own={"env0_in_acc": [0.5] * 1000}), "env0_in_acc: got list, expected"),
        (line(own={"env3_in_acc": 0.5}), "lacks env2_in_acc and has env3_in_acc"),
        (line(own={"env100000000_in_acc": 0.5}), "lacks env2_in_acc and has env100000000_in_acc"),
        (line(own={f"env{'9' * 5000}_in_acc": 0.5, f"env{'9' * 5000}_out_acc": 0.5}), "lacks env2_in_acc and has"),
        (line(own={"env00_in_acc": 0.5, "env00_out_acc": 0.5}), "lacks env2_in_acc and has env00_in_acc"),
        (line(envs=1), "lacks env1_in_acc, expected"),
        (line(envs=0), "lacks env0_in_acc, expected"),
        (line(step=-1), "step: got -1, expected a whole number of 0 or more"),
        (line(step=True), "step: got True, expected a whole number of 0 or more"),
        (line(trial_seed=-3), "trial_seed: got -3, expected a whole number of 0 or more"),
        (line(own={"hparams": [1]}), "expected a table in hparams"),
        (line(protocol=3), "a text in args.protocol"),
        (
            line(protocol="p", own=None).replace('"args": {', '"args": {"own": {"x": 3}, '),
            "a list of environments in args.own",
        ),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_record_is_refused(run, tmp_path, text, part):
    """Even as the last line of a run at work: a cut line is no JSON."""
    path = run("a", line(), text, done=False)
    with pytest.raises(InputError) as error:
        read_records(tmp_path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_two_jobs_in_one_file_are_refused(run, tmp_path):
    path = run("a", line(), line(trial_seed=1))
    with pytest.raises(InputError) as error:
        read_records(tmp_path)
    assert f"{path}, line 2: got PACS ERM test 0 draw 0 trial 1 after PACS ERM test 0 draw 0 trial 0" in str(
        error.value
    )


def test_a_job_twice_is_refused_with_both_files(run, tmp_path):
    one, other = run("x/a", line(test_envs=[0, 1], envs=3)), run("y/jobs/b", line(test_envs=[1, 0], envs=3))
    assert len(read_records(tmp_path / "x").records) == len(read_records(tmp_path / "y").records) == 1
    with pytest.raises(InputError) as error:
        read_records(tmp_path / "x", tmp_path / "y")
    assert f"got it twice, in {one} and in {other}" in str(error.value)


def test_parts_of_a_sweep_in_several_folders(run, tmp_path):
    run("x/a", line())
    run("y/b", line(hparams_seed=1))
    assert [key.hparams_seed for key in read_records(tmp_path / "x", tmp_path / "y").keys] == [0, 1]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"protocol": "domainbed-2021"}, {"protocol": "domainbed-2024"}, "'domainbed-2021' in .* and 'domainbed-2024'"),
        ({}, {"protocol": "domainbed-2024"}, "protocol: got 'upstream' in .* and 'domainbed-2024'"),
        ({"protocol": "p", "validation": "clean"}, {"protocol": "p"}, "validation: got 'clean' in .* and None"),
        ({"protocol": "p"}, {"protocol": "p", "hparams": {"lr": 1}}, "hparams: got None in .* and {'lr': 1}"),
        ({"steps": None}, {"steps": 300}, "steps: got None in .* and 300"),
        ({"holdout_fraction": 0.2}, {"holdout_fraction": 0.1}, "holdout_fraction: got 0.2 in .* and 0.1"),
    ],
)
def test_other_settings_are_refused(run, tmp_path, one, other, said):
    run("a", line(**one))
    run("b", line(hparams_seed=1, **other))
    with pytest.raises(InputError, match=said):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data_dir": "/a", "output_dir": "x"}, {"data_dir": "/b", "wandb": "z"}),
        ({"protocol": "p", "threads": 1, "seed": 3}, {"protocol": "p", "threads": 2, "seed": 4}),
    ],
)
def test_what_decides_nothing_may_differ(run, tmp_path, one, other):
    run("a", line(**one))
    run("b", line(hparams_seed=1, **other))
    assert len(read_records(tmp_path).keys) == 2


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        read_records(tmp_path / "nowhere")
    (tmp_path / "sweep" / "jobs" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=r"found no results, expected RUN/results\.jsonl"):
        read_records(tmp_path / "sweep")
    (tmp_path / "sweep" / "jobs" / "a" / "results.jsonl").mkdir()
    with pytest.raises(InputError, match="could not be read"):
        read_records(tmp_path / "sweep")
