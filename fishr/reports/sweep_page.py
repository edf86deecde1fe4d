"""The page of a sweep: progress, tables of all selections, accuracies by test domain, every job, failures."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishr.protocols.domainbed.collection import averages_table, dataset_tables
from fishr.protocols.domainbed.records import RESULTS, JobKey, Record, Records, read_records
from fishr.protocols.domainbed.rendering import cell_text
from fishr.protocols.domainbed.selection import SELECTIONS, TITLES, training_domain_validation
from fishr.protocols.domainbed.tables import AVERAGES
from fishr.protocols.domainbed.tables import Table as Accuracies
from fishr.reports.job_charts import Job, domain_chart, job_chart
from fishr.reports.page import Block, Cell, Facts, Listing, Page, Section, Table, Text
from fishr.sweeps.folder import JOBS, PLAN, planned_keys
from fishr.sweeps.progress import FailedJob, Progress, progress

# The end of the log of thousands of failures would be the largest part of a page.
_FAILURES = 30
_HOUR = 3600


def sweep_page(folder: Path, seen: Callable[[int, int], object] = lambda done, total: None) -> Page:
    """Return the page of a sweep folder, which may still be running.

    Args:
        folder: With its plan.toml and jobs/.
        seen: Called with the number of jobs whose records are read, and of all that have some.

    Raises:
        InputError: No sweep is there, or its plan or records are damaged.

    Example:
        >>> sweep_page(Path("runs/sweep"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs/sweep: no sweep is there...
    """
    keys = planned_keys(folder)
    found = progress(folder, keys)
    sections = [_progress_section(found)]
    if any(path.stat().st_size for path in (folder / JOBS).glob(f"*/{RESULTS}")):
        sections += _result_sections(folder, read_records(folder, progress=seen), keys)
    sections += [_failure_section(found.failures)] if found.failures else []
    plan = Section("Plan", [Listing((folder / PLAN).read_text(), PLAN)])
    total = found.total
    return Page(folder.resolve().name, f"a sweep, {total.done:,} of {total.jobs:,} jobs done", [*sections, plan])


def _progress_section(found: Progress) -> Section:
    total = found.total
    facts = {"jobs": f"{total.jobs:,}"} | {
        name: f"{count:,}"
        for name, count in (("done", total.done), ("running", total.running), ("failed", total.failed))
    }
    facts["waiting"] = f"{total.waiting:,}"
    if (left := found.seconds_left) is not None and total.running + total.waiting:
        facts[f"left, with {max(1, total.running)} at work"] = f"about {left / _HOUR:.1f} h"
    head = ("data set", "algorithm", "jobs", "done", "running", "failed", "waiting", "best validation accuracy")
    rows: list[tuple[Cell, ...]] = [
        (row.dataset, row.algorithm, row.jobs, row.done, row.running, row.failed, row.waiting, row.best)
        for row in found.rows
    ]
    return Section("Progress", [Facts(facts), Table(head, rows, ("", "", *[",d"] * 5, ".1%"))])


def _result_sections(folder: Path, read: Records, planned: Sequence[JobKey]) -> list[Section]:
    tables, blocks = list[Accuracies](), list[Block]()
    for selection in SELECTIONS:
        found = list(dataset_tables(read, selection, planned))
        averages = [averages_table(found)] if len(found) > 1 else []
        tables += found
        blocks += [_table(one) for one in (*found, *averages)]
    datasets = list(dict.fromkeys(table.name for table in tables))
    of = {name: [table for table in tables if table.name == name] for name in datasets}
    jobs = _jobs(folder, read, of)
    domains = [domain_chart(name, of[name]) for name in datasets]
    points = [job_chart(name, jobs[name], of[name][0].columns) for name in datasets if jobs[name]]
    protocol = Text(f"Protocol {read.protocol}; unfinished jobs count as far as they got: {len(read.unfinished)}.")
    every = Text(
        "A point is a job at the step that training-domain validation selects. An axis of a hyper-parameter that spans "
        "a decade or more is logarithmic. Hover over a point to see its job. Jobs of two test domains are not shown."
    )
    return [
        Section("Tables", [protocol, *blocks]),
        Section("Test domains", domains),
        Section("Jobs", [every, *points]),
    ]


def _table(table: Accuracies) -> Block:
    """Return the accuracies of one selection; algorithms without any are named in the caption."""
    name = "Average over test domains" if table.name == AVERAGES else table.name
    shown = [row for row in table.rows if any(cell and cell.mean is not None for cell in row.cells)]
    absent = [row.label for row in table.rows if row not in shown]
    title = f"{name}, {TITLES[table.selection]}"
    if not shown:
        return Text(f"{title}: {'no job has two test environments' if table.lacks_pairs else 'no number yet'}.")
    missing = f" No number yet: {', '.join(absent)}." if absent else ""
    rows: list[tuple[Cell, ...]] = [
        (
            row.label,
            *(None if cell is None or cell.mean is None else cell_text(cell, "±") for cell in row.cells),
            row.average,
        )
        for row in shown
    ]
    formats = ("", *[""] * len(table.columns), ".1f")
    caption = f"{title}: mean ± standard error over trials, in percent.{missing}"
    return Table(("algorithm", *table.columns, "mean"), rows, formats, caption)


def _jobs(folder: Path, read: Records, of: Mapping[str, Sequence[Accuracies]]) -> dict[str, list[Job]]:
    """Return the jobs with one test environment, by data set."""
    records = dict[JobKey, list[Record]]()
    for record in read.records:
        records.setdefault(record.key, []).append(record)
    drawn, found = _hyper_parameters(folder), {name: list[Job]() for name in of}
    for key, steps in records.items():
        chosen = training_domain_validation(steps, key.test_envs[0])
        if chosen is not None:
            found[key.dataset].append(Job(key, chosen, drawn[key]))
    return found


def _hyper_parameters(folder: Path) -> dict[JobKey, dict[str, Any]]:
    """Return the hyper-parameters of each job, which every record of it repeats."""
    found = dict[JobKey, dict[str, Any]]()
    for path in (folder / JOBS).glob(f"*/{RESULTS}"):
        with path.open() as file:
            line = file.readline()
        # The first record of a job that was just begun may not be whole.
        if line.endswith("\n"):
            record = json.loads(line)
            names = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
            found[JobKey(*(record["args"][name] for name in names))] = record.get("hparams", {})
    return found


def _failure_section(failures: Sequence[FailedJob]) -> Section:
    causes = Counter(one.failure.message for one in failures).most_common()
    blocks: list[Block] = [Table(("message", "failed jobs"), causes, ("", ",d"))]
    blocks += [
        Listing(
            "\n".join(one.failure.log) or "nothing was logged",
            f"{one.key}: {one.failure.message} (tried {one.failure.tries}×)",
        )
        for one in failures[:_FAILURES]
    ]
    rest = len(failures) - _FAILURES
    return Section("Failures", [*blocks, Text(f"and {rest:,} more failed jobs")] if rest > 0 else blocks)
