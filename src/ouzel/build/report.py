"""What start-up tells whoever started the server, and what the command line needs to listen.

The command line shows it with rich; a service may log it. The assembly calls it, in this order:
`step` and `done` alternate, `download` and `advance` come any number of times between them, and
`ready` comes once, last. Nothing here knows a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ouzel.core.errors import OuzelError

if TYPE_CHECKING:
    # Only named here: this file must load where a heavy library does not, to tell of it.
    from ouzel.engines.weights.progress import Progress

__all__ = ["OuzelError", "Report"]


class Report(Protocol):
    """Listens to start-up. No method raises, and none blocks for long.

    All calls come one at a time, but `download` may come from another thread than the rest.
    """

    def step(self, text: str) -> None:
        """A step of start-up begins, for example `Loading weights`."""
        ...

    def done(self, text: str = "") -> None:
        """The step succeeded; `text` says what came of it, for example `3.2 s`."""
        ...

    def download(self, progress: Progress) -> None:
        """How far the download of the current step is."""
        ...

    def advance(self, text: str, done: int, total: int) -> None:
        """How far the current step is where it is no download of weights.

        Args:
            text: what is done just now.
            done, total: in any unit; a total of 0 is not known yet.
        """
        ...

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        """The server listens.

        Args:
            url: the address that clients use as base URL, `/v1` included.
            model: the served model's own name.
            aliases: other names that it answers to.
        """
        ...
