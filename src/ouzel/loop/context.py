"""History and request -> what the engine is shown. Pure: no I/O, no clock.

Chat templates differ in what they accept: nearly all know `system`, few know `developer`, and
many allow a system message only at the start. So developer messages are shown as system ones,
and those that open the conversation are joined with the instructions into one. Thinking is shown
again within the round that it belongs to (`thoughts`).

Calls of earlier turns are shown in the model's own way where it calls natively, and as guided
models write them otherwise (`guided_words`). Our own words and the tools come first, before the
client's instructions: they stay the same from request to request, so their prefill is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from ouzel.core.contracts import Thinks, ToolStyle
from ouzel.core.items import (
    CallOutput,
    CodeCall,
    CustomCall,
    File,
    FunctionCall,
    HostedCall,
    Image,
    Item,
    Message,
    Reasoning,
)
from ouzel.core.request import CustomTool, FunctionTool, Request
from ouzel.core.turns import Turn, TurnCall, TurnMessage
from ouzel.loop import answer_words, code_words, guided_words
from ouzel.loop.code_words import PYTHON
from ouzel.loop.compacted import unfold
from ouzel.loop.thoughts import Thoughts, joined, thought_before
from ouzel.loop.tool_calls import Made
from ouzel.loop.toolbox import NO_TOOLS, Toolbox

MOST_SHOWN = 8_000
"""Characters of the output of one of our own tools that the model is shown: some 2,000 tokens.
What the client's tools give back is shown as it is."""

UNSEEN_IMAGE = "(An image is attached here. You cannot see images: say so if it matters.)"
"""Stands for a picture that the model cannot be shown."""

_UNSEEN = "(what it wrote is not known any more)"
"""Stands for the output of code that a client gave back without it."""

_INPUT = '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'
"""How a custom tool is offered to models that only know functions."""


def assemble(
    request: Request,
    history: Iterable[Item] = (),
    toolbox: Toolbox = NO_TOOLS,
    style: ToolStyle = "guided",
    *,
    thinks: Thinks | None = None,
    decision: bool = False,
) -> Turn:
    """The turn that answers `request` after `history` (oldest first).

    Args:
        toolbox: what the model may call.
        style: how it is brought to call.
        thinks: how its thinking shows; None shows it none of what it thought.
        decision: the turn is for choosing a tool, also where that is seldom needed.
    """
    guided = style == "guided"
    led = guided and bool(toolbox.offers) and (decision or not toolbox.only_code)
    opening = [request.instructions] if request.instructions else []
    said: list[TurnMessage] = []
    items = unfold((*history, *request.input))
    thoughts = Thoughts(items, thinks)
    for place, item in enumerate(items):
        if isinstance(item, Reasoning):
            thoughts.hold(place, item)
        elif not isinstance(item, Message):
            said += thoughts.before(_of_tools(item, guided, led))
        elif item.role in ("system", "developer") and not said:
            opening.append(_words(item))
        else:
            said += thoughts.before([_of_message(item, led)])
    said += thoughts.left()
    if length := answer_words.VERBOSITY[request.verbosity]:
        opening.append(length)
    return Turn(
        (*_before(toolbox, "\n\n".join(opening), led), *_joined(said, guided)),
        request.sampling,
        request.max_output_tokens,
        tools=() if guided else native_tools(toolbox),
    )


def _of_message(message: Message, led: bool) -> TurnMessage:
    role = "system" if message.role == "developer" else message.role
    words = _words(message)
    if led and role == "assistant":
        words = guided_words.answer_words(words)
    return TurnMessage(role, words, message.name)


def words_of(item: Item) -> str:
    """All of a message as the model is shown it: files and pictures come before what is said of
    them. Empty for what is no message."""
    return _words(item) if isinstance(item, Message) else ""


def _words(message: Message) -> str:
    shown = [_attached(part) for part in message.parts if isinstance(part, File | Image)]
    return "\n".join((*shown, message.text)) if shown else message.text


def _attached(part: File | Image) -> str:
    if isinstance(part, Image):
        return UNSEEN_IMAGE
    return f"File {part.name}:\n{part.shown}\n" if part.shown else f"(File: {part.name})"


