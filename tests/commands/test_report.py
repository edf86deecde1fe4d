"""Reports as a person makes them, parsed."""

import base64
import json
import shutil
import sys
import tomllib
from io import BytesIO

import pytest
from bs4 import BeautifulSoup
from PIL import Image
from report_pages import charts, rows, tables

import fishr
from fishr.analysis import headlines, load_analysis
from fishr.landscape.surface_file import load_surface


def test_the_page_of_a_run_has_its_scores_curves_and_objective(finished, reported):
    page = reported(finished)
    result = json.loads((finished / "result.json").read_text())
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    (table,) = tables(page.select_one("#result"))
    assert table == [
        [s["name"], f"{s['accuracy']:.1%}", f"{s['loss']:.4f}", s["split"], f"{s['samples']:,}"]
        for s in result["scores"]
    ]
    worst = min(result["scores"], key=lambda score: score["accuracy"])
    assert page.select_one("tr.strong td").text == worst["name"]
    assert f"{worst['name']}: {worst['accuracy']:.1%}" in page.select_one("#result dl").text

    curves = charts(page.select_one("#learning-curves"))
    assert list(curves) == [
        "Accuracy",
        "Loss of whole domains",
        "Risk of each batch",
        "Penalties, without their weights",
    ]
    accuracies = [[float(row[f"c{index}"]) for index in range(4)] for row in rows(curves["Accuracy"])]
    assert accuracies == [
        pytest.approx([score["accuracy"] for score in line["scores"]], rel=1e-4) for line in lines if "scores" in line
    ]
    steps = [line for line in lines if "loss" in line]
    risks = [[float(row["c0"]), float(row["c1"])] for row in rows(curves["Risk of each batch"])]
    assert risks == [
        pytest.approx([line["domain_losses"][score["name"]] for score in result["scores"][:2]], rel=1e-4)
        for line in steps
    ]
    penalties = [float(row["c0"]) for row in rows(curves["Penalties, without their weights"])]
    terms = [line["terms"]["fishr"] for line in steps]
    assert penalties == pytest.approx([term["value"] / term["weight"] for term in terms], rel=1e-4)

    objective, settings = (page.select_one(name) for name in ("#objective-and-model", "#settings"))
    assert "loss at step 4 = " in objective.pre.text
    assert "Adam minimizes the mean BinaryCrossEntropy over domains, plus the penalty fishr" in objective.text
    (terms,) = tables(objective)
    assert [name for name, _ in terms] == ["risk", "fishr"]
    assert "the variance of the head's per-sample gradients" in terms[1][1]
    model = fishr.load_model(finished)
    every, head = (f"{sum(p.numel() for p in part.parameters()):,}" for part in (model, model.head))
    facts = {one.dt.text: one.dd.text for one in objective.select("dl div")}
    assert (facts["parameters"], facts["trained parameters"], facts["parameters of the head"]) == (every, every, head)
    # Settings that are the defaults are left to the configuration.
    rate = tomllib.loads((finished / "config.toml").read_text())["optimizer"]["lr"]
    assert f"Adam(lr={rate})" in objective.text
    assert settings.pre.text == (finished / "config.toml").read_text()


def test_the_page_has_the_data_and_what_the_model_takes_for_what(finished, reported, call):
    page = reported(finished)
    said = call("evaluate", finished, "--resamples", 0, "--format", "json")
    domains = json.loads(said.out)["domains"]
    (counts,) = tables(page.select_one("#data"))
    assert [[name, samples, *map(int, rest)] for name, _, samples, *rest in counts] == [
        [one["name"], f"{one['samples']:,}", *(each["samples"] for each in one["classes"])] for one in domains
    ]
    images = page.select("#data img")
    assert [image["alt"].split(", of class ")[0] for image in images] == [
        f"8 samples of {one['name']}" for one in domains
    ]
    sizes = {Image.open(BytesIO(base64.b64decode(image["src"].split(",")[1]))).size for image in images}
    assert sizes == {(8 * 74 - 2, 72)}

    matrices = charts(page.select_one("#classes"))
    assert list(matrices) == [one["name"] for one in domains]
    for one in domains:
        found = {(row["r"], row["c"]): int(row["n"]) for row in rows(matrices[one["name"]])}
        assert found == {(str(i), str(j)): one["confusion"][i][j] for i in range(2) for j in range(2)}


def test_what_is_not_at_hand_is_said_in_words(finished, reported, home):
    (finished / "checkpoint.pt").unlink()
    page = reported(finished)
    assert "no checkpoint.pt" in page.select_one("#classes").text
    assert len(page.select("#data img")) == 4
    text = (finished / "config.toml").read_text().replace('kind = "ColoredDigits"', 'kind = "ColoredMNIST"')
    (finished / "config.toml").write_text("".join(line for line in text.splitlines(True) if "copies" not in line))
    page = reported(finished, "--data-dir", "nowhere")
    assert "are not shown: MNIST: found no" in page.select_one("#data").text
    assert reported(finished, "--no-data").select_one("#data") is None


