"""How tables look, in every form."""

import csv
import json
import math
import re
from io import StringIO

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fishr.protocols.domainbed.published import with_published
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.rendering import cell_text, gap_lines, render
from fishr.protocols.domainbed.selection import Chosen
from fishr.protocols.domainbed.tables import Cell, Table, cell_of, row_of

CHOSEN = {0: Chosen(0.75, 0.5, hparams_seed=3, step=300), 2: Chosen(math.nan, 0.625, hparams_seed=1, step=0)}
ERM = row_of("ERM", [cell_of([0.5, 0.625], chosen=CHOSEN), cell_of([0.25]), cell_of([1.0])], "domainbed-2021")
FISHR = row_of("my_Fishr", [cell_of([0.5]), Cell(missing=(JobKey("ColoredMNIST", "Fishr", (1,), 0, 0),)), cell_of([0])])
TABLE = Table("ColoredMNIST", "training", ("+90%", "+80%", "-90%"), (ERM, FISHR))
AVERAGES = Table("averages", "training", ("ColoredMNIST",), (row_of("ERM", [cell_of([0.5])]),))


def rendered(form, **more):
    return render([with_published(TABLE), AVERAGES], form, notes=("one note", "another"), **more)


def test_text():
    assert rendered("text", worst=True) == "\n".join(
        [
            "ColoredMNIST, training-domain validation",
            "",
            "Algorithm                       +90%          +80%          -90%           Avg    Worst",
            "------------------------------  ------------  ------------  -------------  -----  -------",
            "ERM                             56.2 +/- 4.4  25.0 +/- 0.0  100.0 +/- 0.0  60.4   25.0",
            "my_Fishr                        50.0 +/- 0.0  X             0.0 +/- 0.0    X      X",
            "ERM (published, Fishr paper)                                               51.5",
            "Fishr (published, Fishr paper)                                             52.0",
            "",
            "",
            "Averages, training-domain validation",
            "",
            "Algorithm    ColoredMNIST    Avg",
            "-----------  --------------  -----",
            "ERM          50.0 +/- 0.0    50.0",
            "",
            "",
            "one note",
            "another",
        ]
    )


