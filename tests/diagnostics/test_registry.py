"""A diagnostic is one file: measured, among the headlines and in the documentation as soon as it is there."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fishr.diagnostics
from fishr.analysis import Subject, analyze, headlines
from fishr.data import Domain
from fishr.diagnostics import measure, measure_network, quantities, registry
from fishr.errors import InputError
from fishr.losses import CrossEntropy

PAGE = Path(__file__).parents[2] / "docs" / "diagnostics.py"
MINE = '''
"""Mine."""

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate


@diagnostic("loss/parameter²", ("domain",), section="mine", scopes=("head", "network"), headline="scaled trace")
def scaled_trace(curvature: Curvature, *, rho: float = 1.0) -> Estimate:
    """ρ tr H_e.

    Meaning: total curvature. Large: curved.

    Route: the trace. Exact: always.
    """
    traces = curvature.hessian_traces
    return Estimate(rho * traces.value, traces.route)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file beside those of the package, taken out again."""
    registry.diagnostics()
    monkeypatch.setattr(quantities, "__path__", [*quantities.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    (tmp_path / "mine.py").write_text(MINE)
    yield "scaled_trace"
    vars(quantities).pop("mine", None)
    sys.modules.pop(f"{quantities.__name__}.mine", None)


def test_a_new_file_is_measured_with_its_options(mine):
    data = (nn.Linear(3, 2), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0]), (2, 4))
    found = measure(*data, rho=0.5)
    assert list(found)[-1] == mine
    assert fishr.diagnostics.NAMES[-1] == mine
    assert (found[mine].unit, found[mine].axes) == ("loss/parameter²", ("domain",))
    torch.testing.assert_close(found[mine].value, 0.5 * found["hessian_trace"].value)
    torch.testing.assert_close(fishr.diagnostics.scaled_trace(*data).value, found["hessian_trace"].value)
    assert mine in measure_network(*data)


def test_it_is_analyzed_and_documented(mine):
    domains = [Domain(name, torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])) for name in "ab"]
    subject = Subject.from_domains("run", nn.Linear(3, 2), CrossEntropy(), domains, ("training",) * 2)
    assert headlines(analyze(subject))[mine].title == "scaled trace, mean over domains"
    assert "### `scaled_trace` *network*\n\nTotal curvature.\n\n- formula: ρ tr H_e\n" in page()


def page():
    return runpy.run_path(str(PAGE))["page"]()


def test_the_committed_page_is_what_the_registry_says():
    assert PAGE.with_suffix(".md").read_text(encoding="utf-8") == page(), "run: python docs/diagnostics.py"


@pytest.mark.parametrize("name", registry.diagnostics())
def test_every_diagnostic_is_explained(name):
    parts = registry.diagnostics()[name].explanation
    assert {"meaning", "formula", "unit", "large", "route", "exact"} <= set(parts)
    assert max(map(len, parts.values())) < 200
    assert len(parts["meaning"]) < 140
    # Printed alone, an entry has no sentence before it.
    assert "the same for" not in parts["meaning"]
    assert f"\n### `{name}`" in page()


def test_two_files_cannot_share_a_name(mine, tmp_path):
    (tmp_path / "mine.py").write_text(MINE.replace("scaled_trace(", "risk("))
    with pytest.raises(InputError, match=r"diagnostic 'risk': fishr.diagnostics.quantities.gradient_noise has one of"):
        measure(nn.Linear(3, 2), torch.randn(2, 3), torch.tensor([0, 1]), (2,))
