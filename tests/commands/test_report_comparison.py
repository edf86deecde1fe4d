"""The page of two runs, side by side."""

import json
import shutil

import pytest
from report_pages import charts, rows, tables

import fishr


@pytest.fixture(scope="module")
def other_once(tmp_path_factory, call_anywhere, short):
    """A run of the same data with another method, more steps and another learning rate."""
    folder = tmp_path_factory.mktemp("runs") / "erm"
    changes = ["--set", "steps=9", "--set", "optimizer.lr=0.01"]
    said = call_anywhere("train", "colored-digits-erm", *short, *changes, "--seed", 3, "--out", folder)
    assert said.code == 0, said
    return folder


def test_two_runs_share_tables_and_charts(measured, other_once, reported):
    page = reported(measured, other_once)
    one, two = (json.loads((folder / "result.json").read_text())["scores"] for folder in (measured, other_once))
    (table,) = tables(page.select_one("#result"))
    for row, a, b in zip(table, one, two, strict=True):
        apart = 100 * (b["accuracy"] - a["accuracy"])
        assert row[1:4] == [f"{a['accuracy']:.1%}", f"{b['accuracy']:.1%}", f"{apart:+.1f}"]

    curves = charts(page.select_one("#learning-curves"))
    risks = rows(curves["Risk of each batch"])
    # The first run has ended when the second makes its last steps.
    assert [[bool(row[f"c{index}"]) for index in range(4)] for row in risks] == [[True] * 4] * 7 + [
        [False] * 2 + [True] * 2
    ] * 2
    ends = [[bool(row[f"c{index}"]) for index in (0, 4)] for row in rows(curves["Accuracy"])]
    assert ends == [[True, True]] * 2 + [[True, False], [False, True]]
    dashes = {layer["encoding"]["strokeDash"]["datum"] for layer in curves["Accuracy"]["layer"][:-1]}
    assert dashes == {"measured", "erm"}

    (differing,) = tables(page.select_one("#settings-that-differ"))
    settings = {name: values for name, *values in differing}
    assert settings["steps"] == ["7", "9"]
    assert settings["objective.penalty.fishr.penalty.kind"] == ["Fishr", "–"]
    assert "seed" not in settings
    for column, words in zip(
        page.select("#objective-and-model .columns > div"),
        ("over domains, plus the penalty fishr", "over domains"),
        strict=True,
    ):
        assert f"Adam minimizes the mean BinaryCrossEntropy {words}" in column.p.text
        facts = {one.dt.text: one.dd.text for one in column.select("dl div")}
        model = fishr.load_model(measured if column.h3.text == "measured" else other_once)
        assert facts["trained parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    # Of the same data, once; the model's mistakes twice; of one run alone, in a column of its own.
    assert not page.select("#data .columns")
    assert [one.h3.text for one in page.select("#classes .columns > div")] == ["measured", "erm"]
    assert [one.h3.text for one in page.select("#landscapes .columns > div")] == ["measured"]


def test_two_runs_of_one_name_have_their_paths_and_headlines_their_ratio(measured, home, reported):
    shutil.copytree(measured, home / "other" / "measured")
    shutil.copy(measured / "analysis.h5", "measured.h5")  # a run is a run whatever file is beside it
    page = reported(measured, home / "other" / "measured", "--no-data")
    assert [cell.text for cell in page.select("#headlines th")][1:3] == ["measured", str(home / "other" / "measured")]
    assert all(row[3] in ("1", "–") for row in tables(page.select_one("#headlines"))[0])
    assert "All settings are equal." in page.select_one("#settings-that-differ").text


def test_two_files_stand_side_by_side(measured, reported):
    page = reported(measured / "analysis.h5", measured / "landscape-random.h5")
    assert [one.h3.text for one in page.select("#curvature .columns > div")] == ["measured"]
    assert page.select_one("#landscapes .columns h3").text == "landscape-random"


MARKS = """plot => {
  const count = (item) => (item.items ?? []).reduce(
    (sum, one) => sum + count(one), item.marktype && /marks$/.test(item.name ?? "") ? item.items.length : 0);
  return count(plot.view.scenegraph().root);
}"""


@pytest.mark.slow
def test_a_browser_draws_every_chart_of_two_runs(measured, other_once, reported, opened):
    reported(measured, other_once)
    for width, columns in ((390, 1), (1440, 2)):
        page = opened("report.html", width, "dark")
        for plot in page.locator(".plot").all():
            assert plot.evaluate(MARKS), plot.get_attribute("aria-label")
        left, right = (one.bounding_box() for one in page.locator("#classes .columns > div").all())
        assert (left["y"] == right["y"]) == (columns == 2)
