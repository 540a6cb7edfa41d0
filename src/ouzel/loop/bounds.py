"""How a turn is bound to a JSON Schema, by whatever its engine has for that. Pure.

An engine with llguidance takes the schema as a grammar, which holds more of it (bounds of numbers)
and also goes with a turn that was opened. Others take it as a schema; llama.cpp feeds what a turn
was opened with to the schema's grammar and refuses, so there the opening becomes a message. What
comes out is checked against the whole schema in any case; this file does not do that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ouzel.core.contracts import EngineInfo
from ouzel.core.turns import Turn, TurnMessage
from ouzel.loop import answer_words as words
from ouzel.loop.schemas_engine import as_grammar, for_engine
from ouzel.loop.schemas_short import short

ANY_OBJECT: Final = '{"type":"object"}'


def bound(info: EngineInfo, turn: Turn, schema: str, *, ending: bool = False) -> Turn:
    """The turn, bound to the schema as far as the engine can.

    Args:
        turn: its opening stays where that goes together.
        schema: JSON Schema as text, the client's own.
        ending: limit what the schema leaves open, so that it comes to an end.
    """
    if ending:
        schema = short(for_engine(schema))
    if {"llguidance", "grammar"} <= info.capabilities:
        return replace(turn, grammar=as_grammar(schema), schema=None)
    messages = turn.messages
    if turn.opening:
        messages = (*messages, TurnMessage("assistant", turn.opening.rstrip("\n")))
    if "json_schema" in info.capabilities:
        # To engines, the empty schema means any object.
        given = "{}" if schema == ANY_OBJECT else for_engine(schema)
        if turn.opening:
            messages = (*messages, TurnMessage("system", words.JSON_NOW))
        return replace(turn, messages=messages, opening="", schema=given)
    messages = (*messages, TurnMessage("system", words.as_json(schema)))
    return replace(turn, messages=messages, opening="")
