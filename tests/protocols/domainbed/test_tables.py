import numpy as np

from fishr.protocols.domainbed.tables import Cell, Table, beside, cell_of, row_of


def test_cells_are_computed_in_domainbeds_order_of_operations():
    """100 · mean, 100 · std(values / √n): other orders differ in the last bit, and then in what is printed."""
    values = np.random.RandomState(0).rand(50, 3)
    differ = 0
    for trials in values.tolist():
        cell = cell_of(trials)
        assert cell.mean == 100 * np.mean(trials)
        assert cell.standard_error == 100 * np.std(np.array(trials) / np.sqrt(3))
        differ += cell.standard_error != 100 * np.std(trials) / np.sqrt(3)
    assert differ


def table(name, selection, columns, rows, protocol="p"):
    made = [row_of(a, [cell_of([value]) for value in values], protocol) for a, values in rows.items()]
    return Table(name, selection, columns, tuple(made))


def test_rows_of_an_algorithm_stand_together_in_the_order_of_the_sweeps():
    old = table("PACS", "oracle", ("A", "C"), {"ERM": (0.1, 0.2), "Fishr": (0.3, 0.4)}, "upstream")
    new = table("PACS", "oracle", ("A", "C"), {"ERM": (0.5, 0.6), "CORAL": (0.7, 0.8)}, "domainbed-2021")
    (made,) = beside({"zz": [old], "aa": [new]})
    assert [row.label for row in made.rows] == ["ERM (zz)", "ERM (aa)", "CORAL (aa)", "Fishr (zz)"]
    assert [row.protocol for row in made.rows] == ["upstream", "domainbed-2021", "domainbed-2021", "upstream"]
    assert [[cell.mean for cell in row.cells] for row in made.rows] == [[10, 20], [50, 60], [70, 80], [30, 40]]
    assert made.rows[0].average == old.rows[0].average


def test_columns_that_a_sweep_lacks_are_empty_and_leave_no_average():
    old = table("averages", "oracle", ("PACS",), {"ERM": (0.1,)})
    new = table("averages", "oracle", ("VLCS", "PACS"), {"ERM": (0.5, 0.25)})
    (made,) = beside({"old": [old], "new": [new]})
    # As the benchmark orders them.
    assert made.columns == ("VLCS", "PACS")
    first, second = made.rows
    assert (first.cells[0], first.average, first.worst) == (Cell(), None, None)
    assert ([cell.mean for cell in second.cells], second.average) == ([50, 25], 37.5)


def test_tables_meet_by_selection_and_data_set():
    def tables(*names):
        return [table(name, one, ("A",), {"ERM": (0.5,)}) for one in ("training", "oracle") for name in names]

    made = beside({"old": tables("PACS", "averages"), "new": tables("VLCS", "PACS", "averages")})
    told = [(one.selection, one.name, len(one.rows)) for one in made]
    sizes = {"VLCS": 1, "PACS": 2, "averages": 2}
    assert told == [(one, name, size) for one in ("training", "oracle") for name, size in sizes.items()]


def test_only_what_no_sweep_has_pairs_for_lacks_them():
    lacking, whole = (Table("PACS", "leave-one-out", ("A",), (), lacks_pairs=lacks) for lacks in (True, False))
    assert beside({"a": [lacking], "b": [lacking]})[0].lacks_pairs
    assert not beside({"a": [lacking], "b": [whole]})[0].lacks_pairs
