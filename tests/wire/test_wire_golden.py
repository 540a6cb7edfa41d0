"""The wire, byte for byte: transcripts of fixed runs, each of which also passes the checks."""

from __future__ import annotations

import pytest

from wire.checks import (
    check_chat,
    check_chat_stream,
    check_input_items,
    check_response,
    check_response_stream,
)
from wire.wire_scenarios import GOLDEN, SCENARIOS

_CHECKS = {
    ("responses", ".sse"): check_response_stream,
    ("responses", ".json"): check_response,
    ("chat", ".sse"): check_chat_stream,
    ("chat", ".json"): check_chat,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_wire_is_what_it_was(name: str) -> None:
    assert SCENARIOS[name]() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", SCENARIOS)
def test_golden_transcripts_are_valid(name: str) -> None:
    path = GOLDEN / name
    if name == "responses-input-items.json":
        check_input_items(path.read_bytes())
    else:
        _CHECKS[name.partition("-")[0], path.suffix](path.read_bytes())


def test_every_golden_file_has_a_scenario() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(SCENARIOS)
