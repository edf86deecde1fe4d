"""A run's figure: what is drawn is what metrics.jsonl holds."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from fishr.errors import RunFailed
from fishr.plots import run, save_run_figure

# Names whose alphabetical order, in which JSON is written, is not that of the domains.
DOMAINS = ("flip 0.2", "flip 0.1", "reversed")


def _step(step, value=0.5, weight=2.0):
    return {
        "step": step,
        "loss": 1.0,
        "risk": 0.15 + step,
        "domain_losses": {"flip 0.1": 0.1 + step, "flip 0.2": 0.2 + step},
        "terms": {"mine": {"value": value, "weight": weight}},
    }


def _evaluation(step):
    splits = ("training", "training", "evaluation")
    scores = [
        {"name": name, "split": split, "samples": 4, "accuracy": 0.1 * (index + 1), "loss": 1.0}
        for index, (name, split) in enumerate(zip(DOMAINS, splits, strict=True))
    ]
    return {"step": step, "scores": scores}


@pytest.fixture
def draw(tmp_path, figures_of):
    """The figure of some lines of metrics, saved and returned."""
    figures = figures_of(run)

    def drawn(lines, configuration=""):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
        (tmp_path / "result.json").write_text('{"name": "my run"}')
        (tmp_path / "config.toml").write_text(configuration)
        path = save_run_figure(tmp_path)
        assert path == tmp_path / "figure.png"
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "config.toml",
            "figure.png",
            "metrics.jsonl",
            "result.json",
        ]
        return figures[-1]

    return drawn


def _curves(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_a_step_without_a_domain_is_a_gap(draw):
    lines = [_step(0), _step(1), _step(2), _evaluation(3)]
    del lines[1]["domain_losses"]["flip 0.1"]
    curves = _curves(draw(lines).axes[0])
    np.testing.assert_array_equal(curves["flip 0.1 (training)"].get_ydata(), [0.1, np.nan, 2.1])
    np.testing.assert_array_equal(curves["flip 0.2 (training)"].get_ydata(), [0.2, 1.2, 2.2])


def test_curves_are_the_metrics(draw):
    lines = [_step(0, 0.5, 1.0), _step(1, 9.0, 3.0), _evaluation(2), _step(2, 40.0, 4.0), _evaluation(3)]
    figure = draw(lines)
    left, middle, right = figure.axes
    losses, penalties, accuracies = _curves(left), _curves(middle), _curves(right)
    assert list(losses) == ["flip 0.2 (training)", "flip 0.1 (training)"]
    assert list(accuracies) == ["flip 0.2 (training)", "flip 0.1 (training)", "reversed (evaluation)"]
    np.testing.assert_array_equal(losses["flip 0.1 (training)"].get_xydata(), [(0, 0.1), (1, 1.1), (2, 2.1)])
    np.testing.assert_allclose(penalties["mine"].get_xydata(), [(0, 0.5), (1, 3.0), (2, 10.0)])
    np.testing.assert_allclose(accuracies["flip 0.1 (training)"].get_xydata(), [(2, 20), (3, 20)])
    assert left.get_yscale() == "log"
    assert right.get_ylim() == (0, 100)
    assert left.get_xlim() == right.get_xlim()
    assert figure.get_suptitle() == "my run"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(losses | penalties | accuracies)


def test_a_risk_that_is_no_mean_is_drawn(draw):
    """GroupDRO's, or one with an adversary, which may be negative."""
    lines = [_step(0) | {"risk": 2.5}, _step(1) | {"risk": -1.0}, _evaluation(2)]
    left, _, right = draw(lines).axes
    np.testing.assert_array_equal(_curves(left)["risk, minimized"].get_xydata(), [(0, 2.5), (1, -1.0)])
    assert (left.get_yscale(), right.get_title("left")) == ("symlog", "accuracy")


def test_accuracies_of_averaged_weights_say_so(draw):
    *_, right = draw([_step(0), _evaluation(1)], '[average]\nkind = "EMA"\n').axes
    assert right.get_title("left") == "accuracy of the averaged weights"


def test_a_domain_has_one_color(draw):
    losses, penalties, accuracies = map(_curves, draw([_step(0), _evaluation(1)]).axes)
    for name, line in losses.items():
        assert line.get_color() == accuracies[name].get_color()
        assert line.get_linestyle() == accuracies[name].get_linestyle()
    colors = [line.get_color() for line in accuracies.values()] + [penalties["mine"].get_color()]
    assert len(set(colors)) == 4
    assert [line.get_linestyle() for line in accuracies.values()] == ["--", "--", "-"]


@pytest.mark.slow
def test_the_picture_shows_every_curve(draw, tmp_path):
    panels = draw([_step(step, 0.01 * (step + 1)) for step in range(30)] + [_evaluation(15), _evaluation(30)]).axes
    pixels = np.rint(imread(tmp_path / "figure.png")[..., :3] * 255).astype(int)
    assert (900 <= pixels.shape[1] <= 2000, 350 <= pixels.shape[0] <= 1000) == (True, True)
    width = pixels.shape[1]
    for axes in panels:
        box = axes.get_position()
        part = pixels[: int(0.8 * len(pixels)), int(box.x0 * width) : int(box.x1 * width)]
        for line in axes.get_lines():
            color = [int(to_hex(line.get_color())[i : i + 2], 16) for i in (1, 3, 5)]
            assert (part == color).all(axis=-1).sum() > 50, line.get_label()


def test_a_term_of_weight_zero_is_not_drawn(draw):
    assert len(draw([_step(0, 0.0, 0.0), _step(1, 0.0, 0.0), _evaluation(2)]).axes) == 2
    _, middle, _ = draw([_step(0, 0.0, 0.0), _step(1, 3.0, 1.5), _evaluation(2)]).axes
    np.testing.assert_array_equal(_curves(middle)["mine"].get_xydata(), [(1, 2.0)])


def test_negative_terms_have_a_place(draw):
    """The product of two half batches' gradients may have any sign."""
    left, middle, _ = draw([_step(0, -0.5), _step(1, 0.5), _evaluation(2)]).axes
    assert (left.get_yscale(), middle.get_yscale()) == ("log", "symlog")


@pytest.mark.parametrize("count", [1, 14])
def test_the_legend_is_below_the_panels(draw, count):
    names = [f"an environment of a long name {index}" for index in range(count)]
    score = {"split": "evaluation", "samples": 4, "accuracy": 0.5, "loss": 1.0}
    figure = draw([_step(0), _step(1), {"step": 2, "scores": [score | {"name": name} for name in names]}])
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 >= 0
    assert legend.y1 <= min(axes.xaxis.label.get_window_extent().y0 for axes in figure.axes)


def test_a_run_of_one_step_is_visible(draw):
    figure = draw([_step(0), _evaluation(1)])
    assert {line.get_marker() for axes in figure.axes for line in axes.get_lines()} == {"o"}


def test_terms_that_are_zero_all_along(draw):
    """V-REx of domains that agree: nothing to see on a logarithmic axis, and no warning."""
    _, middle, _ = draw([_step(0, 0.0), _step(1, 0.0), _evaluation(2)]).axes
    assert len(middle.get_lines()) == 1


def test_a_figure_that_cannot_be_written(draw, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(RunFailed, match=r"figure.png: could not be written \(No space left on device\)"):
        draw([_step(0), _evaluation(1)])
    assert not (tmp_path / "figure.png").exists()
    assert [path.name for path in tmp_path.iterdir() if ".tmp" in path.name] == []
