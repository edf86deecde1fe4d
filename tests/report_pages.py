"""Reports as a person sees them: made by the command, parsed, and opened in a browser where there is one."""

import csv
import json
import shutil
from pathlib import Path

import pytest


def tables(section):
    return [
        [[cell.text for cell in row.select("td")] for row in one.select("tbody tr")] for one in section.select("table")
    ]


def charts(section):
    """Each chart's specification by its title; all of them compile."""
    import vl_convert

    found = {one.figcaption.text: json.loads(one.script.string) for one in section.select(".chart")}
    for spec in found.values():
        vl_convert.vegalite_to_vega(spec)
    return found


def rows(spec):
    return list(csv.DictReader(spec["data"]["values"].splitlines()))


@pytest.fixture
def reported(call):
    """Make a report and return it parsed."""
    from bs4 import BeautifulSoup

    def make(*arguments):
        said = call("report", *arguments, "-o", "report.html", "--replace")
        assert said.code == 0, said
        text = Path("report.html").read_text()
        assert len(text) < 5e6
        return BeautifulSoup(text, "html.parser")

    return make


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here; install it to test reports in a browser")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser, home):
    """Open a page at a width, and hold it to no errors, no requests and no sideways scrolling."""
    pages, problems = [], []

    def open_page(path, width, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else problems.append(request.url),
        )
        page.goto((home / path).as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not problems
