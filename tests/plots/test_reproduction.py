"""The figure of a reproduced table: bars are measured, diamonds published."""

import numpy as np
import pytest
from matplotlib.image import imread

from fishr.plots import reproduction, save_reproduction_figure
from fishr.reproductions import COLUMNS, Accuracy, Row


def _row(method, means, published=None):
    def columns(values):
        return {column: Accuracy(value, 1.0 + index) for index, (column, value) in enumerate(values)}

    pairs = zip(COLUMNS, means, strict=True)
    return Row(method, 3, columns(pairs), columns(zip(COLUMNS, published, strict=True)) if published else None)


@pytest.fixture
def draw(tmp_path, monkeypatch):
    figures = []
    save = reproduction.save

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(reproduction, "save", keep)

    def drawn(rows):
        path = save_reproduction_figure(rows, "a table", tmp_path / "figure.png")
        assert path == tmp_path / "figure.png"
        pixels = imread(path)
        assert pixels.shape[1] >= 800
        (axes,) = figures[-1].axes
        return axes

    return drawn


def _bars(axes):
    return [bar.get_height() for container in axes.containers if hasattr(container, "patches") for bar in container]


def test_bars_and_diamonds(draw):
    axes = draw([_row("erm", (86, 14, 71), (86.4, 14.0, 71.0)), _row("fishr", (71, 70, 68), (71.0, 69.5, 70.2))])
    # By column, then by method.
    assert _bars(axes) == [86, 71, 14, 70, 71, 68]
    diamonds = [line.get_xydata() for line in axes.get_lines() if line.get_marker() == "D"]
    np.testing.assert_allclose([points[:, 1] for points in diamonds], [(86.4, 71.0), (14.0, 69.5), (71.0, 70.2)])
    bars = [bar for container in axes.containers if hasattr(container, "patches") for bar in container]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    np.testing.assert_allclose(np.concatenate([points[:, 0] for points in diamonds]), centres)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(legend) == ["colours reversed", "no colours", "published", "training domains"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ERM", "Fishr"]


def test_nothing_published(draw):
    axes = draw([_row("vrex", (80, 50, 65))])
    assert [line for line in axes.get_lines() if line.get_marker() == "D"] == []
    assert "published" not in [text.get_text() for text in axes.get_legend().get_texts()]


def test_only_some_published(draw):
    axes = draw([_row("irm", (80, 50, 65), (1, 2, 3)), _row("vrex", (80, 50, 65))])
    diamonds = [line.get_xydata()[:, 1].tolist() for line in axes.get_lines() if line.get_marker() == "D"]
    assert diamonds == [[1], [2], [3]]


def test_error_bars_are_deviations(draw):
    axes = draw([_row("erm", (80, 50, 65))])
    (segments,) = [c.lines[2][0].get_segments() for c in axes.containers if not hasattr(c, "patches")][:1]
    np.testing.assert_allclose(segments[0][:, 1], (79, 81))


def test_low_bars_have_a_number_one_can_read(draw):
    """White on white would be none."""
    axes = draw([_row("erm", (80, 2, 0))])
    colors = {text.get_text(): text.get_color() for text in axes.texts}
    assert colors == {"80": "white", "2": "black", "0": "black"}
