"""An analysis in a file: the same to the bit, and never in the place of another."""

import re
from pathlib import Path

import attrs
import pytest
import torch

from fishr.analysis import Settings, analyze, load_analysis, may_replace, save_analysis
from fishr.data.caches import load_tree
from fishr.data.caches.hdf5 import save_tree
from fishr.diagnostics import Quantity
from fishr.errors import InputError


@pytest.fixture(scope="module")
def analysis(subject):
    return analyze(subject, Settings(samples=8))


def _same(one, other):
    assert (one.name, one.axes, one.unit, one.route) == (other.name, other.axes, other.unit, other.route)
    for a, b in ((one.value, other.value), (one.error, other.error)):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.slow
def test_round_trip(analysis, tmp_path):
    estimate = Quantity("trace", torch.tensor([1.0, float("nan")]), ("domain",), "1", "guessed", torch.tensor(0.5))
    analysis = attrs.evolve(analysis, network={"trace": estimate})
    save_analysis(tmp_path / "a.h5", analysis)
    found = load_analysis(tmp_path / "a.h5")
    for field in attrs.fields(type(analysis)):
        if field.name not in ("quantities", "network"):
            assert getattr(found, field.name) == getattr(analysis, field.name), field.name
    for one, other in ((found.quantities, analysis.quantities), (found.network, analysis.network)):
        assert list(one) == list(other)
        for name in one:
            _same(one[name], other[name])


@pytest.mark.slow
def test_what_the_file_holds(analysis, tmp_path):
    """The layout that other programs read."""
    save_analysis(tmp_path / "a.h5", analysis)
    tree = load_tree(tmp_path / "a.h5", "fishr-analysis")
    assert {"subject", "domains", "splits", "quantities", "layout"} <= tree.keys()
    assert tree["quantities"]["gradient_variance"].keys() == {"value", "axes", "unit", "route", "error"}
    assert tree["quantities"]["gradient_variance"]["value"].shape == (3, 15)
    assert tree["layout"]["shapes"]["weight"].tolist() == [3, 4]


@pytest.mark.slow
def test_a_file_that_is_there_stays(analysis, tmp_path):
    path = tmp_path / "a.h5"
    save_analysis(path, analysis)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_analysis(path, attrs.evolve(analysis, name="other"))
    assert path.read_bytes() == before
    save_analysis(path, attrs.evolve(analysis, name="other"), replace=True)
    assert load_analysis(path).name == "other"


@pytest.mark.slow
def test_a_file_that_lacks_something(analysis, tmp_path):
    save_analysis(tmp_path / "a.h5", analysis)
    tree = load_tree(tmp_path / "a.h5", "fishr-analysis")
    del tree["quantities"]["risk"]["unit"]
    save_tree(tmp_path / "b.h5", "fishr-analysis", tree)
    with pytest.raises(InputError, match=r"b.h5: a damaged analysis \(KeyError: 'unit'\); analyze again"):
        load_analysis(tmp_path / "b.h5")


@pytest.mark.slow
def test_who_may_replace_a_result(analysis, tmp_path):
    path, source, settings = tmp_path / "a.h5", analysis.source, analysis.settings
    assert not may_replace(path, source, settings)
    save_analysis(path, analysis)
    # The same again, also when the run was moved, and only then.
    assert may_replace(path, source | {"path": "elsewhere"}, settings)
    others = [(source | {"key": "4567"}, settings), (source, attrs.evolve(settings, samples=None))]
    for other in others:
        with pytest.raises(InputError, match=re.escape("a.h5: holds another analysis, of nowhere at step 5 with Sett")):
            may_replace(path, *other)
        assert may_replace(path, *other, replace=True)


def test_what_is_no_analysis_is_never_replaced(tmp_path):
    path, source = tmp_path / "a.h5", {"key": ""}
    save_tree(path, "fishr-features", {})
    for content in (None, b"", b"my notes"):
        if content is not None:
            path.write_bytes(content)
        for replace in (False, True):
            with pytest.raises(InputError, match="no analysis replaces it, choose another place with -o"):
                may_replace(path, source, Settings(), replace=replace)
    with pytest.raises(InputError, match="no analysis replaces it"):
        may_replace(tmp_path, source, Settings())
    with pytest.raises(InputError, match="its folder does not exist; make it, or choose another place"):
        may_replace(tmp_path / "none" / "a.h5", source, Settings())


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.h5: no such file; give the path of a file that fishr wrote"):
        load_analysis(Path("nowhere.h5"))
