"""``fishr sweep collect``: tables of sweep folders, ours and DomainBed's, beside each other."""

import csv
import json
import re
import subprocess
import sys
from io import StringIO
from itertools import combinations

import pytest
from matplotlib.image import imread

from fishr.configuration import dumps
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.plan import Plan


def accuracy(algorithm, tested, draw, trial):
    return (8 + 2 * tested + draw + trial + (algorithm != "ERM")) / 20


def write_sweep(folder, dataset="ColoredMNIST", algorithms=("ERM",), draws=2, trials=2, envs=3, pairs=True, **args):
    """Every job's results; draw 1 is better everywhere."""
    tested = [(test,) for test in range(envs)] + (list(combinations(range(envs), 2)) if pairs else [])
    for algorithm in algorithms:
        for test in tested:
            for draw in range(draws):
                for trial in range(trials):
                    key = {"dataset": dataset, "algorithm": algorithm, "test_envs": list(test)}
                    key |= {"hparams_seed": draw, "trial_seed": trial}
                    value = accuracy(algorithm, test[0], draw, trial)
                    scores = {f"env{i}_{split}_acc": value for i in range(envs) for split in ("in", "out")}
                    run = folder / f"{dataset}-{algorithm}-{'-'.join(map(str, test))}-{draw}-{trial}"
                    run.mkdir(parents=True)
                    line = {"step": 0, "args": key | args, "hparams": {}} | scores
                    (run / "results.jsonl").write_text(json.dumps(line) + "\n")
                    (run / "done").touch()


@pytest.fixture
def upstream(home):
    write_sweep(home / "upstream", algorithms=("ERM", "CORAL"))
    return "upstream"


@pytest.fixture
def ours(home):
    plan = Plan(("ColoredMNIST",), ("ERM", "Fishr"), draws=2, trials=2, settings=Settings())
    write_sweep(home / "ours" / "jobs", algorithms=("ERM", "Fishr"), pairs=False, protocol="domainbed-2021")
    (home / "ours" / "plan.toml").write_text(dumps(plan))
    return "ours"


def rows(text, title):
    """The cells of a text table under its title."""
    block = text.split(f"{title}\n\n")[1].split("\n\n")[0].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in (block[0], *block[2:])]


def test_three_selections_of_domainbeds_own_results(call, upstream):
    said = call("sweep", "collect", upstream)
    assert (said.code, said.err) == (0, "")
    titles = [line for line in said.out.splitlines() if " validation" in line]
    assert titles == [
        f"{name}, {selection}"
        for selection in (
            "training-domain validation",
            "leave-one-domain-out validation",
            "test-domain validation (oracle)",
        )
        for name in ("ColoredMNIST", "Averages")
    ]
    for title in titles[::2]:
        # Draw 1 of trials 0 and 1: (9 + 2t)/20 and (10 + 2t)/20, mean ± 2.5/√2.
        assert rows(said.out, title) == [
            ["Algorithm", "+90%", "+80%", "-90%", "Avg"],
            ["ERM", "47.5 +/- 1.8", "57.5 +/- 1.8", "67.5 +/- 1.8", "57.5"],
            ["CORAL", "52.5 +/- 1.8", "62.5 +/- 1.8", "72.5 +/- 1.8", "62.5"],
        ]
    assert said.out.endswith("\n\n\nupstream: protocol upstream, 48 jobs\n")


