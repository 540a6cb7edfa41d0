"""Calls that the model wants: checked, mended, run side by side, returned in order.

A call with invalid arguments never leaves this room. Hosted tools are run here; what the client
is to run is only announced. How the model was brought to want a call, this file does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from ouzel.core.contracts import Invocation, Stage, ToolOutcome
from ouzel.core.errors import ToolError
from ouzel.core.files import ContainerFile
from ouzel.core.items import (
    Call,
    CodeCall,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Logs,
    new_id,
)
from ouzel.core.request import CustomTool, FunctionTool
from ouzel.loop import answer_words
from ouzel.loop.scene import Scene
from ouzel.loop.schemas import schema
from ouzel.loop.schemas_repair import repair
from ouzel.loop.toolbox import Offer, Toolbox

TOOL_WITHIN: Final = 120.0
"""Seconds that a hosted tool gets where the run has no deadline."""

LEAST_WITHIN: Final = 2.0
"""Seconds that a hosted tool gets in any case."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A valid call.

    Args:
        id: of the item under which it is shown already; empty if it is not.
    """

    offer: Offer
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A call that was made, and what came of it.

    Args:
        output: what a hosted tool said; None for the client's tools.
        custom: the arguments are plain text, not JSON.
        failed: the hosted tool could not do it.
        files: what the hosted tool left for the client.
        wrote: what code has written by itself; `output` may say more about it.
    """

    call_id: str
    name: str
    arguments: str
    output: str | None = None
    custom: bool = False
    failed: bool = False
    files: tuple[ContainerFile, ...] = ()
    wrote: str = ""


async def want(scene: Scene, toolbox: Toolbox, name: str, arguments: str) -> Wanted | str:
    """A call, mended if need be; or what is wrong with it, in a sentence for the model."""
    offer = toolbox.find(name)
    if offer is None and not toolbox.open:
        return answer_words.NO_TOOLS
    if offer is None:
        names = ", ".join(each.name for each in toolbox.callable)
        return f"There is no tool '{name[:64]}'; there are: {names}."
    if isinstance(offer.spec, CustomTool) and offer.spec.grammar is not None:
        # A hostile grammar may take its time; nobody else shall wait for it.
        trouble = await asyncio.to_thread(offer.check, arguments)
    else:
        trouble = offer.check(arguments)
    if trouble is None:
        return Wanted(offer, arguments)
    if isinstance(offer.spec, FunctionTool):
        mended = repair(arguments, schema(offer.spec.parameters))
        if mended is not None:
            scene.tally.add("repaired_calls")
            return Wanted(offer, mended)
    scene.tally.add("invalid_calls")
    return trouble


async def make(scene: Scene, wanted: Sequence[Wanted], owner: str) -> list[Made]:
    """Run the hosted ones among the calls, then announce the client's.

    Tools run side by side; their items end in the order in which they began.
    """
    scene.tally.add("calls", len(wanted))
    hosted = [(each, invocation(scene, each, owner)) for each in wanted if each.offer.tool]
    items = []
    for each, call in hosted:
        assert each.offer.tool is not None  # noqa: S101  # chosen for it
        item = each.offer.tool.begin(call)
        items.append(item)
        scene.emit(scene.output.begin(item, call.arguments))
    outcomes = await _run_all(scene, hosted)
    made = []
    for (each, call), item, outcome in zip(hosted, items, outcomes, strict=True):
        scene.emit(scene.output.finish(_finished(item, outcome)))
        name, custom = each.offer.name, _is_custom(each)
        text, files, wrote = outcome.text, outcome.files, _wrote(outcome.item)
        made.append(Made(call.id, name, call.arguments, text, custom, outcome.failed, files, wrote))
    for each in wanted:
        if each.offer.tool is None:
            announced = _announced(each)
            scene.emit(scene.output.call(announced))
            made.append(
                Made(announced.call_id, announced.name, each.arguments, custom=_is_custom(each))
            )
    return made


def _wrote(item: Item | None) -> str:
    """What code has written."""
    outputs = item.outputs if isinstance(item, CodeCall) else ()
    return "".join(each.text for each in outputs if isinstance(each, Logs))


def _is_custom(wanted: Wanted) -> bool:
    return isinstance(wanted.offer.spec, CustomTool)


async def _run_all(scene: Scene, hosted: Sequence[tuple[Wanted, Invocation]]) -> list[ToolOutcome]:
    if not hosted:
        return []
    tasks = [asyncio.create_task(_run(scene, each.offer, call)) for each, call in hosted]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(scene: Scene, offer: Offer, call: Invocation) -> ToolOutcome:
    """One call of a hosted tool. Its own errors are outcomes; any other exception ends the run,
    and is logged where that is told."""
    tool = offer.tool
    assert tool is not None  # noqa: S101  # chosen for it
    scene.tally.add("hosted_calls")
    outcome = ToolOutcome(f"The tool '{offer.name}' ended without an outcome.", failed=True)
    try:
        async with asyncio.timeout(call.within) as limit, aclosing(tool.run(call)) as steps:
            async for step in steps:
                if isinstance(step, Stage):
                    scene.emit(scene.output.stage(call.id, step.name))
                else:
                    outcome = step
    except ToolError as error:
        outcome = ToolOutcome(error.message, failed=True)
    except TimeoutError:
        if not limit.expired():  # the tool's own
            raise
        outcome = ToolOutcome(f"No result within {call.within:.0f} seconds.", failed=True)
    if outcome.failed:
        scene.tally.add("failed_hosted_calls")
    return outcome


def invocation(scene: Scene, wanted: Wanted, owner: str) -> Invocation:
    """A call of a hosted tool, with an id if it has none, and the time that it gets."""
    asked, tool = wanted.offer.asked, wanted.offer.tool
    assert asked is not None  # noqa: S101  # hosted tools are asked for
    assert tool is not None  # noqa: S101  # and it is one
    within = min(TOOL_WITHIN, max(LEAST_WITHIN, scene.clock.left() / 2))
    call_id = wanted.id or new_id(tool.id_prefix)
    return Invocation(call_id, asked, wanted.offer.name, wanted.arguments, owner, within)


def _finished(item: Item, outcome: ToolOutcome) -> Item:
    if outcome.item is not None:
        return outcome.item
    if isinstance(item, CodeCall):  # it could not be run
        why = (Logs(outcome.text),)
        return replace(item, status="failed", result=outcome.text, outputs=why)
    if not isinstance(item, HostedCall):
        return item
    if outcome.failed:
        return replace(item, status="failed", error=outcome.text)
    return replace(item, status="completed", output=outcome.text)


def _announced(wanted: Wanted) -> Call:
    name, arguments = wanted.offer.name, wanted.arguments
    if isinstance(wanted.offer.spec, FunctionTool):
        return FunctionCall(new_id("fc"), new_id("call"), name, arguments)
    return CustomCall(new_id("ctc"), new_id("call"), name, arguments)
