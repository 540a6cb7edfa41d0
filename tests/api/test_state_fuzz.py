"""Made-up bodies, queries and URLs against conversations and stored completions: never a 500.

What is tried does not change from run to run; what is answered is held against the wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_kit import Background, background
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz_http import (
    Client,
    chat_message,
    fuzzed,
    id_bytes,
    names,
    places,
    responses_item,
    said,
    values,
)

from doubles import scripted
from wire import checks, state_checks

CONVERSATIONS, COMPLETIONS = "/v1/conversations", "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with background(scripted(), tmp_path_factory.mktemp("home")) as running:
        yield running
        running.at_rest()


@pytest.fixture(scope="module")
def client(server: Background) -> Iterator[Client]:
    made = Client(server.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def conversation(client: Client) -> str:
    made = client.send("POST", CONVERSATIONS, b'{"metadata": {"a": "b"}}')[2]
    return str(state_checks.check_conversation(made)["id"])


@pytest.fixture(scope="module")
def completion(client: Client) -> str:
    body = {"model": "o4-mini", "messages": [{"role": "user", "content": "a"}], "store": True}
    made = client.send("POST", COMPLETIONS, json.dumps(body).encode())[2]
    return str(checks.check_chat(made)["id"])


Check = Callable[[bytes], object]


def judge(answer: tuple[int, str, bytes], check: Check) -> int:
    """Check an answer, whatever it is; its status."""
    status, _, body = answer
    if status == 200:
        check(body)
    else:
        assert 400 <= status < 500, body
        checks.check_error(body)
    return status


def post(client: Client, path: str, body: Any, check: Check) -> int:
    raw = json.dumps(body).encode("utf-8", "replace")
    return judge(client.send("POST", path, raw), check)


fresh_items = st.lists(responses_item, max_size=4)
metadata = st.dictionaries(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80),
    max_size=4,
)
bodies = st.fixed_dictionaries({}, optional={"items": fresh_items, "metadata": metadata})


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A body in which one or two things are no longer what they were."""
    body = json.loads(json.dumps(draw(bodies)))
    for _ in range(draw(st.integers(1, 2))):
        where = places(body)
        if not where:
            return {draw(names): draw(values)}
        container, key = draw(st.sampled_from(where))
        if draw(st.booleans()):
            container[key] = draw(values)
        elif isinstance(container, dict):
            container[draw(names)] = draw(values)
        else:
            container.extend(json.loads(json.dumps(container)))
    return body


@fuzzed(100)
@given(body=bodies)
def test_whatever_is_right_is_kept(client: Client, conversation: str, body: dict[str, Any]) -> None:
    status, _, raw = client.send("POST", CONVERSATIONS, json.dumps(body).encode())
    assert status == 200, raw
    made = state_checks.check_conversation(raw)
    assert made["metadata"] == body.get("metadata", {})
    one = f"{CONVERSATIONS}/{made['id']}"
    _, _, raw = client.send("GET", f"{one}/items?limit=100&order=asc")
    items = state_checks.check_items(raw)["data"]
    assert len(items) == len(body.get("items", ()))
    if "items" in body:
        added = {"items": body["items"]}
        assert post(
            client, f"{CONVERSATIONS}/{conversation}/items", added, state_checks.check_items
        )
    for item in items:
        path = f"{one}/items/{item['id']}"
        assert judge(client.send("GET", path), state_checks.check_item) == 200
        assert judge(client.send("DELETE", path), state_checks.check_conversation) == 200
    assert state_checks.check_items(client.send("GET", f"{one}/items")[2])["data"] == []


@fuzzed(250)
@given(body=mutated() | values)
def test_any_body_is_answered(
    client: Client, conversation: str, completion: str, body: Any
) -> None:
    one = f"{CONVERSATIONS}/{conversation}"
    post(client, CONVERSATIONS, body, state_checks.check_conversation)
    post(client, one, body, state_checks.check_conversation)
    post(client, f"{one}/items", body, state_checks.check_items)
    post(client, f"{COMPLETIONS}/{completion}", body, state_checks.check_stored)


@fuzzed(60)
@given(messages=st.lists(chat_message, min_size=1, max_size=5), text=said, more=metadata)
def test_whatever_is_stored_is_there(
    client: Client, messages: list[dict[str, Any]], text: str, more: dict[str, str]
) -> None:
    sent = [*messages, {"role": "user", "content": text}]
    body = {"model": "o4-mini", "messages": sent, "store": True, "metadata": more}
    status, _, raw = client.send("POST", COMPLETIONS, json.dumps(body).encode())
    assert status == 200, raw
    made = checks.check_chat(raw)
    one = f"{COMPLETIONS}/{made['id']}"
    found = state_checks.check_stored(client.send("GET", one)[2])
    assert {name: found[name] for name in made} == made
    assert found["metadata"] == more
    page = state_checks.check_messages(client.send("GET", f"{one}/messages?limit=100")[2])
    assert [each["role"] for each in page["data"]] == [each["role"] for each in sent]
    judge(client.send("DELETE", one), lambda raw: state_checks.check_gone(raw, made["id"]))
    assert client.send("GET", one)[0] == 404


queries = st.lists(
    st.tuples(
        st.sampled_from(
            ["limit", "order", "after", "include", "include[]", "model", "metadata[a]", "metadata["]
        )
        | id_bytes,
        st.sampled_from(["1", "asc", "desc", "reasoning.encrypted_content", "o4-mini", ""])
        | id_bytes,
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@fuzzed(300)
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "PUT"]),
    root=st.sampled_from([CONVERSATIONS, COMPLETIONS]),
    leaf=st.sampled_from(
        ["", "/", "/{}", "/{}/items", "/{}/items/{}", "/{}/messages", "/{}/items/"]
    ),
    known=st.booleans(),
    some_id=id_bytes,
    query=queries,
)
def test_any_url_is_answered(
    client: Client,
    conversation: str,
    completion: str,
    method: str,
    root: str,
    leaf: str,
    known: bool,
    some_id: str,
    query: str,
) -> None:
    first = some_id
    if known and not (method == "DELETE" and leaf == "/{}"):  # these two are still needed
        first = conversation if root == CONVERSATIONS else completion
    path = root + leaf.replace("{}", first, 1).replace("{}", some_id)
    status, _, body = client.send(method, f"{path}?{query}")
    assert status < 500, body
    if status != 200:
        checks.check_error(body)
