"""Reads the body of POST /v1/responses/compact. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ouzel.answer import NOW
from ouzel.api.read_common import COMMON, COMMON_LATER, ID, labels, service_tier
from ouzel.api.read_items import read_input
from ouzel.api.reading import Reader, not_yet, record, text
from ouzel.core.errors import RequestError
from ouzel.core.request import Request

_ROWS: Final[Mapping[str, Reader]] = {
    "model": COMMON["model"],
    "input": read_input,
    "previous_response_id": ID,
    "instructions": text,
    "prompt_cache_key": COMMON["prompt_cache_key"],
    "prompt_cache_options": COMMON_LATER["prompt_cache_options"],
    "prompt_cache_retention": COMMON_LATER["prompt_cache_retention"],
    "service_tier": service_tier("fast", "flex", "priority"),
    "image": not_yet(),
}

_BODY = record(_ROWS, required=("model",))


def read(body: dict[str, Any], *, answer_within: float | None = None) -> Request:
    """The conversation that is to be compacted, as a request that is stored nowhere.

    Args:
        answer_within: seconds that the client's header gives.

    Raises:
        RequestError: with `param` and `code`.
    """
    given = _BODY(body, ())
    previous_id = given.get("previous_response_id")
    if not given.get("input") and previous_id is None:
        raise RequestError(
            "One of 'input' or 'previous_response_id' must be provided.",
            param="input",
            code="missing_required_parameter",
        )
    return Request(
        protocol="responses",
        model=given["model"],
        input=given.get("input", ()),
        instructions=given.get("instructions"),
        previous_id=previous_id,
        labels=labels(given),
        store=False,
        answer_within=answer_within,
        compact_at=NOW,
    )
