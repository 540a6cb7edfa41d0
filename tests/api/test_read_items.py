"""Input items: messages in all their shapes, thinking given back, and what is wrong with others."""

from __future__ import annotations

import typing
from typing import Any

import openresponses_types.types as open_responses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseOutputMessage,
    ResponseReasoningItem,
    response_input_item_param,
)

from ouzel.api import read_items, write_items
from ouzel.api.read_items import read_input
from ouzel.core.errors import RequestError
from ouzel.core.items import (
    Compaction,
    Image,
    Item,
    Message,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    new_id,
)

PATH = ("input",)


def one(item: dict[str, Any]) -> Any:
    (read,) = read_input([item], PATH)
    return read


def test_a_string_is_said_by_the_user() -> None:
    (message,) = read_input("Hi", PATH)
    assert message == Message(message.id, "user", (Text("Hi"),))
    assert message.id.startswith("msg_")


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer"])
@pytest.mark.parametrize("kind", [{}, {"type": "message"}, {"type": None}])
def test_short_messages(role: Any, kind: dict[str, Any]) -> None:
    message = one({"role": role, "content": "Hi", **kind})
    assert message == Message(message.id, role, (Text("Hi"),))


def test_messages_made_of_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    for role in ("user", "system", "developer", "assistant"):
        assert one({"role": role, "content": parts}).parts == (Text("a"), Text("b"))
    said = one(
        {
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a"},
                {"type": "refusal", "refusal": "no"},
            ],
        }
    )
    assert said.parts == (Text("a"), Refusal("no"))


def test_an_id_and_a_status_that_were_given_stay() -> None:
    message = one({"role": "user", "content": "a", "id": "msg_7", "status": "incomplete"})
    assert (message.id, message.status) == ("msg_7", "incomplete")


def test_an_answer_cut_short_may_have_no_part() -> None:
    assert one({"role": "assistant", "content": []}).parts == ()


def test_thinking_is_given_back() -> None:
    read = one(
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [
                {"type": "reasoning_text", "text": "a"},
                {"type": "reasoning_text", "text": "b"},
            ],
            "status": "completed",
            "encrypted_content": None,
        }
    )
    assert read == Reasoning("rs_1", "a\n\nb", ("s",))
    bare = one({"type": "reasoning", "summary": []})
    assert bare == Reasoning(bare.id)
    assert bare.id.startswith("rs_")


@pytest.mark.parametrize(
    ("sent", "image"),
    [
        ({"image_url": "https://a/b.png"}, Image("https://a/b.png")),
        ({"image_url": "data:,", "detail": "low", "file_id": None}, Image("data:,", detail="low")),
        ({"file_id": "file_1", "detail": "high"}, Image(file_id="file_1", detail="high")),
    ],
)
def test_pictures_are_read(sent: dict[str, Any], image: Image) -> None:
    parts = [{"type": "input_image", **sent}, {"type": "input_text", "text": "a"}]
    assert one({"role": "user", "content": parts}).parts == (image, Text("a"))


@pytest.mark.parametrize("phase", ["commentary", "final_answer", None])
def test_the_phase_of_an_answer_stays(phase: Any) -> None:
    assert one({"role": "assistant", "content": "a", "phase": phase}).phase == phase


def test_what_is_sealed_is_read_as_it_is() -> None:
    """Who may open it is decided elsewhere: nothing of it is looked at here."""
    thought = one({"type": "reasoning", "summary": [], "encrypted_content": "a+/= é"})
    assert thought == Reasoning(thought.id, sealed="a+/= é")
    sent = {"type": "compaction", "encrypted_content": "b", "id": "cmp_1", "created_by": "me"}
    assert one(sent) == Compaction("cmp_1", sealed="b")
    bare = one({"type": "compaction", "encrypted_content": "b"})
    assert bare.id.startswith("cmp_")


def test_answers_dumped_by_the_sdk_are_read() -> None:
    """`model_dump()` writes null for what is not set; those who keep history send it as it is."""
    message = ResponseOutputMessage.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        }
    )
    thought = ResponseReasoningItem.model_validate(
        {"id": "rs_1", "type": "reasoning", "summary": []}
    )
    read = read_input([thought.model_dump(), message.model_dump()], PATH)
    assert read == (Reasoning("rs_1"), Message("msg_1", "assistant", (Text("Hi"),)))
    assert read == read_input([thought.to_dict(), message.to_dict()], PATH)


