"""``explain`` in table and JSON."""

import json


def test_before_and_after_the_warm_up(call):
    before, after = (call("explain", "--step", step).out for step in (119, 120))
    assert before.splitlines()[0] == "loss at step 119 = risk (mean over domains) + 0.00110795 · Σ‖w‖² + fishr"
    assert after.splitlines()[0].endswith(
        "= (risk (mean over domains) + 0.00110795 · Σ‖w‖² + 91257.2 · fishr) / 91257.2"
    )
    header, _, row = after.splitlines()[2:]
    assert header.split("  ")[0] == "term"
    assert row.split()[:2] == ["fishr", "91257.2"]
    assert "factors, domains, sizes" in row


def test_json_says_the_same(call):
    said = call("explain", "colored-digits-vrex", "--step", "120", "--format", "json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    told = json.loads(said.out)
    assert (told["risk"], told["l2"], told["fresh_optimizer"]) == ("domains", 0.00110794568, False)
    (term,) = told["penalty"]["terms"]
    assert (term["name"], term["weight"], term["graph"], term["state"]) == ("vrex", 91257.18613115903, True, 0)
    assert told["divided_by"] == term["weight"]


def test_a_term_of_weight_zero_reads_nothing(call):
    told = json.loads(call("explain", "--set", "objective.penalty.fishr.schedule=0", "--format", "json").out)
    (term,) = told["penalty"]["terms"]
    assert (term["weight"], term["graph"], term["reads"]) == (0.0, False, [])


def test_plain_training_has_no_table(call):
    said = call("explain", "colored-digits-erm", "--set", "objective.l2=0")
    assert said.out == "loss at step 0 = risk (mean over domains)\n"


def test_a_reset_of_the_optimizer_is_reported(call):
    said = call("explain", "--step", "120", "--set", "objective.fresh_optimizer_at=120")
    assert "the optimizer's state is reset before this step's update" in said.out.splitlines()[1]


def test_a_moving_average_remembers(call):
    shown = call("explain", "--set", "objective.penalty.fishr.penalty.ema=0.9", "--format", "json", "--step", "1")
    (term,) = json.loads(shown.out)["penalty"]["terms"]
    # Two domains, 390 weights and a bias.
    assert term["state"] >= 2 * 391


def test_another_risk_is_named(call):
    said = call("explain", "--set", "objective.risk={kind='VREx'}", "--set", "objective.penalty={}")
    lines = ["loss at step 0 = risk (VREx) + 0.00110795 · Σ‖w‖²", "risk: VREx(form='variance')"]
    assert said.out.splitlines() == lines
