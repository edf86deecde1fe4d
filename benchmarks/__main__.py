"""``python -m benchmarks [--quick] [--only penalty|memory|step]``: ratios, each measured in one run on one machine."""

import argparse
import os
import sys


def main() -> int:
    """Print the tables; 1 if two ways of computing the same thing disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds: does it run, not how fast")
    parser.add_argument("--only", choices=["penalty", "memory", "step"], help="one table instead of all three")
    arguments = parser.parse_args()
    # As fishr's command line does; torch reads it as it loads, hence the imports below.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from benchmarks import memory, penalty, step
    from benchmarks.machine import describe
    from benchmarks.ways import Disagreement

    tables = {"penalty": penalty.table, "memory": memory.table, "step": step.table}
    print(describe())
    if arguments.quick:
        print("A smoke run: the sizes are small and the times mean nothing.")
    try:
        for name in [arguments.only] if arguments.only else tables:
            print(f"\n{tables[name](arguments.quick)}", flush=True)
    except Disagreement as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