def _before(toolbox: Toolbox, instructions: str, led: bool) -> tuple[TurnMessage, ...]:
    """What comes before the conversation: our own words first, the client's last."""
    if led:
        tools = [offer.spec for offer in toolbox.offers]
        return (*guided_words.prefix(), guided_words.offer(tools, instructions, toolbox.note))
    said = "\n\n".join(filter(None, (toolbox.note, instructions)))
    return (TurnMessage("system", said),) if said else ()


@dataclass(frozen=True, slots=True)
class Round:
    """What has happened since somebody last said something.

    Args:
        done: names and arguments of the calls.
        results: how many of them have brought something.
        errors: how many have brought an error.
        failing: the last one brought an error.
        thought: there was some thinking.
    """

    done: frozenset[tuple[str, str]] = frozenset()
    results: int = 0
    errors: int = 0
    failing: bool = False
    thought: bool = False

    def called(self, name: str, arguments: str) -> Round:
        """The same after another call."""
        return replace(self, done=self.done | {(name, arguments)})

    def brought(self, failed: bool) -> Round:
        """The same after another result."""
        return replace(
            self,
            results=self.results + (not failed),
            errors=self.errors + failed,
            failing=failed,
        )


def round_of(items: Iterable[Item]) -> Round:
    """The round that a conversation has come to."""
    now = Round()
    for item in items:
        match item:
            case Message(role="user"):
                now = Round()
            case Reasoning():
                now = replace(now, thought=now.thought or bool(item.text))
            case FunctionCall():
                now = now.called(item.name, item.arguments)
            case CustomCall():
                now = now.called(item.name, item.input)
            case CallOutput():
                now = now.brought(_is_error(item.text))
            case HostedCall():
                now = now.called(item.name, item.arguments).brought(item.status == "failed")
            case CodeCall():
                now = now.called(PYTHON, item.code).brought(item.status != "completed")
    return now


def unread(items: Sequence[Item]) -> tuple[str, ...]:
    """The texts since the model last said or called something: what came before is cached."""
    texts: list[str] = []
    for item in reversed(items):
        if isinstance(item, CallOutput) or (isinstance(item, Message) and item.role != "assistant"):
            texts.append(item.text)
        else:
            break
    return tuple(texts)


def _is_error(output: str) -> bool:
    """Whether a client's output says that it is an error: JSON with such a key."""
    try:
        value = msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value.get("error"))


def native_tools(toolbox: Toolbox) -> tuple[FunctionTool, ...]:
    """The offers as functions, for engines that know no other tools."""
    return tuple(
        FunctionTool(spec.name, spec.description, _INPUT) if isinstance(spec, CustomTool) else spec
        for spec in (offer.spec for offer in toolbox.offers)
    )


def with_code(turn: Turn, made: Sequence[Made]) -> Turn:
    """The turn that follows code of a model that is offered nothing else: it goes on in the same
    message, after what the code has written.

    Args:
        turn: its opening holds what was run before.
        made: the calls, with their outputs.
    """
    ran = "".join(code_words.ran(each.arguments, shown(each.output or "")) for each in made)
    return replace(turn, opening=turn.opening + ran)


def with_calls(
    turn: Turn,
    said: str,
    made: Sequence[Made],
    style: ToolStyle,
    thought: str = "",
    thinks: Thinks | None = None,
) -> Turn:
    """The turn that follows calls of hosted tools.

    Args:
        said: what the model said beside them.
        made: the calls, with their outputs.
        thought: what it thought before.
        thinks: see `assemble`.
    """
    guided = style == "guided"
    messages = [TurnMessage("assistant", said)] if said else []
    # Call, result, call, result: in this order the examples for guided models have them too.
    outputs = [
        _result(each.call_id, shown(each.output), guided)
        for each in made
        if each.output is not None
    ]
    for each in made:
        language = PYTHON if each.custom and each.output is not None else ""
        messages.append(
            _call(each.call_id, each.name, each.arguments, each.custom, guided, language)
        )
        if guided and outputs:
            messages.append(outputs.pop(0))
    new = thought_before((*messages, *outputs), thought, thinks)
    return replace(turn, messages=_joined((*turn.messages, *new), guided))


