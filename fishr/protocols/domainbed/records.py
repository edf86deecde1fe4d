"""Records of a sweep's runs: results.jsonl as DomainBed or this package writes it, which may come from anywhere."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from fishr.errors import InputError, reason

RESULTS, DONE = "results.jsonl", "done"
UPSTREAM = "upstream"
# Arguments of ours that are a run's own; all others are the sweep's settings.
_OWN = {"dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed", "seed", "task", "threads"}
# Arguments of DomainBed that decide results; forks add others that do not.
_UPSTREAM_SETTINGS = ("steps", "checkpoint_freq", "holdout_fraction", "uda_holdout_fraction", "hparams", "task")
_ACCURACY = re.compile(r"(env[0-9]+_(?:in|out))_acc")


def _ascending(environments: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(environments))


@frozen(order=True)
class JobKey:
    """Identity of a job within its sweep; test environments are kept in ascending order."""

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...] = field(converter=_ascending)
    hparams_seed: int
    trial_seed: int

    def __str__(self) -> str:
        envs = "+".join(map(str, self.test_envs))
        return f"{self.dataset} {self.algorithm} test {envs} draw {self.hparams_seed} trial {self.trial_seed}"


@frozen
class Record:
    """One evaluation of a job."""

    key: JobKey
    step: int  # updates before it, as DomainBed counts
    accuracies: Mapping[str, float]  # "env0_in", "env0_out", "env1_in", …: 0 to 1

    @property
    def environments(self) -> int:
        """Number of environments of the data set."""
        return len(self.accuracies) // 2


@frozen
class Records:
    """All records of a sweep."""

    records: tuple[Record, ...]  # in the order in which they were written
    unfinished: tuple[JobKey, ...] = ()  # jobs without their last record
    settings: Mapping[str, Any] = field(factory=dict)  # common to all runs

    @property
    def protocol(self) -> str:
        """Name of the protocol; "upstream" if DomainBed wrote the records."""
        return str(self.settings.get("protocol", UPSTREAM))

    @property
    def environment_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the environments of custom data sets, by data set."""
        return {name: tuple(own["environments"]) for name, own in self.settings.get("own", {}).items()}

    @property
    def keys(self) -> tuple[JobKey, ...]:
        """The jobs that have a record, each once."""
        return tuple(dict.fromkeys(record.key for record in self.records))


@frozen
class _Run:
    path: Path
    records: tuple[Record, ...]
    finished: bool
    settings: Mapping[str, Any]


def read_records(*folders: Path, progress: Callable[[int, int], object] = lambda done, total: None) -> Records:
    """Return the records of one sweep, unfinished runs too, from folders of DomainBed or of this package."""
    runs = dict[JobKey, _Run]()
    paths = [path for folder in folders for path in _result_files(folder)]
    for done, path in enumerate(paths, 1):
        run = _read_run(path)
        progress(done, len(paths))
        if not run.records:
            continue
        key = run.records[0].key
        if key in runs:
            raise InputError(
                f"{key}: got it twice, in {runs[key].path} and in {path}; expected each job once; move one of them away"
            )
        runs[key] = run
    if not runs:
        raise InputError(f"{', '.join(map(str, folders))}: found no whole record yet; collect when a job has some")
    return Records(
        records=tuple(record for run in runs.values() for record in run.records),
        unfinished=tuple(key for key, run in runs.items() if not run.finished),
        settings=_common_settings(list(runs.values())),
    )


def _result_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the folder of a sweep")
    found = sorted([*folder.glob(f"*/{RESULTS}"), *folder.glob(f"jobs/*/{RESULTS}")])
    if not found:
        raise InputError(
            f"{folder}: found no results, expected RUN/{RESULTS} of DomainBed or jobs/NAME/{RESULTS} of this package; "
            "give the folder of a sweep that has begun"
        )
    return found


