"""Compaction as clients meet it: on request, near a limit, and instead of a refusal."""

from __future__ import annotations

import asyncio

import pytest
from openai import BadRequestError, NotFoundError

from ouzel.engines.scripted import Fail, Pause, Reply, Say, Script, ScriptedEngine
from ouzel.store.sealing import KeySealer
from wire import checks

NOTES = Reply(
    (Say("- I told them that rye needs salt.\n- I promised a recipe."),), last="^Look back"
)
WORDS = " and so on" * 30
MANAGED = [{"type": "compaction", "compact_threshold": 1000}]


def engine(window: int = 600, *replies: Reply) -> ScriptedEngine:
    """Says what it was told, and takes notes when it is asked for them."""
    plain = Reply((Say("You said: {input}"),))
    return ScriptedEngine(
        Script((*replies, NOTES, plain), context_window=window, tool_style="guided", thinks="no")
    )


def sealer() -> KeySealer:
    return KeySealer([b"k" * 32])


def kinds(response) -> list[str]:
    return [item.type for item in response.output]


async def talk(client, turns: int, **more):
    """So many turns, each continuing the last; the responses. The first message has a fact."""
    made, previous = [], None
    for turn in range(turns):
        text = "My name is Ada Obi and my cat is called Tom. " if turn == 0 else f"Turn {turn}. "
        previous = await client.responses.create(
            model="o4-mini",
            input=text + WORDS,
            previous_response_id=previous.id if previous else None,
            **more,
        )
        made.append(previous)
    return made


def shown(served) -> str:
    """All of the prompt that the engine was given last."""
    return "\n".join(message.text for message in served.engine.turns[-1].messages)


