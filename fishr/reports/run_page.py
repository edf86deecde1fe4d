"""The page of a run: its scores, data, objective and learning curves, and what was measured of it."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from fishr.analysis import load_analysis, load_history
from fishr.landscape.surface_file import load_surface
from fishr.reports.analysis_page import analysis_sections, history_section
from fishr.reports.data_section import RunData, class_section, data_section
from fishr.reports.landscape_section import landscape_section
from fishr.reports.learning_curves import curve_section
from fishr.reports.page import Block, Cell, Facts, Page, Section, Table, Text
from fishr.reports.run_record import RunRecord, read_run
from fishr.reports.setting_section import model_section, setting_section
from fishr.training.evaluation import DomainScore
from fishr.training.experiment import Experiment
from fishr.training.run_folder import AVERAGE, JOINED


def run_page(folder: Path, experiment: Experiment, known: RunData | None = None, plugins: Sequence[str] = ()) -> Page:
    """Return the page of a run folder, with the analysis, landscapes and statistics that are in it.

    Args:
        folder: The run folder.
        experiment: Its experiment.
        known: Data of the run, and results of its last weights; None leaves out what needs them.
        plugins: Modules that its configuration names.

    Raises:
        InputError: Its records or its checkpoint are damaged.

    Example:
        >>> import tempfile
        >>> import attrs
        >>> from fishr.configuration import dumps
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import run
        >>> experiment = attrs.evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent, "first")
        ...     _ = list(run(experiment, folder, experiment_text=dumps(experiment)))
        ...     page = run_page(folder, experiment)
        >>> page.title, [section.title for section in page.sections]
        ('first', ['Result', 'Learning curves', 'Objective and model', 'Settings'])
    """
    record = read_run(folder, experiment)
    data = [] if known is None else [data_section(known), class_section(known)]
    history, analysis = load_history(folder), folder / "analysis.h5"
    sections = [result_section(record, known), *data[:1], curve_section([record]), *data[1:]]
    sections += [history_section([history])] if history else []
    sections += analysis_sections(load_analysis(analysis)) if analysis.is_file() else []
    landscapes = sorted(folder.glob("landscape-*.h5"))
    films = [film for path in landscapes if (film := path.with_suffix(".gif")).is_file()]
    sections += [landscape_section([load_surface(path) for path in landscapes], films)]
    sections += [model_section(experiment, folder, plugins), setting_section(record)]
    return Page(record.name, _subtitle(record), [one for one in sections if one.blocks])


def result_section(record: RunRecord, known: RunData | None = None) -> Section:
    # Mean weights of several runs, for example, have no scores of their own.
    scores = record.scores or tuple(one.score for one in (known.results if known else ()))
    failed = record.result.get("status") == "failed"
    blocks: list[Block] = [Text(f"The run failed: {record.result.get('message')}.")] if failed else []
    if not scores:
        return Section("Result", [*blocks, Text("The run has not evaluated its weights.")])
    worst = [scores.index(min(scores, key=_goodness))] if len(scores) > 1 else []
    facts = {"worst domain": fact_of_worst(scores)} if worst else {}
    for split in ("training", "evaluation"):
        of = [score for score in scores if score.split == split and not math.isnan(score.accuracy)]
        if of:
            facts[f"mean {record.metric}, {split}"] = f"{fmean(score.accuracy for score in of):.1%}"
    rows: list[tuple[Cell, ...]] = [(s.title, s.accuracy, s.loss, s.split, s.samples) for s in scores]
    head = ("domain", record.metric, "loss", "split", "samples")
    caption = f"{_weights(record)} on each domain{'; the worst one stands out' if worst else ''}."
    return Section("Result", [*blocks, Facts(facts), Table(head, rows, ("", ".1%", ".4f", "", ",d"), caption, worst)])


def fact_of_worst(scores: Sequence[DomainScore]) -> str:
    """Return the name of the worst domain, and its accuracy or loss."""
    worst = min(scores, key=_goodness)
    return f"{worst.title}: " + (f"loss {worst.loss:.4g}" if math.isnan(worst.accuracy) else worst.percentage)


def _subtitle(record: RunRecord) -> str:
    for name, made in ((AVERAGE, "the mean weights of several runs"), (JOINED, "weights of a run and of its inputs")):
        if (record.folder / name).is_file():
            return f"{record.experiment.name}: {made}"
    done = record.steps[-1]["step"] + 1 if record.steps else record.experiment.steps
    steps = f"{done:,} step{'' if done == 1 else 's'}"
    return f"{record.experiment.name}: a run of {steps}, {record.result.get('status', 'not finished')}"


def _weights(record: RunRecord) -> str:
    return "The averaged weights" if record.experiment.average is not None else "The last weights"


def _goodness(score: DomainScore) -> float:
    return -score.loss if math.isnan(score.accuracy) else score.accuracy
