"""Grammars in Lark's notation, read into trees.

Whether a grammar is right at all is for `llguidance` to say; this reader serves the way to GBNF
and knows what can be expressed there: rules, terminals, strings, regular expressions, ranges,
groups, repetitions, `%import common...` and `%ignore`. Priorities are read over. `NotExpressible`
is raised for the rest (templates, `%declare`, special tokens, nested JSON schemas ...).

Notation: https://lark-parser.readthedocs.io/en/stable/grammar.html, with the additions of
llguidance's docs/syntax.md (read 2026-11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import msgspec

from ouzel.loop.grammars_gbnf import whole
from ouzel.loop.grammars_regex import (
    EMPTY,
    MAX_NESTING,
    MAX_REPEAT,
    Alt,
    Chars,
    Node,
    NotExpressible,
    Ref,
    Repeat,
    Seq,
    literal,
    parse,
)

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|//[^\n]*|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"i?)
      | (?P<regex>/(?:[^/\\\n]|\\.)+/[imslux]*)
      | (?P<name>[!?]{0,2}[A-Za-z_][A-Za-z_0-9]*)
      | (?P<times>~\s*\d+(?:\s*\.\.\s*\d+)?|\{\s*\d*\s*,?\s*\d*\s*\})
      | (?P<number>-?\d+)
      | (?P<mark>->|\.\.|%[a-z]+|[:|()\[\]?*+.,])
    """,
    re.VERBOSE,
)

_INT, _FRACTION, _EXPONENT = "[0-9]+", r"(?:[0-9]+\.[0-9]*|\.[0-9]+)", "[eE][+-]?[0-9]+"
_FLOAT = f"(?:[0-9]+{_EXPONENT}|{_FRACTION}(?:{_EXPONENT})?)"
_COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[0-9a-fA-F]",
    "INT": _INT,
    "SIGNED_INT": f"[+-]?{_INT}",
    "DECIMAL": _FRACTION,
    "FLOAT": _FLOAT,
    "SIGNED_FLOAT": f"[+-]?{_FLOAT}",
    "NUMBER": f"(?:{_FLOAT}|{_INT})",
    "SIGNED_NUMBER": f"[+-]?(?:{_FLOAT}|{_INT})",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\[^\n])*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[A-Za-z]",
    "WORD": "[A-Za-z]+",
    "CNAME": "[A-Za-z_][A-Za-z_0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"//[^\n]*",
    "SQL_COMMENT": r"--[^\n]*",
}

START = "start"
# A name that no grammar can hold.
IGNORED = " ignored"


@dataclass(slots=True)
class _Token:
    kind: str
    text: str


@dataclass(slots=True)
class _Grammar:
    rules: dict[str, Node] = field(default_factory=dict)
    ignored: list[Node] = field(default_factory=list)


def read(definition: str) -> tuple[dict[str, Node], str]:
    """The rules of a grammar, and the name of the one that everything begins with.

    Raises:
        NotExpressible: it holds what GBNF cannot say, or what is not understood here.
    """
    reader = _Reader(_tokens(definition))
    grammar = reader.grammar()
    if not grammar.ignored:
        return grammar.rules, START
    # What is ignored may follow each terminal that a rule names; llguidance allows none before.
    rules = {
        name: node if _is_terminal(name) else _spaced(node, grammar.rules)
        for name, node in grammar.rules.items()
    }
    rules[IGNORED] = Alt(tuple(grammar.ignored))
    return rules, START


def _tokens(definition: str) -> list[_Token]:
    found, at = [], 0
    while at < len(definition):
        match = _TOKEN.match(definition, at)
        if match is None or match.end() == at:
            raise NotExpressible(f"`{definition[at : at + 20]}`")
        if match.lastgroup != "blank":
            found.append(_Token(str(match.lastgroup), match.group()))
        at = match.end()
    return found


def _is_terminal(name: str) -> bool:
    return name.lstrip("_").isupper()


def _spaced(node: Node, rules: dict[str, Node]) -> Node:
    match node:
        case Ref(name) if _is_terminal(name):
            return Seq((node, Repeat(Ref(IGNORED), 0, None)))
        case Alt(parts):
            return Alt(tuple(_spaced(part, rules) for part in parts))
        case Repeat(part, least, most):
            return Repeat(_spaced(part, rules), least, most)
        case Seq(parts):
            return Seq(tuple(_spaced(part, rules) for part in parts))
    return node


