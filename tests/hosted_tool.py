"""A small hosted tool: it converts lengths. docs/add-a-tool.md walks through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from ouzel.core.contracts import Asker, Invocation, Prepared, Stage, ToolOutcome
from ouzel.core.errors import RequestError, ToolError
from ouzel.core.items import HostedCall, Item
from ouzel.core.request import FunctionTool, HostedTool

METRES = {
    "mm": 0.001,
    "cm": 0.01,
    "m": 1.0,
    "km": 1000.0,
    "in": 0.0254,
    "ft": 0.3048,
    "mi": 1609.344,
}


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may set: `{"type": "convert_length", "digits": 2}`."""

    digits: int = 3


class Arguments(msgspec.Struct):
    """What the model gives."""

    value: float
    unit: str
    to: str


class ConvertLength:
    """Converts lengths."""

    type = "convert_length"
    id_prefix = "call"

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        """The settings are all there is to look at."""
        _settings(asked)
        return Prepared(asked)

    def offer(self, asked: HostedTool) -> Sequence[FunctionTool]:
        """One function, whatever the settings are."""
        parameters = {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "unit": {"type": "string"},
                "to": {"type": "string", "description": "the unit that is wanted"},
            },
            "required": ["value", "unit", "to"],
            "additionalProperties": False,
        }
        about = "Convert a length into another unit."
        return [FunctionTool("convert_length", about, msgspec.json.encode(parameters).decode())]

    def begin(self, call: Invocation) -> Item:
        """A call like that of any tool."""
        return HostedCall(call.id, self.type, call.name, call.arguments, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        """Look both units up, then multiply."""
        given = msgspec.json.decode(call.arguments, type=Arguments)
        yield Stage("looking_up")
        for unit in (given.unit, given.to):
            if unit not in METRES:
                raise ToolError(f"There is no unit '{unit}'; there are: {', '.join(METRES)}.")
        length = given.value * METRES[given.unit] / METRES[given.to]
        yield ToolOutcome(f"{round(length, _settings(call.tool).digits)} {given.to}")


def _settings(asked: HostedTool) -> Settings:
    try:
        settings = msgspec.json.decode(asked.settings, type=Settings)
    except msgspec.ValidationError as error:
        raise RequestError(f"Invalid tool settings: {error}", code="invalid_value") from error
    if not 0 <= settings.digits <= 9:
        message = f"Invalid value: {settings.digits}. Digits are 0 to 9."
        raise RequestError(message, param="digits", code="invalid_value")
    return settings
