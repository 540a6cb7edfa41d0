"""Where the command line writes: two consoles, one sentence for an error, text made harmless.

It knows nothing of commands or HTTP. Answers and tables go to standard output, so that they can
be piped; everything said about them goes to standard error.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Failed(Exception):
    """A command could not do its work; the message is one sentence that says what to do."""


def out() -> Console:
    """A console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def err() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def fail(message: str) -> None:
    """Write one red sentence to standard error."""
    from rich.text import Text

    text = Text.assemble(("Error: ", "bold red"), (harmless(message), "red"))
    err().print(text, soft_wrap=True)


def note(message: str) -> None:
    """Write a quiet remark to standard error."""
    from rich.text import Text

    err().print(Text(harmless(message), "dim"), soft_wrap=True)


def harmless(text: str) -> str:
    """The text without control characters, which could steer a terminal; tab and newline stay.

    What a model says is a stranger's text: printed raw, an escape sequence in it could rewrite the
    screen, the clipboard or the window's title.
    """
    return _CONTROL.sub("", text)


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as disks are sold: `1.1 GB`."""
    if round(count) < 1000:
        return f"{count:.0f} B"
    if round(count / 1e3) < 1000:
        return f"{count / 1e3:.0f} kB"
    if round(count / 1e6, 1) < 1000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """A duration for people: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@cache
def tick() -> str:
    """A check mark that the standard output can hold."""
    try:
        "✓".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok"
    return "✓"
