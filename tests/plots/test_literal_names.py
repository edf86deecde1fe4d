"""Every figure shows the names that it is given letter by letter, and none is missing from a legend."""

import json

import attrs
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text
from plots.test_analysis import _analysis, _history
from plots.test_landscape import _between, _bowls, _lines

from fishr.plots import benchmark, landscape, run, save_run_figure
from fishr.plots.analysis import history_figure
from fishr.plots.analysis_curvature import density_figure, scatter_figure, spectra_figure
from fishr.plots.analysis_pairs import pairs_figure
from fishr.plots.benchmark import save_benchmark_figure
from fishr.plots.landscape import interpolation_figure, line_figure, save_film
from fishr.plots.landscape_planes import contour_figure, level_set_figure
from fishr.plots.style import literal
from fishr.protocols.domainbed.tables import Table, cell_of, row_of

# A formula, one that cannot be typeset, a label that matplotlib would leave out, an escape, what others take specially.
NAMES = ("$x^2$", r"$\frac{$", "_left out", r"a\$b_1 & 50% #{}~^|", "_$_$")


def shown(figure):
    """The texts of a figure as matplotlib draws them, those of formulas left out."""
    FigureCanvasAgg(figure).draw()
    texts = [text._preprocess_math(text.get_text()) for text in figure.findobj(Text)]
    return "\n".join(text for text, formula in texts if not formula)


def check(figure, names, legend=()):
    texts = shown(figure)
    assert [name for name in names if name not in texts] == []
    entries = "\n".join(text.get_text().replace(r"\$", "$") for one in figure.findobj(Legend) for text in one.texts)
    assert [name for name in legend if name not in entries] == []


@pytest.fixture(scope="module")
def analyses():
    return [_analysis(name, NAMES[2 * index :][:3], 2, index) for index, name in enumerate(("$run$", "_run"))]


@pytest.mark.slow
def test_analyses(analyses):
    for figure in (pairs_figure(analyses), scatter_figure(analyses)):
        check(figure, (*NAMES, "$run$", "_run"))
    check(spectra_figure(analyses), ("$run$", "_run"), legend=NAMES)
    check(history_figure([_history("$run$"), _history("_run")]), (), legend=("$run$", "_run"))


def test_the_density_of_networks(analyses):
    density = attrs.evolve(analyses[0].quantities["top_eigenvalues"], value=_densities(3))
    analyses = [attrs.evolve(analysis, network={"spectral_density": density}) for analysis in analyses]
    check(density_figure(analyses), ("$run$", "_run"), legend=NAMES)


def _densities(domains):
    import torch

    return torch.stack([torch.linspace(0, 1, 9), torch.linspace(1, 2, 9)]).expand(domains, 2, 9)


@pytest.fixture
def plane():
    surface = _bowls(count=5, shape=(4, 4), kind="checkpoints", frames=1)
    directions = attrs.evolve(surface.directions, names=("along $a$", "_b$b$"), labels=("_first", "$t$", "$"))
    return attrs.evolve(surface, titles=NAMES, directions=directions, source={"path": "runs/$r$_1"})


@pytest.mark.slow
def test_planes(plane, tmp_path, monkeypatch):
    check(contour_figure(plane), (*NAMES, "along $a$", "_b$b$", "_first", "$t$", "$r$_1"))
    check(level_set_figure(plane, 0.1), ("along $a$", "_b$b$", "_first"), legend=NAMES)
    drawn = []
    real = landscape.panels_of
    monkeypatch.setattr(landscape, "panels_of", lambda surface: drawn.append(real(surface)) or drawn[-1])
    save_film(plane, plane.frames, tmp_path / "film.gif")
    check(drawn[0][0], NAMES)


def test_lines():
    lines = attrs.evolve(_lines(), titles=("$x^2$", "_left out"))
    check(line_figure(lines), (), legend=lines.titles)
    between = _between([[1.0, 2.0, 1.5], [0.5, 0.5, 0.5]])
    ends = attrs.evolve(between.directions, labels=("$one$", "_other"))
    between = attrs.evolve(between, titles=("$x^2$", "_left out"), directions=ends)
    check(interpolation_figure(between), ("$one$", "_other"), legend=between.titles)


@pytest.fixture
def kept(monkeypatch):
    """The figures that are saved."""
    figures = []
    for module in (run, benchmark):
        real = module.save
        monkeypatch.setattr(
            module, "save", lambda figure, path, real=real: figures.append(figure) or real(figure, path)
        )
    return figures


def test_runs(kept, tmp_path):
    terms = {name: {"value": 0.5, "weight": 2.0} for name in ("_term", "$term$")}
    losses = dict.fromkeys(NAMES, 0.5)
    step = [{"step": s, "loss": 1.0, "risk": 0.5, "terms": terms, "domain_losses": losses} for s in (0, 1)]
    score = [{"name": name, "split": "training", "samples": 4, "accuracy": 0.5, "loss": 1.0} for name in NAMES]
    lines = [*step, {"step": 2, "scores": score}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "result.json").write_text(json.dumps({"name": "_run$a$"}))
    (tmp_path / "config.toml").touch()
    save_run_figure(tmp_path)
    check(kept[0], ("_run$a$",), legend=(*NAMES, "_term", "$term$"))


def test_tables(kept, tmp_path):
    rows = tuple(row_of(name, [cell_of([0.5, 0.6])]) for name in NAMES)
    tables = [Table(name, "training", (column,), rows) for name, column in (("averages", "$set$"), ("$set$", "_A"))]
    save_benchmark_figure(tables, tmp_path / "benchmark.png")
    check(kept[0], (*NAMES, "$set$", "_A"))


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_name_is_no_formula_and_no_hidden_label(name):
    text, formula = Text(text=literal(name))._preprocess_math(literal(name))
    assert (text.removeprefix("\u200a"), bool(formula)) == (name, False)
    assert not literal(name).startswith("_")
