"""Names in characters that matplotlib's own font lacks."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from fishr.plots import fonts
from fishr.plots.style import legend, literal, quiet, save


def _font(path, family, characters):
    """Write a font in which characters are squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"glyph{ord(one)}" for one in characters)]
    built = FontBuilder(1000)
    built.setupGlyphOrder(names)
    built.setupCharacterMap({ord(one): f"glyph{ord(one)}" for one in characters})
    built.setupGlyf(dict.fromkeys(names, pen.glyph()))
    built.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    built.setupHorizontalHeader(ascent=800, descent=-200)
    built.setupNameTable({"familyName": family, "styleName": "Regular"})
    built.setupOS2()
    built.setupPost()
    built.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """Let the fonts of some files be those that are installed."""
    before = list(font_manager.fontManager.ttflist)

    def install(*paths):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(paths))
        fonts._fonts_with.cache_clear()
        fonts._escapes.cache_clear()

    yield install
    font_manager.fontManager.ttflist = before
    fonts._fonts_with.cache_clear()
    fonts._escapes.cache_clear()


def _figure(*names):
    """A figure with names in its legend, its title and the labels of ticks."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([0, 1], label=literal(name))
    axes.set_xticks(range(len(names)), [literal(name) for name in names])
    quiet(axes, literal(names[0]), "step", "loss")
    legend(figure)
    return figure


def test_installed_fonts_have_the_characters(installed, tmp_path):
    installed(_font(tmp_path / "a.ttf", "Few", "東"), _font(tmp_path / "b.ttf", "More", "大阪"))
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    figure = _figure("東", "大阪 (north)", "art")
    # A glyph that is missing is a warning, and so an error here.
    save(figure, tmp_path / "figure.png")
    texts = {text.get_text(): text for text in figure.findobj(Text)}
    assert {"東", "大阪 (north)", "art"} <= texts.keys()
    own = FontProperties().get_family()
    assert texts["大阪 (north)"].get_fontfamily() == [*own, "More", "Few"]


def test_characters_of_no_font_are_codes_with_one_warning(installed, tmp_path):
    installed(_font(tmp_path / "a.ttf", "Few", "東"), str(tmp_path / "absent.ttf"))
    with pytest.warns(UserWarning, match=r"^no installed font has 京, so figures show codes; install one") as found:
        figure = _figure("京", "東京")
    assert len(found) == 2, "one for each set of characters"
    save(figure, tmp_path / "figure.png")
    assert {r"\u4eac", r"東\u4eac"} <= {text.get_text() for text in figure.findobj(Text)}


def test_names_in_its_own_font_search_no_other(installed, monkeypatch, tmp_path):
    def none():
        raise AssertionError

    installed()
    monkeypatch.setattr(font_manager, "findSystemFonts", none)
    save(_figure("Zürich", "Αθήνα", "θ* ± ε"), tmp_path / "figure.png")
