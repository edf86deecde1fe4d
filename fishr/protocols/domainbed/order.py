"""The order of a table's rows, and of tables."""

from fishr.protocols.domainbed.datasets import BENCHMARKS

AVERAGES = "averages"


def by_reference(algorithm: str) -> tuple[bool, str]:
    """The order of rows: ERM, which the others are compared with, then by name.

    Example:
        >>> sorted(["Fishr", "CORAL", "ERM"], key=by_reference)
        ['ERM', 'CORAL', 'Fishr']
    """
    return algorithm != "ERM", algorithm


def by_benchmark(table: str) -> tuple[int, str]:
    """The order of tables and of data sets: the benchmark's, then the others by name, the averages last.

    Example:
        >>> sorted(["averages", "zoo", "PACS", "apes", "ColoredMNIST"], key=by_benchmark)
        ['ColoredMNIST', 'PACS', 'apes', 'zoo', 'averages']
    """
    if table == AVERAGES:
        return len(BENCHMARKS) + 1, ""
    return (list(BENCHMARKS).index(table), "") if table in BENCHMARKS else (len(BENCHMARKS), table)
