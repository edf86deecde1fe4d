"""Pictures of landscapes: what is drawn is what the file holds, whatever the file holds."""

from functools import partial

import attrs
import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from fishr.errors import InputError
from fishr.landscape import (
    Directions,
    Frames,
    Scores,
    Surface,
    axis,
    chord,
    random_directions,
    random_lines,
    save_surface,
)
from fishr.plots.landscape import check_pictures, interpolation_figure, line_figure, picture_of, save_landscape_figures
from fishr.plots.landscape_planes import contour_figure, level_set_figure, levels_of
from fishr.plots.style import COLORS

WEIGHTS = {"weight": torch.tensor([[3.0, 4.0], [1.0, 0.0]])}
NAMES, SPLITS = ("photo", "sketch", "art", "cartoon", "quickdraw"), ("training", "training", "evaluation")


def _bowls(count=3, shape=(11, 9), floor=0.1, frames=0, kind="random"):
    """Domain k has its minimum at α = 0.3·k."""
    xs, ys = (axis(-1.0, 1.0, n) for n in shape)
    losses = torch.stack([floor + (xs[:, None] - 0.3 * k) ** 2 + 2 * ys**2 for k in range(count)])
    seen = torch.stack([losses + frame for frame in range(frames, 0, -1)]) if frames else None
    found = random_directions(WEIGHTS, 0)
    points = torch.tensor([[-0.8, -0.5], [-0.4, 0.2], [0.0, 0.0]], dtype=torch.float64)
    directions = found
    if kind != "random":
        explained = (0.9, 0.08) if kind == "pca" else ()
        labels = ("step 0", "step 10", "step 20")
        directions = Directions(kind, found.vectors, ("first", "second"), None, points, labels, explained)
    return Surface(
        directions,
        (xs, ys),
        NAMES[:count],
        tuple(SPLITS[min(k, 2)] for k in range(count)),
        Scores(losses, torch.exp(-losses)),
        ("weight",),
        "by hand",
        None if seen is None else Frames(tuple(range(0, 10 * frames, 10)), Scores(seen, seen)),
        {"path": "runs/mine"},
        '{"parameters": "head"}',
    )


def _lines(count=4):
    xs = axis(-1.0, 1.0, 7)
    slopes = torch.arange(1.0, count + 1).double()
    losses = torch.stack([0.1 + k + slopes * xs[:, None] ** 2 for k in range(2)])
    return Surface(
        random_lines(WEIGHTS, 0, count),
        (xs,),
        NAMES[:2],
        ("training", "evaluation"),
        Scores(losses, losses / 10),
        ("weight",),
        "by hand",
        source={"path": "runs/mine"},
    )


def _between(losses):
    losses = torch.tensor(losses, dtype=torch.float64).unsqueeze(2)
    directions = chord(WEIGHTS, {"weight": torch.zeros(2, 2)}, ("one", "other"))
    xs = torch.linspace(0, 1, losses.shape[1], dtype=torch.float64)
    splits = ("training", "evaluation")[: len(losses)]
    return Surface(directions, (xs,), NAMES[: len(losses)], splits, Scores(losses, losses / 9), ("weight",), "")


def _texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_contours_have_one_scale_and_one_color_bar():
    figure = contour_figure(_bowls())
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == 3
    assert len(figure.axes) == 4
    norms = [axes.collections[0].norm for axes in panels]
    assert {(norm.vmin, norm.vmax) for norm in norms} == {(norms[0].vmin, norms[0].vmax)}
    assert isinstance(norms[0], LogNorm)
    assert panels[1].get_title(loc="left") == "sketch (training)\nrisk at ★ 0.19"
    assert figure.get_suptitle() == "risk around mine (head parameters)"


def test_colors_are_the_risks():
    """The filled region that a point lies in is that of its own risk: no axis is transposed or flipped."""
    surface = _bowls(count=2)
    levels = levels_of(surface.scores.losses.numpy())
    panel = contour_figure(surface).axes[1]
    filled = panel.collections[0]
    for i, j in ((0, 4), (10, 4), (5, 0), (3, 7)):
        x, y, risk = float(surface.axes[0][i]), float(surface.axes[1][j]), float(surface.scores.losses[1, i, j])
        # A little towards the middle, because regions end at the border.
        inside = [k for k, path in enumerate(filled.get_paths()) if path.contains_point((0.98 * x, 0.98 * y))]
        at = np.searchsorted(levels.edges, risk) - 1
        assert inside
        assert min(abs(k - at) for k in inside) <= 1, (i, j)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_domains_has_room(count):
    figure = contour_figure(_bowls(count))
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == count
    boxes = [axes.get_tightbbox() for axes in panels]
    for index, one in enumerate(boxes):
        assert one.width > 100
        assert not any(one.overlaps(other) for other in boxes[index + 1 :])


