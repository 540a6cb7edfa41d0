"""Is this JSON valid for that schema? Is this answer whole? The bench's own eyes.

Pure. It shares nothing with the server's own checks but the library that knows JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

_FENCE = re.compile(r"^\s*```", re.MULTILINE)
_SENTENCE_ENDS = tuple(".!?…。")
_CLOSERS = "\"'\u201d\u2019\u00bb)]}*_`~ \n"
_ITEM = re.compile(r"\s*([-*+•]|\d+[.)]|\||>)\s*\S")
_MATHS = (r"\]", r"\)", "$$", "$")
_WHOLE_WITHOUT_END = 6
"""Words that are an answer of their own without a full stop: a name, a number, a title."""


def json_fault(text: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a text that should be one JSON value of this schema, or None."""
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except ValueError as error:
        return f"no JSON: {error}"
    # jsonschema_rs takes the schema's own draft, 2020-12 without one, and minds `format`.
    validator = jsonschema_rs.validator_for(dict(schema), validate_formats=True)
    for error in validator.iter_errors(value):
        place = "/".join(map(str, error.instance_path))
        return f"not valid: {error.message} at {place or 'the root'}"
    return None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_SIGNED = re.compile(
    r"^(?:sincerely|yours|(?:best|kind|warm)\b|regards|cheers|thanks|thank you)[^\n]{0,30},\s*\n"
    r"\s*[^\n]{1,40}\Z",
    re.IGNORECASE | re.MULTILINE,
)
"""The end of a letter: closing words on a line of their own, and a name as the last line."""


def cut_off(text: str) -> str | None:
    """Why an answer looks as if its end were missing, or None if it looks whole.

    It is whole when every code fence is closed and it ends as a sentence, a formula, a code block,
    an item of a list or a row of a table does, or is only a few words long.
    Items count as whole since lists are often written without full stops; a letter ends with a name
    below its closing words.
    """
    said = text.rstrip()
    if not said:
        return "it is empty"
    if len(_FENCE.findall(said)) % 2:
        return "a code fence is open"
    last = said.splitlines()[-1]
    if last.strip().startswith("```") or said.endswith(_MATHS):
        return None
    if said.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) or not said.rstrip(_CLOSERS):
        return None
    if _SIGNED.search(said):
        return None
    if _ITEM.match(last) or len(said.split()) <= _WHOLE_WITHOUT_END:
        return None
    return f"it ends with {said[-30:]!r}"