def _read_run(path: Path) -> _Run:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: could not be read ({reason(error)}); check it, or move its folder away") from None
    finished = (path.parent / DONE).exists()
    records = list[Record]()
    settings: Mapping[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError:
            if number == len(lines) and not finished:
                break
            raise InputError(f"{where}: cut or damaged, expected JSON; remove the line, or run the job again") from None
        except RecursionError:
            raise InputError(f"{where}: nested too deeply for a record; remove the file from the sweep") from None
        record = _record(entry, where)
        if not records:
            settings = _settings(entry["args"])
        elif record.key != records[0].key:
            raise InputError(
                f"{where}: got {record.key} after {records[0].key}, expected one job a file; split the file"
            )
        records.append(record)
    return _Run(path, tuple(records), finished, settings)


def _record(entry: Any, where: str) -> Record:
    match entry:
        case {
            "step": int(step),
            "args": {
                "dataset": str(dataset),
                "algorithm": str(algorithm),
                "test_envs": [*tested],
                "hparams_seed": int(hparams_seed),
                "trial_seed": int(trial_seed),
            } as args,
        } if all(type(one) is int for one in tested):
            for name, value in (("step", step), ("hparams_seed", hparams_seed), ("trial_seed", trial_seed)):
                if isinstance(value, bool) or value < 0:
                    raise InputError(
                        f"{where}: {name}: got {value}, expected a whole number of 0 or more; run the job again"
                    )
            key = JobKey(dataset, algorithm, tuple(tested), hparams_seed, trial_seed)
            _check_settings(entry.get("hparams", {}), args, where)
            return Record(key, step, _accuracies(entry, key.test_envs, where))
        case _:
            raise InputError(
                f"{where}: not a record of DomainBed, which has a step and args with dataset, algorithm, test_envs, "
                "hparams_seed and trial_seed; remove the file from the sweep"
            )


def _check_settings(hparams: Any, args: Mapping[str, Any], where: str) -> None:
    match hparams, args.get("protocol"), args.get("own", {}):
        case dict(), str() | None, dict() as own if all(map(_has_environments, own.values())):
            pass
        case _:
            raise InputError(
                f"{where}: expected a table in hparams, a text in args.protocol and tables with a list of environments "
                "in args.own; run the job again"
            )


def _has_environments(own: Any) -> bool:
    match own:
        case {"environments": [*names]}:
            return all(isinstance(name, str) for name in names)
        case _:
            return False


def _accuracies(entry: Mapping[str, Any], test_envs: Sequence[int], where: str) -> dict[str, float]:
    """Return the accuracies of all environments, "env0_in" first."""
    found = {match[1]: entry[match[0]] for name in entry if (match := _ACCURACY.fullmatch(name))}
    # As many environments as there are pairs of entries: a huge index must not allocate that many names.
    count = max(2, (len(found) + 1) // 2)
    names = [f"env{index}_{split}" for index in range(count) for split in ("in", "out")]
    expected = set(names)
    if found.keys() != expected:
        lacking = next((f"{name}_acc" for name in names if name not in found), "nothing")
        beyond = [f"{name[:40]}_acc" for name in found if name not in expected]
        raise InputError(
            f"{where}: lacks {lacking}{f' and has {beyond[0]}' if beyond else ''}, expected an accuracy of the in and "
            "the out split of each of two or more environments, numbered from 0; run the job again"
        )
    for name in names:
        value = found[name]
        # NaN is in no range, and True is no number.
        if type(value) not in (int, float) or not 0 <= value <= 1:
            got = type(value).__name__ if isinstance(value, list | dict) else json.dumps(value)[:40]
            raise InputError(f"{where}: {name}_acc: got {got}, expected a number from 0 to 1; run the job again")
    if not test_envs or not 0 <= test_envs[0] <= test_envs[-1] < count:
        raise InputError(f"{where}: got test_envs {list(test_envs)}, expected some of 0 to {count - 1}")
    if len(set(test_envs)) < len(test_envs):
        raise InputError(f"{where}: got test_envs {list(test_envs)}, expected each once")
    return {name: float(found[name]) for name in names}


def _common_settings(runs: list[_Run]) -> Mapping[str, Any]:
    first = runs[0]
    for run in runs:
        for name in dict.fromkeys(["protocol", *first.settings, *run.settings]):
            here, there = first.settings.get(name), run.settings.get(name)
            if here != there:
                raise InputError(
                    f"{name}: got {here!r} in {first.path} and {there!r} in {run.path}; expected one for all runs of a "
                    "sweep; keep them in two folders and collect both"
                )
    return first.settings


def _settings(args: Mapping[str, Any]) -> dict[str, Any]:
    if "protocol" in args:
        return {name: value for name, value in args.items() if name not in _OWN}
    return {name: args[name] for name in _UPSTREAM_SETTINGS if name in args} | {"protocol": UPSTREAM}
