"""Reads GBNF and matches texts against it, slowly and simply: a second opinion for the tests.

Follows the grammars guide of llama.cpp and shares no code with what writes GBNF. Like its parser,
it refuses left recursion and the repetition of what may be empty.
"""

from __future__ import annotations

import re
from typing import Any

_ESCAPE = r"\\(?:x[0-9A-F]{2}|u[0-9A-F]{4}|U[0-9A-F]{8}|[nrt\"\\\[\]])"
_TOKEN = re.compile(
    rf"""\s*(?:(?P<literal>"(?:[^"\\\n]|{_ESCAPE})*")
      | (?P<set>\[\^?(?:[^\]\\\n]|{_ESCAPE})+\])
      | (?P<name>[a-zA-Z][a-zA-Z0-9-]*)
      | (?P<times>\{{\d+(?:,\d*)?\}}|[?*+])
      | (?P<mark>[()|]))""",
    re.VERBOSE,
)


def _character(text: str) -> str:
    if not text.startswith("\\"):
        return text
    plain = {"n": "\n", "r": "\r", "t": "\t"}
    return chr(int(text[2:], 16)) if text[1] in "xuU" else plain.get(text[1], text[1])


def _characters(text: str) -> list[str]:
    return [_character(each) for each in re.findall(rf"{_ESCAPE}|[^\\]", text, re.DOTALL)]


class Gbnf:
    """One grammar."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, Any] = {}
        for line in text.splitlines():
            name, arrow, body = line.partition(" ::= ")
            assert arrow, line
            assert re.fullmatch("[a-zA-Z][a-zA-Z0-9-]*", name), line
            tokens, at = [], 0
            while body[at:].strip():
                match = _TOKEN.match(body, at)
                assert match, body[at:]
                tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
                at = match.end()
            self._rules[name] = self._either(tokens)
            assert not tokens, tokens

    def _either(self, tokens: list[tuple[str, str]]) -> Any:
        branches = [self._row(tokens)]
        while tokens and tokens[0][1] == "|" and tokens[0][0] == "mark":
            tokens.pop(0)
            branches.append(self._row(tokens))
        return ("either", branches)

    def _row(self, tokens: list[tuple[str, str]]) -> Any:
        parts: list[Any] = []
        while tokens and not (tokens[0][0] == "mark" and tokens[0][1] in "|)"):
            kind, text = tokens.pop(0)
            if kind == "mark":
                parts.append(self._either(tokens))
                assert tokens.pop(0) == ("mark", ")")
            elif kind == "times":
                low, _, high = text.strip("{}").partition(",")
                least = int(low) if low.isdigit() else int(low == "+")
                most = (
                    1 if low == "?" else least if text.startswith("{") and "," not in text else None
                )
                most = int(high) if high else most
                parts.append(("times", parts.pop(), least, most))
            elif kind == "set":
                parts.append(("set", text[1] == "^", _characters(text[1:-1].removeprefix("^"))))
            elif kind == "literal":
                parts.extend(("set", False, [each]) for each in _characters(text[1:-1]))
            else:
                parts.append(("rule", text))
        return ("row", parts)

    def matches(self, text: str) -> bool:
        """Whether the whole text is in the grammar's language."""
        self._text = text
        self._known: dict[tuple[str, int], set[int] | None] = {}
        return len(text) in self._ends(("rule", "root"), 0)

    def _ends(self, node: Any, at: int) -> set[int]:
        kind = node[0]
        if kind == "set":
            return {at + 1} if at < len(self._text) and self._in(node, self._text[at]) else set()
        if kind == "either":
            return set().union(*(self._ends(branch, at) for branch in node[1]))
        if kind == "row":
            here = {at}
            for part in node[1]:
                here = set().union(*(self._ends(part, place) for place in here))
            return here
        if kind == "rule":
            key = (node[1], at)
            if key not in self._known:
                self._known[key] = None
                self._known[key] = self._ends(self._rules[node[1]], at)
            found = self._known[key]
            assert found is not None, f"left recursion of {node[1]}"
            return found
        return self._repeated(node, at)

    def _repeated(self, node: Any, at: int) -> set[int]:
        _, part, least, most = node
        here, found, count = {at}, ({at} if least == 0 else set()), 0
        while here and (most is None or count < most):
            steps = {place: self._ends(part, place) for place in here}
            filled = most == 1 or not any(place in ends for place, ends in steps.items())
            assert filled, "something that may be empty is repeated"
            here, count = set().union(*steps.values()), count + 1
            found |= here if count >= least else set()
        return found

    @staticmethod
    def _in(node: Any, character: str) -> bool:
        _, negated, members = node
        at, found = 0, False
        while at < len(members):
            if at + 2 < len(members) and members[at + 1] == "-":
                found |= members[at] <= character <= members[at + 2]
                at += 3
            else:
                found |= members[at] == character
                at += 1
        return found != negated
