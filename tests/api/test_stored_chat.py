"""Stored Chat Completions over HTTP: list, get, update, delete, messages; with the SDK and raw."""

from __future__ import annotations

import asyncio

import pytest
from files_kit import real_files
from openai import BadRequestError, NotFoundError, RateLimitError
from test_conversations_http import file_of, refused, send

from doubles import scripted
from ouzel.api import endpoints_stored_chat, read_chat, write_stored_chat
from ouzel.core.errors import RequestError
from ouzel.core.request import FunctionTool
from ouzel.core.runs import Run
from ouzel.engines.scripted import (
    Call,
    Fail,
    Pause,
    Reply,
    Say,
    Script,
    ScriptedEngine,
    Stop,
    Think,
)
from wire import state_checks

HELLO = [{"role": "user", "content": "hello"}]
BODY = {"model": "o4-mini", "messages": HELLO, "store": True}
PATH = "/chat/completions"


async def make(client, text: str = "hello", **more):
    messages = [{"role": "user", "content": text}]
    return await client.chat.completions.create(
        **{"model": "o4-mini", "messages": messages, "store": True} | more
    )


async def listed(client, **asked) -> list[str]:
    return [each.id async for each in client.chat.completions.list(**asked)]


async def test_the_official_sdk_fetches_what_it_stored(serve, sdk):
    client = sdk(await serve(scripted(Think("hm"), Say("You said: {input}"))))
    made = await make(client, metadata={"topic": "demo"})
    found = await client.chat.completions.retrieve(made.id)
    assert found.choices == made.choices
    assert found.choices[0].message.reasoning_content == "hm"
    assert (found.usage, found.created, found.model) == (made.usage, made.created, made.model)
    assert found.metadata == {"topic": "demo"}
    assert found.service_tier == "default"


async def test_what_was_not_stored_is_not_found(serve, sdk):
    client = sdk(await serve())
    for store in (False, None):
        made = await make(client, store=store)
        for call in (client.chat.completions.retrieve, client.chat.completions.delete):
            with pytest.raises(NotFoundError):
                await call(made.id)
    assert await listed(client) == []


async def test_the_official_sdk_changes_metadata_and_nothing_else(serve, sdk):
    client = sdk(await serve())
    made = await make(client, metadata={"topic": "demo"}, n=2)
    before = await client.chat.completions.retrieve(made.id)
    changed = await client.chat.completions.update(made.id, metadata={"by": "ann"})
    assert changed.metadata == {"by": "ann"}
    assert changed.model_dump(exclude={"metadata"}) == before.model_dump(exclude={"metadata"})
    assert await client.chat.completions.retrieve(made.id) == changed
    cleared = await client.chat.completions.update(made.id, metadata=None)
    assert cleared.metadata == {}


async def test_the_official_sdk_deletes(serve, sdk):
    server = await serve()
    client = sdk(server)
    made, other = await make(client, n=3), await make(client)
    choices = await server.store.choices_of(made.id, "local")
    deleted = await client.chat.completions.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (
        made.id,
        "chat.completion.deleted",
        True,
    )
    for call in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(NotFoundError):
            await call(made.id)
    assert await listed(client) == [other.id]
    for run in choices:
        with pytest.raises(RequestError):
            await server.store.load(run.id, "local")


async def test_all_choices_are_one_completion(serve, sdk):
    replies = [Reply((Say(word),), times=1) for word in ("one", "two", "three")]
    client = sdk(await serve(ScriptedEngine(Script((*replies, Reply((Say("more"),)))))))
    made = await make(client, n=3, seed=7)
    found = await client.chat.completions.retrieve(made.id)
    assert [choice.message.content for choice in found.choices] == ["one", "two", "three"]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert (found.choices, found.usage) == (made.choices, made.usage)
    assert await listed(client) == [made.id]


async def test_a_further_choice_is_no_completion_of_its_own(serve, sdk):
    server = await serve()
    client = sdk(server)
    made = await make(client, n=2)
    _, further = await server.store.choices_of(made.id, "local")
    completions = client.chat.completions
    for call in (completions.retrieve, completions.delete):
        with pytest.raises(NotFoundError):
            await call(further.id)
    with pytest.raises(BadRequestError) as caught:
        await completions.list(after=further.id)
    assert caught.value.param == "after"


