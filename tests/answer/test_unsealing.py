"""Sealed items of a request are opened, and what does not open is told by its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ouzel.answer.unsealing import opened, unseal
from ouzel.core.errors import RequestError
from ouzel.core.items import Compaction, Item, Message, Reasoning, Text
from ouzel.core.request import Request
from ouzel.store.sealing import DAY, KeySealer

SEALER = KeySealer([bytes(32)])
HELLO = Message("msg_1", "user", (Text("hello"),))
THOUGHT = SEALER.seal("reasoning", "ann", "m", "It is 42.")
COMPACTED = SEALER.seal("compaction", "ann", "m", "They like tea.")


def asked(*items: Item) -> Request:
    return Request("responses", "o4-mini", items)


def test_both_kinds_are_opened_and_the_rest_is_left_alone():
    request = asked(
        Compaction("cmp_1", sealed=COMPACTED),
        HELLO,
        Reasoning("rs_1", summary=("Short.",), sealed=THOUGHT),
        Reasoning("rs_2", "in plain words"),
    )
    found = unseal(request, "ann", "m", SEALER)
    assert found == replace(
        request,
        input=(
            Compaction("cmp_1", "They like tea.", COMPACTED),
            HELLO,
            Reasoning("rs_1", "It is 42.", ("Short.",), sealed=THOUGHT),
            Reasoning("rs_2", "in plain words"),
        ),
    )


def test_what_is_sealed_counts_whatever_stands_beside_it():
    request = asked(HELLO, Reasoning("rs_1", "It is 43.", sealed=THOUGHT))
    assert unseal(request, "ann", "m", SEALER).input[1].text == "It is 42."


def test_a_request_without_sealed_items_needs_no_keys():
    request = asked(HELLO, Reasoning("rs_2", "in plain words"))
    assert unseal(request, "ann", "m", None) is request


@pytest.mark.parametrize(
    ("item", "owner", "model", "sealer"),
    [
        (Reasoning("rs_1", sealed=THOUGHT[:-1]), "ann", "m", SEALER),
        (Reasoning("rs_1", "It is 42.", sealed=THOUGHT[:-1]), "ann", "m", SEALER),
        (Reasoning("rs_1", sealed=COMPACTED), "ann", "m", SEALER),
        (Compaction("cmp_1", sealed=THOUGHT), "ann", "m", SEALER),
        (Reasoning("rs_1", sealed=THOUGHT), "bob", "m", SEALER),
        (Reasoning("rs_1", sealed=THOUGHT), "ann", "other", SEALER),
        (Reasoning("rs_1", sealed=THOUGHT), "ann", "m", KeySealer([bytes(range(32))])),
        (Reasoning("rs_1", sealed=THOUGHT), "ann", "m", None),
        (
            Reasoning(
                "rs_1",
                sealed=KeySealer([bytes(32)], 1, lambda: 0).seal("reasoning", "ann", "m", "x"),
            ),
            "ann",
            "m",
            KeySealer([bytes(32)], 1, lambda: 2 * DAY),
        ),
    ],
)
def test_what_does_not_open_is_told_with_its_place(item, owner, model, sealer):
    with pytest.raises(RequestError) as caught:
        unseal(asked(HELLO, HELLO, item), owner, model, sealer)
    assert caught.value.status == 400
    assert caught.value.param == "input[2].encrypted_content"
    assert caught.value.code == "invalid_encrypted_content"


def test_what_was_kept_is_opened_if_its_text_is_not_known():
    items = (
        Compaction("cmp_1", sealed=COMPACTED),
        Reasoning("rs_1", sealed=THOUGHT),
        Reasoning("rs_2", "known", sealed="sealed with a key that is gone"),
        HELLO,
    )
    found = opened(items, "conversation", "ann", "m", SEALER)
    assert [each.text for each in found] == ["They like tea.", "It is 42.", "known", "hello"]


def test_a_conversation_goes_on_without_thinking_but_not_without_its_beginning():
    old = Reasoning("rs_1", sealed=THOUGHT)
    other = KeySealer([bytes(range(32))])
    assert opened((old, HELLO), "conversation", "ann", "m", other) == (old, HELLO)
    with pytest.raises(RequestError) as caught:
        opened((Compaction("cmp_1", sealed=COMPACTED),), "conversation", "ann", "m", other)
    assert caught.value.param == "conversation"
