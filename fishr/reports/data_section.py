"""Sections of a run's data and classes: counts and samples of each domain, and what the model confuses."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from attrs import frozen

from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.inference.scoring import DomainResult, score_run, titles
from fishr.reports.matrix_chart import matrix_chart
from fishr.reports.page import Block, Cell, Section, Table, Text
from fishr.reports.sample_pictures import sample_pictures
from fishr.training.experiment import Experiment
from fishr.training.run_folder import checkpoint_of

# More classes make no column each, and no legible matrix.
_COLUMNS, _MATRIX, _PAIRS = 12, 40, 15


@frozen(eq=False)
class RunData:
    """Data of a run and results of its last weights on them; what is absent, a message explains."""

    domains: Domains | None
    results: tuple[DomainResult, ...] = ()
    message: str = ""


def load_run_data(
    folder: Path,
    experiment: Experiment,
    data_dir: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> RunData:
    """Return the data of a run, and the results of its last weights, as far as data and checkpoint are there.

    Args:
        folder: The run folder.
        experiment: Its experiment.
        data_dir: Folder of its data.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        progress: Called with the number of samples done, and of all.

    Raises:
        InputError: The checkpoint is damaged, or does not fit the data.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> found = load_run_data(Path("nowhere"), colored_digits())
        >>> [len(domain.labels) for domain in found.domains.evaluation], found.results
        ([497, 497], ())
        >>> found.message
        'nowhere: no checkpoint.pt yet; resume the run until it has made one'
    """
    try:
        domains = experiment.data(experiment.seed, data_dir)
    except InputError as error:
        return RunData(None, message=str(error))
    try:
        checkpoint_of(folder)
    except InputError as error:
        return RunData(domains, message=str(error))
    return RunData(domains, score_run(experiment, folder, (), data_dir, device, progress=progress)[1])


def data_section(known: RunData) -> Section:
    """Return the counts of each domain's classes, and pictures of its samples."""
    domains = known.domains
    if domains is None:
        return Section("Data", [Text(f"Class counts and samples are not shown: {known.message}.")])
    names = domains.class_names or tuple(map(str, range(domains.classes)))
    head, rows = ["domain", "split", "samples"], list[list[Cell]]()
    each = domains.label_columns is None and domains.classes <= _COLUMNS
    if each:
        head += names
    elif domains.label_columns is None:
        head += ["classes", "fewest of a class", "most of a class"]
    for domain, split in domains.by_split:
        row: list[Cell] = [domain.title, split, len(domain.labels)]
        counts = domain.class_counts(domains.classes) if domains.label_columns is None else torch.zeros(0)
        if each:
            row += counts.tolist()
        elif domains.label_columns is None:
            row += [int((counts > 0).sum()), int(counts[counts > 0].min()), int(counts.max())]
        rows.append(row)
    caption = f"Samples of each domain; an input has the shape {' × '.join(map(str, domains.shape))}."
    table = Table(head, rows, ["", "", *[",d"] * (len(head) - 2)], caption)
    return Section("Data", [table, *sample_pictures(domains)])


def class_section(known: RunData) -> Section:
    """Return each domain's metrics with their intervals, and what is taken for what."""
    named = zip(titles(known.results), known.results, strict=True)
    measured = {title: one.metrics for title, one in named if one.metrics}
    if not measured:
        return Section(
            "Classes", [Text(f"What the model confuses is not shown: {known.message}.")] if known.message else []
        )
    first = next(iter(measured.values()))
    head = ["domain", *(name.replace("_", " ") for name in first.metrics), "95 % interval of the accuracy"]
    rows = list[list[Cell]]()
    for title, found in measured.items():
        low, high = found.accuracy.low, found.accuracy.high
        interval = None if low is None or high is None else f"{low:.1%} to {high:.1%}"
        rows.append([title, *(metric.value for metric in found.metrics.values()), interval])
    formats = ["", *[".1%"] * len(first.metrics), ""]
    blocks: list[Block] = [Table(head, rows, formats, "The last weights on each domain, over all of its samples.")]
    if not first.confusion:
        return Section("Classes", blocks)
    names = [one.name for one in first.classes]
    if len(names) <= _MATRIX:
        hint = "A row is a class, a column what the model takes it for; colors are shares of the row."
        return Section(
            "Classes", [*blocks, Text(hint), *(_matrix(title, names, f.confusion) for title, f in measured.items())]
        )
    pairs = [
        (title, names[true], names[taken], count, count / max(sum(row), 1))
        for title, found in measured.items()
        for true, row in enumerate(found.confusion)
        for taken, count in enumerate(row)
        if count and taken != true
    ]
    often = sorted(pairs, key=lambda pair: -pair[3])[: _PAIRS * len(measured)]
    caption = "The most frequent confusions; the share is of the class's samples."
    return Section(
        "Classes",
        [
            *blocks,
            Table(("domain", "class", "taken for", "samples", "share"), often, ("", "", "", ",d", ".1%"), caption),
        ],
    )


def _matrix(title: str, names: Sequence[str], confusion: Sequence[Sequence[int]]):
    shares = [[count / total if (total := sum(row)) else None for count in row] for row in confusion]
    right = sum(confusion[k][k] for k in range(len(names))) / max(sum(map(sum, confusion)), 1)
    text = f"{len(names)} classes, {right:.1%} of the samples on the diagonal"
    return matrix_chart(
        title, names, names, shares, kind="share", x_title="predicted", y_title="class", text=text, counts=confusion
    )
