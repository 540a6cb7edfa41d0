"""Settings -> an assembled server; the only place where parts are wired together.

`serving` brings a server up and down, `engine` picks and makes the engine, `models` and `doctor`
look at what is there. Everything is imported when it is called, so that `ouzel --help` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ouzel.build.report import Report
    from ouzel.config import Settings


def serve(settings: Settings, report: Report) -> None:
    """Assemble the server, run it until it is told to stop, and let everything go.

    Args:
        settings: frozen settings.
        report: is told of every step of start-up.

    Raises:
        OuzelError: it could not start; the message says what to do.
    """
    from ouzel.build.serving import serve as run

    run(settings, report)