def test_a_trajectory_is_drawn_with_its_explained_variance():
    figure = contour_figure(_bowls(kind="pca"))
    line = figure.axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xydata(), [[-0.8, -0.5], [-0.4, 0.2], [0.0, 0.0]])
    assert line.get_linestyle() == "-"
    texts = _texts(figure)
    assert "step 0" in texts
    assert "step 10" not in texts
    three = contour_figure(_bowls(kind="checkpoints"))
    assert three.axes[0].get_lines()[0].get_linestyle() == "None"
    assert {"step 0", "step 10", "step 20"} <= set(_texts(three))


def test_level_sets_of_all_domains_lie_in_one_picture():
    figure = level_set_figure(_bowls(shape=(41, 41)), epsilon=0.04)
    (axes,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split("\n")[0] for label in labels[:3]] == [
        "photo (training)",
        "sketch (training)",
        "art (evaluation)",
    ]
    assert "R* = 0.19" in labels[1]
    assert figure.get_suptitle().startswith("level sets R = R* ± ε, ε = 0.04; training domains' inconsistency 0.")
    # Photo's region is the ellipse x² + 2y² ≤ 0.04 around the star.
    outline = np.concatenate([path.vertices for path in axes.collections[1].get_paths()])
    np.testing.assert_allclose(outline[:, 0] ** 2 + 2 * outline[:, 1] ** 2, 0.04, atol=5e-3)
    assert -1 <= axes.get_xlim()[0] < -0.2
    assert axes.get_ylim()[1] < 0.9


def test_regions_beyond_the_plane_and_a_region_of_a_point():
    for epsilon in (100.0, 1e-9, 0.0):
        figure = level_set_figure(_bowls(), epsilon)
        figure.canvas.draw()
    assert "100% of the plane" in level_set_figure(_bowls(), 100.0).legends[0].get_texts()[0].get_text()


def test_lines_are_at_the_same_risks_in_every_panel():
    surface = _bowls()
    losses = surface.scores.losses.numpy()
    lines = levels_of(losses).lines
    assert 3 <= len(lines) <= 10
    figure = contour_figure(surface)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    for axes, risks in zip(panels, losses, strict=True):
        crossed = [line for line in lines if risks.min() < line < risks.max()]
        assert axes.collections[1].levels.tolist() == crossed
        assert {text.get_text() for text in axes.texts if text.get_text()[:1].isdigit()} <= {f"{c:g}" for c in crossed}
    assert figure.axes[-1].get_yticks().tolist() == lines.tolist()


def test_lines_are_means_and_bands():
    surface = _lines()
    left, right = line_figure(surface).axes
    curve = left.get_lines()[0]
    losses = surface.scores.losses[0]
    np.testing.assert_allclose(curve.get_ydata(), losses.mean(1).numpy())
    band = left.collections[0].get_paths()[0].vertices
    for x, low, high in zip(surface.axes[0], losses.amin(1), losses.amax(1), strict=True):
        heights = band[np.isclose(band[:, 0], float(x)), 1]
        assert heights.min() == pytest.approx(float(low))
        assert heights.max() == pytest.approx(float(high))
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), 100 * surface.scores.accuracies[0].mean(1).numpy())
    # Training dashed, evaluation solid, as in a run's own figure.
    assert [line.get_linestyle() for line in left.get_lines()[:2]] == ["--", "-"]


def test_an_interpolation_shows_its_barrier():
    figure = interpolation_figure(_between([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]]))
    left, _ = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["photo (training): barrier 1.5", "sketch (evaluation): barrier 0"]
    curves = [line.get_xydata().tolist() for line in left.get_lines()]
    assert [[0.5, 1.5], [0.5, 3.0]] in curves
    assert [[0.0, 1.0], [0.5, 1.5], [1.0, 2.0]] in curves


