"""Pages: parsed as HTML, with texts that try to leave their place."""

import json
import math
import sys

import pytest
from bs4 import BeautifulSoup

from fishr.errors import InputError
from fishr.reports import Chart, Columns, Facts, Listing, Page, Picture, Section, Table, Text, page_html, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>"


def parsed(*blocks):
    return BeautifulSoup(page_html(Page("a run", "of 7 steps", [Section("All of it", blocks)])), "html.parser")


def test_every_block_is_where_a_reader_finds_it():
    picture, chart = Picture("photo", "data:image/png;base64,", "a dog"), Chart("risk", {"mark": "line"}, "falls")
    blocks = [Text("words"), Facts({"seed": "3"}), Listing("a = 1", "config"), Listing("bare"), chart, chart, picture]
    page = parsed(*blocks, Columns([("one", [Text("left")]), ("two", [chart])]))
    section = page.select_one("main > section#all-of-it")
    assert section.h2.text == "All of it"
    assert page.select_one("nav a")["href"] == "#all-of-it"
    assert [section.p.text, section.dt.text, section.dd.text] == ["words", "seed", "3"]
    assert [one.text for one in section.select("pre")] == ["a = 1", "bare"]
    assert section.select_one("details > summary").text == "config"
    assert len(section.select(":scope > .plots")) == 1
    assert len(section.select(":scope > .plots > .chart")) == 2
    assert section.select_one(".pictures img")["alt"] == "a dog"
    assert section.select_one(".plot")["aria-label"] == "risk: falls"
    assert [one.h3.text for one in section.select(".columns > div")] == ["one", "two"]
    assert section.select_one(".columns .chart script").string == '{"mark":"line"}'


def test_a_table_shows_numbers_in_their_format_and_sorts_by_their_values():
    rows = [("photo", 0.12345, 10_000), ("sketch", None, 5), ("art", math.nan, 7)]
    table = parsed(Table(("domain", "accuracy", "samples"), rows, ("", ".1%", ",d"), "Scores.", [1]))
    cells = [[(cell.get("data-key"), cell.text) for cell in row.select("td")] for row in table.select("tbody tr")]
    assert cells[0] == [("photo", "photo"), ("0.12345", "12.3%"), ("10000", "10,000")]
    assert cells[1][1] == cells[2][1] == ("", "–")
    assert [row.get("class") for row in table.select("tbody tr")] == [None, ["strong"], None]
    assert table.select_one(".scroll")["aria-label"] == table.select_one(".caption").text == "Scores."


def test_no_text_becomes_markup_and_nothing_comes_from_elsewhere():
    spec = {"mark": "line", "title": HOSTILE}
    blocks = [Text(HOSTILE), Facts({HOSTILE: HOSTILE}), Listing(HOSTILE, HOSTILE), Chart(HOSTILE, spec, HOSTILE)]
    page = parsed(*blocks, Table((HOSTILE,), ((HOSTILE,),)), Picture(HOSTILE, "data:,", HOSTILE))
    assert [image["src"] for image in page.select("img")] == ["data:,"]
    assert json.loads(page.select_one(".chart script").string) == spec
    assert page.select_one("td").text == page.select_one("td")["data-key"] == HOSTILE
    assert not page.select("script[src], link[rel=stylesheet], iframe, [onerror]")
    assert [link["href"] for link in page.select("link")] == ["data:,"]


def test_without_the_scripts_of_the_charts_an_error_says_what_to_install(monkeypatch, tmp_path):
    from fishr.reports import page

    page.chart_scripts.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match=r"vl_convert is not installed; run pip install -e '\.\[report\]'"):
        write_page(Page("a run", "", []), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
