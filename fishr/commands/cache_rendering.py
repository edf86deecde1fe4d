"""How a cache is shown while it is made, and what is said of one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.errors import RunFailed

if TYPE_CHECKING:
    from fishr.analysis.feature_caching import Featured
    from fishr.data.caches import Description


class Bar:
    """A progress bar on a terminal; an interruption says how to go on."""

    def __init__(self, out: Path, featured: "Featured | None" = None) -> None:
        from tqdm import tqdm

        total = None if featured is None else sum(section.rows for section in featured.sections)
        self._out = out
        self._bar = tqdm(total=total, unit="row", unit_scale=True, disable=not sys.stderr.isatty())

    def __enter__(self) -> "Bar":
        return self

    def update(self, rows: int) -> None:
        """Move on by so many rows."""
        self._bar.update(rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if kind is KeyboardInterrupt:
            raise RunFailed(f"{self._out}: interrupted; the same command goes on with it") from None


def tell(out: Path, written: bool, style: str) -> None:
    """Say what a file holds now that it is made, or that it was there already."""
    from fishr.commands.rendering import as_json
    from fishr.data.caches import describe

    description = describe(out)
    if style == "json":
        told = as_object(out, description) | {"written": written}
        del told["elements"]
        click.echo(as_json(told))
        return
    rows = sum(section.rows for section in description.sections)
    what = f"{len(description.sections)} domains, {rows} rows, {description.bytes / 2**20:.1f} MiB"
    click.echo(f"{out}: {what}" if written else f"{out}: is there already, made of the same; {what}")


def as_object(file: Path, description: "Description") -> dict[str, Any]:
    """A description as an object for JSON."""
    import attrs

    found = attrs.asdict(description)
    header, sections = found.pop("header"), found.pop("sections")
    return {"file": str(file), **header, **found, "domains": sections}


def as_text(file: Path, description: "Description") -> str:
    """A description as tables for people."""
    from tabulate import tabulate

    header = description.header
    lines = [f"{file}: {header.kind}, version {header.version}, {description.bytes / 2**20:.1f} MiB"]
    facts = {"key": description.key, **description.provenance}
    lines += [f"  {name}: {_short(value)}" for name, value in facts.items() if value is not None]
    domains = [(section.name, section.split, section.rows) for section in description.sections]
    elements = [
        (element.name, element.encoding, element.type, "×".join(map(str, element.shape)) or "1")
        for element in description.elements
        if not element.name.startswith("/provenance/")
    ]
    tables = [tabulate(domains, ("domain", "split", "rows"), disable_numparse=True)] if domains else []
    tables.append(tabulate(elements, ("element", "encoding", "type", "shape"), disable_numparse=True))
    return "\n\n".join(["\n".join(lines), *tables])


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    lines = str(value).split("\n")
    return lines[0] if len([line for line in lines if line]) <= 1 else f"{len(lines) - 1} lines of TOML"
