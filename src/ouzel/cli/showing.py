"""Shows an answer while it comes: plain, as rendered Markdown, or not at all.

A writer takes text and thinking piece by piece; `watch` feeds it from a stream of events and
`conclude` says how the answer ended. Nothing here knows HTTP.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from ouzel.cli import output
from ouzel.cli.output import Failed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_TEXT = ("response.output_text.delta", "response.refusal.delta")
_THINKING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


class Writer(Protocol):
    """Takes an answer as it comes."""

    def text(self, piece: str) -> None:
        """More of the answer."""
        ...

    def thinking(self, piece: str) -> None:
        """More of what the model thinks before it answers."""
        ...

    def end(self) -> None:
        """Nothing follows, whether the answer is whole or not; may be called twice."""
        ...


class Silent:
    """Shows nothing."""

    def text(self, piece: str) -> None:
        """Nothing."""

    def thinking(self, piece: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Plain:
    """Text as it comes; thinking dimmed, on a terminal only.

    On a terminal control characters are left out, into a pipe the text goes as it is.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._thinking = False
        self._last = "\n"

    def text(self, piece: str) -> None:
        """More of the answer."""
        if self._thinking:
            self._thinking = False
            self._write("\x1b[0m\n\n")
        self._write(output.harmless(piece) if self._terminal else piece)

    def thinking(self, piece: str) -> None:
        """More thinking."""
        if not self._terminal:
            return
        if not self._thinking:
            self._thinking = True
            self._write("\x1b[2m")
        self._write(output.harmless(piece))

    def end(self) -> None:
        """Close the line."""
        if self._thinking:
            self._thinking = False
            self._write("\x1b[0m")
        if not self._last.endswith("\n"):
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._last = text


class Markdown:
    """Rendered Markdown: finished blocks are printed for good, only the open one is redrawn.

    So an answer of any length scrolls as it should, and redrawing stays cheap.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = ""
        self._live: Live | None = None
        self._thinking = False

    def text(self, piece: str) -> None:
        """More of the answer."""
        self._end_thinking()
        done, self._open = split_blocks(self._open + output.harmless(piece))
        if done:
            self._print(done)
        if self._open.strip():
            self._draw()

    def thinking(self, piece: str) -> None:
        """More thinking, dimmed and not rendered."""
        self._thinking = True
        self._console.print(
            output.harmless(piece), style="dim", end="", markup=False, soft_wrap=True
        )

    def end(self) -> None:
        """Print what is still open."""
        self._end_thinking()
        rest, self._open = self._open, ""
        self._print(rest)

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            self._console.print("\n")

    def _draw(self) -> None:
        from rich.live import Live
        from rich.markdown import Markdown as Rendered

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=12, transient=True)
            self._live.start()
        self._live.update(Rendered(self._open))

    def _print(self, text: str) -> None:
        from rich.markdown import Markdown as Rendered

        if self._live is not None:
            self._live.stop()
            self._live = None
        if text.strip():
            self._console.print(Rendered(text))
            self._console.print()


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown after its last blank line that is not inside a code fence.

    Returns:
        What is finished, and what may still grow. Together they are the text.
    """
    cut = at = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        at += len(line)
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not line[found.end() :].strip():
            fence = ""
        elif not fence and not line.strip() and line.endswith("\n"):
            cut = at
    return text[:cut], text[cut:]


async def watch(events: AsyncIterator[dict[str, Any]], writer: Writer) -> dict[str, Any]:
    """Feed a writer until the stream ends.

    Returns:
        The response object of the last event.

    Raises:
        Failed: the last event holds none.
    """
    final: object = None
    async for event in events:
        kind, delta = event.get("type"), event.get("delta")
        if kind in _TEXT and isinstance(delta, str):
            writer.text(delta)
        elif kind in _THINKING and isinstance(delta, str):
            writer.thinking(delta)
        elif kind == "error":
            raise Failed(str(event.get("message") or "The server reported an error."))
        final = event.get("response")
    if not isinstance(final, dict):
        raise Failed("The server ended the stream without a response.")
    return final


def conclude(final: dict[str, Any]) -> None:
    """Say so if an answer is not whole. Raises Failed if there is none."""
    if final.get("status") == "failed":
        raise Failed(str((final.get("error") or {}).get("message") or "The response failed."))
    if final.get("status") == "incomplete":
        reason = (final.get("incomplete_details") or {}).get("reason")
        hint = " The context is full, or a limit was set." if reason == "max_output_tokens" else ""
        output.note(f"The answer is cut short ({reason}).{hint}")
    if final.get("status") == "cancelled":
        output.note("The answer was cancelled.")