def test_our_sweep_and_its_plan(call, ours, home):
    for gone in ("ERM-0-1-0", "ERM-0-0-0"):
        (home / "ours" / "jobs" / f"ColoredMNIST-{gone}" / "results.jsonl").unlink()
    (home / "ours" / "jobs" / "ColoredMNIST-Fishr-2-0-1" / "done").unlink()
    said = call("sweep", "collect", ours, "--worst")
    assert said.code == 0
    assert rows(said.out, "ColoredMNIST, training-domain validation")[1][1:3] == ["50.0 +/- 0.0", "57.5 +/- 1.8"]
    assert rows(said.out, "ColoredMNIST, leave-one-domain-out validation")[1:] == [
        [algorithm, "X", "X", "X", "X", "X"] for algorithm in ("ERM", "Fishr")
    ]
    assert rows(said.out, "ColoredMNIST, training-domain validation")[2][-2:] == ["62.5", "52.5"]
    assert said.out.endswith("\n\n\nours: protocol domainbed-2021, 22 jobs\n")
    unfinished, missing, pairs = said.err.splitlines()
    assert unfinished == ("ours: 1 unfinished, counted as far as they got: ColoredMNIST Fishr test 2 draw 0 trial 1")
    assert missing == (
        "ColoredMNIST, ERM, +90% (training, leave-one-out, oracle): 2 jobs missing: "
        "ColoredMNIST ERM test 0 draw 0 trial 0; ColoredMNIST ERM test 0 draw 1 trial 0"
    )
    assert pairs.startswith("leave-one-out: no job of ColoredMNIST has two test environments")


def test_only_the_plan_knows_an_algorithm_that_has_not_begun(call, ours, home):
    for run in (home / "ours" / "jobs").glob("*-Fishr-*"):
        (run / "results.jsonl").unlink()
    said = call("sweep", "collect", ours, "--selection", "oracle")
    assert rows(said.out, "ColoredMNIST, test-domain validation (oracle)")[2] == ["Fishr", "X", "X", "X", "X"]
    assert "ColoredMNIST, Fishr, -90% (oracle): 4 jobs missing: " in said.err
    assert "draw 1 trial 0; and 1 more" in said.err


def test_old_results_beside_new_ones(call, upstream, ours):
    said = call("sweep", "collect", upstream, ours, "--selection", "training", "--published")
    assert [row[0] for row in rows(said.out, "ColoredMNIST, training-domain validation")] == [
        "Algorithm",
        "ERM (upstream)",
        "ERM (ours)",
        "CORAL (upstream)",
        "Fishr (ours)",
        "ERM (published, Fishr paper)",
        "Fishr (published, Fishr paper)",
    ]
    assert rows(said.out, "Averages, training-domain validation")[-1] == ["Fishr (published, Fishr paper)", "52.0"]
    notes = said.out.splitlines()[-4:]
    assert notes[:2] == ["upstream: protocol upstream, 48 jobs", "ours: protocol domainbed-2021, 24 jobs"]
    assert notes[2].startswith("published: protocols, first weights and tuning differ between these rows")
    assert notes[3].startswith("Fishr paper: Ramé")
    assert "published" not in call("sweep", "collect", ours).out


def test_folders_of_one_name_are_called_by_their_paths(call, home):
    for parent in ("one", "other"):
        write_sweep(home / parent / "sweep")
    said = call("sweep", "collect", "one/sweep", "other/sweep", "--selection", "oracle")
    table = rows(said.out, "ColoredMNIST, test-domain validation (oracle)")
    assert [row[0] for row in table[1:]] == ["ERM (one/sweep)", "ERM (other/sweep)"]


@pytest.mark.parametrize("selection", ["training", "leave-one-out", "oracle"])
def test_one_selection_as_csv(call, upstream, selection):
    said = call("sweep", "collect", upstream, "--selection", selection, "--as", "csv")
    lines = list(csv.DictReader(StringIO(said.out)))
    assert {line["selection"] for line in lines} == {selection}
    assert {line["protocol"] for line in lines} == {"upstream"}
    assert [line["mean"] for line in lines if line["column"] == "-90%"] == ["67.5", "72.5"]


def test_json_is_one_object(call, upstream):
    (line,) = call("sweep", "collect", upstream, "--as", "json", "--published").out.splitlines()
    made = json.loads(line)
    assert [table["name"] for table in made["tables"]] == ["ColoredMNIST", "averages"] * 3
    chosen = made["tables"][0]["rows"][0]["cells"][1]["chosen"]
    assert chosen["0"] == {"hparams_seed": 1, "step": 0, "test": 0.55, "validation": 0.55}
    assert made["notes"][0] == "upstream: protocol upstream, 48 jobs"