async def test_truncation_auto_compacts_what_does_not_fit_and_nothing_before(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    made = await talk(sdk(served), 6, truncation="auto")
    assert all(response.status == "completed" for response in made)
    assert kinds(made[0]) == kinds(made[1]) == ["message"]
    assert kinds(made[2]) == ["compaction", "message"]
    assert made[2].output[0].encrypted_content
    assert "Ada Obi" in shown(served)
    assert "rye needs salt" in shown(served)
    assert "Turn 5." in shown(served)


async def test_without_it_the_same_conversation_is_refused(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    with pytest.raises(BadRequestError) as caught:
        await talk(sdk(served), 6)
    assert caught.value.code == "context_length_exceeded"


async def test_compaction_begins_where_the_client_says(serve, sdk):
    served = await serve(engine(8000), sealer=sealer())
    made = await talk(sdk(served), 8, extra_body={"context_management": MANAGED})
    first = next(n for n, response in enumerate(made) if "compaction" in kinds(response))
    plain = await talk(sdk(served), 8)
    # It was not due before: the prompt of the turn before had no more than a thousand tokens.
    assert made[first - 1].usage.input_tokens <= 1000 < plain[first].usage.input_tokens
    assert "Ada Obi" in shown(served)


async def test_its_tokens_are_counted(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    made = await talk(sdk(served), 3, truncation="auto")
    notes, answer = list(served.engine.turns)[-2:]
    wanted = await served.engine.count_tokens(notes) + await served.engine.count_tokens(answer)
    assert made[2].usage.input_tokens == wanted
    text = made[2].output_text
    assert made[2].usage.output_tokens == len(text.split()) + len(NOTES.steps[0].text.split())


async def test_a_streamed_compaction_is_true_to_the_wire(serve, sdk, http):
    served = await serve(engine(), sealer=sealer())
    made = await talk(sdk(served), 2)
    body = {
        "model": "o4-mini",
        "input": WORDS,
        "previous_response_id": made[-1].id,
        "stream": True,
        "truncation": "auto",
    }
    async with http.post(f"{served.base_url}/responses", json=body) as reply:
        transcript = checks.check_response_stream(await reply.read())
    assert [item["type"] for item in transcript.response["output"]] == ["compaction", "message"]


async def test_a_client_that_keeps_everything_itself_goes_on_from_the_compaction_alone(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    client = sdk(served)
    items = [{"role": "user", "content": f"My name is Ada Obi. {WORDS}"}]
    for turn in range(5):
        response = await client.responses.create(
            model="o4-mini", input=items, store=False, truncation="auto"
        )
        given = [item.to_dict() for item in response.output]
        if given[0]["type"] == "compaction":
            items = []  # what came before it need not be sent again
        items += [*given, {"role": "user", "content": f"Turn {turn}. {WORDS}"}]
    assert "Ada Obi" in shown(served)
    assert "Turn 3." in shown(served)
    assert response.output_text.startswith("You said: Turn 3.")


async def test_a_conversation_goes_on_from_its_compaction(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    client = sdk(served)
    conversation = await client.conversations.create()
    for turn in range(6):
        text = "My name is Ada Obi." if turn == 0 else f"Turn {turn}."
        response = await client.responses.create(
            model="o4-mini",
            input=f"{text} {WORDS}",
            conversation=conversation.id,
            truncation="auto",
        )
    assert response.status == "completed"
    assert "Ada Obi" in shown(served)
    items = [item.type async for item in client.conversations.items.list(conversation.id)]
    assert items.count("message") == 12
    assert items.count("compaction") >= 2


async def test_a_message_that_does_not_fit_alone_is_refused_with_both_numbers(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    client = sdk(served)
    made = await talk(client, 2)
    for more in ({"truncation": "auto"}, {"extra_body": {"context_management": MANAGED}}):
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(
                model="o4-mini", input="word " * 700, previous_response_id=made[-1].id, **more
            )
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == "input"
        assert " 600 " in caught.value.message
        assert "701 tokens" in caught.value.message


async def test_an_engine_that_fails_while_it_takes_notes_fails_the_run(serve, sdk):
    broken = Reply((Fail("no notes today"),), last="^Look back")
    served = await serve(engine(600, broken), sealer=sealer())
    client = sdk(served)
    made = await talk(client, 2)
    with pytest.raises(Exception, match="no notes today"):
        await client.responses.create(
            model="o4-mini", input=WORDS, previous_response_id=made[-1].id, truncation="auto"
        )
    assert served.engine.active == 0


async def test_compact_gives_the_users_messages_and_what_stands_for_everything(serve, sdk, http):
    served = await serve(engine(), sealer=sealer())
    client = sdk(served)
    made = await talk(client, 2)
    compacted = await client.responses.compact(
        model="o4-mini", previous_response_id=made[-1].id, input="Now shorter, please."
    )
    assert compacted.object == "response.compaction"
    assert compacted.id.startswith("resp_")
    assert [item.type for item in compacted.output] == ["message"] * 3 + ["compaction"]
    assert compacted.output[0].role == "user"
    assert compacted.usage.total_tokens > 0
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(compacted.id)
    # The SDK's types know no message of the user's in an output, which is what there are.
    given = [item.to_dict(warnings=False) for item in compacted.output]
    for items in (given, given[-1:]):
        response = await client.responses.create(
            model="o4-mini", input=[*items, {"role": "user", "content": "Go on."}], store=False
        )
        assert response.output_text.endswith("Go on.")
        assert "Ada Obi" in shown(served)
        assert "Now shorter, please." in shown(served)


async def test_compact_takes_what_is_longer_than_the_window(serve, sdk):
    served = await serve(engine(), sealer=sealer())
    items = []
    for turn in range(12):
        items.append({"role": "user", "content": f"I have {turn} cats. {WORDS}"})
        items.append({"role": "assistant", "content": f"Fine. {WORDS}"})
    compacted = await sdk(served).responses.compact(model="o4-mini", input=items)
    assert compacted.output[-1].type == "compaction"
    items = [compacted.output[-1].to_dict(), {"role": "user", "content": "How many?"}]
    await sdk(served).responses.create(model="o4-mini", input=items)
    assert "I have 0 cats." in shown(served)
    assert "I have 11 cats." in shown(served)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "x"}, "model", "missing_required_parameter"),
        ({"model": None, "input": "x"}, "model", "invalid_type"),
        ({"model": "o4-mini"}, "input", "missing_required_parameter"),
        ({"model": "o4-mini", "input": []}, "input", "empty_array"),
        (
            {"model": "o4-mini", "input": "x", "conversation": "conv_1"},
            "conversation",
            "unknown_parameter",
        ),
        (
            {"model": "o4-mini", "input": "x", "service_tier": "fast"},
            "service_tier",
            "unsupported_parameter",
        ),
        ({"model": "o4-mini", "input": "x", "nonsense": 1}, "nonsense", "unknown_parameter"),
        (
            {"model": "o4-mini", "input": [{"type": "compaction", "encrypted_content": ""}]},
            "input[0].encrypted_content",
            "empty_string",
        ),
        ({"model": "o4-mini", "input": "word " * 900}, "input", "context_length_exceeded"),
        (
            {"model": "o4-mini", "input": [{"type": "compaction", "encrypted_content": "AAAA"}]},
            "input[0].encrypted_content",
            "invalid_encrypted_content",
        ),
    ],
)
async def test_compact_says_what_is_wrong(serve, http, body, param, code):
    served = await serve(engine(), sealer=sealer())
    async with http.post(f"{served.base_url}/responses/compact", json=body) as reply:
        error = (await reply.json())["error"]
        assert reply.status == 400, error
    assert error["param"] == param
    assert error["code"] == code


async def test_without_keys_nothing_is_compacted_that_a_client_would_have_to_keep(serve, sdk):
    served = await serve(engine())
    client = sdk(served)
    with pytest.raises(BadRequestError, match="no key"):
        await client.responses.compact(model="o4-mini", input="x")
    made = await talk(client, 4, truncation="auto")
    assert "compaction" in kinds(made[2])
    assert "Ada Obi" in shown(served)


async def test_compact_does_not_know_other_models_or_responses(serve, sdk):
    client = sdk(await serve(engine(), sealer=sealer()))
    with pytest.raises(NotFoundError):
        await client.responses.compact(model="gpt-2", input="x")
    with pytest.raises(BadRequestError) as caught:
        await client.responses.compact(model="o4-mini", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"


async def test_a_client_that_goes_away_frees_the_slot(serve, sdk, http):
    slow = Reply((Pause(60.0),), last="^Look back")
    served = await serve(engine(600, slow), sealer=sealer())
    items = [
        {"role": role, "content": f"{role} {turn} {WORDS}"}
        for turn in range(4)
        for role in ("user", "assistant")
    ]
    body = {"model": "o4-mini", "input": items}
    asking = asyncio.ensure_future(http.post(f"{served.base_url}/responses/compact", json=body))
    async with asyncio.timeout(10):
        while not served.engine.active:
            await asyncio.sleep(0.01)
        asking.cancel()
        while served.engine.active:
            await asyncio.sleep(0.01)
    assert served.engine.cancelled == 1
