"""``python -m benchmarks [--quick] [--only TABLE] [--json FILE]``: ratios, each measured in one run on one machine."""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from fishr.commands.allocator import keep_freed_memory

TABLES = (
    "penalty",
    "memory",
    "step",
    "whole_network",
    "growth",
    "diagnostics",
    "analysis",
    "landscape",
    "methods",
    "cached_training",
    "layers_above",
    "sweep",
    "caching",
    "image_cache",
    "commands",
    "ranks",
    "profile",
)
# A whole run is the command line's business, a penalty alone that of people's own loops, where the allocator is as it
# comes.
_OF_WHOLE_RUNS = ("step", "whole_network", "methods", "profile", "image_cache")
_BESIDE_DOMAINBED = ("methods", "image_cache", "commands")


def main() -> int:
    """Print the tables; 1 if two ways of computing the same thing disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run, not how fast")
    parser.add_argument("--only", choices=TABLES, help="one table instead of all")
    parser.add_argument(
        "--domainbed", type=Path, metavar="PATH", help="a checkout, whose updates, loaders and jobs are timed too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="a new file for all that was measured")
    arguments = parser.parse_args()
    if arguments.json is not None and arguments.json.exists():
        parser.error(f"--json {arguments.json}: exists already; name a new file")
    tables = TABLES if arguments.only is None else (arguments.only,)
    if len(tables) == 1 or arguments.quick:
        found = [_print_table(table, arguments.quick, arguments.domainbed) for table in tables]
    else:
        found = [in_own_process(table, arguments.domainbed) for table in tables]
    measured = {name: table for _, each in found for name, table in each.items()}
    if arguments.json is not None:
        arguments.json.write_text(f"{json.dumps(measured, indent=2, ensure_ascii=False)}\n")
    return max(code for code, _ in found)


def in_own_process(table: str, domainbed: Path | None = None) -> tuple[int, dict[str, Any]]:
    """What one table does to the allocator is not to reach the next."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.json")
        command = [sys.executable, "-m", "benchmarks", "--only", table, "--json", str(file)]
        command += [] if domainbed is None else ["--domainbed", str(domainbed)]
        code = subprocess.run(command, check=False).returncode
        return code, json.loads(file.read_text()) if file.exists() else {}


def _print_table(name: str, quick: bool, domainbed: Path | None) -> tuple[int, dict[str, Any]]:
    if name in _OF_WHOLE_RUNS and not quick:
        # It has to be set before torch loads, hence the imports below.
        keep_freed_memory()
    import attrs

    from benchmarks.machine import this_machine
    from benchmarks.ways import Disagreement

    machine = this_machine()
    print(machine)
    if quick:
        print("A smoke run: the sizes are small and the times mean nothing.")
    try:
        options = {"domainbed": domainbed} if name in _BESIDE_DOMAINBED else {}
        table = import_module(f"benchmarks.{name}").table(quick, **options)
    except Disagreement as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1, {}
    print(f"\n{table}\n", flush=True)
    measured = {"title": table} if isinstance(table, str) else table.plain()
    return 0, {name: {"machine": attrs.asdict(machine), "quick": quick, **measured}}


if __name__ == "__main__":
    sys.exit(main())
