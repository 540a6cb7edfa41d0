"""Regular expressions as trees: read from Rust's syntax, written as GBNF.

Covers what describes a language of its own: literals, classes, groups, alternatives, repetitions
(lazy ones too, which match the same texts), the flags i and s, anchors at the ends. It knows no
grammar and no schema. Whether an expression is right at all is for `llguidance` to say; here
`NotExpressible` means only that there is no GBNF for it.

`\\d`, `\\w` and `\\s` stand for their ASCII characters: fewer than in Rust, so that all that is
generated is right; complements (`\\D`) may let through what Rust would not.

Syntax: https://docs.rs/regex/latest/regex/#syntax (read 2026-11), and the GBNF guide of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LAST = 0x10FFFF
MAX_REPEAT = 1_000
MAX_SIZE = 20_000
MAX_NESTING = 60

Ranges = tuple[tuple[int, int], ...]
"""Characters as code points, first and last, in order and apart from each other."""


class NotExpressible(Exception):
    """There is no GBNF for this; the message says for what."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; nothing at all when empty."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """So many times; without end where `most` is None."""

    part: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Ref:
    """A rule by its name (in grammars only)."""

    name: str


@dataclass(frozen=True, slots=True)
class Edge:
    """The text begins (or ends) here."""

    start: bool


Node = Chars | Seq | Alt | Repeat | Ref | Edge
EMPTY = Seq(())


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted and merged."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pairs):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(of: Ranges) -> Ranges:
    """All characters but these."""
    gaps, at = [], 0
    for low, high in of:
        if low > at:
            gaps.append((at, low - 1))
        at = high + 1
    return (*gaps, (at, LAST)) if at <= LAST else tuple(gaps)


def either_case(of: Ranges) -> Ranges:
    """With the other case of each letter; of letters past ASCII for small sets only."""
    pairs = list(of)
    for low, high in of:
        if high - low > 500 and high > 127:
            high = min(high, 127)
        for code in range(low, high + 1):
            for other in (chr(code).lower(), chr(code).upper()):
                if len(other) == 1:
                    pairs.append((ord(other), ord(other)))
    return ranges(pairs)


def literal(text: str, *, any_case: bool = False) -> Node:
    """These characters, one after the other."""
    each = (ranges([(ord(c), ord(c))]) for c in text)
    return Seq(tuple(Chars(either_case(r) if any_case else r) for r in each))


DIGIT: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE: Ranges = ((9, 13), (32, 32))
_SETS = {"d": DIGIT, "w": WORD, "s": SPACE}
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "a": 7}
_POSIX: dict[str, Ranges] = {
    "alpha": ((65, 90), (97, 122)),
    "digit": DIGIT,
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "upper": ((65, 90),),
    "lower": ((97, 122),),
    "space": SPACE,
    "word": WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
}


