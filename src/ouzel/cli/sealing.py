"""`ouzel rotate-sealing-key`: a new key for what clients keep for the server."""

from __future__ import annotations

from typing import Annotated

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import Settings

_EPILOG = """Examples:

[bold]ouzel rotate-sealing-key[/bold]

[bold]ouzel rotate-sealing-key --keep 2[/bold]

docs/sealing.md says when to do it."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command = with_settings(rotate_sealing_key, ("home",))
    app.command("rotate-sealing-key", epilog=_EPILOG)(command)


def rotate_sealing_key(
    settings: Settings,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            min=1,
            metavar="NUMBER",
            help="Keys to keep, the new one included. What others sealed never opens again. "
            "[dim](default: all)[/dim]",
        ),
    ] = None,
) -> None:
    """Seal with a new key from now on.

    Encrypted content that clients hold still opens with the old keys.
    """
    from ouzel.build.sealing import rotate

    done = rotate(settings, keep)
    typer.echo(f"A new key is in {done.path}; it holds {done.keys} now.")
    if done.dropped:
        typer.echo(f"{done.dropped} dropped: what they sealed never opens again.")
    output.note(
        "A server that runs goes on with the old ones; it takes the new one when it starts."
    )