def test_differences_from_a_method(call, upstream):
    said = call("sweep", "collect", upstream, "--selection", "oracle", "--over", "ERM", "--worst")
    for title in ("ColoredMNIST, test-domain validation (oracle)", "Averages, test-domain validation (oracle)"):
        head, erm, coral = rows(said.out, title)
        assert head[-1] == "Over ERM"
        assert coral[len(erm) :] == ["+5.0 +/- 0.0"]
    assert said.out.splitlines()[-1].startswith("Over ERM: mean over trials of the difference from the average of ERM")
    said = call("sweep", "collect", upstream, "--selection", "oracle", "--over", "CORAL", "--as", "csv")
    lines = [line for line in csv.DictReader(StringIO(said.out)) if line["column"] == "Over CORAL"]
    assert [(line["algorithm"], float(line["mean"]), line["trials"]) for line in lines] == [
        ("ERM", pytest.approx(-5), "2")
    ] * 2


@pytest.mark.parametrize(("form", "mark"), [("markdown", "| 57.5 ± 1.8 |"), ("latex", r"& 57.5 $\pm$ 1.8 &")])
def test_files(call, upstream, home, form, mark):
    said = call("sweep", "collect", upstream, "--as", form, "--out", "tables", "--figure", "made.png", drawn=True)
    assert (said.code, said.out, said.err) == (0, "tables: tables\nfigure: made.png\n", "")
    assert mark in (home / "tables").read_text()
    assert imread(home / "made.png").shape[1] >= 600
    assert sorted(path.name for path in home.iterdir()) == ["made.png", "tables", "upstream"]


def test_a_figures_name_is_not_among_the_tables(call, upstream):
    said = call("sweep", "collect", upstream, "--as", "json", "--figure", "made.png")
    json.loads(said.out)
    assert said.err == "figure: made.png\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["empty"], "empty: found no results"),
        (["ours", "ours/../ours"], "FOLDER: got one twice"),
        (["mixed"], "protocol: got 'upstream' in mixed/"),
        (["twice"], "ColoredMNIST ERM test 0 draw 0 trial 0: got it twice, in twice/"),
        (["ours", "--out", "there"], "--out: there exists already"),
        (["ours", "--figure", "there"], "--figure: there exists already"),
        (["ours", "--figure", "dangling.png"], "--figure: dangling.png exists already"),
        (["ours", "--out", "no/where"], "--out: no is no folder"),
        (["ours", "--figure", "no/where.png"], "--figure: no is no folder"),
        (["ours", "--figure", "made.pdf"], "--figure: got made.pdf, expected a name that ends in .png"),
        (["ours", "--out", "new.png", "--figure", "new.png"], "--figure: got new.png, which --out is too"),
        (["ours", "--selection", "best"], "best"),
        (["ours", "--over", "CORAL"], "--over: got CORAL, expected one of ERM, Fishr"),
        ([], "FOLDER"),
    ],
)
def test_refusals(refused, ours, home, arguments, part):
    (home / "empty").mkdir()
    (home / "there").touch()
    (home / "dangling.png").symlink_to("no-such-file")
    write_sweep(home / "mixed", draws=1, trials=1)
    write_sweep(home / "mixed" / "jobs", algorithms=("Fishr",), draws=1, trials=1, protocol="domainbed-2021")
    write_sweep(home / "twice", draws=1, trials=1)
    write_sweep(home / "twice" / "jobs", draws=1, trials=1)
    refused(home, ["sweep", "collect", *arguments], part)


def test_the_command_imports_nothing_heavy():
    code = "import sys, fishr.commands.sweep_collect; print({'numpy', 'torch', 'attrs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "set()\n")
