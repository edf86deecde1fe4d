"""The figure of a reproduced table: images of the domains, bars are measured, diamonds published."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from fishr.data import ColoredDigits
from fishr.plots import reproduction, save_reproduction_figure
from fishr.reproductions import COLUMNS, Accuracy, Row

DATA = ColoredDigits(flips=(0.3, 0.1), test_flip=0.9, label_noise=0.2, training_images=100)


def _row(method, means, published=None):
    def columns(values):
        return {column: Accuracy(value, 1.0 + index) for index, (column, value) in enumerate(values)}

    pairs = zip(COLUMNS, means, strict=True)
    return Row(method, 3, columns(pairs), columns(zip(COLUMNS, published, strict=True)) if published else None)


@pytest.fixture
def draw_both(tmp_path, figures_of):
    figures = figures_of(reproduction)

    def drawn(rows):
        path = save_reproduction_figure(rows, DATA, DATA(0, None), tmp_path / "figure.png")
        assert path == tmp_path / "figure.png"
        pixels = imread(path)
        assert pixels.shape[1] >= 800
        return figures[-1].axes

    return drawn


@pytest.fixture
def draw(draw_both):
    """The bars of the figure of some rows."""
    return lambda rows: draw_both(rows)[1]


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
    assert sorted(legend) == ["colors reversed", "no colors", "published", "training domains"]
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


@pytest.mark.slow
def test_low_bars_have_a_number_one_can_read(draw):
    """White on white would be none."""
    axes = draw([_row("erm", (80, 2, 0))])
    colors = {text.get_text(): text.get_color() for text in axes.texts if text.get_text().isdigit()}
    assert colors == {"80": "black", "2": "black", "0": "black"}
    axes = draw([_row("erm", (80, 20, 30))])
    bars = [container[0].get_facecolor() for container in axes.containers if hasattr(container, "patches")]
    for bar, number in zip(bars, ("80", "20", "30"), strict=True):
        (ink,) = [text.get_color() for text in axes.texts if text.get_text() == number]
        assert abs(_luminance(to_rgb(ink)) - _luminance(bar[:3])) > 0.4


def _luminance(color):
    return np.dot((0.299, 0.587, 0.114), color)


def test_chance_and_the_best_without_color_are_marked(draw):
    axes = draw([_row("erm", (80, 20, 30))])
    marks = {text.get_text(): text.xy[1] for text in axes.texts if not text.get_text().isdigit()}
    assert marks == {"chance": 50, "best\nwithout\ncolor": 80}
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == [50, 80]


def test_images_stand_beside_the_bars(draw_both):
    """Five of each label of each domain, in the colors of the two channels."""
    strip, _ = draw_both([_row("erm", (80, 20, 30))])
    domains = DATA(0, None)
    shown = iter([image.get_array() for image in strip.get_images()])
    for domain in (*domains.training, *domains.evaluation):
        for label in (1, 0):
            for image in domain.inputs[domain.labels == label][:5]:
                red, _, blue = np.moveaxis(np.asarray(next(shown)), -1, 0)
                np.testing.assert_allclose((blue, red), image, atol=1e-6)
    assert next(shown, None) is None
    assert [text.get_text() for text in strip.texts if text.get_text() != "■"] == [
        "label 0 to 4: orange",
        "label 5 to 9: blue",
        "training domains: 70 and 90 % in that color",
        "colors reversed: 10 % in that color",
        "no colors",
        "20 % of the labels are wrong, in every domain,\nso without color 80 % is the best possible.",
    ]
