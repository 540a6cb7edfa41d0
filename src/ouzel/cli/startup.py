"""Shows start-up on a terminal, step by step, and a first request to copy.

Implements `build.report.Report`. On a terminal the step under way has a spinner or a progress
bar; into a file or a log go plain lines, and of a download a line for each tenth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from ouzel.cli import output

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from ouzel.build.models import Progress

_DOING = {
    "waiting": "waiting for another download",
    "checking": "checking",
    "downloading": "downloading",
    "verifying": "verifying",
    "done": "done",
}


class ConsoleReport:
    """A `Report` for people. Use it as a context manager: it leaves the terminal as it was.

    Args:
        with_key: the server asks for a key, so the example requests must send one.
        console: where to write; standard output by default.
    """

    def __init__(self, *, with_key: bool, console: Console | None = None) -> None:
        self._console = console or output.out()
        self._with_key = with_key
        self._step = ""
        self._began = 0.0
        self._live: Live | None = None
        self.is_ready = False
        self._told: tuple[str, int] = ("", -1)

    def __enter__(self) -> ConsoleReport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_live()
        if error is not None and self._step:
            self._say("x", "red", self._step)

    def step(self, text: str) -> None:
        """A step begins."""
        self._step, self._began, self._told = text, time.monotonic(), ("", -1)
        if self._console.is_terminal:
            from rich.spinner import Spinner

            self._show(Spinner("dots", text))

    def done(self, text: str = "") -> None:
        """The step succeeded."""
        self._stop_live()
        took = time.monotonic() - self._began
        tail = text or (f"{took:.1f} s" if took >= 1 else "")
        self._say(output.tick(), "green", self._step, tail)
        self._step = ""

    def download(self, progress: Progress) -> None:
        """How far the step's download is."""
        if self._console.is_terminal:
            self._show(bar(self._step, progress))
            return
        tenth = int(10 * progress.done / progress.total) if progress.total else 0
        if (progress.phase, tenth) != self._told:
            self._told = (progress.phase, tenth)
            self._say(" ", "", f"{self._step}: {facts(progress)}")

    def advance(self, text: str, done: int, total: int) -> None:
        """How far the step is."""
        if self._console.is_terminal:
            self._show(steps_bar(self._step, text, done, total))
            return
        tenth = 10 * done // total if total else 0
        if (text if not total else "", tenth) != self._told:
            self._told = (text if not total else "", tenth)
            part = f" ({done} of {total})" if total else ""
            self._say(" ", "", f"{self._step}: {text}{part}")

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        """The server listens."""
        self.is_ready = True
        self._console.print()
        self._say(output.tick(), "green", f"Ouzel listens at {url}")
        self._say(" ", "", f"serving {model}", f"also as {', '.join(aliases)}" if aliases else "")
        for title, text in examples(url, model, self._with_key):
            self._console.print(f"\n[dim]{title}[/dim]")
            # Never wrapped, so that it can be copied whole.
            self._console.print(text, markup=False, soft_wrap=True)
        self._console.print("\n[dim]Stop with Ctrl-C.[/dim]")
        self._console.file.flush()

    def _say(self, mark: str, style: str, text: str, tail: str = "") -> None:
        from rich.text import Text

        line = Text.assemble((mark, style), " ", text, (f"  {tail}" if tail else "", "dim"))
        self._console.print(line, soft_wrap=True)
        self._console.file.flush()

    def _show(self, shown: RenderableType) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(shown)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def facts(progress: Progress) -> str:
    """One line about a download: what is done, how much of it, how fast, how long still."""
    parts = [_DOING[progress.phase]]
    if progress.total:
        parts.append(f"{output.size(progress.done)} of {output.size(progress.total)}")
    if progress.speed is not None:
        parts.append(f"{output.size(progress.speed)}/s")
    if progress.eta is not None:
        parts.append(f"{output.duration(progress.eta)} left")
    return ", ".join(parts)


def bar(title: str, progress: Progress) -> RenderableType:
    """The title, and below it a progress bar with the facts beside it; fits 80 columns."""
    return steps_bar(title, facts(progress), progress.done, progress.total or 0)


def steps_bar(title: str, text: str, done: int, total: int) -> RenderableType:
    """The title, and below it how much is done, with a text beside it; fits 80 columns."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=16)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    # Without a total there is no telling how far it is: then the bar pulses.
    shown = ProgressBar(total or None, done, pulse=not total)
    grid.add_row(shown, text)
    return Group(Text(title, no_wrap=True, overflow="ellipsis"), grid)


def examples(url: str, model: str, with_key: bool) -> Iterator[tuple[str, str]]:
    """First requests to copy: a title and the text of each.

    Args:
        url: base URL, `/v1` included.
        with_key: the server asks for its key; the examples take it from `OUZEL_API_KEY`.
    """
    body = json.dumps({"model": model, "input": "Why is the sky blue?", "stream": True})
    header = ' -H "authorization: Bearer $OUZEL_API_KEY"' if with_key else ""
    quoted = body.replace("'", "'\\''")
    yield (
        "A first request:",
        (f"curl -N {url}/responses -H 'content-type: application/json'{header} -d '{quoted}'"),
    )
    key = 'os.environ["OUZEL_API_KEY"]' if with_key else '"none"'
    lines = ["import os"] if with_key else []
    lines += [
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{url}", api_key={key})',
        f"print(client.responses.create(model={json.dumps(model)}, "
        'input="Why is the sky blue?").output_text)',
    ]
    yield "The same in Python, with the openai package:", "\n".join(lines)
    yield "Or from here:", 'ouzel ask "Why is the sky blue?"'
