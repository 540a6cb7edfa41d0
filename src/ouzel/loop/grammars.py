"""The grammars of custom tools: what a client wrote, ready for engines and for checking.

Two notations come in, as the API documents them: `lark` (the dialect of llguidance) and `regex`
(Rust's). llguidance says whether they are right, and whether a text fits; it has no backtracking
and keeps to limits. For engines that take GBNF the grammar is written as such where that can be
done. This file knows neither tools nor models.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

import llguidance

from ouzel.core.errors import RequestError
from ouzel.core.request import Grammar
from ouzel.loop.grammars_gbnf import gbnf, json_object, one_of, whole
from ouzel.loop.grammars_lark import read
from ouzel.loop.grammars_regex import NotExpressible, parse

__all__ = ["Compiled", "compile", "json_object", "one_of"]

MAX_DEFINITION_CHARS = 50_000
MAX_TEXT_CHARS = 200_000
BROKEN: Final = "the library that reads grammars fails on it; write it in another way"
CHECK_SECONDS = 1.0
"""Longest time that one check may take; honest ones take milliseconds."""

# Half of what the library itself allows, where hostile grammars spend their time.
_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=500,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
_BYTES = llguidance.LLTokenizer("byte")
_T = TypeVar("_T")
_HEADER = "%llguidance {}\n"
_STEP = 32
# What is not closed counts, too: a search that fails at every quote takes its time squared.
_QUOTED = re.compile(
    r"""
    "(?:[^"\\\n]|\\.)*"? | //[^\n]* | \#[^\n]* | /(?:[^/\\\n]|\\.)+/?
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A grammar that was read.

    Args:
        grammar: as the client wrote it.
        llguidance: the grammar for engines that contain llguidance: the embedded one takes it in
            the place of GBNF. Begins with `%llguidance`.
        gbnf: the grammar for engines that take GBNF; None where it cannot be said in GBNF.
        reason: why there is no GBNF, empty where there is.
    """

    grammar: Grammar
    llguidance: str
    gbnf: str | None
    reason: str = field(default="", compare=False)

    def check(self, text: str) -> str | None:
        """What is wrong with a text, in one sentence that a model can act on; None when it fits.

        Nothing is raised. Takes up to `CHECK_SECONDS` for hostile grammars and long texts.
        """
        if len(text) > MAX_TEXT_CHARS:
            return f"The input is longer than {MAX_TEXT_CHARS} characters."
        try:
            data = text.encode()
        except UnicodeEncodeError:
            return "The input holds half of a surrogate pair."
        try:
            return _unharmed(lambda: self._check(data))
        except _Broken:
            return "The input cannot be checked against the tool's grammar."

    def _check(self, data: bytes) -> str | None:
        matcher = llguidance.LLMatcher(_BYTES, self.llguidance, log_level=0, limits=_LIMITS)
        until = time.monotonic() + CHECK_SECONDS
        for at in range(0, len(data), _STEP):
            piece = list(data[at : at + _STEP])
            taken = matcher.try_consume_tokens(piece)
            if matcher.is_error() or time.monotonic() > until:
                return "The input is too long to be checked against the tool's grammar."
            if taken < len(piece):
                return _refused(data, at + taken)
        if matcher.is_accepting():
            return None
        return f"The input ends too early for the tool's grammar, after {_tail(data)}."


@lru_cache(maxsize=256)
def compile(grammar: Grammar) -> Compiled:  # noqa: A001 - grammars.compile, as in re.compile
    """Read a client's grammar.

    Args:
        grammar: as it came.

    Raises:
        RequestError: `invalid_grammar`; the message says what is wrong, and where.
    """
    if len(grammar.definition) > MAX_DEFINITION_CHARS:
        raise _invalid(grammar, f"it is longer than {MAX_DEFINITION_CHARS} characters")
    try:
        grammar.definition.encode()
    except UnicodeEncodeError:
        raise _invalid(grammar, "it holds half of a surrogate pair") from None
    try:
        text = _HEADER + _unharmed(lambda: _as_lark(grammar))
        wrong = _unharmed(lambda: llguidance.LLMatcher.validate_grammar(text, limits=_LIMITS))
    except _Broken:
        raise _invalid(grammar, BROKEN) from None
    if wrong and not wrong.startswith("WARNING"):
        raise _invalid(grammar, _plain(wrong, grammar))
    try:
        return Compiled(grammar, text, _as_gbnf(grammar))
    except NotExpressible as error:
        return Compiled(grammar, text, None, str(error))
    except RecursionError:
        return Compiled(grammar, text, None, "groups that are nested too deeply")


class _Broken(Exception):
    """The library gave up in the midst of its work."""


def _unharmed(work: Callable[[], _T]) -> _T:
    """What `work` returns. A panic of the library, which Python code is not meant to catch and
    which would end the task of whoever asks, is `_Broken`."""
    try:
        return work()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _Broken from None


def _as_lark(grammar: Grammar) -> str:
    if grammar.syntax == "regex":
        if not grammar.definition:
            raise _invalid(grammar, "it is empty")
        # It would hide the slash that ends the expression.
        if (len(grammar.definition) - len(grammar.definition.rstrip("\\"))) % 2:
            raise _invalid(grammar, "it ends in a backslash")
        return f"start: /{llguidance.regex_to_lark(grammar.definition, '')}/\n"
    if re.search(r"^\s*%llguidance", grammar.definition, re.MULTILINE):
        raise _invalid(grammar, "`%llguidance` is not supported")
    # They stand for the marks between messages, which are nothing a tool's input may hold.
    if "<" in _QUOTED.sub("", grammar.definition):
        raise _invalid(grammar, "special tokens (`<...>`) are not supported")
    return grammar.definition


def _as_gbnf(grammar: Grammar) -> str:
    if grammar.syntax == "regex":
        return gbnf({"start": whole(parse(grammar.definition))}, "start")
    return gbnf(*read(grammar.definition))


def _invalid(grammar: Grammar, reason: str) -> RequestError:
    return RequestError(
        f"The {grammar.syntax} grammar cannot be used: {reason}.", code="invalid_grammar"
    )


def _plain(message: str, grammar: Grammar) -> str:
    """The library's message on one line, places counted in what the client wrote."""
    lines = [line.strip() for line in message.splitlines()]
    details = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if grammar.syntax == "regex":
        return ": ".join(details)[:400].rstrip(".") or "it is no regular expression of this kind"
    first = re.sub(r" \(in regex\):.*$", "", lines[0])
    if place := re.match(r"(?:at )?(\d+)\((\d+)\): ", first):
        first = f"line {int(place[1]) - 1}, column {place[2]}: {first[place.end() :]}"
    return ": ".join([first, *details])[:400].rstrip(".")


def _refused(data: bytes, at: int) -> str:
    rest = data[at:].decode(errors="replace")[:1]
    before = f" after {_tail(data[:at])}" if at else ""
    place = len(data[:at].decode(errors="replace"))
    return f"The tool's grammar does not allow {rest!r} at character {place}{before}."


def _tail(data: bytes) -> str:
    return repr(data.decode(errors="replace")[-20:]) if data else "nothing"