class _Reader:
    """Reads the tokens of one grammar from left to right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._grammar = _Grammar()
        self._anonymous = 0
        self._in_terminal = False

    def _peek(self, ahead: int = 0) -> _Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else _Token("end", "")

    def _take(self, text: str | None = None) -> _Token:
        token = self._peek()
        if token.kind == "end" or (text is not None and token.text != text):
            raise NotExpressible(f"`{token.text[:20]}`" if token.text else "a rule that breaks off")
        self._at += 1
        return token

    def grammar(self) -> _Grammar:
        while self._peek().kind != "end":
            token = self._take()
            if token.text == "%import":
                self._import()
            elif token.text == "%ignore":
                self._in_terminal = True
                self._grammar.ignored.append(self._alternatives(0))
            elif token.kind == "name":
                self._rule(token.text.lstrip("!?"))
            else:
                raise NotExpressible(f"`{token.text[:20]}`")
        return self._grammar

    def _rule(self, name: str) -> None:
        if self._peek().text == ".":
            self._take()
            self._take()  # a priority
        self._take(":")
        self._in_terminal = _is_terminal(name)
        self._grammar.rules[name] = self._alternatives(0)

    def _import(self) -> None:
        if self._take().text != "common":
            raise NotExpressible("imports of anything but `common`")
        if self._peek().text == ".":
            self._take()
            name = self._take().text
            alias = name
            if self._peek().text == "->":
                self._take()
                alias = self._take().text
            self._common(name, alias)
            return
        self._take("(")
        while self._peek().text != ")":
            name = self._take().text
            self._common(name, name)
            if self._peek().text == ",":
                self._take()
        self._take(")")

    def _common(self, name: str, alias: str) -> None:
        if name not in _COMMON:
            raise NotExpressible(f"`common.{name[:40]}`")
        self._grammar.rules[alias] = parse(_COMMON[name])

    def _alternatives(self, level: int) -> Node:
        if level > MAX_NESTING:
            raise NotExpressible("groups that are nested too deeply")
        if self._peek().text == "|" and self._peek().kind == "mark":
            self._take()
        branches = [self._sequence(level)]
        while self._peek().text == "|":
            self._take()
            branches.append(self._sequence(level))
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def _ends_here(self) -> bool:
        token = self._peek()
        if token.kind == "end" or token.text in ("|", ")", "]") or token.text.startswith("%"):
            return token.kind in ("end", "mark")
        # The next rule begins: `name:` or `name.2:`.
        number = self._peek(1).text == "." and self._peek(2).kind == "number"
        return token.kind == "name" and self._peek(3 if number else 1).text == ":"

    def _sequence(self, level: int) -> Node:
        parts: list[Node] = []
        while not self._ends_here():
            if self._peek().text == "->":
                self._take()
                self._take()  # how the branch is called in Lark's trees
                continue
            parts.append(self._repeated(self._atom(level)))
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        while (token := self._peek()).text in ("?", "*", "+") or token.kind == "times":
            self._take()
            if token.kind == "times":
                least, most = _bounds(token.text)
            else:
                least = 1 if token.text == "+" else 0
                most = 1 if token.text == "?" else None
            part = Repeat(part, least, most)
        return part

    def _atom(self, level: int) -> Node:
        token = self._take()
        if token.kind == "name":
            return Ref(token.text)
        if token.kind == "regex":
            return self._token(_regex(token.text))
        if token.kind == "string":
            if self._peek().text == "..":
                self._take()
                return self._token(_range(token.text, self._take().text))
            return self._token(_string(token.text))
        if token.text in ("(", "["):
            inner = self._alternatives(level + 1)
            self._take(")" if token.text == "(" else "]")
            return inner if token.text == "(" else Repeat(inner, 0, 1)
        raise NotExpressible(f"`{token.text[:20]}`")

    def _token(self, node: Node) -> Node:
        """In a rule, what is written out is a terminal of its own."""
        if self._in_terminal or node == EMPTY:
            return node
        self._anonymous += 1
        name = f" T{self._anonymous}".upper()
        self._grammar.rules[name] = node
        return Ref(name)


def _bounds(text: str) -> tuple[int, int | None]:
    inside = text.strip("~{} ").replace("..", ",")
    low, comma, high = (part.strip() for part in inside.partition(","))
    if max(len(low), len(high)) > 4 or not (low or high):
        raise NotExpressible(f"more than {MAX_REPEAT} repetitions")
    least = int(low or 0)
    most = least if not comma else int(high) if high else None
    if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
        raise NotExpressible(f"more than {MAX_REPEAT} repetitions")
    return least, most


def _value(text: str) -> str:
    try:
        return str(msgspec.json.decode(text))
    except msgspec.DecodeError:
        raise NotExpressible(f"the string {text[:40]}") from None


def _string(text: str) -> Node:
    any_case = text.endswith("i")
    return literal(_value(text.removesuffix("i")), any_case=any_case)


def _range(first: str, last: str) -> Node:
    low, high = _value(first), _value(last)
    if len(low) != 1 or len(high) != 1 or high < low:
        raise NotExpressible(f"the range {first[:20]}..{last[:20]}")
    return Chars(((ord(low), ord(high)),))


def _regex(text: str) -> Node:
    body, _, flags = text[1:].rpartition("/")
    if set(flags) - set("isu"):
        raise NotExpressible(f"the flags of {text[:40]}")
    return whole(parse(body.replace("\\/", "/"), any_case="i" in flags, dot_all="s" in flags))
