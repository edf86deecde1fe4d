from itertools import product

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.configuration import dumps, structure, unstructure
from fishr.configuration.toml import parse_toml
from fishr.errors import InputError
from fishr.protocols.domainbed.settings import OwnData, Settings
from fishr.sweeps.plan import Part, Plan, first_difference, parse_part


@pytest.mark.parametrize(
    ("dataset", "pairs", "single"),
    # The counts of DomainBed's own sweep: 20 draws × 3 trials × test sets.
    [
        ("ColoredMNIST", 360, 180),
        ("RotatedMNIST", 1260, 360),
        ("VLCS", 600, 240),
        ("PACS", 600, 240),
        ("OfficeHome", 600, 240),
        ("TerraIncognita", 600, 240),
        ("DomainNet", 1260, 360),
        ("SpawriousO2O_hard", 180, 60),  # its first environment, and that with each of the others
    ],
)
def test_counts_of_the_whole_benchmark(dataset, pairs, single):
    assert len(Plan((dataset,), ("Fishr",), "single_and_pairs").jobs()) == pairs
    assert len(Plan((dataset,), ("Fishr",)).jobs()) == single


def test_every_combination_once_in_a_fixed_order():
    plan = Plan(("PACS", "ColoredMNIST"), ("ERM", "Fishr"), "single_and_pairs", draws=2, trials=2)
    four = [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    three = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    expected = [
        (dataset, algorithm, trial, envs, draw)
        for dataset, sets in (("PACS", four), ("ColoredMNIST", three))
        for algorithm, trial, envs, draw in product(("ERM", "Fishr"), range(2), sets, range(2))
    ]
    jobs = plan.jobs()
    assert [(j.dataset, j.algorithm, j.trial_seed, j.test_envs, j.hparams_seed) for j in jobs] == expected
    assert len({job.name for job in jobs}) == len(jobs)
    assert plan.jobs() == jobs


def test_settings_reach_the_jobs():
    settings = Settings(steps=7, own={"Mine": OwnData("mine", ("a", "b", "c"))})
    jobs = Plan(("Mine",), ("ERM",), ((0, 2),), draws=1, trials=1, settings=settings).jobs()
    assert [(job.dataset, job.test_envs, job.steps) for job in jobs] == [("Mine", (0, 2), 7)]


def test_a_plan_is_a_file():
    text = """
        datasets = ["PACS", "Mine"]
        algorithms = ["ERM"]
        test_envs = [[0], [0, 1]]
        draws = 2
        threads = 2
        keep = "weights"
        [settings]
        steps = 100
        hparams = {batch_size = 16, lr = 1e-3}
        features.PACS = "pacs.h5"
        own.Mine = {path = "mine.csv", environments = ["a", "b", "c"]}
    """
    plan = structure(parse_toml(text), Plan)
    own = {"Mine": OwnData("mine.csv", ("a", "b", "c"))}
    hparams = {"batch_size": 16, "lr": 1e-3}
    settings = Settings(steps=100, hparams=hparams, features={"PACS": "pacs.h5"}, own=own)
    assert plan == Plan(
        ("PACS", "Mine"), ("ERM",), ((0,), (0, 1)), draws=2, threads=2, keep="weights", settings=settings
    )
    assert structure(parse_toml(dumps(plan)), Plan) == plan
    assert [type(value) for value in plan.settings.hparams.values()] == [int, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ()}, r"datasets: got \[\]"),
        ({"datasets": ("PACS", "PACS")}, "datasets: got .*each once"),
        ({"datasets": ("PICS",)}, "data set: got 'PICS'"),
        ({"algorithms": ("Fisher",)}, "algorithm: got 'Fisher'"),
        ({"algorithms": ("ERM", "ERM")}, "algorithms: got .*each once"),
        ({"test_envs": ((0,), (4,))}, "PACS: test environment: got 4, expected one of 0"),
        ({"test_envs": ((0, 1, 2, 3),)}, "leaves none of 4 environments"),
        ({"test_envs": ((1, 0),)}, "ascending"),
        ({"test_envs": ((),)}, r"test_envs: got \[\]"),
        ({"test_envs": ()}, r"test_envs: got \[\]"),
        ({"test_envs": ((0,), (0,))}, "each once"),
        ({"test_envs": "pairs"}, "test_envs: got 'pairs'"),
        ({"draws": 0}, "draws: got 0"),
        ({"trials": 0}, "trials: got 0"),
        ({"threads": 0}, "threads: got 0"),
        (
            {"draws": 10**9},
            r"plan: got 12,000,000,000 jobs \(1,000,000,000 draws, 3 trials\), expected at most 1,000,000",
        ),
        ({"trials": 10**18}, "expected at most 1,000,000; take fewer draws or trials"),
        ({"draws": 83_334, "trials": 3}, "got 1,000,008 jobs"),
    ],
)
def test_a_plan_whose_jobs_could_not_run_is_refused(change, message):
    with pytest.raises(InputError, match=message) as caught:
        attrs.evolve(Plan(("PACS",), ("ERM",)), **change)
    assert "\n" not in str(caught.value)


def test_a_plan_of_as_many_jobs_as_there_may_be_is_taken():
    assert Plan(("PACS",), ("ERM",), draws=83_333).draws == 83_333


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, None),
        ({"draws": 3}, "draws: the folder has 20, the plan given has 3"),
        ({"algorithms": ("ERM", "Fishr")}, "algorithms: the folder has ['ERM'], the plan given has ['ERM', 'Fishr']"),
        (
            {"settings": Settings(hparams={"lr": 0.1})},
            "settings.hparams.lr: the folder has the default, the plan given has 0.1",
        ),
    ],
)
def test_the_first_difference_is_named(change, difference):
    kept = Plan(("PACS",), ("ERM",))
    assert first_difference(unstructure(kept), unstructure(attrs.evolve(kept, **change))) == difference


@given(jobs=st.integers(0, 20), of=st.integers(1, 9))
def test_the_parts_are_the_whole(jobs, of):
    everything = tuple(range(jobs))
    parts = [Part(index, of).share(everything) for index in range(of)]
    assert sorted(job for part in parts for job in part) == list(everything)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "0", "/", "1/", "/3", "3/3", "-1/3", "a/b", "0/0", "1.0/3"])
def test_what_names_no_part_is_refused(text):
    with pytest.raises(InputError, match=r"part: got .*expected I/N"):
        parse_part(text)
