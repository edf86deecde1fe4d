"""Time of the Fishr penalty, forward and backward, on given features."""

from tabulate import tabulate

from benchmarks.machine import Times, device, interleaved, verdict
from benchmarks.ways import BATCH_GRAD, EXTENSION, OURS, VMAP, Size, check_agreement, make_problem, ways

EMAS = (0.0, 0.95)
# Heads of PACS, OfficeHome and DomainNet on a ResNet-50, with DomainBed's batches; and how much faster to be.
CASES = ((Size(3, 32, 2048, 7), 5.0), (Size(3, 32, 2048, 65), 20.0), (Size(5, 32, 2048, 345), 50.0))
QUICK = ((Size(3, 32, 64, 7), 5.0), (Size(3, 32, 64, 65), 20.0), (Size(5, 32, 64, 45), 50.0))


def table(quick: bool) -> str:
    """Milliseconds of each way, and their ratios to the closed form.

    Raises:
        Disagreement: the ways do not give the same numbers.
    """
    rows = [_row(size, ema, target, quick) for size, target in (QUICK if quick else CASES) for ema in EMAS]
    headers = ("head", "ema", f"{OURS} ms", *(f"{n} ms (×)" for n in (EXTENSION, BATCH_GRAD, VMAP)), "BatchGrad target")
    return "Fishr penalty, forward and backward; × is times the closed form's, [quartiles]\n" + tabulate(
        rows, headers, disable_numparse=True
    )


def _row(size: Size, ema: float, target: float, quick: bool) -> list[str]:
    found = ways(make_problem(size, ema, device()))
    check_agreement(found)
    times = interleaved(found, rounds=2 if quick else 9)
    ratio, _, _ = times.ratio(BATCH_GRAD, OURS)
    cells = [_cell(times, name) for name in (EXTENSION, BATCH_GRAD, VMAP)]
    return [
        str(size),
        f"{ema:g}",
        f"{1e3 * times.median(OURS):.2f}",
        *cells,
        "" if quick else verdict(ratio, target, at_least=True),
    ]


def _cell(times: Times, name: str) -> str:
    ratio, low, high = times.ratio(name, OURS)
    return f"{1e3 * times.median(name):.1f} ({ratio:.1f}× [{low:.1f}, {high:.1f}])"
