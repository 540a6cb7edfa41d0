"""A client's JSON Schema: what a model wrote is checked against it.

Pure: no clock, no network, no file. A schema is hostile input like any other. Refused when it is
read: references that leave the schema, references that lead round in a circle, and what would take
too many steps. It knows neither tools nor engines; `schemas_engine.py` writes the version that an
engine is given, `schemas_repair.py` mends what a model wrote without one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from ouzel.core.errors import RequestError
from ouzel.loop.schemas_sentences import sentence
from ouzel.loop.schemas_work import MAX_WORK, TooMuchWork, Unsupported, Worker, depth

MAX_SCHEMA_CHARS = 200_000
MAX_TEXT_CHARS = 1_000_000
LARGE = 20_000
"""Characters from which a schema counts as large: one of 200,000 holds 6 MB, so few are kept."""

MAX_DEPTH = 100
"""Arrays and objects inside each other, in schemas and in what is checked."""

# Errors of nested unions hold all errors of their branches, copied at each level: telling them
# takes a thousand times longer than finding that there is one.
_MAX_EXPLAINED = 3_000

# Far more than an honest pattern needs; a dishonest one stops here within milliseconds.
_PATTERNS = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=20_000, size_limit=1_000_000, dfa_size_limit=1_000_000
)
_DRAFTS = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}


class Schema:
    """A JSON Schema that was read and can be checked against.

    Args:
        text: the schema as JSON text; an object or a boolean, of draft 4 to 2020-12 as its
            `$schema` says, 2020-12 where it says nothing.

    Raises:
        RequestError: `invalid_json_schema`, when the text is no JSON or no JSON Schema, uses a
            keyword that is not supported ($dynamicRef, a $ref to somewhere else), or is too large.
    """

    __slots__ = ("_validator", "_worker", "text", "value")

    def __init__(self, text: str) -> None:
        self.text = text
        self.value: dict[str, Any] | bool = _read(text)
        self._worker = Worker(self.value)
        try:
            self._worker.survey()
        except (Unsupported, TooMuchWork) as error:
            raise _invalid(str(error)) from None
        self._validator = _compile(self.value)

    def check(self, text: str) -> str | None:
        """What is wrong with a JSON text, in one sentence that a model can act on.

        Args:
            text: whatever a model wrote; JSON is read strictly (no NaN, of equal keys the last
                counts).

        Returns:
            None when the text is JSON that is valid for this schema. Nothing is raised.
        """
        if len(text) > MAX_TEXT_CHARS:
            return f"The JSON is longer than {MAX_TEXT_CHARS} characters."
        try:
            value = msgspec.json.decode(text)
        except RecursionError:
            return "The JSON is nested too deeply."
        except (msgspec.DecodeError, UnicodeError) as error:
            return f"The text is not valid JSON: {_short(error)}."
        return self.check_value(value)

    def check_value(self, value: object) -> str | None:
        """Like `check`, for a JSON value that was decoded already."""
        if depth(value, MAX_DEPTH) > MAX_DEPTH:
            return f"The JSON is nested more than {MAX_DEPTH} levels deep."
        work = self._worker.work(value)
        if work > MAX_WORK:
            return "The JSON is too large and too deeply nested to be checked; make it simpler."
        try:
            if self._validator.is_valid(value):
                return None
            if work > _MAX_EXPLAINED:
                return "The JSON does not fit its schema; make it simpler."
            return sentence(next(iter(self._validator.iter_errors(value))))
        except ValueError as failure:
            return f"The JSON cannot be checked: {str(failure).splitlines()[0][:200]}."


def schema(text: str) -> Schema:
    """The schema of this text, from a bounded cache. Raises as `Schema` does."""
    return _large(text) if len(text) > LARGE else _usual(text)


_usual = lru_cache(maxsize=256)(Schema)
_large = lru_cache(maxsize=16)(Schema)


def _invalid(reason: str) -> RequestError:
    return RequestError(f"The JSON Schema cannot be used: {reason}", code="invalid_json_schema")


def _read(text: str) -> dict[str, Any] | bool:
    if len(text) > MAX_SCHEMA_CHARS:
        raise _invalid(f"it is longer than {MAX_SCHEMA_CHARS} characters.")
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise _invalid(f"it is nested more than {MAX_DEPTH} levels deep.") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _invalid(f"it is not valid JSON: {error}.") from None
    if not isinstance(value, dict | bool):
        raise _invalid("it has to be a JSON object.")
    if depth(value, MAX_DEPTH) > MAX_DEPTH:
        raise _invalid(f"it is nested more than {MAX_DEPTH} levels deep.")
    return value


def _compile(value: dict[str, Any] | bool) -> Any:
    drafts: list[Any] = [jsonschema_rs.Draft202012Validator, jsonschema_rs.Draft7Validator]
    if isinstance(value, dict) and "$schema" in value:
        named = value["$schema"]
        draft = _DRAFTS.get(named.rstrip("#")) if isinstance(named, str) else None
        if draft is None:
            raise _invalid(f"its `$schema` {str(named)[:100]!r} is not a known draft.")
        drafts = [draft]
    failures: list[str] = []
    # Without `$schema` a list under `items` is draft 7; many libraries still write it.
    for draft in drafts:
        try:
            return draft(value, offline=True, pattern_options=_PATTERNS, validate_formats=True)
        except jsonschema_rs.ValidationError as error:
            failures.append(_reason(error))
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            failures.append(str(error).splitlines()[0][:300])
    raise _invalid(failures[0])


def _short(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it holds half of a surrogate pair"
    return str(error).removeprefix("JSON is malformed: ")


def _reason(error: jsonschema_rs.ValidationError) -> str:
    where = "/".join(str(part) for part in error.instance_path)
    return f"at `#/{where}`: {error.message[:200]}."
