"""Conversations and their items over HTTP, with the official SDK and raw."""

from __future__ import annotations

import base64
import json

import pytest
from files_kit import real_files
from openai import BadRequestError, NotFoundError

from ouzel.api import endpoints_conversations
from wire import checks, state_checks

IMAGE = "data:image/png;base64,AAAA"


def said(text: str, **more) -> dict:
    return {"type": "message", "role": "user", "content": text, **more}


async def send(http, server, method: str, path: str, body=None) -> tuple[int, bytes]:
    async with http.request(method, f"{server.base_url}{path}", json=body) as reply:
        return reply.status, await reply.read()


async def begin(http, server, **body) -> str:
    status, made = await send(http, server, "POST", "/conversations", body)
    assert status == 200, made
    return state_checks.check_conversation(made)["id"]


async def refused(http, server, method: str, path: str, body=None) -> tuple[int, str, str]:
    status, answer = await send(http, server, method, path, body)
    error = checks.check_error(answer)["error"]
    return status, error["param"], error["code"]


async def test_the_official_sdk_creates_changes_and_deletes(serve, sdk):
    client = sdk(await serve())
    made = await client.conversations.create(metadata={"topic": "demo"}, items=[said("Hello!")])
    assert made.metadata == {"topic": "demo"}
    assert await client.conversations.retrieve(made.id) == made
    changed = await client.conversations.update(made.id, metadata={"topic": "x", "by": "ann"})
    assert changed.metadata == {"topic": "x", "by": "ann"}
    assert (changed.id, changed.created_at) == (made.id, made.created_at)
    assert await client.conversations.retrieve(made.id) == changed
    cleared = await client.conversations.update(made.id, metadata=None)
    assert cleared.metadata == {}
    deleted = await client.conversations.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "conversation.deleted")
    for call in (client.conversations.retrieve, client.conversations.delete):
        with pytest.raises(NotFoundError):
            await call(made.id)
    with pytest.raises(NotFoundError):
        await client.conversations.items.list(made.id)


async def test_a_conversation_needs_nothing_to_begin_with(serve, sdk):
    client = sdk(await serve())
    made = await client.conversations.create()
    assert made.metadata == {}
    assert (await client.conversations.items.list(made.id)).data == []
    empty = await client.conversations.create(metadata=None, items=None)
    assert empty.id != made.id


async def test_the_official_sdk_adds_lists_and_removes_items(serve, sdk):
    client = sdk(await serve())
    made = await client.conversations.create(items=[said("one"), said("two")])
    items = client.conversations.items
    added = await items.create(
        made.id,
        items=[
            said("three", id="msg_three"),
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "7"},
        ],
    )
    assert [item.type for item in added.data] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert (added.first_id, added.last_id) == ("msg_three", added.data[-1].id)
    assert added.has_more is False
    newest = [item async for item in items.list(made.id, limit=2)]
    oldest = [item async for item in items.list(made.id, limit=2, order="asc")]
    assert [item.id for item in newest] == [item.id for item in reversed(oldest)]
    texts = [item.content[0].text for item in oldest[:3]]
    assert texts == ["one", "two", "three"]
    rest = await items.list(made.id, after="msg_three", order="asc")
    assert [item.id for item in rest.data] == [item.id for item in oldest[3:]]

    found = await items.retrieve("msg_three", conversation_id=made.id)
    assert found == oldest[2]
    left = await items.delete("msg_three", conversation_id=made.id)
    assert left == made
    with pytest.raises(NotFoundError):
        await items.retrieve("msg_three", conversation_id=made.id)
    with pytest.raises(NotFoundError):
        await items.delete("msg_three", conversation_id=made.id)
    again = [item.id async for item in items.list(made.id, order="asc")]
    assert again == [item.id for item in oldest if item.id != "msg_three"]


