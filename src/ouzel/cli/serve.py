"""`ouzel serve`: settings from everywhere, then the assembled server until it is stopped."""

from __future__ import annotations

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import SETTINGS, Settings

_EPILOG = """Examples:

[bold]ouzel serve[/bold]

[bold]ouzel serve --model smollm2-135m --port 8399[/bold]

[bold]OUZEL_API_KEY=… ouzel serve --host 0.0.0.0[/bold]

[bold]ouzel serve --engine-url http://127.0.0.1:8000/v1[/bold]

Each setting is also a key of the TOML file: [bold]port = 8399[/bold]"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=_EPILOG)(with_settings(serve, SETTINGS))


def serve(settings: Settings) -> None:
    """Start the server; stop it with Ctrl-C.

    Fetches the weights the first time and resumes if it was interrupted.
    """
    from ouzel import build
    from ouzel.cli.startup import ConsoleReport

    with ConsoleReport(with_key=settings.api_key is not None) as report:
        try:
            build.serve(settings, report)
        except KeyboardInterrupt:
            # Ctrl-C is how a server that runs is meant to be stopped; before that it is a break.
            if not report.is_ready:
                raise
        output.note("\nOuzel has stopped.")
