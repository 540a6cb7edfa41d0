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
from ouzel.core.errors import EngineError
from ouzel.core.items import TokenLogprob
from ouzel.core.request import FunctionTool
from ouzel.core.turns import TextDelta, Turn, TurnMessage
from ouzel.loop import answer_words, coding, grammars
from ouzel.loop import guided_words as words
from ouzel.loop.bounds import bound
from ouzel.loop.budget import answer_tokens
from ouzel.loop.code_words import MARGIN
from ouzel.loop.context import Round
from ouzel.loop.scene import Scene
from ouzel.loop.tool_calls import Wanted, want
from ouzel.loop.toolbox import Offer, Toolbox

TRIES: Final = 2
"""Times that arguments are asked for until they are valid."""

ARGUMENT_TOKENS: Final = 1024
"""Most tokens of one call's arguments; programs may be longer than any other."""

FEW: Final = 64
"""Tokens that arguments may have however little time is left."""

MOST_ERRORS: Final = 3
"""Errors in a row of one round after which a model is no longer held to another try."""

_SEEN: Final = 20
"""Alternatives to a token that engines show at most."""


def able(info: EngineInfo) -> bool:
    """Whether the engine can be led: a turn can be opened and bound by a grammar."""
    return {"grammar", "opening"} <= info.capabilities


async def decide(
    scene: Scene, turn: Turn, toolbox: Toolbox, now: Round, asker: coding.Asker
) -> list[Wanted]:
    """The call that the model wants now, in a list; none if it is to answer.

    One call at a time: led models are shown each result before they decide on the next.

    Args:
        turn: the conversation up to here.
        toolbox: what may be called.
        now: what was called since the last message.
        asker: who asks, and how.

    Raises:
        EngineError: a call was required and the model brought none about.
    """
    if toolbox.only_code and scene.clock.late and not toolbox.required:
        return []  # a program, its run and the answer would come too late
    left = toolbox
    for _ in range(TRIES):
        offer = coding.lead(left, now, asker.message)
        settled = left.only_code and now.done and not toolbox.required
        if offer is None and not settled:
            offer = await _choose(scene, asker.decision or turn, left, now)
        if offer is None:
            return []
        if offer.runs_code:
            call = await coding.write(scene, turn, offer, asker, now)
        else:
            call = await _arguments(scene, turn, toolbox, offer)
        if call is not None and (toolbox.required or (offer.name, call.arguments) not in now.done):
            return [call]
        # Arguments that no trying makes valid, or the same again, which brings nothing new.
        left = replace(left, allowed=left.allowed - {offer.name})
        if not left.open or scene.clock.late:
            break
    if toolbox.required:
        raise EngineError("The model made no valid call of a tool, although one was required.")
    return []


def _least_margin(toolbox: Toolbox, now: Round) -> float:
    """How much likelier than the answer a tool has to be."""
    if not now.done:
        return MARGIN if toolbox.only_code else words.MARGIN_FIRST
    if now.failing and now.errors <= MOST_ERRORS:
        return words.MARGIN_AFTER_ERROR
    return words.MARGIN_AFTER_RESULT


async def _choose(scene: Scene, turn: Turn, toolbox: Toolbox, now: Round) -> Offer | None:
    """The tool that the model wants, None for the answer."""
    offers = toolbox.callable
    if toolbox.required and len(offers) == 1:
        return offers[0]
    names = [offer.name for offer in offers]
    chosen, margin = await _choice(scene, turn, names, may_answer=not toolbox.required)
    if toolbox.required or margin is None:
        return toolbox.find(chosen) if chosen else None
    if margin < _least_margin(toolbox, now):
        return None
    if chosen is None:
        chosen, _ = await _choice(scene, turn, names, may_answer=False)
    return toolbox.find(chosen) if chosen else None


async def _choice(
    scene: Scene, turn: Turn, names: list[str], *, may_answer: bool
) -> tuple[str | None, float | None]:
    """The name that is chosen, None for the answer, and by how much tools are likelier than it;
    None where the engine shows no probabilities."""
    seen = _SEEN if "logprobs" in scene.info.capabilities else None
    ask = replace(
        turn,
        opening=words.DECISION_OPENING,
        grammar=words.choice_grammar(names, may_answer=may_answer),
        sampling=replace(words.GREEDY, top_logprobs=seen),
        max_tokens=max(16, *(len(name) for name in names)),
    )
    text: list[str] = []
    top: tuple[TokenLogprob, ...] = ()
    async with aclosing(scene.stream(ask)) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta):
                text.append(delta.text)
                if not top and delta.logprobs:
                    top = delta.logprobs[0].top
    margin = words.margin(top, names) if top else None
    return words.chosen("".join(text), names), margin


async def _arguments(scene: Scene, turn: Turn, toolbox: Toolbox, offer: Offer) -> Wanted | None:
    """A valid call of the tool, or None if the model brings none about."""
    ask = _argument_turn(scene, turn, offer)
    fenced = not ask.grammar and not ask.schema
    for _ in range(TRIES):
        text, done = await scene.text(ask)
        if fenced:
            text = text.removesuffix(words.FENCE).strip("\n")
        elif isinstance(offer.spec, FunctionTool):
            text = text.strip()
        if done.reason == "length":  # it would not end: no arguments are better than half
            scene.tally.add("invalid_calls")
            return None
        found = await want(scene, toolbox, offer.name, text)
        if isinstance(found, Wanted):
            return found
        complaint = TurnMessage("system", answer_words.wrong_arguments(found))
        if scene.clock.late:
            return None
        said = TurnMessage("assistant", words.call_words(offer.name, text))
        ask = replace(ask, messages=(*ask.messages, said, complaint))
    return None


def _argument_turn(scene: Scene, turn: Turn, offer: Offer) -> Turn:
    """The turn in which the arguments are written."""
    opening = words.arguments_opening(offer.name)
    tokens = answer_tokens(scene.engine.pace, scene.clock.left())
    most = ARGUMENT_TOKENS if tokens is None else max(FEW, min(ARGUMENT_TOKENS, tokens))
    ask = replace(turn, sampling=words.GREEDY, max_tokens=most, opening=opening)
    spec = offer.spec
    if isinstance(spec, FunctionTool):
        return bound(scene.info, ask, spec.parameters)
    if spec.grammar is not None:
        grammar = grammars.compile(spec.grammar)
        free = "llguidance" in scene.info.capabilities
        if text := grammar.llguidance if free else grammar.gbnf:
            return replace(ask, grammar=text)
    return replace(
        ask,
        opening=words.fence_opening(offer.name, spec.language),
        sampling=replace(words.GREEDY, stop=(words.FENCE,)),
    )


def answering(turn: Turn, toolbox: Toolbox) -> Turn:
    """The turn in which a guided model answers, having been offered tools."""
    names = [offer.name for offer in toolbox.offers]
    stops = (*turn.sampling.stop, *words.answer_stops(names))
    return replace(turn, opening=words.ANSWER_OPENING, sampling=replace(turn.sampling, stop=stops))