TEXTS = st.text(max_size=20)
STATUSES = st.sampled_from(["in_progress", "completed", "incomplete"])
TOKENS = st.builds(
    TokenLogprob,
    TEXTS,
    st.floats(-100, 0),
    st.lists(st.integers(0, 255), max_size=4).map(tuple),
)
TOKENS_WITH_TOP = st.builds(
    TokenLogprob,
    TEXTS,
    st.floats(-100, 0),
    st.lists(st.integers(0, 255), max_size=4).map(tuple),
    st.lists(TOKENS, max_size=3).map(tuple),
)
OUTPUT_PARTS = st.lists(
    st.builds(Text, TEXTS, st.lists(TOKENS_WITH_TOP, max_size=3).map(tuple))
    | st.builds(Refusal, TEXTS),
    max_size=3,
).map(tuple)
DETAILS = st.sampled_from(["auto", "low", "high"])
IMAGES = st.builds(Image, st.just("data:,"), detail=DETAILS) | st.builds(
    Image, file_id=st.just("file_1"), detail=DETAILS
)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(
        Message,
        st.builds(new_id, st.just("msg")),
        st.just("assistant"),
        OUTPUT_PARTS,
        STATUSES,
        phase=st.sampled_from([None, "commentary", "final_answer"]),
    ),
    st.builds(
        Message,
        st.builds(new_id, st.just("msg")),
        st.sampled_from(["user", "system", "developer"]),
        st.lists(st.builds(Text, TEXTS), max_size=3).map(tuple),
        STATUSES,
    ),
    st.builds(
        Reasoning,
        st.builds(new_id, st.just("rs")),
        TEXTS,
        st.lists(TEXTS, max_size=3).map(tuple),
        STATUSES,
        st.just("") | st.text("abc+/=", min_size=1, max_size=20),
    ),
    st.builds(
        Message,
        st.builds(new_id, st.just("msg")),
        st.just("user"),
        st.lists(st.builds(Text, TEXTS) | IMAGES, max_size=3).map(tuple),
    ),
    st.builds(
        Compaction,
        st.builds(new_id, st.just("cmp")),
        sealed=st.text("abc+/=", min_size=1, max_size=20),
    ),
)


@given(st.lists(ITEMS, min_size=1, max_size=4).map(tuple))
def test_what_the_server_writes_reads_back_as_it_was(items: tuple[Item, ...]) -> None:
    written = [write_items.item(item, (write_items.SEALED,)) for item in items]
    assert read_input(written, PATH) == items


def test_every_kind_of_item_that_the_sdk_sends_is_known() -> None:
    union = typing.get_args(response_input_item_param.ResponseInputItemParam)
    for each in union:
        hint = str(typing.get_type_hints(each, include_extras=True)["type"])
        kind = hint.split("Literal['")[1].split("'")[0]
        with pytest.raises(RequestError) as caught:
            read_input([{"type": kind}], PATH)
        # Those that are read lack something; the others are named as not supported.
        assert caught.value.code in ("missing_required_parameter", "unsupported_parameter"), kind


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (open_responses.UserMessageItemParam, [{"type": "input_text", "text": "a"}]),
        (open_responses.SystemMessageItemParam, "a"),
        (open_responses.DeveloperMessageItemParam, [{"type": "input_text", "text": "a"}]),
        (open_responses.AssistantMessageItemParam, [{"type": "output_text", "text": "a"}]),
    ],
)
def test_messages_dumped_by_open_responses_are_read(model: Any, content: Any) -> None:
    role = model.__name__.removesuffix("MessageItemParam").lower()
    sent = model.model_validate({"type": "message", "role": role, "content": content})
    read = one(sent.model_dump(mode="json"))
    assert (read.role, read.parts) == (role, (Text("a"),))


LATER, UNKNOWN, VALUE, TYPE, MISSING, TOGETHER = (
    "unsupported_parameter",
    "unknown_parameter",
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "invalid_parameter_combination",
)


def user(value: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": "a"}, value]}


def answer(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "output_text", "text": "a", **more}]}


def thought(**more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **more}


def token(**more: Any) -> dict[str, Any]:
    return answer(logprobs=[{"token": "a", "logprob": -0.5, **more}])


