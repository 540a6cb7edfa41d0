"""Calls that a model wrote as prose: found, and kept out of the text. Pure.

Small models, and servers that parse no calls, send them as text: a JSON object, alone or in a
code fence, or between the tags that chat templates use. What may be one is held back until it
is whole; if it names a tool that is offered it becomes a call, otherwise it is text after all. A
call begins at the start of a line, so that JSON within a sentence is left alone.

What a call's arguments must be, this file does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

_OPENERS: Final = ("<tool_call>", "<function=", "```", "{", "[{")
_TAGS: Final = ("<tool_call>", "<function=")
_CLOSER: Final = {"<tool_call>": "</tool_call>", "<function=": "</function>", "```": "```"}
_FENCE: Final = re.compile(r"```(?:json|tool_call|tool_code|tool|xml)?\s*([\[{]|$)")
_BEGINNING: Final = re.compile(r"<tool_call>|```\w*")
_NAMES: Final = ("name", "tool", "tool_name", "function", "action")
_ARGUMENTS: Final = ("arguments", "parameters", "args", "params", "input", "action_input")
_FIRST_KEY: Final = re.compile(r"\[?\{\s*\"([^\"\\]*)\"")
_LONGEST_KEY: Final = 80
"""Characters of a bare object in which its first key is whole, or it is none of a call."""

_LONGEST: Final = 20_000
"""Characters after which what began like a call is text."""


@dataclass(frozen=True, slots=True)
class Spotted:
    """A call that was found.

    Args:
        arguments: JSON text as the model wrote it, or the text of a custom tool's input.
        raw: everything that was taken out of the text for it; empty for all but the first of
            several calls that were written as one.
    """

    name: str
    arguments: str
    raw: str = ""


class Spotter:
    """Looks for calls in a text that comes in pieces.

    Args:
        names: the tools that are offered.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._line = ""
        self._fenced = False
        self.calls: list[Spotted] = []

    def feed(self, text: str) -> str:
        """The text that is certainly text by now. Calls are collected in `calls`."""
        self._held += text
        return self._release(last=False)

    def end(self) -> str:
        """The text is over: what was held and is no call."""
        return self._release(last=True)

    def _release(self, last: bool) -> str:
        said: list[str] = []
        while self._held:
            start = self._candidate()
            if start is None:
                said.append(self._take(len(self._held)))
                break
            if start:
                said.append(self._take(start))
            opener = next((each for each in _OPENERS if self._held.startswith(each)), None)
            if opener is None:  # the beginning of one, perhaps
                if last:
                    said.append(self._take(len(self._held)))
                break
            length = self._whole(opener, last)
            if length is None:
                break
            found = _calls_in(self._held[:length], self._names) if length > 0 else []
            if found:
                self.calls += [replace(found[0], raw=self._held[:length]), *found[1:]]
                self._held = self._held[length:]
            else:
                said.append(self._take(max(length, len(opener))))
        return "".join(said)

    def _take(self, length: int) -> str:
        """Give text up; what line it ends in, and whether in a block of code, is kept track of."""
        text, self._held = self._held[:length], self._held[length:]
        *lines, rest = text.split("\n")
        for line in lines:
            if (self._line + line).lstrip().startswith("```"):
                self._fenced = not self._fenced
            self._line = ""
        self._line += rest
        return text

    def _candidate(self) -> int | None:
        """Where, in what is held, a call may begin; code in a fence is not looked at."""
        at, before, fenced = 0, self._line, self._fenced
        lines = self._held.split("\n")
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            if not fenced:
                bare = line.lstrip(" \t")
                if not before.strip() and bare and _may_open(bare, partly=last):
                    return at + len(line) - len(bare)
                inside = _tag_in(line, partly=last)
                if inside is not None:
                    return at + inside
            if (before + line).lstrip().startswith("```") and not last:
                fenced = not fenced
            at += len(line) + 1
            before = ""
        return None

    def _whole(self, opener: str, last: bool) -> int | None:
        """Length of the candidate; 0 if it is none; None if more has to come."""
        held = self._held
        if len(held) > _LONGEST:
            return 0
        if opener in _CLOSER:
            return self._until_closer(opener, last)
        key = _FIRST_KEY.match(held)
        if key is None and (len(held) > _LONGEST_KEY or last):
            return 0
        if key is not None and key.group(1) not in self._hints():
            return 0
        end = _end_of_json(held)
        return end if end is not None else (0 if last else None)

    def _until_closer(self, opener: str, last: bool) -> int | None:
        held, closer = self._held, _CLOSER[opener]
        if opener == "```" and "\n" in held and not _FENCE.match(held):
            return 0  # a fence around something else
        end = held.find(closer, len(opener))
        if end >= 0:
            return end + len(closer)
        return (len(held) if opener != "```" or _FENCE.match(held) else 0) if last else None

    def _hints(self) -> Collection[str]:
        return (*_NAMES, *_ARGUMENTS, "type", "id", *self._names)


def _may_open(line: str, partly: bool) -> bool:
    """Whether a line begins a call. `partly`: more of it may come."""
    return any(line.startswith(each) or (partly and each.startswith(line)) for each in _OPENERS)


def _tag_in(line: str, partly: bool) -> int | None:
    """Where a tag stands in a line; such tags mean a call wherever they are."""
    for tag in _TAGS:
        if (inside := line.find(tag)) >= 0:
            return inside
    at = line.rfind("<")
    if partly and at >= 0 and any(tag.startswith(line[at:]) for tag in _TAGS):
        return at
    return None


def _end_of_json(text: str) -> int | None:
    """Where the JSON value that the text begins with ends; None if it does not."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end


def _calls_in(text: str, names: Collection[str]) -> list[Spotted]:
    """The calls that a whole candidate holds; none if one of them is not of an offered tool."""
    if text.startswith("<function="):
        match = re.match(r"<function=([\w-]+)>(.*?)</function>", text, re.DOTALL)
        if match is None or match.group(1) not in names:
            return []
        return [Spotted(match.group(1), match.group(2).strip() or "{}")]
    beginning = _BEGINNING.match(text)
    inner = text[beginning.end() :] if beginning else text
    inner = inner.removesuffix("</tool_call>").removesuffix("```").strip()
    found: list[Spotted] = []
    while inner:
        end = _end_of_json(inner)
        value = _decode(inner[:end]) if end else None
        calls = [_call(each, names) for each in (value if isinstance(value, list) else [value])]
        whole = [call for call in calls if call is not None]
        if end is None or not whole or len(whole) < len(calls):
            return []
        found += whole
        inner = inner[end:].strip().lstrip(",;").strip()
    return found


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _call(value: Any, names: Collection[str]) -> Spotted | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    if len(value) == 1:  # {"get_weather": {"city": "Oslo"}}
        ((name, arguments),) = value.items()
        if name in names and isinstance(arguments, dict):
            return Spotted(name, _text(arguments))
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name not in names or name is None:
        return None
    for key in _ARGUMENTS:
        if key in value:
            return Spotted(name, _text(value[key]))
    known = {*_NAMES, *_ARGUMENTS, "type", "id"}
    if set(value) <= known:
        return Spotted(name, "{}")
    return None


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return msgspec.json.encode(arguments).decode()