def _of_tools(item: Item, guided: bool, led: bool) -> list[TurnMessage]:
    """Messages for a call, or for what came of one."""
    match item:
        case CodeCall(status="incomplete", result=""):
            return []  # it was never whole, and never run
        case CodeCall() if guided and not led:
            ran = code_words.ran(item.code, shown(item.result or _UNSEEN))
            return [TurnMessage("assistant", ran.rstrip("\n"))]
        case FunctionCall():
            return [_call(item.call_id, item.name, item.arguments, False, guided)]
        case CustomCall():
            return [_call(item.call_id, item.name, item.input, True, guided)]
        case CallOutput():
            return [_result(item.call_id, item.text, guided)]
        case CodeCall():
            return [
                _call(item.id, PYTHON, item.code, True, guided, PYTHON),
                _result(item.id, shown(item.result or _UNSEEN), guided),
            ]
        case HostedCall():
            output = item.error if item.output is None else item.output
            return [
                _call(item.id, item.name, item.arguments, False, guided),
                _result(item.id, shown(output or ""), guided),
            ]
    return []


def _call(
    call_id: str, name: str, arguments: str, custom: bool, guided: bool, language: str = ""
) -> TurnMessage:
    if guided:
        return TurnMessage("assistant", guided_words.call_words(name, arguments, language))
    arguments = _in_an_object(arguments) if custom else _as_object(arguments)
    return TurnMessage("assistant", "", calls=(TurnCall(call_id, name, arguments),))


def _as_object(arguments: str) -> str:
    """Arguments that a client gave back, as an object: templates read them, and some fail."""
    if not arguments.strip():
        return "{}"
    try:
        whole = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        whole = False
    return arguments if whole else _in_an_object(arguments)


def _in_an_object(text: str) -> str:
    """As `_INPUT` has it."""
    return msgspec.json.encode({"input": text}).decode()


def _result(call_id: str, output: str, guided: bool) -> TurnMessage:
    if guided:
        return TurnMessage("user", guided_words.result_words(output))
    return TurnMessage("tool", output, call_id=call_id)


def _joined(messages: Sequence[TurnMessage], guided: bool) -> tuple[TurnMessage, ...]:
    """The messages, with calls that follow a text or each other in one of the assistant's.

    Guided calls and results are text of the two sides, who have to take turns in many templates:
    there, what one side says in a row becomes one message.
    """
    whole: list[TurnMessage] = []
    for message in messages:
        last = whole[-1] if whole else None
        if last is None or last.role != message.role or last.name != message.name:
            whole.append(message)
        elif message.calls:
            calls = (*last.calls, *message.calls)
            whole[-1] = replace(last, calls=calls, thinking=joined(last, message))
        elif guided and message.role != "system":
            text = f"{last.text}\n\n{message.text}"
            whole[-1] = replace(last, text=text, thinking=joined(last, message))
        else:
            whole.append(message)
    return tuple(whole)


def shown(text: str) -> str:
    """The output of one of our own tools as the model sees it: not endless."""
    if len(text) <= MOST_SHOWN:
        return text
    half = MOST_SHOWN // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"


def at_most_tokens(turn: Turn) -> int:
    """An upper bound for the tokens of a turn's prompt, without asking a tokenizer.

    A token stands for at least one byte of text; a chat template adds a few tokens around each
    message, call and tool and, at most, a default system message and its words about tools. Used
    to spare the exact count where it cannot matter.
    """
    text = sum(
        len(f"{message.thinking}{message.text}".encode())
        + len(message.name or "")
        + sum(len(f"{call.name}{call.arguments}".encode()) + 64 for call in message.calls)
        for message in turn.messages
    )
    tools = sum(
        len(f"{tool.name}{tool.description}{tool.parameters}".encode()) + 64 for tool in turn.tools
    )
    return text + tools + 16 * len(turn.messages) + (512 if turn.tools else 256)
