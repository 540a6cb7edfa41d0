"""What the model may call in one run: the client's tools and ours, under one roof. Pure.

A hosted tool may offer several functions, or none. Which of all of them may be called follows
from the request's tool choice, and narrows as the run goes on. How calls are made, this file does
not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ouzel.core.contracts import Prepared, Tool
from ouzel.core.errors import RequestError
from ouzel.core.request import CustomTool, FunctionTool, HostedTool, Request, ToolChoice
from ouzel.loop import grammars
from ouzel.loop.schemas import schema


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that the model may call.

    Args:
        spec: its name, and what it takes.
        tool: who runs it; None where the client does.
        asked: the hosted tool as the request offers it.
    """

    spec: FunctionTool | CustomTool
    tool: Tool | None = None
    asked: HostedTool | None = None

    @property
    def name(self) -> str:
        """The name that the model calls it by."""
        return self.spec.name

    @property
    def runs_code(self) -> bool:
        """Whether it is code that is run here: written in a fence, and shown as it is written."""
        return self.tool is not None and isinstance(self.spec, CustomTool) and bool(self.language)

    @property
    def language(self) -> str:
        """What its input is written in; empty if that is not known."""
        return self.spec.language if isinstance(self.spec, CustomTool) else ""

    def check(self, arguments: str) -> str | None:
        """What is wrong with arguments, in a sentence for the model; None if nothing is."""
        if isinstance(self.spec, FunctionTool):
            return schema(self.spec.parameters).check(arguments)
        if self.spec.grammar is None:
            return None
        return grammars.compile(self.spec.grammar).check(arguments)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The offers of a run, in the order of the request.

    Args:
        offers: everything that was offered; the model is shown all of it, so that what it is
            shown stays the same from request to request.
        allowed: names that may be called now.
        required: one must be called before the answer.
        parallel: the client takes several calls at once.
        note: what the model should know before it calls, from our own tools.
    """

    offers: tuple[Offer, ...] = ()
    allowed: frozenset[str] = frozenset()
    required: bool = False
    parallel: bool = True
    note: str = ""

    @property
    def open(self) -> bool:
        """Whether anything may be called now."""
        return bool(self.callable)

    @property
    def only_code(self) -> bool:
        """Whether running code is all that was offered."""
        return len(self.offers) == 1 and self.offers[0].runs_code

    @property
    def callable(self) -> tuple[Offer, ...]:
        """What may be called now."""
        return tuple(offer for offer in self.offers if offer.name in self.allowed)

    def find(self, name: str) -> Offer | None:
        """The offer of that name, if it may be called now."""
        return next((offer for offer in self.callable if offer.name == name), None)

    def after_a_call(self) -> Toolbox:
        """The same once something was called: nothing must be called any more."""
        return replace(self, required=False) if self.required else self

    def without_hosted(self) -> Toolbox:
        """The same with only the client's tools."""
        kept = frozenset(offer.name for offer in self.callable if offer.tool is None)
        return replace(self, allowed=kept, required=self.required and bool(kept))

    def shut(self) -> Toolbox:
        """The same with nothing that may be called."""
        return replace(self, allowed=frozenset(), required=False)


NO_TOOLS: Final = Toolbox()
_NOTHING: Final[Mapping[int, Prepared]] = MappingProxyType({})


def open_toolbox(
    request: Request, hosted: Mapping[str, Tool], prepared: Mapping[int, Prepared] = _NOTHING
) -> Toolbox:
    """The toolbox for a request.

    Args:
        hosted: tools of this server, by type.
        prepared: those that the request offers, by their place in it, made ready for it.

    Raises:
        RequestError: a hosted tool is not there or its settings are wrong, a grammar cannot be
            read, or two tools have the same name.
    """
    offers: list[Offer] = []
    of_type: dict[str, list[str]] = {}
    for place, spec in enumerate(request.tools):
        if place in prepared:
            spec = prepared[place].asked
        new = _offers(spec, hosted, f"tools[{place}]")
        taken = {offer.name for offer in offers}
        for offer in new:
            if offer.name in taken:
                raise RequestError(
                    f"Two tools have the name '{offer.name}'.",
                    param=f"tools[{place}]",
                    code="invalid_value",
                )
            taken.add(offer.name)
        if isinstance(spec, HostedTool):
            of_type.setdefault(spec.type, []).extend(offer.name for offer in new)
        offers += new
    choice = request.tool_choice
    return Toolbox(
        tuple(offers),
        _allowed(choice, offers, of_type),
        choice.mode == "required",
        request.parallel_tool_calls,
        "\n\n".join(each.note for each in prepared.values() if each.note),
    )


def _offers(
    spec: FunctionTool | CustomTool | HostedTool, hosted: Mapping[str, Tool], where: str
) -> list[Offer]:
    if isinstance(spec, HostedTool):
        tool = hosted.get(spec.type)
        if tool is None:
            raise RequestError(
                f"Unsupported value: a tool of type '{spec.type}' is not served here.",
                param=f"{where}.type",
                code="unsupported_value",
            )
        try:
            return [Offer(each, tool, spec) for each in tool.offer(spec)]
        except RequestError as error:
            error.param = f"{where}.{error.param}" if error.param else where
            raise
    try:
        if isinstance(spec, FunctionTool):
            schema(spec.parameters)
        elif spec.grammar is not None:
            grammars.compile(spec.grammar)
    except RequestError as error:
        inner = "parameters" if isinstance(spec, FunctionTool) else "format.definition"
        error.param = f"{where}.{inner}"
        raise
    return [Offer(spec)]


def _allowed(
    choice: ToolChoice, offers: list[Offer], of_type: Mapping[str, list[str]]
) -> frozenset[str]:
    if choice.mode == "none":
        return frozenset()
    if choice.names is None:
        return frozenset(offer.name for offer in offers)
    return frozenset(name for each in choice.names for name in of_type.get(each, [each]))
