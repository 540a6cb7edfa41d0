"""One step of a model that has to be led to call tools.

Asked the usual way, small models write about a call instead of making it. So the decision is taken
from them as a short turn of its own, under a grammar that leaves no room for prose: which tool, or
the answer. The arguments are another turn, under the tool's schema, or in a code fence for tools
that take plain text. All these turns open the assistant's message and go on from the same prompt,
so the engine reads that prompt once. The words, and where they were measured, are in
`guided_words`.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Final

from ouzel.core.contracts import EngineInfo
from ouzel.core.items import TokenLogprob
from ouzel.core.request import CustomTool, FunctionTool, Sampling
from ouzel.core.turns import TextDelta, Turn, TurnDone, TurnMessage
from ouzel.loop import answer_words, grammars
from ouzel.loop import guided_words as words
from ouzel.loop.context import with_calls
from ouzel.loop.scene import Scene
from ouzel.loop.schemas_engine import for_engine
from ouzel.loop.tool_calls import Made, Wanted, want
from ouzel.loop.toolbox import Offer, Toolbox

GREEDY: Final = Sampling(temperature=0.0, top_p=1.0)
TRIES: Final = 2
"""Times that arguments are asked for until they are valid."""

ARGUMENT_TOKENS: Final = 1024
"""Most tokens of one call's arguments; programs may be longer than any other."""

MOST_PARALLEL: Final = 8
"""Calls that are wanted at once at most."""

_SEEN: Final = 20
"""Alternatives to a token that engines show at most."""

FENCE: Final = "```"


def able(info: EngineInfo) -> bool:
    """Whether the engine can be led: a turn can be opened and bound by a grammar."""
    return {"grammar", "opening"} <= info.capabilities


async def decide(
    scene: Scene, turn: Turn, toolbox: Toolbox, done: frozenset[tuple[str, str]]
) -> list[Wanted]:
    """The calls that the model wants now; none if it is to answer.

    Args:
        turn: the conversation up to here.
        toolbox: what may be called.
        done: names and arguments of what was called since the last message of the user.
    """
    wanted: list[Wanted] = []
    while len(wanted) < MOST_PARALLEL:
        offer = await _choose(scene, _after(turn, wanted), toolbox, bool(done or wanted))
        call = None if offer is None else await _arguments(scene, turn, toolbox, offer)
        if call is None or (call.offer.name, call.arguments) in done:
            break  # an answer; or the same again, which brings nothing new
        wanted.append(call)
        break
    return wanted


def _after(turn: Turn, wanted: list[Wanted]) -> Turn:
    made = [
        Made("", each.offer.name, each.arguments, custom=isinstance(each.offer.spec, CustomTool))
        for each in wanted
    ]
    return with_calls(turn, "", made, "guided") if made else turn


async def _choose(scene: Scene, turn: Turn, toolbox: Toolbox, after_result: bool) -> Offer | None:
    """The tool that the model wants, None for the answer."""
    offers = toolbox.callable
    if toolbox.required and len(offers) == 1:
        return offers[0]
    names = [offer.name for offer in offers]
    seen = _SEEN if "logprobs" in scene.info.capabilities else None
    ask = replace(
        turn,
        opening=words.DECISION_OPENING,
        grammar=words.choice_grammar(names, may_answer=not toolbox.required),
        sampling=replace(GREEDY, top_logprobs=seen),
        max_tokens=max(16, *(2 * len(name) for name in names)),
    )
    text: list[str] = []
    top: tuple[TokenLogprob, ...] = ()
    async with aclosing(scene.stream(ask)) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta):
                text.append(delta.text)
                if not top and delta.logprobs:
                    top = delta.logprobs[0].top
    name = words.chosen("".join(text), names)
    if name is None:
        return None
    if top and not toolbox.required:
        least = words.MARGIN_AFTER_RESULT if after_result else words.MARGIN_FIRST
        if words.margin(top, names) < least:
            return None
    return toolbox.find(name)


async def _arguments(scene: Scene, turn: Turn, toolbox: Toolbox, offer: Offer) -> Wanted | None:
    """A valid call of the tool, or None if the model brings none about."""
    ask = _argument_turn(turn, offer)
    for _ in range(TRIES):
        text, done = await scene.text(ask)
        if isinstance(offer.spec, CustomTool) and offer.spec.grammar is None:
            text = text.removesuffix(FENCE).strip("\n")
        if done.reason == "length":  # it would not end: no arguments are better than half
            scene.tally.add("invalid_calls")
            return None
        found = want(scene, toolbox, offer.name, text.strip())
        if isinstance(found, Wanted):
            return found
        complaint = TurnMessage("system", answer_words.wrong_arguments(found))
        said = TurnMessage("assistant", words.call_words(offer.name, text))
        ask = replace(ask, messages=(*ask.messages, said, complaint))
    return None


def _argument_turn(turn: Turn, offer: Offer) -> Turn:
    """The turn in which the arguments are written."""
    opening = words.arguments_opening(offer.name)
    ask = replace(turn, sampling=GREEDY, max_tokens=ARGUMENT_TOKENS, opening=opening)
    spec = offer.spec
    if isinstance(spec, FunctionTool):
        return replace(ask, schema=for_engine(spec.parameters))
    if spec.grammar is not None:
        return replace(ask, grammar=grammars.compile(spec.grammar).gbnf)
    return replace(
        ask,
        opening=f"{opening}{FENCE}{spec.language}\n",
        sampling=replace(GREEDY, stop=(FENCE,)),
    )


def answering(turn: Turn) -> Turn:
    """The turn in which a guided model answers, having been offered tools."""
    stops = (*turn.sampling.stop, *words.ANSWER_STOPS)
    return replace(turn, opening=words.ANSWER_OPENING, sampling=replace(turn.sampling, stop=stops))


__all__ = ["TurnDone", "able", "answering", "decide"]
