"""Grammars written as GBNF, the notation of llama.cpp.

Its parser refuses two things that are harmless elsewhere: left recursion, and repeating what may
be empty. Here they are rewritten where that is possible, and `NotExpressible` says so where it is
not. Everything a client chose goes out as numbers or escaped; rule names are made anew.

Notation: the grammars guide of llama.cpp (read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ouzel.loop.grammars_regex import (
    EMPTY,
    LAST,
    MAX_SIZE,
    Alt,
    Chars,
    Edge,
    Node,
    NotExpressible,
    Ranges,
    Ref,
    Repeat,
    Seq,
    complement,
    literal,
)

MAX_CHARS = 200_000
MAX_RULES = 1_000

_JSON = r"""object ::= "{" ws ( member ( "," ws member )* )? "}"
member ::= string ":" ws value ws
array ::= "[" ws ( value ws ( "," ws value ws )* )? "]"
value ::= object | array | string | number | "true" | "false" | "null"
string ::= "\"" ( [^"\\\x00-\x1F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\""
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,3} )?
ws ::= | " " | "\n" [ \t]{0,20}
"""


def json_object() -> str:
    """GBNF of any one JSON object, with little room for white space."""
    return "root ::= object\n" + _JSON


def one_of(names: Sequence[str]) -> str:
    """GBNF of exactly one of these texts.

    Args:
        names: at least one; none empty.
    """
    if not names or not all(names):
        raise ValueError("there has to be something to choose from")
    return "root ::= " + " | ".join(_text(literal(name)) for name in dict.fromkeys(names)) + "\n"


def gbnf(rules: Mapping[str, Node], start: str) -> str:
    """The GBNF text of a grammar, beginning with `root`.

    Args:
        rules: what each name stands for; every name that is used has to be there.
        start: the rule that everything begins with.

    Raises:
        NotExpressible: no GBNF says this, or it would be too large.
    """
    kept = _reachable(rules, start)
    if len(kept) > MAX_RULES:
        raise NotExpressible(f"more than {MAX_RULES} rules")
    kept = {name: _without_left_recursion(name, node) for name, node in kept.items()}
    empty = _may_be_empty(kept)
    kept = {name: _tamed(node, empty) for name, node in kept.items()}
    _refuse_left_recursion(kept, empty)
    if sum(_size(node) for node in kept.values()) > MAX_SIZE:
        raise NotExpressible("repetitions that make it too large")
    names = {name: f"r{index}{_slug(name)}" for index, name in enumerate(kept)}
    lines = [f"root ::= {names[start]}"]
    lines += [f"{names[name]} ::= {_text(node, names)}" for name, node in kept.items()]
    text = "\n".join(lines) + "\n"
    if len(text) > MAX_CHARS:
        raise NotExpressible(f"more than {MAX_CHARS} characters of GBNF")
    return text


def without_edges(node: Node) -> list[tuple[bool, Node, bool]]:
    """The alternatives of an expression, each with whether it is anchored at start and end.

    Raises:
        NotExpressible: an anchor stands anywhere else.
    """
    found = []
    for branch in node.parts if isinstance(node, Alt) else (node,):
        parts = list(branch.parts) if isinstance(branch, Seq) else [branch]
        start = end = False
        while parts and parts[0] == Edge(True):
            start = bool(parts.pop(0))
        while parts and parts[-1] == Edge(False):
            end = bool(parts.pop())
        if any(_holds_edge(part) for part in parts):
            raise NotExpressible("an anchor in the middle")
        found.append((start, parts[0] if len(parts) == 1 else Seq(tuple(parts)), end))
    return found


def whole(node: Node) -> Node:
    """An expression that has to match a whole text: its anchors say nothing more."""
    branches = tuple(inner for _, inner, _ in without_edges(node))
    return branches[0] if len(branches) == 1 else Alt(branches)


def _children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Seq | Alt):
        return node.parts
    return (node.part,) if isinstance(node, Repeat) else ()


def _holds_edge(node: Node) -> bool:
    return isinstance(node, Edge) or any(_holds_edge(child) for child in _children(node))


def _names(node: Node) -> set[str]:
    found = {node.name} if isinstance(node, Ref) else set()
    return found.union(*(_names(child) for child in _children(node)))


def _reachable(rules: Mapping[str, Node], start: str) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        if name not in rules:
            raise NotExpressible(f"the rule `{name[:60]}`, which is not there")
        kept[name] = rules[name]
        waiting.extend(sorted(_names(rules[name])))
    return kept


def _without_left_recursion(name: str, node: Node) -> Node:
    """`a: a x | y` says the same as `a: y x*`."""
    branches = node.parts if isinstance(node, Alt) else (node,)
    tails, others = [], []
    for branch in branches:
        parts = branch.parts if isinstance(branch, Seq) else (branch,)
        if parts and parts[0] == Ref(name):
            tails.append(Seq(parts[1:]))
        else:
            others.append(branch)
    tails = [tail for tail in tails if tail.parts]
    if not tails:
        return node if len(others) == len(branches) else _one(others)
    if not others:
        raise NotExpressible(f"the rule `{name[:60]}`, which never ends")
    return Seq((_one(others), Repeat(_one(tails), 0, None)))


def _one(branches: Sequence[Node]) -> Node:
    return branches[0] if len(branches) == 1 else Alt(tuple(branches))


def _empty(node: Node, empty: set[str]) -> bool:
    """Whether it may stand for nothing."""
    match node:
        case Chars() | Edge():
            return False
        case Ref(name):
            return name in empty
        case Seq(parts):
            return all(_empty(part, empty) for part in parts)
        case Alt(parts):
            return any(_empty(part, empty) for part in parts)
        case Repeat(part, least, _):
            return least == 0 or _empty(part, empty)


def _may_be_empty(rules: Mapping[str, Node]) -> set[str]:
    empty: set[str] = set()
    while found := {n for n, node in rules.items() if n not in empty and _empty(node, empty)}:
        empty |= found
    return empty


def _tamed(node: Node, empty: set[str]) -> Node:
    """The same, where nothing that may be empty is repeated."""
    match node:
        case Seq(parts):
            return Seq(tuple(_tamed(part, empty) for part in parts))
        case Alt(parts):
            return Alt(tuple(_tamed(part, empty) for part in parts))
        case Repeat(_, _, 0):
            return EMPTY
        case Repeat(part, least, most):
            part = _tamed(part, empty)
            if not _empty(part, empty):
                return Repeat(part, least, most)
            filled = _filled(part, empty)
            return EMPTY if filled is None else Repeat(filled, 0, most)
    return node


def _filled(node: Node, empty: set[str]) -> Node | None:
    """The same without the empty text; None where that leaves nothing."""
    match node:
        case Seq(parts):
            if not all(_empty(part, empty) for part in parts):
                return node
            # The first part that is there decides; those after it are as they were.
            branches = []
            for index, part in enumerate(parts):
                first = _filled(part, empty)
                if first is not None:
                    branches.append(Seq((first, *parts[index + 1 :])))
            return _one(branches) if branches else None
        case Alt(parts):
            kept = [f for f in (_filled(part, empty) for part in parts) if f is not None]
            return _one(kept) if kept else None
        case Repeat(part, least, most):
            filled = _filled(part, empty) if _empty(part, empty) else part
            least = least if filled is part else 0
            return None if filled is None or most == 0 else Repeat(filled, max(least, 1), most)
        case Ref(name) if name in empty:
            raise NotExpressible(f"repeating the rule `{name[:60]}`, which may be empty")
    return node


def _firsts(node: Node, empty: set[str]) -> set[str]:
    """Rules that may stand at the very beginning."""
    if isinstance(node, Ref):
        return {node.name}
    found: set[str] = set()
    for child in _children(node):
        found |= _firsts(child, empty)
        if isinstance(node, Seq) and not _empty(child, empty):
            break
    return found


def _refuse_left_recursion(rules: Mapping[str, Node], empty: set[str]) -> None:
    begins = {name: _firsts(node, empty) for name, node in rules.items()}
    done: set[str] = set()
    while left := [n for n, firsts in begins.items() if n not in done and firsts <= done]:
        done.update(left)
    if circle := sorted(set(rules) - done):
        raise NotExpressible(f"the left recursion of the rule `{circle[0][:60]}`")


def _size(node: Node) -> int:
    """Characters and names after every repetition was written out."""
    if isinstance(node, Repeat):
        return _size(node.part) * max(node.least + 1, node.most or 0, 1)
    return 1 + sum(_size(child) for child in _children(node))


def _slug(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()[:40]).strip("-")
    return f"-{words}" if words else ""


def _char(code: int) -> str:
    here = chr(code)
    if here.isascii() and (here.isalnum() or here in " _.,:;/+*=<>(){}|!?@#%&~'"):
        return here
    for width, mark in ((2, "x"), (4, "u")):
        if code < 16**width:
            return f"\\{mark}{code:0{width}X}"
    return f"\\U{code:08X}"


def _set(of: Ranges) -> str:
    if not of:
        raise NotExpressible("a class that no character is in")
    if of == ((0, LAST),):
        return "[\\x00-\\U0010FFFF]"
    negated = of[-1][1] == LAST
    shown = complement(of) if negated else of
    members = (_char(a) if a == b else f"{_char(a)}-{_char(b)}" for a, b in shown)
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _text(node: Node, names: Mapping[str, str] | None = None) -> str:
    """As GBNF, on one line."""
    match node:
        case Chars(of):
            single = len(of) == 1 and of[0][0] == of[0][1]
            return f'"{_char(of[0][0])}"' if single else _set(of)
        case Ref(name):
            return (names or {})[name]
        case Seq(parts):
            said = [_inside(part, names, Alt) for part in parts if part != EMPTY]
            shown = " ".join(said) or '""'
            return shown.replace('" "', "") if _is_literal(node) else shown
        case Alt(parts):
            return " | ".join(_text(part, names) for part in parts)
        case Repeat(part, least, most):
            return _inside(part, names, Alt, Seq, Repeat) + _times(least, most)
        case Edge():
            raise NotExpressible("an anchor in the middle")


def _is_literal(node: Seq) -> bool:
    singles = (
        isinstance(part, Chars) and len(part.ranges) == 1 and part.ranges[0][0] == part.ranges[0][1]
        for part in node.parts
    )
    # A quoted blank would look like the joint between two characters.
    return all(singles) and Chars(((32, 32),)) not in node.parts


def _inside(node: Node, names: Mapping[str, str] | None, *grouped: type[Node]) -> str:
    text = _text(node, names)
    return f"({text})" if isinstance(node, grouped) else text


def _times(least: int, most: int | None) -> str:
    plain = {(0, 1): "?", (0, None): "*", (1, None): "+", (1, 1): ""}
    if (least, most) in plain:
        return plain[least, most]
    return f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