def test_the_page_has_the_analysis_and_the_landscapes_of_the_folder(measured, reported):
    page, analysis = reported(measured, "--no-data"), load_analysis(measured / "analysis.h5")
    headline, domains = tables(page.select_one("#analysis"))
    assert [row[0] for row in headline] == [one.title for one in headlines(analysis).values()]
    assert ["risk", *(f"{risk:.4g}" for risk in analysis.quantities["risk"].value.tolist()), "loss"] in domains

    pairs = charts(page.select_one("#between-domains"))
    assert len(pairs) == 4
    cosines = analysis.quantities["gradient_cosines"].value.flatten().tolist()
    assert [float(row["v"]) for row in rows(pairs["Cosines of gradients"])] == pytest.approx(cosines, rel=1e-4)
    distances = rows(pairs["Distances of gradient variances, scale-free"])
    variances = analysis.quantities["gradient_variance"].value.double()
    scale = variances[:2].mean(0).square().sum()
    assert len(distances) == 12
    assert float(distances[0]["v"]) == pytest.approx(
        float((variances[0] - variances[1]).square().sum() / scale), rel=1e-3
    )

    spectra, scatter = charts(page.select_one("#curvature")).values()
    largest = analysis.quantities["top_eigenvalues"].value[:, 0].tolist()
    assert [float(rows(spectra)[0][f"c{index}"]) for index in range(4)] == pytest.approx(largest, rel=1e-4)
    assert {row["name"] for row in rows(scatter["layer"][0])} == set(analysis.domains)

    line, *planes = charts(page.select_one("#landscapes")).values()
    surface = load_surface(measured / "landscape-random.h5")
    for risks, plane in zip(surface.scores.losses, planes, strict=True):
        found = [float(row["v"]) for row in rows(plane["layer"][0])]
        assert found == pytest.approx(risks.flatten().tolist(), rel=1e-4)
    assert len(rows(line)) == 5


@pytest.mark.parametrize(
    ("name", "html", "sections"),
    [
        ("analysis.h5", "analysis.html", ["analysis", "between-domains", "curvature"]),
        ("analysis", "analysis/report.html", ["analysis", "between-domains", "curvature"]),
        ("landscape-random.h5", "landscape-random.html", ["landscapes"]),
    ],
)
def test_a_file_of_measurements_has_a_page_of_its_own(measured, call, name, html, sections):
    said = call("report", measured / name)
    assert said.code == 0, said
    page = BeautifulSoup((measured / html).read_text(), "html.parser")
    assert [section["id"] for section in page.select("main > section")] == sections


def test_a_run_that_has_not_ended_has_the_page_of_its_steps_so_far(interrupted, reported):
    page = reported(interrupted)
    assert "not finished" in page.header.text
    assert "Accuracy" in charts(page)
    assert len(rows(charts(page)["Risk of each batch"])) == 4


def test_a_run_without_metrics_has_a_page(finished, reported):
    for name in ("metrics.jsonl", "result.json"):
        (finished / name).unlink()
    page = reported(finished, "--no-data")
    assert "has not evaluated" in page.select_one("#result").text
    assert page.select_one("#learning-curves") is None


def test_mean_weights_have_the_scores_that_they_get_now(finished, home, call, reported):
    shutil.copytree(finished, home / "twin")
    said = call("average", finished, "twin", "-o", "mean")
    assert said.code == 0, said
    page = reported("mean")
    assert page.header.p.text == "colored-digits: the mean weights of several runs"
    # Of two runs with the same weights.
    assert tables(page.select_one("#result")) == tables(reported(finished).select_one("#result"))
    assert "not evaluated" in reported("mean", "--no-data").select_one("#result").text


def test_a_run_that_failed_says_why(finished, reported):
    (finished / "metrics.jsonl").write_text("")
    (finished / "result.json").write_text('{"status": "failed", "message": "step 1: risk is nan"}')
    page = reported(finished, "--no-data")
    assert [one.text for one in page.select("#result p")] == [
        "The run failed: step 1: risk is nan.",
        "The run has not evaluated its weights.",
    ]


def test_a_report_replaces_a_report_and_nothing_else(finished, call, refused, home):
    assert call("report", finished).code == call("report", finished).code == 0
    assert (finished / "report.html").is_file()
    shutil.copytree(finished, home / "other")
    refused(home, ["report", "other", "--no-data"], "other/report.html: a report of something else; add --replace")
    assert call("report", "other", "--no-data", "--replace").code == call("report", "other", "--no-data").code == 0
    (home / "notes.html").write_text("<p>mine</p>")
    refused(home, ["report", "finished", "-o", "notes.html"], "notes.html: exists already and is not a report")
    refused(home, ["report", "finished", "-o", "finished"], "finished: exists already and is not a report")
    refused(home, ["report", "finished", "-o", "nowhere/at/all.html"], "nowhere")
    (home / "mine.txt").write_text("mine")
    refused(home, ["report", "mine.txt"], "mine.txt")
    refused(home, ["report", "nowhere"], "nowhere: nothing is there")
    refused(home, ["report", "finished", "finished"], "SECOND: got one twice, expected each once")
    (home / "empty").mkdir()
    refused(home, ["report", "empty"], "empty: not a run folder")
    (finished / "metrics.jsonl").write_text("{\n")
    refused(home, ["report", "finished"], "metrics.jsonl")


def test_a_missing_package_is_noticed_before_the_work(finished, home, refused, monkeypatch):
    from fishr.reports import page

    page.chart_scripts.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr("fishr.reports.load_run_data", lambda *_: pytest.fail("began"), raising=False)
    refused(home, ["report", "finished"], "pip install -e '.[report]'")
