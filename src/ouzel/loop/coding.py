"""Code that a led model writes for this server to run: when it does, and how it is written.

Code models write programs far better than JSON that holds programs, so the assistant's message is
opened with a code fence, and ended by the closing one. What is written is shown at once. Where
nothing but code is offered, the model is not shown how to choose among tools: it solves more
without (docs/measurements.md). How code is run, and what comes of it, this file does not know.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from ouzel.core.errors import EngineDied
from ouzel.core.items import CodeCall, new_id
from ouzel.core.request import Sampling
from ouzel.core.turns import TextDelta, Turn, TurnDone, TurnMessage
from ouzel.loop import code_words
from ouzel.loop import guided_words as words
from ouzel.loop.budget import answer_tokens
from ouzel.loop.context import Round
from ouzel.loop.scene import Scene
from ouzel.loop.tool_calls import Wanted, invocation
from ouzel.loop.toolbox import Offer, Toolbox

CODE_TOKENS: Final = 1024
"""Most tokens of one program."""

FEW: Final = 96
"""Tokens that a program may have however little time is left."""

TEMPERATURE: Final = 0.8
"""Of programs that are to be unlike each other."""

WRONG_TOKENS: Final = 96
"""Most tokens in which a model says what was wrong with its program."""

MOST_ERRORS: Final = 2
"""Failed programs after which there is yet another one."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and how a led model is asked for them.

    Args:
        owner: who asks.
        message: what they said last.
        note: what the tools say of themselves, such as the files that there are.
        only_code: nothing but running code is offered.
        decision: the turn in which a tool is chosen, where it is not the one that answers.
        sample: 0 for the likeliest program, another number for one of many.
    """

    owner: str
    message: str = ""
    note: str = ""
    only_code: bool = False
    decision: Turn | None = None
    sample: int = 0


def lead(toolbox: Toolbox, now: Round, message: str) -> Offer | None:
    """The tool that is taken without asking the model, because code surely pays; None to ask.

    Args:
        toolbox: what may be called.
        now: what was called since the last message.
        message: what the user said last.
    """
    offer = next((each for each in toolbox.callable if each.runs_code), None)
    if offer is None:
        return None
    if not now.done:
        signs = code_words.pays(message, files=bool(toolbox.note))
        pays = signs == "sure" or (signs == "some" and toolbox.only_code)
        return offer if pays else None
    failed = now.failing and any(name == offer.name for name, _ in now.done)
    return offer if failed and now.errors <= MOST_ERRORS else None


async def write(scene: Scene, turn: Turn, offer: Offer, asker: Asker, now: Round) -> Wanted | None:
    """Have a program written, shown as it comes; None if none came, or one that was run before."""
    tool = offer.tool
    assert tool is not None  # noqa: S101  # it is one of ours
    call = invocation(scene, Wanted(offer, "", new_id(tool.id_prefix)), asker.owner)
    item = tool.begin(call)
    assert isinstance(item, CodeCall)  # noqa: S101  # as tools that run code begin
    tokens = answer_tokens(scene.engine.pace, scene.clock.left())
    head = code_words.head(asker.message, asker.note)
    if asker.only_code:
        fence = code_words.opening(await _wrong(scene, turn) if now.failing else "")
    else:
        fence = words.fence_opening(offer.name, offer.language)
    ask = replace(
        turn,
        opening=turn.opening + fence + head,
        sampling=_sampling(scene, asker.sample),
        max_tokens=CODE_TOKENS if tokens is None else max(FEW, min(CODE_TOKENS, tokens // 2)),
    )
    scene.emit(scene.output.open_code(item))
    pieces = [head] if head else []
    for piece in pieces:
        scene.emit(scene.output.more_code(piece))
    done: TurnDone | None = None
    async with aclosing(scene.stream(ask)) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta) and delta.text:
                pieces.append(delta.text)
                scene.emit(scene.output.more_code(delta.text))
            elif isinstance(delta, TurnDone):
                done = delta
    if done is None:
        raise EngineDied("The engine ended its turn without saying so.")
    code = "".join(pieces)
    again = (offer.name, code) in now.done
    if done.reason != "stop" or code.strip() == head.strip() or again:
        # Half a program is not run: it would do half of what it should.
        scene.tally.add("invalid_calls")
        scene.emit(scene.output.finish(replace(item, code=code, status="incomplete")))
        return None
    scene.emit(scene.output.close_code())
    return Wanted(offer, code, call.id)


def _sampling(scene: Scene, sample: int) -> Sampling:
    """How a program is picked; the same sample of the same turn is the same program."""
    if not sample:
        return replace(words.GREEDY, stop=(words.FENCE,))
    seed = sample if "seed" in scene.info.capabilities else None
    return Sampling(TEMPERATURE, 1.0, seed=seed, stop=(words.FENCE,))


async def _wrong(scene: Scene, turn: Turn) -> str:
    """What the model says was wrong with its last program; shown as its thinking."""
    ask = replace(
        turn,
        opening=turn.opening + code_words.WRONG,
        sampling=replace(words.GREEDY, stop=(words.FENCE,)),
        max_tokens=WRONG_TOKENS,
    )
    said, _ = await scene.text(ask, thinking=True)
    wrong = f"{code_words.WRONG}{said}".strip()
    scene.emit(scene.output.think(wrong))
    return wrong


def answering(turn: Turn, message: str) -> Turn:
    """The turn that answers a message after code, if any was run: it makes up no more output."""
    if not turn.opening:
        return turn
    ran = TurnMessage("assistant", turn.opening.rstrip("\n"))
    now = TurnMessage("system", code_words.answer_now(message))
    stops = (*turn.sampling.stop, code_words.OUTPUT)
    return replace(
        turn,
        messages=(*turn.messages, ran, now),
        opening="",
        sampling=replace(turn.sampling, stop=stops),
    )
