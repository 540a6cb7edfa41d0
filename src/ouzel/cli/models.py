"""`ouzel models` and `ouzel pull`: which weights there are, and how they come to disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import Settings

if TYPE_CHECKING:
    from ouzel.build.models import Row

_MODELS_EPILOG = """Examples:

[bold]ouzel models[/bold]

[bold]ouzel models --json | jq '.[] | select(.on_disk == "yes") | .name'[/bold]"""

_PULL_EPILOG = """Examples:

[bold]ouzel pull[/bold]

[bold]ouzel pull smollm2[/bold]

A download that was interrupted goes on where it stopped."""

_ON_DISK = {"yes": "yes", "unverified": "unchecked", "partial": "in part", "no": "-"}
_FIT = {"fits": ("yes", "green"), "tight": ("tight", "yellow"), "no": ("no", "red")}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog=_PULL_EPILOG)(with_settings(pull, ("home", "cache")))
    app.command(epilog=_MODELS_EPILOG)(with_settings(models, ("home", "cache")))


def pull(
    settings: Settings,
    name: Annotated[
        str | None, typer.Argument(help="Catalogue name or alias. Default: what is served.")
    ] = None,
) -> None:
    """Fetch weights and verify them."""
    from ouzel.build.models import fetch, find
    from ouzel.cli.startup import ConsoleReport

    entry = find(settings, name)
    with ConsoleReport(with_key=False) as report:
        report.step(entry.name)
        path = fetch(settings, entry, report.download)
        report.done(str(path))


def models(
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the weights that can be served.

    Whether they are on disk, and whether this machine has the memory for them.
    """
    from ouzel.build.models import list_models

    rows = list_models(settings)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=2))
        return
    _show(rows)


def _show(rows: list[Row]) -> None:
    """Two lines for each: what can be compared, then what is good to know."""
    from rich.text import Text

    console = output.out()
    width = max(len(row.name) for row in rows)
    head = f"{'NAME':<{width}}  {'ON DISK':<9}  {'SIZE':>8}  {'FITS':<5}  {'CONTEXT':>9}"
    console.print(Text(head, "bold"), soft_wrap=True)
    for row in rows:
        size = ("" if row.size_exact else "~") + output.size(row.size_bytes)
        fit, style = _FIT[row.fit]
        line = Text.assemble(
            (f"{row.name:<{width}}", "bold" if row.default else ""),
            f"  {_ON_DISK[row.on_disk]:<9}  {size:>8}  ",
            (f"{fit:<5}", style),
            f"  {row.context_window:>9,}",
        )
        console.print(line, soft_wrap=True)
        console.print(Text(f"  {'; '.join(_facts(row))}", "dim"), soft_wrap=True)
    output.note(
        "FITS: this machine has the memory. Fetch with `ouzel pull NAME`, serve with "
        "`ouzel serve --model NAME`; the path of any GGUF file works there too."
    )


def _facts(row: Row) -> Iterator[str]:
    yield f"takes {', '.join(row.modalities)}"
    yield f"licence {row.licence}"
    if row.aliases:
        yield f"also named {', '.join(row.aliases)}"
    if row.default:
        yield "the default"
    if row.retired:
        yield f"retired, use {row.successor}" if row.successor else "retired"
