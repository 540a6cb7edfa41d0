"""`ouzel gc`: delete what is old, and give its space back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import Settings

if TYPE_CHECKING:
    from ouzel.build.keeping import Cleaned

_EPILOG = """Examples:

[bold]ouzel gc --dry-run[/bold]

[bold]ouzel gc --keep-days 7[/bold]

[bold]ouzel gc --vacuum[/bold]

A server does the same by itself, once an hour; docs/retention.md says what is kept how long."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=_EPILOG)(with_settings(gc, ("home", "keep_days")))


def gc(
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Write the database anew; only when no server runs."),
    ] = False,
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans",
            help="Also delete bytes that no file names, and files whose bytes are gone; only when "
            "no server runs.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Delete what is old, and give its space back.

    Works beside a server, which goes on answering.
    """
    from ouzel.build.keeping import clean_up
    from ouzel.cli.startup import ConsoleReport

    with ConsoleReport(with_key=False, console=output.err()) as report:
        done = clean_up(settings, report, dry_run=dry_run, vacuum=vacuum, orphans=orphans)
    if as_json:
        print(json.dumps({**asdict(done), "dry_run": dry_run}, indent=2))
        return
    _show(done, dry_run)


def _show(done: Cleaned, dry_run: bool) -> None:
    from rich.text import Text

    console = output.out()
    title = "WOULD BE DELETED" if dry_run else "DELETED"
    width = max(len(title), *(len(each.kind) for each in done.removed))
    console.print(Text(f"{title:<{width}}  {'COUNT':>9}  {'SIZE':>9}", "bold"), soft_wrap=True)
    for each in done.removed:
        line = f"{each.kind:<{width}}  {each.count:>9,}  {output.size(each.size):>9}"
        console.print(Text(line, "" if each.count else "dim"), soft_wrap=True)
    before, after, free = map(output.size, (done.before, done.after, done.free))
    grown = f"{before}, {free} of it free" if dry_run else f"{before} before, {after} now"
    console.print(Text(f"The database takes {grown}."), soft_wrap=True)
    for note in done.notes:
        output.note(note)
