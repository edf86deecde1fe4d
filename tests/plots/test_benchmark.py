"""The figure of a benchmark: dots with standard errors, diamonds for what was published."""

from itertools import combinations

import attrs
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from fishr.plots import benchmark
from fishr.plots.benchmark import save_benchmark_figure
from fishr.plots.style import COLORS
from fishr.protocols.domainbed.published import with_published
from fishr.protocols.domainbed.tables import Cell, Table, cell_of, row_of


def averages(selection, columns, name="averages", **rows):
    made = [row_of(a, [Cell() if v is None else cell_of(v) for v in values]) for a, values in rows.items()]
    return Table(name, selection, columns, tuple(made))


@pytest.fixture
def draw(tmp_path, figures_of):
    figures = figures_of(benchmark)

    def drawn(tables):
        path = save_benchmark_figure(tables, tmp_path / "figure.png")
        assert path == tmp_path / "figure.png"
        assert imread(path).shape[1] >= 600
        return figures[-1]

    return drawn


def dots(axes):
    """(x, y, color, marker) of every dot, and the ends of its error bar."""
    found = []
    for container in axes.containers:
        line, _, bars = container.lines
        ends = bars[0].get_segments()[0][:, 0] if container.has_xerr else None
        found.append((*line.get_xydata()[0], to_hex(line.get_color()).upper(), line.get_marker(), ends))
    return found


def test_a_dot_for_each_algorithm_and_selection(draw):
    training = averages("training", ("PACS", "VLCS"), ERM=([0.8, 0.9], [0.7]), Fishr=([0.85], None))
    oracle = averages("oracle", ("PACS", "VLCS"), ERM=([0.6], [0.5]), Fishr=([0.65], [0.75]))
    pacs, vlcs = draw([training, oracle]).axes
    assert [axes.get_title(loc="left") for axes in (pacs, vlcs)] == ["PACS, average", "VLCS, average"]
    assert [label.get_text() for label in pacs.get_yticklabels()] == ["ERM", "Fishr"]
    blue, green = COLORS[0], COLORS[2]
    found = dots(pacs)
    assert [(round(x, 6), round(y), color) for x, y, color, _, _ in found] == [
        (85, 0, blue),
        (85, 1, blue),
        (60, 0, green),
        (65, 1, green),
    ]
    assert {marker for *_, marker, _ in found} == {"o"}
    error = training.rows[0].cells[0].standard_error
    np.testing.assert_allclose(found[0][4], (85 - error, 85 + error))
    # Selections of an algorithm do not lie on each other; no trial is no dot.
    assert len({y for _, y, *_ in found}) == 4
    assert [round(x) for x, *_ in dots(vlcs)] == [70, 50, 75]
    # The first algorithm is on top.
    assert pacs.get_ylim() == (1.5, -0.5)


def test_published_numbers_are_diamonds_without_errors(draw):
    table = with_published(averages("oracle", ("PACS",), ERM=([0.8, 0.9],)))
    figure = draw([table])
    (axes,) = figure.axes
    assert [(round(x, 1), round(y), marker, ends is None) for x, y, _, marker, ends in dots(axes)] == [
        (85.0, 0, "o", False),
        (86.7, 1, "D", True),
        (86.9, 2, "D", True),
    ]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["test-domain validation (oracle)", "test-domain validation (oracle), published"]


def test_a_data_set_has_a_panel_for_each_test_domain(draw):
    """Beside its average, or in a row of its own where there are several data sets or published numbers."""
    average = averages("training", ("PACS",), ERM=([0.8],))
    domains = averages("training", ("A", "C"), "PACS", ERM=([0.7], [0.9]))
    panels = draw([average, domains]).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["PACS, average", "PACS, A", "PACS, C"]
    assert [round(dots(axes)[0][0]) for axes in panels] == [80, 70, 90]
    assert len({axes.get_position().y0 for axes in panels}) == 1
    first, *rest = draw([with_published(average), domains]).axes
    assert [label.get_text() for label in rest[0].get_yticklabels()] == ["ERM"]
    assert len(first.get_yticklabels()) > 1
    both = averages("training", ("PACS", "VLCS"), ERM=([0.8], [0.6]))
    titles = [axes.get_title(loc="left") for axes in draw([both, domains]).axes]
    assert titles == ["PACS, average", "VLCS, average", "PACS, A", "PACS, C"]


def test_what_has_no_numbers_is_named(draw):
    """A selection and an algorithm without numbers have no entry, no row, and a line below."""
    found = averages("training", ("PACS",), ERM=([0.8],), Fishr=(None,))
    without = averages("leave-one-out", ("PACS",), ERM=(None,))
    pairs = attrs.evolve(averages("leave-one-out", ("A",), "PACS", ERM=(None,)), lacks_pairs=True)
    figure = draw([found, without, pairs])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training-domain validation"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["ERM"]
    notes = figure.legends[0].get_title().get_text().split("\n")
    assert notes[1:] == [
        "leave-one-domain-out validation: no job has two test environments",
        "no number yet: Fishr",
    ]


def test_nothing_at_all_can_be_drawn(draw):
    (axes,) = draw([averages("leave-one-out", ("PACS",), ERM=(None,))]).axes
    assert dots(axes) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "name"), [(1, "A"), *((count, "An algorithm with a long name (sweep)") for count in (1, 2, 5))]
)
def test_no_texts_overlap(draw, count, name):
    columns = tuple(f"Data set {index}" for index in range(count))
    rows = {f"{name} {index}": [[0.5 + 0.01 * index, 0.6]] * count for index in range(6)}
    of = {"Data set 0": ("A", "C"), **dict.fromkeys(columns[1:], ("photo", "sketch", "clip art"))}
    tables = [averages(one, columns, **rows) for one in ("training", "leave-one-out", "oracle")]
    for dataset in columns:
        cells = {name: [[0.5]] * len(of[dataset]) for name in rows}
        tables += [averages(one, of[dataset], dataset, **cells) for one in ("training", "oracle")]
    figure = draw(tables)
    figure.draw_without_rendering()
    assert len(figure.axes) == count + sum(map(len, of.values()))
    texts = [*figure.legends[0].get_texts(), figure.legends[0].get_title()]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [axes._left_title, axes.xaxis.label, *(tick.label1 for tick in ticks)]
        texts += [tick.label1 for tick in axes.yaxis.get_major_ticks()]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text() and text.get_visible()}
    for (text, box), (other, another) in combinations(boxes.items(), 2):
        assert not box.overlaps(another), (text, other)
    assert all(figure.bbox.contains(*corner) for box in boxes.values() for corner in (box.min, box.max))
