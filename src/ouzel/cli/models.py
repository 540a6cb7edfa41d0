"""`ouzel models` and `ouzel pull`: which weights there are, and how they come to disk."""

from __future__ import annotations

import json
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
_FIT = {"fits": "[green]yes[/green]", "tight": "[yellow]tight[/yellow]", "no": "[red]no[/red]"}


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
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAME", overflow="fold")
    for title in ("ON DISK", "SIZE", "FITS", "CONTEXT"):
        table.add_column(title, no_wrap=True, justify="right" if title != "ON DISK" else "left")
    for title in ("TAKES", "LICENCE", "ALSO NAMED"):
        table.add_column(title, overflow="fold")
    for row in rows:
        about = "" if row.size_exact else "~"
        table.add_row(
            f"[bold]{row.name}[/bold]" if row.default else _name(row),
            _ON_DISK[row.on_disk],
            about + output.size(row.size_bytes),
            _FIT[row.fit],
            f"{row.context_window:,}",
            ", ".join(row.modalities),
            row.licence,
            ", ".join(row.aliases),
        )
    output.out().print(table)
    output.note("Bold is the default. `ouzel pull NAME` fetches one, `ouzel serve --model NAME`")
    output.note("serves it; the path of any GGUF file works there too.")


def _name(row: Row) -> str:
    if row.retired:
        return f"{row.name} (retired{f', use {row.successor}' if row.successor else ''})"
    return row.name
