"""A schema with limits where it has none, so that what is generated under it comes to an end.

Weak models may go on with an array or a string for ever, as long as the grammar lets them. The
limits are tried only after that has happened: what is valid under them is valid for the schema.
Pure; it reads what `schemas_engine.for_engine` writes, nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

MOST_ITEMS: Final = 4
MOST_CHARACTERS: Final = 80

_SCALARS: Final = ("string", "number", "boolean", "null")
_SIMPLE: Final = {"type": _SCALARS, "maxLength": MOST_CHARACTERS}
_ANYTHING: Final = {
    "type": ("object", "array", *_SCALARS),
    "maxLength": MOST_CHARACTERS,
    "maxItems": MOST_ITEMS,
    "items": _SIMPLE,
    "additionalProperties": _SIMPLE,
}
_AS_THEY_ARE: Final = ("required", "x-guidance")
"""Keywords whose values are no schemas."""


def short(schema_text: str) -> str:
    """The same schema, its arrays and strings limited where they were not.

    Args:
        schema_text: as `for_engine` wrote it.
    """
    return msgspec.json.encode(_shortened(msgspec.json.decode(schema_text))).decode()


def _shortened(part: Any) -> Any:
    if isinstance(part, list):
        return [_shortened(each) for each in part]
    if part is True or part == {}:
        return _ANYTHING
    if not isinstance(part, dict) or "enum" in part:
        return part
    made = {name: _shortened(each) for name, each in part.items() if name not in _AS_THEY_ARE}
    made |= {name: part[name] for name in _AS_THEY_ARE if name in part}
    types = part.get("type", ())
    types = [types] if isinstance(types, str) else types
    if "array" in types and not part.keys() & {"maxItems", "prefixItems"}:
        made["maxItems"] = max(MOST_ITEMS, part.get("minItems", 0))
        made.setdefault("items", _SIMPLE)
    if "object" in types and not part.keys() & {"properties", "additionalProperties"}:
        made["additionalProperties"] = _SIMPLE
    if "string" in types and not part.keys() & {"maxLength", "pattern", "format"}:
        made["maxLength"] = max(MOST_CHARACTERS, part.get("minLength", 0))
    return made
