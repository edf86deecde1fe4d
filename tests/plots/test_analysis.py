"""Figures of analyses: what is drawn is what was found, and every text can be read."""

from itertools import combinations

import attrs
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text
from torch import nn

from fishr.analysis import History, Settings, Subject, analyze
from fishr.data import Domain
from fishr.diagnostics import Quantity
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.plots.analysis import check_figures, history_figure, save_analysis_figures
from fishr.plots.analysis_curvature import density_figure, scatter_figure, spectra_figure
from fishr.plots.analysis_pairs import pairs_figure

NAMES = ("art painting", "cartoon", "photo", "sketch")


def _analysis(name, domains=NAMES, training=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def domain(name, rows):
        inputs = torch.randn(rows, 4, generator=generator) + torch.randn(4, generator=generator)
        return Domain(name, inputs, torch.randint(3, (rows,), generator=generator))

    splits = tuple("training" if index < training else "evaluation" for index in range(len(domains)))
    made = tuple(domain(one, 20 + 3 * index) for index, one in enumerate(domains))
    source = {"path": name, "kind": "run", "key": f"{name}{seed}", "step": "5"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(4, 3)
    return analyze(Subject.from_domains(name, head, CrossEntropy(), made, splits, source=source))


def _history(name, steps=(0, 10, 20), start=0.1):
    count = len(steps)
    falling = start * torch.exp(-torch.arange(count, dtype=torch.float64))
    cosine = torch.linspace(0.5, 0.9, 2 * count, dtype=torch.float64).reshape(count, 2)
    ones = torch.ones(count, 2)
    return History(name, torch.tensor(steps), ones, {}, falling, 2 * falling, cosine, 3 * falling, finished=True)


@pytest.fixture(scope="module")
def analyses():
    return [_analysis("erm"), _analysis("fishr", seed=1)]


@pytest.fixture(scope="module")
def pairs():
    """An analysis of two domains."""
    return [_analysis("erm", NAMES[:2], 2)]


@pytest.fixture(scope="module")
def alone():
    """Two analyses of a single domain."""
    return [_analysis(name, NAMES[:1], 1, seed) for seed, name in enumerate(("erm", "fishr"))]


def _texts_apart(figure):
    """No two texts of a figure cover each other, and none is cut off."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, frame, beyond = canvas.get_renderer(), figure.bbox, _labels_beyond(figure)
    shown = []
    for text in figure.findobj(Text):
        box = text.get_window_extent(renderer)
        if text.get_text() and text.get_visible() and text not in beyond and box.width > 1:
            shown.append((text.get_text(), box))
    for name, box in shown:
        assert box.x0 >= -1, name
        assert box.y0 >= -1, name
        assert box.x1 <= frame.x1 + 1, name
        assert box.y1 <= frame.y1 + 1, name
    for (one, a), (other, b) in combinations(shown, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # The frames of slanted names overlap though their letters do not.
        assert min(wide, high) <= 1.5 or {one, other} <= set(NAMES), (one, other)
    return len(shown)


def _labels_beyond(figure):
    """Labels of ticks that are made but not drawn: beyond the axis, or of axes that are hidden."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks() if axes.get_visible() else []
            for tick in {*axis.majorTicks, *axis.minorTicks} - set(drawn):
                beyond |= {tick.label1, tick.label2}
    return beyond


def _panels(figure):
    return [axes for axes in figure.axes if axes.get_images() and axes.get_label() != "<colorbar>"]


@pytest.mark.slow
def test_heat_maps_hold_the_pairs(analyses):
    panels = _panels(pairs_figure(analyses))
    assert len(panels) == 8
    for row, analysis in enumerate(analyses):
        q = analysis.quantities
        images = [np.ma.filled(axes.get_images()[0].get_array(), np.nan) for axes in panels[4 * row : 4 * row + 4]]
        for image, pairs, each in (
            (images[0], "variance_distances", "gradient_variance"),
            (images[1], "hessian_diagonal_distances", "hessian_diagonal"),
        ):
            mean = q[each].value[:3].mean(0)
            expected = (q[pairs].value / (mean @ mean)).numpy()
            off = ~np.eye(4, dtype=bool)
            np.testing.assert_allclose(image[off], expected[off], rtol=1e-9)
            assert np.isnan(np.diag(image)).all()
        np.testing.assert_array_equal(images[2], q["hessian_cosines"].value.numpy())
        np.testing.assert_array_equal(images[3], q["gradient_cosines"].value.numpy())
    for column in range(4):
        # The same color says the same number in every row.
        one, other = (panels[4 * row + column].get_images()[0] for row in (0, 1))
        assert (one.norm.vmin, one.norm.vmax) == (other.norm.vmin, other.norm.vmax)
    assert panels[2].get_images()[0].norm.vmin == -1


@pytest.mark.slow
def test_heat_maps_say_their_numbers(analyses):
    axes = _panels(pairs_figure(analyses[:1]))[3]
    cosines = analyses[0].quantities["gradient_cosines"].value
    assert [text.get_text() for text in axes.texts] == [
        f"{float(value):.2f}".replace("-", "−") for value in cosines.flatten()
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(NAMES)
    many = _analysis("many", tuple(f"domain {index}" for index in range(10)), 9)
    assert not _panels(pairs_figure([many]))[0].texts


@pytest.mark.slow
def test_domains_that_agree_to_the_bit(analyses):
    """A logarithmic color has no place for zero."""
    q = analyses[0].quantities
    name = "variance_distances"
    zero = attrs.evolve(q[name], value=torch.zeros_like(q[name].value))
    figure = pairs_figure([attrs.evolve(analyses[0], quantities=q | {name: zero})])
    assert _texts_apart(figure)
    assert {text.get_text() for text in _panels(figure)[0].texts} == {"–", "0"}


def test_a_point_a_parameter(analyses):
    figure = scatter_figure(analyses)
    assert len(figure.axes) == 8
    for row, analysis in enumerate(analyses):
        for index, name in enumerate(NAMES):
            axes = figure.axes[4 * row + index]
            (points,) = axes.collections
            v, h = (analysis.quantities[n].value[index] for n in ("gradient_variance", "hessian_diagonal"))
            np.testing.assert_array_equal(points.get_offsets(), np.stack([h, v], 1))
            cosine = float(v @ h / (v.norm() * h.norm()))
            assert f"cos = {cosine:.3f}" == axes.texts[0].get_text()
            split = "training" if index < 3 else "evaluation"
            assert axes.get_title("left") == f"{name} ({split})"
            assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_parameters_without_a_place_are_counted(analyses):
    q = analyses[0].quantities
    hessian = q["hessian_diagonal"].value.clone()
    hessian[1, :3] = torch.tensor([0.0, -1.0, 1e-12])
    changed = attrs.evolve(q["hessian_diagonal"], value=hessian)
    axes = scatter_figure([attrs.evolve(analyses[0], quantities=q | {"hessian_diagonal": changed})]).axes[1]
    assert axes.texts[0].get_text().endswith("3 of 15 near 0 or negative")
    assert len(axes.collections[0].get_offsets()) == 12


def test_dots_are_the_eigenvalues(analyses):
    figure = spectra_figure(analyses)
    for axes, analysis in zip(figure.axes, analyses, strict=True):
        for line, row in zip(axes.get_lines()[::2], analysis.quantities["top_eigenvalues"].value, strict=True):
            np.testing.assert_allclose(line.get_xdata(), np.arange(1, len(row) + 1))
            np.testing.assert_allclose(line.get_ydata(), row.where(row >= 0, torch.nan))
        assert axes.get_yscale() == "log"
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    names = [f"{name} ({'training' if index < 3 else 'evaluation'})" for index, name in enumerate(NAMES)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_negative_eigenvalues_are_hollow(analyses):
    q = analyses[0].quantities
    eigenvalues = attrs.evolve(q["top_eigenvalues"], value=torch.tensor([[2.0, -0.5]] * 4, dtype=torch.float64))
    figure = spectra_figure([attrs.evolve(analyses[0], quantities=q | {"top_eigenvalues": eigenvalues})])
    lines = figure.axes[0].get_lines()
    for solid, hollow in zip(lines[::2], lines[1::2], strict=True):
        np.testing.assert_array_equal(solid.get_ydata(), [2.0, np.nan])
        np.testing.assert_array_equal(hollow.get_xydata(), [[2, 0.5]])
        assert (solid.get_markerfacecolor(), hollow.get_markerfacecolor()) == (solid.get_color(), "none")
    assert figure.legends[0].get_title().get_text().startswith("hollow: negative")
    assert not spectra_figure([_positive(analyses[0])]).legends[0].get_title().get_text()


def _positive(analysis):
    q = analysis.quantities
    positive = attrs.evolve(q["top_eigenvalues"], value=q["top_eigenvalues"].value.abs())
    return attrs.evolve(analysis, quantities=q | {"top_eigenvalues": positive})


def test_a_domain_has_one_color_in_both_runs(analyses):
    """Runs with other test domains have the same domains in another order."""
    names = ("sketch", "photo", "cartoon", "art painting")
    one, other = spectra_figure([analyses[0], attrs.evolve(analyses[1], domains=names)]).axes
    colors = [{line.get_label()[:5]: line.get_color() for line in axes.get_lines()[::2]} for axes in (one, other)]
    assert colors[0] == colors[1]
    assert len(set(colors[0].values())) == 4


def test_density_of_a_whole_network(analyses):
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(4, 2, 30, generator=generator, dtype=torch.float64)
    density = Quantity("spectral_density", value, ("domain", "eigenvalue and density", "point"), "1", "all eigenvalues")
    with_network = [attrs.evolve(analysis, network={"spectral_density": density}) for analysis in analyses]
    figure = density_figure(with_network)
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        for line, (at, height) in zip(axes.get_lines(), value, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), torch.stack([at, height], 1))
    assert _texts_apart(figure) > 10


def test_curves_are_the_history():
    histories = [_history("erm"), _history("fishr", start=0.01)]
    figure = history_figure(histories)
    variance, hessian, inconsistency, cosine = figure.axes
    for axes, name in (
        (variance, "variance_distance"),
        (hessian, "hessian_distance"),
        (inconsistency, "inconsistency"),
    ):
        assert axes.get_yscale() == "log"
        for line, history in zip(axes.get_lines(), histories, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [0, 10, 20])
            np.testing.assert_array_equal(line.get_ydata(), getattr(history, name))
    np.testing.assert_allclose(cosine.get_lines()[0].get_ydata(), histories[0].cosine.mean(1))
    colors = [line.get_color() for line in variance.get_lines()]
    assert len(set(colors)) == 2
    assert [line.get_color() for line in cosine.get_lines()] == colors
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["erm", "fishr"]


def test_a_history_of_one_record_or_with_zeros():
    assert history_figure([_history("erm", steps=(7,))]).axes[0].get_lines()[0].get_marker() == "o"
    history = _history("fishr")
    flat = attrs.evolve(history, variance_distance=torch.tensor([0.1, 0.0, 0.1], dtype=torch.float64))
    shown = history_figure([flat]).axes[0].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(shown), [False, True, False])


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_every_text_can_be_read(analyses, many):
    shown = analyses if many else analyses[:1]
    histories = [_history("erm"), _history("fishr", start=0.01)][: len(shown)]
    for figure in (pairs_figure(shown), scatter_figure(shown), spectra_figure(shown), history_figure(histories)):
        assert _texts_apart(figure) > 10


@pytest.mark.slow
def test_the_files(pairs, tmp_path):
    paths = save_analysis_figures(pairs[:1], [_history("erm")], tmp_path / "new" / "figures")
    assert [path.name for path in paths] == ["pairs.png", "curvature.png", "spectra.png", "history.png"]
    for path in paths:
        height, width, _ = imread(path).shape
        assert 300 <= height <= 2500, path
        assert 500 <= width <= 2500, path
        pixels = imread(path)[..., :3].reshape(-1, 3)
        assert len(np.unique(np.rint(pixels * 255) @ [65536, 256, 1])) > 50
    assert sorted(path.name for path in (tmp_path / "new" / "figures").iterdir()) == sorted(p.name for p in paths)


@pytest.mark.slow
def test_a_single_domain_has_no_pairs(alone, tmp_path):
    paths = save_analysis_figures(alone[:1], [], tmp_path / "alone")
    assert [path.name for path in paths] == ["curvature.png", "spectra.png"]


@pytest.mark.slow
def test_figures_of_another_analysis_stay(alone, tmp_path):
    save_analysis_figures(alone[:1], [], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    save_analysis_figures(alone[:1], [], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    others = (alone[1:], alone, [attrs.evolve(alone[0], settings=Settings(seed=1))])
    for other in others:
        with pytest.raises(InputError, match=r"curvature.png: is not of this analysis; choose another folder with --f"):
            save_analysis_figures(other, [], tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    save_analysis_figures(alone[1:], [], tmp_path, replace=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} != before


def test_a_place_that_is_none(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match="notes: a file, expected a folder for figures"):
        check_figures(tmp_path / "notes", [])
    (tmp_path / "pairs.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"pairs.png: is not of this analysis"):
        check_figures(tmp_path, [])


def test_a_figure_that_cannot_be_written(alone, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"pairs.png: cannot be created, since .*file is not a folder"):
        save_analysis_figures(alone[:1], [], tmp_path / "file" / "figures")
