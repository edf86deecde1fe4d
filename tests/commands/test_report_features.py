"""The report of a file of features: what it holds, where it comes from, and its principal components."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from report_pages import charts, rows, tables

from fishr.data.caches import open_features
from fishr.reports.features_page import features_page, principal_components

SMALL = ("--set", "featurizer.widths=[8]", "--set", "data.training_images=60", "--set", "data.copies=1")


@pytest.fixture
def features(call, home):
    said = call("cache", "features", "colored-digits", *SMALL, "-o", "features.h5")
    assert said.code == 0, said
    return home / "features.h5"


def test_the_page_has_what_the_file_holds(features, reported):
    page, cache = reported(features), open_features(features)
    assert "in 4 domains" in page.header.text
    labels = [cache.domain(index)["labels"] for index in range(4)]
    (counts,) = tables(page.select_one("#domains"))
    assert counts == [
        [section.name, section.split, f"{section.rows:,}", *(f"{int((found == k).sum()):,}" for k in range(2))]
        for section, found in zip(cache.sections, labels, strict=True)
    ]
    content = page.select_one("#content")
    assert "widths = [" in content.select("pre")[0].text
    assert "ColoredDigits" in content.select("pre")[1].text
    assert len(page.select("#samples img")) == 4
    assert page.select_one("#origin pre").text == cache.provenance["experiment"]


def test_points_are_samples_of_each_domain(features, reported, monkeypatch):
    # Domains of 497 rows are read in slices, those of 30 at once.
    monkeypatch.setitem(features_page.__globals__, "_SMALL", 400)
    page, cache = reported(features, "--no-data"), open_features(features)
    assert page.select_one("#samples") is None
    by_domain, by_class = charts(page.select_one("#principal-components")).values()
    points = rows(by_domain)
    assert rows(by_class) == points
    for index, section in enumerate(cache.sections):
        found = [row for row in points if row["domain"] == section.name]
        assert len(found) == min(section.rows, 375)
        if section.rows <= 375:
            assert [int(row["class"]) for row in found] == cache.domain(index)["labels"].tolist()
    # In the order of the file, on which the colors depend.
    names = [section.name for section in cache.sections]
    color = by_domain["encoding"]["color"]
    assert (color["field"], color["scale"]["domain"]) == ("domain", names)
    assert by_class["params"][0]["bind"]["options"] == ["all", *names]


def test_components_are_those_of_the_covariance():
    features = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features[:, 2] *= 5
    points, shares = principal_components(features)
    values, vectors = np.linalg.eigh(np.cov(features.numpy().T))
    expected = (features - features.mean(0)).numpy() @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points.numpy()), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum())
    alike, none = principal_components(torch.ones(3, 1))
    assert (alike.shape, none) == ((3, 2), [0.0, 0.0])


def test_samples_that_are_not_at_hand_are_explained(call, home, reported):
    said = call("cache", "features", "colored-digits", *SMALL, "-o", "features.h5", "--format", "json")
    assert json.loads(said.out)["written"]
    from fishr.data.caches.feature_cache import write_features

    cache = open_features(Path("features.h5"))
    text = cache.provenance["experiment"].replace('kind = "ColoredDigits"', 'kind = "Other"')
    provenance = cache.provenance | {"experiment": text}

    def compute(domain, start, stop):
        return cache.domain(domain, start, stop)

    write_features(Path("other.h5"), provenance, cache.head, cache.sections, compute, part_rows=1000)
    assert "Samples are not shown: " in reported("other.h5").select_one("#samples").text


@pytest.mark.slow
def test_a_browser_draws_the_points_of_a_class(features, reported, opened):
    reported(features)
    for width in (390, 1440):
        page = opened("report.html", width)
        view = "document.querySelector('#principal-components .plot').view"
        marks = f"{view}.scenegraph().root.items[0].items.find(one => one.name === 'marks').items"
        before = page.evaluate(f"{marks}.length")
        page.locator("#principal-components").get_by_label("class").select_option("1")
        page.wait_for_function(f"{marks}.length < {before}")
        assert page.evaluate(f"{marks}.every(one => one.datum.class === '1')")
