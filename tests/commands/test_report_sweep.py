"""The report of a sweep: finished, unfinished, with failures, of thousands of jobs, and in a browser."""

import json
from itertools import product

import pytest
from report_pages import charts, rows, tables

from fishr.configuration import dumps
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import Chosen
from fishr.protocols.domainbed.settings import Settings
from fishr.reports.job_charts import Job, job_chart
from fishr.sweeps.plan import Plan

DOMAINS = ("+90%", "+80%", "-90%")


def accuracy(test, draw, trial, algorithm):
    return (8 + 2 * test + draw + trial + (algorithm != "ERM")) / 20


@pytest.fixture
def sweep(home):
    return make_sweep(home)


def make_sweep(home):
    """Twelve finished jobs of ERM, eleven of Fishr, one that failed, and twelve of CORAL that have not begun."""
    plan = Plan(("ColoredMNIST",), ("ERM", "Fishr", "CORAL"), draws=2, trials=2, settings=Settings())
    folder = home / "sweep"
    for job in plan.jobs():
        if job.algorithm == "CORAL":
            continue
        (place := folder / "jobs" / job.name).mkdir(parents=True)
        (place / "job.toml").write_text(dumps(job))
        if (job.algorithm, job.test_envs, job.hparams_seed, job.trial_seed) == ("Fishr", (2,), 1, 1):
            failure = {"message": "out of memory", "tries": 2, "log": ["first line", "<b>CUDA</b> error"]}
            (place / "failed.json").write_text(json.dumps(failure))
            continue
        names = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
        args = {name: getattr(job, name) for name in names} | {"protocol": "domainbed-2021"}
        value = accuracy(job.test_envs[0], job.hparams_seed, job.trial_seed, job.algorithm)
        scores = {f"env{i}_{split}_acc": value - 0.1 * (split == "in") for i in range(3) for split in ("in", "out")}
        drawn = {"lr": 10.0**-job.hparams_seed, "dropout": 0.5 * job.hparams_seed, "batch_size": 8, "flip": True}
        drawn |= {"lambda": 1.0 + 4 * job.hparams_seed} if job.algorithm == "Fishr" else {}
        (place / "results.jsonl").write_text(json.dumps({"step": 0, "args": args, "hparams": drawn} | scores) + "\n")
        (place / "done").write_text(json.dumps({"seconds": 1800.0, "validation": value, "diverged": None}))
    (folder / "plan.toml").write_text(dumps(plan))
    return "sweep"


def test_progress_tables_and_failures(sweep, reported):
    page = reported(sweep)
    assert "23 of 36 jobs done" in page.header.text
    (progress,) = tables(page.select_one("#progress"))
    assert [row[1:7] for row in progress] == [
        ["ERM", "12", "12", "0", "0", "0"],
        ["Fishr", "12", "11", "0", "1", "0"],
        ["CORAL", "12", "0", "0", "0", "12"],
    ]
    assert "about 6.0 h" in page.select_one("#progress dl").text
    section = page.select_one("#tables")
    training, oracle = tables(section)
    assert [row[0] for row in training] == [row[0] for row in oracle] == ["ERM", "Fishr"]
    # The second draw is better everywhere; the test accuracy is of the "in" split.
    expected = [50 * sum(accuracy(test, 1, trial, "ERM") - 0.1 for trial in range(2)) for test in range(3)]
    assert training[0][1:4] == [f"{mean:.1f} ± 1.8" for mean in expected]
    assert "No number yet: CORAL." in section.text
    assert "leave-one-domain-out validation: no job has two test environments." in section.text
    assert tables(page.select_one("#failures")) == [[["out of memory", "1"]]]
    failure = page.select_one("#failures details")
    assert "ColoredMNIST Fishr test 2 draw 1 trial 1: out of memory (tried 2×)" in failure.summary.text
    assert failure.pre.text.splitlines() == ["first line", "<b>CUDA</b> error"]


def test_every_job_is_a_point(sweep, reported):
    (chart,) = charts(reported(sweep).select_one("#jobs")).values()
    points = rows(chart)
    assert len(points) == 23
    binds = {one["name"]: one["bind"] for one in chart["params"] if isinstance(one.get("bind"), dict)}
    assert binds["horizontal"]["labels"] == ["lr", "dropout", "lambda", "validation accuracy"]
    code = dict(zip(binds["horizontal"]["labels"], binds["horizontal"]["options"], strict=True))
    assert binds["algorithm_shown"]["options"] == ["all", "ERM", "Fishr"]
    for point in points:
        test, draw, trial = DOMAINS.index(point["domain"]), int(point["draw"]), int(point["trial"])
        value = accuracy(test, draw, trial, point["algorithm"])
        assert float(point["validation"]) == pytest.approx(value)
        assert float(point["test"]) == pytest.approx(value - 0.1)
        assert float(point[code["lr"]]) == 10.0**-draw
        assert point[code["lambda"]] == (f"{1 + 4 * draw}" if point["algorithm"] == "Fishr" else "")


def test_records_without_hyper_parameters_are_points(sweep, home, reported):
    """Records may come from a fork of DomainBed."""
    for path in (home / sweep / "jobs").glob("*/results.jsonl"):
        line = json.loads(path.read_text())
        del line["hparams"]
        path.write_text(json.dumps(line) + "\n")
    (chart,) = charts(reported(sweep).select_one("#jobs")).values()
    assert len(rows(chart)) == 23
    assert chart["params"][0]["bind"]["labels"] == ["validation accuracy"]


def test_a_sweep_without_records_has_its_progress(sweep, home, reported):
    for path in (home / sweep / "jobs").glob("*/results.jsonl"):
        path.unlink()
    page = reported(sweep)
    assert [section["id"] for section in page.select("main > section")] == ["progress", "failures", "plan"]


def test_thousands_of_jobs_are_a_small_file():
    names = [f"hyper-parameter {index}" for index in range(8)]
    jobs = [
        Job(
            JobKey("PACS", f"Algorithm{algorithm}", (test,), draw, trial),
            Chosen(0.123456789 * trial, 0.987654321 - draw / 100, draw, 300),
            {name: 10 ** (draw / 7) * (1 + index) for index, name in enumerate(names)},
        )
        for algorithm, draw, trial, test in product(range(19), range(20), range(3), range(4))
    ]
    chart = job_chart("PACS", jobs, "ACPS")
    assert len(rows(chart.spec)) == 4560
    assert chart.many
    assert len(json.dumps(chart.spec)) < 700_000


@pytest.mark.slow
def test_a_browser_draws_the_jobs_of_a_choice(sweep, reported, opened):
    reported(sweep)
    for width in (390, 1440):
        page = opened("report.html", width)
        view = "document.querySelector('#jobs .plot').view"
        marks = f"{view}.scenegraph().root.items[0].items.find(one => one.name === 'marks').items"
        assert page.evaluate(f"{marks}.length") == 23
        before = page.evaluate(f"{marks}.map(one => one.x)")
        page.get_by_label("across").select_option(label="lambda")
        page.wait_for_function(f"{marks}.length === 11")
        page.get_by_label("across").select_option(label="dropout")
        page.locator("#jobs").get_by_label("test domain").select_option("-90%")
        page.wait_for_function(f"{marks}.length === 7")
        assert page.evaluate(f"{marks}.map(one => one.x)") != before