@pytest.mark.slow
@pytest.mark.parametrize(
    "surface",
    [
        _bowls(2, shape=(1, 1)),
        _bowls(2, shape=(1, 6)),
        _bowls(2, shape=(6, 1)),
        _bowls(2, shape=(2, 3)),
        _bowls(2, floor=0.0),
        _bowls(count=1),
        _bowls(count=5),
        _lines(1),
        _between([[1.0, 2.0]]),
        _between([[0.0, 0.0, 0.0]]),
        _bowls(2, kind="gradients"),
    ],
    ids=["a point", "a row", "a column", "few", "zero", "one domain", "five", "a line", "ends", "zeros", "arrows"],
)
def test_every_file_has_pictures(tmp_path, surface):
    save_surface(tmp_path / "a.h5", surface)
    drawn = save_landscape_figures(tmp_path / "a.h5")
    assert drawn
    for path in drawn:
        with Image.open(path) as image:
            assert image.size[0] > 300
            assert image.size[1] > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.h5", *(path.name for path in drawn)])


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.5, torch.nan, torch.inf])
def test_flat_unevaluated_and_infinite_planes_have_pictures(tmp_path, value):
    surface = _bowls(2)
    surface.scores.losses[:] = value
    save_surface(tmp_path / "a.h5", surface)
    assert len(save_landscape_figures(tmp_path / "a.h5")) == 2


@pytest.mark.slow
def test_holes_are_left_empty(tmp_path):
    surface = _bowls(2)
    surface.scores.losses[:, 8:] = torch.nan
    save_surface(tmp_path / "a.h5", surface)
    save_landscape_figures(tmp_path / "a.h5")
    panel = contour_figure(surface).axes[0]
    reach = max(path.vertices[:, 0].max() for path in panel.collections[0].get_paths() if len(path.vertices))
    assert reach == pytest.approx(float(surface.axes[0][7]))


@pytest.mark.slow
def test_a_film_has_a_frame_for_each_checkpoint(tmp_path):
    save_surface(tmp_path / "a.h5", _bowls(count=2, frames=3))
    assert save_landscape_figures(tmp_path / "a.h5")[-1] == tmp_path / "a.gif"
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3
        frames, sizes = [], set()
        for index in range(3):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB"), dtype=float))
            sizes.add(film.size)
    assert len(sizes) == 1
    # Risks fall from frame to frame, and on one scale the pictures darken.
    middle = [frame[frame.shape[0] // 2, frame.shape[1] // 4].sum() for frame in frames]
    assert middle[0] > middle[1] > middle[2]


def test_levels_are_ratios_where_the_risks_span_a_decade():
    wide, narrow = levels_of(np.array([0.01, 0.5, 1.0])), levels_of(np.array([0.5, 0.7, 1.0]))
    assert wide.logarithmic
    np.testing.assert_allclose(np.diff(np.log(wide.edges)), np.log(100) / 30)
    assert not narrow.logarithmic
    np.testing.assert_allclose(narrow.edges[[0, -1]], [0.5, 1.0])


def test_an_outlier_does_not_take_all_colors():
    risks = np.append(np.linspace(1.0, 2.0, 200), 1e9)
    levels = levels_of(risks)
    assert levels.edges[-1] <= 2.0
    assert levels.above
    assert not levels_of(np.linspace(1.0, 2.0, 200)).above


def test_pictures_of_others_are_not_overwritten(tmp_path):
    picture_of(tmp_path / "a.h5", "contours").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a-contours\.png: exists already, without a\.h5"):
        check_pictures(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"")
    check_pictures(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("figure", "surface"),
    [
        (line_figure, _lines()),
        (interpolation_figure, _between([[1.0, 2.0, 1.0]])),
        (partial(level_set_figure, epsilon=0.1), _bowls(2)),
    ],
)
def test_some_domains_have_the_colors_of_all(figure, surface):
    def colors(every):
        lines = figure(attrs.evolve(surface, every=every)).findobj(Line2D)
        return {line.get_color() for line in lines} & set(COLORS[:6])

    count = len(surface.domains)
    assert colors(surface.domains) == set(COLORS[:count])
    assert colors(("first", *surface.domains)) == set(COLORS[1 : count + 1])
