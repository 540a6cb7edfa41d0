"""Stands in the place of a tool that this server cannot run, and says why.

A request that offers it is refused in a sentence that helps, where an unknown type would only be
called unsupported. It runs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from ouzel.core.contracts import Asker, Invocation, Prepared, Stage, ToolOutcome
from ouzel.core.errors import RequestError
from ouzel.core.items import HostedCall, Item
from ouzel.core.request import CustomTool, HostedTool


class Unavailable:
    """A tool that is not to be had here.

    Args:
        type: the tool's.
        why: a sentence for whoever offers it.
    """

    id_prefix = "call"

    def __init__(self, type: str, why: str) -> None:  # noqa: A002  # the API's own word
        self._type = type
        self._why = why

    @property
    def type(self) -> str:
        """Its `type` in a request's tools."""
        return self._type

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        """Raises RequestError, always."""
        raise RequestError(self._why, param="type", code="unsupported_value")

    def offer(self, asked: HostedTool) -> Sequence[CustomTool]:
        """Nothing."""
        return []

    def begin(self, call: Invocation) -> Item:
        """Never comes to be called."""
        return HostedCall(call.id, self._type, call.name, call.arguments, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        """Says so; never comes to be called."""
        yield ToolOutcome(self._why, failed=True)
