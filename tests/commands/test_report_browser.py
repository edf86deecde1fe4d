"""Pages in a browser: charts, sorted tables, the theme."""

import pytest

from fishr.reports import Page, Section, Table, write_page


@pytest.mark.slow
def test_a_browser_draws_sorts_and_changes_its_theme(finished, reported, opened):
    reported(finished)
    for width in (390, 1440):
        page = opened("report.html", width)
        assert [plot.locator(".mark-line path").count() for plot in page.locator("#learning-curves .plot").all()] == [
            4,
            4,
            2,
            1,
        ]

        def column(page=page):
            return page.locator("#result td:nth-child(2)").all_inner_texts()

        head = page.locator("#result th", has_text="accuracy")
        head.click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(column(), key=lambda text: float(text[:-1]))
        head.click()
        assert column() == sorted(column(), key=lambda text: -float(text[:-1]))

        plot = page.locator(".plot").first
        plot.scroll_into_view_if_needed()
        plot.hover(position={"x": 200, "y": 150})
        assert "flip 0.2" in page.locator("#vg-tooltip-element.visible").inner_text()

        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        page.wait_for_function("document.documentElement.dataset.drawn === 'dark'")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert page.locator(".mark-line path").count() == 11
    assert opened("report.html", 390, "dark").locator("#theme").inner_text() == "Light"


@pytest.mark.slow
def test_a_browser_sorts_numbers_by_size_and_texts_by_their_numbers(home, opened):
    rows = [("env 10", 10.0), ("env 9", 9.0), ("env 1", None), ("env 2", 1e-5), ("env 3", 200.0)]
    write_page(Page("sorted", "", [Section("Table", [Table(("name", "value"), rows)])]), home / "table.html")
    page = opened("table.html", 390)
    for head, orders in (
        ("value", (["2", "9", "10", "3", "1"], ["3", "10", "9", "2", "1"])),
        ("name", (["1", "2", "3", "9", "10"],)),
    ):
        for order in orders:
            page.locator("th", has_text=head).click()
            assert page.locator("td:first-child").all_inner_texts() == [f"env {number}" for number in order]
