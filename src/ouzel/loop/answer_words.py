"""The loop's own words around an answer: its length, JSON without a grammar, notes given back.

Short, since they are read by the engine. Words around thinking are in `thinking_words`, those
around tools in `guided_words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ouzel.core.request import Verbosity

VERBOSITY: Final[Mapping[Verbosity, str]] = MappingProxyType(
    {"low": "Keep your answers short.", "medium": "", "high": "Give long, detailed answers."}
)
"""How long an answer the client likes, said after its instructions. The middle goes unsaid."""

_MOST_SHOWN = 2_000
"""Characters of a wrong answer that are shown to the model again."""


JSON_NOW = "Now write the JSON that belongs to this, and nothing else."
"""Asks for JSON that the engine keeps to a schema."""


def as_json(schema: str) -> str:
    """Asks for JSON from engines that have no grammar."""
    return (
        "Answer with one JSON value and nothing else: no words around it, no code fence. It has to "
        f"be valid for this JSON Schema: {schema}"
    )


def not_valid(said: str, trouble: str) -> str:
    """Shows the model what was wrong with its JSON."""
    return (
        f"You wrote: {said[:_MOST_SHOWN]}\nThat is not valid: {trouble} Write the whole JSON value "
        "again, put right, and nothing else."
    )


CALL_NOW = "Call one of the tools now; do not answer in words."
"""Says that a call was required."""


NO_TOOLS = "No tool can be called any more. Answer in words, from what you know."
"""Says that there is nothing to be called."""


def wrong_arguments(trouble: str) -> str:
    """Shows the model what was wrong with a call's arguments."""
    return f"The arguments were not valid: {trouble} Write them again, put right."


def go_on(thought: str) -> str:
    """Gives a model that was interrupted its thinking back, to go on from."""
    return f"These are your notes so far:\n{thought.strip()}\n\nGo on from where they end."


def notes(thought: str) -> str:
    """Gives a model that thought for too long its thinking back, to answer from."""
    return (
        f"These are your notes so far:\n{thought.strip()}\n\nThere is no more time to think. "
        "Answer the user now, from these notes."
    )
