"""`ouzel serve` with one tool more, which keeps a list of everything that it was made to do.

The list is a file in the server's home that a kill does not shorten: a line for each call that was
begun, with the id under which the call is shown. What runs twice has two lines.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ouzel.build import assembling
from ouzel.cli import main
from ouzel.core.contracts import Asker, Invocation, Prepared, Stage, ToolOutcome
from ouzel.core.items import HostedCall, Item
from ouzel.core.request import FunctionTool, HostedTool

CALLS: Final = "calls.txt"
"""The list, below the home."""

TOOL: Final = "note_down"
"""The tool's type, and the name of its one function."""

TAKES: Final = 0.2
"""Seconds that a call takes after it was written down: time enough to be killed in."""


def noted(step: int) -> str:
    """What it tells the model of its call with this number."""
    return f"Number {step} is noted down."


class NoteDown:
    """Writes down that it was called."""

    type = TOOL
    id_prefix = "call"

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        """Nothing is needed."""
        return Prepared(asked)

    def offer(self, asked: HostedTool) -> Sequence[FunctionTool]:
        """One function, with the number of the call."""
        parameters = {"type": "object", "properties": {"step": {"type": "integer"}}}
        text = msgspec.json.encode(parameters).decode()
        return [FunctionTool(TOOL, "Notes down that it was called.", text)]

    def begin(self, call: Invocation) -> Item:
        """A call like that of any tool."""
        return HostedCall(call.id, self.type, call.name, call.arguments, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        """Add the line, in one write, and take some time."""
        path = Path(os.environ["OUZEL_HOME"]) / CALLS
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{call.id}\n".encode())
        os.close(descriptor)
        await asyncio.sleep(TAKES)
        yield ToolOutcome(noted(msgspec.json.decode(call.arguments)["step"]))


if __name__ == "__main__":
    assembling.code_tool = lambda *parts: NoteDown()
    main()