BAD: list[tuple[Any, str, str]] = [
    ("Hi", "", TYPE),
    (None, "", TYPE),
    ([], "", TYPE),
    ({}, ".role", MISSING),
    ({"type": "message"}, ".role", MISSING),
    ({"type": 1}, ".type", TYPE),
    ({"type": "telepathy"}, ".type", VALUE),
    ({"type": "item_reference", "id": "msg_1"}, ".type", LATER),
    ({"id": "msg_1"}, ".type", LATER),
    ({"type": "web_search_call", "id": "ws_1"}, ".type", LATER),
    ({"type": "compaction_trigger"}, ".type", LATER),
    # messages
    ({"role": "tool", "content": "a"}, ".role", VALUE),
    ({"role": 1, "content": "a"}, ".role", TYPE),
    ({"role": "user"}, ".content", MISSING),
    ({"role": "user", "content": None}, ".content", TYPE),
    ({"role": "user", "content": 1}, ".content", TYPE),
    ({"role": "user", "content": "a", "name": "b"}, ".name", UNKNOWN),
    ({"role": "user", "content": "a", "id": 1}, ".id", TYPE),
    ({"role": "user", "content": "a", "id": ""}, ".id", "empty_string"),
    ({"role": "user", "content": "a", "id": "m\0"}, ".id", VALUE),
    ({"role": "user", "content": "a", "id": "m" * 257}, ".id", "string_above_max_length"),
    ({"role": "user", "content": "a", "status": "done"}, ".status", VALUE),
    ({"role": "user", "content": "a", "phase": "commentary"}, ".phase", UNKNOWN),
    ({"role": "assistant", "content": "a", "phase": "first"}, ".phase", VALUE),
    # parts
    (user("a"), ".content[1]", TYPE),
    (user({}), ".content[1].type", MISSING),
    (user({"type": "text", "text": "a"}), ".content[1].type", VALUE),
    (user({"type": "output_text", "text": "a"}), ".content[1].type", VALUE),
    (user({"type": "input_text"}), ".content[1].text", MISSING),
    (user({"type": "input_text", "text": 1}), ".content[1].text", TYPE),
    (user({"type": "input_text", "text": "a", "bar": 1}), ".content[1].bar", UNKNOWN),
    (user({"type": "input_image"}), ".content[1].image_url", TOGETHER),
    (
        user({"type": "input_image", "image_url": "x", "file_id": "f"}),
        ".content[1].image_url",
        TOGETHER,
    ),
    (user({"type": "input_image", "image_url": ""}), ".content[1].image_url", "empty_string"),
    (user({"type": "input_image", "image_url": {"url": "x"}}), ".content[1].image_url", TYPE),
    (user({"type": "input_image", "image_url": "x\0"}), ".content[1].image_url", VALUE),
    (user({"type": "input_image", "file_id": 1}), ".content[1].file_id", TYPE),
    (
        user({"type": "input_image", "image_url": "x", "detail": "best"}),
        ".content[1].detail",
        VALUE,
    ),
    (
        {"role": "system", "content": [{"type": "input_image", "image_url": "x"}]},
        ".content[0].type",
        LATER,
    ),
    (user({"type": "input_file"}), ".content[1].file_id", MISSING),
    (user({"type": "input_audio"}), ".content[1].type", LATER),
    (user({"type": "refusal", "refusal": "a"}), ".content[1].type", VALUE),
    (answer(text=None), ".content[0].text", TYPE),
    (answer(foo=1), ".content[0].foo", UNKNOWN),
    (answer(annotations=[{"type": "quote"}]), ".content[0].annotations[0].type", VALUE),
    (answer(logprobs={}), ".content[0].logprobs", TYPE),
    (answer(logprobs=[{}]), ".content[0].logprobs[0].token", MISSING),
    (token(logprob="low"), ".content[0].logprobs[0].logprob", TYPE),
    (token(logprob=10**300), ".content[0].logprobs[0].logprob", "decimal_above_max_value"),
    (token(bytes=[256]), ".content[0].logprobs[0].bytes[0]", "integer_above_max_value"),
    (token(top_logprobs=[{}]), ".content[0].logprobs[0].top_logprobs[0].token", MISSING),
    (
        token(top_logprobs=[{"token": "a", "logprob": 0, "top_logprobs": []}]),
        ".content[0].logprobs[0].top_logprobs[0].top_logprobs",
        UNKNOWN,
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": 1}]},
        ".content[0].refusal",
        TYPE,
    ),
    # thinking
    ({"type": "reasoning", "id": "rs_1"}, ".summary", MISSING),
    (thought(summary=None), ".summary", TYPE),
    (thought(summary="s"), ".summary", TYPE),
    (thought(summary=["s"]), ".summary[0]", TYPE),
    (thought(summary=[{"type": "text", "text": "s"}]), ".summary[0].type", VALUE),
    (thought(summary=[{"type": "summary_text"}]), ".summary[0].text", MISSING),
    (thought(content=[{"type": "output_text", "text": "s"}]), ".content[0].type", VALUE),
    (thought(encrypted_content=1), ".encrypted_content", TYPE),
    (thought(encrypted_content="a\0"), ".encrypted_content", VALUE),
    # compactions
    ({"type": "compaction"}, ".encrypted_content", MISSING),
    ({"type": "compaction", "encrypted_content": None}, ".encrypted_content", TYPE),
    ({"type": "compaction", "encrypted_content": "x", "id": 1}, ".id", TYPE),
    ({"type": "compaction", "encrypted_content": "x", "text": "y"}, ".text", UNKNOWN),
    (thought(status="thinking"), ".status", VALUE),
    (thought(role="assistant"), ".role", UNKNOWN),
]


@pytest.mark.parametrize(("item", "where", "code"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(item: Any, where: str, code: str) -> None:
    good = {"role": "user", "content": "a"}
    with pytest.raises(RequestError) as caught:
        read_input([good, item], PATH)
    assert (caught.value.param, caught.value.code) == (f"input[1]{where}", code)


def test_the_same_id_twice_is_refused() -> None:
    items = [{"role": "user", "content": "a", "id": id_} for id_ in ("a", "b", "c", "b", "a")]
    with pytest.raises(RequestError, match="Duplicate item found with id b") as caught:
        read_input(items, PATH)
    assert (caught.value.param, caught.value.code) == ("input[3].id", "invalid_value")


def test_too_many_items_are_refused_before_they_are_read() -> None:
    with pytest.raises(RequestError) as caught:
        read_input([None] * (read_items.MOST_ITEMS + 1), PATH)
    assert caught.value.code == "array_above_max_length"