@pytest.mark.parametrize("n", [1, 3])
async def test_a_streamed_completion_is_stored_as_well(serve, sdk, n):
    client = sdk(await serve(scripted(Think("hm"), Say("one two three"))))
    stream = await make(client, n=n, stream=True, metadata={"topic": "demo"})
    chunks = [chunk async for chunk in stream]
    found = await client.chat.completions.retrieve(chunks[0].id)
    assert [choice.message.content for choice in found.choices] == ["one two three"] * n
    assert found.created == chunks[0].created
    assert found.metadata == {"topic": "demo"}
    assert await listed(client) == [found.id]


# Lists.


async def test_the_list_is_filtered_ordered_and_paged(serve, sdk):
    client = sdk(await serve())
    made = []
    for number in range(5):
        metadata = {"even": str(number % 2 == 0), "odd [key]": "ä&=?", "number": str(number)}
        model = "scripted" if number == 3 else "o4-mini"
        made.append((await make(client, metadata=metadata, model=model)).id)
    assert await listed(client) == made
    assert await listed(client, order="desc") == made[::-1]
    assert await listed(client, limit=2) == made
    assert await listed(client, limit=1, order="desc", after=made[3]) == made[2::-1]
    assert await listed(client, metadata={"even": "True"}) == made[::2]
    assert await listed(client, metadata={"even": "True", "number": "2"}) == [made[2]]
    assert await listed(client, metadata={"odd [key]": "ä&=?"}, limit=2) == made
    assert await listed(client, metadata={"even": "true"}) == []
    assert await listed(client, metadata={"none": "x"}) == []
    assert await listed(client, model="scripted") == made  # the name that all were served under
    assert await listed(client, model="other") == []
    page = await client.chat.completions.list(limit=2)
    assert (page.has_more, page.first_id, page.last_id) == (True, made[0], made[1])


async def test_runs_of_the_other_api_are_no_completions(serve, sdk):
    client = sdk(await serve())
    response = await client.responses.create(model="o4-mini", input="hello")
    assert await listed(client) == []
    completions = client.chat.completions
    for call in (completions.retrieve, completions.delete, completions.messages.list):
        with pytest.raises(NotFoundError):
            await call(response.id)
    assert (await client.responses.retrieve(response.id)).id == response.id


async def test_one_that_failed_is_not_listed(serve, sdk, http):
    replies = (Reply((Say("a"), Fail("no")), match="fail"), Reply((Say("fine"),)))
    server = await serve(ScriptedEngine(Script(replies)))
    client = sdk(server)
    status, _ = await send(
        http, server, "POST", PATH, {**BODY, "messages": [{"role": "user", "content": "fail"}]}
    )
    assert status == 500
    made = await make(client)
    assert await listed(client) == [made.id]


async def test_one_of_which_a_choice_failed_is_not_there(serve, sdk, http):
    replies = (
        Reply((Say("good"),), times=1),
        Reply((Fail("no"),), times=1),
        Reply((Say("fine"),)),
    )
    server = await serve(ScriptedEngine(Script(replies)))
    client = sdk(server)
    status, _ = await send(http, server, "POST", PATH, {**BODY, "n": 2})
    assert status == 500
    page = await server.store.page_runs(
        "local", model=None, metadata={}, after=None, limit=5, order="asc"
    )
    (good,) = page.entries  # the choice that ended well is kept as it is
    with pytest.raises(NotFoundError):
        await client.chat.completions.retrieve(good.id)
    made = await make(client)
    assert await listed(client, limit=1) == [made.id]
    assert (await client.chat.completions.delete(good.id)).deleted


async def test_one_that_never_began_as_a_whole_is_forgotten(serve, sdk):
    server = await serve(max_requests=2)
    client = sdk(server)
    with pytest.raises(RateLimitError):
        await make(client, n=3)
    assert await listed(client) == []
    assert [run async for run in server.store.interrupted()] == []
    assert (await make(client, n=2)).id == (await listed(client))[0]


async def test_one_that_still_runs_is_not_there_yet(serve, sdk):
    server = await serve(scripted(Say("one"), Pause(60), Say("two")))
    client = sdk(server)
    stream = await make(client, stream=True)
    chunk = await anext(aiter(stream))
    with pytest.raises(NotFoundError):
        await client.chat.completions.retrieve(chunk.id)
    assert await listed(client) == []
    await stream.close()
    while server.answers._finding.live:  # whoever goes away cancels it
        await asyncio.sleep(0.01)
    with pytest.raises(NotFoundError):
        await client.chat.completions.retrieve(chunk.id)