def test_markdown():
    text = rendered("markdown")
    assert text.startswith("### ColoredMNIST, training-domain validation\n\n| Algorithm ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[2] == ["ERM", "56.2 ± 4.4", "25.0 ± 0.0", "100.0 ± 0.0", "60.4"]
    assert rows[3] == ["my_Fishr", "50.0 ± 0.0", "X", "0.0 ± 0.0", "X"]
    assert rows[4] == ["ERM (published, Fishr paper)", "", "", "", "51.5"]
    assert re.fullmatch(r"[-|:]+", "".join(rows[1]))
    assert text.endswith("\n\none note\n\nanother")
    assert r"a\|b" in render([evolve(TABLE, columns=("a|b", "c", "d"))], "markdown")


def test_latex():
    text = render([TABLE], "latex", worst=True, notes=["a note"])
    assert text.splitlines() == [
        "% ColoredMNIST, training-domain validation",
        r"\begin{tabular}{lccccc}",
        r"\toprule",
        r"Algorithm & +90\% & +80\% & -90\% & Avg & Worst \\",
        r"\midrule",
        r"ERM & 56.2 $\pm$ 4.4 & 25.0 $\pm$ 0.0 & 100.0 $\pm$ 0.0 & 60.4 & 25.0 \\",
        r"my\_Fishr & 50.0 $\pm$ 0.0 & X & 0.0 $\pm$ 0.0 & X & X \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
        "% a note",
    ]
    named = render([evolve(TABLE, columns=(r"a & {b}", r"#$~^\x", "d"))], "latex")
    assert r"Algorithm & a \& \{b\} & \#\$\textasciitilde{}\textasciicircum{}\textbackslash{}x & d & Avg \\" in named
    assert r"{lcccc}" in named
    first = render([evolve(TABLE, rows=(evolve(ERM, algorithm="[1]*|<"),))], "latex").splitlines()[5]
    assert first.startswith(r"{[}1]{*}\textbar{}\textless{} & ")


def test_markdown_shows_names_letter_by_letter():
    names = ("_a_", "$b$ & <c>", "*d* `e` [f](g)~h\\")
    text = render([evolve(TABLE, name="_t_", columns=names)], "markdown")
    assert text.startswith(r"### \_t\_, training-domain")
    head = text.splitlines()[2]
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", head)[2:5]]
    assert cells == [r"\_a\_", r"\$b\$ \& \<c\>", r"\*d\* \`e\` \[f\](g)\~h\\"]
    assert re.sub(r"\\(.)", r"\1", head).count(names[2]) == 1
    assert "my_Fishr" in text


def test_csv_has_all_digits():
    table = evolve(TABLE, rows=(row_of("ERM", [cell_of([0.1, 0.2, 1 / 3])] * 3, "domainbed-2021"), FISHR))
    lines = list(csv.DictReader(StringIO(render([table, AVERAGES], "csv", worst=True))))
    assert lines[0] == {
        "table": "ColoredMNIST",
        "selection": "training",
        "algorithm": "ERM",
        "source": "",
        "protocol": "domainbed-2021",
        "column": "+90%",
        "mean": repr(table.rows[0].cells[0].mean),
        "standard_error": repr(table.rows[0].cells[0].standard_error),
        "trials": "3",
        "missing": "0",
    }
    told = [(line["algorithm"], line["column"], line["mean"], line["trials"], line["missing"]) for line in lines[3:]]
    average = repr(table.rows[0].average)
    assert told == [
        ("ERM", "Avg", average, "", ""),
        ("ERM", "Worst", repr(table.rows[0].worst), "", ""),
        ("my_Fishr", "+90%", "50.0", "1", "0"),
        ("my_Fishr", "+80%", "", "0", "1"),
        ("my_Fishr", "-90%", "0.0", "1", "0"),
        ("my_Fishr", "Avg", "", "", ""),
        ("my_Fishr", "Worst", "", "", ""),
        ("ERM", "ColoredMNIST", "50.0", "1", "0"),
        ("ERM", "Avg", "50.0", "", ""),
    ]
    assert "Worst" not in render([table], "csv")


def test_csv_has_the_published_rows_without_blank_cells():
    lines = list(csv.DictReader(StringIO(rendered("csv"))))
    published = [(line["source"], line["column"], line["mean"]) for line in lines if line["source"]]
    assert published == [("published, Fishr paper", "Avg", "51.5"), ("published, Fishr paper", "Avg", "52.0")]


def test_json_has_everything_and_no_nan():
    nan = row_of("NaN", [cell_of([math.nan])] * 3)
    text = render([evolve(with_published(TABLE), rows=(ERM, FISHR, nan))], "json", notes=["a note"])
    made = json.loads(text, parse_constant=pytest.fail)
    (table,) = made["tables"]
    assert (made["notes"], table["name"], table["selection"]) == (["a note"], "ColoredMNIST", "training")
    assert table["columns"] == list(TABLE.columns)
    erm, fishr, unknown = table["rows"]
    assert (erm["algorithm"], erm["protocol"], erm["worst"]) == ("ERM", "domainbed-2021", 25.0)
    assert erm["cells"][0] == {
        "mean": 56.25,
        "standard_error": ERM.cells[0].standard_error,
        "trials": 2,
        "missing": [],
        "chosen": {
            "0": {"validation": 0.75, "test": 0.5, "hparams_seed": 3, "step": 300},
            "2": {"validation": None, "test": 0.625, "hparams_seed": 1, "step": 0},
        },
    }
    assert fishr["cells"][1]["missing"] == ["ColoredMNIST Fishr test 1 draw 0 trial 0"]
    assert (fishr["cells"][1]["mean"], fishr["average"]) == (None, None)
    assert (unknown["cells"][0]["mean"], unknown["average"]) == (None, None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_cells_have_one_decimal(accuracies):
    cell = cell_of(accuracies)
    text = cell_text(cell)
    assert re.fullmatch(r"\d{1,3}\.\d \+/- \d{1,2}\.\d", text)
    mean, error = map(float, text.split(" +/- "))
    assert mean == pytest.approx(cell.mean, abs=0.0500001)
    assert error == pytest.approx(cell.standard_error, abs=0.0500001)


def keys(count, algorithm="ERM", tested=0):
    return tuple(JobKey("PACS", algorithm, (tested,), draw, 0) for draw in range(count))


def lacking(selection, *missing, name="PACS", **more):
    cells = tuple(Cell(missing=one) for one in missing)
    return Table(name, selection, tuple("ACPS"[: len(cells)]), (row_of("ERM", cells),), **more)


def test_gaps_are_a_line_a_cell_and_bounded():
    tables = [lacking("training", keys(5), (), keys(1)), lacking("oracle", keys(5), (), keys(1))]
    assert gap_lines(tables) == [
        "PACS, ERM, A (training, oracle): 5 jobs missing: PACS ERM test 0 draw 0 trial 0; "
        "PACS ERM test 0 draw 1 trial 0; PACS ERM test 0 draw 2 trial 0; and 2 more",
        "PACS, ERM, P (training, oracle): 1 job missing: PACS ERM test 0 draw 0 trial 0",
    ]
    assert gap_lines(tables, lines=1)[1:] == ["and 1 more cells"]
    assert gap_lines([lacking("oracle", keys(3))])[0].endswith("draw 2 trial 0")
    assert gap_lines([lacking("oracle", ())]) == []


def test_other_gaps_of_another_selection_have_their_own_line():
    told = gap_lines([lacking("training", keys(1)), lacking("leave-one-out", keys(2))])
    assert [line.split(":")[0] for line in told] == ["PACS, ERM, A (training)", "PACS, ERM, A (leave-one-out)"]


def test_lacking_pairs_are_one_line():
    tables = [lacking("leave-one-out", (), name=name, lacks_pairs=True) for name in ("PACS", "VLCS")]
    told = gap_lines(tables)
    assert told == ["leave-one-out: no job of PACS, VLCS has two test environments; plan single_and_pairs for it"]
