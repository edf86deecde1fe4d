"""The last bits of a cell decide how it is printed."""

import numpy as np

from fishr.protocols.domainbed.cells import cell_of


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
