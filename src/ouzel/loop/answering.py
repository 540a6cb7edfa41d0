"""The answer itself: plain text as it comes, or JSON that is valid before it goes out.

JSON under a schema is generated under the engine's grammar where it has one; it is checked against
the whole schema in any case, since grammars leave out what they cannot express, and asked for
again where it is not valid. Tools and thinking are over when this begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from ouzel.core.contracts import Thinks
from ouzel.core.errors import EngineError
from ouzel.core.items import TokenLogprob
from ouzel.core.request import Format
from ouzel.core.turns import (
    CallDelta,
    Halt,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnDone,
    TurnMessage,
)
from ouzel.loop import answer_words as words
from ouzel.loop.bounds import ANY_OBJECT, bound
from ouzel.loop.budget import ANSWER_SHARE, answer_tokens
from ouzel.loop.native import Step
from ouzel.loop.scene import Scene
from ouzel.loop.schemas import schema
from ouzel.loop.schemas_repair import repair
from ouzel.loop.speaking import Speech

MOST_TOKENS: Final = 4096
"""Tokens of JSON after which a model is held not to come to an end."""

FEW: Final = 128
"""Tokens that JSON may have however little time is left: half of it is worth nothing."""

TRIES: Final = 3
"""Times that JSON is asked for until it is valid."""


async def answer(
    scene: Scene, turn: Turn, names: tuple[str, ...] = (), thinks: Thinks | None = None
) -> tuple[Step, Speech]:
    """The answer as plain text.

    Args:
        turn: what is to be answered.
        names: tools; calls of them that are written into the answer are kept out of it.
        thinks: how thinking shows in this turn, if not as the engine says.
    """
    speech, halt = Speech(scene, names, thinks=thinks), Halt()
    done = TurnDone("stop")
    async with aclosing(scene.stream(turn, halt)) as deltas:
        async for delta in deltas:
            match delta:
                case TextDelta():
                    thinking, text = speech.split(delta)
                    if thinking:
                        scene.emit(scene.output.think(thinking))
                    if text and speech.hear(text):
                        halt.wished = True
                case ThinkingDelta(text):
                    scene.emit(scene.output.think(text))
                case RefusalDelta(text):
                    speech.refuse(text)
                case CallDelta():
                    raise EngineError("The engine called a tool although none was offered.")
                case TurnDone():
                    done = delta
    speech.end()
    return Step(speech.text, [], done.reason, speech.cut), speech


def schema_of(wanted: Format) -> str:
    """JSON Schema, as text, of the JSON that is wanted."""
    return ANY_OBJECT if wanted.type == "json_object" else wanted.schema


async def structured(scene: Scene, turn: Turn) -> Step:
    """The answer as JSON that is valid for the request's format.

    Raises:
        EngineError: the model did not bring it about.
    """
    text = schema_of(scene.request.format)
    checked = schema(text)
    ask, trouble = bound(scene.info, turn, text), ""
    ending = False
    for attempt in range(TRIES):
        ask = replace(ask, max_tokens=_tokens(scene, last=ending or attempt == TRIES - 1))
        speech, done = await _held(scene, ask)
        said = speech.text
        if speech.refused:
            return Step(reason=done.reason, refused=True)
        trouble = checked.check(said) or ""
        if not trouble and done.reason != "filter":
            return Step(say(scene, said, speech.logprobs), [], "stop")
        if done.reason == "filter" or (done.reason == "length" and attempt):
            return Step(say(scene, said, speech.logprobs), [], done.reason)
        scene.tally.add("retried_formats")
        if done.reason == "length":
            # It did not end by itself: once more, with limits that bring it to its end.
            ask, ending = bound(scene.info, turn, text, ending=True), True
            continue
        if mended := repair(said, checked):
            return Step(say(scene, mended), [], done.reason)
        wrong = words.not_valid(said, trouble)
        ask = replace(ask, messages=(*ask.messages, TurnMessage("system", wrong)))
    raise EngineError(f"The model did not produce JSON that is valid for the schema: {trouble}")


def _tokens(scene: Scene, *, last: bool) -> int:
    """Tokens for a try at JSON: enough is kept for another one, if it is not the last."""
    share = 1.0 if last else 1 - ANSWER_SHARE
    tokens = answer_tokens(scene.engine.pace, scene.left())
    most = MOST_TOKENS if tokens is None else min(MOST_TOKENS, max(FEW, int(tokens * share)))
    room = scene.room()
    return most if room is None else max(1, min(most, int(room * share)))


async def _held(scene: Scene, turn: Turn) -> tuple[Speech, TurnDone]:
    """A whole turn's text, with its log-probabilities; thinking in it is passed over."""
    speech, done = Speech(scene, hold=True), TurnDone("stop")
    async with aclosing(scene.stream(turn)) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta):
                speech.hear(speech.split(delta)[1])
            elif isinstance(delta, RefusalDelta):
                speech.refuse(delta.text)
            elif isinstance(delta, TurnDone):
                done = delta
    speech.end()
    return speech, done


def say(scene: Scene, text: str, logprobs: Sequence[TokenLogprob] = ()) -> str:
    """Say a text that was held until now."""
    if text:
        scene.emit(scene.output.say(text, tuple(logprobs)))
    return text
