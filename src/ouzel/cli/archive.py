"""`ouzel export`, `ouzel import` and `ouzel backup`: what is kept, in other places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import Settings

if TYPE_CHECKING:
    from ouzel.build.keeping import Counted

_EXPORT_EPILOG = """Examples:

[bold]ouzel export mine.tar[/bold]

[bold]ouzel export --owner local mine.tar[/bold]

The archive holds responses, stored completions, conversations, batches and files of one owner; \
docs/retention.md describes it. A server may be running. Whoever can read the archive can read all \
of that: only you can, until you give it away."""

_IMPORT_EPILOG = """Examples:

[bold]ouzel import mine.tar[/bold]

[bold]ouzel import mine.tar --owner bob --home ./other[/bold]

All of it is taken, or nothing. Ids stay; what is there already is left as it is, and what another \
owner has under the same id ends the import. Not while a server runs."""

_BACKUP_EPILOG = """Examples:

[bold]ouzel backup /backups/ouzel-monday[/bold]

The copy is a home of its own, with the files, keys and settings in it; containers, in which code \
ran, are not.

To restore: stop the server, put the copy where the home was (or name it: \
[bold]ouzel serve --home /backups/ouzel-monday[/bold]), and start again."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(name="export", epilog=_EXPORT_EPILOG)(with_settings(export, ("home",)))
    app.command(name="import", epilog=_IMPORT_EPILOG)(with_settings(import_, ("home",)))
    app.command(name="backup", epilog=_BACKUP_EPILOG)(with_settings(backup, ("home",)))


def export(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="Where to write the archive; nothing is there yet.")],
    owner: Annotated[
        str, typer.Option("--owner", metavar="NAME", help="Whose data.", show_default=True)
    ] = "local",
) -> None:
    """Write all that one owner has into an archive."""
    from ouzel.build.keeping import export_owner
    from ouzel.cli.startup import ConsoleReport

    with ConsoleReport(with_key=False) as report:
        counted = export_owner(settings, report, owner, file)
    _show(counted, "In it")
    typer.echo(f"{file} has {output.size(file.stat().st_size)}.")


def import_(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="An archive that `ouzel export` wrote.")],
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="NAME", help="Who gets it. [dim](default: whose it was)[/dim]"
        ),
    ] = None,
) -> None:
    """Take an exported archive in."""
    from ouzel.build.keeping import import_owner
    from ouzel.cli.startup import ConsoleReport

    with ConsoleReport(with_key=False) as report:
        given_to, counted = import_owner(settings, report, file, owner)
    _show(counted, f"Taken for {given_to}")


def backup(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(help="A folder that is new or empty.")],
) -> None:
    """Copy the home while the server runs."""
    from ouzel.build.keeping import back_up_home
    from ouzel.cli.startup import ConsoleReport

    with ConsoleReport(with_key=False) as report:
        done = back_up_home(settings, report, folder)
    typer.echo(f"{folder} has the database and {done.files} files, {output.size(done.size)}.")
    if done.deleted:
        output.note(f"{done.deleted} files were deleted while it was made.")
    if done.lost:
        output.note(f"{done.lost} files are not in it: their bytes were gone in the home, too.")


def _show(counted: Counted, title: str) -> None:
    done = ", ".join(f"{count} {kind}" for kind, count in counted.done.items())
    typer.echo(output.harmless(f"{title}: {done or 'nothing new'}."))
    for reason, count in counted.left_out.items():
        output.note(f"Left out: {count} {reason}.")
