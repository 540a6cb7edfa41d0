"""Reads the request headers that change an answer. Pure; which endpoints have them others say."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ouzel.api.read_errors import literal
from ouzel.core.errors import RequestError

ANSWER_WITHIN = "x-answer-within"
"""Seconds in which the answer should be whole; 0 sets no limit."""

MOST_SECONDS = 3600.0

_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?")


def answer_within(values: Sequence[str]) -> float | None:
    """The seconds that a client gives its answer.

    Args:
        values: of the header, one for each time that it was sent.

    Raises:
        RequestError: it came twice, or is not a number from 0 to MOST_SECONDS.
    """
    if not values:
        return None
    text = values[0].strip()
    if len(values) > 1 or not _SECONDS.fullmatch(text) or float(text) > MOST_SECONDS:
        raise RequestError(
            f"Invalid header '{ANSWER_WITHIN}': expected it once, as seconds from 0 (no limit) to "
            f"{MOST_SECONDS:.0f}, but got {literal(', '.join(values))}.",
            param=ANSWER_WITHIN,
            code="invalid_header",
        )
    return float(text)
