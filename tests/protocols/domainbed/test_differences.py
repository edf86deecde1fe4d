"""Differences of methods from one of them, trial by trial."""

from math import sqrt
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.protocols.domainbed.collection import averages_table, side_by_side
from fishr.protocols.domainbed.differences import with_differences
from fishr.protocols.domainbed.published import with_published
from fishr.protocols.domainbed.selection import Chosen
from fishr.protocols.domainbed.tables import Cell, Table, cell_of, row_of

accuracies = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5)


def cell(trials):
    chosen = {trial: Chosen(0.5, value, 0, 0) for trial, value in trials.items()}
    return cell_of([one.test for one in chosen.values()], (), chosen)


def table(methods, name="PACS"):
    """A table from each method's accuracies: by environment, by trial."""
    rows = [row_of(method, [cell(dict(enumerate(env))) for env in envs]) for method, envs in methods.items()]
    columns = tuple(str(index) for index in range(len(rows[0].cells)))
    return Table(name, "training", columns, tuple(rows))


def differences(tables, algorithm="ERM"):
    return {
        (found.name, row.label): row.difference for found in with_differences(tables, algorithm) for row in found.rows
    }


@given(accuracies, st.data())
def test_a_difference_is_of_trials(erm, data):
    other = data.draw(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=len(erm), max_size=len(erm)))
    made = differences([table({"ERM": erm, "Fishr": other})])
    by_trial = [100 * (fmean(env[t] for env in other) - fmean(env[t] for env in erm)) for t in range(3)]
    found = made["PACS", "Fishr"]
    assert made["PACS", "ERM"] is None
    assert found.mean == pytest.approx(fmean(by_trial), abs=1e-9)
    assert found.standard_error == pytest.approx(stdev(by_trial) / sqrt(3), abs=1e-9)
    assert found.trials == 3


def test_what_all_trials_share_leaves_no_error():
    """Trials differ by 20 points, the methods by one: an error of unpaired means would be 80 times the difference's."""
    erm = [[0.5, 0.7, 0.9]]
    found = differences([table({"ERM": erm, "Fishr": [[0.51, 0.71, 0.91]]})])["PACS", "Fishr"]
    assert found.mean == pytest.approx(1)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_averages_are_compared_over_the_same_data_sets():
    one = table({"ERM": [[0.5, 0.6]], "Fishr": [[0.7, 0.6]], "CORAL": [[0.9, 0.9]]})
    other = table({"ERM": [[0.1, 0.2], [0.3, 0.4]], "Fishr": [[0.1, 0.4], [0.3, 0.4]]}, "VLCS")
    made = differences([one, other, averages_table([one, other])])
    # By trial: (20 + 0)/2 and (0 + 10)/2.
    found = made["averages", "Fishr"]
    assert (found.mean, found.standard_error) == (pytest.approx(7.5), pytest.approx(2.5))
    assert made["PACS", "CORAL"].mean == pytest.approx(35)
    assert made["averages", "CORAL"] == Cell()


def test_a_trial_that_a_cell_lacks_does_not_count():
    erm = row_of("ERM", [cell({0: 0.5, 1: 0.6, 2: 0.1}), cell({0: 0.5, 1: 0.6, 2: 0.1})])
    fishr = row_of("Fishr", [cell({0: 0.6, 1: 0.6}), cell({0: 0.6, 1: 0.6, 2: 0.9})])
    one = row_of("IRM", [cell({1: 0.7}), cell({1: 0.7})])
    none = row_of("VREx", [cell({}), cell({0: 0.9})])
    made = differences([Table("PACS", "training", ("0", "1"), (erm, fishr, one, none))])
    assert (made["PACS", "Fishr"].mean, made["PACS", "Fishr"].trials) == (pytest.approx(5), 2)
    assert made["PACS", "IRM"] == Cell(pytest.approx(10), None, 1)
    assert made["PACS", "VREx"] == Cell()
    against_few = differences([Table("PACS", "training", ("0", "1"), (fishr, one))], "IRM")
    assert against_few["PACS", "Fishr"] == Cell(pytest.approx(-10), None, 1)


def test_rows_are_compared_within_their_sweep_or_else_with_the_only_row():
    def of(methods):
        one = table(methods)
        return [one, averages_table([one])]

    erm, other = {"ERM": [[0.5, 0.5]]}, {"ERM": [[0.1, 0.1]], "Fishr": [[0.2, 0.2]]}
    soups = {"ERM, soup": [[0.6, 0.6]]}
    both = differences(side_by_side({"a": of(erm | {"Fishr": [[0.6, 0.6]]}), "b": of(other), "c": of(soups)}))
    assert both["PACS", "Fishr (a)"].mean == both["averages", "Fishr (a)"].mean == pytest.approx(10)
    assert both["PACS", "Fishr (b)"].mean == pytest.approx(10)
    assert both["PACS", "ERM, soup (c)"] is None
    single = differences(side_by_side({"a": of(erm), "c": of(soups)}))
    assert single["PACS", "ERM, soup (c)"].mean == single["averages", "ERM, soup (c)"].mean == pytest.approx(10)


def test_published_rows_have_no_difference():
    (made,) = with_differences([table({"ERM": [[0.5, 0.5]]})], "ERM")
    assert all(row.difference is None for row in with_published(made).rows)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="--over: got CORAL, expected one of ERM, Fishr"):
        with_differences([table({"ERM": [[0.5]], "Fishr": [[0.5]]})], "CORAL")
