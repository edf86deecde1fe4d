"""Time of the Fishr penalty, forward and backward, on given features, beside its arithmetic floor."""

from benchmarks.floor import bytes_moved, products
from benchmarks.machine import bandwidth, device, interleaved, quartiles
from benchmarks.table import Cell, Number, Spread, Table, Verdict
from benchmarks.ways import BATCH_GRAD, OURS, SCALE_FREE, Size, check_agreement, make_problem, scale_free, ways

EMAS = (0.0, 0.95)
# Heads of PACS, OfficeHome and DomainNet on a ResNet-50 with DomainBed's batches, and how much faster to be than
# BatchGrad; then other batches.
CASES = (
    (Size(3, 32, 2048, 7), 5.0),
    (Size(3, 32, 2048, 65), 20.0),
    (Size(5, 32, 2048, 345), 50.0),
    (Size(3, 8, 2048, 65), None),
    (Size(3, 128, 2048, 65), None),
    (Size(3, 32, 1280, 7, hidden=256), None),
)
QUICK = ((Size(3, 32, 64, 7), 5.0), (Size(5, 32, 64, 45), 50.0), (Size(3, 8, 16, 3, hidden=4), None))
# The head whose time has a target in floors.
LARGEST, FLOORS = Size(5, 32, 2048, 345), 2.0
_FLOOR = "floor"


def table(quick: bool) -> Table:
    """Milliseconds of each way, and how often they hold the closed form's time, and the floor.

    Raises:
        Disagreement: the ways do not give the same numbers.
    """
    speed = bandwidth()
    cases = QUICK if quick else CASES
    return Table(
        "Fishr penalty, forward and backward, and what its arithmetic alone takes: products, and bytes at "
        f"{speed / 1e9:.1f} GB/s; [quartiles]",
        ("head", "ema", "way", "ms", "× the closed form's", "products ms", "bytes ms", "× floor", "target"),
        tuple(row for size, target in cases for ema in EMAS for row in _rows(size, ema, target, speed, quick)),
    )


def _rows(size: Size, ema: float, target: float | None, speed: float, quick: bool) -> list[tuple[Cell, ...]]:
    problem = make_problem(size, ema, device())
    found = ways(problem)
    check_agreement(found)
    found[SCALE_FREE] = scale_free(problem)
    times = interleaved({**found, _FLOOR: products(size, device())}, rounds=9, quick=quick)
    moving = bytes_moved(size, ema) / speed
    arithmetic = times.milliseconds(_FLOOR), Number(1e3 * moving, 3)
    rows = list[tuple[Cell, ...]]()
    for name in found:
        floors = [a / (b + moving) for a, b in zip(times.seconds[name], times.seconds[_FLOOR], strict=True)]
        ratio, of_floor = Spread(*times.ratio(name, OURS), 2), Spread(*quartiles(floors), 1)
        judged: Cell = None
        if not quick and name == BATCH_GRAD and target is not None:
            judged = Verdict(ratio.median, target, at_least=True)
        if name == OURS and size == LARGEST:
            judged = Verdict(of_floor.median, FLOORS, at_least=False)
        by = None if name == OURS else ratio
        rows.append((str(size), f"{ema:g}", name, times.milliseconds(name), by, *arithmetic, of_floor, judged))
    return rows