def parse(pattern: str, *, any_case: bool = False, dot_all: bool = False) -> Node:
    """The tree of a regular expression.

    Args:
        pattern: without delimiters.
        any_case: the flag i; dot_all: the flag s.

    Raises:
        NotExpressible: it uses what GBNF cannot say, or what is not understood here.
    """
    reader = _Reader(pattern, any_case, dot_all)
    tree = reader.alternatives(0)
    if reader.at < len(pattern):
        raise NotExpressible(f"a `{pattern[reader.at]}` that nothing opened")
    return tree


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str, any_case: bool, dot_all: bool) -> None:
        self._text = text
        self._any_case = any_case
        self._dot_all = dot_all
        self.at = 0

    def _peek(self, ahead: int = 0) -> str:
        return self._text[self.at + ahead : self.at + ahead + 1]

    def _take(self) -> str:
        here = self._peek()
        if not here:
            raise NotExpressible("an expression that breaks off")
        self.at += 1
        return here

    def _chars(self, of: Ranges) -> Chars:
        return Chars(either_case(of) if self._any_case else of)

    def alternatives(self, level: int) -> Node:
        if level > MAX_NESTING:
            raise NotExpressible("groups that are nested too deeply")
        # Flags set inside a group end with it.
        flags = self._any_case, self._dot_all
        branches = [self._sequence(level)]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence(level))
        self._any_case, self._dot_all = flags
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def _sequence(self, level: int) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom(level)))
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        while True:
            here = self._peek()
            if here in ("*", "+", "?") and here:
                self.at += 1
                least, most = (1 if here == "+" else 0), (1 if here == "?" else None)
            elif here == "{":
                least, most = self._bounds()
            else:
                return part
            if isinstance(part, Edge):
                raise NotExpressible("a repeated anchor")
            if self._peek() == "?":  # lazy: the same texts
                self.at += 1
            part = Repeat(part, least, most)

    def _bounds(self) -> tuple[int, int | None]:
        end = self._text.find("}", self.at)
        low, comma, high = self._text[self.at + 1 : max(end, 0)].replace(" ", "").partition(",")
        if end < 0 or not low.isdecimal() or not (high.isdecimal() or not high):
            raise NotExpressible("a `{` that is no repetition")
        self.at = end + 1
        if max(len(low), len(high)) > 4 or max(int(low), int(high or 0)) > MAX_REPEAT:
            raise NotExpressible(f"more than {MAX_REPEAT} repetitions")
        most = int(low) if not comma else int(high) if high else None
        if most is not None and most < int(low):
            raise NotExpressible("a repetition whose end is before its beginning")
        return int(low), most

    def _atom(self, level: int) -> Node:
        here = self._take()
        match here:
            case "(":
                return self._group(level)
            case "[":
                return Chars(self._class())
            case ".":
                return Chars(complement(())) if self._dot_all else Chars(complement(((10, 10),)))
            case "^" | "$":
                return Edge(here == "^")
            case "\\":
                return self._escaped()
            case "*" | "+" | "?" | "{":
                raise NotExpressible(f"a `{here}` with nothing to repeat")
        return self._chars(((ord(here), ord(here)),))

    def _group(self, level: int) -> Node:
        if self._peek() != "?":
            return self._closed(level)
        self.at += 1
        named = "P<" if self._peek() == "P" else "<"
        if self._text.startswith(named, self.at) and self._peek(1) not in ("=", "!"):
            end = self._text.find(">", self.at)
            if end < 0:
                raise NotExpressible("a group whose name does not end")
            self.at = end + 1
            return self._closed(level)
        return self._flags(level)

    def _flags(self, level: int) -> Node:
        outside = self._any_case, self._dot_all
        on = True
        while (here := self._take()) not in (":", ")"):
            if here == "-":
                on = False
            elif here == "i":
                self._any_case = on
            elif here == "s":
                self._dot_all = on
            elif here != "u":
                raise NotExpressible("looking around, or an unusual kind of group or flag")
        if here == ")":
            return EMPTY
        group = self._closed(level)
        self._any_case, self._dot_all = outside
        return group

    def _closed(self, level: int) -> Node:
        inner = self.alternatives(level + 1)
        if self._take() != ")":
            raise NotExpressible("a group that is not closed")
        return inner

    def _escaped(self) -> Node:
        here = self._peek()
        if here in ("A", "z", "Z") and here:
            self.at += 1
            return Edge(here == "A")
        return self._chars(self._escape())

    def _escape(self) -> Ranges:
        """The characters of an escape, after its backslash."""
        here = self._take()
        if here.lower() in _SETS:
            inside = _SETS[here.lower()]
            return inside if here.islower() else complement(inside)
        if here in _CONTROLS:
            code = _CONTROLS[here]
        elif here in "xuU":
            code = self._hex({"x": 2, "u": 4, "U": 8}[here])
        elif here.isalnum():
            raise NotExpressible(f"the escape `\\{here}`")
        else:
            code = ord(here)
        return ((code, code),)

    def _hex(self, width: int) -> int:
        if self._peek() == "{":
            end = self._text.find("}", self.at)
            digits = self._text[self.at + 1 : max(end, 0)]
            self.at = end + 1
        else:
            digits = self._text[self.at : self.at + width]
            self.at += width
        if not digits or len(digits) > 8 or set(digits) - set("0123456789abcdefABCDEF"):
            raise NotExpressible("a character number that cannot be read")
        if int(digits, 16) > LAST:
            raise NotExpressible("a character number past the last character")
        return int(digits, 16)

    def _class(self) -> Ranges:
        """The characters of a class, after its opening bracket."""
        negated = self._peek() == "^"
        self.at += negated
        pairs: list[tuple[int, int]] = []
        first = True
        while (here := self._take()) != "]" or first:
            first = False
            if self._peek() == here and here in "&-~":
                raise NotExpressible("operations on classes")
            low = self._member(here)
            if self._peek() == "-" and self._peek(1) not in ("]", "", "-"):
                self.at += 1
                high = self._member(self._take())
                if len(low) != 1 or len(high) != 1 or high[0][1] < low[0][0]:
                    raise NotExpressible("a class with a range that is none")
                low = ((low[0][0], high[0][1]),)
            pairs.extend(low)
        # What a flag adds is added before the complement is taken.
        found = either_case(ranges(pairs)) if self._any_case else ranges(pairs)
        return complement(found) if negated else found

    def _member(self, here: str) -> Ranges:
        if here == "\\":
            return self._escape()
        if here == "[":
            end = self._text.find(":]", self.at)
            name = self._text[self.at + 1 : max(end, 0)]
            if self._peek() != ":" or name not in _POSIX:
                raise NotExpressible("a class inside a class")
            self.at = end + 2
            return _POSIX[name]
        return ((ord(here), ord(here)),)