async def test_one_that_was_cut_short_is_there(serve, sdk):
    client = sdk(await serve(scripted(Say("cut of"), Stop("length"))))
    made = await make(client)
    found = await client.chat.completions.retrieve(made.id)
    assert found.choices[0].finish_reason == "length"
    assert await listed(client) == [made.id]


# The object.


async def test_the_stored_object_repeats_what_was_asked_for(serve, http):
    server = await serve()
    asked = {
        "temperature": 0.5,
        "seed": 7,
        "user": "ann",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "act",
                    "description": "Does it.",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": False,
                },
            },
            {"type": "custom", "custom": {"name": "write", "format": {"type": "text"}}},
        ],
        "tool_choice": "none",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "any", "schema": {"type": "object"}, "strict": False},
        },
    }
    engine_reply = await send(http, server, "POST", PATH, {**BODY, "user": "ann", "seed": 7})
    made = state_checks._parsed(engine_reply[1])
    _, found = await send(http, server, "GET", f"{PATH}/{made['id']}")
    plain = state_checks.check_stored(found)
    assert {name: plain[name] for name in ("tools", "tool_choice", "response_format")} == {
        "tools": None,
        "tool_choice": None,
        "response_format": None,
    }
    assert (plain["seed"], plain["input_user"], plain["request_id"]) == (7, "ann", None)
    assert (plain["presence_penalty"], plain["frequency_penalty"]) == (0.0, 0.0)
    assert plain["metadata"] == {}

    request = read_chat.read({**BODY, **asked}).request
    stored = write_stored_chat.stored(
        [Run("chatcmpl-1", "local", "m", 1.0, request, "completed", finished_at=2.0)]
    )
    state_checks.check_stored(stored)
    for name, value in asked.items():
        assert stored["input_user" if name == "user" else name] == value
    # What is written can be sent again.
    again = {name: stored[name] for name in ("tools", "tool_choice", "response_format")}
    assert read_chat.read({**BODY, **again}).request.tools == request.tools


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "function", "function": {"name": "act"}},
        {"type": "custom", "custom": {"name": "write"}},
        {"type": "code_interpreter"},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [
                    {"type": "function", "function": {"name": "act"}},
                    {"type": "code_interpreter"},
                ],
            },
        },
    ],
    ids=str,
)
def test_every_tool_choice_is_written_as_it_was_made(choice):
    grammar = {"syntax": "regex", "definition": "a+"}
    tools = [
        {"type": "function", "function": {"name": "act"}},
        {
            "type": "custom",
            "custom": {"name": "write", "format": {"type": "grammar", "grammar": grammar}},
        },
        {"type": "code_interpreter", "container": {"type": "auto"}},
    ]
    hosted = frozenset({"code_interpreter"})
    body = {**BODY, "tools": tools, "tool_choice": choice}
    request = read_chat.read(body, hosted).request
    assert isinstance(request.tools[0], FunctionTool)
    written = [write_stored_chat.tool(tool) for tool in request.tools]
    assert written[1:] == tools[1:]
    assert write_stored_chat.tool_choice(request.tool_choice, request.tools) == choice
    assert read_chat.read({**body, "tools": written}, hosted).request.tools == request.tools


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_a_plain_format_is_written_if_it_is_not_the_usual_one(kind):
    messages = [{"role": "user", "content": "as json"}]
    body = {**BODY, "messages": messages, "response_format": {"type": kind}}
    run = Run("chatcmpl-1", "local", "m", 1.0, read_chat.read(body).request, "completed")
    wanted = None if kind == "text" else {"type": kind}
    assert write_stored_chat.stored([run])["response_format"] == wanted


# Messages.

CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "act", "arguments": "{}"}},
    {"id": "c2", "type": "custom", "custom": {"name": "write", "input": "x"}},
]
HOSTED = {
    "type": "mcp_call",
    "id": "mcp_1",
    "server_label": "notes",
    "name": "find",
    "arguments": "{}",
    "output": "here",
    "error": None,
    "status": "completed",
    "approval_request_id": None,
}
SENT = [
    {"role": "developer", "content": "be kind"},
    {"role": "user", "content": "hello", "name": "ann"},
    {"role": "assistant", "content": "hi", "reasoning_content": "a greeting"},
    {"role": "assistant", "content": "more", "name": "bot"},
    {"role": "assistant", "content": None, "refusal": "no"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": "I call", "hosted_tool_calls": [HOSTED], "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c2", "content": "9"},
    {
        "role": "tool",
        "tool_call_id": "c1",
        "content": [{"type": "text", "text": "8"}, {"type": "text", "text": "!"}],
    },
    {"role": "assistant", "content": None, "reasoning_content": "again", "tool_calls": CALLS[:1]},
    {"role": "tool", "tool_call_id": "c1", "content": "7"},
    {"role": "user", "content": "well?"},
]


async def test_the_messages_are_those_that_were_sent(serve, http):
    server = await serve()
    status, made = await send(http, server, "POST", PATH, {**BODY, "messages": SENT})
    assert status == 200, made
    completion_id = state_checks._parsed(made)["id"]
    _, answer = await send(http, server, "GET", f"{PATH}/{completion_id}/messages")
    page = state_checks.check_messages(answer)
    assert [message["id"] for message in page["data"]] == [
        f"{completion_id}-{place}" for place in range(len(SENT))
    ]
    for message, sent in zip(page["data"], SENT, strict=True):
        given = sent.get("content")
        if isinstance(given, list):
            assert message["content_parts"] == given
            assert message["content"] == "".join(part["text"] for part in given)
        else:
            assert (message["content"], message["content_parts"]) == (given, None)
        rest = {name: value for name, value in sent.items() if name != "content"}
        assert {name: message.get(name) for name in rest} == rest
    # They can be sent again, without what is not theirs.
    extra = ("id", "content_parts", "annotations")
    again = [{k: v for k, v in each.items() if k not in extra} for each in page["data"]]
    for each in again:
        if each["role"] != "assistant":
            del each["refusal"]
    kinds = [item.kind for item in read_chat.read({**BODY, "messages": SENT}).request.input]
    given_back = read_chat.read({**BODY, "messages": again}).request.input
    assert [item.kind for item in given_back] == kinds


async def test_the_official_sdk_pages_through_the_messages(serve, sdk):
    client = sdk(await serve())
    messages = [{"role": "user", "content": f"message {number}"} for number in range(7)]
    made = await client.chat.completions.create(model="o4-mini", messages=messages, store=True)
    list_ = client.chat.completions.messages.list
    wanted = [each["content"] for each in messages]
    assert [each.content async for each in list_(made.id, limit=3)] == wanted
    assert [each.content async for each in list_(made.id, limit=2, order="desc")] == wanted[::-1]
    after = await list_(made.id, after=f"{made.id}-4")
    assert [each.content for each in after.data] == wanted[5:]
    assert (after.has_more, after.data[0].role) == (False, "user")
    with pytest.raises(BadRequestError) as caught:
        await list_(made.id, after=f"{made.id}-7")
    assert caught.value.param == "after"


async def test_a_file_in_a_message_goes_by_its_id(serve, sdk, http, tmp_path):
    async with real_files(tmp_path) as files:
        server = await serve(files=files)
        client = sdk(server)
        given = file_of(b"the sea", "a.txt")
        file = {"filename": given["filename"], "file_data": given["file_data"]}
        parts = [{"type": "text", "text": "read"}, {"type": "file", "file": file}]
        made = await client.chat.completions.create(
            model="o4-mini", messages=[{"role": "user", "content": parts}], store=True, n=2
        )
        _, answer = await send(http, server, "GET", f"{PATH}/{made.id}/messages")
        (message,) = state_checks.check_messages(answer)["data"]
        assert message["content"] == "read"
        found = message["content_parts"]
        assert found[0] == parts[0]
        assert found[1]["type"] == "file"
        assert found[1]["file"]["filename"] == "a.txt"
        kept = await client.files.content(found[1]["file"]["file_id"])
        assert await kept.aread() == b"the sea"


async def test_calls_that_were_asked_for_are_there(serve, sdk):
    client = sdk(await serve(scripted(Call("act", "{}"))))
    tools = [{"type": "function", "function": {"name": "act", "parameters": {}}}]
    made = await make(client, tools=tools)
    found = await client.chat.completions.retrieve(made.id)
    assert found.choices == made.choices
    assert found.choices[0].message.tool_calls[0].function.name == "act"


# What is wrong.


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("?limit=0", "limit", "invalid_value"),
        ("?limit=101", "limit", "invalid_value"),
        ("?limit=99999999999999999999", "limit", "invalid_value"),
        ("?order=up", "order", "invalid_value"),
        ("?after=chatcmpl-0", "after", "invalid_value"),
        ("?after=%00", "after", "invalid_value"),
        ("?before=x", "before", "unknown_parameter"),
        ("?metadata=x", "metadata", "unknown_parameter"),
        ("?metadata[a]=1&metadata[a]=2", "metadata.a", "invalid_value"),
        ("?metadata[a]=%00", "metadata.a", "invalid_value"),
        ("?metadata[%00]=a", "metadata", "invalid_value"),
        ("?metadata[a]=" + "x" * 513, "metadata.a", "string_above_max_length"),
        ("?metadata[" + "x" * 65 + "]=a", "metadata", "string_above_max_length"),
        (
            "?" + "&".join(f"metadata[{n}]=a" for n in range(17)),
            "metadata",
            "object_above_max_properties",
        ),
        ("?model=", "model", "empty_string"),
        ("?model=%00", "model", "invalid_value"),
        ("?model=a&model=b", "model", "invalid_value"),
        ("?include=x", "include", "unknown_parameter"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_wrong_in_a_query_is_named(serve, http, query, param, code):
    server = await serve()
    assert await refused(http, server, "GET", PATH + query) == (400, param, code)


@pytest.mark.parametrize(
    ("method", "path", "body", "param", "code"),
    [
        ("GET", "?x=1", None, "x", "unknown_parameter"),
        ("DELETE", "", {"x": 1}, "x", "unknown_parameter"),
        ("POST", "", {}, "metadata", "missing_required_parameter"),
        ("POST", "", {"metadata": []}, "metadata", "invalid_type"),
        ("POST", "", {"metadata": {}, "model": "x"}, "model", "unknown_parameter"),
        ("GET", "/messages?limit=0", None, "limit", "invalid_value"),
        ("GET", "/messages?model=x", None, "model", "unknown_parameter"),
        ("GET", "/messages?include=x", None, "include", "unknown_parameter"),
    ],
    ids=str,
)
async def test_what_is_wrong_elsewhere_is_named(serve, http, method, path, body, param, code):
    server = await serve()
    _, made = await send(http, server, "POST", PATH, BODY)
    where = f"{PATH}/{state_checks._parsed(made)['id']}{path}"
    assert await refused(http, server, method, where, body) == (400, param, code)


ROUTES = [
    ("GET", "", None),
    ("POST", "", {"metadata": {}}),
    ("DELETE", "", None),
    ("GET", "/messages", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=str)
async def test_a_foreign_completion_is_as_unknown_as_any(serve, http, method, path, body):
    server = await serve()
    request = read_chat.read(BODY).request
    foreign = Run("chatcmpl-foreign", "somebody", "m", 1.0, request, "completed")
    await server.store.begin(foreign)
    answers = set()
    for asked in (foreign.id, "chatcmpl-unknown"):
        status, answer = await send(http, server, method, f"{PATH}/{asked}{path}", body)
        assert status == 404
        state_checks.checks.check_error(answer)
        answers.add(answer.replace(asked.encode(), b"ID"))
    assert len(answers) == 1
    for hostile in ("%00", "a%20b", "x" * 257, "%ff", "💩", "..%2f"):
        where = f"{PATH}/{hostile}{path}"
        assert (await refused(http, server, method, where, body))[0] == 404
    assert (await refused(http, server, "GET", f"{PATH}?after={foreign.id}"))[1] == "after"
    assert await server.store.choices_of(foreign.id, "somebody") == (foreign,)
    _, answer = await send(http, server, "GET", PATH)
    assert state_checks.check_stored_page(answer)["data"] == []


async def test_the_list_is_true_to_the_wire(serve, http):
    server = await serve()
    for n in (1, 2, 1):
        await send(http, server, "POST", PATH, {**BODY, "n": n, "metadata": {"n": str(n)}})
    _, answer = await send(http, server, "GET", f"{PATH}?metadata[n]=1&limit=1")
    page = state_checks.check_stored_page(answer)
    assert (len(page["data"]), page["has_more"]) == (1, True)


async def test_a_server_that_lists_none_says_so():
    room = endpoints_stored_chat.StoredChatEndpoints(None, None, None)
    with pytest.raises(RequestError, match="lists no chat completions"):
        await room.get(None)
