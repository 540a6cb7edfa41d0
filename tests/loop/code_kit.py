"""A tool that runs code as the loop sees one: what each program brings is said beforehand.

The real one, with a real sandbox, is tested in tests/tools and over HTTP; here it is the loop that
is looked at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ouzel.core.contracts import Asker, Invocation, Prepared, Stage, ToolOutcome
from ouzel.core.errors import ToolError
from ouzel.core.files import ContainerFile
from ouzel.core.items import CodeCall, Item, Logs
from ouzel.core.request import CustomTool, HostedTool

CODE = HostedTool("run_code")
PLOT = ContainerFile("cfile_1", "cntr_1", "plot.png", 10, 0.0)


@dataclass
class RunsCode:
    """Brings, for a program with this text in it, this output; an exception is raised.

    Attributes:
        ran: the programs, in order.
    """

    brings: dict[str, ToolOutcome | Exception] = field(default_factory=dict)
    note: str = ""
    ran: list[str] = field(default_factory=list)
    type: str = "run_code"
    id_prefix: str = "ci"

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        return Prepared(asked, self.note)

    def offer(self, asked: HostedTool) -> Sequence[CustomTool]:
        return [CustomTool("python", "Runs Python.", language="python")]

    def begin(self, call: Invocation) -> Item:
        return CodeCall(call.id, "cntr_1", call.arguments, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        self.ran.append(call.arguments)
        yield Stage("interpreting")
        found = next(
            (brings for text, brings in self.brings.items() if text in call.arguments), None
        )
        if isinstance(found, Exception):
            raise found
        outcome = found or ToolOutcome("42")
        item = CodeCall(
            call.id, "cntr_1", call.arguments, (Logs(outcome.text),), outcome.text, "completed"
        )
        yield ToolOutcome(outcome.text, outcome.failed, item, outcome.files)


FAILS = ToolOutcome("NameError: name 'x' is not defined", failed=True)
GONE = ToolError("No place became free in time.")
