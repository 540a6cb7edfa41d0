"""The answer itself: plain text as it comes, or JSON that is valid before it goes out.

JSON under a schema is generated under the engine's grammar where it has one; it is checked against
the whole schema in any case, since grammars leave out what they cannot express, and asked for
again where it is not valid. Tools and thinking are over when this begins.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Final

from ouzel.core.errors import EngineError
from ouzel.core.request import Format
from ouzel.core.turns import Halt, TextDelta, ThinkingDelta, Turn, TurnDone, TurnMessage
from ouzel.loop import answer_words as words
from ouzel.loop.native import Step
from ouzel.loop.scene import Scene
from ouzel.loop.schemas import schema
from ouzel.loop.schemas_engine import for_engine
from ouzel.loop.schemas_repair import repair
from ouzel.loop.speaking import Speech
from ouzel.loop.thinking import quiet

ANY_OBJECT: Final = '{"type":"object"}'
TRIES: Final = 3
"""Times that JSON is asked for until it is valid."""


async def answer(scene: Scene, turn: Turn, names: tuple[str, ...] = ()) -> tuple[Step, Speech]:
    """The answer as plain text.

    Args:
        turn: what is to be answered.
        names: tools; calls of them that are written into the answer are kept out of it.
    """
    speech, halt = Speech(scene, names), Halt()
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
    able = "json_schema" in scene.info.capabilities
    # To engines, the empty schema means any object.
    bound = "{}" if text == ANY_OBJECT else for_engine(text)
    ask = replace(turn, schema=bound if able else None)
    if not able:
        ask = replace(ask, messages=(*turn.messages, TurnMessage("system", words.as_json(text))))
    said, trouble = "", ""
    for attempt in range(TRIES):
        said, done = await scene.text(ask)
        if done.reason in ("length", "filter"):
            return Step(_say(scene, said), [], done.reason)
        trouble = checked.check(said) or ""
        if trouble and (mended := repair(said, text)):
            said, trouble = mended, ""
        if not trouble:
            return Step(_say(scene, said), [], done.reason)
        scene.tally.add("retried_formats")
        wrong = words.not_valid(said, trouble)
        messages = (*ask.messages, TurnMessage("system", wrong))
        sampling = ask.sampling if attempt else quiet(ask.sampling, ask.sampling.stop)
        ask = replace(ask, messages=messages, sampling=sampling)
    raise EngineError(f"The model did not produce JSON that is valid for the schema: {trouble}")


def _say(scene: Scene, text: str) -> str:
    if text:
        scene.emit(scene.output.say(text))
    return text
