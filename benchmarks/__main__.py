"""``python -m benchmarks [--quick] [--only TABLE]``: ratios, each measured in one run on one machine."""

import argparse
import subprocess
import sys
from importlib import import_module

from fishr.commands.allocator import keep_freed_memory

TABLES = ("penalty", "memory", "step", "diagnostics", "landscape", "cached_training", "caching", "image_cache")


def main() -> int:
    """Print the tables; 1 if two ways of computing the same thing disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds: does it run, not how fast")
    parser.add_argument("--only", choices=TABLES, help="one table instead of all")
    arguments = parser.parse_args()
    if arguments.only is None:
        # A process each: what one table does to the allocator is not to reach the next.
        commands = [[sys.executable, "-m", "benchmarks", *sys.argv[1:], "--only", table] for table in TABLES]
        return max(subprocess.run(command, check=False).returncode for command in commands)
    return _print_table(arguments.only, arguments.quick)


def _print_table(name: str, quick: bool) -> int:
    if name == "step":
        # A whole run is the command line's business, a penalty alone that of people's own loops, where the allocator
        # is as it comes. It has to be set before torch loads, hence the imports below.
        keep_freed_memory()
    from benchmarks.machine import describe
    from benchmarks.ways import Disagreement

    print(describe())
    if quick:
        print("A smoke run: the sizes are small and the times mean nothing.")
    try:
        print(f"\n{import_module(f'benchmarks.{name}').table(quick)}\n", flush=True)
    except Disagreement as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
