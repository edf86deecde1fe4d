"""``analyze`` through the real entry point: what it says, what it leaves, what it refuses."""

import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fishr.analysis import load_analysis, load_history, open_subject
from fishr.analysis.report import Settings, pick
from fishr.diagnostics import diagnostics

pytestmark = pytest.mark.slow

FIGURES = ["curvature.png", "history.png", "pairs.png", "spectra.png"]
DOMAINS = ["flip 0.2", "flip 0.1", "reversed", "gray"]


def _strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def analyzed_once(tmp_path_factory, recorded_once, made):
    """Both of them analyzed side by side, and what that said; for reading only."""
    home = Path(shutil.copytree(recorded_once, tmp_path_factory.mktemp("beside"), dirs_exist_ok=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        said = made("analyze", "erm", "mine", "--figures", "both")
    return home, said.out


@pytest.fixture
def runs(recorded_once, home):
    """A copy of them, in the working directory."""
    return Path(shutil.copytree(recorded_once, home, dirs_exist_ok=True))


def _png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", content[16:24])


def test_analyze_through_the_entry_point(forked, cli, runs):
    before = set(runs.rglob("*"))
    said = cli("analyze", "mine")
    assert said.code == 0, said.err
    assert said.err == ""
    made = sorted(str(path.relative_to(runs)) for path in set(runs.rglob("*")) - before)
    assert made == ["mine/analysis", "mine/analysis.h5", *(f"mine/analysis/{name}" for name in FIGURES)]
    for name in FIGURES:
        width, height = _png_size(runs / "mine" / "analysis" / name)
        assert 500 <= width <= 2500
        assert 300 <= height <= 2500

    found = load_analysis(runs / "mine" / "analysis.h5")
    assert (found.name, found.domains, found.training) == ("mine", tuple(DOMAINS), tuple(DOMAINS[:2]))
    assert found.source["step"] == "7"
    q = found.quantities
    # What the last evaluation of the run said.
    result = json.loads((runs / "mine" / "result.json").read_text())
    assert q["risk"].value.tolist() == pytest.approx([score["loss"] for score in result["scores"]], rel=1e-5)
    assert q["accuracy"].value.tolist() == pytest.approx([score["accuracy"] for score in result["scores"]])

    lines = said.out.splitlines()
    assert lines[0] == "mine: mine, run, step 7"
    assert lines[1].endswith("samples: flip 0.2 650, flip 0.1 650, reversed 497, gray 497")
    risk = next(line for line in lines if line.startswith("risk "))
    cells = re.split(r"\s{2,}", risk.strip())
    assert cells[1:5] == [f"{value:.4g}" for value in q["risk"].value.tolist()]
    risks = q["risk"].value
    heights = "▁▂▃▄▅▆▇█"
    assert cells[5:7] == ["".join(heights[round(float(7 * value / risks.max()))] for value in risks), "loss"]
    route = cells[7]
    assert f"{route} {q['risk'].route}" in lines
    headline = next(line for line in lines if line.startswith("distance of gradient variances"))
    assert f"  {q['variance_distance_scale_free'].value:.4g}  " in headline
    assert headline.endswith(diagnostics()["variance_distance_scale_free"].explanation["large"])
    pairs = next(line for line in lines if line.startswith("variance_distances"))
    assert f"  {float(q['variance_distances'].value[0, 1]):.4g}  " in pairs
    recorded = next(line for line in lines if line.startswith("recorded while training"))
    assert "mine, step 0" in recorded
    assert "mine, step 7" in recorded
    assert "not a score" in said.out
    assert lines[-5] == "result: mine/analysis.h5"
    assert lines[-1] == "figure: mine/analysis/history.png"
    assert not re.search(r"\b(nan|inf)\b", said.out)


def test_json_is_one_object(call, runs):
    options = ("--samples", 40, "--eigenvalues", 3, "--tolerance", 0.01)
    said = call("analyze", "mine", "--format", "json", *options)
    assert (said.code, said.err) == (0, "")
    told = _strict(said.out)
    found = load_analysis(Path("mine/analysis.h5"))
    assert told["domains"] == [
        {"name": n, "split": s, "rows": r, "samples": 40}
        for n, s, r in zip(found.domains, found.splits, found.rows, strict=True)
    ]
    assert told["settings"] == {"samples": 40, "seed": 0, "network": False, "rank": 3, "tolerance": 0.01}
    assert len(told["quantities"]["top_eigenvalues"]["value"][0]) == 3
    assert told["source"]["path"] == "mine"
    for name, quantity in found.quantities.items():
        if "parameter" in quantity.axes:
            assert name not in told["quantities"]
            continue
        entry = told["quantities"][name]
        assert (entry["axes"], entry["unit"], entry["route"]) == (list(quantity.axes), quantity.unit, quantity.route)
        value = np.array(entry["value"], dtype=float)
        np.testing.assert_allclose(
            value, np.where(np.isfinite(quantity.value.numpy()), quantity.value.numpy(), np.nan), rtol=1e-12
        )
        assert (entry["error"] is None) == (quantity.error is None)
    name = "variance_distance_scale_free"
    assert told["headlines"][name]["value"] == told["quantities"][name]["value"]
    (history,) = told["histories"]
    recorded = load_history(Path("mine"))
    assert history["steps"] == recorded.steps.tolist() == [0, 3, 6, 7]
    assert history["hessian_distance"] == recorded.hessian_distance.tolist()
    assert told["result"] == "mine/analysis.h5"
    assert told["figures"] == [
        f"mine/analysis/{n}" for n in ("pairs.png", "curvature.png", "spectra.png", "history.png")
    ]


def test_a_cache_gives_the_numbers_of_its_run(call, home, analyzed_once, cached_once):
    shutil.copy(cached_once, home)
    said = call("analyze", "mine-features.h5")
    assert said.code == 0, said
    one = load_analysis(analyzed_once[0] / "mine" / "analysis.h5")
    other = load_analysis(Path("mine-features.analysis.h5"))
    assert (one.domains, one.splits, one.rows, one.layout) == (other.domains, other.splits, other.rows, other.layout)
    assert one.quantities.keys() == other.quantities.keys()
    for name, quantity in one.quantities.items():
        torch.testing.assert_close(
            quantity.value, other.quantities[name].value, rtol=1e-6, atol=1e-12, equal_nan=True, msg=name
        )
    assert other.source["kind"] == "features"
    assert (home / "mine-features.analysis" / "pairs.png").exists()
    assert not (home / "mine-features.analysis" / "history.png").exists()


def test_recorded_statistics_end_where_the_analysis_begins(analyzed_once):
    run = analyzed_once[0] / "mine"
    found, history = load_analysis(run / "analysis.h5").quantities, load_history(run)
    assert float(history.variance_distance[-1]) == pytest.approx(
        float(found["variance_distance_scale_free"].value), rel=1e-3
    )
    last = float(found["hessian_diagonal_distance_scale_free"].value)
    assert float(history.hessian_distance[-1]) == pytest.approx(last, rel=1e-3)
    assert history.risks[-1].tolist() == pytest.approx(found["risk"].value[:2].tolist(), rel=1e-5)
    cosine = found["variance_hessian_cosine"].value[:2].tolist()
    assert history.cosine[-1].tolist() == pytest.approx(cosine, rel=1e-4)


def test_two_side_by_side(analyzed_once):
    home, said = analyzed_once
    erm, mine = (load_analysis(home / name / "analysis.h5").quantities for name in ("erm", "mine"))
    lines = said.splitlines()
    for start, name in (
        ("distance of gradient variances", "variance_distance_scale_free"),
        ("distance of diagonal Hessians", "hessian_diagonal_distance_scale_free"),
    ):
        cells = re.split(r"\s{2,}", next(line for line in lines if line.startswith(start)))
        one, two = float(erm[name].value), float(mine[name].value)
        assert cells[1:4] == [f"{one:.4g}", f"{two:.4g}", f"{one / two:.3g}×"]
    assert any("erm / mine" in line for line in lines)
    assert sorted(path.name for path in (home / "both").iterdir()) == FIGURES
    assert not (home / "erm" / "analysis").exists()


def test_json_of_two_has_their_ratios(call, runs):
    told = _strict(call("analyze", "erm", "mine", "--format", "json", "--samples", 30).out)
    assert [subject["name"] for subject in told["subjects"]] == ["erm", "mine"]
    name = "variance_distance_scale_free"
    erm, mine = (load_analysis(Path(run, "analysis.h5")).quantities[name].value for run in ("erm", "mine"))
    assert told["ratios"][name] == pytest.approx(float(erm / mine))
    assert told["figures"] == []


def test_the_same_again_is_no_trouble_and_other_settings_ask(call, home, analyzed_once, refused, snapshot):
    shutil.copytree(analyzed_once[0], home, dirs_exist_ok=True)

    def contents():
        return {path: found and found[0] for path, found in snapshot(home).items()}

    first = contents()
    said = call("analyze", "erm", "mine", "--figures", "both")
    assert said.code == 0, said
    assert contents() == first
    refused(home, ["analyze", "mine", "--samples", "50"], "mine/analysis.h5: holds another analysis, of mine at step 7")
    said = call("analyze", "mine", "--samples", "50", "--replace")
    assert said.code == 0, said
    assert load_analysis(Path("mine/analysis.h5")).samples == (50,) * 4


def test_the_run_is_not_touched(call, runs, snapshot):
    before = snapshot(runs)
    assert call("analyze", "mine", "-o", "elsewhere.h5", "--figures", "figures").code == 0
    after = snapshot(runs)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {"elsewhere.h5", "figures", *(f"figures/{name}" for name in FIGURES)}


@pytest.mark.parametrize("row", ["gradient_cosines", "cosine of the gradients"])
def test_explain_a_row(call, row):
    said = call("analyze", "--explain", row)
    assert (said.code, said.err) == (0, "")
    name, *lines = said.out.splitlines()
    parts = dict(line.split(maxsplit=1) for line in lines)
    assert name == "gradient_cosines"
    assert list(parts) == ["meaning", "formula", "unit", "axes", "large", "route", "exact"]
    assert parts["formula"].startswith("cos(g_A, g_B)")


def test_the_whole_network(forked, cli, home, made):
    """Its Hessian's trace and largest eigenvalue in a domain are those of the dense matrix by plain autograd."""
    small = ("featurizer.widths=[2]", "steps=2", "objective.penalty.fishr.schedule.at=1")
    made("train", "colored-digits", *(part for text in small for part in ("--set", text)), "--out", home / "small")
    said = cli("analyze", "small", "--network", "--samples", "40", "--format", "json")
    assert said.code == 0, said.err
    found = _strict(said.out)["network"]

    subject = open_subject(home / "small")
    whole = torch.nn.Sequential(subject.network.featurizer, subject.seen.head).requires_grad_()
    names, parameters = zip(*whole.named_parameters(), strict=True)
    rows = pick(subject.domains[0], subject.seen.sizes[0], Settings(samples=40))
    inputs, labels = subject.network.inputs[0][rows], subject.seen.domain_samples[0][1][rows]

    def risk(flat):
        parts = [p.view_as(q) for p, q in zip(flat.split([q.numel() for q in parameters]), parameters, strict=True)]
        return subject.seen.loss(
            torch.func.functional_call(whole, dict(zip(names, parts, strict=True)), inputs), labels
        ).mean()

    dense = torch.autograd.functional.hessian(risk, torch.cat([p.detach().flatten() for p in parameters]))
    assert found["hessian_trace"]["value"][0] == pytest.approx(float(dense.trace()), rel=1e-4)
    assert found["top_eigenvalues"]["value"][0][0] == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-4)
    assert _png_size(home / "small" / "analysis" / "density.png")[0] >= 500


def test_a_long_analysis_is_announced_and_shows_where_it_is(call, runs, monkeypatch):
    monkeypatch.setattr("fishr.analysis.report.expected_seconds", lambda *arguments: 200.0)
    monkeypatch.setattr("fishr.commands.progress._LINE", 0.0)
    said = call("analyze", "mine", "--samples", "20", "--network")
    assert said.code == 0, said.err
    begun, announced, *lines = said.err.splitlines()
    assert begun.startswith("0/")
    assert announced == "mine: about 6 min 40 s; --samples 124 is shorter"
    places = [re.match(r"(\w+): (\d+)/(\d+) \[\d\d:\d\d<.*quantity", line).groups() for line in lines]
    total = len(diagnostics("head")) + len(diagnostics("network"))
    assert places[0] == ("risk", "0", str(total))
    assert {name for name, *_ in places} == {*diagnostics("head"), *diagnostics("network")}
    numbers = [int(place) for _, place, _ in places]
    assert numbers == sorted(numbers)
