"""Patterns of strings, written so that both of an engine's converters read them alike.

llama.cpp copies a pattern between the quotes of a JSON string: nothing in it may stand for a quote,
a backslash or a control character. Classes are written out, anchors are at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from ouzel.loop.grammars_regex import (
    LAST,
    MAX_SIZE,
    Alt,
    Chars,
    Node,
    NotExpressible,
    Ranges,
    Repeat,
    Seq,
    complement,
    ranges,
)

_FORBIDDEN: Ranges = ((0, 31), (34, 34), (92, 92), (127, 127))
_OUTSIDE: Ranges = (*_FORBIDDEN, (0xD800, 0xDFFF))
_ANY = "[^\\x00-\\x1F\\x22\\x5C\\x7F]"
_SPECIAL = "^$.[]()|{}*+?"
MAX_CHARS = 2_000


def written(branches: Sequence[tuple[bool, Node, bool]]) -> str:
    """The pattern, from its alternatives and whether they are anchored at start and end.

    Raises:
        NotExpressible: it needs characters that cannot be written, or is too large.
    """
    shown = [
        ("" if start else _ANY + "*") + _text(Seq((node,))) + ("" if end else _ANY + "*")
        for start, node, end in branches
    ]
    text = "^" + (shown[0] if len(shown) == 1 else "(" + "|".join(shown) + ")") + "$"
    if len(text) > MAX_CHARS or sum(_size(node) for _, node, _ in branches) > MAX_SIZE // 10:
        raise NotExpressible("a pattern that is too large")
    return text


def _size(node: Node) -> int:
    if isinstance(node, Repeat):
        return _size(node.part) * max(node.least + 1, node.most or 0, 1)
    return 1 + sum(_size(part) for part in node.parts) if isinstance(node, Seq | Alt) else 1


def _text(node: Node) -> str:
    match node:
        case Chars(of):
            return _set(of)
        case Seq(parts):
            return "".join(f"({_text(p)})" if isinstance(p, Alt) else _text(p) for p in parts)
        case Alt(parts):
            if any(part == Seq(()) for part in parts):
                raise NotExpressible("an empty alternative")
            return "|".join(_text(part) for part in parts)
        case Repeat(part, least, most):
            if part == Seq(()):
                raise NotExpressible("an empty group that is repeated")
            inner = _text(part) if isinstance(part, Chars) else f"({_text(part)})"
            return inner + _times(least, most)
    raise NotExpressible("an anchor in the middle")


def _times(least: int, most: int | None) -> str:
    plain = {(0, 1): "?", (0, None): "*", (1, None): "+"}
    if (least, most) in plain:
        return plain[least, most]
    return f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"


def _set(of: Ranges) -> str:
    allowed = complement(ranges([*complement(of), *_OUTSIDE]))
    if not allowed:
        raise NotExpressible("a character that JSON escapes")
    if len(allowed) == 1 and allowed[0][0] == allowed[0][1]:
        here = chr(allowed[0][0])
        return f"\\{here}" if here in _SPECIAL else here
    negated = allowed[-1][1] == LAST
    shown = ranges([*complement(of), *_FORBIDDEN]) if negated else allowed
    members = (_char(a) if a == b else f"{_char(a)}-{_char(b)}" for a, b in shown)
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _char(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    # In both notations; a character as it is where two digits are not enough.
    return f"\\x{code:02X}" if code < 128 else chr(code)