async def test_every_kind_of_item_is_true_to_the_wire(serve, http):
    server = await serve()
    conversation = await begin(http, server)
    sent = [
        said("plain"),
        {"role": "developer", "content": [{"type": "input_text", "text": "in a part"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                {"type": "input_image", "file_id": "file_1"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_said",
            "status": "completed",
            "phase": "final_answer",
            "content": [
                {
                    "type": "output_text",
                    "text": "yes",
                    "annotations": [],
                    "logprobs": [
                        {"token": "yes", "bytes": [121], "logprob": -0.5, "top_logprobs": []}
                    ],
                },
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "sealed by whoever"},
        {"type": "compaction", "encrypted_content": "sealed, too"},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "8"},
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "server_label": "notes",
            "name": "find",
            "arguments": "{}",
            "output": "here",
        },
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "container_id": "cntr_1",
            "code": "1",
            "outputs": [{"type": "logs", "logs": "1"}],
            "status": "completed",
        },
    ]
    path = f"/conversations/{conversation}/items"
    status, added = await send(http, server, "POST", path, {"items": sent})
    assert status == 200, added
    page = state_checks.check_items(added)
    assert [item["type"] for item in page["data"]] == [item.get("type", "message") for item in sent]
    status, listed = await send(http, server, "GET", f"{path}?order=asc")
    assert state_checks.check_items(listed) == page
    for item in page["data"]:
        status, found = await send(http, server, "GET", f"{path}/{item['id']}")
        assert (status, state_checks.check_item(found)) == (200, item)
    pictures = page["data"][2]["content"][1:]
    assert pictures == [
        {"type": "input_image", "detail": "low", "image_url": IMAGE},
        {"type": "input_image", "detail": "auto", "image_url": None, "file_id": "file_1"},
    ]
    assert page["data"][3]["phase"] == "final_answer"


@pytest.mark.parametrize(
    ("name", "item", "shown"),
    [
        (
            "reasoning.encrypted_content",
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
            lambda item: item.get("encrypted_content"),
        ),
        (
            "code_interpreter_call.outputs",
            {
                "type": "code_interpreter_call",
                "id": "ci_1",
                "container_id": "cntr_1",
                "code": "1",
                "outputs": [{"type": "logs", "logs": "1"}],
                "status": "completed",
            },
            lambda item: item["outputs"],
        ),
    ],
)
async def test_include_shows_what_is_left_out_otherwise(serve, http, name, item, shown):
    server = await serve()
    conversation = await begin(http, server)
    path = f"/conversations/{conversation}/items"
    for query, there in (("", False), (f"?include={name}", True), (f"?include[]={name}", True)):
        _, added = await send(http, server, "POST", path + query, {"items": [item]})
        _, listed = await send(http, server, "GET", path + query)
        _, found = await send(http, server, "GET", f"{path}/{item['id']}{query}")
        pages = [state_checks.check_items(page)["data"][0] for page in (added, listed)]
        for each in (*pages, state_checks.check_item(found)):
            assert (shown(each) is not None) == there
        await send(http, server, "DELETE", f"{path}/{item['id']}")


async def test_items_whose_ids_are_there_already_are_refused(serve, http):
    server = await serve()
    conversation = await begin(http, server, items=[said("one", id="msg_1")])
    path = f"/conversations/{conversation}/items"
    body = {"items": [said("new", id="msg_2"), said("old", id="msg_1")]}
    assert (await refused(http, server, "POST", path, body))[:2] == (400, "items")
    twice = {"items": [said("a", id="msg_3"), said("b", id="msg_3")]}
    refusal = await refused(http, server, "POST", path, twice)
    assert refusal == (400, "items[1].id", "invalid_value")
    _, page = await send(http, server, "GET", path)
    assert [item["id"] for item in state_checks.check_items(page)["data"]] == ["msg_1"]


@pytest.mark.parametrize(
    "item_id", ["msg/with/slashes", "with space", "ünïcode 💩", "%41", "a?b#c", "a..", "x" * 256]
)
async def test_an_item_is_found_by_any_id_that_a_client_may_choose(serve, sdk, item_id):
    client = sdk(await serve())
    made = await client.conversations.create(items=[said("one", id=item_id), said("two")])
    items = client.conversations.items
    assert (await items.retrieve(item_id, conversation_id=made.id)).id == item_id
    page = await items.list(made.id, after=item_id, order="asc")
    assert [item.content[0].text for item in page.data] == ["two"]
    await items.delete(item_id, conversation_id=made.id)
    assert len((await items.list(made.id)).data) == 1


CREATE = [
    ({"items": [said("a")] * 21}, "items", "array_above_max_length"),
    ({"items": "hello"}, "items", "invalid_type"),
    ({"items": [{"role": "user"}]}, "items[0].content", "missing_required_parameter"),
    ({"items": [{"id": "msg_1"}]}, "items[0].type", "unsupported_parameter"),
    ({"items": [said("a", id="a\0b")]}, "items[0].id", "invalid_value"),
    ({"items": [said("a", id="x" * 257)]}, "items[0].id", "string_above_max_length"),
    ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ({"metadata": {f"k{n}": "" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
    ({"title": "x"}, "title", "unknown_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), CREATE, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_in_a_body_is_named(serve, http, body, param, code):
    server = await serve()
    assert await refused(http, server, "POST", "/conversations", body) == (400, param, code)
    conversation = await begin(http, server)
    path = f"/conversations/{conversation}" + ("/items" if "items" in body else "")
    assert await refused(http, server, "POST", path, body) == (400, param, code)


@pytest.mark.parametrize(
    ("method", "path", "body", "param", "code"),
    [
        ("POST", "", {}, "metadata", "missing_required_parameter"),
        ("POST", "", {"items": []}, "items", "unknown_parameter"),
        ("POST", "/items", {}, "items", "missing_required_parameter"),
        ("POST", "/items", {"items": None}, "items", "invalid_type"),
        ("POST", "/items?limit=3", {"items": []}, "limit", "unknown_parameter"),
        ("POST", "/items?include=x", {"items": []}, "include[0]", "invalid_value"),
        ("POST", "?include=x", {"metadata": {}}, "include", "unknown_parameter"),
        ("GET", "?x=1", None, "x", "unknown_parameter"),
        ("DELETE", "?x=1", None, "x", "unknown_parameter"),
        ("DELETE", "", {"x": 1}, "x", "unknown_parameter"),
        ("GET", "/items?limit=0", None, "limit", "invalid_value"),
        ("GET", "/items?limit=101", None, "limit", "invalid_value"),
        ("GET", "/items?order=up", None, "order", "invalid_value"),
        ("GET", "/items?after=msg_0", None, "after", "invalid_value"),
        ("GET", "/items?after=%00", None, "after", "invalid_value"),
        ("GET", "/items?after=" + "x" * 300, None, "after", "invalid_value"),
        ("GET", "/items?after=a&after=b", None, "after", "invalid_value"),
        ("GET", "/items?before=a", None, "before", "unknown_parameter"),
        (
            "GET",
            "/items?include=file_search_call.results",
            None,
            "include[0]",
            "unsupported_parameter",
        ),
        ("GET", "/items/msg_1?limit=1", None, "limit", "unknown_parameter"),
        ("DELETE", "/items/msg_1?include=x", None, "include", "unknown_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_elsewhere_is_named(serve, http, method, path, body, param, code):
    server = await serve()
    conversation = await begin(http, server, items=[said("one", id="msg_1")])
    where = f"/conversations/{conversation}{path}"
    assert await refused(http, server, method, where, body) == (400, param, code)


ROUTES = [
    ("GET", "", None),
    ("POST", "", {"metadata": {}}),
    ("DELETE", "", None),
    ("GET", "/items", None),
    ("POST", "/items", {"items": [said("a")]}),
    ("GET", "/items/msg_1", None),
    ("DELETE", "/items/msg_1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_a_foreign_conversation_is_as_unknown_as_any(serve, http, method, path, body):
    server = await serve()
    foreign = await server.store.conversations.create("somebody", {}, ())
    answers = {}
    for asked in (foreign.id, "conv_" + "0" * 48):
        status, answer = await send(http, server, method, f"/conversations/{asked}{path}", body)
        checks.check_error(answer)
        answers[status] = answer.replace(asked.encode(), b"ID")
        assert status == 404
    assert len(answers) == 1
    assert len(set(answers.values())) == 1
    assert await server.store.conversations.history(foreign.id, "somebody") == ()


@pytest.mark.parametrize("hostile", ["%00", "a%20b", "x" * 257, "%ff", "conv_'--", "💩"])
@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_no_id_is_too_odd_to_be_not_found(serve, http, hostile, method, path, body):
    server = await serve()
    status, answer = await send(http, server, method, f"/conversations/{hostile}{path}", body)
    assert status == 404
    checks.check_error(answer)
    if path.startswith("/items/"):
        conversation = await begin(http, server, items=[said("one")])
        where = f"/conversations/{conversation}/items/{hostile}"
        assert (await refused(http, server, method, where))[0] == 404


async def test_metadata_and_texts_come_back_as_they_were(serve, sdk):
    client = sdk(await serve())
    odd = "NUL \0 line \u2028 half-width ｱ and 💩"
    made = await client.conversations.create(items=[said(odd)], metadata={"ключ": "значение 💩"})
    assert made.metadata == {"ключ": "значение 💩"}
    (item,) = (await client.conversations.items.list(made.id)).data
    assert item.content[0].text == odd


async def test_a_response_goes_on_in_the_conversation_and_is_added_to_it(serve, sdk):
    client = sdk(await serve())
    made = await client.conversations.create(items=[said("my name is Ann")])
    response = await client.responses.create(
        model="o4-mini", input="who am I?", conversation=made.id
    )
    assert response.conversation.id == made.id
    items = [item async for item in client.conversations.items.list(made.id, order="asc")]
    assert [item.role for item in items] == ["user", "user", "assistant"]
    assert items[-1].content[0].text == response.output_text
    assert items[-1].id == response.output[0].id


# Files.


def file_of(data: bytes, name: str) -> dict:
    return {
        "type": "input_file",
        "filename": name,
        "file_data": "data:text/plain;base64," + base64.b64encode(data).decode(),
    }


async def test_files_are_kept_and_go_by_their_ids(serve, sdk, http, tmp_path):
    async with real_files(tmp_path) as files:
        server = await serve(files=files)
        client = sdk(server)
        notes = said([{"type": "input_text", "text": "read"}, file_of(b"the sea", "a.txt")])
        # No tool is offered yet, so nobody can say that it will not be opened.
        binary = said([file_of(b"\x00\xff", "b.bin")])
        made = await client.conversations.create(items=[notes, binary])
        first, second = (await client.conversations.items.list(made.id, order="asc")).data
        kept = first.content[1]
        assert (kept.type, kept.filename, kept.file_data) == ("input_file", "a.txt", None)
        assert await (await client.files.content(kept.file_id)).aread() == b"the sea"
        binary_id = second.content[0].file_id
        assert await (await client.files.content(binary_id)).aread() == b"\x00\xff"
        history = await server.store.conversations.history(made.id, "local")
        assert [part.shown for part in history[0].parts[1:]] == ["the sea"]
        assert history[1].parts[0].shown == ""


@pytest.mark.parametrize("path", ["/conversations", "/conversations/{}/items"])
async def test_a_file_that_is_not_there_is_named(serve, http, tmp_path, path):
    async with real_files(tmp_path) as files:
        server = await serve(files=files)
        conversation = await begin(http, server)
        part = {"type": "input_file", "file_id": "file_none"}
        body = {"items": [said("a"), said([part])]}
        refusal = await refused(http, server, "POST", path.format(conversation), body)
        assert refusal == (400, "items[1].content[0].file_id", "file_not_found")


async def test_a_server_without_files_takes_what_the_model_can_read(serve, http):
    server = await serve()
    conversation = await begin(http, server, items=[said([file_of(b"the sea", "a.txt")])])
    (item,) = await server.store.conversations.history(conversation, "local")
    assert item.parts[0].shown == "the sea"
    body = {"items": [said([file_of(b"\x00", "b.bin")])]}
    refusal = await refused(http, server, "POST", "/conversations", body)
    assert refusal == (400, "items[0].content[0].file_data", "unsupported_value")


async def test_nothing_is_kept_for_a_conversation_that_is_not_there(serve, http, tmp_path):
    async with real_files(tmp_path) as files:
        server = await serve(files=files)
        body = {"items": [said([file_of(b"x", "a.txt")])]}
        assert (await send(http, server, "POST", "/conversations/conv_0/items", body))[0] == 404
        found, _ = await files.page("local", purpose=None, after=None, limit=9, order="asc")
        assert found == []


async def test_a_server_without_conversations_says_so(http):
    room = endpoints_conversations.ConversationsEndpoints(None, None, None)
    with pytest.raises(Exception, match="keeps no conversations"):
        await room.get(None)


async def test_the_sdk_tells_what_was_wrong(serve, sdk):
    client = sdk(await serve())
    with pytest.raises(BadRequestError) as caught:
        await client.conversations.create(items=[said("a")] * 21)
    assert caught.value.param == "items"
    assert json.loads(caught.value.response.text)["error"]["code"] == "array_above_max_length"
