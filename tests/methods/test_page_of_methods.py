"""docs/methods.md against the code: default and draw of each hyper-parameter, and which samples pass together."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from attrs import fields_dict, has

from fishr.methods import METHODS, Method
from fishr.methods.ranges import Range
from fishr.models import MLP
from fishr.protocols.domainbed.hyperparameters import shared_ranges

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
SMALL = ("RotatedMNIST", "ColoredMNIST")
LARGE = ("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet", "SVIRO")
# Also the ends and the middle of draws: whole multiples of it reach each of up to 7 choices.
SHARES = [share / 60 for share in range(61)]


class AtShare:
    """A generator whose draws are at a share of their range."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, low: float, high: float) -> float:
        return low + self.share * (high - low)

    def choice(self, values: Sequence[Any]) -> Any:
        return values[round(self.share * (len(values) - 1))]


def parsed(text: str) -> Any:
    """Return a value of the page."""
    known = {"true": True, "false": False, "1/3": 1 / 3}
    try:
        return known[text] if text in known else float(text)
    except ValueError:
        return text


def drawn(text: str) -> Callable[[Any], Any]:
    """Return the draw that the page describes."""
    if text.startswith("⌊"):
        return lambda generator: int(drawn(text.strip("⌊⌋"))(generator))
    if text.startswith("one of "):
        return lambda generator: parsed(generator.choice(text.removeprefix("one of ").split(", ")))
    base, low, high = re.fullmatch(r"(?:(\d+)\^)?U\((.*), (.*)\)", text).groups()
    ends = float(low), float(high)
    return lambda generator: float(base) ** generator.uniform(*ends) if base else generator.uniform(*ends)


def written(text: str, dataset: str, shared: Mapping[str, Range]) -> dict[str, Range]:
    """Return the hyper-parameters that a line of the page has for a data set."""
    found, names = dict[str, Range](), list[str]()
    for part in " ".join(text.replace("−", "-").split()).split("; "):
        named, where, value = re.fullmatch(r"((?:`\w+`(?:, )?)*) ?(?:on ([\w, ]*?) (?=[\d⌊]))?(.*)", part).groups()
        names = re.findall(r"\w+", named) or names
        of = {"small images": SMALL, "large images": LARGE}.get(where, re.findall(r"[A-Z]\w+", where or ""))
        if where and dataset not in of:
            continue
        default, _, draw = value.partition(", ")
        fixed = parsed(default)
        one = Range(fixed, drawn(draw) if draw else lambda generator, fixed=fixed: fixed)
        if value.startswith("as "):
            one = shared[value.removeprefix("as ").strip("`")]
        found |= dict.fromkeys(names, one)
    return found


def of_entry(name: str, dataset: str, shared: Mapping[str, Range]) -> dict[str, Range]:
    entry = next(text for heading, text in ENTRIES.items() if name in heading.split(", "))
    line = re.search(r"^- hyper-parameters: (.*?)(?=^- |\Z|^$)", entry, re.MULTILINE | re.DOTALL)
    if line and line[1].startswith("as "):
        return {
            k: one
            for other in line[1][3:].split()
            if other != "and"
            for k, one in of_entry(other, dataset, shared).items()
        }
    return written(line[1], dataset, shared) if line else {}


def check(page: Mapping[str, Range], code: Mapping[str, Range]) -> None:
    assert set(page) == set(code)
    for name, one in code.items():
        assert page[name].default == one.default, name
        draws = [[draw(AtShare(share)) for share in SHARES] for draw in (page[name].draw, one.draw)]
        assert all(
            isinstance(value, str) or value == pytest.approx(other) for value, other in zip(*draws, strict=True)
        ), name
        assert [value for value in draws[0] if isinstance(value, str)] == [v for v in draws[1] if isinstance(v, str)]


@pytest.mark.parametrize("dataset", [*SMALL, *LARGE])
def test_defaults_and_draws_are_those_of_the_code(dataset: str) -> None:
    lines = re.search(r"All methods share these:\n\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    shared = written(lines.replace("\n- ", "; ").removeprefix("- "), dataset, {})
    check(shared, shared_ranges(dataset))
    for name, method in METHODS.items():
        check(of_entry(name, dataset, shared), method.ranges_on(dataset))


def test_every_entry_names_its_source() -> None:
    assert not [name for name, text in ENTRIES.items() if "\n- source: " not in text]


def test_the_table_of_differences_has_the_methods_with_a_form_of_the_paper() -> None:
    table = re.search(r"\| method \| in DomainBed's code \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    names = {name for row in table.splitlines() for name in row.split(" | ")[0].strip("| ").split(", ")}
    found = set[str]()
    for name, method in METHODS.items():
        drawn = defaults(method)
        made = method.objective(drawn)
        penalties = [getattr(term, "penalty", term) for term in made.penalty.terms.values()]
        parts = [made.risk, *penalties, *method.changes(drawn).values(), method.featurizer(MLP(), drawn)]
        declared = [fields_dict(type(part)).get("form") for part in parts if has(type(part))]
        if any(one and "paper" in get_args(one.type) for one in declared):
            found.add(name)
    # SANDMask has none, and without CAD's difference CondCAD has none either.
    assert names - {"SANDMask"} == found - {"CondCAD"}


def defaults(method: Method) -> dict[str, Any]:
    return {name: one.default for name, one in (shared_ranges("PACS") | method.ranges_on("PACS")).items()}


def test_the_table_of_passes_has_the_methods_that_pass_each_domain_alone() -> None:
    alone, pairs = re.search(r"\| one domain \| (.*) \|\n\| a mixed pair of domains \| (.*) \|", PAGE).groups()
    found = set[str]()
    for name, method in METHODS.items():
        if method.passes or getattr(method.changes(defaults(method)).get("descent"), "by_domain", False):
            found.add(name)
    assert {*re.split("[,;] ", alone), pairs} == found
